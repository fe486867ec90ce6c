"""Reading shards, on disk or in an object store: samples by row, each checked against its checksum.

LitData's own random access asks an object store twice for every item and keeps nothing. Here the chunk that holds a row is fetched
whole, by LitData's downloaders, into a folder of bounded size that all processes of a machine share; plans that go through the
data chunk by chunk (`window_chunks`) make each chunk travel once an epoch.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.data.stores.remote import ChunkCache, StoreError, StoreOptions, is_remote
from peav.data.stores.samples import ROLES, Sample, ShardError, split_own
from peav.data.stores.shard_index import ShardIndex, read_shard_index
from peav.opening import is_regular, leads_out

_log = logging.getLogger(__name__)


class SampleError(ShardError):
    """One sample that is damaged; the others may be whole."""


class ShardReader:
    """Reads samples by row. Opened at the first read, and again after a fork, so that it can be handed to workers.

    Args:
        address: a folder, or the address of an object store.
        options: of object stores.
    """

    def __init__(self, address: str | Path, options: StoreOptions | None = None) -> None:
        self.address = str(address)
        self.options = options or StoreOptions()
        self.cache = ChunkCache(self.address, self.options) if is_remote(address) else None
        self._index: ShardIndex | None = None
        self._checked: set[int] = set()
        self._refreshed = False
        self._fetched_again: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}

    def __len__(self) -> int:
        return int(self.first_rows[-1])

    @property
    def first_rows(self) -> NDArray[np.int64]:
        """(chunks + 1,) the first row of each chunk, and the number of rows.

        Raises:
            ShardError: if there are no shards, or their index is damaged.
        """
        return self._open().first_rows

    def chunk_name(self, chunk: int) -> tuple[str, int]:
        """Returns the file name of a chunk and its bytes."""
        return self._open().chunks[chunk]

    def prefetch(self, chunk: int) -> None:
        """Fetches a chunk of an object store ahead of its use; nothing on disk.

        Raises:
            StoreError: if it cannot be fetched.
        """
        if self.cache is not None:
            self.cache.fetch(*self.chunk_name(chunk))

    def read(self, row: int, clip_id: str | None = None, crc32: int | None = None, name: str | None = None) -> Sample:
        """Returns the sample of a row. Where the copy of an object store's chunk is at fault, it is fetched again, once.

        Args:
            row: index into the shards.
            clip_id: the id that was packed there, or
            crc32: the checksum that the manifest has, which tells it as well.
            name: how errors call the clip; by its id by default.

        Raises:
            SampleError: if the bytes do not match their checksum, or cannot be read.
            ShardError: if the row belongs to another clip or has another checksum than the manifest, or does not exist.
            StoreError: if the store cannot be reached.
        """
        try:
            return self._read(row, clip_id, crc32, name or clip_id)
        except ShardError:
            # Damaged, or of shards that were packed anew since.
            if not self.fetch_again(row):
                raise
            return self._read(row, clip_id, crc32, name or clip_id)

    def fetch_again(self, row: int) -> bool:
        """Fetches the chunk of a row anew, if it lies in an object store and that was not done before; returns whether it was.

        Raises:
            StoreError: if it cannot be fetched.
        """
        if self.cache is None or not 0 <= row < len(self):
            return False
        chunk = self._chunk_of(row)
        if chunk in self._fetched_again:
            return False
        self._fetched_again.add(chunk)
        _log.warning("%s: the copy of chunk %s is damaged or old, it is fetched again", self.address, chunk)
        self.cache.fetch(*self.chunk_name(chunk), again=True)
        return True

    def _chunk_of(self, row: int) -> int:
        return int(np.searchsorted(self.first_rows, row, side="right")) - 1

    def _read(self, row: int, clip_id: str | None, crc32: int | None, name: str | None) -> Sample:
        name = f"clip {name!r}, row {row} of {self.address}"
        fields = self.read_fields(row, name)
        try:
            clip, *media, packed = fields
            media, own = media[: len(ROLES)], media[len(ROLES) :]  # shards without fields of one's own have none at all
            held = dict(zip(ROLES, map(bytes, media), strict=True))
            sample = Sample(str(clip), **held, own=split_own(bytes(*own)))
            whole = sample.crc32 == int(packed)
        except (TypeError, ValueError) as error:
            raise SampleError(
                f"{name}: cannot be read ({type(error).__name__}: {error}); prepare the data again"
            ) from None
        if not whole:
            raise SampleError(
                f"{name}: the bytes do not match their checksum, the chunk is damaged; prepare the data again or copy it afresh"
            )
        if clip_id is not None and sample.id != clip_id:
            raise ShardError(
                f"{name}: the shards have {sample.id!r} there; manifest and shards come from different runs of `peav prepare`"
            )
        if crc32 is not None and sample.crc32 != crc32:
            raise ShardError(
                f"{name}: manifest and shards have different checksums (the shards have {sample.id!r} there); they come from different "
                "runs of `peav prepare`"
            )
        return sample

    def read_fields(self, row: int, name: str) -> Sequence[Any]:
        """Returns the fields of a row in the order in which they were written, unchecked.

        Args:
            row: index into the shards.
            name: how errors call it.

        Raises:
            SampleError: if they cannot be read.
            ShardError: if there is no such row.
            StoreError: if the store cannot be reached.
        """
        if not 0 <= row < len(self):
            raise ShardError(f"{name}: the shards hold {len(self)} rows; manifest and shards do not belong together")
        chunk = self._chunk_of(row)
        try:
            return self._open().decode(self._item(chunk, row - int(self.first_rows[chunk])))
        except (OSError, ValueError, struct.error) as error:
            raise SampleError(
                f"{name}: cannot be read ({type(error).__name__}: {error}); prepare the data again"
            ) from error

    def _item(self, chunk: int, index: int) -> bytes:
        # A chunk is a uint32 count, count + 1 uint32 offsets, and the items.
        for _ in range(100):
            try:
                with self._chunk_path(chunk).open("rb") as stream:
                    held = os.fstat(stream.fileno()).st_size
                    stream.seek(4 * (1 + index))
                    begin, end = struct.unpack("<II", stream.read(8))
                    stream.seek(begin)
                    data = stream.read(end - begin) if begin <= end <= held else b""
                break
            except FileNotFoundError:
                if self.cache is None:
                    raise
                # Deleted by another process to make room, between our fetching and our opening it.
        else:
            raise StoreError(
                f"{self.address}: chunks are deleted before they are read; give the cache more than "
                f"{self.cache.options.cache_gigabytes:g} GB"  # type: ignore[union-attr]
            )
        if begin > end or len(data) != end - begin:
            raise ValueError(f"the chunk ends early: {len(data):,} bytes of {end - begin:,}")
        return data

    def _chunk_path(self, chunk: int) -> Path:
        name, size = self.chunk_name(chunk)
        if self.cache is not None:
            return self.cache.fetch(name, size)
        path = Path(self.address) / name
        if chunk not in self._checked:
            self._check_own(path)
            self._checked.add(chunk)
        return path

    def _check_own(self, path: Path) -> None:
        """Refuses a link out of the store, and what is no plain file.

        Raises:
            ShardError: if it is one.
        """
        if path.exists() and not is_regular(path):
            raise ShardError(f"{path} is no plain file: it is not read")
        if not self.options.trust and leads_out(path, Path(self.address)):
            raise ShardError(
                f"{path} is a link out of its folder, to {path.resolve()}: it is not followed; put the file itself there, or, if you know "
                "where the data come from, set data.store.trust=true"
            )

    def _open(self) -> ShardIndex:
        if self._index is None:
            if self.cache is not None:
                # Once, in the process that was here first: the workers that it forks take its word.
                path = self.cache.fetch("index.json") if self._refreshed else self.cache.refresh("index.json")
                self._refreshed = True
            else:
                path = Path(self.address) / "index.json"
                if not path.is_file():
                    raise ShardError(_no_shards(self.address))
                self._check_own(path)
            self._index = read_shard_index(path)
        return self._index


def _no_shards(address: str) -> str:
    if Path(address).is_absolute() and not Path(address).exists():
        return (
            f"no folder {address}: manifests made by `peav data split` and `mix` name shards by their full path; if they were moved, "
            "move them back, put a link there, or make the manifest anew"
        )
    return f"no shards in {address}: run `peav prepare` to make them"


class Prefetcher:
    """Fetches chunks in the order in which a plan needs them, in a thread, a bounded way ahead of the batches.

    Args:
        needs: for each batch, the (reader, chunk) pairs that it is the first to need.
        ahead: batches by which to be ahead.
    """

    def __init__(self, needs: Iterable[list[tuple[ShardReader, int]]], ahead: int) -> None:
        self._needs = needs
        self._allowed = threading.Semaphore(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="peav-prefetch", daemon=True)
        self._thread.start()

    def advance(self) -> None:
        """Says that a batch was handed out."""
        self._allowed.release()

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._allowed.release()
        self._thread.join()

    def _run(self) -> None:
        for pairs in self._needs:
            self._allowed.acquire()
            for reader, chunk in pairs:
                if self._stop.is_set():
                    return
                try:
                    reader.prefetch(chunk)
                except (StoreError, ShardError, OSError) as error:
                    # The worker that needs it asks again, and fails where it can be reported.
                    _log.warning("not fetched ahead: %s", error)


def number_chunks(
    readers: Sequence[ShardReader], store: NDArray[np.uint16], row: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Returns the chunk (N,) that holds each clip, numbered over all stores.

    Args:
        readers: the stores.
        store: (N,) which of them holds each clip.
        row: (N,) its row there.

    Raises:
        ShardError: if a row does not exist.
    """
    chunk = np.zeros(len(row), np.int32)
    base = 0
    for number, reader in enumerate(readers):
        held = store == number
        found = np.searchsorted(reader.first_rows, row[held], side="right") - 1
        if (row[held] >= len(reader)).any():
            raise ShardError(f"{reader.address} holds {len(reader)} rows, but the manifest names further ones")
        chunk[held] = base + found
        base += len(reader.first_rows) - 1
    return chunk
