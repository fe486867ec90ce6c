"""A packed clip, and its checksum: what shards hold."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

#: The parts of a sample that hold media; a clip has `media`, or `audio` and/or `video`, and the others are empty.
ROLES = ("media", "audio", "video")


class ShardError(RuntimeError):
    """Shards that are damaged, incomplete or do not belong to their manifest."""


@dataclass(frozen=True)
class Sample:
    """A packed clip: its id, its media by role, b"" where a role is absent, and the bytes of fields of one's own kind by name."""

    id: str
    media: bytes = b""
    audio: bytes = b""
    video: bytes = b""
    own: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def crc32(self) -> int:
        """Checksum of the id, all media and all fields of one's own kind.

        >>> Sample("a", audio=b"x").crc32 == Sample("a", video=b"x").crc32
        False
        """
        crc = zlib.crc32(self.id.encode())
        for role in ROLES:
            data = getattr(self, role)
            crc = zlib.crc32(data, zlib.crc32(len(data).to_bytes(8, "little"), crc))
        return zlib.crc32(join_own(self.own), crc) if self.own else crc

    def source(self, kind: str) -> bytes:
        """Returns the bytes that hold `audio` or `video`."""
        return getattr(self, kind) or self.media


def join_own(own: Mapping[str, bytes]) -> bytes:
    """Returns the bytes of several fields as one piece: the names and sizes as JSON, how long that is before it, then the bytes.

    >>> split_own(join_own({"imu": b"12", "depth": b""}))
    {'depth': b'', 'imu': b'12'}
    """
    if not own:
        return b""
    names = sorted(own)
    head = json.dumps({name: len(own[name]) for name in names}).encode()
    return b"".join([len(head).to_bytes(4, "little"), head, *(own[name] for name in names)])


def split_own(data: bytes) -> dict[str, bytes]:
    """Undoes `join_own`.

    Raises:
        ValueError: if the bytes are not what it made.
    """
    if not data:
        return {}
    size = int.from_bytes(data[:4], "little")
    try:
        sizes = json.loads(data[4 : 4 + size])
    except RecursionError:
        raise ValueError("the names of its fields are nested") from None
    if not isinstance(sizes, dict) or not all(type(length) is int and length >= 0 for length in sizes.values()):
        raise ValueError("the names of its fields are damaged")
    own, place = {}, 4 + size
    for name, length in sizes.items():
        own[name], place = data[place : place + length], place + length
    if place != len(data):
        raise ValueError(f"its fields have {len(data):,} bytes, not {place:,}")
    return own
