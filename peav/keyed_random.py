"""Counter-based random numbers, which follow from keys alone: no generator, no state, and the same on every rank, device and pass.

A global generator gives a clip other numbers when its company changes, and a second pass others than the first. Here each row of a batch
has a key, and its numbers are a hash of that key: whoever asks with the same key gets the same numbers, wherever and in whatever order.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """Returns the int64 of an unsigned number's 64 bits."""
    return value - 2**64 if value >= 2**63 else value


# SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): its step and the constants of its mixing.
_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Shifts int64 right as if it were unsigned."""
    return (bits >> places) & (2 ** (64 - places) - 1)


def mixed(bits: Tensor) -> Tensor:
    """Maps int64 one to one to int64 whose bits look random: the output function of SplitMix64."""
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def combine_keys(keys: Tensor, salt: int) -> Tensor:
    """Returns other keys (B,) for another purpose, or another step, of the same rows.

    Args:
        keys: (B,) int64.
        salt: any integer.
    """
    return mixed(keys + _signed(salt * _GOLDEN % 2**64))


def combine_seeds(*seeds: int) -> int:
    """Returns one seed, below 2**62, of several numbers in their order, such as that of a run and a step.

    >>> combine_seeds(0, 1) != combine_seeds(1, 0)
    True
    """
    digest = hashlib.blake2b(" ".join(str(seed) for seed in seeds).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 2


def _bits(keys: Tensor, count: int) -> Tensor:
    counter = torch.arange(1, count + 1, device=keys.device) * _GOLDEN
    return mixed(mixed(keys)[:, None] + counter)


def uniform_rows(keys: Tensor, count: int) -> Tensor:
    """Draws numbers from [0, 1).

    Args:
        keys: (B,) int64.
        count: numbers a row; the first of them do not depend on how many are asked for.

    Returns:
        (B, count) float32.

    >>> uniform_rows(torch.tensor([3, 4, 3]), 2).mul(1000).int().tolist()
    [[815, 435], [68, 780], [815, 435]]
    """
    return _shifted(_bits(keys, count), 40).float() * 2.0**-24


def normal_rows(keys: Tensor, count: int) -> Tensor:
    """Draws numbers from the standard normal distribution, by Box and Muller's transform.

    Args:
        keys: (B,) int64.
        count: numbers a row.

    Returns:
        (B, count) float32.
    """
    bits = _bits(keys, -(-count // 2))
    # Two numbers of 24 bits from one of 64; the first in (0, 1], whose logarithm exists.
    radius = ((_shifted(bits, 40) + 1).float() * 2.0**-24).log_().mul_(-2).sqrt_()
    angle = (_shifted(bits, 8) & (2**24 - 1)).float() * (2 * math.pi * 2.0**-24)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), -1).flatten(1)[:, :count]
