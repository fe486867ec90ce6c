"""Two fields of one's own kind: bytes that have a clock, and JSON that has none. Workers of `peav prepare` import this module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peav.data.manifests.fields import find_file
from peav.fields import Field

RATE = 10


class Steps(Field):
    """Numbers, ten a second, from a file; kept as bytes."""

    name = "steps"
    shape = (1,)

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def read(self, value: Any, folder: Path) -> bytes:
        text = find_file(value, folder).read_text()
        return np.array([float(word) for word in text.split()], "<f4").tobytes()

    def cut(self, stored: bytes, start: float, duration: float) -> bytes:
        return stored[4 * round(start * RATE) : 4 * round((start + duration) * RATE)]

    def decode(self, stored: bytes, duration: float) -> Tensor:
        if stored == b"\0\0\xc0\x7f":
            raise FloatingPointError("a lone NaN")
        return self.scale * torch.frombuffer(bytearray(stored), dtype=torch.float32).view(-1, 1)


@dataclass(frozen=True)
class Scores:
    """(B,) numbers."""

    values: list[Tensor]
    present: Tensor
    group: Tensor


class Score(Field):
    """A number without a clock, kept in the manifest; a batch of its own form."""

    name = "score"

    def read(self, value: Any, folder: Path) -> float:
        number = float(value)
        if not 0 <= number <= 5:
            raise ValueError(f"a score is from 0 to 5, got {value!r}")
        return number

    def cut(self, stored: float, start: float, duration: float) -> float:
        return stored

    def decode(self, stored: float, duration: float) -> float:
        return stored

    def collate(self, items: Sequence[float | None], present: Tensor, group: Tensor) -> Scores:
        values = torch.tensor([0.0 if item is None else item for item in items])
        # In a list, half precision and large: whatever a batch may hold must travel.
        return Scores([values, values.bfloat16(), torch.zeros(len(items), 10_000)], present, group)
