"""Running a job: processes that claim parts until none is left, here or wherever the folder can be seen."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from peav.data.workers import end_with_parent
from peav.engine.calibration import calibrate
from peav.engine.claims import STALE_SECONDS, Pulse, Registered
from peav.engine.compute import Computer
from peav.engine.execution import Execution, Run
from peav.engine.job import Job, JobSpec
from peav.engine.progress import Tally, Tell
from peav.engine.ray_executor import run_with_ray
from peav.engine.stage import EngineError, EngineStop
from peav.engine.work import POLL_SECONDS, work, work_alone
from peav.types import Seconds

_log = logging.getLogger(__name__)

#: So many deaths of workers, one after another without a part that was finished, end the run.
MAX_DEATHS = 20


@contextmanager
def opened(job: Job, stale: Seconds = STALE_SECONDS, tried: bool = False) -> Iterator[Run]:
    """Registers a run in the folder of a job.

    Args:
        job: the job.
        stale: time without a sign of life after which another process counts as dead.
        tried: whether the job is only tried out, see :meth:`Job.open`.

    Raises:
        EngineError: if the folder holds another job, or another run with other settings is at work there.
    """
    try:
        job.work.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise EngineError(f"{job.work} is, or lies in, a file, not a folder: give another --work") from None
    foreign = [
        path.name for path in job.work.iterdir() if path.name != "runs" and not path.name.startswith(".job.json@")
    ]
    if foreign and not (job.work / "job.json").exists():
        raise EngineError(f"{job.work} is not empty and was not made by `peav caption`: give another --work")
    pulse = Pulse(job.work, stale)
    try:
        registered = Registered(job.work, pulse, job.pipeline.digest)
        try:
            pulse.sweep(job.work)
            for name, why in job.open(tried).items():
                _log.info("stage %s is done anew: %s", name, why)
            yield Run(job, pulse, pulse.now())
        finally:
            registered.close()
    finally:
        pulse.close()


def run_parts(
    run: Run,
    execution: Execution | None = None,
    tell: Tell = lambda clips, tokens: None,
    computer: Computer | None = None,
) -> None:
    """Computes all parts of a job that are not done.

    Args:
        run: of the job, from :func:`opened`.
        execution: where; inline by default.
        tell: is told how many clips were worked off, by whomever, and how many tokens models wrote for them.
        computer: the stages built in this process, for the executor `inline`; built anew by default.

    Raises:
        EngineStop: if a stage cannot work at all.
        EngineError: if worker processes die again and again.
        OSError: if the disk is full.
    """
    execution = execution or Execution()
    tally = Tally(run.job.parts, tell)
    if execution.executor == "ray":
        run_with_ray(run, execution, tally)
    elif execution.executor == "process":
        _Workers(run, tally).run(execution.workers)
    else:
        spec = run.job.spec
        own = computer or Computer(run.job.pipeline, spec.data, spec.max_failures)
        try:
            calibrate(run.job, own)
            work(run, own, tally)
        finally:
            if computer is None:
                own.close()


class _Workers:
    """Processes that work on a job, each with a pipe; one that dies is replaced."""

    def __init__(self, run: Run, tally: Tally) -> None:
        self._arguments = (run.job.spec, run.since, run.pulse.stale)
        self._parts, self._tally = len(run.job.parts), tally
        self._context = multiprocessing.get_context("spawn")
        self._running: dict[Connection, Any] = {}
        self._deaths = 0

    def run(self, workers: int) -> None:
        """Starts the processes and waits for them."""
        try:
            for _ in range(min(workers, max(self._parts, 1))):
                self._start()
            while self._running:
                for pipe in wait(list(self._running), timeout=POLL_SECONDS):
                    self._read(pipe)  # type: ignore[arg-type]
        finally:
            for process in self._running.values():
                process.kill()
            for process in self._running.values():
                process.join()

    def _start(self) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_worker, args=(theirs, *self._arguments), daemon=False)
        process.start()
        theirs.close()
        self._running[ours] = process

    def _read(self, pipe: Connection) -> None:
        try:
            kind, value = pipe.recv()
        except (EOFError, OSError):
            self._ended(pipe)
            return
        if kind == "step":
            self._deaths = 0
            self._tally(value)
        elif kind == "stop":
            raise EngineStop(value)
        elif kind == "full":
            raise OSError(*value)
        else:
            raise EngineError(value)

    def _ended(self, pipe: Connection) -> None:
        process = self._running.pop(pipe)
        process.join()
        pipe.close()
        if process.exitcode == 0:
            return
        self._deaths += 1
        _log.warning("a worker process died (exit status %s); another takes its place", process.exitcode)
        if self._deaths > MAX_DEATHS:
            raise EngineError(
                f"{self._deaths} worker processes died one after another (exit status {process.exitcode})"
            )
        self._start()


def _worker(pipe: Connection, spec: JobSpec, since: float, stale: Seconds) -> None:
    """Works on a job in a process of its own, and ends with the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    parent = multiprocessing.parent_process()

    def end() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end, daemon=True).start()
    try:
        work_alone(spec, since, stale, lambda step: pipe.send(("step", step)))
    except EngineStop as error:
        pipe.send(("stop", str(error)))
    except OSError as error:
        pipe.send(("full", (error.errno, error.strerror, str(error.filename or ""))))
    except Exception as error:
        _log.exception("a worker failed")
        pipe.send(("error", f"{type(error).__name__}: {error}"))
