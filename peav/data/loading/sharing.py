"""Batches from workers to the main process through memory that is used again.

Torch hands each tensor of a batch over in shared memory of its own, which the system must clear, map into two processes and take
apart again: 6 ms of CPU time for the 7 MB of a ten-second clip, where decoding takes 88. Here a worker keeps the memory and lends
it: by its end the tensor that the main process got says that the worker may fill the memory anew. A tensor that somebody holds is
never touched, nor is what shares its storage.

A child that the main process forks while it holds a batch sees the same memory, so that what was lent across a fork is given up and
not filled again; of the workers' own start nothing is to be feared. Torch itself moves a tensor to other memory in `share_memory_`
and in queues of `torch.multiprocessing`: an array that was made of it before is of no use afterwards, as with any on the heap.
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

#: The first bytes of a lender's memory; the first of them says what may be done with it.
_HEADER_BYTES = 64

_FREE, _LENT, _GIVEN_UP = 0, 1, 2

#: Memory that was not lent in so many loans is given back to the system.
_IDLE_LOANS = 64

#: Memory up to so many times as large as what it shall hold will do.
_LOOSE = 4


@dataclass(eq=False)
class _Slot:
    """Shared memory of a worker."""

    key: tuple[int, int]
    memory: Tensor
    known: bool = False
    last_loan: int = 0
    flag: NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        self.flag = self.memory[:1].numpy()

    @property
    def room(self) -> int:
        return len(self.memory) - _HEADER_BYTES

    @property
    def free(self) -> bool:
        return bool(self.flag[0] == _FREE)


class Lender:
    """Shared memory that a worker fills again and again.

    In a worker: `zeros` gives tensors to fill, `lend` makes of each what can be sent; then the main process finds the tensor in what
    it receives. What was not lent by the time of `begin` is free again.
    """

    def __init__(self) -> None:
        self._slots: list[_Slot] = []
        self._filling: dict[int, tuple[_Slot, Tensor]] = {}
        self._retired: list[tuple[int, int]] = []
        self._loans = self._made = 0

    @property
    def num_bytes(self) -> int:
        """All the memory that it has."""
        return sum(len(slot.memory) for slot in self._slots)

    def begin(self) -> None:
        """Begins a batch."""
        for slot, _ in self._filling.values():
            slot.flag[0] = _FREE
        self._filling.clear()
        self._slots = [slot for slot in self._slots if slot.flag[0] != _GIVEN_UP]
        self._retire([slot for slot in self._slots if slot.free and self._loans - slot.last_loan >= _IDLE_LOANS])

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Returns zeros of a shape; what is small is not shared."""
        count = torch.Size(shape).numel()
        size = count * dtype.itemsize
        if size <= SMALL_BYTES:
            return torch.zeros(tuple(shape), dtype=dtype)
        slot = self._find(size)
        slot.flag[0] = _LENT
        self._loans += 1
        slot.last_loan = self._loans
        tensor = slot.memory[_HEADER_BYTES : _HEADER_BYTES + size].view(dtype).view(tuple(shape)).zero_()
        self._filling[tensor.data_ptr()] = slot, tensor
        return tensor

    def lend(self, tensor: Tensor) -> Any:
        """Returns what to send in place of a tensor: it becomes a tensor where it is received. Others are sent as they are."""
        slot, mine = self._filling.get(tensor.data_ptr(), (None, None))
        if slot is None or mine is None or tensor.shape != mine.shape or tensor.dtype != mine.dtype:
            memory = tensor.untyped_storage().data_ptr()
            a_part = any(memory == slot.memory.untyped_storage().data_ptr() for slot in self._slots)
            return tensor.clone() if a_part else tensor
        del self._filling[tensor.data_ptr()]
        retired, self._retired = tuple(self._retired), []
        loan = Loan(slot.key, tuple(tensor.shape), tensor.dtype, None if slot.known else slot.memory, retired)
        slot.known = True
        return loan

    def _find(self, size: int) -> _Slot:
        free = sorted((slot for slot in self._slots if slot.free), key=lambda slot: slot.room)
        fits = next((slot for slot in free if slot.room >= size), None)
        if fits is not None and fits.room <= _LOOSE * size:
            return fits
        self._retire([slot for slot in free if slot.room < size <= _LOOSE * slot.room][-1:])
        # An eighth of the power of two below it is the step between sizes, so that like sizes share memory.
        step = max(4096, 1 << max(0, size.bit_length() - 4))
        storage = torch.UntypedStorage._new_shared(-(-(size + _HEADER_BYTES) // step) * step, device="cpu")
        self._made += 1
        made = _Slot((os.getpid(), self._made), torch.tensor([], dtype=torch.uint8).set_(storage))
        self._slots.append(made)
        return made

    def _retire(self, slots: Sequence[_Slot]) -> None:
        for slot in slots:
            self._slots.remove(slot)
            if slot.known:
                self._retired.append(slot.key)


@dataclass(frozen=True)
class Loan:
    """A tensor on its way from a worker; it arrives as a tensor.

    Attributes:
        key: of the memory that it lies in.
        shape: of the tensor.
        dtype: likewise.
        memory: all of that memory, the first time; later the receiver has it.
        retired: keys of memory that will not be lent again.
    """

    key: tuple[int, int]
    shape: tuple[int, ...]
    dtype: torch.dtype
    memory: Tensor | None
    retired: tuple[tuple[int, int], ...]

    def __reduce__(self) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
        return _receive, (self.key, self.shape, self.dtype, self.memory, self.retired)


class _Lease(np.ndarray):
    """An array that can be referred to weakly: it lives as long as the storage of the tensor that is made of it."""


#: Memory of workers that this process knows.
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
    lease = whole[_HEADER_BYTES : _HEADER_BYTES + size].view(_Lease)
    weakref.finalize(lease, _return, key, whole, os.getpid(), _forks).atexit = False
    return torch.from_numpy(lease).view(dtype).view(shape)


def known_bytes() -> int:
    """Returns how much memory of workers this process has mapped."""
    return sum(memory.nbytes for memory in _known.values())


def tidy() -> None:
    """Lets go of the memory of workers that have ended; tensors that lie in it keep it."""
    for key in [key for key in list(_known) if not _is_alive(key[0])]:
        _known.pop(key, None)


def _return(key: tuple[int, int], memory: NDArray[np.uint8], owner: int, forks: int) -> None:
    """Says that memory is free again, or given up where a fork may still look at it. The fork itself has no say in that."""
    if os.getpid() != owner:
        return
    if forks == _forks:
        memory[0] = _FREE
    else:
        if _known.get(key) is memory:
            del _known[key]
        memory[0] = _GIVEN_UP


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


_lender = Lender()


def lender() -> Lender:
    """Returns the lender of this process."""
    return _lender


def forget() -> None:
    """Begins anew in a fork, which inherits what its parent knew and lent."""
    global _lender
    _lender = Lender()
    _known.clear()
