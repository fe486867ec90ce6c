"""Tabulates what `make real-events` reached: FOLDER/events.md.

python experiments/real/events_report.py runs/real/events
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from peav import PEAV
from peav.evaluation.detection import Collar, Intersection, ScoredClip, Segments, f1_score
from peav.evaluation.detection.counts import Matching

#: What is reported, by name in evaluation.json.
METRICS = {
    "psds1": "PSDS1",
    "psds1_alpha_st_0": "PSDS1, alpha_st = 0",
    "psds2": "PSDS2",
    "event_f1": "event F1",
    "segment_f1": "segment F1",
    "intersection_f1": "intersection F1",
    "false_alarms_per_hour": "false alarms an hour",
}
RUNS = {"mixed": "mixtures made on the fly", "alone": "single sounds and speech, without mixing"}
SETS = {"mixtures": "new recordings", "melodies": "new melodies of known instruments"}


def row(name: str, evaluation: dict[str, Any]) -> str:
    """Returns a line of the table."""
    frames = evaluation["frames"]
    values = [frames["macro"], *(frames["metrics"].get(metric) for metric in METRICS)]
    cells = ["-" if value is None else f"{value:.3f}" for value in values]
    return f"| {name} | {' | '.join(cells)} |"


def detected(model: PEAV, folder: Path) -> list[ScoredClip]:
    """Returns what `PEAV.detect` finds in the test clips of a folder that events.py made, with the settings of the model.

    A score is 1 in the frames (40 ms) of a span and 0 elsewhere.
    """
    clips = [json.loads(line) for line in (folder / "clips.jsonl").read_text(encoding="utf-8").splitlines()]
    clips = [clip for clip in clips if clip["split"] == "test"]
    phrases = sorted({event["phrase"] for clip in clips for event in clip["events"]})
    found = model.detect([folder / clip["audio"] for clip in clips], phrases)
    scored = []
    for clip, spans in zip(clips, found, strict=True):
        times = np.arange(0, 8.0 + 0.02, 0.04)
        scores = np.zeros((len(times) - 1, len(phrases)))
        for label, of_label in enumerate(spans):
            for span in of_label:
                scores[round(span.onset / 0.04) : round(span.offset / 0.04), label] = 1
        events = [(phrases.index(event["phrase"]), event["onset"], event["offset"]) for event in clip["events"]]
        scored.append(ScoredClip(scores, times, events))
    return scored


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    found = {
        (run, name): json.loads((folder / run / name / "evaluation.json").read_text()) for run in RUNS for name in SETS
    }
    lines = [
        f"| test clips of | frame AUROC | {' | '.join(METRICS.values())} |",
        "|---|" + "---:|" * (1 + len(METRICS)),
    ]
    for (run, name), evaluation in found.items():
        lines.append(row(f"{SETS[name]}; trained on {RUNS[run]}", evaluation))
    kinds = {key: evaluation["frames"]["per_phrase"] for key, evaluation in found.items() if key[1] == "mixtures"}
    lines += ["", "| frame AUROC on new recordings | " + " | ".join(RUNS[run] for run, _ in kinds) + " |"]
    lines.append("|---|" + "---:|" * len(kinds))
    for kind in sorted(next(iter(kinds.values()))):
        lines.append(f"| {kind} | " + " | ".join(f"{values[kind]['auroc']:.3f}" for values in kinds.values()) + " |")
    scored = detected(PEAV.from_pretrained(str(folder / "tuned")), folder / "mixtures")
    lines += ["", "| `peav detect` with the tuned model, on new recordings | macro F1 | micro F1 |", "|---|---:|---:|"]
    rules: dict[str, Matching] = {"event": Collar(), "segment": Segments(), "intersection": Intersection()}
    for name, matching in rules.items():
        reached = f1_score(scored, matching)
        lines.append(f"| {name} | {reached.macro:.3f} | {reached.micro:.3f} |")
    (folder / "events.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
