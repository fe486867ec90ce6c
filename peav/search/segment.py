"""A segment: some windows and their vectors, written once and never changed.

A folder with `windows.npy`, (N,) of `WINDOW`, and of each embedding NAME that any of them has `NAME.rows.npy`, (M,) the windows that
have it, and `NAME.faiss`, their vectors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from peav.atomic import sync
from peav.search.vectors import Vectors

#: A window: its number, which it keeps for good, the number of its file, and its span in seconds.
WINDOW = np.dtype([("id", "<i8"), ("file", "<i8"), ("start", "<f8"), ("seconds", "<f8")])


class Segment:
    """A segment that is open.

    Args:
        folder: where it lies.
        sizes: what the catalogue says of its files, bytes by name.

    Raises:
        RuntimeError: if a file is not what the catalogue says.
        FileNotFoundError: if one is missing.
    """

    def __init__(self, folder: Path, sizes: Mapping[str, int]) -> None:
        self.folder = folder
        for name, size in sizes.items():
            if (found := (folder / name).stat().st_size) != size:
                raise RuntimeError(f"{folder / name} has {found} bytes, and had {size} when it was written")
        try:
            self.windows: np.ndarray = np.load(folder / "windows.npy", mmap_mode="r")
            self.rows: dict[str, np.ndarray] = {}
            self.vectors: dict[str, Vectors] = {}
            for name in sizes:
                if name.endswith(".faiss"):
                    embedding = name.removesuffix(".faiss")
                    self.rows[embedding] = np.load(folder / f"{embedding}.rows.npy")
                    self.vectors[embedding] = Vectors(folder / name)
        except ValueError as error:
            raise RuntimeError(f"{folder}: {error}") from error
        for embedding, rows in self.rows.items():
            if len(rows) != len(self.vectors[embedding]):
                raise RuntimeError(
                    f"{folder}: {embedding} has {len(rows)} rows and {len(self.vectors[embedding])} vectors"
                )

    def __len__(self) -> int:
        return len(self.windows)

    def search(
        self, name: str, query: np.ndarray, count: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the windows with the greatest inner products in an embedding.

        Args:
            name: of the embedding.
            query: (D,).
            count: how many at most.
            allowed: (N,) bool, which windows may be found; None for all.

        Returns:
            scores (K,), falling, and numbers of windows within the segment (K,).
        """
        if name not in self.vectors:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        rows = self.rows[name]
        scores, found = self.vectors[name].search(query, count, None if allowed is None else allowed[rows])
        return scores, rows[found]

    def has(self, name: str) -> np.ndarray:
        """Returns which windows (N,) bool have an embedding."""
        having = np.zeros(len(self), bool)
        if name in self.rows:
            having[self.rows[name]] = True
        return having

    def take(self, name: str, windows: np.ndarray) -> np.ndarray:
        """Returns vectors (K, D) of windows that have the embedding, by their numbers within the segment."""
        return self.vectors[name].take(np.searchsorted(self.rows[name], windows))


def write_segment(
    folder: Path, windows: np.ndarray, vectors: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, int]:
    """Writes a segment, and waits until the disk has it: after that it is whole, or under another name.

    Args:
        folder: that does not exist.
        windows: (N,) of `WINDOW`, by rising id.
        vectors: by embedding the windows that have it, rising (M,), and their vectors (M, D).

    Returns:
        the bytes of its files, by name.

    Raises:
        OSError: if it cannot be written, as on a full disk.
    """
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True)
    _save(partial / "windows.npy", windows)
    for name, (rows, values) in vectors.items():
        if len(rows):
            _save(partial / f"{name}.rows.npy", np.asarray(rows, np.int64))
            Vectors.write(partial / f"{name}.faiss", values)
    sizes = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
    sync(partial)
    partial.rename(folder)
    sync(folder.parent)
    return sizes


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.save(stream, array)
        stream.flush()
        os.fsync(stream.fileno())
