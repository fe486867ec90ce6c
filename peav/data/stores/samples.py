"""A packed clip, and its checksum: what shards hold."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

#: The parts of a sample that hold media; a clip has `media`, or `audio` and/or `video`, and the others are empty.
ROLES = ("media", "audio", "video")


class ShardError(RuntimeError):
    """Shards that are damaged, incomplete or do not belong to their manifest."""


@dataclass(frozen=True)
class Sample:
    """A packed clip: its id, and its media by role, b"" where a role is absent."""

    id: str
    media: bytes = b""
    audio: bytes = b""
    video: bytes = b""

    @cached_property
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
