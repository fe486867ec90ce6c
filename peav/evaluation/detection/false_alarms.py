"""What a label detects in clips that do not hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peav.evaluation.detection.clips import Floats, ScoredClip, known_seconds, num_labels
from peav.evaluation.detection.counts import Changes
from peav.evaluation.detection.runs import runs_in_blocks


@dataclass(frozen=True)
class FalseAlarms:
    """Detections an hour of labels that are known to be absent.

    Attributes:
        per_hour: over all labels' hours together; None where no label is known to be absent anywhere.
        per_label: of each label; None without a clip that lacks it.
        hours: (L,) of clips that lack the label.
    """

    per_hour: float | None
    per_label: list[float | None]
    hours: Floats


def absent_counts(clips: Sequence[ScoredClip], thresholds: float | Floats = 0.5) -> Floats:
    """Counts detections and hours of absent labels, clip by clip.

    Args:
        clips: all clips; those without events tell most.
        thresholds: one, or (L,); a frame is active where its score exceeds the threshold.

    Returns:
        (A, L, 2): detections, hours; 0 where the label has an event in the clip, or is not known.
    """
    labels = num_labels(clips)
    limits = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), labels)
    hours = known_seconds(clips) / 3600
    for row, clip in zip(hours, clips, strict=True):
        row[[label for label, _, _ in clip.events]] = 0.0
    active = [
        ScoredClip(np.where(clip.scores > limits, 1.0, -np.inf), clip.times, (), hour > 0, clip.duration)
        for clip, hour in zip(clips, hours, strict=True)
    ]
    parts = [
        Changes(runs.high, runs.clip + start, runs.label, np.ones(len(runs.clip)))
        for start, _, runs in runs_in_blocks(active, np.zeros(labels))
    ]
    return np.stack([Changes.join(parts).per_clip(len(clips), labels), hours], 2)


def false_alarms(counts: Floats) -> FalseAlarms:
    """Computes false alarms per hour from counts (L, 2) of detections and hours.

    >>> clip = ScoredClip(np.array([[0.9], [0.1], [0.8], [0.2]]), np.arange(5) * 9.0)
    >>> false_alarms(absent_counts([clip]).sum(0)).per_hour
    200.0
    """
    found, hours = counts.T
    per_label = [float(n / h) if h > 0 else None for n, h in zip(found, hours, strict=True)]
    total = float(hours.sum())
    return FalseAlarms(float(found.sum()) / total if total else None, per_label, hours)
