"""The loss of frames against texts, whole: frame by frame in tiles, and clip by clip where only a clip's label is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peav.devices import accumulator_dtype, widest
from peav.objectives.pooling import Pooling, pooled_losses
from peav.objectives.tiles import TILE, PairSums, TileMask, gradient_wanted, sigmoid_pass


@dataclass(frozen=True)
class WeakTerms:
    """Clips of which a label says that a text is heard in them, and not when; on the device, one block of clips each.

    Attributes:
        clip: (b,) int64, rows of the clips.
        column: (b, p) int64, the texts; any where there are fewer.
        label: (b, p) in [0, 1].
        weight: (b, p), 0 where there is none.
    """

    clip: Tensor
    column: Tensor
    label: Tensor
    weight: Tensor


@dataclass(frozen=True)
class _Plan:
    """What is summed; see :func:`frame_sum`."""

    valid: Tensor
    mask: TileMask
    weak: list[WeakTerms]
    pooling: Pooling
    tile: int


def frame_sum(
    frames: Tensor,
    valid: Tensor,
    columns: Tensor,
    queries: Tensor | None,
    logit_scale: Tensor,
    logit_bias: Tensor,
    mask: TileMask,
    weak: list[WeakTerms],
    pooling: Pooling,
    tile: int = TILE,
) -> tuple[Tensor, PairSums, Tensor]:
    """Sums the losses of all terms; logits are `t <frame, text> + b`.

    As in :func:`peav.objectives.tiles.sigmoid_sum` the gradient is found in the forward pass, and frames get one gradient tensor from both.

    Args:
        frames: (B, T, D) in fp32 or float64.
        valid: (B, T) bool.
        columns: (M, D) texts.
        queries: (M, D) of attention pooling, whose dot products with the frames are the logits of their weights.
        logit_scale: (1,) log of t.
        logit_bias: (1,) b, or (M,) of each text.
        mask: of the frames (B * T) against the texts.
        weak: the terms of clips.
        pooling: how frames become a clip.
        tile: rows and columns of a tile.

    Returns:
        the sum, sums over the frames' terms to log, and number and sum (2,) of the weak terms' losses before their weights.
    """
    tensors = (frames, columns, queries, logit_scale, logit_bias)
    with torch.autocast(frames.device.type, enabled=False):
        wanted = gradient_wanted(*(tensor for tensor in tensors if tensor is not None))
        total, sums, found = _FrameSum.apply(*tensors, _Plan(valid, mask, weak, pooling, tile), wanted)
    return total, PairSums(*sums.unbind()), found


class _FrameSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        frames: Tensor,
        columns: Tensor,
        queries: Tensor | None,
        logit_scale: Tensor,
        logit_bias: Tensor,
        plan: _Plan,
        wanted: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        total, sums, found, gradients = _pass(frames, columns, queries, logit_scale, logit_bias, plan, wanted)
        ctx.plan, ctx.gradients = plan, gradients
        ctx.save_for_backward(frames, columns, queries, logit_scale, logit_bias)
        ctx.mark_non_differentiable(sums, found)
        return total, sums, found

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            frames, columns, queries, logit_scale, logit_bias = ctx.saved_tensors
            gradients = _pass(frames, columns, queries, logit_scale, logit_bias, ctx.plan, True)[3]
        if gradients is None:
            raise RuntimeError("a pass gives the gradients it is asked for")
        # In place: these are the only gradients of this size, and nobody else holds them.
        found = (None if gradient is None else gradient.mul_(grad_outputs[0]) for gradient in gradients)
        return (*found, None, None)


Gradients = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]


def _pass(
    frames: Tensor,
    columns: Tensor,
    queries: Tensor | None,
    logit_scale: Tensor,
    logit_bias: Tensor,
    plan: _Plan,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Gradients | None]:
    rows = frames.flatten(0, 1)
    total, sums, gradients = sigmoid_pass(rows, columns, logit_scale, logit_bias, plan.mask, plan.tile, wanted)
    found = total.new_zeros(2, dtype=accumulator_dtype(total.device))
    whole: Gradients | None = None
    if gradients is not None:
        d_rows, d_columns, d_scale, d_bias = gradients
        d_queries = None if queries is None else torch.zeros_like(queries)
        whole = (d_rows.view_as(frames), d_columns, d_queries, d_scale, d_bias)
    for terms in plan.weak:
        values = [frames[terms.clip], columns[terms.column], logit_scale.detach(), logit_bias.detach()]
        values += [] if queries is None else [queries[terms.column]]
        with torch.set_grad_enabled(wanted):
            leaves = [value.detach().requires_grad_(wanted) for value in values]
            losses = _weak_losses(leaves, plan.valid[terms.clip], terms, plan.pooling)
            there = terms.weight > 0
            share = (torch.where(there, losses, 0) * terms.weight).sum()
        found += torch.stack((widest(there.sum()), widest(torch.where(there, losses.detach(), 0).sum())))
        total = total + share.detach()
        if whole is not None:
            d_frames, d_texts, d_scale, d_bias, *rest = torch.autograd.grad(share, leaves)
            whole[0].index_add_(0, terms.clip, d_frames)
            whole[1].index_add_(0, terms.column.flatten(), d_texts.flatten(0, 1))
            whole[3].add_(d_scale)
            whole[4].add_(d_bias)
            if whole[2] is not None:
                whole[2].index_add_(0, terms.column.flatten(), rest[0].flatten(0, 1))
    return total, sums, found, whole


def _weak_losses(leaves: list[Tensor], valid: Tensor, terms: WeakTerms, pooling: Pooling) -> Tensor:
    """Computes the losses (b, p) of a block of clips."""
    frames, texts, log_scale, bias, *queries = leaves
    biases = bias.to(frames.dtype)
    biases = biases[terms.column].unsqueeze(-1) if len(biases) > 1 else biases
    # What is padded may hold anything; 0 times a gradient of NaN would be NaN.
    frames = torch.where(valid.unsqueeze(-1), frames, 0)
    logits = (texts @ frames.mT) * log_scale.to(frames.dtype).exp() + biases
    attention = queries[0] @ frames.mT if queries else None
    return pooled_losses(logits, valid.unsqueeze(1), terms.label, pooling, attention)


def blocks_of(num_clips: int, num_frames: int) -> Iterator[slice]:
    """Cuts clips of T frames into blocks of a few tiles of frames."""
    size = max(1, 4 * TILE // max(num_frames, 1))
    return (slice(begin, begin + size) for begin in range(0, num_clips, size))
