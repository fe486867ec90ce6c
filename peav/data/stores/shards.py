"""Writing LitData shards: the bytes of the clips in order, each sample with its checksum, chunk by chunk, so that a killed run goes on.

LitData has no checksum, and reads flipped bytes silently. Captions are not in the shards: they can be rewritten without repacking.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from litdata.streaming.writer import BinaryWriter

from peav.atomic import replacing, sync
from peav.data.stores.reader import ShardReader
from peav.data.stores.samples import ROLES, Sample, ShardError, join_own

#: Size at which a chunk is closed, in bytes.
CHUNK_BYTES = 64 << 20


class ShardWriter:
    """Writes samples of one split in order: the n-th sample added is row n. The same samples give the same bytes.

    LitData's own `optimize` starts processes for seconds and reports success when one of them is killed. Packing only copies
    bytes: one process is enough.

    Args:
        folder: where the chunks go.
        chunk_bytes: size at which a chunk is closed, bytes.
        chunks: what an earlier run wrote, as `chunks` had it; all else in the folder is deleted.
        config: what it had as `config`.
        own: whether samples may have fields of one's own kind; shards without are as before there were any.

    Attributes:
        rows: samples that were added, earlier runs included.

    Raises:
        ShardError: if a chunk of an earlier run was changed.
    """

    def __init__(
        self,
        folder: Path,
        chunk_bytes: int = CHUNK_BYTES,
        chunks: Sequence[dict[str, Any]] = (),
        config: Mapping[str, Any] | None = None,
        own: bool = False,
    ) -> None:
        self.folder, self.own = folder, own
        folder.mkdir(parents=True, exist_ok=True)
        kept = {info["filename"] for info in chunks}
        for path in folder.iterdir():
            if path.name not in kept:
                path.unlink()
        for info in chunks:
            path = folder / info["filename"]
            if not path.is_file() or path.stat().st_size != info["chunk_bytes"]:
                raise ShardError(
                    f"{path} was changed or deleted since an earlier run wrote it; prepare with --overwrite true"
                )
        self.rows = sum(info["chunk_size"] for info in chunks)
        self._writer = BinaryWriter(str(folder), chunk_bytes=chunk_bytes, chunk_index=len(chunks))
        self._writer._chunks_info = list(chunks)
        if config:
            self._writer._checkpoint_config = dict(config)

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """What LitData's index says about each chunk that is on disk for good."""
        return self._writer._chunks_info

    @property
    def config(self) -> dict[str, Any]:
        """What LitData's index says about all chunks."""
        return self._writer.get_config()

    def add(self, sample: Sample) -> bool:
        """Appends a sample; returns whether that closed a chunk, which then is on the disk. The sample itself is not in it yet.

        Raises:
            OSError: if the disk is full.
            ValueError: if it has fields of one's own kind, and these shards have none.
        """
        if sample.own and not self.own:
            raise ValueError(f"clip {sample.id!r} has fields of your own, but these shards were begun without any")
        # A tuple, which stores.py reads: dictionaries LitData stores in another format where pyarrow happens to be installed.
        own = (join_own(sample.own),) if self.own else ()
        fields = (sample.id, *(getattr(sample, role) for role in ROLES), *own, sample.crc32)
        with _large_items():
            written = self._writer.add_item(self.rows, fields)
        if written is not None:
            self._sync(written)
        self.rows += 1
        return written is not None

    def flush(self) -> None:
        """Writes what is left as a last chunk.

        Raises:
            OSError: if the disk is full.
        """
        with _large_items():
            chunks = self._writer.done()
        for written in chunks:
            self._sync(written)
        (self.folder / f"{self._writer.rank}.index.json").unlink(missing_ok=True)

    def close(self) -> None:
        """Writes what is left, and LitData's index: without its time stamp, so that equal data have equal bytes.

        Raises:
            OSError: if the disk is full.
        """
        self.flush()
        write_json(self.folder / "index.json", {"chunks": self.chunks, "config": self.config})

    def _sync(self, path: str) -> None:
        sync(Path(path))
        sync(self.folder)


@contextmanager
def _large_items() -> Iterator[None]:
    """Keeps LitData from warning that a clip is larger than a chunk, as it may well be."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "An item was larger than the target chunk size")
        yield


def verify_shards(
    folder: Path,
    clips: Iterable[tuple[int, str] | tuple[int, str, int]],
    count: int,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Reads all rows back and compares their number, ids and checksums.

    Args:
        folder: of the shards.
        clips: row, id and, where it is known, checksum of each sample.
        count: how many there must be.
        advance: is called after each.

    Raises:
        ShardError: on the first difference.
    """
    reader = ShardReader(folder)
    if len(reader) != count:
        raise ShardError(f"{folder} holds {len(reader)} samples, {count} were written; prepare again")
    seen = 0
    for row, clip_id, *crc32 in clips:
        reader.read(row, clip_id, crc32[0] if crc32 else None)
        seen += 1
        advance()
    if seen != count:
        raise ShardError(f"the manifest of {folder} names {seen} clips, {count} were written; prepare again")


def write_json(path: Path, data: Any) -> None:
    """Writes a JSON file, all of it or nothing; equal data give equal bytes."""
    with replacing(path, durable=True) as partial:
        partial.write_text(json.dumps(data, sort_keys=True, ensure_ascii=False), encoding="utf-8")
