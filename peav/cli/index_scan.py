"""What has changed in the folders of an index since it was last updated."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from peav.cli.media_files import SUFFIXES
from peav.data.manifests.records import Record, read_records
from peav.data.media.folders import extension_of, list_folder
from peav.data.readers import Folder
from peav.search.catalog import Catalog, FileEntry

_RECORDS = "clips.jsonl"
_TEXTS = (".json", ".txt")
_BYTES_AT_ONCE = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundFile:
    """A file that is there: the root in which it was found, its size in bytes, and when it was written, nanoseconds."""

    root: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Words:
    """What records say of a file."""

    domain: str = ""
    transcript: str = ""
    captions: str = ""


@dataclass
class Changes:
    """What there is to do.

    Attributes:
        pending: files to embed, by path.
        words: what records say of files, by path.
        updated: files that stay as they are, but for what is known of them: where they lie, when they were written, their words.
        moved: how many of these lie elsewhere.
        deleted: paths of files that are gone.
        gone_rejects: paths of files that could not be indexed, and are gone.
        unchanged: how many files are as they were.
        kept: files that are not there, and may come back: their folder is empty, missing or cannot be read.
        still_rejected: files that could not be indexed and have not changed.
    """

    pending: dict[str, FoundFile] = field(default_factory=dict)
    words: dict[str, Words] = field(default_factory=dict)
    updated: list[FileEntry] = field(default_factory=list)
    moved: int = 0
    deleted: list[str] = field(default_factory=list)
    gone_rejects: list[str] = field(default_factory=list)
    unchanged: int = 0
    kept: int = 0
    still_rejected: int = 0


@dataclass
class Scan:
    """What lies in roots.

    Attributes:
        files: by path, links resolved.
        unreadable: folders that cannot be listed.
        empty: roots that are not there, or hold no media.
        names: paths that no table can hold, for they are no UTF-8.
    """

    files: dict[str, FoundFile] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    empty: set[str] = field(default_factory=set)
    names: int = 0


def scan(roots: Iterable[str], but: Path) -> Scan:
    """Lists the media of files and folders; what cannot be listed is noted, and nothing is raised.

    Args:
        roots: absolute, links resolved.
        but: a folder to leave out, that of the index.
    """
    found = Scan()
    out = os.path.join(os.path.realpath(but), "")
    for root in roots:
        if os.path.isdir(root):
            listing = list_folder(root)
            found.unreadable += [os.path.realpath(folder) for folder in listing.unreadable]
            paths = [os.path.join(root, name) for name in listing.files if extension_of(name) in SUFFIXES]
        else:
            paths = [root]
        held = False
        for path in paths:
            real = os.path.realpath(path)
            try:
                stat = os.stat(real)
            except OSError:  # a link that leads nowhere, or a file that has just gone
                continue
            held = True
            if real.startswith(out):
                continue
            try:
                real.encode()
            except UnicodeEncodeError:
                found.names += 1
                continue
            found.files.setdefault(real, FoundFile(root, stat.st_size, stat.st_mtime_ns))
        if not held:
            found.empty.add(root)
    return found


def read_words(roots: Iterable[str]) -> dict[str, Words]:
    """Reads what is said of the files in roots: domain, transcript and captions, those of several clips joined.

    `clips.jsonl` in a root says it, or else texts beside the files, NAME.json and NAME.txt, as `peav prepare` reads them.
    """
    found: dict[str, list[Words]] = {}
    for root in roots:
        listing = Path(root) / _RECORDS
        if listing.is_file():
            read = read_records(listing)
            records, rejects = read.records, [f"line {one.line}: {one.reason}" for one in read.rejects]
        else:
            records, rejects = _read_sidecars(Path(root))
        if rejects:
            _log.warning("%s: %d texts cannot be used; %s", root, len(rejects), rejects[0])
        for record in records:
            captions = "\n".join(caption.text for some in record.captions.values() for caption in some)
            transcript = " ".join(caption.text for caption in record.transcript)
            for path in set(record.files.values()):
                real = os.path.realpath(Path(root) / path)
                found.setdefault(real, []).append(Words(record.domain, transcript, captions))
    return {
        path: Words(
            next((one.domain for one in some if one.domain), ""),
            " ".join(one.transcript for one in some if one.transcript),
            "\n".join(one.captions for one in some if one.captions),
        )
        for path, some in found.items()
    }


def _read_sidecars(root: Path) -> tuple[list[Record], list[str]]:
    """Reads texts beside media; returns records, and why others cannot be used."""
    if not root.is_dir() or not any(extension_of(name) in _TEXTS for name in list_folder(root).files):
        return [], []
    records, rejects = [], []
    try:
        for one in Folder().read(root, root, lambda _: False):
            if isinstance(one, Record):
                records.append(one)
            else:
                rejects.append(f"{one.file}: {one.reason}")
    except FileNotFoundError:  # texts alone
        pass
    return records, rejects


def find_changes(
    catalog: Catalog,
    found: Scan,
    words: Mapping[str, Words],
    roots: Sequence[str],
    retry: bool = False,
    delete_missing: bool = False,
) -> Changes:
    """Compares what lies in roots with what the index knows of them.

    A file is as it was if its size and time are; where the time alone differs, its CRC decides. A new file with the size and the CRC of
    one that is not there any more is that one, moved. A file that is not there is deleted, unless its folder looks as one does whose
    drive is not mounted: a root that is missing or holds no media, a folder that is empty or cannot be read.

    Args:
        catalog: of the index.
        found: what lies in the roots.
        words: what records say of files.
        roots: that were scanned.
        retry: whether files that could not be indexed are tried again though they have not changed.
        delete_missing: whether all files that are not there are deleted.
    """
    changes = Changes(words=dict(words))
    known = {file.path: file for file in catalog.files()}
    rejects = catalog.rejects()
    new: dict[str, FoundFile] = {}
    for path, file in found.files.items():
        before = known.get(path)
        if before is None:
            refused = rejects.get(path)
            if refused is not None and refused[1:3] == (file.size, file.mtime_ns) and not retry:
                changes.still_rejected += 1
            else:
                new[path] = file
            continue
        now = _described(replace(before, root=file.root, mtime_ns=file.mtime_ns), words)
        same = before.size == file.size and (before.mtime_ns == file.mtime_ns or _crc_or_none(path) == before.crc)
        if not same:
            changes.pending[path] = file
        elif now != before:
            changes.updated.append(now)
        else:
            changes.unchanged += 1
    named = set(roots)
    missing = {path: file for path, file in known.items() if path not in found.files and file.root in named}
    away = _Away(found, named)
    # A drive that is now mounted elsewhere: what is known in a root that nobody named may lie here, too.
    by_size: dict[int, list[FileEntry]] = {}
    for path, entry in known.items():
        if path not in found.files:
            by_size.setdefault(entry.size, []).append(entry)
    for path, file in new.items():
        candidates = [one for one in by_size.get(file.size, ()) if not os.path.lexists(one.path)]
        crc = _crc_or_none(path) if candidates else None
        same_bytes = [one for one in candidates if one.crc == crc]
        if not same_bytes:
            changes.pending[path] = file
            continue
        same_bytes.sort(key=lambda one: (os.path.basename(one.path) != os.path.basename(path), one.path))
        moved = same_bytes[0]
        by_size[file.size].remove(moved)
        missing.pop(moved.path, None)
        changes.updated.append(_described(replace(moved, path=path, root=file.root, mtime_ns=file.mtime_ns), words))
        changes.moved += 1
    for path, one in missing.items():
        if delete_missing or not away.may_be(path, one.root):
            changes.deleted.append(path)
        else:
            changes.kept += 1
    changes.gone_rejects = [
        path
        for path, (root, *_) in rejects.items()
        if root in named and path not in found.files and (delete_missing or not away.may_be(path, root))
    ]
    return changes


class _Away:
    """Which files may be on a drive that is not mounted."""

    def __init__(self, found: Scan, roots: set[str]) -> None:
        self._empty, self._roots = found.empty, roots
        self._unreadable = [os.path.join(folder, "") for folder in found.unreadable]
        self._folders: dict[str, bool] = {}

    def may_be(self, path: str, root: str) -> bool:
        if root in self._empty or any(path.startswith(folder) for folder in self._unreadable):
            return True
        return self._is_empty(os.path.dirname(path))

    def _is_empty(self, folder: str) -> bool:
        """Whether a folder, or the nearest above it that is there, holds nothing."""
        if folder not in self._folders:
            try:
                with os.scandir(folder) as entries:
                    self._folders[folder] = next(entries, None) is None
            except FileNotFoundError:
                self._folders[folder] = self._is_empty(os.path.dirname(folder))
            except OSError:
                self._folders[folder] = True
        return self._folders[folder]


def crc_of(path: str) -> int:
    """Returns the CRC-32 of a file's bytes."""
    crc = 0
    with open(path, "rb") as stream:
        while data := stream.read(_BYTES_AT_ONCE):
            crc = zlib.crc32(data, crc)
    return crc


def _crc_or_none(path: str) -> int | None:
    try:
        return crc_of(path)
    except OSError:  # it cannot be read, which decoding will say
        return None


def _described(file: FileEntry, words: Mapping[str, Words]) -> FileEntry:
    said = words.get(file.path, Words())
    return replace(file, domain=said.domain, transcript=said.transcript, captions=said.captions)
