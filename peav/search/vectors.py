"""Flat fp16 vectors on disk and their exact search by inner product: faiss, memory-mapped.

No graph is built on raw inner products: for most vectors of spread norms some other vector has a greater product with them than they
have with themselves, and a graph leads there and nowhere else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from peav.lazy import import_extra

#: Greatest number that fp16 holds.
_LARGEST = 65504.0


def import_faiss() -> Any:
    """Returns faiss.

    Raises:
        ImportError: if it is not installed, with what to install.
    """
    return import_extra("faiss", "search", "search")


def fits_half(vectors: np.ndarray) -> bool:
    """Returns whether vectors are finite and small enough for fp16."""
    return bool(np.isfinite(vectors).all() and (np.abs(vectors) <= _LARGEST).all())


class Vectors:
    """N vectors (D,) in fp16, immutable, memory-mapped from a file of faiss.

    Args:
        path: that :meth:`write` wrote.

    Raises:
        RuntimeError: if it is no such file.
    """

    def __init__(self, path: Path) -> None:
        faiss = import_faiss()
        self._faiss = faiss
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        if not isinstance(index, faiss.IndexScalarQuantizer) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise RuntimeError(f"{path} holds {type(index).__name__}, not flat fp16 vectors under the inner product")
        self._index = index

    @staticmethod
    def write(path: Path, vectors: np.ndarray) -> None:
        """Writes vectors (N, D) float32 or float16, and waits until the disk has them.

        Raises:
            ValueError: if one is not finite, or too large for fp16.
            OSError: if they cannot be written, as on a full disk.
        """
        faiss = import_faiss()
        if not fits_half(vectors):
            raise ValueError(f"vectors must be finite and at most {_LARGEST:g} in size, to be held in fp16")
        index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        index.add(np.ascontiguousarray(vectors, np.float32))
        with path.open("wb") as stream:
            stream.write(faiss.serialize_index(index).data)
            stream.flush()
            os.fsync(stream.fileno())

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """D."""
        return int(self._index.d)

    def search(self, query: np.ndarray, count: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Finds the greatest inner products, exactly.

        Args:
            query: (D,).
            count: how many at most.
            allowed: (N,) bool, which rows may be found; None for all.

        Returns:
            scores (K,) float32, falling, and rows (K,) int64; which of equal scores at the end come in is not said.
        """
        count = min(count, len(self) if allowed is None else int(allowed.sum()))
        if not count:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        arguments = {}
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            arguments["params"] = self._faiss.SearchParameters(sel=self._faiss.IDSelectorBitmap(bits))
        scores, rows = self._index.search(np.ascontiguousarray(query[None], np.float32), count, **arguments)
        found = rows[0] >= 0
        return scores[0][found], rows[0][found]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Returns vectors (K, D) float32 by their rows."""
        if not len(rows):
            return np.zeros((0, self.dim), np.float32)
        return np.asarray(self._index.reconstruct_batch(np.ascontiguousarray(rows, np.int64)))
