"""Detections and events that are compared by where they begin and end (Mesaros et al., Applied Sciences 2016, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from peav.evaluation.detection.clips import DECIMALS, Bools, Floats, Ints, ScoredClip, Truth, expand
from peav.evaluation.detection.counts import Changes, Counts, no_changes
from peav.evaluation.detection.runs import Runs, count_runs
from peav.types import Seconds


@dataclass(frozen=True)
class Collar:
    """A detection is true if it begins and ends where an event of its label does; each event is found once, each detection finds one.

    Attributes:
        onset: seconds that the onsets may lie apart.
        offset: seconds that the offsets may lie apart.
        rate: share of the event's length that the offsets may lie apart, where that is more.

    Raises:
        ValueError: if a value is negative.
    """

    onset: Seconds = 0.2
    offset: Seconds = 0.2
    rate: float = 0.2

    def __post_init__(self) -> None:
        for name, value in (("onset", self.onset), ("offset", self.offset), ("rate", self.rate)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and not negative, not {value}")

    def count(self, clips: Sequence[ScoredClip], floor: Floats) -> Counts:
        """Counts at every threshold of at least `floor`; see `Matching`."""
        return count_runs(self._count, clips, floor)

    def _count(self, clips: Sequence[ScoredClip], runs: Runs, labels: int) -> Counts:
        truth = Truth.of(clips)
        run, event = self._hits(truth, runs, labels)
        contested = _contested(truth, runs, run, event)
        clear = run[~contested]
        parts = [Changes.between(runs.high[clear], runs.low[clear], runs.clip[clear], runs.label[clear])]
        for group in np.unique(truth.group[event[contested]]):
            at = contested & (truth.group[event] == group)
            parts.append(_matched(runs, run[at], event[at]))
        tp = Changes.join(parts)
        all_runs = Changes.between(runs.high, runs.low, runs.clip, runs.label)
        fp = Changes.join([all_runs, Changes(tp.score, tp.clip, tp.label, -tp.delta)])
        return Counts(tp, fp, no_changes(), truth.counts(len(clips), labels))

    def _hits(self, truth: Truth, runs: Runs, labels: int) -> tuple[Ints, Ints]:
        """Returns the pairs of run and event that lie within the collars."""
        key = truth.clip * labels + truth.label
        wanted = runs.clip * labels + runs.label
        first = np.searchsorted(key, wanted)
        run, event = expand(first, np.searchsorted(key, wanted, side="right") - first)
        onset = np.abs(runs.onset[run] - truth.onset[event]) - self.onset
        allowed = np.maximum(self.offset, self.rate * (truth.offset - truth.onset)[event])
        offset = np.abs(runs.offset[run] - truth.offset[event]) - allowed
        hit = (np.round(onset, DECIMALS) <= 0) & (np.round(offset, DECIMALS) <= 0)
        return run[hit], event[hit]


def _contested(truth: Truth, runs: Runs, run: Ints, event: Ints) -> Bools:
    """Marks the pairs of groups in which a run may find several events, or an event be found by runs that exclude each other.

    Elsewhere the runs that find an event lie in each other, so that one is detected at a time.
    """
    twice = np.bincount(run, minlength=len(runs.clip))[run] > 1
    latest_onset = np.full(len(truth.clip), -np.inf)
    first_offset = np.full(len(truth.clip), np.inf)
    np.maximum.at(latest_onset, event, runs.onset[run])
    np.minimum.at(first_offset, event, runs.offset[run])
    apart = (latest_onset >= first_offset)[event]
    groups = np.zeros(len(truth.group_clip), dtype=bool)
    groups[truth.group[event[twice | apart]]] = True
    return groups[truth.group[event]]


def _matched(runs: Runs, run: Ints, event: Ints) -> Changes:
    """Returns how the largest matching of one label's runs and events in one clip grows and shrinks."""
    high, low = runs.high[run], runs.low[run]
    scores = np.unique(np.concatenate([high, low[low > -np.inf]]))[::-1]
    sizes = []
    for score in scores:
        there = (high >= score) & (low < score)
        edges: dict[int, list[int]] = {}
        for one, other in zip(run[there].tolist(), event[there].tolist(), strict=True):
            edges.setdefault(one, []).append(other)
        sizes.append(matching_size(edges))
    delta = np.diff(np.array(sizes, dtype=np.float64), prepend=0.0)
    changed = delta != 0
    count = int(changed.sum())
    return Changes(
        scores[changed], np.repeat(runs.clip[run[:1]], count), np.repeat(runs.label[run[:1]], count), delta[changed]
    )


def matching_size(edges: Mapping[int, Sequence[int]]) -> int:
    """Returns the size of the largest bipartite matching, by augmenting paths.

    Args:
        edges: the right ends that each left end may have.

    >>> matching_size({0: [0, 1], 1: [0]})
    2
    """
    taken: dict[int, int] = {}

    def place(left: int, seen: set[int]) -> bool:
        for right in edges[left]:
            if right not in seen:
                seen.add(right)
                if right not in taken or place(taken[right], seen):
                    taken[right] = left
                    return True
        return False

    return sum(place(left, set()) for left in edges)
