"""The vectors that `peav embed` and `peav predict` write, read through a memory map: a table of any size takes no memory.

Arrays of an .npz that was not compressed lie in it as they are, and so do tensors of a safetensors file: each is mapped where it begins.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What `peav embed` and `peav predict` add to the name of an embedding for the rows that have it.
_PRESENT = ".present"

#: How the names of embeddings end that have several vectors a row.
_FRAMES = "_frames"

#: The tensors of safetensors that numpy knows, of those that hold vectors and flags.
_TENSORS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BOOL": "|b1"}

#: Ids that are read at once.
_IDS_AT_ONCE = 65536


class VectorsError(ValueError):
    """Vectors that cannot be read, or are not those of the clips. The message says which, and what to do."""


@dataclass(frozen=True)
class _File:
    """A file of vectors: the ids of its rows, and its arrays by name."""

    path: Path
    ids: Sequence[Any] | NDArray[Any]
    arrays: Mapping[str, NDArray[Any]]


class VectorTable:
    """N rows, each with an id and some embeddings (D,), as they lie on the disk.

    Args:
        path: the .npz of `peav embed`; a safetensors file of `peav predict`, or the folder that holds one a rank.

    Raises:
        VectorsError: if it is none of them, or is damaged.
        FileNotFoundError: if it is not there.

    Attributes:
        names: embeddings that some row may have.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = [_open(one) for one in _paths(path)]
        for file in self._files:
            _check(file)
        self._ends = np.cumsum([len(file.ids) for file in self._files])
        found = [
            {name for name in file.arrays if f"{name}{_PRESENT}" in file.arrays and not name.endswith(_FRAMES)}
            for file in self._files
        ]
        self.names = tuple(sorted(set.intersection(*found)))
        if not self.names:
            held = ", ".join(sorted({name for file in self._files for name in file.arrays})) or "nothing"
            raise VectorsError(
                f"{path} holds {held}, and no embedding NAME with NAME.present, as `peav embed` writes them"
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def dim(self, name: str) -> int:
        """Returns D of an embedding.

        Raises:
            VectorsError: if files of the table differ in it.
        """
        dims = {int(file.arrays[name].shape[1]) for file in self._files}
        if len(dims) > 1:
            raise VectorsError(
                f"the files of {self.path} have vectors {name!r} of {sorted(dims)} dimensions: not of one model"
            )
        return dims.pop()

    @property
    def stamp(self) -> list[list[Any]]:
        """What tells the files of the table from others: name, bytes and time of change."""
        held = [(file.path.name, file.path.stat()) for file in self._files]
        return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in held]

    def ids(self) -> Iterator[str]:
        """Yields the id of each row."""
        for file in self._files:
            for begin in range(0, len(file.ids), _IDS_AT_ONCE):
                yield from map(str, file.ids[begin : begin + _IDS_AT_ONCE])

    def id_of(self, row: int) -> str:
        """Returns the id of a row."""
        number = int(np.searchsorted(self._ends, row, "right"))
        return str(self._files[number].ids[row - int(self._ends[number]) + len(self._files[number].ids)])

    def present(self, name: str) -> NDArray[np.bool_]:
        """Returns (N,) which rows have an embedding."""
        return np.concatenate([np.asarray(file.arrays[f"{name}{_PRESENT}"], bool) for file in self._files])

    def take(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Reads vectors (K, D) by their rows (K,)."""
        out = np.empty((len(rows), self.dim(name)), np.float32)
        owners = np.searchsorted(self._ends, rows, "right")
        for number, file in enumerate(self._files):
            own = np.flatnonzero(owners == number)
            if len(own):
                out[own] = file.arrays[name][rows[own] - (int(self._ends[number]) - len(file.ids))]
        return out


class UnitRows:
    """Some rows of one embedding of a table, as vectors of length 1.

    Args:
        table: the table.
        name: of the embedding.
        rows: (N,) in it.
    """

    def __init__(self, table: VectorTable, name: str, rows: NDArray[np.int64]) -> None:
        self._table, self._name, self.rows = table, name, rows
        self.dim = table.dim(name)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Reads vectors (K, D) by their places (K,) among the N.

        Raises:
            VectorsError: if one is not finite or is zero, with its id.
        """
        order = np.argsort(self.rows[places], kind="stable")  # a disk reads forwards
        held = np.empty((len(places), self.dim), np.float32)
        held[order] = self._table.take(self._name, self.rows[places[order]])
        lengths = np.sqrt(np.einsum("nd,nd->n", held, held, dtype=np.float64))
        bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if len(bad):
            what = "is zero" if lengths[bad[0]] == 0 else "is not finite"
            raise VectorsError(
                f"the vector {self._name!r} of {self._table.id_of(int(self.rows[places[bad[0]]]))!r} in {self._table.path} {what}, and "
                f"tells nothing of its clip: embed it again, or leave the row out of the table"
            )
        held /= lengths[:, None].astype(np.float32)
        return held


def _paths(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(path.glob("embeddings-*.safetensors"))
        if not found:
            raise VectorsError(
                f"the folder {path} holds no embeddings-*.safetensors of `peav predict`: give it, or the .npz of `peav embed`"
            )
        return found
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file or folder {path}: give the .npz of `peav embed`, or the folder of `peav predict`"
        )
    return [path]


def _open(path: Path) -> _File:
    if path.suffix == ".parquet":
        raise VectorsError(f"{path} cannot be mapped into memory: write the vectors as .npz (`peav embed --out X.npz`)")
    try:
        return _open_safetensors(path) if path.suffix == ".safetensors" else _open_npz(path)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        if isinstance(error, VectorsError):
            raise
        raise VectorsError(
            f"{path} cannot be read as vectors ({type(error).__name__}: {error}): give the .npz of `peav embed`, or what `peav predict` "
            "wrote"
        ) from None


def _open_npz(path: Path) -> _File:
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise VectorsError(f"{path} is compressed and cannot be mapped into memory: write it by numpy.savez")
            stream.seek(
                member.header_offset + 26
            )  # where the header of a zip's member says how long its name and extras are
            name_bytes, extra_bytes = np.frombuffer(stream.read(4), "<u2").tolist()
            stream.seek(name_bytes + extra_bytes, 1)
            arrays[member.filename.removesuffix(".npy")] = _map_npy(path, stream)
    if "ids" not in arrays:
        raise VectorsError(
            f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}, but no `ids`, as `peav embed` writes them"
        )
    ids = arrays.pop("ids")
    if ids.ndim != 1 or ids.dtype.kind != "U":
        raise VectorsError(f"`ids` of {path} must be (N,) texts, got {ids.shape} of {ids.dtype}")
    return _File(path, ids, arrays)


def _map_npy(path: Path, stream: Any) -> NDArray[Any]:
    """Maps an array that begins where a stream stands."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise VectorsError(f"{path} holds Python objects, which are not read")
    return _map(path, dtype, stream.tell(), shape, "F" if fortran else "C")


def _open_safetensors(path: Path) -> _File:
    arrays: dict[str, NDArray[Any]] = {}
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if not 0 < size < path.stat().st_size:
            raise VectorsError(f"{path} is no safetensors file")
        header = json.loads(stream.read(size))
    ids = json.loads(header.pop("__metadata__", {}).get("ids", "null"))
    if not isinstance(ids, list):
        raise VectorsError(f"{path} names no clips in its metadata, as `peav predict` does")
    for name, said in header.items():
        if said["dtype"] not in _TENSORS:
            raise VectorsError(
                f"{name!r} of {path} is of the type {said['dtype']}, which is not read: write float16 or float32"
            )
        arrays[name] = _map(path, np.dtype(_TENSORS[said["dtype"]]), 8 + size + said["data_offsets"][0], said["shape"])
    return _File(path, ids, arrays)


def _map(path: Path, dtype: np.dtype[Any], offset: int, shape: Sequence[int], order: Any = "C") -> NDArray[Any]:
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", offset, tuple(shape), order)


def _check(file: _File) -> None:
    """Sees that each embedding has a row for each id."""
    count = len(file.ids)
    if not count:
        raise VectorsError(f"{file.path} holds no rows")
    for name, present in file.arrays.items():
        own = name.removesuffix(_PRESENT)
        if own == name or own not in file.arrays or own.endswith(_FRAMES):
            continue
        vectors = file.arrays[own]
        if vectors.ndim != 2 or len(vectors) != count or present.shape != (count,) or vectors.dtype.kind != "f":
            raise VectorsError(
                f"{file.path} has {count} ids, but {own!r} is {vectors.shape} of {vectors.dtype}: it should be ({count}, D) of floats"
            )
