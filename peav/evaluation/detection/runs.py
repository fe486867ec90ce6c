"""All events that any threshold detects, at once.

A detection at threshold x is a maximal run of frames whose scores are at least x. As x falls, runs appear, grow and join: over all
thresholds a label has at most T different runs in a clip of T frames, one for each frame that is the lowest of its run. Each run is there
from its lowest score down to the higher one of its two neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from peav.evaluation.detection.clips import Bools, Floats, Ints, ScoredClip
from peav.evaluation.detection.counts import Changes, Counts

#: Frames above the floor that are looked at together, and scores that are held for it.
_FRAMES_AT_ONCE, _SCORES_AT_ONCE = 2**18, 2**24


@dataclass(frozen=True)
class Runs:
    """The R different runs of some clips.

    Attributes:
        clip: (R,) int64.
        label: (R,) int64.
        onset: (R,) seconds.
        offset: (R,) seconds.
        high: (R,) the highest threshold that detects the run: a run is detected where low < threshold <= high.
        low: (R,) the highest threshold at which it is part of a larger run; -inf where there is none.
    """

    clip: Ints
    label: Ints
    onset: Floats
    offset: Floats
    high: Floats
    low: Floats


def count_runs(
    count: Callable[[Sequence[ScoredClip], Runs, int], Counts], clips: Sequence[ScoredClip], floor: Floats
) -> Counts:
    """Counts by a rule that compares runs with events, a few clips at a time.

    Args:
        count: of some clips, their runs and the number of labels, with clips numbered from 0.
        clips: all clips.
        floor: (L,) of each label; frames below it are in no run.
    """
    blocks = [(start, count(block, runs, len(floor))) for start, block, runs in runs_in_blocks(clips, floor)]
    return Counts(
        tp=Changes.join([counts.tp.moved(start) for start, counts in blocks]),
        fp=Changes.join([counts.fp.moved(start) for start, counts in blocks]),
        ct=Changes.join([counts.ct.moved(start) for start, counts in blocks]),
        num_true=np.concatenate([counts.num_true for _, counts in blocks]),
    )


def runs_in_blocks(clips: Iterable[ScoredClip], floor: Floats) -> Iterator[tuple[int, Sequence[ScoredClip], Runs]]:
    """Finds every run that some threshold of at least `floor` detects, for a few clips at a time.

    Args:
        clips: with L labels; read once.
        floor: (L,) of each label; frames below it are in no run.

    Yields:
        the number of the first of the clips, the clips, and their runs.
    """
    start, num_scores = 0, 0
    block: list[ScoredClip] = []
    parts: list[tuple[Ints, Ints, Floats]] = []
    for clip in clips:
        block.append(clip)
        parts.append(_above(clip, floor))
        num_scores += clip.scores.size
        if num_scores >= _SCORES_AT_ONCE or sum(len(part[0]) for part in parts) >= _FRAMES_AT_ONCE:
            yield start, block, _runs(block, parts)
            start, num_scores, block, parts = start + len(block), 0, [], []
    if block:
        yield start, block, _runs(block, parts)


def _kept(clip: ScoredClip, floor: Floats) -> Bools:
    kept = (clip.scores >= floor) & (clip.scores > -np.inf)
    return kept if clip.known is None else kept & clip.known


def _above(clip: ScoredClip, floor: Floats) -> tuple[Ints, Ints, Floats]:
    """Returns label, frame and score of the frames that are not below the floor, by label."""
    label, frame = np.nonzero(_kept(clip, floor).T)
    return label, frame, clip.scores[frame, label]


def _runs(clips: Sequence[ScoredClip], parts: Sequence[tuple[Ints, Ints, Floats]]) -> Runs:
    clip = np.repeat(np.arange(len(clips)), [len(part[0]) for part in parts])
    label, frame = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    score = np.concatenate([part[2] for part in parts]).astype(np.float64)
    # A wall of -inf stands before each stretch of adjacent frames, and one after the last.
    stretch = (np.diff(clip, prepend=-1) != 0) | (np.diff(label, prepend=-1) != 0) | (np.diff(frame, prepend=-1) != 1)
    place = np.arange(len(score)) + np.cumsum(stretch)
    value = np.full(len(score) + int(stretch.sum()) + 1, -np.inf)
    value[place] = score
    left = _nearest(value, place, -1, strictly=False)
    # Of equal scores in one run the first stands for the run.
    first = value[left[place]] < score
    place, clip, label = place[first], clip[first], label[first]
    right = _nearest(value, place, 1, strictly=True)
    of_place = np.zeros(len(value), dtype=np.int64)
    of_place[np.flatnonzero(value > -np.inf)] = frame
    begin, after = of_place[left[place] + 1], of_place[right[place] - 1] + 1
    times = np.concatenate([c.times for c in clips])
    before = np.cumsum([0, *(len(c.times) for c in clips[:-1])])[clip]
    return Runs(
        clip=clip,
        label=label,
        onset=times[before + begin],
        offset=times[before + after],
        high=value[place],
        low=np.maximum(value[left[place]], value[right[place]]),
    )


def _nearest(value: Floats, places: Ints, step: int, strictly: bool) -> Ints:
    """Returns, for each of `places`, the nearest place in the direction of `step` with a smaller value, or (not `strictly`) an equal one.

    All places jump at once: what a place has jumped over is higher than it, and so is higher than whoever jumps over the place itself.
    """
    # A place that is not asked about may be jumped from too: its neighbour is right for it.
    nearest = np.arange(len(value)) + step
    too_high = np.greater_equal if strictly else np.greater
    while len(places := places[too_high(value[nearest[places]], value[places])]):
        nearest[places] = nearest[nearest[places]]
    return nearest
