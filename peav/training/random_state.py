"""The state of the random numbers of a process, as plain data that a checkpoint can hold."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class ProcessRandom:
    """The state of the random numbers of torch (CPU and one device), Python and NumPy."""

    cpu: Tensor
    cuda: Tensor | None
    python: tuple[Any, ...]
    numpy: tuple[Any, ...]

    @classmethod
    def now(cls, device: torch.device) -> ProcessRandom:
        """Returns the present state.

        Args:
            device: of this process.
        """
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), cuda, random.getstate(), np.random.get_state())  # type: ignore[arg-type]

    def restore(self, device: torch.device) -> None:
        """Sets the random numbers back; those of another kind of device are left as they are."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and device.type == "cuda":
            torch.cuda.set_rng_state(self.cuda, device)
        random.setstate(self.python)
        np.random.set_state(self.numpy)

    def to_plain(self) -> dict[str, Any]:
        """Returns it as tensors and numbers."""
        version, internal, gauss = self.python
        kind, keys, *rest = self.numpy
        return {
            "cpu": self.cpu,
            "cuda": self.cuda,
            "python": [version, torch.tensor(internal, dtype=torch.int64), gauss],
            "numpy": [str(kind), torch.from_numpy(keys.astype(np.int64)), *rest],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ProcessRandom:
        """Returns what `to_plain` wrote."""
        version, internal, gauss = plain["python"]
        kind, keys, *rest = plain["numpy"]
        cuda = plain["cuda"]
        return cls(
            plain["cpu"].cpu(),
            None if cuda is None else cuda.cpu(),
            (version, tuple(internal.tolist()), gauss),
            (kind, keys.numpy().astype(np.uint32), *rest),
        )
