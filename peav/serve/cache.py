"""A folder of files that can be made again, of bounded size."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

#: What a killed process left behind is removed after this time, seconds.
_LEFT_SECONDS = 3600.0
#: What was asked for so recently is not removed, for it may be about to be sent, seconds.
_RECENT_SECONDS = 5.0
_PARTIAL = ".partial"


class DiskCache:
    """Files by key, made when they are first asked for; those that were not asked for the longest make room for others.

    Several threads and processes may share a folder.

    Args:
        folder: made where it is missing.
        most_bytes: that it may hold.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._making: dict[str, threading.Lock] = {}

    def get(self, key: str, suffix: str, make: Callable[[Path], None]) -> Path:
        """Returns a file; of several that ask at once one makes it.

        Args:
            key: all that it depends on.
            suffix: of its name, `.mp4`.
            make: writes it, given where.

        Raises:
            OSError: if it cannot be written.
        """
        name = hashlib.sha256(key.encode()).hexdigest()[:32] + suffix
        path = self.folder / name
        with self._alone(name):
            if not _touched(path):
                handle, partial = tempfile.mkstemp(suffix + _PARTIAL, dir=self.folder)
                os.close(handle)
                try:
                    make(Path(partial))
                    os.replace(partial, path)
                finally:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(partial)
                self._make_room(path)
        return path

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        with self._lock:
            lock = self._making.setdefault(name, threading.Lock())
        try:
            with lock:
                yield
        finally:
            with self._lock:
                if not lock.locked():
                    self._making.pop(name, None)

    def _make_room(self, newest: Path) -> None:
        """Removes what was not asked for the longest, until the rest fits."""
        found = []
        now = time.time()
        for entry in os.scandir(self.folder):
            try:
                stat = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if entry.name.endswith(_PARTIAL):
                if now - stat.st_mtime > _LEFT_SECONDS:
                    _remove(entry.path)
            elif entry.is_file(follow_symlinks=False):
                found.append((stat.st_mtime, stat.st_size, entry.path))
        held = sum(size for _, size, _ in found)
        for used, size, path in sorted(found):
            if held <= self.most_bytes or path == str(newest):
                continue
            # Twice the bound is never passed, not even by what is about to be sent.
            if now - used > _RECENT_SECONDS or held > 2 * self.most_bytes:
                _remove(path)
                held -= size


def _touched(path: Path) -> bool:
    """Marks a file as used just now; returns whether it is there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
