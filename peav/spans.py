"""From the probabilities of frames to spans in seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from peav.masking import lengths_to_mask, mask_to_lengths
from peav.types import Seconds

#: Lengths that differ by less than this share of a frame are equal: 7 * 0.04 is not 0.28.
_FUZZ = 1e-4


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
    _check(probabilities, mask)
    highs = _thresholds("threshold", threshold, probabilities.shape[1])
    lows = highs if low_threshold is None else _thresholds("low_threshold", low_threshold, probabilities.shape[1])
    if bool((lows > highs).any()):
        raise ValueError(f"low_threshold must not lie above threshold, got {lows.tolist()} and {highs.tolist()}")
    for name, value in (("min_seconds", min_seconds), ("merge_seconds", merge_seconds)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and not negative, not {value}")
    if not 0 < frame_seconds < math.inf:
        raise ValueError(f"frame_seconds must be positive, not {frame_seconds}")
    frames = _filter_frames(median_seconds, frame_seconds)
    ends = _ends(durations, mask)
    values = probabilities.detach().to("cpu", torch.float64)
    lengths = mask_to_lengths(mask.cpu()).tolist()
    shortest = min_seconds - _FUZZ * frame_seconds
    found: list[list[list[Span]]] = []
    for clip, length, end in zip(values, lengths, ends, strict=True):
        rows = clip[:, :length]
        smooth = _median(rows, frames)
        found.append([])
        for row, filtered, high, low in zip(rows, smooth, highs.tolist(), lows.tolist(), strict=True):
            runs = _merged(_runs(filtered, high, low), merge_seconds / frame_seconds)
            spans = [
                Span(begin * frame_seconds, min(after * frame_seconds, end), float(row[begin:after].mean()))
                for begin, after in runs
            ]
            found[-1].append([span for span in spans if span.offset > span.onset and _length(span) >= shortest])
    return found


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
    return _median(probabilities, _filter_frames(median_seconds, frame_seconds))


def _filter_frames(median_seconds: Seconds, frame_seconds: Seconds) -> int:
    if not 0 <= median_seconds < math.inf:
        raise ValueError(f"median_seconds must be finite and not negative, not {median_seconds}")
    if not 0 < frame_seconds < math.inf:
        raise ValueError(f"frame_seconds must be positive, not {frame_seconds}")
    return 2 * math.floor(median_seconds / frame_seconds / 2 + _FUZZ) + 1


def _median(values: Tensor, frames: int) -> Tensor:
    half = min(frames // 2, values.shape[-1])
    if not half:
        return values
    # Beyond the ends lies nothing: NaN, which sorts last.
    padded = torch.nn.functional.pad(values, (half, half), value=math.nan)
    ordered = padded.unfold(-1, 2 * half + 1, 1).sort(-1).values
    there = (~ordered.isnan()).sum(-1, keepdim=True)
    middle = [ordered.gather(-1, place).squeeze(-1) for place in ((there - 1) // 2, there // 2)]
    return (middle[0] + middle[1]) / 2


def _runs(row: Tensor, high: float, low: float) -> list[tuple[int, int]]:
    """Returns the runs [begin, after) of frames above `low` in which a frame exceeds `high`."""
    # From above the threshold to below it and back: +1 where a run begins, -1 after its end.
    edges = torch.diff((row > low).int(), prepend=torch.zeros(1), append=torch.zeros(1))
    begins, afters = (edges > 0).nonzero().flatten().tolist(), (edges < 0).nonzero().flatten().tolist()
    runs = list(zip(begins, afters, strict=True))
    return runs if low == high else [(begin, after) for begin, after in runs if bool((row[begin:after] > high).any())]


def _length(span: Span) -> Seconds:
    return span.offset - span.onset


def _merged(runs: Sequence[tuple[int, int]], frames: float) -> list[tuple[int, int]]:
    """Joins runs [begin, after) between which there are fewer than `frames` frames."""
    merged: list[tuple[int, int]] = []
    for begin, after in runs:
        if merged and begin - merged[-1][1] < frames - _FUZZ:
            begin = merged.pop()[0]
        merged.append((begin, after))
    return merged


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


def _check(probabilities: Tensor, mask: Tensor) -> None:
    if probabilities.ndim != 3 or mask.shape != (len(probabilities), probabilities.shape[-1]):
        raise ValueError(
            f"probabilities must be (A, K, T) and mask (A, T), not of shapes {tuple(probabilities.shape)} and {tuple(mask.shape)}"
        )
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, True = valid, not {mask.dtype}")
    if not torch.equal(mask, lengths_to_mask(mask_to_lengths(mask), mask.shape[1])):
        raise ValueError("mask must be True from the first frame of a clip to its last, without gaps")
    valid = probabilities.masked_select(mask[:, None])
    if not bool(((valid >= 0) & (valid <= 1)).all()):
        raise ValueError("probabilities must lie in [0, 1]; logits become so by .sigmoid()")
