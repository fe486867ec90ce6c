"""A device that computes on the CPU but behaves like a GPU: what would make the host wait for a GPU is counted, with none at hand.

Tensors of the device `pretend` are wrappers around tensors of the CPU. Like those of a GPU they cannot be mixed with the host's, and
what crosses between the two is seen here. Counted is what makes PyTorch wait for a CUDA stream:

- a value that Python reads: `item()`, `bool()`, `int()`, `float()`, `tolist()`, `torch.equal`;
- an operation whose output has a size that depends on data: `nonzero`, indexing with a mask, `masked_select`, `unique`,
  `repeat_interleave` without its output size, `bincount`;
- a copy to the host, blocking or not: what it brings is read next;
- a copy from the host that is not `non_blocking`: `torch.tensor(..., device=)`, `.to(device)`, an index that lies on the host.

Not counted: kernels, factories such as `zeros` or `full`, non-blocking copies to the device, and single numbers of the host in an
operation, which travel as arguments.
"""

from __future__ import annotations

import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretend"

aten = torch.ops.aten
#: Operations that end in a value on the host, or whose output's size is one.
_WAITING = {
    *(aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.nonzero, aten.masked_select, aten.bincount),
    *(aten._unique, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.unique_dim_consecutive),
}
_INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
_COPIES = {aten._to_copy, aten.copy_, aten._copy_from, aten._copy_from_and_resize}
_LOCK = threading.Lock()


class _Backend(_DummyBackendModule):
    """What torch asks of a backend's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def is_autocast_enabled(self) -> bool:
        return False


class PretendTensor(Tensor):
    """A tensor of the device: a wrapper around `raw`, which lies on the CPU."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> PretendTensor:
        made: PretendTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            layout=raw.layout,
            device=torch.device(NAME, 0),
        )
        made.raw = raw
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PretendTensor({self.raw})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {}, lambda reason: None)


def _is_pretend(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _tensors(item)


def _run(func: Any, args: Any, kwargs: Mapping[str, Any], waits: Callable[[str], None]) -> Any:
    """Runs an operation on the raw tensors, and says whether a host would wait for it."""
    given = [*_tensors(args), *_tensors(kwargs)]
    on_device = [tensor for tensor in given if isinstance(tensor, PretendTensor)]
    packet, device = func.overloadpacket, kwargs.get("device")
    to_device = _is_pretend(device) if device is not None else bool(on_device)
    if packet in _COPIES:
        blocking = not (kwargs.get("non_blocking", False) or (packet is aten.copy_ and len(args) > 2 and args[2]))
        source = args[1] if packet is aten.copy_ else args[0]
        to_device = isinstance(args[0], PretendTensor) if packet is aten.copy_ else to_device
        from_device = isinstance(source, PretendTensor)
        if from_device and not to_device:
            waits("a copy to the host")
        elif to_device and not from_device and blocking:
            waits("a blocking copy to the device")
    elif on_device:
        host = [tensor for tensor in given if not isinstance(tensor, PretendTensor) and tensor.ndim]
        if packet in _INDEXING:
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                waits("indexing with a mask")
            if any(not isinstance(index, PretendTensor) for index in indices):
                waits("an index that lies on the host")
        elif host:
            raise RuntimeError(f"{func} mixes tensors of the host, {[tuple(t.shape) for t in host]}, with the device's")
        if packet in _WAITING or (packet is aten.repeat_interleave and kwargs.get("output_size") is None):
            waits(str(packet))

    def unwrap(value: Any) -> Any:
        if isinstance(value, PretendTensor):
            return value.raw
        return torch.device("cpu") if isinstance(value, torch.device) and _is_pretend(value) else value

    out = func(*tree_map(unwrap, args), **tree_map(unwrap, dict(kwargs)))
    if not to_device:
        return out
    # A wrapper says nothing of a conjugation that is still to be done.
    out = tree_map(lambda value: PretendTensor(value.resolve_conj()) if isinstance(value, Tensor) else value, out)
    return return_and_correct_aliasing(func, args, dict(kwargs), out)


class _Dispatch(TorchDispatchMode):
    def __init__(self, waits: Callable[[str], None]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self.waits)


class _Functions(TorchFunctionMode):
    """What never reaches the dispatcher on a wrapper."""

    def __init__(self, waits: Callable[[str], None]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.tolist and isinstance(args[0], PretendTensor):
            self.waits("tolist()")
            return args[0].raw.tolist()
        if func in (torch.tensor, torch.as_tensor) and _is_pretend(kwargs.get("device")):
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is Tensor.new_tensor and isinstance(args[0], PretendTensor):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}).to(args[0].device)
        return func(*args, **kwargs)


class Waits:
    """Counts, while `counting`, what a host would wait for, by reason and by the lines of peav or of a library that ask for it."""

    def __init__(self) -> None:
        self.counting = False
        self.found: Counter[str] = Counter()

    def __call__(self, reason: str) -> None:
        if not self.counting:
            return
        frames = [f for f in traceback.extract_stack() if "/torch/" not in f.filename and __file__ != f.filename]
        own = [f for f in frames if "/peav/" in f.filename and "/tests/" not in f.filename]
        where = {f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}": None for f in (own[-1:] + frames[-1:])}
        with _LOCK:
            self.found[f"{reason}, {' < '.join(where)}"] += 1

    @property
    def total(self) -> int:
        """How often the host would have waited."""
        return self.found.total()

    def __str__(self) -> str:
        return "\n".join(f"{number:4} {reason}" for reason, number in self.found.most_common())


def device() -> torch.device:
    """Returns the device, which is made known to torch on the first call of a process."""
    if torch._C._get_privateuse1_backend_name() != NAME:
        _setup_privateuseone_for_python_backend(NAME, _Backend())
    return torch.device(NAME, 0)


@contextmanager
def pretend() -> Iterator[Waits]:
    """Lets the device be computed with, and counts what the host waits for."""
    device()
    waits = Waits()
    with _Dispatch(waits), _Functions(waits):
        yield waits


class PretendAccelerator(Accelerator):
    """One pretended device, for Lightning's trainer."""

    @staticmethod
    def name() -> str:
        return NAME

    def setup_device(self, device: torch.device) -> None:
        """Has nothing to set up."""

    def teardown(self) -> None:
        """Has nothing to tear down."""

    @staticmethod
    def parse_devices(devices: Any) -> int:
        return int(devices)

    @staticmethod
    def get_parallel_devices(devices: int) -> list[torch.device]:
        return [device()] * devices

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}


def strategy() -> SingleDeviceStrategy:
    """Returns the strategy that trains on the device."""
    return SingleDeviceStrategy(device=device(), accelerator=PretendAccelerator())
