"""What is known of files and segments, in SQLite: one file, one transaction a step."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from peav.types import Seconds

#: What a file is: sound alone, a moving picture (with sound or without), or a still one.
Kind = Literal["sound", "video", "picture"]

#: How the tables look; others are refused.
VERSION = 1

_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE roots (path TEXT PRIMARY KEY);
CREATE TABLE files (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL, root TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    crc INTEGER NOT NULL, kind TEXT NOT NULL, seconds REAL, domain TEXT NOT NULL, transcript TEXT NOT NULL,
    captions TEXT NOT NULL, windows INTEGER NOT NULL, alive INTEGER NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX files_by_path ON files (path) WHERE alive;
CREATE INDEX files_by_size ON files (size) WHERE alive;
CREATE VIRTUAL TABLE words USING fts5 (name, transcript, captions, tokenize = 'unicode61 remove_diacritics 2');
CREATE TABLE rejects (path TEXT PRIMARY KEY, root TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE TABLE segments (name TEXT PRIMARY KEY, windows INTEGER NOT NULL, sizes TEXT NOT NULL);
"""


@dataclass(frozen=True)
class FileEntry:
    """A file of the index.

    Attributes:
        path: absolute, links resolved.
        root: the file or folder that was named, in which it was found.
        size: bytes.
        mtime_ns: when it was last written, nanoseconds.
        crc: CRC-32 of its bytes.
        kind: `sound`, `video` or `picture`.
        seconds: duration; None of a picture.
        domain: what its record says it is, such as `speech`; "" where nobody says.
        transcript: what is said in it, likewise.
        captions: what its record says of it, likewise, joined by lines.
        windows: how many it has.
        id: its number, which it keeps for good; 0 of one that is not in yet.
    """

    path: str
    root: str
    size: int
    mtime_ns: int
    crc: int
    kind: Kind
    seconds: Seconds | None
    domain: str = ""
    transcript: str = ""
    captions: str = ""
    windows: int = 0
    id: int = 0


_COLUMNS = [field.name for field in fields(FileEntry)]


class Catalog:
    """The SQLite file of an index.

    Args:
        path: of the file; made where it is missing.
        create: whether it may be made.

    Raises:
        sqlite3.DatabaseError: if it is damaged.
        ValueError: if another version of peav made it.
    """

    def __init__(self, path: Path, create: bool = False) -> None:
        # One thread at a time uses it, though not always the same one.
        self.connection = sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False)
        self.connection.execute("PRAGMA synchronous = FULL")
        if create and not self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            with self.transaction():
                for statement in _TABLES.split(";\n"):
                    self.connection.execute(statement)
                self.set("version", VERSION)
        if (found := self.get("version")) != VERSION:
            self.close()
            raise ValueError(f"{path} is of version {found}, and this peav reads {VERSION}: make the index anew")

    def close(self) -> None:
        """Closes the file."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All within is done, or nothing."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        try:
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    @property
    def changes(self) -> int:
        """A number that differs after another process or connection has changed something."""
        return int(self.connection.execute("PRAGMA data_version").fetchone()[0])

    def get(self, key: str) -> Any:
        """Returns what is noted under a key; None if nothing is."""
        row = self.connection.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def set(self, key: str, value: Any) -> None:
        """Notes something."""
        self.connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, json.dumps(value)))

    # Files.

    def files(self, where: str = "1", arguments: Sequence[Any] = ()) -> list[FileEntry]:
        """Returns the files that are alive and meet a condition of SQL, by id."""
        query = f"SELECT {', '.join(_COLUMNS)} FROM files WHERE alive AND ({where}) ORDER BY id"
        return [FileEntry(*row) for row in self.connection.execute(query, arguments)]

    def file_ids(self, where: str = "1", arguments: Sequence[Any] = ()) -> list[int]:
        """Returns the numbers of the files that are alive and meet a condition of SQL, rising."""
        query = f"SELECT id FROM files WHERE alive AND ({where}) ORDER BY id"
        return [row[0] for row in self.connection.execute(query, arguments)]

    def count(self) -> tuple[int, int]:
        """Returns how many files are alive, and how many windows they have."""
        query = "SELECT count(*), coalesce(sum(windows), 0) FROM files WHERE alive"
        files, windows = self.connection.execute(query).fetchone()
        return files, windows

    def count_kinds(self) -> dict[str, int]:
        """Returns how many files that are alive there are of each kind."""
        return dict(self.connection.execute("SELECT kind, count(*) FROM files WHERE alive GROUP BY kind"))

    def domains(self, most: int) -> list[str]:
        """Returns the domains of the files that are alive, the most frequent first.

        Args:
            most: how many are returned.
        """
        query = "SELECT domain FROM files WHERE alive AND domain != '' GROUP BY domain ORDER BY count(*) DESC LIMIT ?"
        return [row[0] for row in self.connection.execute(query, (most,))]

    @property
    def state(self) -> str:
        """Says which windows there are: files only ever come under new numbers, and go."""
        query = "SELECT count(*), coalesce(max(id), 0), coalesce(sum(id), 0) FROM files WHERE alive"
        return " ".join(map(str, self.connection.execute(query).fetchone()))

    def add_file(self, file: FileEntry) -> None:
        """Adds a file under its id, in place of the one of this path."""
        self.drop_files("path = ?", (file.path,))
        self.connection.execute("DELETE FROM rejects WHERE path = ?", (file.path,))
        places = ", ".join("?" * len(_COLUMNS))
        self.connection.execute(f"INSERT INTO files ({', '.join(_COLUMNS)}) VALUES ({places})", astuple(file))
        self._set_words(file)

    def change_file(self, file: FileEntry) -> None:
        """Changes what is known of the file of this id; its windows stay."""
        sets = ", ".join(f"{name} = ?" for name in _COLUMNS)
        self.connection.execute("DELETE FROM rejects WHERE path = ?", (file.path,))
        self.connection.execute(f"UPDATE files SET {sets} WHERE id = ?", (*astuple(file), file.id))
        self.connection.execute("DELETE FROM words WHERE rowid = ?", (file.id,))
        self._set_words(file)

    def drop_files(self, where: str, arguments: Sequence[Any] = ()) -> None:
        """Flags files as deleted; their windows are not found any more."""
        numbers = self.file_ids(where, arguments)
        self.connection.executemany("DELETE FROM words WHERE rowid = ?", [(number,) for number in numbers])
        self.connection.executemany("UPDATE files SET alive = 0 WHERE id = ?", [(number,) for number in numbers])

    def _set_words(self, file: FileEntry) -> None:
        words = (file.id, file.path, file.transcript, file.captions)
        self.connection.execute("INSERT INTO words (rowid, name, transcript, captions) VALUES (?, ?, ?, ?)", words)

    # Files that could not be indexed.

    def rejects(self) -> dict[str, tuple[str, int, int, str]]:
        """Returns root, size, time (ns) and reason of files that could not be indexed, by path."""
        query = "SELECT path, root, size, mtime_ns, reason FROM rejects ORDER BY path"
        return {path: tuple(rest) for path, *rest in self.connection.execute(query)}

    def add_reject(self, path: str, root: str, size: int, mtime_ns: int, reason: str) -> None:
        """Notes a file that could not be indexed; what was indexed of it before is dropped."""
        self.drop_files("path = ?", (path,))
        values = (path, root, size, mtime_ns, reason)
        self.connection.execute("INSERT OR REPLACE INTO rejects VALUES (?, ?, ?, ?, ?)", values)

    def drop_rejects(self, paths: Sequence[str]) -> None:
        """Forgets files that could not be indexed."""
        self.connection.executemany("DELETE FROM rejects WHERE path = ?", [(path,) for path in paths])

    # Folders that were named, and segments.

    def roots(self) -> list[str]:
        """Returns the files and folders that were named."""
        return [row[0] for row in self.connection.execute("SELECT path FROM roots ORDER BY path")]

    def add_roots(self, paths: Sequence[str]) -> None:
        """Notes files and folders that were named."""
        self.connection.executemany("INSERT OR IGNORE INTO roots VALUES (?)", [(path,) for path in paths])

    def segments(self) -> dict[str, dict[str, int]]:
        """Returns the sizes of the files of the segments, by name."""
        query = "SELECT name, sizes FROM segments ORDER BY name"
        return {name: json.loads(sizes) for name, sizes in self.connection.execute(query)}

    def add_segment(self, name: str, windows: int, sizes: Mapping[str, int]) -> None:
        """Names a segment: it is part of the index from now on."""
        self.connection.execute("INSERT INTO segments VALUES (?, ?, ?)", (name, windows, json.dumps(sizes)))
