"""Detections and events that are compared by how much of each other they cover (Bilen et al., ICASSP 2020, arXiv 1910.08440)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peav.evaluation.detection.clips import DECIMALS, Bools, Floats, Ints, ScoredClip, Truth, expand
from peav.evaluation.detection.counts import Changes, Counts, no_changes
from peav.evaluation.detection.runs import Runs, count_runs


@dataclass(frozen=True)
class Intersection:
    """A detection is true if events of its label cover enough of it, an event is found if true detections cover enough of it.

    Attributes:
        dtc: the share of a detection that must be covered, in (0, 1].
        gtc: the share of an event that must be covered, in (0, 1].
        cttc: the share of a false detection that events of another label must cover for a cross trigger; None counts none.

    Raises:
        ValueError: if a share is out of range.
    """

    dtc: float = 0.5
    gtc: float = 0.5
    cttc: float | None = None

    def __post_init__(self) -> None:
        for name, share in (("dtc", self.dtc), ("gtc", self.gtc), ("cttc", self.cttc)):
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name} must lie in (0, 1], not {share}")

    def count(self, clips: Sequence[ScoredClip], floor: Floats) -> Counts:
        """Counts at every threshold of at least `floor`; see `Matching`."""
        return count_runs(self._count, clips, floor)

    def _count(self, clips: Sequence[ScoredClip], runs: Runs, labels: int) -> Counts:
        truth = Truth.of(clips)
        # Every run beside every group of events in its clip: its own label's, and the others'.
        bounds = np.searchsorted(truth.group_clip, np.arange(len(clips) + 1))
        run, group = expand(bounds[runs.clip], np.diff(bounds)[runs.clip])
        covered = np.round(truth.covered(group, runs.onset[run], runs.offset[run]), DECIMALS)
        length = runs.offset - runs.onset
        own = truth.group_label[group] == runs.label[run]
        true = np.zeros(len(length), dtype=bool)
        true[run[own]] = covered[own] >= np.round(self.dtc * length[run[own]], DECIMALS)
        false = ~true
        fp = Changes.between(runs.high[false], runs.low[false], runs.clip[false], runs.label[false])
        ct = no_changes()
        if self.cttc is not None:
            crossed = ~own & false[run] & (covered >= np.round(self.cttc * length[run], DECIMALS))
            at, other = run[crossed], truth.group_label[group[crossed]]
            ct = Changes.between(runs.high[at], runs.low[at], runs.clip[at], runs.label[at], other=other)
        own_group = np.full(len(length), -1)
        own_group[run[own]] = group[own]
        return Counts(self._found(truth, runs, true, own_group), fp, ct, truth.counts(len(clips), labels))

    def _found(self, truth: Truth, runs: Runs, true: Bools, own_group: Ints) -> Changes:
        """Returns where events become found, and lost: what true runs cover of an event comes and goes with them."""
        at = np.flatnonzero(true)
        bounds = np.searchsorted(truth.group, np.arange(len(truth.group_clip) + 1))
        run, event = expand(bounds[own_group[at]], np.diff(bounds)[own_group[at]])
        run = at[run]
        begin = np.maximum(runs.onset[run], truth.onset[event])
        overlap = np.minimum(runs.offset[run], truth.offset[event]) - begin
        meet = overlap > 0
        run, event, overlap = run[meet], event[meet], overlap[meet]
        ends = runs.low[run] > -np.inf
        score = np.concatenate([runs.high[run], runs.low[run][ends]])
        events = np.concatenate([event, event[ends]])
        delta = np.concatenate([overlap, -overlap[ends]])
        order = np.lexsort([-score, events])
        score, events, delta = score[order], events[order], delta[order]
        covered = np.cumsum(delta)
        # The last change at one score of one event: there the sum is complete.
        new_event = np.diff(events, prepend=-1) != 0
        last = np.append(new_event[1:] | (np.diff(score) != 0), True)[: len(score)]
        before = np.where(new_event, covered - delta, 0.0)[
            np.maximum.accumulate(np.where(new_event, np.arange(len(score)), 0))
        ]
        score, events, covered = score[last], events[last], (covered - before)[last]
        needed = np.round(self.gtc * (truth.offset - truth.onset)[events], DECIMALS)
        found = (np.round(covered, DECIMALS) >= needed).astype(float)
        new_event = np.diff(events, prepend=-1) != 0
        delta = found - np.where(new_event, 0.0, np.concatenate([[0.0], found[:-1]])[: len(found)])
        changed = delta != 0
        events = events[changed]
        return Changes(score[changed], truth.clip[events], truth.label[events], delta[changed])
