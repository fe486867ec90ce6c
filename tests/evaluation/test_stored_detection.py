"""F1 and false alarms by the settings that are stored with a model, PSDS after its median filter, and what the report shows of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from peav.checkpoints import DetectionSettings
from peav.evaluation import EmbeddingTable, evaluate_table
from peav.evaluation.decisions import Decisions
from peav.evaluation.detection import (
    PSDS,
    PSDS1,
    PSDS2,
    Collar,
    ScoredClip,
    absent_counts,
    f1_score,
    false_alarms,
    psds,
)
from peav.evaluation.directions import Evaluation, FrameLevel, evaluate_frames, frame_logits
from peav.evaluation.event_plots import psds_figure, reliability_figure
from peav.evaluation.events import _thinned
from peav.evaluation.report import write_report
from peav.spans import find_spans, median_filter
from tests.evaluation.synthetic import HOP, PHRASES, make_table

SETTINGS = DetectionSettings(0.25, {"Siren": 0.6, "rain": 0.1}, median_seconds=0.2)
FULL = replace(SETTINGS, low_threshold=0.15, merge_seconds=0.3, min_seconds=0.25)


@pytest.fixture(scope="module")
def table() -> EmbeddingTable:
    return make_table(40, signal=0.6)


def probabilities(table: EmbeddingTable, clip: int) -> torch.Tensor:
    return torch.sigmoid(frame_logits(table, clip).double())


def scored(table: EmbeddingTable, scores: list[torch.Tensor]) -> list[ScoredClip]:
    """The annotated clips with other scores (K, T)."""
    part = table.frame_part
    clips = [c for c, events in enumerate(part.events) if events is not None]
    return [
        ScoredClip(
            scores[c].T.numpy(),
            np.arange(scores[c].shape[1] + 1) * HOP,
            [(PHRASES.index(phrase), a, b) for phrase, a, b in part.events[c] or []],
        )
        for c in clips
    ]


@pytest.mark.parametrize("settings", [SETTINGS, FULL, replace(FULL, median_seconds=0.0, thresholds={})])
def test_f1_and_false_alarms_are_those_of_the_spans_that_detection_finds(
    table: EmbeddingTable, settings: DetectionSettings
) -> None:
    limits = [settings.thresholds.get(phrase, settings.threshold) for phrase in PHRASES]
    low = None if settings.low_threshold is None else [min(limit, settings.low_threshold) for limit in limits]
    found = []
    for clip in range(len(table)):
        p = probabilities(table, clip)
        spans = find_spans(
            p[None], torch.ones(1, p.shape[1], dtype=torch.bool), limits, HOP, None, settings.min_seconds,
            settings.merge_seconds, low, settings.median_seconds,
        )[0]  # fmt: skip
        middle = (torch.arange(p.shape[1]) + 0.5) * HOP
        rows = [sum(((s.onset < middle) & (middle < s.offset)).double() for s in of) for of in spans]
        found.append(torch.stack([row + torch.zeros(p.shape[1]) for row in rows]))
    clips = scored(table, found)
    level = evaluate_frames(replace(table, detection=settings))
    f1 = f1_score(clips, Collar(), 0.5)
    assert level.metrics["event_f1"] == pytest.approx(f1.macro) and f1.macro is not None and f1.macro > 0.1
    alarms = false_alarms(absent_counts(clips, 0.5).sum(0)).per_hour
    assert level.metrics["false_alarms_per_hour"] == pytest.approx(alarms)
    for k, phrase in enumerate(PHRASES):
        row = level.per_phrase[phrase]
        assert row["event_f1"] == pytest.approx(f1.per_label[k]) and row["threshold"] == limits[k]
        assert bool(row["tuned"]) == (settings.threshold_of(phrase) is not None)
    assert level.metrics["event_f1"] != evaluate_frames(table).metrics["event_f1"]


def test_psds_is_reported_of_raw_scores_and_after_the_filter(table: EmbeddingTable) -> None:
    raw, stored = evaluate_frames(table), evaluate_frames(replace(table, detection=SETTINGS))
    clips = scored(table, [median_filter(probabilities(table, c), 0.2, HOP) for c in range(len(table))])
    for name, settings in (("psds1", PSDS1), ("psds1_alpha_st_0", replace(PSDS1, alpha_st=0.0)), ("psds2", PSDS2)):
        assert stored.metrics[name] == raw.metrics[name]
        assert stored.metrics[f"{name}_filtered"] == pytest.approx(psds(clips, settings).value)
    assert stored.metrics["psds2_filtered"] != raw.metrics["psds2"]
    assert [name for name in raw.metrics if name.endswith("_filtered")] == []
    # A filter of less than three frames is none.
    short = evaluate_frames(replace(table, detection=replace(SETTINGS, median_seconds=1.9 * HOP)))
    assert set(short.metrics) == set(raw.metrics)
    for name in ("auroc", "ece", "psds1", "num_events"):
        assert stored.per_phrase["rain"][name] == raw.per_phrase["rain"][name]


def test_it_is_said_what_was_detected_by(table: EmbeddingTable, tmp_path: Path) -> None:
    plain, tuned = evaluate_table(table), evaluate_table(replace(table, detection=FULL))
    assert "count what is detected by a probability above 0.5." in plain.to_markdown()
    said = (
        "F1 and false alarms count what is detected by the settings stored with the model (tuned thresholds of 2 of 6 phrases, 0.25 for "
        "the others, low threshold 0.15, median filter of 0.2 s, gaps under 0.3 s closed, spans under 0.25 s dropped)."
    )
    assert said in tuned.to_markdown() and tuned.events_to_rich().caption == said
    assert [name for name, _ in tuned.event_rows()][:2] == ["PSDS1 (raw scores)", "PSDS1 (after the median filter)"]
    assert Evaluation.from_json(tuned.to_json()) == tuned
    text = write_report(tmp_path / "r.html", tuned, table).read_text()
    assert said in text and "<td>0.6*</td>" in text and "<td>0.25</td>" in text and "after the median filter" in text
    replace(table, detection=FULL).save(tmp_path / "t.safetensors")
    assert EmbeddingTable.load(tmp_path / "t.safetensors").detection == FULL


def test_the_report_of_an_older_result_lacks_only_what_it_did_not_hold(table: EmbeddingTable, tmp_path: Path) -> None:
    plain = evaluate_table(table)
    assert plain.frames is not None
    per_phrase = {
        phrase: {name: row[name] for name in ("auroc", "num_clips", "active_seconds")}
        for phrase, row in plain.frames.per_phrase.items()
    }
    older = FrameLevel(plain.frames.macro, plain.frames.micro, per_phrase, plain.frames.num_clips, plain.frames.seconds)
    text = write_report(tmp_path / "r.html", replace(plain, frames=older), table).read_text()
    assert ">siren<" in text and "ROC of PSDS" not in text and "Reliability" not in text


def test_the_figures_show_the_curves(table: EmbeddingTable) -> None:
    level = evaluate_frames(replace(table, detection=SETTINGS))
    figure = psds_figure(level.curves, level.metrics)
    for axes, name, settings in zip(figure.axes, ("psds1", "psds2"), (PSDS1, PSDS2), strict=True):
        assert f"{level.metrics[f'{name}_filtered']:.3f}" in axes.get_title(loc="left")
        for line, ending in zip(axes.lines, ("_filtered", ""), strict=True):
            x, y = (np.asarray(value, dtype=float) for value in line.get_data())
            # The area under what is drawn is the score.
            area = float(np.sum(np.diff(x) * y[:-1]) / settings.e_max)
            assert area == pytest.approx(level.metrics[name + ending], abs=2e-3) and x[-1] == settings.e_max
    left, right = reliability_figure(level.reliability, level.metrics["ece"]).axes
    x, y = (np.asarray(value, dtype=float) for value in left.lines[1].get_data())
    count = np.array(level.reliability["count"])
    assert float(np.sum(np.abs(x - y) * count[count > 0]) / count.sum()) == pytest.approx(level.metrics["ece"])
    assert sum(patch.get_height() for patch in right.patches) == sum(  # type: ignore[attr-defined]
        len(PHRASES) * len(table.frame_part.frames[c]) for c, some in enumerate(table.events or []) if some is not None
    )


def test_a_long_curve_is_thinned_and_keeps_its_area() -> None:
    rng = np.random.default_rng(0)
    efpr, etpr = np.sort(rng.uniform(0, 120, 30_000)), np.sort(rng.uniform(0, 1, 30_000))
    kept = _thinned(PSDS(None, [], efpr, etpr), 100.0)
    assert len(kept["efpr"]) <= 400 and kept["efpr"][-1] <= 100
    inside = efpr <= 100
    whole = np.sum(np.diff(np.append(efpr[inside], 100)) * etpr[inside])
    assert np.sum(np.diff([*kept["efpr"], 100]) * kept["etpr"]) == pytest.approx(whole, rel=0.01)


def test_without_a_setting_every_frame_is_compared_with_one_half() -> None:
    p = torch.tensor([[0.5, 0.51, 0.2]], dtype=torch.float64)
    assert Decisions(None, ["rain"], HOP).detected(p).tolist() == [[False, True, False]]
