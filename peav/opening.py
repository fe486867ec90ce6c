"""Opening files that may come from elsewhere: names that stay in their folder, and JSON and lines of bounded size."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

#: The largest JSON file that is read: an index of 64 MiB lists half a million chunks.
MAX_JSON_BYTES = 64 << 20

#: The longest line of a manifest or a listing.
MAX_LINE_BYTES = 16 << 20

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


class OutsideError(ValueError):
    """A name that leads out of the folder in which it stands, or a file that is larger than what it is for."""


def check_name(name: object, what: str) -> str:
    r"""Returns the name of a file or folder that lies directly in the folder that names it.

    Raises:
        OutsideError: if it is no such name: it has a separator, says `..`, begins with a drive or a scheme, or holds NUL.

    >>> check_name("chunk-0-0.bin", "a chunk")
    'chunk-0-0.bin'
    >>> check_name("..\\x", "a chunk")
    Traceback (most recent call last):
    peav.opening.OutsideError: '..\\x' is no name of a chunk: it must be that of a file in the same folder, without separators
    """
    plain = isinstance(name, str) and name not in ("", ".", "..") and not any(mark in name for mark in "/\\\0:")
    if not plain or not str(name).isprintable():
        raise OutsideError(
            f"{name!r:.100} is no name of {what}: it must be that of a file in the same folder, without separators"
        )
    return str(name)


def check_relative(name: str, what: str) -> str:
    r"""Returns a path that stays in the folder it starts from, by its letters.

    Raises:
        OutsideError: if it is absolute, says `..`, begins with a drive or a scheme, or holds a backslash or NUL.

    >>> check_relative("shards/train", "a store")
    'shards/train'
    """
    parts = PurePosixPath(name).parts
    bad = not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or _SCHEME.match(name)
    if bad or name.startswith("~"):
        raise OutsideError(f"{name!r:.200} leads out of the folder that names it as {what}")
    return name


def leads_out(path: Path, folder: Path) -> bool:
    """Returns whether a path, its links followed, lies outside a folder; what the hub's cache keeps for a snapshot does not.

    A snapshot of the hub is a folder `snapshots/REVISION` of links to `blobs/` beside `snapshots`.
    """
    real, root = os.path.realpath(path), os.path.realpath(folder)
    roots = [root]
    for parent in Path(root).parents:
        if parent.name == "snapshots" and (parent.parent / "blobs").is_dir():
            roots.append(str(parent.parent / "blobs"))
    if Path(root).parent.name == "snapshots":
        roots.append(str(Path(root).parent.parent / "blobs"))
    return not any(real == inside or real.startswith(inside.rstrip(os.sep) + os.sep) for inside in roots)


def is_regular(path: Path) -> bool:
    """Returns whether a path, its links followed, is a plain file: no folder, pipe or device, from which reading may never end."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def read_small(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """Returns the bytes of a file that ought to be small.

    Raises:
        OutsideError: if it is larger than `limit`, or no plain file.
        OSError: if it cannot be read.
    """
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OutsideError(f"{path} is no plain file")
        if status.st_size > limit:
            raise OutsideError(f"{path} has {status.st_size:,} bytes; more than {limit:,} are refused")
        return stream.read(limit + 1)[:limit]


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> Any:
    """Reads a JSON file of bounded size.

    Raises:
        OutsideError: if it is too large or nested too deep.
        ValueError: if it is no JSON.
        OSError: if it cannot be read.
    """
    try:
        return json.loads(read_small(path, limit))
    except RecursionError:
        raise OutsideError(f"{path} is nested too deep") from None


def lines_of(stream: BinaryIO, limit: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    r"""Yields the lines of a file; one that is too long is cut short, which leaves no JSON, and ends the file.

    >>> import io
    >>> [line[:3] for line in lines_of(io.BytesIO(b"a\nbbbbbbbbbb\nc"), 5)]
    [b'a\n', b'bbb']
    """
    while line := stream.readline(limit + 1):
        yield line
        if len(line) > limit:
            return
