"""A parallel map that keeps the order and survives the death of a worker process."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

_I = TypeVar("_I")
_O = TypeVar("_O")

_log = logging.getLogger(__name__)

#: Of prctl(2): the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG = 1

# Looked up now, so that nothing is loaded between fork and exec.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def available_cpus() -> int:
    """Returns how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resilient_map(
    function: Callable[[Sequence[_I]], list[_O]],
    groups: Iterable[Sequence[_I]],
    workers: int,
    on_crash: Callable[[_I], _O],
    preload: Sequence[str] = (),
) -> Generator[list[_O], None, None]:
    """Maps `function` over groups of items in worker processes, and yields the results in order.

    When a worker dies (a decoder that crashes, the kernel short of memory) the groups in flight are run again an item at a time,
    each alone in a process; the item that kills its process gets `on_crash(item)`. Every other item gets its result. When the main
    process is killed, or the iterator is closed early, the workers end at once.

    Args:
        function: picklable; takes a group and returns one result an item.
        groups: the items, in groups large enough to be worth sending; read a few ahead of the results.
        workers: processes; 0 maps in this process.
        on_crash: the result of an item whose process died.
        preload: modules that the server imports once, before it forks workers.

    Raises:
        ValueError: if `workers` is negative.
    """
    if workers < 0:
        raise ValueError(f"workers must be 0, to work in this process, or more, not {workers}")
    if not workers:
        yield from (function(group) for group in groups)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)
    flying: deque[tuple[Sequence[_I], Future[list[_O]]]] = deque()
    waiting = iter(groups)
    group = next(waiting, None)
    killed = True  # nobody waits for results after an exception
    try:
        while group is not None or flying:
            broken = False
            try:
                while group is not None and len(flying) < 3 * workers:
                    flying.append((group, pool.submit(function, group)))
                    group = next(waiting, None)
                result = flying[0][1].result()
            except BrokenProcessPool:
                broken = True
            if not broken:
                flying.popleft()
                yield result
                continue
            pool.shutdown(wait=True)
            suspects = list(flying)
            flying.clear()
            _log.warning(
                "a worker process died; the %d groups in flight are run again one item at a time", len(suspects)
            )
            for suspect, future in suspects:
                finished = future.done() and not future.cancelled() and future.exception() is None
                yield future.result() if finished else _one_by_one(function, suspect, on_crash, context)
            pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)
        killed = False
    finally:
        _stop(pool, killed)


class Terminated(SystemExit):
    """SIGTERM arrived: tells it from an exit that somebody's code asked for."""


@contextmanager
def ends_on_terminate() -> Iterator[None]:
    """Lets SIGTERM end the block as Ctrl-C does, with all that belongs to it tidied up; where it may: in the main thread."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Terminated(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def end_with_parent() -> None:
    """Lets Linux kill this process when the one that started it ends, however that ended."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _begin_worker() -> None:
    """Leaves Ctrl-C to the main process, and ends with it, however it ended.

    The fork server would not see to that: it lives as long as any of its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    threading.Thread(target=_end_with_main, daemon=True).start()


def _end_with_main() -> None:
    main = multiprocessing.parent_process()
    if main is not None:
        main.join()
        os._exit(1)


def _stop(pool: ProcessPoolExecutor, kill: bool) -> None:
    """Ends the processes of a pool: when they are idle, or at once."""
    if kill:
        for process in list((pool._processes or {}).values()):
            process.kill()
    pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(
    function: Callable[[Sequence[_I]], list[_O]],
    group: Sequence[_I],
    on_crash: Callable[[_I], _O],
    context: multiprocessing.context.BaseContext,
) -> list[_O]:
    results: list[_O] = []
    killed = True
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin_worker)
    try:
        for item in group:
            try:
                results.extend(pool.submit(function, [item]).result())
            except BrokenProcessPool:
                results.append(on_crash(item))
                pool.shutdown(wait=True)
                pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin_worker)
        killed = False
    finally:
        _stop(pool, killed)
    return results
