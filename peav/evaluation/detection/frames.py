"""Frame-level detection: ground truth as frames, and the area under the ROC curve over frames, in torch and a block at a time.

`peav.evaluation.detection.roc` has the same area, and the partial one, of clips whose scores are all held; a test holds both equal.

A rank AUROC over the labels of `frame_labels` equals
`sed_scores_eval.segment_based.auroc(segment_length=frame_seconds)`. It hides errors of boundaries and calibration.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from peav.evaluation.table import Event
from peav.types import Seconds

#: In frames. Times come as float32 seconds: at 60 s their rounding is below 1e-4 of a 40 ms frame.
_EPSILON = 1e-4


def frame_labels(onset: Seconds, offset: Seconds, num_frames: int, frame_seconds: Seconds) -> Tensor:
    """Marks the frames that an event overlaps at all: from the floor of its onset to the ceiling of its offset.

    Frame t covers [t * hop, (t + 1) * hop). What lies outside the `num_frames` frames is cut off.

    Args:
        onset: seconds from the start of the clip.
        offset: seconds from the start of the clip, at least `onset`.
        num_frames: T.
        frame_seconds: hop.

    Returns:
        (T,) bool.

    Raises:
        ValueError: if the event ends before it begins, or the hop is not positive.

    >>> frame_labels(0.05, 0.12, 5, 0.04).int().tolist()
    [0, 1, 1, 0, 0]
    """
    if not frame_seconds > 0:
        raise ValueError(f"frame_seconds must be positive, got {frame_seconds}")
    if not onset <= offset:
        raise ValueError(f"an event cannot run from {onset} to {offset} s")
    first = math.floor(onset / frame_seconds + _EPSILON)
    last = math.ceil(offset / frame_seconds - _EPSILON)
    labels = torch.zeros(num_frames, dtype=torch.bool)
    labels[max(first, 0) : max(last, 0)] = True
    return labels


def event_labels(
    events: Sequence[Sequence[Event] | None], phrases: Sequence[str], num_frames: int, frame_seconds: Seconds
) -> Tensor:
    """Turns the clips' events into labels of frames.

    Args:
        events: of each clip, (phrase, onset, offset) in seconds; None (not annotated) gives no label, like an empty
            list.
        phrases: the K phrases.
        num_frames: T.
        frame_seconds: hop.

    Returns:
        (A, K, T) bool.
    """
    row = {phrase: k for k, phrase in enumerate(phrases)}
    labels = torch.zeros(len(events), len(phrases), num_frames, dtype=torch.bool)
    for clip, clip_events in enumerate(events):
        for phrase, onset, offset in clip_events or []:
            labels[clip, row[phrase]] |= frame_labels(onset, offset, num_frames, frame_seconds)
    return labels


def rank_auroc(positives: Tensor, negatives: Tensor) -> float | None:
    """Returns the probability that a positive scores above a negative, ties counted half; None where either is empty.

    Args:
        positives: (P,) scores.
        negatives: (Q,) scores.

    >>> rank_auroc(torch.tensor([0.9, 0.4]), torch.tensor([0.1, 0.4]))
    0.875
    """
    # Events are rare: sorting the positives alone is far cheaper than ranking all frames.
    return _share(_twice_wrong(positives.sort().values, negatives), len(positives), len(negatives))


def _twice_wrong(ordered: Tensor, negatives: Tensor) -> int:
    """Returns twice the number of pairs in which a negative stands above a positive, ties counted half.

    Args:
        ordered: (P,) ascending scores of positives.
        negatives: (Q,) scores.
    """
    if not len(ordered):
        return 0
    not_above = torch.searchsorted(ordered, negatives, right=True)
    tied = negatives[(not_above > 0) & (ordered[(not_above - 1).clamp(min=0)] == negatives)]
    ties = torch.searchsorted(ordered, tied, right=True) - torch.searchsorted(ordered, tied)
    return 2 * int(not_above.sum()) - int(ties.sum())


@dataclass(frozen=True)
class FrameAUROCValues:
    """Area under the ROC curve over frames.

    Attributes:
        macro: mean over the texts that have both classes; None if there is no such text.
        micro: over all (frame, text) together; None without both classes.
        per_text: of each of the K texts; None without both classes.
        num_positive: active frames of each text.
        num_frames: valid frames, the same for every text.
    """

    macro: float | None
    micro: float | None
    per_text: list[float | None]
    num_positive: list[int]
    num_frames: int


def frame_auroc(scores: Tensor, labels: Tensor, mask: Tensor) -> FrameAUROCValues:
    """Computes the frame AUROC of each text over the pooled valid frames of all clips, and its macro and micro means.

    Args:
        scores: (A, K, T) float; logits rather than probabilities, which saturate into ties.
        labels: (A, K, T) bool.
        mask: (A, T) bool; leave out clips that are not annotated by an all-False row.

    Raises:
        ValueError: if the shapes do not fit or a valid score is NaN.
    """
    expected = (scores.shape[0], scores.shape[2]) if scores.ndim == 3 else None
    if expected is None or labels.shape != scores.shape or mask.shape != expected:
        got = f"{tuple(scores.shape)}, {tuple(labels.shape)}, {tuple(mask.shape)}"
        raise ValueError(f"expected scores and labels (clips, texts, frames) and a mask (clips, frames), got {got}")
    if labels.dtype != torch.bool or mask.dtype != torch.bool:
        raise ValueError(f"labels and mask must be bool, got {labels.dtype} and {mask.dtype}")
    pooled = scores.transpose(1, 2)[mask].T.contiguous()  # (K, valid frames)
    truth = labels.transpose(1, 2)[mask].T.contiguous()
    if bool(pooled.isnan().any()):
        raise ValueError("scores of valid frames hold NaN: they cannot be ranked")
    return auroc_in_blocks([s[y] for s, y in zip(pooled, truth, strict=True)], [(pooled, truth)])


def auroc_in_blocks(
    positives: Sequence[Tensor], blocks: Iterable[tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]]
) -> FrameAUROCValues:
    """Computes the frame AUROC of scores that come a block at a time, exactly.

    Args:
        positives: of each of the K texts, the scores of all its active frames, (P,).
        blocks: the scores (K, n) of all frames, n at a time, and their labels (K, n) bool; third, where not all are, which of these labels
            are known, (K, n) bool. The others are left out.

    Raises:
        ValueError: if a score is NaN.
    """
    ordered = [scores.sort().values for scores in positives]
    everywhere = torch.cat([torch.zeros(0), *positives]).sort().values
    wrong, micro_wrong, num_frames = [0] * len(ordered), 0, 0
    num_negative = [0] * len(ordered)
    for scores, labels, *known in blocks:
        if bool(scores.isnan().any()):
            raise ValueError("scores of valid frames hold NaN: they cannot be ranked")
        num_frames += scores.shape[1]
        absent = ~labels & known[0] if known else ~labels
        for k, (row, inactive) in enumerate(zip(scores, absent, strict=True)):
            negatives = row[inactive]
            num_negative[k] += len(negatives)
            wrong[k] += _twice_wrong(ordered[k], negatives)
            micro_wrong += _twice_wrong(everywhere, negatives)
    counts = [len(scores) for scores in ordered]
    per_text = [_share(*of_text) for of_text in zip(wrong, counts, num_negative, strict=True)]
    both = [value for value in per_text if value is not None]
    return FrameAUROCValues(
        macro=sum(both) / len(both) if both else None,
        micro=_share(micro_wrong, sum(counts), sum(num_negative)),
        per_text=per_text,
        num_positive=counts,
        num_frames=num_frames,
    )


def _share(twice_wrong: int, num_positives: int, num_negatives: int) -> float | None:
    if not num_positives or not num_negatives:
        return None
    return 1 - twice_wrong / (2 * num_positives * num_negatives)
