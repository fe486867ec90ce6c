"""Shared-memory buffers that carry batches from workers to the main process, and are used again.

Torch puts each tensor of a batch into shared memory of its own, which the system must clear, map into two processes and take apart
again: 6 ms of CPU time for the 7 MB of a ten-second clip, where decoding takes 88. Here each worker keeps a pool of buffers. When
the last reference to a tensor in the main process ends, its buffer is marked as free, and the worker fills it again. A tensor that
somebody holds is never overwritten, nor is anything that shares its storage.

A child that the main process forks while it holds a batch sees the same memory. Buffers that were in use during a fork are
therefore abandoned, not filled again; forks that start the workers themselves do not count. Torch moves a tensor to other memory in
`share_memory_` and in queues of `torch.multiprocessing`: an array made from the tensor before that is then invalid, as it is for
tensors on the heap.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: What is smaller goes through the pipe of a worker, bytes.
SMALL_BYTES = 1 << 15

#: Each buffer begins with so many bytes; the first of them says what may be done with it.
_HEADER_BYTES = 64

_FREE, _IN_USE, _ABANDONED = 0, 1, 2

#: A buffer that was not among the last so many in use is given back to the system.
_IDLE_USES = 64

#: A buffer may be up to so many times as large as what it holds.
_LOOSE = 4


@dataclass(eq=False)
class _Buffer:
    """A block of shared memory of a worker."""

    key: tuple[int, int]
    memory: Tensor
    known: bool = False
    last_use: int = 0
    flag: NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        self.flag = self.memory[:1].numpy()

    @property
    def room(self) -> int:
        return len(self.memory) - _HEADER_BYTES

    @property
    def free(self) -> bool:
        return bool(self.flag[0] == _FREE)


class BufferPool:
    """A pool of buffers in shared memory, which a worker fills again and again.

    In a worker, `zeros` gives a tensor to fill, and `share` turns it into what is sent; the main process receives it as a tensor on
    the same memory. Tensors that were not shared by the time of `begin` are free again.
    """

    def __init__(self) -> None:
        self._buffers: list[_Buffer] = []
        self._filling: dict[int, tuple[_Buffer, Tensor]] = {}
        self._retired: list[tuple[int, int]] = []
        self._uses = self._made = 0

    @property
    def num_bytes(self) -> int:
        """Size of all buffers, bytes."""
        return sum(len(buffer.memory) for buffer in self._buffers)

    def begin(self) -> None:
        """Begins a batch."""
        for buffer, _ in self._filling.values():
            buffer.flag[0] = _FREE
        self._filling.clear()
        self._buffers = [buffer for buffer in self._buffers if buffer.flag[0] != _ABANDONED]
        self._retire([buffer for buffer in self._buffers if buffer.free and self._uses - buffer.last_use >= _IDLE_USES])

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Returns zeros of a shape; what is small is not shared."""
        count = torch.Size(shape).numel()
        size = count * dtype.itemsize
        if size <= SMALL_BYTES:
            return torch.zeros(tuple(shape), dtype=dtype)
        buffer = self._find(size)
        buffer.flag[0] = _IN_USE
        self._uses += 1
        buffer.last_use = self._uses
        tensor = buffer.memory[_HEADER_BYTES : _HEADER_BYTES + size].view(dtype).view(tuple(shape)).zero_()
        self._filling[tensor.data_ptr()] = buffer, tensor
        return tensor

    def share(self, tensor: Tensor) -> Any:
        """Returns what to send in place of a tensor of this pool; it arrives as a tensor. Other tensors are returned as they are."""
        buffer, mine = self._filling.get(tensor.data_ptr(), (None, None))
        if buffer is None or mine is None or tensor.shape != mine.shape or tensor.dtype != mine.dtype:
            memory = tensor.untyped_storage().data_ptr()
            a_part = any(memory == buffer.memory.untyped_storage().data_ptr() for buffer in self._buffers)
            return tensor.clone() if a_part else tensor
        del self._filling[tensor.data_ptr()]
        retired, self._retired = tuple(self._retired), []
        sent = SentTensor(
            buffer.key, tuple(tensor.shape), tensor.dtype, None if buffer.known else buffer.memory, retired
        )
        buffer.known = True
        return sent

    def _find(self, size: int) -> _Buffer:
        free = sorted((buffer for buffer in self._buffers if buffer.free), key=lambda buffer: buffer.room)
        fits = next((buffer for buffer in free if buffer.room >= size), None)
        if fits is not None and fits.room <= _LOOSE * size:
            return fits
        self._retire([buffer for buffer in free if buffer.room < size <= _LOOSE * buffer.room][-1:])
        # An eighth of the power of two below it is the step between sizes, so that like sizes use the same buffers.
        step = max(4096, 1 << max(0, size.bit_length() - 4))
        storage = torch.UntypedStorage._new_shared(-(-(size + _HEADER_BYTES) // step) * step, device="cpu")
        self._made += 1
        made = _Buffer((os.getpid(), self._made), torch.tensor([], dtype=torch.uint8).set_(storage))
        self._buffers.append(made)
        return made

    def _retire(self, buffers: Sequence[_Buffer]) -> None:
        for buffer in buffers:
            self._buffers.remove(buffer)
            if buffer.known:
                self._retired.append(buffer.key)


@dataclass(frozen=True)
class SentTensor:
    """A tensor in a buffer, on its way from a worker; it arrives as a tensor.

    Attributes:
        key: of its buffer.
        shape: of the tensor.
        dtype: likewise.
        memory: the whole buffer, the first time; later the receiver has it.
        retired: keys of buffers that will not be used again.
    """

    key: tuple[int, int]
    shape: tuple[int, ...]
    dtype: torch.dtype
    memory: Tensor | None
    retired: tuple[tuple[int, int], ...]

    def __reduce__(self) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
        return _receive, (self.key, self.shape, self.dtype, self.memory, self.retired)


class _View(np.ndarray):
    """An array that can be referred to weakly: it lives as long as the storage of the tensor that is made of it."""


#: Buffers of workers that this process has mapped.
_known: dict[tuple[int, int], NDArray[np.uint8]] = {}

#: How often this process was forked for other purposes than its loaders' workers.
_forks = 0
_starting_workers = threading.local()


@contextmanager
def starting_workers() -> Iterator[None]:
    """Says of the forks in the block that they never look at a batch."""
    _starting_workers.now = True
    try:
        yield
    finally:
        _starting_workers.now = False


def _count_fork() -> None:
    global _forks
    if not getattr(_starting_workers, "now", False):
        _forks += 1


os.register_at_fork(after_in_parent=_count_fork)


def _receive(
    key: tuple[int, int],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    memory: Tensor | None,
    retired: tuple[tuple[int, int], ...],
) -> Tensor:
    for old in retired:
        _known.pop(old, None)
    if memory is not None:
        tidy()
        _known[key] = memory.numpy()
    whole = _known[key]
    size = torch.Size(shape).numel() * dtype.itemsize
    view = whole[_HEADER_BYTES : _HEADER_BYTES + size].view(_View)
    weakref.finalize(view, _return, key, whole, os.getpid(), _forks).atexit = False
    return torch.from_numpy(view).view(dtype).view(shape)


def known_bytes() -> int:
    """Returns the size of all buffers of workers that this process has mapped, bytes."""
    return sum(memory.nbytes for memory in _known.values())


def tidy() -> None:
    """Unmaps the buffers of workers that have ended; tensors in a buffer keep it."""
    for key in [key for key in list(_known) if not _is_alive(key[0])]:
        _known.pop(key, None)


def _return(key: tuple[int, int], memory: NDArray[np.uint8], owner: int, forks: int) -> None:
    """Marks a buffer as free, or as abandoned where a fork may still read it. The fork itself marks nothing."""
    if os.getpid() != owner:
        return
    if forks == _forks:
        memory[0] = _FREE
    else:
        if _known.get(key) is memory:
            del _known[key]
        memory[0] = _ABANDONED


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


_pool = BufferPool()


def pool() -> BufferPool:
    """Returns the pool of this process."""
    return _pool


def forget() -> None:
    """Begins with an empty pool in a fork, which inherits its parent's."""
    global _pool
    _pool = BufferPool()
    _known.clear()
