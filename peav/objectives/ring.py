"""The pair loss of global batches beyond memory: columns travel from rank to rank, and their gradient with them.

No rank ever holds all columns: memory is that of its own rows, of two parts of the columns and of their gradients, whatever the
number of ranks. Each part makes a full round, so that its gradient comes home whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from peav import distributed
from peav.devices import accumulator_dtype
from peav.objectives.tiles import TILE, PairSums, TileMask, gradient_wanted, sigmoid_pass


def sigmoid_ring_sum(
    rows: Tensor,
    columns: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    masks: Sequence[TileMask],
    counts: Sequence[int],
    tile: int = TILE,
) -> tuple[Tensor, PairSums]:
    """Computes what `tiles.sigmoid_sum` does for this rank's rows and all ranks' columns.

    The gradient of the columns is complete: what all ranks' rows give. It is right where every rank back-propagates the same factor
    of its sum, as the rule of `peav.distributed` has it. It can be back-propagated once.

    Args:
        rows: (N, D) of this rank.
        columns: (m, D) of this rank.
        logit_scale: (1,) log of t.
        logit_bias: (1,) b.
        masks: for each rank, which pairs of this rank's rows and its columns belong together and count.
        counts: how many columns each rank has.
        tile: rows and columns of a tile.
    """
    with torch.autocast(rows.device.type, enabled=False):
        wanted = gradient_wanted(rows, columns, logit_scale, logit_bias)
        total, sums = _RingSum.apply(rows, columns, logit_scale, logit_bias, masks, counts, tile, wanted)
    return total, PairSums(*sums.unbind())


class _RingSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        columns: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor,
        masks: Sequence[TileMask],
        counts: Sequence[int],
        tile: int,
        wanted: bool,
    ) -> tuple[Tensor, Tensor]:
        ranks, me = distributed.world_size(), distributed.rank()
        part = columns.new_zeros(max(counts), columns.shape[1])
        part[: len(columns)] = columns
        gradient = torch.zeros_like(part)
        own: list[Tensor] | None = None
        total, sums = rows.new_zeros(()), rows.new_zeros(4, dtype=accumulator_dtype(rows.device))
        for step in range(ranks):
            owner = (me - step) % ranks
            # The next part comes while this one is worked on.
            coming, transfers = (part, []) if step == ranks - 1 else _pass_on(part)
            here = slice(counts[owner])
            share, some, found = sigmoid_pass(
                rows, part[here], logit_scale, logit_bias, masks[owner], tile, wanted, gradient[here]
            )
            total, sums = total + share, sums + some
            if found is not None:
                d_rows, _, d_scale, d_bias = found
                own = (
                    [d_rows, d_scale, d_bias]
                    if own is None
                    else [a.add_(b) for a, b in zip(own, (d_rows, d_scale, d_bias), strict=True)]
                )
                gradient, gradient_transfers = _pass_on(gradient)
                transfers = [*transfers, *gradient_transfers]
            for transfer in transfers:
                transfer.wait()
            part = coming
        ctx.gradients = None if own is None else (own[0], gradient[: len(columns)], own[1], own[2])
        ctx.mark_non_differentiable(sums)
        return total, sums

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the ring loss can be back-propagated once: its gradient was given away")
        return (*(gradient * grad_outputs[0] for gradient in gradients), None, None, None, None)


def _pass_on(tensor: Tensor) -> tuple[Tensor, list[dist.Work]]:
    """Sends a tensor to the next rank, and returns where that of the rank before arrives, with what to wait for."""
    ranks, me = distributed.world_size(), distributed.rank()
    coming = torch.empty_like(tensor)
    sending = dist.P2POp(dist.isend, tensor, (me + 1) % ranks)
    receiving = dist.P2POp(dist.irecv, coming, (me - 1) % ranks)
    return coming, dist.batch_isend_irecv([sending, receiving])
