"""The folder of an index: immutable segments of vectors, and the catalogue that names them.

A segment is written and synced first; then one transaction of the catalogue names it together with its files. A crash between the two
leaves a folder that nothing names, which the next writer removes. Deleting is a flag in the catalogue, until `compact` writes what is
left anew beside the old segments and swaps them in one transaction. Readers see the last committed state, and keep the segments that
they have open.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from peav.atomic import sync
from peav.data.locks import locked
from peav.search.catalog import Catalog, FileEntry
from peav.search.segment import WINDOW, Segment, write_segment
from peav.types import Seconds

_CATALOG = "catalog.sqlite"
_SEGMENTS = "segments"

#: Windows that a segment holds at most when segments are joined, which takes the memory of one.
SEGMENT_WINDOWS = 65536
#: So many segments that are smaller are worth joining.
_MANY_SEGMENTS = 16
#: A share of windows of deleted files that is worth being rid of.
_DELETED_SHARE = 0.2


class StoreError(RuntimeError):
    """An index that cannot be read or written, and what to do."""


@dataclass(frozen=True)
class NewFile:
    """A file that comes into the index.

    Attributes:
        entry: what is known of it.
        spans: start and duration of each window, seconds.
        vectors: of each window its embeddings (D,) by name.
    """

    entry: FileEntry
    spans: Sequence[tuple[Seconds, Seconds]]
    vectors: Sequence[Mapping[str, np.ndarray]]


class Store:
    """An index on disk, to read it; `writing` to change it.

    Args:
        folder: of the index.

    Raises:
        FileNotFoundError: if there is none.
        StoreError: if it is damaged.
        ValueError: if another version of peav made it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / _CATALOG).is_file():
            raise FileNotFoundError(
                f"there is no index at {self.folder}: peav index update {self.folder} FOLDER makes one of a folder of media"
            )
        with self._damage():
            self.catalog = Catalog(self.folder / _CATALOG)
            settings = self.catalog.get("settings")
        if settings is None:
            raise StoreError(
                f"{self.folder} was begun and never got its settings: delete it, and run peav index update again"
            )
        self.settings: dict[str, Any] = settings
        self.segments: dict[str, Segment] = {}
        self._seen: int | None = None
        self._writing = False
        self.refresh()

    @classmethod
    def create(cls, folder: str | Path, settings: Mapping[str, Any]) -> Store:
        """Makes an empty index.

        Args:
            folder: where; it must be empty or not there.
            settings: all that the vectors depend on besides the media, as JSON; `names` and `dim` are the embeddings' names and D.

        Raises:
            ValueError: if something else is there.
        """
        path = Path(folder)
        if path.exists() and any(entry.name not in (_CATALOG, f"{_CATALOG}-journal") for entry in path.iterdir()):
            raise ValueError(f"{path} is not empty and holds no index: choose another folder for the index")
        path.mkdir(parents=True, exist_ok=True)
        catalog = Catalog(path / _CATALOG, create=True)
        with catalog.transaction():
            if catalog.get("settings") is None:
                catalog.set("settings", dict(settings))
        catalog.close()
        (path / _SEGMENTS).mkdir(exist_ok=True)
        sync(path)
        return cls(path)

    @staticmethod
    def is_one(folder: str | Path) -> bool:
        """Returns whether a folder holds an index that has its settings."""
        path = Path(folder) / _CATALOG
        if not path.is_file():
            return False
        connection = sqlite3.connect(path)
        try:
            return bool(connection.execute("SELECT 1 FROM about WHERE key = 'settings'").fetchone())
        except sqlite3.DatabaseError as error:
            # What is no database, or damaged, is one all the same, and says so when it is opened.
            return "no such table" not in str(error)
        finally:
            connection.close()

    @property
    def names(self) -> list[str]:
        """The embeddings that windows may have."""
        return list(self.settings["names"])

    @property
    def dim(self) -> int:
        """D."""
        return int(self.settings["dim"])

    def open_catalog(self) -> Catalog:
        """Opens the catalogue once more, for another thread; who asks closes it.

        Raises:
            StoreError: if it is damaged.
        """
        with self._damage():
            return Catalog(self.folder / _CATALOG)

    def close(self) -> None:
        """Lets go of the files."""
        self.catalog.close()
        self.segments = {}

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def refresh(self) -> bool:
        """Takes in what was committed since; returns whether anything was.

        Raises:
            StoreError: if a segment is damaged or missing.
        """
        with self._damage():
            for attempt in itertools.count():
                if self._seen == self.catalog.changes and not self._writing:
                    return False
                # Read before the segments: what comes in between is seen the next time.
                seen, named = self.catalog.changes, self.catalog.segments()
                try:
                    self.segments = {
                        name: self.segments.get(name) or Segment(self.folder / _SEGMENTS / name, sizes)
                        for name, sizes in named.items()
                    }
                except FileNotFoundError:
                    # Another process may have joined segments since they were read.
                    if attempt > 4 or self.catalog.segments() == named:
                        raise
                    continue
                self._seen = seen
                return True
        return True

    @contextlib.contextmanager
    def writing(self) -> Iterator[Store]:
        """Keeps other writers out, and removes what a crash has left.

        Raises:
            FolderInUse: if another process writes.
        """
        with locked(self.folder):
            self._writing = True
            try:
                self.refresh()
                self._remove_unnamed()
                yield self
            finally:
                self._writing = False

    def _remove_unnamed(self) -> None:
        named = set(self.catalog.segments())
        for path in (self.folder / _SEGMENTS).iterdir():
            if path.name not in named:
                shutil.rmtree(path)

    # Writing.

    def add(self, files: Sequence[NewFile]) -> None:
        """Adds files with their windows, each in place of what was known of its path: all of them, or, after a crash, none.

        Raises:
            ValueError: if a vector is not finite, or too large for fp16.
            OSError: if the disk is full, among other things; the index is then as it was.
        """
        windows = np.zeros(sum(len(file.spans) for file in files), WINDOW)
        first_window = (self.catalog.get("last_window") or 0) + 1
        first_file = (self.catalog.get("last_file") or 0) + 1
        windows["id"] = np.arange(first_window, first_window + len(windows))
        rows: dict[str, list[int]] = {name: [] for name in self.names}
        values: dict[str, list[np.ndarray]] = {name: [] for name in self.names}
        row = 0
        for offset, file in enumerate(files):
            for (start, seconds), vectors in zip(file.spans, file.vectors, strict=True):
                windows[row] = (windows["id"][row], first_file + offset, start, seconds)
                for name, vector in vectors.items():
                    rows[name].append(row)
                    values[name].append(vector)
                row += 1
        name = self._next_name()
        vectors_by_name = {
            key: (np.array(rows[key], np.int64), np.stack(values[key])) for key in self.names if rows[key]
        }
        with self._whole(name):
            sizes = write_segment(self.folder / _SEGMENTS / name, windows, vectors_by_name) if len(windows) else {}
            with self.catalog.transaction():
                for offset, file in enumerate(files):
                    self.catalog.add_file(replace(file.entry, windows=len(file.spans), id=first_file + offset))
                self.catalog.set("last_window", first_window + len(windows) - 1)
                self.catalog.set("last_file", first_file + len(files) - 1)
                if len(windows):
                    self.catalog.add_segment(name, len(windows), sizes)
        self.refresh()

    def is_untidy(self) -> bool:
        """Returns whether there are many small segments, or many windows of deleted files."""
        total = sum(len(segment) for segment in self.segments.values())
        small = sum(len(segment) < SEGMENT_WINDOWS for segment in self.segments.values())
        _, alive = self.catalog.count()
        return small >= _MANY_SEGMENTS or total - alive > _DELETED_SHARE * total

    def compact(self, everything: bool = False) -> None:
        """Joins small segments and leaves out windows of deleted files; numbers of windows and files stay.

        What is large and has few deleted windows is left as it is, unless `everything` is asked for.

        Raises:
            OSError: if the disk is full, among other things; the index is then as it was.
        """
        alive = np.array(self.catalog.file_ids(), np.int64)
        chosen = []
        for name, segment in self.segments.items():
            kept = int(np.isin(segment.windows["file"], alive).sum())
            if everything or len(segment) < SEGMENT_WINDOWS or len(segment) - kept > _DELETED_SHARE * len(segment):
                chosen.append(name)
        # In the order of their windows, so that ids rise in what comes of them.
        chosen.sort(key=lambda name: int(self.segments[name].windows["id"][0]))
        parts = [
            (self.segments[name], np.flatnonzero(np.isin(self.segments[name].windows["file"], alive)))
            for name in chosen
        ]
        written: dict[str, tuple[int, dict[str, int]]] = {}
        with contextlib.ExitStack() as stack:
            for group in _groups([(segment, rows) for segment, rows in parts if len(rows)], SEGMENT_WINDOWS):
                name = self._next_name(len(written))
                stack.enter_context(self._whole(name))
                windows = np.concatenate([segment.windows[rows] for segment, rows in group])
                sizes = write_segment(self.folder / _SEGMENTS / name, windows, _joined(group, self.names))
                written[name] = (len(windows), sizes)
            with self.catalog.transaction():
                self.catalog.connection.executemany("DELETE FROM segments WHERE name = ?", [(name,) for name in chosen])
                for name, (count, sizes) in written.items():
                    self.catalog.add_segment(name, count, sizes)
                self.catalog.set("last_segment", int(max(written, default=self._next_name())))
                self.catalog.connection.execute("DELETE FROM files WHERE NOT alive")
        self.refresh()
        for name in chosen:
            shutil.rmtree(self.folder / _SEGMENTS / name)

    def _next_name(self, ahead: int = 0) -> str:
        """Returns a name that no segment has or had: a reader must not take another segment for one that it knows."""
        used = max((int(name) for name in self.catalog.segments()), default=0)
        return f"{max(used, self.catalog.get('last_segment') or 0) + 1 + ahead:08d}"

    @contextlib.contextmanager
    def _whole(self, name: str) -> Iterator[None]:
        """Removes a segment that was not named in the end, so that a full disk is not filled further."""
        try:
            yield
        except BaseException as error:
            if name not in self.catalog.segments():
                for left in (self.folder / _SEGMENTS / name, self.folder / _SEGMENTS / f"{name}.partial"):
                    shutil.rmtree(left, ignore_errors=True)
            if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
                raise OSError(f"{self.folder}: the disk is full; the index is as it was before these files") from error
            raise

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        """Says what to do about a damaged index."""
        try:
            yield
        except (sqlite3.DatabaseError, json.JSONDecodeError, RuntimeError, FileNotFoundError) as error:
            if isinstance(error, StoreError) or (
                isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
            ):
                raise
            raise StoreError(
                f"the index {self.folder} is damaged ({error}): delete it and run peav index update again, or put back a copy"
            ) from error


def _groups(parts: Sequence[tuple[Segment, np.ndarray]], most: int) -> Iterator[list[tuple[Segment, np.ndarray]]]:
    """Cuts rows of segments into groups of at most so many."""
    group: list[tuple[Segment, np.ndarray]] = []
    held = 0
    for segment, rows in parts:
        while len(rows):
            some, rows = rows[: most - held], rows[most - held :]
            group.append((segment, some))
            held += len(some)
            if held == most:
                yield group
                group, held = [], 0
    if group:
        yield group


def _joined(
    group: Sequence[tuple[Segment, np.ndarray]], names: Sequence[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the rows that have each embedding, and their vectors."""
    joined = {}
    for name in names:
        rows, values, before = [], [], 0
        for segment, kept in group:
            if name in segment.rows:
                having = np.flatnonzero(np.isin(kept, segment.rows[name]))
                rows.append(before + having)
                values.append(segment.take(name, kept[having]).astype(np.float16))
            before += len(kept)
        if rows:
            joined[name] = (np.concatenate(rows), np.concatenate(values))
    return joined
