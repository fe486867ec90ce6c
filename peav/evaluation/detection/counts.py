"""True and false detections at every threshold, as changes that a falling threshold brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from peav.evaluation.detection.clips import Floats, Ints, ScoredClip


@dataclass(frozen=True)
class Changes:
    """How a count changes where a falling threshold meets a score.

    Attributes:
        score: (N,) where.
        clip: (N,) int64.
        label: (N,) int64.
        delta: (N,) by how much.
        other: (N,) int64, the other label that is counted; None where there is none.
    """

    score: Floats
    clip: Ints
    label: Ints
    delta: Floats
    other: Ints | None = None

    @classmethod
    def between(
        cls, high: Floats, low: Floats, clip: Ints, label: Ints, sign: int = 1, other: Ints | None = None
    ) -> Changes:
        """Counts `sign` for each of N things that are there where low < threshold <= high."""
        ends = low > -np.inf
        return cls(
            np.concatenate([high, low[ends]]),
            np.concatenate([clip, clip[ends]]),
            np.concatenate([label, label[ends]]),
            np.concatenate([np.full(len(high), float(sign)), np.full(int(ends.sum()), -float(sign))]),
            None if other is None else np.concatenate([other, other[ends]]),
        )

    @classmethod
    def join(cls, parts: Sequence[Changes]) -> Changes:
        """Joins changes of one kind."""
        others = [part.other for part in parts if part.other is not None]
        return cls(
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.clip for part in parts]),
            np.concatenate([part.label for part in parts]),
            np.concatenate([part.delta for part in parts]),
            np.concatenate(others) if others else None,
        )

    def moved(self, clips: int) -> Changes:
        """Returns the same with `clips` added to the clips' numbers."""
        return Changes(self.score, self.clip + clips, self.label, self.delta, self.other)

    def by_label(self, num_labels: int) -> list[Changes]:
        """Returns the changes of each label."""
        order = np.argsort(self.label, kind="stable")
        ends = np.searchsorted(self.label[order], np.arange(num_labels + 1))
        places = [order[begin:end] for begin, end in pairwise(ends)]
        return [
            Changes(
                self.score[place],
                self.clip[place],
                self.label[place],
                self.delta[place],
                None if self.other is None else self.other[place],
            )
            for place in places
        ]

    def per_clip(self, num_clips: int, num_labels: int) -> Floats:
        """Returns (A, L): the sums over all scores."""
        place = self.clip * num_labels + self.label
        sums = np.bincount(place, self.delta, num_clips * num_labels).astype(np.float64)
        return sums.reshape(num_clips, num_labels)


class Counts(NamedTuple):
    """What is counted.

    Attributes:
        tp: true events (or segments) that are found.
        fp: detections (or segments) that are false.
        ct: false detections that lie on events of another label (cross triggers).
        num_true: (A, L) what there is to find.
    """

    tp: Changes
    fp: Changes
    ct: Changes
    num_true: Floats


class Matching(Protocol):
    """A rule that tells true detections from false ones."""

    def count(self, clips: Sequence[ScoredClip], floor: Floats) -> Counts:
        """Counts at every threshold of at least `floor` (L,)."""


def no_changes() -> Changes:
    """Returns changes of nothing."""
    none, index = np.zeros(0), np.zeros(0, dtype=np.int64)
    return Changes(none, index, index, none)


def totals(parts: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, list[Floats]]:
    """Adds up what changed above each score.

    Args:
        parts: (scores, deltas) of several counts.

    Returns:
        (S,) the distinct scores of all of them, descending, and for each count its value (S,) where the threshold is that score.

    >>> scores, (found,) = totals([(np.array([0.5, 0.9, 0.5]), np.array([2.0, 1.0, -1.0]))])
    >>> scores.tolist(), found.tolist()
    ([0.9, 0.5], [1.0, 2.0])
    """
    scores, place = np.unique(-np.concatenate([score for score, _ in parts]), return_inverse=True)
    places = np.split(place, np.cumsum([len(score) for score, _ in parts])[:-1])
    values: list[Floats] = [
        np.cumsum(np.bincount(at, delta, minlength=len(scores))) for at, (_, delta) in zip(places, parts, strict=True)
    ]
    return -scores, values
