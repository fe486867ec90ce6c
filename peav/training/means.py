"""Losses over a whole split: each batch counts by the positives that it holds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from peav import distributed
from peav.devices import accumulator_dtype


class EvaluationMeans:
    """The mean of each objective's loss over the batches of a split, weighted by the batches' valid positives.

    A batch in which an objective finds no pair says nothing about it: its loss of 0 is not a good one. Nothing waits for a device
    before `compute`.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._counts: list[Tensor] = []
        self._names: tuple[str, ...] = ()

    def reset(self) -> None:
        """Forgets all batches."""
        self._losses, self._counts, self._names = [], [], ()

    def add(self, losses: Mapping[str, Tensor], counts: Mapping[str, Tensor]) -> None:
        """Takes a batch in.

        Args:
            losses: of this rank, scalars whose mean over ranks is the loss of the global batch, by objective.
            counts: valid positives in the global batch, by objective.
        """
        self._names = tuple(losses)
        self._losses.append(torch.stack([losses[name].detach() for name in losses]))
        self._counts.append(torch.stack([counts[name].detach() for name in losses]))

    def compute(self, device: torch.device | str = "cpu") -> dict[str, float]:
        """Returns the means over all batches and ranks; objectives that found no pair in any batch are left out.

        Every rank must call it.

        Args:
            device: on which ranks exchange.
        """
        if not self._losses:
            return {}
        loss, count = torch.stack(self._losses).cpu().double(), torch.stack(self._counts).cpu()
        sums = torch.where(count > 0, loss * count, 0.0).sum(0)
        if distributed.world_size() > 1:
            sums = (
                distributed.sum_over_ranks(sums.to(device, accumulator_dtype(device))) / distributed.world_size()
            ).cpu()
        totals = count.sum(0)
        rows = zip(self._names, sums.tolist(), totals.tolist(), strict=True)
        return {name: value / total for name, value, total in rows if total > 0}
