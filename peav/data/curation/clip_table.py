"""The clips of several manifests in columns, so that millions can be compared with each other and with their shards."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import bytes_group

#: The columns of 8 bytes a clip.
_COLUMNS = ("id", "packed", "row", "crc32", "span", "line", "begin", "audio", "video")


class ClipTable:
    """The clips of several splits as columns: their ids, rows, checksums and lines; 75 bytes a clip."""

    def __init__(self) -> None:
        self.stores: dict[str, int] = {}
        self.splits: dict[str, int] = {}
        self._columns = {name: array("q") for name in _COLUMNS}
        self._store, self._split, self._partial = array("H"), array("B"), array("B")

    def __len__(self) -> int:
        return len(self._store)

    def add(self, clip: Clip, split: str, line: int, begin: int) -> None:
        """Adds the clip of a line, counted from 1, that begins at a byte."""
        span = f"{clip.media_start:.6f}/{clip.media_duration:.6f}/{clip.crc32}"
        values = {
            "id": bytes_group(clip.id.encode()),
            "packed": bytes_group(clip.packed_id.encode()),
            "row": clip.row,
            "crc32": clip.crc32,
            "span": bytes_group(span.encode()),
            "line": line,
            "begin": begin,
            "audio": clip.group("audio"),
            "video": clip.group("video"),
        }
        for name, value in values.items():
            self._columns[name].append(value)
        self._store.append(self.stores.setdefault(clip.store, len(self.stores)))
        self._split.append(self.splits.setdefault(split, len(self.splits)))
        self._partial.append(clip.is_part)

    def column(self, name: str) -> NDArray[np.int64]:
        """Returns (N,) a column."""
        small = {"store": self._store, "split": self._split, "partial": self._partial}
        if name in small:
            return np.array(small[name], dtype=np.int64)
        return np.frombuffer(self._columns[name], np.int64) if len(self) else np.zeros(0, np.int64)

    def split_of(self, position: int) -> str:
        """Returns the split of a clip."""
        return list(self.splits)[self._split[position]]

    def line_of(self, position: int) -> tuple[int, int]:
        """Returns the line of a clip, from 1, and the byte at which it begins."""
        return self._columns["line"][position], self._columns["begin"][position]
