"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger(__name__)


class FolderInUse(RuntimeError):  # noqa: N818  the name says what is the matter
    """A folder in which another process is at work."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second process out of the folder while one is at work; the lock ends with the process.

    Args:
        folder: to lock; made where it is missing.

    Raises:
        FolderInUse: if there is one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(f"another process is at work in {folder}: wait for it, or give another folder") from None
        except OSError as error:
            _log.warning("%s cannot be locked (%s): see that no second process writes there", folder, error)
        yield
    finally:
        os.close(descriptor)
