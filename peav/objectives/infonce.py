"""InfoNCE, the softmax loss of CLIP, beside the sigmoid one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from peav import distributed
from peav.devices import accumulator_dtype
from peav.objectives.base import ScoredObjective, Weight
from peav.objectives.pairs import pair_mask
from peav.objectives.tiles import PairMask, gradient_wanted
from peav.registry import register_objective
from peav.types import Embedding, ObjectiveOutput

#: Logits that are there at a time: 16 MB in fp32.
_LOGITS_AT_ONCE = 2**22


@register_objective
class InfoNCE(ScoredObjective):
    """Finds the partner among all clips of the global batch, in both directions (CLIP, arXiv 2103.00020, figure 3).

    `-(1/2B) sum_i [log softmax_j(t <x_i, y_j>)_i + log softmax_j(t <y_i, x_j>)_i]`. Its softmax wants all columns of a row at once:
    rows are taken a few at a time, with the gradient in the forward pass.

    Args:
        left: name of the left embedding.
        right: name of the right embedding.
        scale: initial t; its log is learned.
        drop_duplicates: whether other clips with the same caption or media are left out of a row's choices.
        weight: factor of the loss in the total, or a schedule: a list of [step, weight].
        max_scale: t is held at this or below, as CLIP does at 100; unbounded by default.
    """

    def __init__(
        self,
        left: str,
        right: str,
        scale: float = 1 / 0.07,
        drop_duplicates: bool = True,
        weight: Weight = 1.0,
        max_scale: float | None = None,
    ) -> None:
        super().__init__(scale, None, weight, max_scale)
        if left == right:
            raise ValueError(f"a pair needs two different embeddings, not {left!r} twice")
        self.left, self.right = left, right
        self.requires = self.gathers = (left, right)
        self.drop_duplicates = drop_duplicates

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        """Computes the loss of this rank's rows, of either side, against every rank's rows of the other."""
        embeddings = distributed.with_world(embeddings, gathers=self.gathers)
        left, right = embeddings[self.left], embeddings[self.right]
        worlds = [distributed.world_of(side) for side in (left, right)]
        count = (worlds[0].present & worlds[1].present).sum()
        total = left.pooled.new_zeros(())
        found = total.new_zeros(())
        for rows, columns in ((left, right), (right, left)):
            everyone = distributed.world_of(columns)
            if everyone.pooled is None:
                raise ValueError("InfoNCE needs all ranks' rows: `gathers` names them")
            mask = pair_mask(rows, columns, "drop" if self.drop_duplicates else "keep")
            share, right_first = softmax_sum(rows.pooled, everyone.pooled, self.logit_scale, mask)
            total, found = total + share, found + right_first
        own = (left.present & right.present).sum()
        log = {"scale": self.logit_scale.detach().exp().squeeze(), "accuracy": found / (2 * own)}
        return ObjectiveOutput(distributed.world_size() * total / (2 * count.clamp(min=1)), count, log)


def softmax_sum(rows: Tensor, columns: Tensor, logit_scale: Tensor, mask: PairMask) -> tuple[Tensor, Tensor]:
    """Sums `-log softmax_j(t <x_i, y_j>)` at each row's partner, over the rows that have one.

    Differentiable once, like `tiles.sigmoid_sum`.

    Args:
        rows: (N, D), in fp32 or float64.
        columns: (M, D), likewise.
        logit_scale: (1,) log of t.
        mask: which columns are partners and which are choices.

    Returns:
        the sum; and how many rows find their partner first, without gradient.
    """
    with torch.autocast(rows.device.type, enabled=False):
        wanted = gradient_wanted(rows, columns, logit_scale)
        total, first = _SoftmaxSum.apply(rows, columns, logit_scale, mask, wanted)
    return total, first


class _SoftmaxSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, logit_scale: Tensor, mask: PairMask, wanted: bool
    ) -> tuple[Tensor, Tensor]:
        total, first, gradients = _softmax_pass(rows, columns, logit_scale, mask, wanted)
        ctx.mask, ctx.gradients = mask, gradients
        ctx.save_for_backward(rows, columns, logit_scale)
        ctx.mark_non_differentiable(first)
        return total, first

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            rows, columns, logit_scale = ctx.saved_tensors
            gradients = _softmax_pass(rows, columns, logit_scale, ctx.mask, True)[2]
        return (*(gradient.mul_(grad_outputs[0]) for gradient in gradients), None, None)


def _softmax_pass(
    rows: Tensor, columns: Tensor, logit_scale: Tensor, mask: PairMask, wanted: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    scale = logit_scale.detach().to(rows.dtype).exp()
    chosen = columns if mask.columns is None else columns[mask.columns]
    kept = rows if mask.rows is None else rows[mask.rows]
    total, d_scale = (rows.new_zeros((), dtype=accumulator_dtype(rows.device)) for _ in range(2))
    first = torch.zeros((), dtype=torch.int64, device=rows.device)
    d_kept, d_chosen = torch.zeros_like(kept), torch.zeros_like(chosen)
    size = max(1, _LOGITS_AT_ONCE // max(1, len(chosen)))
    for begin in range(0, len(kept) if len(chosen) else 0, size):
        block = slice(begin, min(begin + size, len(kept)))
        scaled = kept[block] * scale
        logits = scaled @ chosen.T
        signs = mask.tile(block, slice(0, len(chosen)))
        if signs.own is None or not len(signs.own[0]):
            continue
        if signs.weight is not None:
            logits = logits.masked_fill(signs.weight == 0, -torch.inf)
        own_rows, own_columns = signs.own
        logits = logits[own_rows]  # rows without a partner have nothing to find
        at = (torch.arange(len(own_rows), device=rows.device), own_columns)
        losses = logits.logsumexp(1) - logits[at]
        total += losses.sum()
        first += (logits.argmax(1) == own_columns).sum()
        if wanted:
            slope = logits.softmax(1)
            slope[at] = torch.expm1(-losses)  # p - 1, which does not round to zero
            part = slope @ chosen
            d_scale += (part * scaled[own_rows]).sum()
            d_kept[block.start + own_rows] = part * scale
            d_chosen.addmm_(slope.T, scaled[own_rows])
    d_rows, d_columns = d_kept, d_chosen
    if mask.rows is not None:
        d_rows = torch.zeros_like(rows)
        d_rows[mask.rows] = d_kept
    if mask.columns is not None:
        d_columns = torch.zeros_like(columns)
        d_columns[mask.columns] = d_chosen
    return total.to(rows.dtype), first, (d_rows, d_columns, d_scale.to(logit_scale)[None])
