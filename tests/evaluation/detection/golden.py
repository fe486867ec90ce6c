"""Writes what sed_scores_eval finds on the random cases: `python -m tests.evaluation.detection.golden`.

It needs an environment with the extra `sed` (sed_scores_eval 0.0.4, pandas below 3, a C compiler) and nothing else of peav's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.evaluation.detection.cases import COLLAR, NUM_CASES, SCORES, SEGMENT_SECONDS, THRESHOLD, CaseClip, case

GOLDEN = Path(__file__).parents[2] / "assets/sed_scores_eval.json"


def oracle(clips: list[CaseClip]) -> dict[str, Any]:
    """Returns what sed_scores_eval finds. It refuses events of one label that touch, so they are merged first, by hand."""
    from sed_scores_eval import collar_based, intersection_based, segment_based
    from sed_scores_eval.base_modules.scores import create_score_dataframe

    names = [f"label{k}" for k in range(clips[0].scores.shape[1])]
    scores = {f"{a}": create_score_dataframe(clip.scores, clip.times, names) for a, clip in enumerate(clips)}
    truth = {f"{a}": _merged(clip.events, names) for a, clip in enumerate(clips)}
    seconds = {f"{a}": clip.seconds for a, clip in enumerate(clips)}
    ends = {f"{a}": float(clip.times[-1]) for a, clip in enumerate(clips)}
    found: dict[str, Any] = {}
    for name, (dtc, gtc, cttc, alpha_ct, alpha_st, e_max) in SCORES.items():
        value, per_label, *_ = intersection_based.psds(
            scores,
            truth,
            seconds,
            dtc_threshold=dtc,
            gtc_threshold=gtc,
            cttc_threshold=cttc,
            alpha_ct=alpha_ct,
            alpha_st=alpha_st,
            max_efpr=e_max,
        )
        found[name] = [value, *(per_label[label] for label in names)]
    # A segment of -inf is positive at its lowest threshold; a low number makes ours so.
    detectable = {
        f"{a}": create_score_dataframe(clip.scores.clip(min=-1.0), clip.times, names) for a, clip in enumerate(clips)
    }
    collar = {"onset_collar": COLLAR[0], "offset_collar": COLLAR[1], "offset_collar_rate": COLLAR[2]}
    share = {"dtc_threshold": 0.5, "gtc_threshold": 0.5}
    whole = {"segment_length": SEGMENT_SECONDS}
    kinds: dict[str, tuple[Any, tuple[Any, ...], dict[str, float]]] = {
        "collar": (collar_based, (scores, truth), collar),
        "intersection": (intersection_based, (scores, truth), share),
        "segments": (segment_based, (detectable, truth, ends), whole),
    }
    for name, (module, data, settings) in kinds.items():
        f, *_ = module.fscore(*data, threshold=THRESHOLD, **settings)
        found[name] = [f["macro_average"], f["micro_average"], *(f[label] for label in names)]
        best, *_ = module.best_fscore(*data, **settings)
        found[f"best_{name}"] = [best[label] for label in names]
    return {name: [round(float(value), 9) for value in values] for name, values in found.items()}


def _merged(events: list[tuple[int, float, float]], names: list[str]) -> list[tuple[float, float, str]]:
    kept: list[list[float]] = []
    for label, onset, offset in sorted(events):
        if kept and kept[-1][0] == label and kept[-1][2] >= onset:
            kept[-1][2] = max(kept[-1][2], offset)
        else:
            kept.append([label, onset, offset])
    return [(onset, offset, names[int(label)]) for label, onset, offset in kept]


if __name__ == "__main__":
    results = [json.dumps(oracle(case(seed))) for seed in range(NUM_CASES)]
    GOLDEN.write_text("[\n" + ",\n".join(results) + "\n]\n")
