"""Virtual batches: the negatives of a batch far larger than memory, by gradient caching (arXiv 2101.06983).

Chunks go through the encoders without gradient, and only their embeddings are kept; the objectives find their loss and its gradient at
all embeddings together; then each chunk goes through once more, with the random numbers it had, and gets its part of that gradient.
The result is that of the whole batch, for one forward pass more. Encoders must treat each clip by itself, as those of peav do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from peav.types import Batch, Embedding, EventInput

Storage = Literal["memory", "disk"]


@dataclass(frozen=True)
class RandomState:
    """The state of torch's random numbers, of the CPU and of a device."""

    cpu: Tensor
    device: torch.device
    cuda: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> RandomState:
        """Returns the present state."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), device, cuda)

    def restore(self) -> None:
        """Sets the random numbers back."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)


@dataclass(frozen=True)
class Chunk:
    """A chunk that has gone through the encoders once.

    Attributes:
        ids: of its clips.
        batch: its inputs, in the memory of the host, or the file that holds them.
        random: the random numbers before its pass.
        embeddings: what came out, without gradient.
        targets: the batch fields that objectives read.
    """

    ids: tuple[str, ...]
    batch: Batch | Path
    random: RandomState
    embeddings: dict[str, Embedding]
    targets: dict[str, Any]

    def load(self, device: torch.device) -> Batch:
        """Returns the inputs again, on a device; a file is deleted."""
        if isinstance(self.batch, Batch):
            return self.batch.to(device)
        batch: Batch = torch.load(self.batch, weights_only=False)  # written by this process, a moment ago
        self.batch.unlink()
        return batch.to(device)


class ChunkStore:
    """Keeps the inputs of chunks until they are needed again.

    Args:
        storage: `memory` of the host, or `disk`: a temporary folder.
    """

    def __init__(self, storage: Storage) -> None:
        if storage not in ("memory", "disk"):
            raise ValueError(f"virtual_batch_storage must be 'memory' or 'disk', not {storage!r}")
        self._folder: AbstractContextManager[str] | None = None
        self._path: Path | None = None
        if storage == "disk":
            folder = tempfile.TemporaryDirectory(prefix="peav-chunks-")
            self._folder, self._path = folder, Path(folder.name)
        self._kept = 0

    def keep(self, batch: Batch) -> Batch | Path:
        """Returns what `Chunk.batch` holds."""
        batch = batch.to("cpu")
        if self._path is None:
            return batch
        self._kept += 1
        path = self._path / f"{self._kept}.pt"
        torch.save(batch, path)
        return path


def join_embeddings(parts: Sequence[Mapping[str, Embedding]]) -> dict[str, Embedding]:
    """Joins the embeddings of chunks; the pooled vectors and frames require grad, so that objectives find their gradients."""
    joined: dict[str, Embedding] = {name: join_rows([part[name] for part in parts]) for name in parts[0]}
    return {
        name: replace(
            e,
            pooled=e.pooled.requires_grad_(),
            frames=None if e.frames is None else e.frames.requires_grad_(),
        )
        for name, e in joined.items()
    }


def join_rows(parts: Sequence[Any]) -> Any:
    """Joins batch fields or embeddings row by row; what has another length is padded with zeros, which masks mark.

    Events point to the joined clips and phrases.
    """
    first = parts[0]
    if isinstance(first, EventInput):
        clips = torch.tensor([0, *(len(part.annotated) for part in parts[:-1])]).cumsum(0).tolist()
        phrases = torch.tensor([0, *(len(part.phrases.group) for part in parts[:-1])]).cumsum(0).tolist()
        parts = [
            replace(part, clip=part.clip + clip, phrase=part.phrase + phrase)
            for part, clip, phrase in zip(parts, clips, phrases, strict=True)
        ]
        first = parts[0]
    if isinstance(first, Tensor):
        if first.ndim == 0:
            return first
        shape = [max(part.shape[axis] for part in parts) for axis in range(1, first.ndim)]
        return torch.cat([_padded(part, shape) for part in parts])
    if is_dataclass(first) and not isinstance(first, type):
        changed = {f.name: join_rows([getattr(part, f.name) for part in parts]) for f in fields(first)}
        return replace(first, **changed)
    if isinstance(first, tuple):
        return tuple(item for part in parts for item in part)
    if any(part != first for part in parts[1:]):
        raise ValueError(f"chunks that differ in {first!r} cannot be one virtual batch")
    return first


def _padded(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    missing = [size - present for size, present in zip(shape, tensor.shape[1:], strict=True)]
    return F.pad(tensor, [n for size in reversed(missing) for n in (0, size)]) if any(missing) else tensor


def split_gradients(
    pooled: Mapping[str, Tensor], frames: Mapping[str, Tensor], parts: Sequence[Mapping[str, Embedding]]
) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Cuts gradients of joined embeddings into those of the chunks: of the pooled vectors, and of the frames."""
    found: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = [({}, {}) for _ in parts]
    for index, gradients in enumerate((pooled, frames)):
        for name, gradient in gradients.items():
            begin = 0
            for part, some in zip(parts, found, strict=True):
                embedding = part[name]
                own = gradient[begin : begin + len(embedding.pooled)]
                if index and embedding.frames is not None:
                    own = own[:, : embedding.frames.shape[1]]
                some[index][name] = own
                begin += len(embedding.pooled)
    return found
