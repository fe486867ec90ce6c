"""What `peav embed` has done so far, in pieces that survive an interruption, and the table they become: npz or parquet."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from peav.cli.partial_folder import open_partial
from peav.inputs import Output

_ROWS_AT_ONCE = 1024
_PRESENT, _LENGTHS, _FRAMES = ".present", ".lengths", "_frames"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        key: what it was made of, to be found again.
        output: its embeddings.
        lost: the medium of it that could not be read, and why.
    """

    key: str
    output: Output
    lost: tuple[str, str] | None = None


class PieceStore:
    """A folder of safetensors files, each with the embeddings of some rows.

    Args:
        folder: where; made where it is missing.
        settings: all that the embeddings depend on besides the media.
        names: the embeddings that there may be; those that end in `_frames` have (T, D) a row.
        dim: D.

    Raises:
        ValueError: if the folder holds embeddings of other settings, or something else.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], names: Sequence[str], dim: int) -> None:
        self.folder, self.names, self.dim = folder, list(names), dim
        open_partial(folder, settings, "piece-*.safetensors", "peav embed")
        self._places: dict[str, tuple[Path, int]] = {}
        self._lost: dict[str, tuple[str, str]] = {}
        self._next = 0
        for path in sorted(folder.glob("piece-*.safetensors")):
            self._next = int(path.stem.removeprefix("piece-")) + 1
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
            self._places |= {key: (path, row) for row, key in enumerate(json.loads(metadata["keys"]))}
            self._lost |= {key: (kind, reason) for key, (kind, reason) in json.loads(metadata["lost"]).items()}
        self._read = lru_cache(maxsize=64)(_read_tensor)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def add(self, rows: Sequence[Row]) -> None:
        """Writes some rows; they are there or, after a crash, not."""
        path = self.folder / f"piece-{self._next:06d}.safetensors"
        self._next += 1
        tensors: dict[str, Tensor] = {}
        for name in self.names:
            values = [_value(row.output, name) for row in rows]
            if all(value is None for value in values):
                continue
            shape = (0, self.dim) if name.endswith(_FRAMES) else (self.dim,)
            filled = [torch.zeros(shape) if value is None else value for value in values]
            tensors[name] = (torch.cat if name.endswith(_FRAMES) else torch.stack)(filled).contiguous()
            tensors[name + _PRESENT] = torch.tensor([value is not None for value in values])
            if name.endswith(_FRAMES):
                tensors[name + _LENGTHS] = torch.tensor([len(value) for value in filled])
        partial = path.with_suffix(".partial")
        lost = {row.key: row.lost for row in rows if row.lost is not None}
        save_file(tensors, partial, metadata={"keys": json.dumps([row.key for row in rows]), "lost": json.dumps(lost)})
        partial.replace(path)
        self._lost |= lost
        self._places |= {row.key: (path, index) for index, row in enumerate(rows)}

    def lost(self, key: str) -> tuple[str, str] | None:
        """Returns the medium without which a row was made, `audio` or `video`, and why it could not be read."""
        return self._lost.get(key)

    def write(self, out: Path, keys: Sequence[str], ids: Sequence[str]) -> dict[str, int]:
        """Writes the table.

        Args:
            out: a path that ends in .npz or .parquet.
            keys: its rows, in order.
            ids: what the table calls them.

        Returns:
            how many rows have each embedding.
        """
        present = {
            name: [name in self._names_of(key) and self._present(key, name) for key in keys] for name in self.names
        }
        held = [name for name in self.names if any(present[name])]
        partial = out.with_name(out.name + ".partial")
        write = _write_npz if out.suffix == ".npz" else _write_parquet
        write(
            partial,
            ids,
            {name: np.array(present[name]) for name in held},
            lambda name: self._rows(keys, name),
            self.dim,
        )
        partial.replace(out)
        return {name: sum(present[name]) for name in held}

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder)

    def _names_of(self, key: str) -> Sequence[str]:
        return self._read(self._places[key][0], None)

    def _present(self, key: str, name: str) -> bool:
        path, row = self._places[key]
        return bool(self._read(path, name + _PRESENT)[row])

    def _rows(self, keys: Sequence[str], name: str) -> Iterator[np.ndarray]:
        """Yields (D,) or (T, D) of each row, zero or empty where it has none."""
        nothing = np.zeros((0, self.dim) if name.endswith(_FRAMES) else self.dim, np.float32)
        for key in keys:
            path, row = self._places[key]
            if name not in self._read(path, None):
                yield nothing
            elif name.endswith(_FRAMES):
                end = int(self._read(path, name + _LENGTHS)[: row + 1].sum())
                yield self._read(path, name)[end - int(self._read(path, name + _LENGTHS)[row]) : end]
            else:
                yield self._read(path, name)[row]


def _value(output: Output, name: str) -> Tensor | None:
    if name.endswith(_FRAMES):
        return output.frames.get(name.removesuffix(_FRAMES))
    return output.pooled.get(name)


def _read_tensor(path: Path, name: str | None) -> Any:
    """Reads a tensor of a piece, or the names of all."""
    with safe_open(path, "np") as file:
        return file.get_tensor(name) if name is not None else list(file.keys())


def _write_npz(
    out: Path,
    ids: Sequence[str],
    present: Mapping[str, np.ndarray],
    rows: Callable[[str], Iterator[np.ndarray]],
    dim: int,
) -> None:
    """Writes arrays row by row, so that a table need not fit the memory."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        _add_array(archive, "ids", np.array(list(ids), dtype=np.str_))
        for name, having in present.items():
            lengths = None
            if name.endswith(_FRAMES):
                lengths = np.array([len(row) for row in rows(name)], np.int64)
                _add_array(archive, name + _LENGTHS, lengths)
            _add_array(archive, name + _PRESENT, having)
            header = {"descr": "<f4", "fortran_order": False}
            header["shape"] = (len(ids) if lengths is None else int(lengths.sum()), dim)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array_header_1_0(stream, header)
                for row in rows(name):
                    stream.write(np.ascontiguousarray(row, "<f4").tobytes())


def _add_array(archive: zipfile.ZipFile, name: str, values: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
        np.lib.format.write_array(stream, values, allow_pickle=False)


def _write_parquet(
    out: Path,
    ids: Sequence[str],
    present: Mapping[str, np.ndarray],
    rows: Callable[[str], Iterator[np.ndarray]],
    dim: int,
) -> None:
    arrow, parquet = import_pyarrow()
    vector = arrow.list_(arrow.float32())
    kinds = {name: arrow.list_(vector) if name.endswith(_FRAMES) else vector for name in present}
    schema = arrow.schema([("id", arrow.string()), *kinds.items()])
    sources = {name: rows(name) for name in present}
    with parquet.ParquetWriter(out, schema) as writer:
        for begin in range(0, len(ids), _ROWS_AT_ONCE):
            some = list(ids[begin : begin + _ROWS_AT_ONCE])
            columns: dict[str, Any] = {"id": arrow.array(some, arrow.string())}
            for name, having in present.items():
                values = [
                    list(value) if has else None
                    for value, has in zip(sources[name], having[begin : begin + len(some)], strict=False)
                ]
                columns[name] = arrow.array(values, kinds[name])
            writer.write_table(arrow.table(columns, schema))


def import_pyarrow() -> tuple[Any, Any]:
    """Returns pyarrow and pyarrow.parquet.

    Raises:
        ValueError: if they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError("a .parquet file needs pyarrow: pip install 'peav[parquet]'; or write .npz") from None
    return pyarrow, pyarrow.parquet
