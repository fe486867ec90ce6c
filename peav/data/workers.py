"""A parallel map that keeps the order and survives the death of a worker process."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

_I = TypeVar("_I")
_O = TypeVar("_O")

_log = logging.getLogger(__name__)


def available_cpus() -> int:
    """Returns how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resilient_map(
    function: Callable[[Sequence[_I]], list[_O]],
    groups: Sequence[Sequence[_I]],
    workers: int,
    on_crash: Callable[[_I], _O],
    preload: Sequence[str] = (),
) -> Iterator[list[_O]]:
    """Maps `function` over groups of items in worker processes, and yields the results in order.

    When a worker dies (a decoder that crashes, the kernel short of memory) the groups in flight are run again an item at a time,
    each alone in a process; the item that kills its process gets `on_crash(item)`. Every other item gets its result.

    Args:
        function: picklable; takes a group and returns one result an item.
        groups: the items, in groups large enough to be worth sending.
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
    pool = ProcessPoolExecutor(workers, mp_context=context)
    flying: deque[tuple[Sequence[_I], Future[list[_O]]]] = deque()
    waiting = deque(groups)
    try:
        while waiting or flying:
            broken = False
            try:
                while waiting and len(flying) < 3 * workers:
                    flying.append((waiting[0], pool.submit(function, waiting[0])))
                    waiting.popleft()
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
            for group, future in suspects:
                finished = future.done() and not future.cancelled() and future.exception() is None
                yield future.result() if finished else _one_by_one(function, group, on_crash, context)
            pool = ProcessPoolExecutor(workers, mp_context=context)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(
    function: Callable[[Sequence[_I]], list[_O]],
    group: Sequence[_I],
    on_crash: Callable[[_I], _O],
    context: multiprocessing.context.BaseContext,
) -> list[_O]:
    results: list[_O] = []
    pool = ProcessPoolExecutor(1, mp_context=context)
    try:
        for item in group:
            try:
                results.extend(pool.submit(function, [item]).result())
            except BrokenProcessPool:
                results.append(on_crash(item))
                pool.shutdown(wait=True)
                pool = ProcessPoolExecutor(1, mp_context=context)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return results
