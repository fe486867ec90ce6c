"""What the event metrics read: a clip's scores, the times of its frames, and what is truly heard in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from peav.types import Seconds

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: Times are compared to a microsecond: 0.7 * 0.3 and 0.21 are the same.
DECIMALS = 6

#: (label, onset, offset): the column of the scores, and seconds from the start of the clip.
LabelEvent = tuple[int, Seconds, Seconds]


@dataclass(frozen=True)
class ScoredClip:
    """The scores of L labels in the T frames of a clip, and its true events.

    Attributes:
        scores: (T, L) float, higher where the label is more likely; -inf is never detected.
        times: (T + 1,) seconds, ascending: frame t covers [times[t], times[t + 1]).
        events: (label, onset, offset) in seconds. Those of one label that overlap or touch are one event. An empty list is a clip
            that is known to hold no event: it counts, for whatever is detected in it is a false alarm.
        known: (L,) bool, False for labels about which nothing is known in this clip; they are left out of every metric. None: all are
            known.
        duration: seconds; the end of the last frame by default.

    Raises:
        ValueError: if shapes do not fit, a score is NaN or +inf, the times do not ascend, or an event has no length, no such
            label or a label that is not known.
    """

    scores: Floats
    times: Floats
    events: Sequence[LabelEvent] = ()
    known: Bools | None = None
    duration: Seconds | None = None

    def __post_init__(self) -> None:
        scores, times = self.scores, self.times
        if scores.ndim != 2 or times.shape != (len(scores) + 1,):
            raise ValueError(f"expected scores (T, L) and times (T + 1,), got {scores.shape} and {times.shape}")
        if scores.size and not scores.max() < math.inf:  # NaN is not below anything
            raise ValueError("scores hold NaN or +inf: they cannot be ranked")
        if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
            raise ValueError("times must be finite and ascend")
        if self.known is not None and (self.known.shape != scores.shape[1:] or self.known.dtype != np.bool_):
            raise ValueError(f"expected known ({scores.shape[1]},) bool, got {self.known.dtype} {self.known.shape}")
        if not 0 <= self.seconds < math.inf:
            raise ValueError(f"duration must be finite and not negative, not {self.duration}")
        for label, onset, offset in self.events:
            if not 0 <= label < scores.shape[1]:
                raise ValueError(f"an event has label {label}, but there are the labels 0 to {scores.shape[1] - 1}")
            if not -math.inf < onset < offset < math.inf:
                raise ValueError(f"an event cannot run from {onset} to {offset} s")
            if self.known is not None and not self.known[label]:
                raise ValueError(f"label {label} has an event, but is not among the labels that are known")

    @property
    def seconds(self) -> Seconds:
        """The length of the clip."""
        return float(self.times[-1] if self.duration is None else self.duration)


def num_labels(clips: Sequence[ScoredClip]) -> int:
    """Returns L, the same for all clips.

    Raises:
        ValueError: if there is no clip, or their numbers of labels differ.
    """
    found = {clip.scores.shape[1] for clip in clips}
    if len(found) != 1:
        raise ValueError(f"expected clips with one number of labels, got {len(clips)} clips with {sorted(found)}")
    return found.pop()


def known_seconds(clips: Sequence[ScoredClip]) -> Floats:
    """Returns (A, L): the seconds of each clip, 0 where a label is not known."""
    return np.array([clip.seconds * _known(clip) for clip in clips])


def known_labels(clips: Sequence[ScoredClip]) -> Bools:
    """Returns (A, L) bool."""
    return np.array([_known(clip) for clip in clips])


def _known(clip: ScoredClip) -> Bools:
    return np.ones(clip.scores.shape[1], dtype=np.bool_) if clip.known is None else clip.known


def merged_events(events: Sequence[LabelEvent]) -> list[LabelEvent]:
    """Returns the events by label and onset; those of one label that overlap or touch become one.

    >>> merged_events([(1, 0.0, 1.0), (0, 2.0, 3.0), (0, 1.0, 2.0), (0, 1.5, 1.8)])
    [(0, 1.0, 3.0), (1, 0.0, 1.0)]
    """
    merged: list[LabelEvent] = []
    for label, onset, offset in sorted(events):
        if merged and merged[-1][0] == label and onset <= merged[-1][2]:
            _, onset, before = merged.pop()
            offset = max(before, offset)
        merged.append((label, onset, offset))
    return merged


@dataclass(frozen=True)
class Truth:
    """The merged events of some clips, by clip, label and onset; the events of one label in one clip are a group.

    Attributes:
        clip: (E,) int64.
        label: (E,) int64.
        onset: (E,) seconds.
        offset: (E,) seconds.
        group: (E,) int64.
        group_clip: (G,) int64.
        group_label: (G,) int64.
    """

    clip: Ints
    label: Ints
    onset: Floats
    offset: Floats
    group: Ints
    group_clip: Ints
    group_label: Ints

    @classmethod
    def of(cls, clips: Sequence[ScoredClip]) -> Truth:
        """Collects the events of `clips`."""
        rows = [(index, *event) for index, clip in enumerate(clips) for event in merged_events(clip.events)]
        table = np.array(rows, dtype=np.float64).reshape(-1, 4)
        clip, label = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
        new = np.diff(clip, prepend=-1).astype(bool) | np.diff(label, prepend=-1).astype(bool)
        group = np.cumsum(new) - 1
        return cls(clip, label, table[:, 2], table[:, 3], group, clip[new], label[new])

    def covered(self, group: Ints, onset: Floats, offset: Floats) -> Floats:
        """Returns (N,): the seconds of [onset, offset) that the events of a group cover, all of them (N,)."""
        if not len(self.group):
            return np.zeros(len(group))
        # Each group has a stretch of one long line, on which the time covered so far is piecewise linear.
        first = min(self.onset.min(), onset.min(initial=0.0))
        stretch = max(self.offset.max(), offset.max(initial=0.0)) - first + 1.0
        knots = np.stack([self.onset, self.offset], 1) - first + (self.group * stretch)[:, None]
        so_far = np.cumsum(np.stack([np.zeros(len(knots)), self.offset - self.onset], 1).ravel())
        begin, end = (np.interp(times - first + group * stretch, knots.ravel(), so_far) for times in (onset, offset))
        return end - begin

    def seconds(self, num_clips: int, num_labels: int) -> Floats:
        """Returns (A, L): the seconds of events."""
        return self._sums(self.offset - self.onset, num_clips, num_labels)

    def counts(self, num_clips: int, num_labels: int) -> Floats:
        """Returns (A, L): the number of events."""
        return self._sums(np.ones(len(self.clip)), num_clips, num_labels)

    def _sums(self, values: Floats, num_clips: int, num_labels: int) -> Floats:
        place = self.clip * num_labels + self.label
        return np.bincount(place, values, num_clips * num_labels).astype(np.float64).reshape(num_clips, num_labels)


def expand(first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """Lists `count[n]` consecutive numbers from `first[n]` on, for each n.

    Returns:
        n and the number, (M,) each.

    >>> [part.tolist() for part in expand(np.array([5, 0]), np.array([2, 1]))]
    [[0, 0, 1], [5, 6, 0]]
    """
    row = np.repeat(np.arange(len(count)), count)
    return row, first[row] + np.arange(len(row)) - (np.cumsum(count) - count)[row]
