"""Ranks and gathers that gradients pass through. Everything asks the process group at call time.

The rule of exactness (N ranks of B clips equal one process of N*B): each rank back-propagates `world_size * local sum / global
count`, the gradients of gathered rows are summed over ranks, and the strategy (DDP, FSDP) averages over ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Returns this process's rank, 0 without a process group."""
    return dist.get_rank() if _active() else 0


def world_size() -> int:
    """Returns the number of ranks, 1 without a process group."""
    return dist.get_world_size() if _active() else 1


def row_counts(num_rows: int, device: torch.device | str = "cpu") -> list[int]:
    """Returns how many rows each rank holds, in the order of the ranks."""
    if world_size() == 1:
        return [num_rows]
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([num_rows], device=device))
    return [int(count) for count in counts]


def _gather(rows: Tensor, counts: list[int]) -> Tensor:
    padded = rows.new_zeros((max(counts), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        return _gather(rows, counts)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        grad = grad_outputs[0].contiguous()
        # A row's gradient is what every rank found for it: the sum over ranks, of which this rank keeps its own rows.
        dist.all_reduce(grad)
        start = sum(ctx.counts[: rank()])
        return grad[start : start + ctx.counts[rank()]], None


def gather_rows(rows: Tensor, counts: list[int] | None = None) -> Tensor:
    """Concatenates the rows (n, ...) of all ranks, in the order of the ranks; the numbers of rows may differ.

    Gradients flow back to the rank that owns the row, summed over ranks. One process gets its own rows back.

    Args:
        rows: (n, ...) tensor, of the same trailing shape and dtype on every rank.
        counts: what :func:`row_counts` returned, to save asking again.
    """
    if world_size() == 1:
        return rows
    counts = counts if counts is not None else row_counts(len(rows), rows.device)
    if rows.dtype == torch.bool:
        return _gather(rows.to(torch.uint8), counts).bool()
    if not rows.is_floating_point():
        return _gather(rows, counts)
    return _GatherRows.apply(rows.contiguous(), counts)


def sum_over_ranks(value: Tensor) -> Tensor:
    """Returns the sum of a tensor over ranks, without gradient."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value
