"""The index of LitData shards, and how their rows become fields again: texts, bytes and numbers, and nothing that runs.

LitData's own formats include pickles, pictures and whatever a library registers, chosen by the index that lies beside the shards. What
`peav prepare` writes needs four of them, and they are read here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.data.stores.samples import ShardError
from peav.opening import OutsideError, check_name, read_json

#: The largest index that is read, in bytes: it lists half a million chunks, some 30 TB.
MAX_INDEX_BYTES = 64 << 20

#: A chunk addresses its rows by 32 bits.
MAX_CHUNK_BYTES = 1 << 32

#: Fields of a row; media have five, or six with fields of one's own; features seven.
_MAX_FIELDS = 64


def _number(code: str) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        return struct.unpack(code, data)[0]

    return read


#: LitData's names of what a row may hold.
FORMATS: Mapping[str, Callable[[bytes], Any]] = {
    "str": lambda data: data.decode("utf-8"),
    "bytes": bytes,
    "int": _number("<q"),
    "float": _number("<d"),
}

#: Settings of LitData that change how chunks are read, which `peav prepare` leaves alone.
_UNSET = ("compression", "compression_batch_size", "compression_level", "encryption", "ipc_compression", "format")


@dataclass(frozen=True)
class ShardIndex:
    """What an index says.

    Attributes:
        chunks: file name and bytes of each chunk.
        first_rows: (chunks + 1,) the first row of each chunk, and the number of rows.
        formats: of the fields of a row, in order.
    """

    chunks: tuple[tuple[str, int], ...]
    first_rows: NDArray[np.int64]
    formats: tuple[str, ...]

    def decode(self, row: bytes) -> tuple[Any, ...]:
        """Returns the fields of a row.

        Raises:
            ValueError: if they do not fill it, or are not of their format.
        """
        head = 4 * len(self.formats)
        if len(row) < head:
            raise ValueError(f"a row of {len(row)} bytes cannot hold {len(self.formats)} fields")
        sizes = struct.unpack_from(f"<{len(self.formats)}I", row)
        if head + sum(sizes) != len(row):
            raise ValueError(f"the fields take {head + sum(sizes):,} bytes of {len(row):,}")
        fields = []
        for name, size in zip(self.formats, sizes, strict=True):
            try:
                fields.append(FORMATS[name](row[head : head + size]))
            except struct.error as error:
                raise ValueError(f"a field of type {name}: {error}") from None
            head += size
        return tuple(fields)


def read_shard_index(path: Path) -> ShardIndex:
    """Reads index.json as LitData writes it.

    Raises:
        ShardError: if it is damaged, too large, or asks for what peav does not write: another format, compression, encryption, or chunks
            that lie elsewhere.
    """
    try:
        index = read_json(path, MAX_INDEX_BYTES)
        config, listed = index["config"], index["chunks"]
        formats = tuple(config["data_format"])
        _check_config(config, formats, path)
        chunks = tuple(_check_chunk(info, len(formats)) for info in listed)
        rows = [int(info["chunk_size"]) for info in listed]
    except OutsideError as error:
        raise ShardError(f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ShardError(f"{path} is damaged ({type(error).__name__}: {error}); prepare the data again") from None
    return ShardIndex(chunks, np.cumsum([0, *rows], dtype=np.int64), formats)


def _check_config(config: Mapping[str, Any], formats: tuple[Any, ...], path: Path) -> None:
    other = [name for name in formats if name not in FORMATS]
    if other or not 0 < len(formats) <= _MAX_FIELDS:
        raise ShardError(
            f"{path} says that rows hold {', '.join(map(repr, other[:3])) or f'{len(formats)} fields'}: peav reads {', '.join(FORMATS)} "
            "alone, for others may run code when they are read; prepare the data again"
        )
    if (loader := config.get("item_loader")) not in (None, "PyTreeLoader"):
        raise ShardError(f"{path} names the loader {loader!r:.60}: peav reads what PyTreeLoader wrote")
    for name in _UNSET:
        if config.get(name) is not None:
            raise ShardError(
                f"{path} has {name}={config[name]!r:.60}, which peav does not read: prepare the data again"
            )


def _check_chunk(info: Mapping[str, Any], num_fields: int) -> tuple[str, int]:
    name, size, rows = check_name(info["filename"], "a chunk"), info["chunk_bytes"], info["chunk_size"]
    if type(size) is not int or type(rows) is not int or not 0 <= size < MAX_CHUNK_BYTES:
        raise ValueError(f"chunk {name} has {size!r} bytes and {rows!r} rows")
    # A uint32 count, count + 1 uint32 offsets, and the rows, each of which says how long its fields are.
    if not 0 <= rows * (4 + 4 * num_fields) <= size:
        raise ValueError(f"chunk {name} cannot hold {rows:,} rows in {size:,} bytes")
    return name, size
