"""Tars of strangers, read as a stream: what is refused, and errors that are those of a damaged tar, apart from those of writing."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath

#: Bytes that are read at once.
CHUNK_BYTES = 2**20

#: Names of members are no longer.
_MAX_HEADER_BYTES = 2**20


class GuardedFile(io.FileIO):
    """A file whose errors are those of a damaged tar, apart from those of writing."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads bytes.

        Raises:
            tarfile.ReadError: if they cannot be read.
        """
        try:
            return super().read(size) or b""
        except OSError as error:
            raise tarfile.ReadError(str(error)) from error


class GuardedMember(tarfile.TarInfo):
    """A member whose headers are of bounded size: names and extended headers are read into memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type not in tarfile.SUPPORTED_TYPES or (
            self.type not in tarfile.REGULAR_TYPES and self.size > _MAX_HEADER_BYTES
        ):
            raise tarfile.ReadError(f"a header of type {self.type!r} and {self.size:,} bytes")
        proceed: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]  # no stub knows it
        return proceed


def member_chunks(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    """Yields the bytes of a member, in pieces."""
    stream = archive.extractfile(member)
    while stream is not None and (chunk := stream.read(CHUNK_BYTES)):
        yield chunk


def refusal(member: tarfile.TarInfo) -> str | None:
    """Says why a member is not unpacked; None where it is."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        return "leads out of the archive"
    if "\\" in member.name or "\0" in member.name:
        return "has a backslash or a NUL in its name"
    if not member.isreg():
        return "is a link or a device, not a file"
    if member.issparse():
        return "has holes, which would be unpacked to more than the archive holds"
    return None
