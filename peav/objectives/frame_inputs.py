"""What the mask of frames is made from: events and texts of all ranks, brought to the host in one copy, and checked there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peav.host import to_host
from peav.objectives.lineage import spans
from peav.types import EventInput, Seconds

Integers = NDArray[np.int64]
Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Texts:
    """The texts of all ranks, M rows, and which of them are this rank's.

    Attributes:
        group: (M,) int64, identity.
        present: (M,) bool.
        offset: where this rank's rows begin.
        number: of this rank's rows.
        bank: (M,) bool; None for False.
        members: (M, V) bool; None where there are no vocabularies.
        lineage: (M, A) int64; None where no text has an ancestor.
    """

    group: Tensor
    present: Tensor
    offset: int
    number: int
    bank: Tensor | None = None
    members: Tensor | None = None
    lineage: Tensor | None = None


@dataclass(frozen=True)
class Spans:
    """Frames from `begin` to `end` of pairs of a clip and a text, in the order of the pairs."""

    pair: Integers
    begin: Integers
    end: Integers
    confidence: Numbers

    @classmethod
    def empty(cls) -> Spans:
        """Returns no frames of no pair."""
        none = np.zeros(0, dtype=np.int64)
        return cls(none, none, none, np.zeros(0))

    def paint(self, pairs: slice, num_frames: int) -> Numbers:
        """Returns the highest confidence in each frame of some pairs, (p, T)."""
        painted = np.zeros((pairs.stop - pairs.start, num_frames))
        here = slice(*np.searchsorted(self.pair, (pairs.start, pairs.stop)))
        begin = (self.pair[here] - pairs.start) * num_frames + self.begin[here]
        length = np.maximum(self.end[here] - self.begin[here], 0)
        np.maximum.at(painted.reshape(-1), spans(begin, begin + length), np.repeat(self.confidence[here], length))
        return painted


_OF_EVENTS = ("clip", "phrase", "onset", "offset", "confidence", "timed", "vocabulary")
_OF_TEXTS = ("group", "present", "bank", "members", "lineage")


def fetch_to_host(
    valid: Tensor, events: EventInput, frame_seconds: Tensor | Seconds, texts: Texts
) -> tuple[Tensor, EventInput, Tensor, Texts]:
    """Brings all that the mask is made from to the host, in one copy."""
    hop = frame_seconds if isinstance(frame_seconds, Tensor) else torch.tensor(frame_seconds, dtype=torch.float64)
    of_events = [n for n in _OF_EVENTS if getattr(events, n) is not None]
    of_texts = [n for n in _OF_TEXTS if getattr(texts, n) is not None]
    parts = [*(getattr(events, n) for n in of_events), *(getattr(texts, n) for n in of_texts)]
    valid, hop, *found = to_host(valid, hop, *parts)
    events_there: dict[str, Any] = dict(zip(of_events, found, strict=False))
    texts_there: dict[str, Any] = dict(zip(of_texts, found[len(of_events) :], strict=True))
    return valid, replace(events, **events_there), hop, replace(texts, **texts_there)


def check_events(events: EventInput, num_clips: int, num_texts: int) -> None:
    """Checks events on the host. Times outside of the clip touch no frame, and are none of what is refused.

    Raises:
        ValueError: if tensors do not fit each other, indices lead nowhere, or times or confidences are no numbers that mean something.
    """
    number = len(events.clip)
    for name in ("clip", "phrase", "onset", "offset", "confidence", "timed"):
        value = getattr(events, name)
        if value is not None and value.shape != (number,):
            raise ValueError(f"events.{name} is {tuple(value.shape)}, but there are {number} events in events.clip")
    if events.vocabulary is not None and events.vocabulary.shape != (num_clips,):
        raise ValueError(f"events.vocabulary is {tuple(events.vocabulary.shape)}, but there are {num_clips} clips")
    for name, most in (("clip", num_clips), ("phrase", num_texts)):
        value = getattr(events, name)
        if number and not (int(value.min()) >= 0 and int(value.max()) < most):
            raise ValueError(f"events.{name} must be 0 to {most - 1}, not {int(value.min())} to {int(value.max())}")
    for name in ("onset", "offset"):
        if bool(getattr(events, name).isnan().any()):
            raise ValueError(
                f"events.{name} holds NaN: an event whose times are not known has timed=False, from 0 to the clip's end"
            )
    if events.confidence is not None and not bool(((events.confidence >= 0) & (events.confidence <= 1)).all()):
        bad = events.confidence[~((events.confidence >= 0) & (events.confidence <= 1))][0]
        raise ValueError(f"events.confidence must be in [0, 1], not {float(bad)}")


def columns_of(texts: Texts) -> tuple[Integers, Integers]:
    """Returns which column each of M rows is of, -1 where its text is absent, and the row (C,) at which each column's text comes first."""
    group, present = texts.group.numpy(), texts.present.numpy()
    rows = np.flatnonzero(present)
    _, first, place = np.unique(group[rows], return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    column = np.full(len(group), -1)
    column[rows] = rank[place]
    return column, rows[first[order]]
