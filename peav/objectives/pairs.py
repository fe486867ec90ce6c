"""Pairs of embeddings that should agree clip by clip: the ten terms of PE-AV (arXiv 2512.19687, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from peav import distributed
from peav.objectives.base import Objective, mean_where, scale_and_bias
from peav.objectives.functional import DuplicatePolicy, fit_scale_and_bias, pair_logits, pair_masks, sigmoid_loss
from peav.registry import register_objective
from peav.types import Embedding, ObjectiveOutput

#: Embeddings of a medium, or of a query made of a medium and a text.
Segment = Literal["audio", "video", "audio_video", "audio_plus_text", "video_plus_text"]
Medium = Literal["audio", "video", "audio_video"]


class PairObjective(Objective):
    """Sigmoid loss over all pairs of a left and a right embedding, with its own logit_scale and logit_bias.

    The base of :class:`SegmentPair` and :class:`CaptionPair`, for any two names.

    Args:
        left: name of the left embedding.
        right: name of the right embedding.
        scale: initial t; its log is learned.
        bias: initial b. -10 is SigLIP's; `-log(B - 1)` starts a batch of B balanced.
        duplicates: what to do with other clips whose caption or media is the same: `drop`, `positive` or `keep`.
        weight: factor of the loss in the total.

    Attributes:
        calibrate: whether the next training batch sets scale and bias: see `functional.fit_scale_and_bias`. For pairs of a released model
            whose scale was not published; raw dot products may be of any size.
    """

    def __init__(
        self,
        left: str,
        right: str,
        scale: float = 10.0,
        bias: float = -10.0,
        duplicates: DuplicatePolicy = "drop",
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        if left == right:
            raise ValueError(f"a pair needs two different embeddings, not {left!r} twice")
        self.left, self.right = left, right
        self.requires = (left, right)
        self.duplicates = duplicates
        self.logit_scale, self.logit_bias = scale_and_bias(scale, bias)
        self.calibrate = False

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        """Computes the loss of this rank's rows of `left` against every rank's rows of `right`."""
        left, right = embeddings[self.left], embeddings[self.right]
        counts = distributed.row_counts(len(left.pooled), left.pooled.device)
        columns = distributed.gather_rows(right.pooled, counts)
        positive, valid = pair_masks(
            left.present,
            distributed.gather_rows(right.present, counts),
            distributed.gather_rows(left.group, counts),
            distributed.gather_rows(right.group, counts),
            offset=sum(counts[: distributed.rank()]),
            duplicates=self.duplicates,
        )
        if self.calibrate and self.training:
            self._calibrate(
                pair_logits(
                    left.pooled, columns, torch.zeros_like(self.logit_scale), torch.zeros_like(self.logit_bias)
                ),
                positive,
                valid,
            )
        logits = pair_logits(left.pooled, columns, self.logit_scale, self.logit_bias)
        # Rows, not positives: under the policy `positive` a row may have several.
        count = distributed.sum_over_ranks((left.present & right.present).sum())
        total = sigmoid_loss(logits, positive, valid.to(logits.dtype))
        loss = distributed.world_size() * total / count.clamp(min=1)
        log = {
            "scale": self.logit_scale.detach().exp().squeeze(),
            "bias": self.logit_bias.detach().squeeze(),
            "positive_logit": mean_where(logits, positive & valid),
            "negative_logit": mean_where(logits, ~positive & valid),
        }
        return ObjectiveOutput(loss=loss, count=count, log=log)

    @torch.no_grad()
    def _calibrate(self, dots: Tensor, positive: Tensor, valid: Tensor) -> None:
        def sums(where: Tensor) -> Tensor:
            some = torch.where(where, dots.double(), 0)
            return torch.stack((where.sum().double(), some.sum(), some.square().sum()))

        totals = distributed.sum_over_ranks(torch.stack((sums(positive & valid), sums(~positive & valid))))
        if (totals[:, 0] == 0).any():
            return  # nothing to compare in this batch; the next will do
        log_scale, bias = fit_scale_and_bias(*totals)
        self.logit_scale.fill_(log_scale)
        self.logit_bias.fill_(bias)
        self.calibrate = False


@register_objective
class SegmentPair(PairObjective):
    """Segment-level pair: two media of a clip, or a medium and a medium-plus-text query (PE-AV pairs 2, 9, 10).

    Args:
        left: `audio`, `video`, `audio_video`, `audio_plus_text` or `video_plus_text`.
        right: one of the same.
        scale: initial t; its log is learned.
        bias: initial b. -10 is SigLIP's; `-log(B - 1)` starts a batch of B balanced.
        duplicates: what to do with other clips whose media are the same: `drop`, `positive` or `keep`.
        weight: factor of the loss in the total.
    """

    def __init__(
        self,
        left: Segment,
        right: Segment,
        scale: float = 10.0,
        bias: float = -10.0,
        duplicates: DuplicatePolicy = "drop",
        weight: float = 1.0,
    ) -> None:
        super().__init__(left, right, scale, bias, duplicates, weight)


@register_objective
class CaptionPair(PairObjective):
    """Caption-type pair: a medium against a caption of one type (PE-AV pairs 1 and 3 to 8).

    Args:
        medium: `audio`, `video` or `audio_video`.
        caption: the caption type, `audio`, `video` or `audio_video`.
        scale: initial t; its log is learned.
        bias: initial b. -10 is SigLIP's; `-log(B - 1)` starts a batch of B balanced.
        duplicates: what to do with other clips whose caption or media is the same: `drop`, `positive` or `keep`.
        weight: factor of the loss in the total.
    """

    def __init__(
        self,
        medium: Medium,
        caption: Medium,
        scale: float = 10.0,
        bias: float = -10.0,
        duplicates: DuplicatePolicy = "drop",
        weight: float = 1.0,
    ) -> None:
        super().__init__(medium, f"text_{caption}", scale, bias, duplicates, weight)
