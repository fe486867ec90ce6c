"""What the benchmarks share: times of functions that run in turn, and the most that a call has allocated."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def timed(functions: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, tuple[float, float]]:
    """Returns the median seconds of each function, by the clock and of the CPU; they run in turn, after a round that warms up."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            begun, work = time.perf_counter(), time.process_time()
            function()
            if device == "cuda":
                torch.cuda.synchronize()
            found[name].append((time.perf_counter() - begun, time.process_time() - work))
    return {
        name: (statistics.median(wall for wall, _ in some[1:]), statistics.median(cpu for _, cpu in some[1:]))
        for name, some in found.items()
    }


def peak_megabytes(function: Callable[[], object], device: str) -> float:
    """Returns the most that a call has allocated at a time."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    held = peak = 0
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 1e6
