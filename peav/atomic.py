"""Files that are written all or nothing."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path, durable: bool = False, shared: bool = False) -> Iterator[Path]:
    """Gives a name to write to beside a file, whose place it takes in one step when all went well; else what was there stays.

    Args:
        path: of the file.
        durable: whether to wait until the disk has it.
        shared: whether several processes, on any machines, may write it at once: each then has a name of its own (:func:`writer_of`),
            and the last one stays.

    Raises:
        OSError: if it cannot be written, as on a full disk.
    """
    own = f"@{socket.gethostname()}@{os.getpid()}@{os.urandom(3).hex()}" if shared else ""
    partial = path.with_name(f".{path.name}{own}.partial")
    try:
        yield partial
        if durable:
            sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def writer_of(partial: Path) -> tuple[str, int] | None:
    """Returns the machine and the process that write an unfinished file, or wrote it; None where its name does not say.

    >>> writer_of(Path(".a@b.json@host@12@0f3c9a.partial")), writer_of(Path(".a.json.partial"))
    (('host', 12), None)
    """
    _, *said = partial.name.rsplit("@", 3)
    return (said[0], int(said[1])) if len(said) == 3 and said[1].isdecimal() else None


def sweep(folder: Path, stale_seconds: float = 86_400.0, now: float | None = None) -> None:
    """Removes unfinished files whose process was killed: those that :func:`replacing` names for several writers.

    A process of this machine is asked for; of another one the file itself tells, by the time at which it was last written.

    Args:
        folder: in which they are.
        stale_seconds: after which a file that a process on another machine writes counts as left behind.
        now: seconds, by the clock of the file system; by that of this machine by default.
    """
    for path in folder.glob(".*.partial"):
        host, pid = writer_of(path) or ("", 0)
        with suppress(FileNotFoundError):
            if host == socket.gethostname():
                gone = not is_running(pid)
            else:
                gone = (time.time() if now is None else now) - path.stat().st_mtime > stale_seconds
            if gone:
                path.unlink()


def is_running(pid: int) -> bool:
    """Returns whether this machine has a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
