"""Partial AUROC and calibration beside torchmetrics; false alarms and bootstrap beside loops and known distributions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from peav.evaluation.detection import (
    Collar,
    Intersection,
    ScoredClip,
    Segments,
    absent_counts,
    active_frames,
    auroc,
    best_thresholds,
    bootstrap,
    calibration,
    calibration_sums,
    clip_counts,
    f1_of_counts,
    f1_score,
    false_alarms,
    frame_auroc,
    frame_labels,
    frame_roc,
    paired_bootstrap,
)
from tests.evaluation.detection.cases import case

TIMES = np.arange(5) * 1.0


def clips_of(seed: int) -> list[ScoredClip]:
    return [ScoredClip(c.scores.clip(0.0, 1.0), c.times, c.events) for c in case(seed)]


@pytest.mark.parametrize("levels", [0, 7])
@pytest.mark.parametrize("max_fpr", [0.1, 0.37, 1.0])
def test_partial_auroc_equals_torchmetrics(levels: int, max_fpr: float) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(500).astype(np.float32)
    active = rng.random(500) < 0.2 + 0.4 * scores
    if levels:
        scores = np.round(scores * levels) / np.float32(levels)
    found = auroc(scores[active], scores[~active], max_fpr)
    truth = torch.from_numpy(active).long()
    theirs = float(binary_auroc(torch.from_numpy(scores), truth, max_fpr=None if max_fpr == 1 else max_fpr))
    # torchmetrics scales a partial area so that chance is 1/2 and the best 1 (McClish, 1989).
    assert found is not None
    area = found * max_fpr
    scaled = found if max_fpr == 1 else (1 + (area - max_fpr**2 / 2) / (max_fpr - max_fpr**2 / 2)) / 2
    assert scaled == pytest.approx(theirs, abs=1e-5)


def test_frame_roc_equals_the_frame_auroc_of_tensors() -> None:
    for seed in range(20):
        clips = clips_of(seed)
        length = max(len(clip.scores) for clip in clips)
        scores = torch.zeros(len(clips), clips[0].scores.shape[1], length, dtype=torch.float64)
        labels, mask = torch.zeros(scores.shape, dtype=torch.bool), torch.zeros(len(clips), length, dtype=torch.bool)
        for a, clip in enumerate(clips):
            size = len(clip.scores)
            scores[a, :, :size] = torch.from_numpy(clip.scores.T)
            mask[a, :size] = True
            for label, onset, offset in clip.events:
                labels[a, label] |= frame_labels(onset, offset, length, clip.times[1])
            assert np.array_equal(active_frames(clip).T, (labels[a] & mask[a])[:, :size].numpy())
        expected, found = frame_auroc(scores, labels & mask[:, None], mask), frame_roc(clips)
        assert found.per_label == pytest.approx(expected.per_text, abs=1e-9)
        assert (found.macro, found.micro) == (pytest.approx(expected.macro), pytest.approx(expected.micro))


def test_auroc_without_a_class_or_with_a_rate_that_cannot_be() -> None:
    one = np.array([1.0])
    assert auroc(one, one[:0]) is None and auroc(one[:0], one) is None
    assert auroc(one, one) == 0.5 and auroc(one, one, 0.2) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="max_fpr"):
        auroc(one, one, 0.0)


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_calibration_equals_torchmetrics(num_bins: int) -> None:
    rng = np.random.default_rng(1)
    p = rng.random(1000).astype(np.float32)
    y = rng.random(1000) < p**2
    found = calibration(calibration_sums(p, y, num_bins))
    expected = binary_calibration_error(torch.from_numpy(p), torch.from_numpy(y).long(), n_bins=num_bins)
    assert found.ece == pytest.approx(float(expected), abs=1e-5)
    assert found.brier == pytest.approx(float(((p - y) ** 2).mean()), abs=1e-6)
    halves = calibration_sums(p[:300], y[:300], num_bins) + calibration_sums(p[300:], y[300:], num_bins)
    assert calibration(halves).ece == pytest.approx(found.ece)


def test_calibration_refuses_logits_and_tells_of_nothing() -> None:
    with pytest.raises(ValueError, match="sigmoid"):
        calibration_sums(np.array([1.5]), np.array([1]))
    with pytest.raises(ValueError, match="a label for each"):
        calibration_sums(np.array([0.5]), np.array([1, 0]))
    nothing = calibration(calibration_sums(np.zeros(0), np.zeros(0)))
    assert nothing.ece is None and nothing.brier is None


def test_false_alarms_equal_a_loop() -> None:
    for seed in range(20):
        clips = clips_of(seed)
        found = false_alarms(absent_counts(clips, 0.5).sum(0))
        for label in range(clips[0].scores.shape[1]):
            alarms, hours = 0, 0.0
            for clip in clips:
                if any(event[0] == label for event in clip.events):
                    continue
                hours += clip.times[-1] / 3600
                active = [False, *(clip.scores[:, label] > 0.5).tolist()]
                alarms += sum(now and not before for before, now in pairwise(active))
            assert found.hours[label] == pytest.approx(hours)
            assert found.per_label[label] == (pytest.approx(alarms / hours) if hours else None)


def test_labels_that_are_not_known_raise_no_false_alarm() -> None:
    clip = ScoredClip(np.ones((4, 2)), TIMES, known=np.array([True, False]))
    assert false_alarms(absent_counts([clip]).sum(0)).per_label == [900.0, None]


def test_thresholds_may_differ_by_label() -> None:
    clip = ScoredClip(np.array([[0.1, 0.5], [0.4, 0.6], [0.4, 0.6], [0.1, 0.5]]), TIMES, [(0, 1, 3), (1, 1, 3)])
    assert f1_score([clip], Intersection()).per_label == [0.0, 1.0]
    thresholds, best = best_thresholds([clip], Intersection(0.7, 0.7))
    assert best == [1.0, 1.0] and thresholds == pytest.approx([0.25, 0.55])
    assert f1_score([clip], Collar(), thresholds).macro == 1.0
    assert f1_score([clip], Segments(), np.array([0.0, 0.5])).per_label == [pytest.approx(2 / 3), 1.0]
    with pytest.raises(ValueError, match="NaN"):
        f1_score([clip], Collar(), np.array([0.5, np.nan]))


def test_a_matching_is_the_largest() -> None:
    """Both detections find the second event, one the first, too: found in the wrong order, one would be left over."""
    times = np.arange(6) * 0.1
    scores = np.array([[0.9], [0.1], [0.9], [0.1], [0.1]])
    clip = ScoredClip(scores, times, [(0, 0.0, 0.05), (0, 0.1, 0.2)])
    found = f1_score([clip], Collar(0.2, 0.2, 0.0))
    assert found.tp.tolist() == [2.0] and found.fp.tolist() == [0.0]


def test_the_bootstrap_of_a_mean_has_its_standard_error() -> None:
    values = np.random.default_rng(2).normal(1.0, 1.0, 400)
    found = bootstrap(lambda w: float(w @ values / w.sum()), 400, seed=1)
    assert found.value == pytest.approx(values.mean())
    error = values.std() / 20
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.p_value == pytest.approx(2 / 1001) and found.num_resamples == 1000
    assert found == bootstrap(lambda w: float(w @ values / w.sum()), 400, seed=1)


def test_a_paired_bootstrap_sees_what_two_intervals_do_not() -> None:
    rng = np.random.default_rng(3)
    hard = rng.normal(0.0, 1.0, 200)
    before, after = hard, hard + 0.1 + rng.normal(0.0, 0.1, 200)
    one, other = (lambda w, v=v: float(w @ v / w.sum()) for v in (before, after))
    assert bootstrap(one, 200).high > bootstrap(other, 200).low
    found = paired_bootstrap(one, other, 200)
    assert found.low > 0 and found.p_value < 0.01
    assert paired_bootstrap(one, one, 200).p_value == 1.0


def test_the_bootstrap_of_f1_and_where_it_is_not_defined() -> None:
    clips = [
        clip for seed in (0, 5, 10) for clip in clips_of(seed) if clip.scores.shape[1] == clips_of(0)[0].scores.shape[1]
    ]
    counts = clip_counts(clips, Intersection(), 0.5)
    found = bootstrap(lambda w: f1_of_counts(np.tensordot(w, counts, 1)).macro, len(clips), 100)
    assert found.value == f1_score(clips, Intersection(), 0.5).macro and found.low <= found.value <= found.high
    with pytest.raises(ValueError, match="not defined"):
        bootstrap(lambda w: None, 3)
    with pytest.raises(ValueError, match="confidence in"):
        bootstrap(lambda w: 1.0, 3, confidence=1.0)
