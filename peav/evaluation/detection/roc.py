"""Area under the ROC curve over frames, whole or up to a rate of false positives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peav.evaluation.detection.clips import DECIMALS, Bools, Floats, ScoredClip, known_labels, num_labels


@dataclass(frozen=True)
class FrameROC:
    """Area under the ROC curve over the pooled frames of all clips.

    Attributes:
        macro: mean over the labels that have active and inactive frames; None where there is none.
        micro: over all (frame, label) together; None without both classes.
        per_label: of each label; None without both classes.
    """

    macro: float | None
    micro: float | None
    per_label: list[float | None]


def active_frames(clip: ScoredClip) -> Bools:
    """Returns (T, L) bool: the frames that an event of the label overlaps at all, to a microsecond."""
    times = np.round(clip.times, DECIMALS)
    active = np.zeros(clip.scores.shape, dtype=np.bool_)
    for label, onset, offset in clip.events:
        active[(times[:-1] < round(offset, DECIMALS)) & (times[1:] > round(onset, DECIMALS)), label] = True
    return active


def frame_roc(clips: Sequence[ScoredClip], max_fpr: float = 1.0) -> FrameROC:
    """Computes the frame AUROC, or the partial one, of each label, and its macro and micro means.

    Args:
        clips: all clips, those without events too; labels that are not known in a clip are left out there.
        max_fpr: in (0, 1]; see `auroc`.

    >>> clip = ScoredClip(np.array([[0.1], [0.9], [0.8], [0.2]]), np.arange(5) * 1.0, [(0, 1.0, 3.0)])
    >>> frame_roc([clip]).macro
    1.0
    """
    labels = num_labels(clips)
    scores = np.concatenate([clip.scores for clip in clips])
    active = np.concatenate([active_frames(clip) for clip in clips])
    known = np.repeat(known_labels(clips), [len(clip.scores) for clip in clips], axis=0)
    per_label = [
        auroc(scores[known[:, k] & active[:, k], k], scores[known[:, k] & ~active[:, k], k], max_fpr)
        for k in range(labels)
    ]
    both = [value for value in per_label if value is not None]
    return FrameROC(
        macro=sum(both) / len(both) if both else None,
        micro=auroc(scores[known & active], scores[known & ~active], max_fpr),
        per_label=per_label,
    )


def auroc(positives: Floats, negatives: Floats, max_fpr: float = 1.0) -> float | None:
    """Returns the area under the ROC curve up to a false positive rate, as a share of what a perfect one has there.

    Equal scores are joined by a straight line: at `max_fpr=1` this is the probability that a positive scores above a negative, ties
    counted half. A random score has max_fpr / 2.

    Args:
        positives: (P,) scores.
        negatives: (Q,) scores.
        max_fpr: in (0, 1].

    Returns:
        in [0, 1]; None where either is empty.

    Raises:
        ValueError: if `max_fpr` is out of range.

    >>> auroc(np.array([0.9, 0.4]), np.array([0.1, 0.4]))
    0.875
    """
    if not 0 < max_fpr <= 1:
        raise ValueError(f"max_fpr must lie in (0, 1], not {max_fpr}")
    if not len(positives) or not len(negatives):
        return None
    thresholds = np.unique(np.concatenate([positives, negatives]))[::-1]
    # How many lie at or above each threshold, after none.
    tpr, fpr = (
        np.append(0, len(part) - np.searchsorted(np.sort(part), thresholds)) / len(part)
        for part in (positives, negatives)
    )
    inside = fpr <= max_fpr
    x = np.append(fpr[inside], max_fpr)
    # Of several points at one rate the last is the end of the curve's rise there.
    y = np.append(tpr[inside], _at(max_fpr, fpr, tpr))
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / max_fpr)


def _at(rate: float, fpr: Floats, tpr: Floats) -> float:
    after = int(np.searchsorted(fpr, rate, side="right"))
    if after == len(fpr):
        return float(tpr[-1])
    share = (rate - fpr[after - 1]) / (fpr[after] - fpr[after - 1])
    return float(tpr[after - 1] + share * (tpr[after] - tpr[after - 1]))
