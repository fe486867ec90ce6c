"""The torchmetrics classes: the pure functions' values, in parts, over ranks of which one may have no clip, pickled and in a collection."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

from peav.evaluation.detection import (
    PSDS1,
    PSDS2,
    Collar,
    Intersection,
    Segments,
    absent_counts,
    calibration,
    calibration_sums,
    f1_score,
    false_alarms,
    frame_roc,
    psds,
)
from peav.evaluation.detection.metrics import (
    DetectionF1,
    FalseAlarmsPerHour,
    FrameAUROC,
    FrameBrierScore,
    FrameCalibrationError,
    PSDScore,
    scored_clips,
)
from peav.testing.ranks import GlooPool

K, HOP, CLIPS = 3, 0.25, 14


def collection() -> MetricCollection:
    return MetricCollection(
        {
            "auroc": FrameAUROC(K, HOP),
            "partial": FrameAUROC(K, HOP, average="micro", max_fpr=0.2),
            "psds1": PSDScore(K, HOP, alpha_st=0.0),
            "psds2": PSDScore(K, HOP, PSDS2),
            "event": DetectionF1(K, HOP, Collar(0.3), [0.4, 0.45, 0.5]),
            "segment": DetectionF1(K, HOP, Segments(), average="micro"),
            "intersection": DetectionF1(K, HOP, Intersection()),
            "alarms": FalseAlarmsPerHour(K, HOP),
            "ece": FrameCalibrationError(K, HOP),
            "brier": FrameBrierScore(K, HOP),
        }
    )


def batch() -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, 40, (CLIPS,), generator=g)
    lengths[:2] = 30
    scores = torch.rand(CLIPS, K, 40, generator=g) * 0.55
    events: list[list[tuple[int, float, float]]] = [[] for _ in range(CLIPS)]
    known = torch.rand(CLIPS, K, generator=g) < 0.8
    known[:2] = True
    for clip in range(0, CLIPS, 2):
        for k in known[clip].nonzero().flatten().tolist():
            begin, end = (torch.rand(2, generator=g) * torch.tensor([3.0, 2.0]) + torch.tensor([0.0, 3.5])).tolist()
            events[clip].append((k, begin, end))
            scores[clip, k, round(begin / HOP) : round(end / HOP)] += 0.4
    mask = torch.arange(40) < lengths[:, None]
    scores = scores.masked_fill(~mask[:, None], torch.nan)
    return {"scores": scores, "mask": mask, "events": events, "known": known, "durations": lengths * HOP + 60.0}


def part(data: dict[str, Any], clips: slice) -> dict[str, Any]:
    return {name: value[clips] for name, value in data.items()}


def expected(data: dict[str, Any]) -> dict[str, float | None]:
    clips = scored_clips(frame_seconds=HOP, **data)
    labels = torch.zeros(data["scores"].shape, dtype=torch.bool)
    for a, events in enumerate(data["events"]):
        for k, begin, end in events:
            frames = torch.arange(labels.shape[-1]) * HOP
            labels[a, k] |= (frames < end) & (frames + HOP > begin)
    there = (data["mask"][:, None] & data["known"][:, :, None]).expand_as(labels)
    found = calibration(calibration_sums(data["scores"][there].numpy(), labels[there].numpy()))
    return {
        "auroc": frame_roc(clips).macro,
        "partial": frame_roc(clips, 0.2).micro,
        "psds1": psds(clips, replace(PSDS1, alpha_st=0.0)).value,
        "psds2": psds(clips, PSDS2).value,
        "event": f1_score(clips, Collar(0.3), np.array([0.4, 0.45, 0.5])).macro,
        "segment": f1_score(clips, Segments()).micro,
        "intersection": f1_score(clips, Intersection()).macro,
        "alarms": false_alarms(absent_counts(clips).sum(0)).per_hour,
        "ece": found.ece,
        "brier": found.brier,
    }


def test_batches_give_what_the_whole_gives() -> None:
    data, metrics = batch(), collection()
    for begin in range(0, CLIPS, 5):
        metrics.update(**part(data, slice(begin, begin + 5)))
    wanted = expected(data)
    assert {name: float(value) for name, value in metrics.compute().items()} == pytest.approx(wanted, rel=1e-6)
    assert all(value is not None and value > 0.02 for value in wanted.values()), wanted
    # Metrics that keep the same clips share them.
    assert any(set(group) == {"auroc", "partial", "psds1", "psds2"} for group in metrics.compute_groups.values())
    restored = pickle.loads(pickle.dumps(metrics))
    assert restored.compute() == metrics.compute()
    metrics.reset()
    metrics.update(**data)
    assert {name: float(value) for name, value in metrics.compute().items()} == pytest.approx(wanted, rel=1e-6)


def _on_rank(rank: int, data: dict[str, Any], first: int) -> dict[str, float]:
    metrics = collection()
    mine = slice(0, first) if rank == 0 else slice(first, CLIPS)
    if len(data["events"][mine]):
        metrics.update(**part(data, mine))
    return {name: float(value) for name, value in metrics.compute().items()}


@pytest.mark.parametrize("first", [5, CLIPS], ids=["uneven", "a rank without clips"])
def test_ranks_give_what_one_process_gives(gloo: GlooPool, first: int) -> None:
    data = batch()
    found = gloo.run(_on_rank, data, first)
    assert found[0] == found[1] == pytest.approx(expected(data), rel=1e-6)


def test_without_events_there_is_no_value() -> None:
    metrics = collection()
    metrics.update(torch.rand(2, K, 4), torch.ones(2, 4).bool(), [[], []])
    found = metrics.compute()
    assert {name for name, value in found.items() if value.isnan()} == {
        "auroc",
        "partial",
        "psds1",
        "psds2",
        "event",
        "segment",
        "intersection",
    }
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert PSDScore(K, HOP).compute().isnan()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": torch.zeros(2, K + 1, 4)}, "expected scores of 3 labels"),
        ({"scores": torch.zeros(2, 4)}, r"expected scores \(A, K, T\)"),
        ({"events": [[]]}, "events of A clips"),
        ({"mask": torch.tensor([[True, False, True, True]] * 2)}, "without gaps"),
        ({"events": [[(7, 0.0, 1.0)], []]}, "label 7"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    data: dict[str, Any] = {"scores": torch.zeros(2, K, 4), "mask": torch.ones(2, 4).bool(), "events": [[], []]}
    with pytest.raises(ValueError, match=message):
        PSDScore(K, HOP).update(**data | change)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="average"):
        DetectionF1(K, HOP, average="weighted")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one for each of 3 labels"):
        DetectionF1(K, HOP, thresholds=[0.5])
    with pytest.raises(ValueError, match="must be positive"):
        FrameAUROC(0, HOP)
    with pytest.raises(ValueError, match="max_fpr"):
        FrameAUROC(K, HOP, max_fpr=2.0)
