"""How far a long run is: a bar on a terminal, else a line in the log every ten seconds."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from peav.types import Seconds

_log = logging.getLogger(__name__)

#: Time between two lines of the log.
LOG_SECONDS: Seconds = 10.0


class _Rate(ProgressColumn):
    """Clips a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.0f} clips/s" if speed else "- clips/s")


@contextmanager
def tracked(what: str, total: int | None, show: bool = True) -> Iterator[Callable[[], None]]:
    """Shows how far a run is; gives what is to be called after each clip.

    Args:
        what: the word before the bar.
        total: clips; None where nobody knows.
        show: whether to show anything.
    """
    if not show:
        yield lambda: None
    elif sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)
    else:
        yield _Lines(what, total)


class _Lines:
    """Writes lines to the log."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what, self._total = what, total
        self._done = self._done_then = 0
        self._then = time.monotonic()

    def __call__(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._then < LOG_SECONDS:
            return
        rate = (self._done - self._done_then) / (now - self._then)
        of = "" if self._total is None else f" of {self._total:,}"
        rest = "" if self._total is None else f", {max(0, self._total - self._done) / rate / 60:.0f} min left"
        _log.info("%s: %s%s clips, %.1f clips/s%s", self._what, f"{self._done:,}", of, rate, rest)
        self._then, self._done_then = now, self._done
