"""Segments of fixed length, each with or without the label (Mesaros et al., Applied Sciences 2016, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peav.evaluation.detection.clips import DECIMALS, Bools, Floats, ScoredClip, known_labels
from peav.evaluation.detection.counts import Changes, Counts, no_changes
from peav.types import Seconds


@dataclass(frozen=True)
class Segments:
    """A segment is active if an event of the label overlaps it, and detected if a detection does.

    Attributes:
        seconds: length of a segment; the last one of a clip may be shorter.

    Raises:
        ValueError: if the length is not positive.
    """

    seconds: Seconds = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"the length of a segment must be positive, not {self.seconds}")

    def count(self, clips: Sequence[ScoredClip], floor: Floats) -> Counts:
        """Counts at every threshold of at least `floor`; see `Matching`."""
        labels = len(floor)
        num_true = np.zeros((len(clips), labels))
        tp, fp = [no_changes()], [no_changes()]
        known = known_labels(clips)
        for index, clip in enumerate(clips):
            scores, active = self.of(clip)
            num_true[index] = active.sum(0)
            counted = (scores >= floor) & (scores > -np.inf) & known[index]
            for changes, which in ((tp, active & counted), (fp, ~active & counted)):
                row, label = np.nonzero(which)
                changes.append(
                    Changes(scores[row, label].astype(np.float64), np.full(len(row), index), label, np.ones(len(row)))
                )
        return Counts(Changes.join(tp), Changes.join(fp), no_changes(), num_true)

    def of(self, clip: ScoredClip) -> tuple[Floats, Bools]:
        """Returns the S segments of a clip: the highest score of the frames that overlap each (S, L), and what is active (S, L) bool."""
        number = math.ceil(round(clip.seconds / self.seconds, DECIMALS))
        bounds = np.round(np.arange(number + 1) * self.seconds, DECIMALS)
        times = np.round(clip.times, DECIMALS)
        first = np.maximum(np.searchsorted(times, bounds[:-1], side="right") - 1, 0)
        after = np.minimum(np.searchsorted(times, bounds[1:], side="left"), len(times) - 1)
        scores = np.full((number, clip.scores.shape[1]), -np.inf)
        for row, begin, end in zip(scores, first, after, strict=True):
            if end > begin:
                row[:] = clip.scores[begin:end].max(0)
        active = np.zeros(scores.shape, dtype=np.bool_)
        for label, onset, offset in clip.events:
            active[(bounds[:-1] < offset) & (bounds[1:] > onset), label] = True
        return scores, active
