"""The files of an index, for the server: only what the index knows, under its number, and as it was when it was indexed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from peav.opening import is_regular
from peav.search.catalog import FileEntry
from peav.search.store import Store, StoreError

#: So many domains are offered on the page.
_DOMAINS = 50


class Gone(RuntimeError):  # noqa: N818  the name says what is the matter
    """A file of the index that is not there any more."""


@dataclass(frozen=True)
class Opened:
    """A file of the index that is there.

    Attributes:
        entry: what the index knows of it.
        status: of the file as it is now.
    """

    entry: FileEntry
    status: os.stat_result

    @property
    def key(self) -> str:
        """All that what is made of it depends on."""
        return f"{self.entry.path}|{self.status.st_size}|{self.status.st_mtime_ns}"


class Library:
    """Looks files up by their numbers, beside a search that goes on.

    Args:
        store: the index.
    """

    def __init__(self, store: Store) -> None:
        self._catalog, self._lock = store.open_catalog(), threading.Lock()

    def close(self) -> None:
        """Lets go of the catalogue."""
        with self._lock:
            self._catalog.close()

    def open(self, number: int) -> Opened:
        """Returns a file.

        Raises:
            KeyError: if the index has none of this number.
            Gone: if it is not there any more, or has become a link, which may lead anywhere.
            StoreError: if the index is damaged.
        """
        try:
            with self._lock:
                found = self._catalog.files("id = ?", (number,))
        except sqlite3.DatabaseError as error:
            raise StoreError(f"the index cannot be read ({error}): run peav index update, or make it anew") from error
        if not found:
            raise KeyError(f"the index has no file {number}")
        path = found[0].path
        with contextlib.suppress(OSError):  # it went meanwhile
            if os.path.realpath(path) == path and is_regular(Path(path)) and os.access(path, os.R_OK):
                return Opened(found[0], os.stat(path, follow_symlinks=False))
        raise Gone("the file is not there any more: run `peav index update`, which notices where it went")

    def domains(self) -> list[str]:
        """Returns the domains of the files, for the filter of the page."""
        with self._lock:
            return self._catalog.domains(_DOMAINS)

    def counts(self) -> dict[str, int]:
        """Returns how many files there are of each kind."""
        with self._lock:
            return self._catalog.count_kinds()
