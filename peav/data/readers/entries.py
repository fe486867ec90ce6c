"""From the entries of a data set to records: the media of each are found in its folder, at any depth, or in the archives there.

Data sets are downloaded as archives, and not everybody unpacks a hundred of them. What an entry names is looked for among the files
first; what is not there is looked for in the archives (.zip, .tar, .tar.gz, .tgz), each of which is read once, from its beginning.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Record, Reject
from peav.data.media.folders import MEDIA_EXTENSIONS, extension_of, walk
from peav.data.readers.clips import Clips, reject
from peav.data.readers.media_folder import MissingError, by_role, holds
from peav.data.readers.tars import CHUNK_BYTES, GuardedFile, GuardedMember, member_chunks, refusal
from peav.data.readers.unpack import Unpacked

#: The ends of the names of archives that are looked into.
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Entry:
    """A clip as the annotations of a data set have it.

    Attributes:
        id: of the clip.
        names: what its file may be called, without the extension; the first that is there is taken. A name may begin with folders,
            `rain/a`: the path of the file then ends so.
        line: line, or number from 1, of the entry in its table.
        table: file that has the entry, relative to the data set.
        fields: of the record, besides its files.
    """

    id: str
    names: tuple[str, ...]
    line: int
    table: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class MediaTree:
    """The media at any depth of a folder of a data set, and the archives there.

    Args:
        source: folder of the data set.
        folder: the sub-folder to look in, "" for all of it.

    Raises:
        FileNotFoundError: if there is no such folder.
    """

    def __init__(self, source: Path, folder: str = "") -> None:
        if not (source / folder).is_dir():
            raise FileNotFoundError(
                f"no folder {folder!r} in {source}: it should hold the media; name another by `media`"
            )
        self.source, self.folder = source, folder
        self.archives: list[str] = []
        self._by_stem: dict[str, list[str]] = {}
        for path in walk(source / folder, None):
            placed = os.path.join(folder, path)
            if extension_of(path) in MEDIA_EXTENSIONS:
                self._by_stem.setdefault(PurePosixPath(path).stem, []).append(placed)
            elif path.lower().endswith(ARCHIVES):
                self.archives.append(placed)

    def find(self, names: Iterable[str]) -> dict[str, str] | None:
        """Returns the files of the first of the names that is there by role, see `by_role`; None where none is."""
        for name in names:
            stems = self._by_stem.get(PurePosixPath(name).name, ())
            if paths := [path for path in stems if is_called(path, name)]:
                return by_role(paths)
        return None

    def missing(self, names: tuple[str, ...]) -> MissingError:
        """Returns the error of an entry whose file is not there."""
        where = f"in {self.folder!r}" if self.folder else "in the data set"
        inside = f" or in its {len(self.archives)} archives" if self.archives else ""
        reason = f"no media file {where}{inside}: {', '.join(f'{name}.*' for name in names)}"
        return MissingError(os.path.join(self.folder, f"{names[0]}.*"), reason)


def is_called(path: str, name: str) -> bool:
    """Returns whether a file has a name, which may begin with folders and has no extension.

    >>> is_called("audio/rain/a.b.wav", "rain/a.b"), is_called("audio/rain/a.wav", "in/a"), is_called("a.wav", "a")
    (True, False, True)
    """
    return f"/{os.path.splitext(path)[0]}".endswith(f"/{name}")


def records_of(
    entries: Iterable[Entry | Reject], media: MediaTree, clips: Clips, scratch: Path, skip: Callable[[str], bool]
) -> Iterator[Record | Reject]:
    """Yields the records of entries: those whose files are there in their order, then those out of archives, in the order of these.

    An entry whose file is nowhere gives a reject that says so.

    Args:
        entries: what the annotations list; rejects are passed on.
        media: where their files are.
        clips: of the data set.
        scratch: where media out of archives are put, see `Reader.read`.
        skip: says of an id whether its media need not be unpacked.

    Raises:
        OSError: if media cannot be unpacked into `scratch`.
    """
    waiting: dict[str, Entry] = {}
    for entry in entries:
        if isinstance(entry, Reject):
            yield entry
        elif (files := media.find(entry.names)) is not None:
            yield clips.make(entry.id, entry.line, entry.table, **{**entry.fields, **files})
        elif not media.archives or entry.id in waiting:
            yield reject(media.missing(entry.names), entry.id, entry.line, entry.table)
        else:
            waiting[entry.id] = entry
    if not waiting:
        return
    wanted: dict[str, list[tuple[str, str]]] = {}
    for entry in waiting.values():
        for name in entry.names:
            wanted.setdefault(PurePosixPath(name).name, []).append((name, entry.id))
    for archive in media.archives:
        if not waiting:
            return
        try:
            for member, chunks in _members(media.source / archive):
                for name, clip_id in wanted.get(PurePosixPath(member).stem, ()):
                    if clip_id in waiting and is_called(member, name):
                        yield _unpack(waiting.pop(clip_id), member, chunks, archive, clips, scratch, skip)
                        break
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            yield Reject(None, archive, 0, f"the archive is cut short or damaged: {error}")
    for entry in waiting.values():
        yield reject(media.missing(entry.names), entry.id, entry.line, entry.table)


class _RefusedError(RecordError):
    """A member of an archive that is not unpacked."""


def _unpack(
    entry: Entry,
    member: str,
    chunks: Callable[[], Iterator[bytes]],
    archive: str,
    clips: Clips,
    scratch: Path,
    skip: Callable[[str], bool],
) -> Record | Reject:
    unpacked = Unpacked.begin(clips, entry.id, archive, scratch, skip, entry.line)
    try:
        unpacked.write(chunks(), holds(member), extension_of(member))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, _RefusedError) as error:
        unpacked.problem = RecordError(f"member {member!r} of {archive!r} cannot be unpacked: {error}")
    return unpacked.finish(clips, lambda: entry.fields)


def _members(path: Path) -> Iterator[tuple[str, Callable[[], Iterator[bytes]]]]:
    """Yields the names of the media in an archive, and a function that yields the bytes of each while it is its turn."""
    inside = _zip_members(path) if extension_of(str(path)) == ".zip" else _tar_members(path)
    for name, chunks in inside:
        if extension_of(name) in MEDIA_EXTENSIONS and not PurePosixPath(name).name.startswith("."):
            yield name, chunks


def _tar_members(path: Path) -> Iterator[tuple[str, Callable[[], Iterator[bytes]]]]:
    try:
        raw = GuardedFile(path)
    except OSError as error:
        raise tarfile.ReadError(str(error)) from error
    with raw, tarfile.open(fileobj=raw, mode="r|*", bufsize=CHUNK_BYTES, tarinfo=GuardedMember) as archive:
        for member in archive:
            yield member.name, partial(_tar_chunks, archive, member)


def _tar_chunks(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    if (reason := refusal(member)) is not None:
        raise _RefusedError(f"it {reason}")
    yield from member_chunks(archive, member)


def _zip_members(path: Path) -> Iterator[tuple[str, Callable[[], Iterator[bytes]]]]:
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise zipfile.BadZipFile(str(error)) from error
    with archive:
        for member in archive.infolist():
            yield member.filename, partial(_zip_chunks, archive, member)


def _zip_chunks(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    if member.flag_bits & 1:
        raise _RefusedError("it is encrypted")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise _RefusedError("it is a link, not a file")
    try:
        with archive.open(member) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    # Damaged, packed in a way that zipfile does not know (NotImplementedError), or encrypted (RuntimeError).
    except (zlib.error, NotImplementedError, RuntimeError) as error:
        raise zipfile.BadZipFile(str(error)) from error
