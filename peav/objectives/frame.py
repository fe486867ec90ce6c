"""Frame-level alignment: which phrase is heard in which frame (PE-A-Frame of arXiv 2512.19687)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from peav import distributed
from peav.devices import accumulator_dtype
from peav.host import to_device, to_host
from peav.objectives.base import ScoredObjective, Weight
from peav.objectives.tiles import Tile, TileMask, sigmoid_sum
from peav.registry import register_objective
from peav.types import Embedding, EventInput, ObjectiveOutput, Seconds


def event_frames(events: EventInput, frame_seconds: Tensor | Seconds) -> tuple[Tensor, Tensor]:
    """Returns the first frame that each event touches and the one after the last: [t*hop, (t+1)*hop) overlaps the event at all.

    Args:
        events: E annotated events.
        frame_seconds: the hop, one number or (B,).

    Returns:
        (E,) and (E,), whole numbers, which may lie outside the clip; in float64 where the device has it.
    """
    wide = accumulator_dtype(events.onset.device)
    hop = torch.as_tensor(frame_seconds, dtype=wide, device=events.onset.device)
    hop = hop[events.clip] if hop.ndim else hop
    # 0.12 / 0.04 = 2.9999998 must not touch one frame more: a microsecond, and what float32 rounds of times as large as these.
    begin, end = events.onset.to(wide), events.offset.to(wide)
    rounding = 4 * torch.finfo(torch.float32).eps
    first = torch.floor((begin + 1e-6 + rounding * begin.abs()) / hop)
    return first, torch.ceil((end - 1e-6 - rounding * end.abs()) / hop)


def event_labels(events: EventInput, num_frames: int, frame_seconds: Tensor | Seconds) -> Tensor:
    """Marks the frames that events touch: see `event_frames`.

    Args:
        events: E annotated events of B clips and K phrases.
        num_frames: T.
        frame_seconds: the hop, one number or (B,).

    Returns:
        (B, K, T) bool.
    """
    first, last = event_frames(events, frame_seconds)
    frames = torch.arange(num_frames, device=events.onset.device)
    active = (frames >= first[:, None]) & (frames < last[:, None])
    labels = torch.zeros(
        len(events.annotated), len(events.phrases.group), num_frames, dtype=torch.int32, device=active.device
    )
    labels.index_put_((events.clip, events.phrase), active.int(), accumulate=True)
    return labels > 0


@register_objective
class FrameAlignment(ScoredObjective):
    """Sigmoid loss of every frame of every annotated clip against every event phrase of the global batch, with strong labels.

    `-(1/M) sum over valid (clip, phrase, frame) of log sigmoid(z (t <frame, phrase> + b))`, z = +1 in frames that the phrase's events
    touch. Phrases of other clips are negatives, unless the clip has the same phrase itself. Padded frames, absent media and clips
    without annotation do not count; M is the number of terms that do, over all ranks.

    Args:
        medium: whose frames: `audio`, `video` or `audio_video`.
        scale: initial t; its log is learned.
        bias: initial b.
        positive_weight: weight of the active frames' terms, against 1 for inactive ones.
        weight: factor of the loss in the total, or a schedule: a list of [step, weight].
        max_scale: t is held at this or below; unbounded by default.
    """

    def __init__(
        self,
        medium: str = "audio",
        scale: float = 10.0,
        bias: float = -5.0,
        positive_weight: float = 1.0,
        weight: Weight = 1.0,
        max_scale: float | None = None,
    ) -> None:
        super().__init__(scale, bias, weight, max_scale)
        if not 0 < positive_weight < math.inf:
            raise ValueError(f"positive_weight must be positive and finite, not {positive_weight}")
        self.medium = medium
        self.requires = (medium, "text_event")
        self.frames = (medium,)
        self.targets = ("events",)
        self.gathers = ("text_event",)
        self.frame_pair = (medium, "text_event")
        self.positive_weight = positive_weight

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        """Computes the loss of this rank's clips against every rank's phrases."""
        embeddings = distributed.with_world(embeddings, gathers=self.gathers)
        media, phrases, events = embeddings[self.medium], embeddings["text_event"], targets["events"]
        if media.frames is None or media.mask is None or media.frame_seconds is None:
            raise ValueError(f"FrameAlignment needs the frames of {self.medium!r}, which has only pooled vectors")
        everyone = distributed.world_of(phrases)
        if everyone.pooled is None:
            raise ValueError("FrameAlignment needs all ranks' phrases: `gathers` names them")
        mask = FrameMask(
            media.mask & (events.annotated & media.present).unsqueeze(1),
            events,
            media.frame_seconds,
            phrases.group,
            everyone.group,
            everyone.present,
            self.positive_weight,
        )
        rows = media.frames.flatten(0, 1)
        total, sums = sigmoid_sum(rows, everyone.pooled, self.logit_scale, self.logit_bias, mask)
        counts = distributed.sum_over_ranks(torch.stack((sums.positives, sums.positives + sums.negatives)))
        loss = distributed.world_size() * total / counts[1].clamp(min=1)
        return ObjectiveOutput(loss.to(rows.dtype), counts[0].long(), self.score_log(sums))


class FrameMask(TileMask):
    """Frames of clips against phrases: a frame is positive for the phrases whose events touch it.

    Rows are the frames (B * T) of this rank's clips, columns the phrases of all ranks. A phrase that several rows of the phrases
    hold counts once, where it comes first, so that N ranks equal one process. Which events touch a tile is found on the host, which
    fetches in one copy what it needs.

    Args:
        valid: (B, T) bool, the frames that count.
        events: E events of the B clips.
        frame_seconds: the hop, one number or (B,).
        group: (K,) int64, identity of this rank's phrases, to which the events point.
        column_group: (M,) int64, identity of all ranks' phrases.
        column_present: (M,) bool.
        positive_weight: of active frames' terms.
    """

    rows: Tensor

    def __init__(
        self,
        valid: Tensor,
        events: EventInput,
        frame_seconds: Tensor | Seconds,
        group: Tensor,
        column_group: Tensor,
        column_present: Tensor,
        positive_weight: float = 1.0,
    ) -> None:
        self._device, num_frames = valid.device, valid.shape[1]
        hop = frame_seconds if isinstance(frame_seconds, Tensor) else torch.tensor(frame_seconds, dtype=torch.float64)
        valid, clip, phrase, onset, offset, group, column_group, column_present, hop = to_host(
            *(valid, events.clip, events.phrase, events.onset, events.offset),
            *(group, column_group, column_present, hop),
        )
        events = replace(events, clip=clip, phrase=phrase, onset=onset, offset=offset)
        # From here on all is on the host but what tiles are made of.
        self._frames = valid.flatten().nonzero().squeeze(1)
        self.rows = to_device(self._frames, self._device)
        known, place = column_group.unique(return_inverse=True)
        first = torch.full((len(known),), len(column_group), dtype=torch.int64)
        order = torch.arange(len(place))
        # An absent phrase is not there: the first of those that are counts.
        first = first.scatter_reduce(0, place, torch.where(column_present, order, len(order)), "amin")
        counts = torch.zeros(len(column_group) + 1, dtype=torch.bool)
        counts[first] = True
        counts = counts[:-1] & column_present
        self.columns = None if bool(counts.all()) else to_device(counts.nonzero().squeeze(1), self._device)
        begin, end = event_frames(events, hop)
        # Where each event's phrase stands among the columns that count; the phrases of this rank are among all ranks'.
        column = first[torch.searchsorted(known, group[phrase]).clamp(max=max(len(known) - 1, 0))]
        heard = column < len(counts)
        self._column = (counts.cumsum(0) - 1)[column[heard]]
        self._begin = (clip * num_frames + begin.clamp(0, num_frames).long())[heard]
        self._end = (clip * num_frames + end.clamp(0, num_frames).long())[heard]
        self.positive_weight = positive_weight

    def tile(self, rows: slice, columns: slice) -> Tile:
        """Makes the tile, of the events that touch it."""
        here, frames = self._frames[rows], self.rows[rows]
        touching = (self._begin <= here[-1]) & (self._end > here[0])
        touching &= (self._column >= columns.start) & (self._column < columns.stop)
        column = self._column[touching] - columns.start
        begin, end, column = to_device(
            torch.stack((self._begin[touching], self._end[touching], column)), self._device
        ).unbind()
        active = (frames[:, None] >= begin) & (frames[:, None] < end)
        hits = torch.zeros(len(frames), columns.stop - columns.start, dtype=torch.int32, device=frames.device)
        positive = hits.index_add_(1, column, active.int()) > 0
        if self.positive_weight == 1:
            return Tile(positive=positive)
        return Tile(positive=positive, weight=torch.where(positive, self.positive_weight, 1.0))
