"""Which rows of which shards the clips of some manifests claim, in columns, and what is wrong with that."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import ABSENT, bytes_group
from peav.data.manifests.records import SPLITS
from peav.data.stores.reader import ShardReader
from peav.data.stores.remote import StoreError
from peav.data.stores.samples import ShardError

#: The columns of 8 bytes a clip.
_COLUMNS = ("id", "packed", "row", "crc32", "span", "line", "begin", "audio", "video")


class Claims:
    """What the clips of several splits say of their rows: 75 bytes a clip."""

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


def repeated_ids(claims: Claims) -> Iterator[tuple[int, int]]:
    """Yields (position, first position) of clips whose id another clip of their split has before them."""
    split, ids = claims.column("split"), claims.column("id")
    order = np.lexsort((np.arange(len(ids)), ids, split))
    yield from _followers(order, (ids[order], split[order]))


def conflicting_rows(claims: Claims) -> Iterator[tuple[int, int, str]]:
    """Yields (position, first position, why) of clips that claim the row of another, and cannot both be right.

    Clips that are parts of one row are right; so is a clip that stands in two splits, which is another fault.
    """
    store, row, span = (claims.column(name) for name in ("store", "row", "span"))
    order = np.lexsort((np.arange(len(row)), row, store))
    for position, first in _followers(order, (row[order], store[order])):
        if span[position] != span[first]:
            yield position, first, "with other media"
    packed = claims.column("packed")
    whole = order[claims.column("partial")[order] == 0]
    for position, first in _followers(whole, (row[whole], store[whole])):
        if packed[position] != packed[first] and span[position] == span[first]:
            yield position, first, "and neither of them is a part of the media"


class SharedMedia:
    """Which sounds and pictures splits have in common: 16 bytes a clip."""

    def __init__(self) -> None:
        self._groups = {(medium, split): array("q") for medium in ("audio", "video") for split in SPLITS}

    def add(self, clip: Clip, split: str) -> None:
        """Adds a clip of a split."""
        for medium in ("audio", "video"):
            if (group := clip.group(medium)) != ABSENT:
                self._groups[medium, split].append(group)

    def sentences(self) -> list[str]:
        """Returns a sentence for each medium and two splits that share some."""
        lines = []
        for medium, noun in (("audio", "sound"), ("video", "picture")):
            held = {split: np.array(self._groups[medium, split], np.int64) for split in SPLITS}
            for split, other in combinations(SPLITS, 2):
                if shared := int(np.isin(held[other], held[split]).sum()):
                    lines.append(f"{shared} clips of {other} have a {noun} that {split} has too")
        return lines


def check_rows(
    claims: Claims, store: int, reader: ShardReader, check_bytes: bool, advance: Callable[[], None]
) -> Iterator[tuple[int | None, str, str, str]]:
    """Compares the clips of a store with its shards.

    Args:
        claims: of the clips.
        store: which of `claims.stores`.
        reader: of it.
        check_bytes: read all the media and compare their checksums and ids.
        advance: is called after each clip whose media were read.

    Yields:
        Position of the clip or None, `error` or `note`, the kind of problem, and a sentence.

    Raises:
        ShardError: if there are no shards, or their index is damaged.
        StoreError: if they cannot be reached.
    """
    rows = len(reader)
    mine = np.flatnonzero(claims.column("store") == store)
    row = claims.column("row")[mine]
    order = np.lexsort((mine, row))
    mine, row = mine[order], row[order]
    inside = (row >= 0) & (row < rows)
    for position in mine[~inside].tolist():
        yield (
            position,
            "error",
            "row",
            f"row {claims.column('row')[position]} does not exist: {reader.address} holds {rows} rows",
        )
    mine, row = mine[inside], row[inside]
    unnamed = rows - len(np.unique(row))
    if unnamed:
        yield None, "note", "unnamed", f"no clip names {unnamed} of the {rows} rows of {reader.address}"
    if check_bytes:
        yield from _check_media(claims, mine.tolist(), reader, advance)


def _check_media(
    claims: Claims, positions: list[int], reader: ShardReader, advance: Callable[[], None]
) -> Iterator[tuple[int | None, str, str, str]]:
    rows, crcs, packed, partial = (claims.column(name) for name in ("row", "crc32", "packed", "partial"))
    last: tuple[int, int, str, dict[str, int]] | str = ""
    last_row = -1
    for position in positions:
        row = int(rows[position])
        if row != last_row:
            try:
                sample = reader.read(row)
                groups = {kind: bytes_group(data) for kind in ("audio", "video") if (data := sample.source(kind))}
                last = (sample.crc32, bytes_group(sample.id.encode()), sample.id, groups)
            except (ShardError, StoreError) as error:
                last = str(error).replace("clip None, row", "row")
            last_row = row
        if isinstance(last, str):
            yield position, "error", "bytes", last
        elif last[0] != crcs[position]:
            other = not partial[position] and last[1] != packed[position]
            what = f"holds another clip, {last[2]!r}" if other else "has another checksum than the manifest"
            yield position, "error", "bytes", f"row {row} of {reader.address} {what}"
        elif not partial[position]:
            for kind in ("audio", "video"):
                group = int(claims.column(kind)[position])
                if group not in (ABSENT, last[3].get(kind)):
                    yield (
                        position,
                        "error",
                        "bytes",
                        f"row {row} of {reader.address} holds other {kind} than {kind}_group says",
                    )
        advance()


def _followers(
    order: NDArray[np.int64], keys: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> Iterator[tuple[int, int]]:
    """Yields (position, first position) of those whose two keys, sorted, equal the ones before."""
    same = np.zeros(len(order), bool)
    same[1:] = (np.diff(keys[0]) == 0) & (np.diff(keys[1]) == 0)
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    for place in np.flatnonzero(same).tolist():
        yield int(order[place]), int(order[first[place]])
