"""What crosses between the memory of the host and that of a device.

A value that the host reads makes it wait until the device has computed everything before it, and leaves the device without work until
the host has caught up. So what the host must know of a step is fetched in few copies, and what it decides goes back without waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_T = TypeVar("_T")


#: What the host knows of tensors on a device: their version then, and their values. Forgotten with the tensor.
_KNOWN: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def remember(far: Tensor, near: Tensor) -> None:
    """Notes that a tensor on a device has the values of one on the host, so that :func:`to_host` need not ask for them."""
    if far.device.type != "cpu" and near.device.type == "cpu" and not far.is_inference():
        _KNOWN[far] = (far._version, near)


def known(tensor: Tensor) -> Tensor | None:
    """Returns the values of a tensor where the host knows them without asking the device."""
    if tensor.device.type == "cpu":
        return tensor
    if tensor.is_inference() or tensor not in _KNOWN:
        return None
    version, near = _KNOWN[tensor]
    return near if version == tensor._version else None


def to_host(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Returns tensors in the memory of the host: all in one copy, for which the host waits once.

    What is there, or came from there by :func:`to_device` or with its batch, is not asked for again.

    Args:
        tensors: of any shapes and dtypes, on the host or on one device.

    Returns:
        the tensors on the host, not to be changed.

    >>> to_host(torch.tensor([True, False]), torch.tensor(3))
    (tensor([ True, False]), tensor(3))
    """
    found = [known(tensor) for tensor in tensors]
    far = [index for index, near in enumerate(found) if near is None]
    # Bytes, the widest numbers first, so that each part begins where its dtype may.
    far.sort(key=lambda index: -tensors[index].element_size())
    parts = [tensors[index].detach().contiguous().flatten().view(torch.uint8) for index in far]
    packed = torch.cat(parts).cpu() if parts else torch.empty(0)
    for index, part in zip(far, packed.split([len(part) for part in parts]), strict=True):
        found[index] = part.view(tensors[index].dtype).view(tensors[index].shape)
        remember(tensors[index], found[index])  # type: ignore[arg-type]
    return tuple(found)  # type: ignore[arg-type]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor of the host on a device, without waiting for it."""
    far = (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
    remember(far, tensor)
    return far


class RowIdentities:
    """Presence and identity of an embedding's rows on all ranks, on the host: what masks of pairs are made from.

    Args:
        present: (M,) bool, on the host.
        group: (M,) int64, likewise.
    """

    def __init__(self, present: Tensor, group: Tensor) -> None:
        self.present, self.group = present.numpy(), group.numpy()
        self._made: dict[object, tuple[RowIdentities, object]] = {}

    def with_other(self, other: RowIdentities, key: object, make: Callable[[], _T]) -> _T:
        """Returns what `make` made for these rows and others under a key, made once: several objectives ask for the same.

        Args:
            other: of another embedding.
            key: hashable, all that it depends on besides the two.
            make: makes it.
        """
        whole = (id(other), key)
        if whole not in self._made:
            self._made[whole] = (other, make())  # which keeps `other`, and so its id, alive
        return self._made[whole][1]  # type: ignore[return-value]
