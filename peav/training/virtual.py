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
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import Tensor

from peav.embedding_model import EmbeddingModel
from peav.training.features import FeatureCache
from peav.training.guard import FiniteGuard
from peav.training.losses import Losses, with_gradients
from peav.training.sharding import without_gradient_sync
from peav.types import Batch, Embedding, EventInput

Storage = Literal["memory", "disk"]


class ChunkTraining(Protocol):
    """What a virtual batch needs of the module that it trains; see :class:`peav.training.module.PeavModule`."""

    model: EmbeddingModel
    features: FeatureCache | None
    trained: tuple[str, ...]
    frames: frozenset[str]
    guard: FiniteGuard

    @property
    def targets(self) -> tuple[str, ...]:
        """The batch fields that objectives read as they are."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def trainer(self) -> Trainer:
        """Whose steps count."""

    def evaluate_objectives(
        self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any], stage: str
    ) -> Losses:
        """Computes losses and their gradients at the embeddings."""

    def log_losses(self, losses: Losses, stage: str, clips: int) -> None:
        """Logs them."""


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
        sizes: rows and frames of what came out, by embedding name.
        targets: the batch fields that objectives read.
    """

    ids: tuple[str, ...]
    batch: Batch | Path
    random: RandomState
    sizes: dict[str, tuple[int, int]]
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


def join_embeddings(parts: Sequence[dict[str, Embedding]]) -> dict[str, Embedding]:
    """Joins the embeddings of chunks; the pooled vectors and frames require grad, so that objectives find their gradients.

    The parts are emptied on the way: both at once would take twice the memory.
    """
    joined: dict[str, Embedding] = {name: join_rows([part.pop(name) for part in parts]) for name in list(parts[0])}
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
        parts = _alike(parts)
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
    if isinstance(first, Mapping):
        return {key: join_rows([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(item for part in parts for item in part)
    if any(part != first for part in parts[1:]):
        raise ValueError(f"chunks that differ in {first!r} cannot be one virtual batch")
    return first


def _alike(events: Sequence[EventInput]) -> list[EventInput]:
    """Returns events of which all state what one of them states, with lineages of one width."""
    optional = [f.name for f in fields(EventInput) if f.default is None]
    used = [name for name in optional if any(getattr(part, name) is not None for part in events)]
    made = []
    for part in events:
        stated = part.stated()
        made.append(replace(part, **{name: getattr(stated, name) for name in used}))
    width = max((part.lineage.shape[1] for part in made if part.lineage is not None), default=0)
    return [
        part
        if part.lineage is None
        else replace(part, lineage=F.pad(part.lineage, (0, width - part.lineage.shape[1]), value=-1))
        for part in made
    ]


def _padded(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    missing = [size - present for size, present in zip(shape, tensor.shape[1:], strict=True)]
    return F.pad(tensor, [n for size in reversed(missing) for n in (0, size)]) if any(missing) else tensor


def split_gradients(
    pooled: Mapping[str, Tensor], frames: Mapping[str, Tensor], parts: Sequence[Mapping[str, tuple[int, int]]]
) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Cuts gradients of joined embeddings into those of the chunks: of the pooled vectors, and of the frames.

    Args:
        pooled: gradients (N, D) by name.
        frames: gradients (N, T, D) by name.
        parts: rows and frames of each chunk's embeddings, by name.
    """
    found: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = [({}, {}) for _ in parts]
    for index, gradients in enumerate((pooled, frames)):
        for name, gradient in gradients.items():
            begin = 0
            for part, some in zip(parts, found, strict=True):
                rows, length = part[name]
                own = gradient[begin : begin + rows]
                some[index][name] = own[:, :length] if index else own
                begin += rows
    return found


class VirtualBatches:
    """Gathers chunks until they make a virtual batch, and trains on it.

    Lightning is told to accumulate so many batches: it then steps, clips, schedules and counts by virtual batches.

    Args:
        size: clips over all devices.
        storage: where the inputs wait.
    """

    def __init__(self, size: int, storage: Storage = "memory") -> None:
        if size < 1:
            raise ValueError(f"virtual_batch_size must be a number of clips, not {size}")
        self.size, self._store = size, ChunkStore(storage)
        self._chunks: list[Chunk] = []
        self._made: list[dict[str, Embedding]] = []

    @property
    def pending(self) -> int:
        """Chunks that wait for the rest of their virtual batch."""
        return len(self._chunks)

    def prepare(self, trainer: Trainer) -> None:
        """Sets the number of batches that are a step.

        Raises:
            ValueError: if the virtual batch is no whole number of batches.
        """
        chunk = getattr(getattr(trainer, "datamodule", None), "batch_size", None)
        if chunk is None:
            raise ValueError("virtual_batch_size needs a data module that says its batch_size")
        whole = chunk * trainer.world_size
        if self.size % whole or self.size < whole:
            raise ValueError(
                f"virtual_batch_size={self.size} is no multiple of {whole}: {chunk} clips on each of {trainer.world_size} devices"
            )
        if trainer.accumulate_grad_batches not in (1, self.size // whole):
            raise ValueError(
                "trainer.accumulate_grad_batches adds no negatives; virtual_batch_size does both: leave it out"
            )
        trainer.accumulate_grad_batches = self.size // whole
        # What a run that was broken off has left belongs to no other.
        self._chunks, self._made = [], []

    def step(self, module: ChunkTraining, batch: Batch, batch_idx: int) -> Tensor:
        """Takes a chunk in; with the last one of a virtual batch, computes the loss and runs all chunks again.

        Returns:
            what Lightning goes back through: the last chunk; of the others nothing.
        """
        device, number = module.device, module.trainer.accumulate_grad_batches
        if module.features is None:
            # Frozen frontends run once; what they make is kept as it is.
            batch = FeatureCache("exact").replace_media(batch, module.model)
        random = RandomState.now(device)
        with torch.no_grad():
            made = module.model.embed_batch(batch, module.trained, module.frames)
        targets = {name: batch.read(name) for name in module.targets}
        sizes = {name: (len(e.pooled), 0 if e.frames is None else e.frames.shape[1]) for name, e in made.items()}
        self._chunks.append(Chunk(batch.ids, self._store.keep(batch), random, sizes, targets))
        self._made.append(made)
        del batch
        if (batch_idx + 1) % number and not module.trainer.is_last_batch:
            return torch.zeros((), device=device, requires_grad=True)
        (chunks, self._chunks), (parts, self._made) = (self._chunks, []), (self._made, [])
        after = RandomState.now(device)
        embeddings = join_embeddings(parts)
        joined = {name: join_rows([chunk.targets[name] for chunk in chunks]) for name in module.targets}
        losses = module.evaluate_objectives(embeddings, joined, "train")
        ids = tuple(name for chunk in chunks for name in chunk.ids)
        module.log_losses(losses, "train", len(ids))
        module.guard.watch(losses.total, ids, embeddings)
        del embeddings, joined
        shares = split_gradients(losses.pooled, losses.frames, [chunk.sizes for chunk in chunks])
        result = losses.total
        for index, (chunk, (pooled, frames)) in enumerate(zip(chunks, shares, strict=True)):
            chunk.random.restore()
            again = module.model.embed_batch(chunk.load(device), module.trained, module.frames)
            gradients = [(again[name].pooled, gradient) for name, gradient in pooled.items()]
            gradients += [
                (v, frames[name]) for name, e in again.items() if name in frames and (v := e.frames) is not None
            ]
            if index < len(chunks) - 1:
                _backward_alone(module, with_gradients(losses.total, gradients))
            else:
                # The objectives' own scalars go with it; Lightning divides by the number of chunks.
                gradients += losses.parameters
                result = with_gradients(losses.total * number, [(t, g * number) for t, g in gradients])
        after.restore()
        return result


def _backward_alone(module: ChunkTraining, loss: Tensor) -> None:
    """Goes back through a chunk without bringing gradients to other devices: the last chunk's pass does that for all."""
    with torch.autocast(module.device.type, enabled=False), without_gradient_sync(module.model):
        if loss.requires_grad:
            module.trainer.strategy.backward(loss, None)
