"""Lengths, masks and masked reductions. True is valid."""

from __future__ import annotations

import torch
from torch import Tensor


def lengths_to_mask(lengths: Tensor, max_length: int | None = None) -> Tensor:
    """Turns lengths (B,) into a mask (B, max_length) whose first `lengths[i]` entries are True.

    Args:
        lengths: (B,) integers.
        max_length: length of the mask; the longest of `lengths` by default.

    >>> lengths_to_mask(torch.tensor([2, 0, 3])).int().tolist()
    [[1, 1, 0], [0, 0, 0], [1, 1, 1]]
    """
    if max_length is None:
        max_length = int(lengths.max()) if lengths.numel() else 0
    return torch.arange(max_length, device=lengths.device) < lengths[..., None]


def mask_to_lengths(mask: Tensor) -> Tensor:
    """Counts the valid entries of each row of a mask (B, T).

    >>> mask_to_lengths(torch.tensor([[True, True, False], [False, False, False]])).tolist()
    [2, 0]
    """
    return mask.sum(-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Averages values (B, T, D) over the valid positions of a mask (B, T); zero where a row has none.

    >>> masked_mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]])).tolist()
    [[2.0]]
    """
    weight = mask.unsqueeze(-1)
    # `where`, not a product: what stands in a padded slot may be NaN, and NaN times zero is NaN.
    total = torch.where(weight, values, 0).sum(-2)
    return total / mask.sum(-1, keepdim=True).clamp(min=1)
