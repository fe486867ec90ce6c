"""F1 of detections at fixed thresholds, and the thresholds that are best on a validation set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from peav.evaluation.detection.clips import Floats, ScoredClip, num_labels
from peav.evaluation.detection.counts import Matching, totals


@dataclass(frozen=True)
class F1:
    """F1 at given thresholds.

    Attributes:
        macro: mean over the labels that have events; None where there is none.
        micro: of all labels' counts together; None where there is no event.
        per_label: of each label; None without events.
        tp: (L,) true positives.
        fp: (L,) false positives.
        num_true: (L,) what there was to find.
    """

    macro: float | None
    micro: float | None
    per_label: list[float | None]
    tp: Floats
    fp: Floats
    num_true: Floats


def clip_counts(clips: Sequence[ScoredClip], matching: Matching, thresholds: float | Floats) -> Floats:
    """Counts true positives, false positives and what there is to find, clip by clip, for F1 and its bootstrap.

    Args:
        clips: all clips, those without events too.
        matching: `Collar()`, `Segments()` or `Intersection()`.
        thresholds: one, or (L,); a frame is active where its score exceeds the threshold.

    Returns:
        (A, L, 3).
    """
    labels = num_labels(clips)
    limits = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), labels)
    if np.isnan(limits).any():
        raise ValueError("a threshold is NaN")
    active = [replace(clip, scores=np.where(clip.scores > limits, 1.0, -np.inf)) for clip in clips]
    counts = matching.count(active, np.zeros(labels))
    tp, fp = counts.tp.per_clip(len(clips), labels), counts.fp.per_clip(len(clips), labels)
    return np.stack([tp, fp, counts.num_true], 2)


def f1_score(clips: Sequence[ScoredClip], matching: Matching, thresholds: float | Floats = 0.5) -> F1:
    """Computes F1 at thresholds that are fixed or come from a validation set.

    Args:
        clips: all clips, those without events too.
        matching: `Collar()` for the event-based F1, `Segments()` for the segment-based, `Intersection()` for the intersection-based one.
        thresholds: one, or (L,); a frame is active where its score exceeds the threshold.

    >>> from peav.evaluation.detection.collar import Collar
    >>> times = np.arange(5) * 1.0
    >>> clip = ScoredClip(np.array([[0.1], [0.9], [0.8], [0.2]]), times, [(0, 1.1, 3.0)])
    >>> f1_score([clip], Collar()).macro
    1.0
    """
    return f1_of_counts(clip_counts(clips, matching, thresholds).sum(0))


def f1_of_counts(counts: Floats) -> F1:
    """Computes F1 of counts (L, 3): true positives, false positives, what there is to find."""
    tp, fp, num_true = counts.T
    values = f1(tp, fp, num_true)
    per_label = [float(value) if true > 0 else None for value, true in zip(values, num_true, strict=True)]
    there = [value for value in per_label if value is not None]
    micro = float(f1(tp.sum(), fp.sum(), num_true.sum())) if there else None
    return F1(sum(there) / len(there) if there else None, micro, per_label, tp, fp, num_true)


def f1(tp: Floats, fp: Floats, num_true: Floats) -> Floats:
    """Returns 2 tp / (2 tp + fp + fn), 0 where nothing is detected and nothing there."""
    return 2 * tp / np.maximum(tp + fp + num_true, 1e-12)


def best_thresholds(clips: Sequence[ScoredClip], matching: Matching) -> tuple[Floats, list[float | None]]:
    """Finds the threshold of each label that gives the highest F1, over all of them.

    Meant for a validation set. On the test set it is no result, only a bound that an oracle would reach.

    Returns:
        thresholds (L,), halfway between two scores, NaN for labels without events; and the F1 there, None without events.
    """
    labels = num_labels(clips)
    counts = matching.count(clips, np.full(labels, -np.inf))
    num_true = counts.num_true.sum(0)
    thresholds: Floats = np.full(labels, np.nan)
    reached: list[float | None] = [None] * labels
    for k, (tp, fp) in enumerate(zip(counts.tp.by_label(labels), counts.fp.by_label(labels), strict=True)):
        if not num_true[k]:
            continue
        scores, (found, false) = totals([(tp.score, tp.delta), (fp.score, fp.delta)])
        # Above the highest score nothing is detected.
        values = np.concatenate([[0.0], f1(found, false, num_true[k])])
        # Where a later step changes nothing, the threshold may lie anywhere between.
        best = int(values.argmax())
        scores = np.concatenate([[np.inf], scores, [-np.inf]])
        thresholds[k] = _between(scores[best], scores[best + 1])
        reached[k] = float(values[best])
    return thresholds, reached


def _between(high: float, low: float) -> float:
    """Returns the middle, or a number just beyond the finite one; always below `high` and at least `low`."""
    if np.isinf(high):
        return 0.0 if np.isinf(low) else low
    if np.isinf(low):
        return float(np.nextafter(high, -np.inf))
    middle = (high + low) / 2
    return low if middle >= high else middle
