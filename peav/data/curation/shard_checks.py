"""Compares the clips of manifests with the shards that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from peav.data.curation.clip_table import ClipTable
from peav.data.manifests.identities import ABSENT, bytes_group
from peav.data.stores.reader import ShardReader
from peav.data.stores.remote import StoreError
from peav.data.stores.samples import ShardError


def check_rows(
    table: ClipTable, store: int, reader: ShardReader, check_bytes: bool, advance: Callable[[], None]
) -> Iterator[tuple[int | None, str, str, str]]:
    """Compares the clips of a store with its shards.

    Args:
        table: of the clips.
        store: which of `table.stores`.
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
    mine = np.flatnonzero(table.column("store") == store)
    row = table.column("row")[mine]
    order = np.lexsort((mine, row))
    mine, row = mine[order], row[order]
    inside = (row >= 0) & (row < rows)
    for position in mine[~inside].tolist():
        yield (
            position,
            "error",
            "row",
            f"row {table.column('row')[position]} does not exist: {reader.address} holds {rows} rows",
        )
    mine, row = mine[inside], row[inside]
    unnamed = rows - len(np.unique(row))
    if unnamed:
        yield None, "note", "unnamed", f"no clip names {unnamed} of the {rows} rows of {reader.address}"
    if check_bytes:
        yield from _check_media(table, mine.tolist(), reader, advance)


def _check_media(
    table: ClipTable, positions: list[int], reader: ShardReader, advance: Callable[[], None]
) -> Iterator[tuple[int | None, str, str, str]]:
    rows, crcs, packed, partial = (table.column(name) for name in ("row", "crc32", "packed", "partial"))
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
                group = int(table.column(kind)[position])
                if group not in (ABSENT, last[3].get(kind)):
                    yield (
                        position,
                        "error",
                        "bytes",
                        f"row {row} of {reader.address} holds other {kind} than {kind}_group says",
                    )
        advance()
