"""Embeddings kept on the disk by what they were made of, so that a pass over a split goes on where it was, and is made once.

A store is a folder of safetensors files, each with the embeddings of some clips or texts; what lies in one is there whole or not at
all. Several processes may write to one store. Frames are read from it when they are asked for: those of a split never lie in memory
whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from peav.atomic import replacing
from peav.evaluation.models import ClipOutput

log = logging.getLogger(__name__)

#: In which numbers embeddings are kept.
Kept = Literal["fp32", "fp16"]
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}

#: A matrix of more bytes lies in a file that is mapped into memory.
_MAPPED_BYTES = 256 << 20
_FRAMES, _GROUP, _PRESENT, _LENGTHS, _SECONDS = "/frames", "/group", "/present", "/lengths", "/seconds"


class EmbeddingStore:
    """A folder of embeddings by key.

    Args:
        folder: where; made where it is missing.
        settings: all that the embeddings depend on beside what a key says. A folder belongs to one setting.
        kept: the numbers in which they are kept.

    Raises:
        ValueError: if the folder holds something else.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], kept: Kept = "fp32") -> None:
        self.folder, self.dtype = folder, _DTYPES[kept]
        text = json.dumps(dict(settings), indent=1, sort_keys=True)
        path = folder / "settings.json"
        if path.is_file():
            if path.read_text(encoding="utf-8") != text:
                raise ValueError(f"{folder} holds embeddings of other settings: delete it, or choose another --cache")
        elif folder.exists() and any(folder.iterdir()):
            raise ValueError(
                f"{folder} is not empty and holds no embeddings of `peav evaluate`: choose another --cache"
            )
        folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            with replacing(path, shared=True) as partial:
                partial.write_bytes(text.encode())
        self._places: dict[str, tuple[Path, int]] = {}
        self._problems: dict[str, str] = {}
        self._seen: set[str] = set()
        self._open = lru_cache(maxsize=64)(_Piece)
        self.refresh()

    def refresh(self) -> None:
        """Takes notice of what other processes wrote."""
        for path in sorted(self.folder.glob("piece-*.safetensors")):
            if path.name in self._seen:
                continue
            try:
                with safe_open(path, "pt") as file:
                    metadata = file.metadata()
                keys, problems = json.loads(metadata["keys"]), json.loads(metadata["problems"])
            except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
                log.warning("%s is damaged, and its embeddings are made anew: %s", path, error)
                path.unlink(missing_ok=True)
                continue
            self._seen.add(path.name)
            self._problems |= problems
            for row, key in enumerate(keys):
                self._places.setdefault(key, (path, row))

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def problem(self, key: str) -> str:
        """Returns why a clip could not be decoded; "" where it could."""
        return self._problems.get(key, "")

    def add(self, keys: Sequence[str], outputs: Sequence[ClipOutput]) -> None:
        """Writes the embeddings of some clips, or of some texts."""
        names = list(dict.fromkeys(name for output in outputs for name in output.pooled))
        framed = list(dict.fromkeys(name for output in outputs for name in output.frames))
        tensors: dict[str, Tensor] = {}
        for name in names:
            dim = next(len(output.pooled[name]) for output in outputs if name in output.pooled)
            rows = [output.pooled.get(name, torch.zeros(dim)) for output in outputs]
            tensors[name] = torch.stack(rows).to(self.dtype)
            tensors[name + _PRESENT] = torch.tensor([name in output.pooled for output in outputs])
            tensors[name + _GROUP] = torch.tensor([output.groups.get(name, -1) for output in outputs])
        for name in framed:
            dim = next(output.frames[name].shape[1] for output in outputs if name in output.frames)
            sequences = [output.frames.get(name, torch.zeros(0, dim)) for output in outputs]
            tensors[name + _FRAMES] = torch.cat(sequences).to(self.dtype)
            tensors[name + _LENGTHS] = torch.tensor([len(sequence) for sequence in sequences])
            tensors[name + _SECONDS] = torch.tensor([o.frame_seconds.get(name, 0.0) for o in outputs])
        digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:24]
        path = self.folder / f"piece-{digest}.safetensors"
        problems = {key: output.problem for key, output in zip(keys, outputs, strict=True) if output.problem}
        # A file of safetensors may hold no tensor, but then no metadata that it gives back.
        tensors = tensors or {"none": torch.zeros(1)}
        with replacing(path, shared=True) as partial:
            save_file(tensors, partial, metadata={"keys": json.dumps(list(keys)), "problems": json.dumps(problems)})
        self._seen.add(path.name)
        self._places |= {key: (path, row) for row, key in enumerate(keys)}
        self._problems |= problems

    def matrix(self, name: str, keys: Sequence[str]) -> tuple[Tensor, list[int], Tensor]:
        """Joins the embeddings of one name.

        Args:
            name: of the embedding.
            keys: of the clips or texts, in order.

        Returns:
            (N, D) of those that have it, in a mapped file where it is large; the N places of them among the keys, ascending; and (N,)
            int64 the identity of what each was made of.
        """
        held = [
            (place, self._places[key]) for place, key in enumerate(keys) if self._piece(key).has(name, self._row(key))
        ]
        if not held:
            return torch.zeros(0, 0), [], torch.zeros(0, dtype=torch.int64)
        dim = self._open(held[0][1][0]).tensor(name).shape[1]
        found = _allocate(len(held), dim, self.dtype, self.folder)
        groups = torch.zeros(len(held), dtype=torch.int64)
        # File by file: rows of one stand together.
        for index in sorted(range(len(held)), key=lambda index: held[index][1]):
            path, row = held[index][1]
            piece = self._open(path)
            found[index], groups[index] = piece.tensor(name)[row], piece.tensor(name + _GROUP)[row]
        return found, [place for place, _ in held], groups

    def frames(self, name: str, keys: Sequence[str]) -> StoredFrames:
        """Returns the frames of clips, which are read when they are asked for."""
        return StoredFrames(self, name, keys)

    def frame_seconds(self, name: str, keys: Sequence[str]) -> set[float]:
        """Returns the times between two frames that there are."""
        return {
            seconds for key in keys if (seconds := self._piece(key).frame_seconds(name, self._row(key))) is not None
        }

    def frames_of(self, name: str, key: str) -> Tensor | None:
        """Returns the frames (T, D) of a clip in fp32, None where it has none."""
        return self._piece(key).frames(name, self._row(key))

    def _row(self, key: str) -> int:
        return self._places[key][1]

    def _piece(self, key: str) -> _Piece:
        return self._open(self._places[key][0])


class StoredFrames(Sequence[Tensor]):
    """The frames (T, D) of clips, read from the disk when they are asked for; T = 0 for a clip without."""

    def __init__(self, store: EmbeddingStore, name: str, keys: Sequence[str]) -> None:
        self._store, self._name, self._keys = store, name, list(keys)
        first = (store.frames_of(name, key) for key in keys)
        self._dim = next((frames.shape[1] for frames in first if frames is not None), 0)

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...

    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        frames = self._store.frames_of(self._name, self._keys[index])
        return torch.zeros(0, self._dim) if frames is None else frames

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))


class _Piece:
    """A file of a store: what is small is kept, embeddings are read as long as the file is open, frames row by row."""

    def __init__(self, path: Path) -> None:
        self._file = safe_open(path, "pt")
        self._names = set(self._file.keys())
        self._known: dict[str, Tensor] = {}

    def tensor(self, name: str) -> Tensor:
        if name not in self._known:
            self._known[name] = self._file.get_tensor(name)
        return self._known[name]

    def has(self, name: str, row: int) -> bool:
        return name in self._names and bool(self.tensor(name + _PRESENT)[row])

    def frames(self, name: str, row: int) -> Tensor | None:
        if name + _FRAMES not in self._names:
            return None
        lengths = self.tensor(name + _LENGTHS)
        end = int(lengths[: row + 1].sum())
        rows = self._file.get_slice(name + _FRAMES)[end - int(lengths[row]) : end]
        return rows.float()

    def frame_seconds(self, name: str, row: int) -> float | None:
        if name + _SECONDS not in self._names or not int(self.tensor(name + _LENGTHS)[row]):
            return None
        return float(self.tensor(name + _SECONDS)[row])


def _allocate(rows: int, dim: int, dtype: torch.dtype, folder: Path) -> Tensor:
    if rows * dim * dtype.itemsize <= _MAPPED_BYTES:
        return torch.empty(rows, dim, dtype=dtype)
    # The file has no name: it goes when nothing uses it any more, however the process ends.
    with tempfile.TemporaryFile(dir=folder) as file:
        mapped = np.memmap(file, np.float32 if dtype == torch.float32 else np.float16, "w+", shape=(rows, dim))
    return torch.from_numpy(mapped)
