"""What devices cannot do, and what they must not be asked to: in one place."""

from __future__ import annotations

import torch
from torch import Tensor

#: Kinds of device whose hardware or driver has no float64.
_WITHOUT_FLOAT64 = frozenset({"mps"})


def accumulator_dtype(device: torch.device | str) -> torch.dtype:
    """Returns the widest floating point type in which a device can sum: float64, or float32 on Apple's GPUs.

    Whatever is summed over many terms on the device of a model asks here; float64 by name is for what lies on the CPU.

    Args:
        device: of the tensors that are summed.

    >>> accumulator_dtype("cpu"), accumulator_dtype(torch.device("mps"))
    (torch.float64, torch.float32)
    """
    return torch.float32 if torch.device(device).type in _WITHOUT_FLOAT64 else torch.float64


def widest(values: Tensor) -> Tensor:
    """Returns values in the accumulator type of their device."""
    return values.to(accumulator_dtype(values.device))


def copied(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Returns a tensor on a device; asynchronous only where nobody can read it before it has arrived.

    That is a copy from page-locked memory to an accelerator, whose own queue orders it before what reads it. A copy to the CPU must
    block: the host reads at once, and would read what has not arrived.
    """
    waits = torch.device(device).type == "cpu" or tensor.device.type != "cpu" or not tensor.is_pinned()
    return tensor.to(device, non_blocking=not waits)


def resolve_device(device: str) -> str:
    """Returns the device that `auto` means here, a GPU if there is one; any other as it is."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
