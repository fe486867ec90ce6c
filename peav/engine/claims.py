"""Who works on what: claims on parts that any process on a common folder can see, and that a dead process loses.

A claim is a file that only one process can make. A thread touches it while its process lives. A claim is stale when it was not touched
for a while by the clock of the file system, or at once when its process on this machine is gone. Claims only share the work: who
computes a part that another one computes, too, loses time and nothing else.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from peav.atomic import is_running, sweep
from peav.engine.rows import read_json_file
from peav.engine.stage import EngineError
from peav.types import Seconds

#: After this time without a sign of life a process on another machine counts as dead.
STALE_SECONDS: Seconds = 120.0


def _started(pid: int) -> str:
    """Returns when a process began, which tells it from a later one of the same number; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _alive(pid: int, started: str) -> bool:
    return is_running(pid) and (not started or _started(pid) in ("", started))


class Pulse:
    """Touches the files by which others see that this process lives.

    Args:
        folder: of the job.
        stale: seconds without one after which a process counts as dead.
    """

    def __init__(self, folder: Path, stale: Seconds = STALE_SECONDS) -> None:
        self.stale = stale
        self.token = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        self.said = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "token": self.token,
        }
        self._clock = folder / "runs" / f"{self.token}.clock"
        self._clock.parent.mkdir(parents=True, exist_ok=True)
        self._clock.touch()
        self._files: set[Path] = {self._clock}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._end.wait(self.stale / 4):
            with self._lock:
                files = list(self._files)
            for path in files:
                with suppress(OSError):
                    os.utime(path)

    def now(self) -> float:
        """Returns the time by the clock of the file system, which machines with a common folder share."""
        self._clock.touch()
        return self._clock.stat().st_mtime

    def watch(self, path: Path) -> None:
        """Touches a file from now on."""
        with self._lock:
            self._files.add(path)

    def unwatch(self, path: Path) -> None:
        """Touches it no longer."""
        with self._lock:
            self._files.discard(path)

    def is_dead(self, path: Path) -> bool:
        """Returns whether the process that made a file is gone."""
        try:
            said, touched = read_json_file(path), path.stat().st_mtime
        except FileNotFoundError:
            return False
        if said.get("host") == socket.gethostname() and isinstance(said.get("pid"), int):
            return not _alive(said["pid"], str(said.get("started", "")))
        return self.now() - touched > self.stale

    def sweep(self, folder: Path) -> None:
        """Removes the unfinished files that killed processes left in a folder and those in it, two levels down."""
        for one in (folder, *folder.glob("*/"), *folder.glob("*/*/")):
            sweep(one, self.stale, self.now())

    def close(self) -> None:
        """Ends the thread."""
        self._end.set()
        self._thread.join()
        self._clock.unlink(missing_ok=True)


class Claims:
    """The claims of this process on the parts of a job.

    Args:
        folder: of the job.
        pulse: of this process.
    """

    def __init__(self, folder: Path, pulse: Pulse) -> None:
        self._folder, self._pulse = folder / "claims", pulse
        self._folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Returns where the claim on a part lies."""
        return self._folder / name

    def take(self, name: str) -> dict[str, Any] | None:
        """Claims a part.

        Returns:
            None where another process has it. Else what a dead process that had it before left in its claim, {} without one.
        """
        path, before = self.path(name), {}
        if path.exists():
            if not self._pulse.is_dead(path):
                return None
            with suppress(FileNotFoundError):
                before = read_json_file(path)
                aside = path.with_name(f"{name}.{self._pulse.token}.stale")
                path.rename(aside)
                if read_json_file(aside).get("token") != before.get("token"):
                    # Another process took the stale claim in between, and this is its own.
                    with suppress(FileExistsError):
                        os.link(aside, path)
                    aside.unlink()
                    return None
                aside.unlink()
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return None
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump({**self._pulse.said, "crashes": int(before.get("crashes", -1)) + 1 if before else 0}, stream)
        self._pulse.watch(path)
        return before

    def say(self, name: str, **what: Any) -> None:
        """Writes into the claim what this process is about to do, for whoever finds it if that is the end of the process."""
        path = self.path(name)
        said = read_json_file(path)
        partial = path.with_name(f".{name}.{self._pulse.token}")
        partial.write_text(json.dumps({**said, **what}), encoding="utf-8")
        partial.replace(path)

    def drop(self, name: str) -> None:
        """Gives a claim back."""
        self._pulse.unwatch(self.path(name))
        self.path(name).unlink(missing_ok=True)


class Registered:
    """A run that others on the same folder can see.

    Args:
        folder: of the job.
        pulse: of this process.
        digest: of its stages.

    Raises:
        EngineError: if a run with other stages is at work.
    """

    def __init__(self, folder: Path, pulse: Pulse, digest: str) -> None:
        self._path = folder / "runs" / f"{pulse.token}.json"
        self._pulse = pulse
        self._path.write_text(json.dumps({**pulse.said, "digest": digest}), encoding="utf-8")
        pulse.watch(self._path)
        for clock in (folder / "runs").glob("*.clock"):  # of processes that were killed
            with suppress(FileNotFoundError):
                if pulse.now() - clock.stat().st_mtime > pulse.stale:
                    clock.unlink()
        for other in (folder / "runs").glob("*.json"):
            if other == self._path:
                continue
            if pulse.is_dead(other):
                other.unlink(missing_ok=True)
                other.with_suffix(".clock").unlink(missing_ok=True)
                continue
            with suppress(FileNotFoundError):
                said = read_json_file(other)
                if said and said.get("digest") != digest:
                    self.close()
                    raise EngineError(
                        f"another run is at work in {folder} with other stages or settings (process {said.get('pid')} on "
                        f"{said.get('host')}): wait for it, run the same configuration to share its work, or give another --work"
                    )

    def close(self) -> None:
        """Takes the run off the list."""
        self._pulse.unwatch(self._path)
        self._path.unlink(missing_ok=True)
