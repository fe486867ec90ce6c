"""Lengths, masks and masked reductions. True is valid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from peav.keyed_random import combine_keys, normal_rows, uniform_rows


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


@dataclass(frozen=True)
class SpanMasking:
    """Spans of a sequence that are hidden from an encoder in training, which then has to guess them from the rest.

    Attributes:
        rate: share of the valid positions at which a span begins.
        span: positions of a span; spans may overlap.
        noise: standard deviation of what stands in the hidden positions instead.
        seed: with a clip's identity, all that its spans follow from; another one in every step.
    """

    rate: float = 0.02
    span: int = 10
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or self.span < 1 or not self.noise >= 0:
            raise ValueError(f"masking needs 0 < rate < 1, span >= 1 and noise >= 0, not {self}")

    def hide(self, values: Tensor, mask: Tensor, identity: Tensor) -> tuple[Tensor, Tensor]:
        """Hides spans of values (B, T, C) with their mask (B, T).

        A clip's spans follow from the seed and its identity alone: they are those of the clip in any batch, on any rank and in every
        pass, and no generator is touched.

        Args:
            values: (B, T, C).
            mask: (B, T) bool.
            identity: (B,) int64, of the clips: `group` of what they were read from.

        Returns:
            the values with noise in the hidden positions, and which are hidden (B, T) bool.
        """
        places, channels = mask.shape[1], values.shape[2]
        begins = (uniform_rows(combine_keys(identity, 2 * self.seed), places) < self.rate) & mask
        reach = begins.cumsum(1)
        hidden = (reach - F.pad(reach, (self.span, 0))[:, :places] > 0) & mask
        noise = normal_rows(combine_keys(identity, 2 * self.seed + 1), places * channels).view(-1, places, channels)
        return torch.where(hidden.unsqueeze(-1), (noise * self.noise).to(values.dtype), values), hidden
