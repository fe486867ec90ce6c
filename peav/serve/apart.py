"""Work on files of strangers in a process of its own: bounded in time and memory, and its temporary files go with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from peav.data.media.errors import MediaError
from peav.data.workers import end_with_parent
from peav.types import Seconds

_R = TypeVar("_R")

#: What a process may write: copies of what is decoded.
_FILE_BYTES = 2 << 30


class TooMuch(RuntimeError):  # noqa: N818  the name says what is the matter
    """Work that took more time or memory than it may."""


def run_apart(
    function: Callable[..., _R], arguments: Sequence[Any], seconds: Seconds, memory: int, preload: Sequence[str] = ()
) -> _R:
    """Runs a function in another process and returns what it returns.

    Args:
        function: picklable, of a module.
        arguments: picklable.
        seconds: after which it is killed, together with all that it started.
        memory: bytes that it may take beyond what it has when it begins.
        preload: modules that are imported once, before the first process is made.

    Raises:
        TooMuch: if it takes longer or more, or dies.
        MediaError: if it raises that, and so for ValueError and FileNotFoundError.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    scratch = tempfile.mkdtemp(prefix="peav-apart-")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, function, arguments, scratch, memory), daemon=True)
    try:
        process.start()
        theirs.close()
        try:
            if not ours.poll(seconds):
                raise TooMuch(f"took longer than {seconds:g} s")
            kind, result = ours.recv()
        except EOFError:
            raise TooMuch("ended the process that decoded it; it may need too much memory") from None
        if kind == "raised":
            raise result
        return result
    finally:
        if process.pid is not None:
            # It leads a group of its own, in which FFmpeg runs.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()
        ours.close()
        shutil.rmtree(scratch, ignore_errors=True)


def _work(
    connection: Connection, function: Callable[..., Any], arguments: Sequence[Any], scratch: str, memory: int
) -> None:
    os.setpgid(0, 0)
    end_with_parent()
    threading.Thread(target=_end_with_main, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = scratch
    os.environ["TMPDIR"] = scratch
    if (taken := _taken()) is not None:
        _bound(resource.RLIMIT_AS, taken + memory)
    _bound(resource.RLIMIT_FSIZE, _FILE_BYTES)
    _bound(resource.RLIMIT_CORE, 0)
    try:
        try:
            answer: tuple[str, Any] = ("returned", function(*arguments))
        except MemoryError:
            answer = ("raised", TooMuch("needs too much memory"))
        except MediaError as error:
            answer = ("raised", MediaError(error.path, error.reason))
        except (ValueError, FileNotFoundError) as error:
            answer = ("raised", type(error)(str(error)))
        except Exception as error:
            answer = ("raised", TooMuch(f"cannot be decoded: {type(error).__name__}: {str(error)[:300]}"))
        connection.send(answer)
    finally:
        os._exit(0)  # without what a fork inherits to do at its end


def _end_with_main() -> None:
    """Ends the group when the server ends; the fork server, whose child this is, would live on."""
    main = multiprocessing.parent_process()
    if main is not None:
        main.join()
        os.killpg(0, signal.SIGKILL)


def _bound(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _taken() -> int | None:
    """Returns the bytes of addresses that this process has; None where the system does not say."""
    said = Path("/proc/self/statm")
    return int(said.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if said.exists() else None
