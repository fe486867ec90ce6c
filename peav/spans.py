"""From the probabilities of frames to spans in seconds: of whole clips, and of one whose frames come bit by bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peav.masking import lengths_to_mask, mask_to_lengths
from peav.types import Seconds

#: Lengths that differ by less than this share of a frame are equal: 7 * 0.04 is not 0.28.
_FUZZ = 1e-4

#: Numbers that are sorted at once for medians.
_NUMBERS_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class Span:
    """An event of a clip.

    Attributes:
        onset: seconds from the start of the clip.
        offset: seconds from the start of the clip.
        score: mean probability of its frames.
    """

    onset: Seconds
    offset: Seconds
    score: float


def find_spans(
    probabilities: Tensor,
    mask: Tensor,
    threshold: float | Tensor | Sequence[float],
    frame_seconds: Seconds,
    durations: Tensor | Sequence[Seconds] | None = None,
    min_seconds: Seconds = 0.0,
    merge_seconds: Seconds = 0.0,
    low_threshold: float | Tensor | Sequence[float] | None = None,
    median_seconds: Seconds = 0.0,
) -> list[list[list[Span]]]:
    """Finds the spans in which each of K texts is heard in each of A clips.

    A span is a run of frames whose probability exceeds the threshold. In order: a median filter of `median_seconds` smooths the
    probabilities; a span reaches on over frames above `low_threshold`; gaps that are shorter than `merge_seconds` are closed; spans that
    are shorter than `min_seconds` are dropped. Each is off by default. Padded frames never belong to a span.

    Args:
        probabilities: (A, K, T), each in [0, 1] where valid.
        mask: (A, T) bool, True from the first frame of a clip to its last.
        threshold: in [0, 1]; one for all texts, or (K,).
        frame_seconds: the time between two frames.
        durations: (A,) seconds of the clips; no span ends later. The last frame may reach past the end of its clip.
        min_seconds: the shortest span.
        merge_seconds: the shortest gap.
        low_threshold: in [0, threshold], likewise one or (K,): a run of frames above it is a span if one of them exceeds `threshold`
            (hysteresis).
        median_seconds: length of the median filter, see `median_filter`.

    Returns:
        for each clip, for each text, its spans in the order of time. Their scores are means of the probabilities as they were given. A
        closed gap counts in a span's score.

    Raises:
        ValueError: if shapes do not fit, the mask has gaps, or a value is out of range.

    >>> p = torch.tensor([[[0.9, 0.7, 0.1, 0.8, 0.9]]])
    >>> valid = torch.tensor([[True, True, True, True, False]])
    >>> [[(s.onset, s.offset, round(s.score, 2)) for s in spans] for spans in find_spans(p, valid, 0.5, 0.5)[0]]
    [[(0.0, 1.0, 0.8), (1.5, 2.0, 0.8)]]
    >>> [len(find_spans(p, valid, 0.75, 0.5, low_threshold=low)[0][0]) for low in (0.05, 0.5, 0.75)]
    [1, 2, 2]
    """
    _check_shapes(probabilities, mask)
    lengths = mask_to_lengths(mask.cpu()).tolist()
    found: list[list[list[Span]]] = []
    ends = _ends(durations, mask)
    options = (threshold, frame_seconds, min_seconds, merge_seconds, low_threshold, median_seconds)
    SpanFinder(probabilities.shape[1], *options)  # says what is wrong where there is no clip, too
    for clip, length, end in zip(probabilities, lengths, ends, strict=True):
        finder = SpanFinder(len(clip), *options, end=end)
        early, late = finder.add(clip[:, :length]), finder.finish()
        found.append([first + rest for first, rest in zip(early, late, strict=True)])
    return found


class SpanFinder:
    """Finds the spans of K texts in one clip as its frames come, by the rules of `find_spans`.

    What it has found when the last frames have come is what `find_spans` finds in all of them, to the last bit, however they are cut. A
    span is returned as soon as no later frame can change it: after half a median filter and `merge_seconds`. Memory: the frames of
    half a filter, and one span a text.

    Args:
        num_texts: K.
        threshold: as for `find_spans`, and so are the others.
        frame_seconds: the time between two frames.
        min_seconds: the shortest span.
        merge_seconds: the shortest gap.
        low_threshold: where a span that exceeds `threshold` ends.
        median_seconds: length of the median filter.
        end: where the clip ends, if that is known: no span ends later.

    Raises:
        ValueError: if a value is out of range.
    """

    def __init__(
        self,
        num_texts: int,
        threshold: float | Tensor | Sequence[float],
        frame_seconds: Seconds,
        min_seconds: Seconds = 0.0,
        merge_seconds: Seconds = 0.0,
        low_threshold: float | Tensor | Sequence[float] | None = None,
        median_seconds: Seconds = 0.0,
        end: Seconds = math.inf,
    ) -> None:
        high = _thresholds("threshold", threshold, num_texts)
        low = high if low_threshold is None else _thresholds("low_threshold", low_threshold, num_texts)
        if bool((low > high).any()):
            raise ValueError(f"low_threshold must not lie above threshold, got {low.tolist()} and {high.tolist()}")
        for name, value in (("min_seconds", min_seconds), ("merge_seconds", merge_seconds)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and not negative, not {value}")
        self._half = _filter_frames(median_seconds, frame_seconds) // 2
        self._high, self._low = high.numpy()[:, None], low.numpy()[:, None]
        self._step, self._end = frame_seconds, end
        self._merge = merge_seconds / frame_seconds - _FUZZ
        self._shortest = min_seconds - _FUZZ * frame_seconds
        #: Frames that have come, and those that were compared with the thresholds.
        self._come = self._seen = 0
        self._raw = np.zeros((num_texts, 0))
        #: Sums over the frames before frame t, for `_seen` <= t <= `_come`.
        self._sums = np.zeros((num_texts, 1))
        self._above = np.zeros((num_texts, 1), dtype=bool)
        self._open: dict[int, _Run] = {}
        self._held: dict[int, _Run] = {}

    @property
    def num_frames(self) -> int:
        """How many frames have come."""
        return self._come

    def add(self, probabilities: Tensor) -> list[list[Span]]:
        """Takes the next frames (K, t), each in [0, 1], and returns the spans of each text that are final by now.

        Raises:
            ValueError: if the shape is another, or a value is out of range.
        """
        values = probabilities.detach().to("cpu", torch.float64).numpy()
        if values.ndim != 2 or len(values) != len(self._raw):
            raise ValueError(f"probabilities must be ({len(self._raw)}, t), not of shape {values.shape}")
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError("probabilities must lie in [0, 1]; logits become so by .sigmoid()")
        self._come += values.shape[1]
        self._raw = np.concatenate([self._raw, values], 1)
        # One after another, so that the sum does not depend on how the frames are cut.
        sums = np.concatenate([self._sums[:, -1:], values], 1).cumsum(1)
        self._sums = np.concatenate([self._sums, sums[:, 1:]], 1)
        return self._advance(self._come - self._half)

    def finish(self, end: Seconds = math.inf) -> list[list[Span]]:
        """Returns the spans that were not final before the clip ended, at `end` if that is known only now."""
        self._end = min(self._end, end)
        found = self._advance(self._come)
        for k in sorted(self._open.keys() | self._held.keys()):
            if k in self._open:
                self._close(k, self._come, float(self._sums[k, -1]), found[k])
            if k in self._held:
                self._emit(self._held.pop(k), found[k])
        self._above[:] = False
        return found

    def _advance(self, until: int) -> list[list[Span]]:
        """Compares the frames before `until` with the thresholds."""
        found: list[list[Span]] = [[] for _ in self._raw]
        begin = self._seen
        if until <= begin:
            return found
        half = min(self._half, self._come)
        first = self._come - self._raw.shape[1]
        around = self._raw[:, max(begin - half, 0) - first : until + half - first]
        missing = (half - min(begin, half), max(until + half - self._come, 0))
        filtered = _medians(around, half, missing)
        sums = self._sums[:, : until - begin + 1]
        above = filtered > self._low
        # Frames above the higher threshold, before frame t.
        strong = np.zeros(sums.shape, dtype=np.int64)
        np.cumsum(filtered > self._high, axis=1, out=strong[:, 1:])
        changes = np.nonzero(np.diff(above, axis=1, prepend=self._above))
        for k, t in zip(*(part.tolist() for part in changes), strict=True):
            if above[k, t]:
                self._open[k] = _Run(begin + t, 0, float(sums[k, t]), 0.0, -int(strong[k, t]))
            else:
                self._open[k].strong += int(strong[k, t])
                self._close(k, begin + t, float(sums[k, t]), found[k])
        for k, run in self._open.items():
            run.strong += int(strong[k, -1])
        for k in list(self._held):
            following = self._open[k].begin if k in self._open else until
            if following - self._held[k].after >= self._merge:
                self._emit(self._held.pop(k), found[k])
        self._above, self._seen = above[:, -1:], until
        self._raw = self._raw[:, max(until - self._half, 0) - first :]
        self._sums = self._sums[:, until - begin :]
        return found

    def _close(self, k: int, after: int, total: float, found: list[Span]) -> None:
        """Ends the open run of a text before frame `after`, and joins it with the one before where the gap is short."""
        run = self._open.pop(k)
        if not run.strong:
            return
        run.after, run.sum_after = after, total
        held = self._held.pop(k, None)
        if held is not None and run.begin - held.after < self._merge:
            run.begin, run.sum_before = held.begin, held.sum_before
        elif held is not None:
            self._emit(held, found)
        self._held[k] = run

    def _emit(self, run: _Run, found: list[Span]) -> None:
        onset, offset = run.begin * self._step, min(run.after * self._step, self._end)
        if offset > onset and offset - onset >= self._shortest:
            mean = (run.sum_after - run.sum_before) / (run.after - run.begin)
            found.append(Span(onset, offset, min(max(mean, 0.0), 1.0)))


@dataclass
class _Run:
    """Frames [begin, after) above the lower threshold.

    Attributes:
        begin: its first frame.
        after: the frame after its last.
        sum_before: of the probabilities of all frames before it.
        sum_after: of those before `after`.
        strong: how many of its frames exceed the higher threshold, as far as they were counted.
    """

    begin: int
    after: int
    sum_before: float
    sum_after: float
    strong: int


def median_filter(probabilities: Tensor, median_seconds: Seconds, frame_seconds: Seconds) -> Tensor:
    """Replaces each frame by the median of the frames around it; at the ends, of those there are.

    The window is the odd number of frames that is nearest to `median_seconds`, the larger one of two. Of an even number of values, at the
    ends, the median is the mean of the middle two.

    Args:
        probabilities: (..., T), without padding.
        median_seconds: 0 filters nothing.
        frame_seconds: the time between two frames.

    Returns:
        (..., T).

    Raises:
        ValueError: if a time is out of range.

    >>> median_filter(torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 1.0]), 0.3, 0.1).tolist()
    [0.5, 0.0, 0.0, 0.0, 1.0, 1.0]
    """
    half = min(_filter_frames(median_seconds, frame_seconds) // 2, probabilities.shape[-1])
    rows = probabilities.detach().cpu().reshape(-1, probabilities.shape[-1]).numpy()
    return torch.from_numpy(_medians(rows, half, (half, half))).to(probabilities).view_as(probabilities)


def _filter_frames(median_seconds: Seconds, frame_seconds: Seconds) -> int:
    if not 0 <= median_seconds < math.inf:
        raise ValueError(f"median_seconds must be finite and not negative, not {median_seconds}")
    if not 0 < frame_seconds < math.inf:
        raise ValueError(f"frame_seconds must be positive, not {frame_seconds}")
    return 2 * math.floor(median_seconds / frame_seconds / 2 + _FUZZ) + 1


def _medians(values: np.ndarray, half: int, missing: tuple[int, int]) -> np.ndarray:
    """Returns the medians over 2 * half + 1 neighbours of rows (K, T), beyond whose ends so many frames are missing for that."""
    if not half:
        return values
    # Beyond the ends lies nothing: NaN, which sorts last.
    padded = np.pad(values, ((0, 0), missing), constant_values=math.nan)
    width = 2 * half + 1
    filtered = np.empty((len(values), padded.shape[1] - width + 1), values.dtype)
    frames = max(1, _NUMBERS_AT_ONCE // width)
    rows = max(1, frames // max(filtered.shape[1], 1))
    for row in range(0, len(filtered), rows):
        for begin in range(0, filtered.shape[1], frames):
            part = padded[row : row + rows, begin : begin + frames + width - 1]
            ordered = np.sort(np.lib.stride_tricks.sliding_window_view(part, width, axis=1), -1)
            there = width - np.isnan(ordered).sum(-1, keepdims=True)
            middle = [np.take_along_axis(ordered, place, -1)[..., 0] for place in ((there - 1) // 2, there // 2)]
            filtered[row : row + rows, begin : begin + frames] = (middle[0] + middle[1]) / 2
    return filtered


def _ends(durations: Tensor | Sequence[Seconds] | None, mask: Tensor) -> list[Seconds]:
    if durations is None:
        return [math.inf] * len(mask)
    ends = torch.as_tensor(durations, dtype=torch.float64).detach().cpu()
    if tuple(ends.shape) != (len(mask),):
        raise ValueError(f"durations must be ({len(mask)},), one a clip, not of shape {tuple(ends.shape)}")
    if not bool((torch.isfinite(ends) & (ends >= 0)).all()):
        raise ValueError(f"durations must be finite and not negative, not {ends.tolist()}")
    return ends.tolist()


def _thresholds(name: str, value: float | Tensor | Sequence[float], num_texts: int) -> Tensor:
    """Returns (K,) float64."""
    thresholds = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
    if tuple(thresholds.shape) not in ((), (num_texts,)):
        raise ValueError(
            f"{name} must be one number or ({num_texts},), one a text, not of shape {tuple(thresholds.shape)}"
        )
    if not bool(((thresholds >= 0) & (thresholds <= 1)).all()):
        raise ValueError(f"{name} must lie in [0, 1], not {thresholds.tolist()}")
    return thresholds.expand(num_texts)


def _check_shapes(probabilities: Tensor, mask: Tensor) -> None:
    if probabilities.ndim != 3 or mask.shape != (len(probabilities), probabilities.shape[-1]):
        raise ValueError(
            f"probabilities must be (A, K, T) and mask (A, T), not of shapes {tuple(probabilities.shape)} and {tuple(mask.shape)}"
        )
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, True = valid, not {mask.dtype}")
    if not torch.equal(mask, lengths_to_mask(mask_to_lengths(mask), mask.shape[1])):
        raise ValueError("mask must be True from the first frame of a clip to its last, without gaps")
