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
    threshold: float,
    frame_seconds: Seconds,
    durations: Tensor | Sequence[Seconds] | None = None,
    min_seconds: Seconds = 0.0,
    merge_seconds: Seconds = 0.0,
) -> list[list[list[Span]]]:
    """Finds the spans in which each of K texts is heard in each of A clips.

    A span is a run of frames whose probability exceeds the threshold. Gaps that are shorter than `merge_seconds` are closed, then spans
    that are shorter than `min_seconds` dropped. Padded frames never belong to a span.

    Args:
        probabilities: (A, K, T), each in [0, 1] where valid.
        mask: (A, T) bool, True from the first frame of a clip to its last.
        threshold: in [0, 1].
        frame_seconds: the time between two frames.
        durations: (A,) seconds of the clips; no span ends later. The last frame may reach past the end of its clip.
        min_seconds: the shortest span.
        merge_seconds: the shortest gap.

    Returns:
        for each clip, for each text, its spans in the order of time. A closed gap counts in a span's score.

    Raises:
        ValueError: if shapes do not fit, the mask has gaps, or a value is out of range.

    >>> p = torch.tensor([[[0.9, 0.7, 0.1, 0.8, 0.9]]])
    >>> valid = torch.tensor([[True, True, True, True, False]])
    >>> [[(s.onset, s.offset, round(s.score, 2)) for s in spans] for spans in find_spans(p, valid, 0.5, 0.5)[0]]
    [[(0.0, 1.0, 0.8), (1.5, 2.0, 0.8)]]
    """
    _check(probabilities, mask, threshold, frame_seconds, min_seconds, merge_seconds)
    ends = _ends(durations, mask, frame_seconds)
    values = probabilities.detach().to("cpu", torch.float64)
    lengths = mask_to_lengths(mask.cpu()).tolist()
    found: list[list[list[Span]]] = []
    for clip, length, end in zip(values, lengths, ends, strict=True):
        found.append([])
        for row in clip[:, :length]:
            # From above the threshold to below it and back: +1 where a run begins, -1 after its end.
            edges = torch.diff((row > threshold).int(), prepend=torch.zeros(1), append=torch.zeros(1))
            begins, afters = (edges > 0).nonzero().flatten().tolist(), (edges < 0).nonzero().flatten().tolist()
            runs = _merged(list(zip(begins, afters, strict=True)), merge_seconds / frame_seconds)
            spans = [
                Span(begin * frame_seconds, min(after * frame_seconds, end), float(row[begin:after].mean()))
                for begin, after in runs
            ]
            shortest = min_seconds - _FUZZ * frame_seconds
            found[-1].append([span for span in spans if span.offset > span.onset and _length(span) >= shortest])
    return found


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


def _ends(durations: Tensor | Sequence[Seconds] | None, mask: Tensor, frame_seconds: Seconds) -> list[Seconds]:
    if durations is None:
        return [math.inf] * len(mask)
    ends = torch.as_tensor(durations, dtype=torch.float64).detach().cpu()
    if tuple(ends.shape) != (len(mask),):
        raise ValueError(f"durations must be ({len(mask)},), one a clip, not of shape {tuple(ends.shape)}")
    if not bool((torch.isfinite(ends) & (ends >= 0)).all()):
        raise ValueError(f"durations must be finite and not negative, not {ends.tolist()}")
    return ends.tolist()


def _check(
    probabilities: Tensor,
    mask: Tensor,
    threshold: float,
    frame_seconds: Seconds,
    min_seconds: Seconds,
    merge_seconds: Seconds,
) -> None:
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
    for name, value, top in (
        ("threshold", threshold, 1.0),
        ("min_seconds", min_seconds, math.inf),
        ("merge_seconds", merge_seconds, math.inf),
    ):
        if not 0 <= value <= top:
            raise ValueError(f"{name} must lie in [0, {top:g}], not {value}")
    if not 0 < frame_seconds < math.inf:
        raise ValueError(f"frame_seconds must be positive, not {frame_seconds}")
