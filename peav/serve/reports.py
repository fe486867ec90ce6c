"""Pages that `peav evaluate`, `peav caption` and `peav data inspect` wrote, to open them from one place."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path

from peav.opening import is_regular

#: They carry their pictures and sounds in themselves. They get no origin, so that nothing in them can ask this server for anything.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "media-src data:; font-src data:; frame-ancestors 'none'"
)

_DEPTH = 6
_MOST = 500
#: By this line, near their end, pages of peav are known.
_SIGNATURE = re.compile(rb"Written by (peav[\w. ]*?)\. This file needs no network")


@dataclass(frozen=True)
class Report:
    """A page that peav wrote.

    Attributes:
        id: its number in an address.
        path: the file.
        title: what it calls itself.
        place: where it lies, from the folder on that was named.
        writer: which part of peav wrote it.
        modified: when, seconds since 1970.
    """

    id: str
    path: Path
    title: str
    place: str
    writer: str
    modified: float


def find_reports(folders: Sequence[Path]) -> list[Report]:
    """Returns the pages of peav in folders, the newest first."""
    found = {}
    for folder in folders:
        for path in _pages(Path(os.path.realpath(folder))):
            report = _read(path, folder)
            if report is not None:
                found[report.id] = report
            if len(found) >= _MOST:
                break
    return sorted(found.values(), key=lambda report: -report.modified)


def _pages(folder: Path) -> Iterator[Path]:
    depth = len(folder.parts)
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(Path(place).parts) - depth >= _DEPTH:
            folders[:] = []
        for name in sorted(names):
            path = Path(place) / name
            if name.endswith(".html") and not path.is_symlink() and is_regular(path):
                yield path


def _read(path: Path, folder: Path) -> Report | None:
    try:
        with path.open("rb") as stream:
            head = stream.read(4096).decode(errors="replace")
            stream.seek(max(0, path.stat().st_size - 1000))
            signature = _SIGNATURE.search(stream.read())
        modified = path.stat().st_mtime
    except OSError:
        return None
    if signature is None:
        return None
    title = re.search(r"<title>(.*?)</title>", head, re.DOTALL)
    return Report(
        hashlib.sha256(str(path).encode(errors="surrogateescape")).hexdigest()[:16],
        path,
        unescape(title[1]).strip()[:200] if title else path.name,
        os.path.relpath(path, Path(os.path.realpath(folder)).parent).encode(errors="replace").decode(),
        signature[1].decode(),
        modified,
    )
