"""LitData shards: the bytes of the clips, by row, each sample with its checksum.

LitData has none of its own, and reads flipped bytes silently. Captions are not in the shards: they can be rewritten without
repacking.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litdata import StreamingDataset
from litdata.streaming.writer import BinaryWriter

#: The parts of a sample that hold media; a clip has `media`, or `audio` and/or `video`, and the others are empty.
ROLES = ("media", "audio", "video")

#: Size at which a chunk is closed, in bytes.
CHUNK_BYTES = 64 << 20


class ShardError(RuntimeError):
    """Shards that are damaged, incomplete or do not belong to their manifest."""


@dataclass(frozen=True)
class Sample:
    """A packed clip: its id, and its media by role, b"" where a role is absent."""

    id: str
    media: bytes = b""
    audio: bytes = b""
    video: bytes = b""

    @property
    def crc32(self) -> int:
        """Checksum of the id and all media.

        >>> Sample("a", audio=b"x").crc32 == Sample("a", video=b"x").crc32
        False
        """
        crc = zlib.crc32(self.id.encode())
        for role in ROLES:
            data = getattr(self, role)
            crc = zlib.crc32(data, zlib.crc32(len(data).to_bytes(8, "little"), crc))
        return crc

    def source(self, kind: str) -> bytes:
        """Returns the bytes that hold `audio` or `video`."""
        return getattr(self, kind) or self.media


class ShardWriter:
    """Writes samples of one split in order: the n-th sample added is row n.

    LitData's own `optimize` starts processes for seconds and reports success when one of them is killed. Packing only copies
    bytes: one process is enough.
    """

    def __init__(self, folder: Path, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.folder = folder
        self.rows = 0
        self._writer = BinaryWriter(str(folder), chunk_bytes=chunk_bytes)

    def add(self, sample: Sample) -> int:
        """Appends a sample and returns its row."""
        fields = {"id": sample.id, **{role: getattr(sample, role) for role in ROLES}, "crc32": sample.crc32}
        self._writer[self.rows] = fields
        self.rows += 1
        return self.rows - 1

    def close(self) -> None:
        """Finishes the shards."""
        self._writer.done()
        self._writer.merge(1)


class ShardReader:
    """Reads samples by row. Opened at the first read, and again after a fork, so that it can be handed to workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._dataset: StreamingDataset | None = None
        self._pid = -1

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_dataset": None, "_pid": -1}

    def __len__(self) -> int:
        return len(self._open())

    def read(self, row: int, clip_id: str | None = None) -> Sample:
        """Returns the sample of a row.

        Args:
            row: index into the shards.
            clip_id: the id that the manifest has for this row.

        Raises:
            ShardError: if the bytes do not match their checksum, or the row belongs to another clip.
        """
        name = f"clip {clip_id!r}, row {row} of {self.folder}"
        dataset = self._open()
        try:
            fields: Mapping[str, Any] = dataset[row]
            sample = Sample(str(fields["id"]), **{role: bytes(fields[role]) for role in ROLES})
            crc32 = int(fields["crc32"])
        except Exception as error:  # whatever LitData raises on damaged chunks
            raise ShardError(
                f"{name}: cannot be read ({type(error).__name__}: {error}); prepare the data again"
            ) from error
        if sample.crc32 != crc32:
            raise ShardError(
                f"{name}: the bytes do not match their checksum, the chunk is damaged; prepare the data again or copy it afresh"
            )
        if clip_id is not None and sample.id != clip_id:
            raise ShardError(
                f"{name}: the shards have {sample.id!r} there; manifest and shards come from different runs of `peav prepare`"
            )
        return sample

    def _open(self) -> StreamingDataset:
        if self._dataset is None or self._pid != os.getpid():
            if not (self.folder / "index.json").is_file():
                raise ShardError(f"no shards in {self.folder}: run `peav prepare` to make them")
            self._dataset, self._pid = StreamingDataset(str(self.folder)), os.getpid()
        return self._dataset


def verify_shards(folder: Path, ids: list[str]) -> None:
    """Reads all rows back and compares ids and checksums.

    Raises:
        ShardError: on the first difference.
    """
    reader = ShardReader(folder)
    if len(reader) != len(ids):
        raise ShardError(f"{folder} holds {len(reader)} samples, {len(ids)} were written; the disk may be full")
    for row, clip_id in enumerate(ids):
        reader.read(row, clip_id)
