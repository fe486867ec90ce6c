"""The encoder of a DAC on a CPU, block by block: the same convolutions, in an order that suits the caches.

transformers' module takes a whole waveform through one layer after another: a second of audio at 48 kHz is 12 MB in the first layers, so
that every product and every sine goes through main memory. Here a waveform flows through all layers in blocks that stay in the cache.
Each convolution keeps the rows that its next outputs need, so that nothing is computed twice and the result is that of the whole; memory
does not grow with the length. Rows are channels-last, which oneDNN convolves two to four times as fast as (C, T), and Snake is
computed in place. docs/benchmarks.md has what each brings.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Numbers in a block of the first layers (4 MB in float32), and in one of the later layers, whose kernels are large.
_NUMBERS, _LATE_NUMBERS = 1 << 20, 1 << 21


class BlockwiseDac:
    """The encoder of a DAC and its bottleneck, with their weights as they are now; for plain tensors on a CPU.

    Args:
        encoder: transformers' `DacEncoder`.
        bottleneck: the convolution of width 1 after it.
    """

    def __init__(self, encoder: nn.Module, bottleneck: nn.Conv1d) -> None:
        self._encoder: Any = encoder
        parts: Any = [*encoder.children()]
        self._weights = {
            id(layer): layer.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
            for part in [*parts, bottleneck]
            for layer in part.modules()
            if isinstance(layer, nn.Conv1d)
        }
        self._bottleneck = bottleneck

    def encode(self, wave: Tensor) -> Tensor:
        """Encodes a waveform (S,) of whole hops, as if nothing but zeros were around it, to (T, latent_dim)."""
        encoder = self._encoder
        blocks = list(encoder.block)
        early, late = blocks[: len(blocks) // 2], blocks[len(blocks) // 2 :]
        first = _Chain([_Convolution(encoder.conv1, self._weights), *self._stages(early)])
        rest = _Chain(
            [
                *self._stages(late),
                _Convolution(encoder.conv2, self._weights, encoder.snake1),
                _Convolution(self._bottleneck, self._weights),
            ]
        )
        size = max(1, _NUMBERS // encoder.conv1.out_channels)
        entry = late[0].conv1.in_channels if late else encoder.conv2.in_channels
        pending: list[Tensor] = []
        latents: list[Tensor] = []
        for begin in range(0, len(wave), size):
            end = begin + size >= len(wave)
            found = first(wave[begin : begin + size, None], end)
            if found is not None:
                pending.append(found)
            if end or sum(len(rows) for rows in pending) * entry >= _LATE_NUMBERS:
                rows = torch.cat(pending) if pending else wave.new_zeros(0, entry)
                pending = []
                made = rest(rows, end)
                if made is not None:
                    latents.append(made)
        return torch.cat(latents)

    def _stages(self, blocks: list[Any]) -> list[Any]:
        stages: list[Any] = []
        for block in blocks:
            stages += [_Unit(unit, self._weights) for unit in (block.res_unit1, block.res_unit2, block.res_unit3)]
            stages.append(_Convolution(block.conv1, self._weights, block.snake1))
        return stages


class _Chain:
    """Layers one after another."""

    def __init__(self, stages: list[Any]) -> None:
        self._stages = stages

    def __call__(self, rows: Tensor, end: bool) -> Tensor | None:
        """Maps the next rows (T, C), the last ones if `end`, to those that follow from what has come; None if there are none."""
        for stage in self._stages:
            found = stage(rows, end)
            if found is None and not end:
                return None
            rows = stage.nothing if found is None else found
        return rows


class _Convolution:
    """A convolution over rows that come bit by bit, after a Snake if there is one.

    Attributes:
        nothing: no output rows.
    """

    def __init__(self, layer: nn.Conv1d, weights: dict[int, Tensor], snake: Any = None) -> None:
        self._weight, self._bias = weights[id(layer)], layer.bias
        self._stride, self._dilation = layer.stride[0], layer.dilation[0]
        self._pad = int(layer.padding[0])
        self._reach = self._dilation * (layer.kernel_size[0] - 1) + 1
        self._kept = self._weight.new_zeros(self._pad, layer.in_channels)
        self._snake = None if snake is None else _Snake(snake)
        self.nothing = self._weight.new_zeros(0, layer.out_channels)

    def __call__(self, rows: Tensor, end: bool) -> Tensor | None:
        kept = len(self._kept)
        buffer = rows.new_empty(kept + len(rows) + (self._pad if end else 0), rows.shape[1])
        buffer[:kept] = self._kept
        new = buffer[kept : kept + len(rows)]
        if self._snake is None:
            new.copy_(rows)
        else:
            self._snake(rows, new)
        if end:
            buffer[kept + len(rows) :] = 0
        count = (len(buffer) - self._reach) // self._stride + 1
        if count < 1:
            self._kept = buffer
            return None
        used = buffer[: (count - 1) * self._stride + self._reach]
        # (T, C) in memory is (1, C, 1, T), channels last.
        image = used.view(1, 1, *used.shape).permute(0, 3, 1, 2)
        out = F.conv2d(image, self._weight, self._bias, (1, self._stride), 0, (1, self._dilation))
        self._kept = buffer[count * self._stride :].clone()
        return out.permute(0, 2, 3, 1).reshape(count, -1)


class _Unit:
    """A residual unit: two convolutions that keep the length, and what goes past them."""

    def __init__(self, unit: Any, weights: dict[int, Tensor]) -> None:
        self._first = _Convolution(unit.conv1, weights, unit.snake1)
        self._second = _Convolution(unit.conv2, weights, unit.snake2)
        self._past = self.nothing = self._second.nothing

    def __call__(self, rows: Tensor, end: bool) -> Tensor | None:
        hidden = self._first(rows, end)
        found = None if hidden is None else self._second(hidden, end)
        if found is None:
            self._past = torch.cat((self._past, rows))
            return None
        count, held = len(found), len(self._past)
        early = min(count, held)
        found[:early] += self._past[:early]
        found[early:] += rows[: count - early]
        self._past = torch.cat((self._past[early:], rows[count - early :]))
        return found


class _Snake:
    """x + sin(a x)^2 / a, channel by channel."""

    def __init__(self, layer: Any) -> None:
        self._alpha = layer.alpha.flatten()
        self._inverse = (self._alpha + 1e-9).reciprocal()

    def __call__(self, rows: Tensor, out: Tensor) -> None:
        torch.mul(rows, self._alpha, out=out)
        out.sin_().square_()
        torch.addcmul(rows, out, self._inverse, out=out)
