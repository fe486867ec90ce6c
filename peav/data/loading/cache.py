"""A bounded memory of decoded clips, shared by all workers of a data set: what one has decoded the others read.

It is anonymous shared memory, which workers inherit when they are forked; it does not count against the size of /dev/shm. Where
workers are spawned each has its own. Rows get their place once, in order, until the memory is full; nothing is evicted, for in a
shuffled epoch no row is worth more than another.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class DecodedCache:
    """Tensors of known shape, by row.

    Args:
        shapes: shape of each row's tensor; None where a row has none.
        dtype: of all of them.
        max_bytes: how much memory to take at most.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...] | None], dtype: torch.dtype, max_bytes: int) -> None:
        self.shapes = list(shapes)
        self.dtype = dtype
        self.max_bytes = max_bytes
        self._allocate()

    def _allocate(self) -> None:
        self._offsets: dict[int, int] = {}
        total = 0
        for row, shape in enumerate(self.shapes):
            size = torch.Size(shape).numel() * self.dtype.itemsize if shape is not None else 0
            if shape is not None and total + size <= self.max_bytes:
                self._offsets[row] = total
                total += -(-size // 64) * 64
        #: bytes that it may come to hold
        self.num_bytes = total
        self._filled = memoryview(mmap.mmap(-1, max(1, len(self.shapes))))
        self._memory = memoryview(mmap.mmap(-1, max(1, total)))

    def __getstate__(self) -> dict[str, Any]:
        return {"shapes": self.shapes, "dtype": self.dtype, "max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._allocate()

    def __len__(self) -> int:
        """Returns how many rows are held by now."""
        return sum(self._filled[row] for row in self._offsets)

    def get(self, row: int, decode: Callable[[], Tensor]) -> Tensor:
        """Returns a copy of the row's tensor, decoded now if it was not before."""
        offset, shape = self._offsets.get(row), self.shapes[row]
        if offset is None or shape is None:
            return decode()
        size = torch.Size(shape).numel()
        if not size:
            return decode()
        view = torch.frombuffer(self._memory, dtype=self.dtype, count=size, offset=offset).view(shape)
        if self._filled[row]:
            return view.clone()
        value = decode()
        if value.shape != shape:  # the manifest told another one
            return value
        view.copy_(value)
        self._filled[row] = 1
        return value
