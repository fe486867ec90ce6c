"""Pairs of embeddings that should agree clip by clip: the ten terms of PE-AV (arXiv 2512.19687, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from peav import distributed
from peav.fields import check_text_type
from peav.objectives.base import ScoredObjective, Weight
from peav.objectives.functional import fit_scale_and_bias
from peav.objectives.ring import sigmoid_ring_sum
from peav.objectives.tiles import DuplicatePolicy, PairMask, dot_moments, sigmoid_sum
from peav.registry import register_objective
from peav.types import Embedding, ObjectiveOutput


def pair_mask(rows: Embedding, columns: Embedding, duplicates: DuplicatePolicy, rank: int | None = None) -> PairMask:
    """Returns which of this rank's rows of one embedding belong to which rows of another; made once for all who ask.

    Args:
        rows: with its world.
        columns: likewise, of the same clips.
        duplicates: the policy.
        rank: whose columns; all ranks' by default.
    """
    world, others = distributed.world_of(rows), distributed.world_of(columns)
    sides = [distributed.identities_of(w) for w in (world, others)]
    begin = sum(others.counts[:rank]) if rank is not None else 0
    end = begin + others.counts[rank] if rank is not None else sum(others.counts)
    own, device = slice(world.offset, world.offset + len(rows.present)), rows.present.device

    def make() -> PairMask:
        present = sides[0].present[own], sides[1].present[begin:end]
        groups = [(first.group[own], first.group[begin:end]) for first in sides]
        tensors = [torch.from_numpy(array) for array in (*present, *(group for pair in groups for group in pair))]
        row_there, column_there, a_rows, a_columns, b_rows, b_columns = tensors
        return PairMask(
            row_there,
            column_there,
            (a_rows, b_rows),
            (a_columns, b_columns),
            others.offset - begin,
            duplicates,
            device,
        )

    return sides[0].with_other(sides[1], (rank, duplicates, str(device)), make)


class PairObjective(ScoredObjective):
    """Sigmoid loss over all pairs of a left and a right embedding, with its own logit_scale and logit_bias.

    The base of :class:`SegmentPair` and :class:`CaptionPair`, for any two names.

    Args:
        left: name of the left embedding.
        right: name of the right embedding.
        scale: initial t; its log is learned.
        bias: initial b. -10 is SigLIP's; `-log(B - 1)` starts a batch of B balanced.
        duplicates: what to do with other clips whose caption or media is the same: `drop`, `positive` or `keep`.
        weight: factor of the loss in the total, or a schedule: a list of [step, weight].
        max_scale: t is held at this or below; unbounded by default.

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
        weight: Weight = 1.0,
        max_scale: float | None = None,
    ) -> None:
        super().__init__(scale, bias, weight, max_scale)
        if left == right:
            raise ValueError(f"a pair needs two different embeddings, not {left!r} twice")
        self.left, self.right = left, right
        self.requires = (left, right)
        self.pairs = ((left, right),)
        self.ring = True
        self.duplicates = duplicates
        self.calibrate = False

    def begin_calibration(self) -> bool:
        """Lets the next training batch set scale and bias."""
        self.calibrate = True
        return True

    def end_calibration(self) -> None:
        """Leaves scale and bias as they are."""
        self.calibrate = False

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        """Computes the loss of this rank's rows of one side against every rank's rows of the other."""
        embeddings = distributed.with_world(embeddings, self.pairs)
        left, right = embeddings[self.left], embeddings[self.right]
        # The columns are the side of which all ranks' rows are here; where neither is, they travel from rank to rank.
        rows, columns = (right, left) if distributed.world_of(right).pooled is None else (left, right)
        everyone = distributed.world_of(columns)
        if self.calibrate and self.training:
            self._calibrate(rows.pooled, columns, pair_mask(rows, columns, self.duplicates))
        score = (self.logit_scale, self.logit_bias)
        if everyone.pooled is None:
            parts = [pair_mask(rows, columns, self.duplicates, rank) for rank in range(len(everyone.counts))]
            total, sums = sigmoid_ring_sum(rows.pooled, columns.pooled, *score, parts, everyone.counts)
        else:
            mask = pair_mask(rows, columns, self.duplicates)
            total, sums = sigmoid_sum(rows.pooled, everyone.pooled, *score, mask)
        # Clips, not positives: under the policy `positive` a clip may have several.
        count = (distributed.world_of(left).present & distributed.world_of(right).present).sum()
        return ObjectiveOutput(distributed.world_size() * total / count.clamp(min=1), count, self.score_log(sums))

    @torch.no_grad()
    def _calibrate(self, rows: Tensor, columns: Embedding, mask: PairMask) -> None:
        everyone = distributed.world_of(columns)
        whole = everyone.pooled if everyone.pooled is not None else distributed.gather_rows(columns.pooled)
        totals = distributed.sum_over_ranks(dot_moments(rows, whole, mask))
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
        left: `audio`, `video`, `audio_video`, `audio_plus_text`, `video_plus_text`, or the embedding of a field of your own.
        right: another of them.
        scale: initial t; its log is learned.
        bias: initial b. -10 is SigLIP's; `-log(B - 1)` starts a batch of B balanced.
        duplicates: what to do with other clips whose media are the same: `drop`, `positive` or `keep`.
        weight: factor of the loss in the total, or a schedule: a list of [step, weight].
        max_scale: t is held at this or below; unbounded by default.
    """

    def __init__(
        self,
        left: str,
        right: str,
        scale: float = 10.0,
        bias: float = -10.0,
        duplicates: DuplicatePolicy = "drop",
        weight: Weight = 1.0,
        max_scale: float | None = None,
    ) -> None:
        super().__init__(left, right, scale, bias, duplicates, weight, max_scale)


@register_objective
class CaptionPair(PairObjective):
    """Caption-type pair: a medium against a caption of one type (PE-AV pairs 1 and 3 to 8).

    Args:
        medium: `audio`, `video`, `audio_video`, or the embedding of a field of your own.
        caption: the caption type: `audio`, `video`, `audio_video`, or any other that the manifests have and a text encoder reads; or
            `transcript`, what is said, which goes through the head of audio captions.
        scale: initial t; its log is learned.
        bias: initial b. -10 is SigLIP's; `-log(B - 1)` starts a batch of B balanced.
        duplicates: what to do with other clips whose caption or media is the same: `drop`, `positive` or `keep`.
        weight: factor of the loss in the total, or a schedule: a list of [step, weight].
        max_scale: t is held at this or below; unbounded by default.
    """

    def __init__(
        self,
        medium: str,
        caption: str,
        scale: float = 10.0,
        bias: float = -10.0,
        duplicates: DuplicatePolicy = "drop",
        weight: Weight = 1.0,
        max_scale: float | None = None,
    ) -> None:
        super().__init__(medium, f"text_{check_text_type(caption)}", scale, bias, duplicates, weight, max_scale)
