"""One process at a time in a prepared folder."""

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
def locked(out: Path, command: str = "peav prepare") -> Iterator[None]:
    """Keeps a second run out of the folder while one is at work; the lock ends with the process.

    Args:
        out: the folder; made where it is missing.
        command: that works in it, for the message.

    Raises:
        FolderInUse: if there is one.
    """
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(f"another `{command}` is at work in {out}: wait for it, or give another folder") from None
        except OSError as error:
            _log.warning("%s cannot be locked (%s): see that no second run writes there", out, error)
        yield
    finally:
        os.close(descriptor)
