"""Frame-level alignment: which phrase is heard in which frame (PE-A-Frame of arXiv 2512.19687)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from peav import distributed
from peav.objectives.base import Objective, mean_where, scale_and_bias
from peav.objectives.functional import pair_logits, sigmoid_loss
from peav.objectives.pairs import Medium
from peav.registry import register_objective
from peav.types import Embedding, EventInput, ObjectiveOutput, Seconds


def event_labels(events: EventInput, num_frames: int, frame_seconds: Tensor | Seconds) -> Tensor:
    """Marks the frames that events touch: frame t is active when [t*hop, (t+1)*hop) overlaps the event at all.

    Args:
        events: E annotated events of B clips and K phrases.
        num_frames: T.
        frame_seconds: the hop, one number or (B,).

    Returns:
        (B, K, T) bool.
    """
    hop = torch.as_tensor(frame_seconds, dtype=torch.float64, device=events.onset.device)
    hop = hop[events.clip] if hop.ndim else hop
    # The tolerance of a microsecond keeps 0.12 / 0.04 = 2.9999998 from touching one frame more.
    first = torch.floor((events.onset.double() + 1e-6) / hop)
    last = torch.ceil((events.offset.double() - 1e-6) / hop)
    frames = torch.arange(num_frames, device=events.onset.device)
    active = (frames >= first[:, None]) & (frames < last[:, None])
    labels = torch.zeros(
        len(events.annotated), len(events.phrases.group), num_frames, dtype=torch.int32, device=active.device
    )
    labels.index_put_((events.clip, events.phrase), active.int(), accumulate=True)
    return labels > 0


@register_objective
class FrameAlignment(Objective):
    """Sigmoid loss of every frame of every annotated clip against every event phrase of the global batch, with strong labels.

    `-(1/M) sum over valid (clip, phrase, frame) of log sigmoid(z (t <frame, phrase> + b))`, z = +1 in frames that the phrase's events
    touch. Phrases of other clips are negatives, unless the clip has the same phrase itself. Padded frames, absent media and clips
    without annotation do not count; M is the number of terms that do, over all ranks.

    Args:
        medium: whose frames: `audio`, `video` or `audio_video`.
        scale: initial t; its log is learned.
        bias: initial b.
        positive_weight: weight of the active frames' terms, against 1 for inactive ones.
        weight: factor of the loss in the total.
    """

    def __init__(
        self,
        medium: Medium = "audio",
        scale: float = 10.0,
        bias: float = -5.0,
        positive_weight: float = 1.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        if not 0 < positive_weight < math.inf:
            raise ValueError(f"positive_weight must be positive and finite, not {positive_weight}")
        self.medium = medium
        self.requires = (medium, "text_event")
        self.frames = (medium,)
        self.targets = ("events",)
        self.positive_weight = positive_weight
        self.logit_scale, self.logit_bias = scale_and_bias(scale, bias)

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        """Computes the loss of this rank's clips against every rank's phrases."""
        media, phrases, events = embeddings[self.medium], embeddings["text_event"], targets["events"]
        if media.frames is None or media.mask is None or media.frame_seconds is None:
            raise ValueError(f"FrameAlignment needs the frames of {self.medium!r}, which has only pooled vectors")
        texts, own, counted = _world_phrases(phrases)
        logits = pair_logits(texts, media.frames, self.logit_scale, self.logit_bias)  # (B, K, T)
        labels = event_labels(events, media.frames.shape[1], media.frame_seconds)
        # Columns of other ranks' phrases: a phrase that this rank has too carries this rank's labels.
        positive = (own.to(logits.dtype) @ labels.to(logits.dtype)) > 0
        valid = (events.annotated & media.present)[:, None, None] & media.mask[:, None, :] & counted[None, :, None]
        count = distributed.sum_over_ranks(valid.sum())
        weight = torch.where(positive, self.positive_weight, 1.0).to(logits.dtype) * valid
        loss = distributed.world_size() * sigmoid_loss(logits, positive, weight) / count.clamp(min=1)
        log = {
            "scale": self.logit_scale.detach().exp().squeeze(),
            "bias": self.logit_bias.detach().squeeze(),
            "positive_logit": mean_where(logits, positive & valid),
            "negative_logit": mean_where(logits, ~positive & valid),
        }
        return ObjectiveOutput(loss=loss, count=distributed.sum_over_ranks((positive & valid).sum()), log=log)


def _world_phrases(phrases: Embedding) -> tuple[Tensor, Tensor, Tensor]:
    """Gathers the phrases of all ranks.

    Returns:
        their embeddings (K', D); which of them (K', K) is the same phrase as one of this rank's K; and which count, (K',) bool: a
        phrase that several ranks have counts once, where it comes first, so that N ranks equal one process.
    """
    counts = distributed.row_counts(len(phrases.pooled), phrases.pooled.device)
    texts = distributed.gather_rows(phrases.pooled, counts)
    groups = distributed.gather_rows(phrases.group, counts)
    present = distributed.gather_rows(phrases.present, counts)
    same = groups[:, None] == groups
    first = ~torch.tril(same, diagonal=-1).any(1)
    own = groups[:, None] == phrases.group
    return texts, own, first & present
