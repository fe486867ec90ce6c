"""Work that waits for its turn: first come, first served, and no endless queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

_R = TypeVar("_R")


class Busy(RuntimeError):  # noqa: N818  the name says what is the matter
    """More wait than may."""


class Turns:
    """Runs functions in threads, so many at once; others wait in the order in which they came.

    Args:
        at_once: that run.
        waiting: that may wait.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self.at_once, self.most = at_once, at_once + waiting
        self.held = 0
        self._limiter: CapacityLimiter | None = None

    async def run(self, function: Callable[..., _R], *arguments: Any) -> _R:
        """Runs a function when its turn comes.

        Raises:
            Busy: if too many wait.
        """
        if self._limiter is None:
            self._limiter = CapacityLimiter(self.at_once)
        if self.held >= self.most:
            raise Busy("the server is busy: try again in a moment")
        self.held += 1
        try:
            return await to_thread.run_sync(function, *arguments, limiter=self._limiter)
        finally:
            self.held -= 1
