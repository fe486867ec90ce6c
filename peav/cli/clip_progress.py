"""The progress of a run over clips: a bar on a terminal, else a line in the log every ten seconds."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from peav.cli.progress_bar import progress_bar

_log = logging.getLogger(__name__)

#: Time between two lines of the log.
_LOG_SECONDS = 10.0

#: Time over which rates are taken: what was done before the run goes on says nothing about what is left.
_RATE_SECONDS = 60.0


class Tell(Protocol):
    """Is told how many clips were worked off, and how many tokens models wrote for them."""

    def __call__(self, clips: int, tokens: int = 0) -> None:
        """Takes what is new."""


class Rate:
    """How much a second, over the last minute.

    Args:
        now: time in seconds.
    """

    def __init__(self, now: float) -> None:
        self._held = deque([(now, 0)])
        self.total = 0

    def add(self, amount: int, now: float) -> None:
        """Takes what is new."""
        self.total += amount
        self._held.append((now, self.total))
        while len(self._held) > 2 and self._held[1][0] <= now - _RATE_SECONDS:
            self._held.popleft()

    def per_second(self, now: float) -> float:
        """Returns the rate.

        >>> rate = Rate(0.0)
        >>> for second in range(1, 200):
        ...     rate.add(1000 if second == 1 else 3, float(second))
        >>> rate.per_second(199.0)
        3.0
        """
        then, before = self._held[0]
        return (self.total - before) / max(now - then, 1e-9)


@contextmanager
def clip_progress(what: str, total: int) -> Iterator[Tell]:
    """Shows clips a second and the time that is left, and tokens a second where models write any.

    Args:
        what: the word before the bar.
        total: clips.
    """
    begun = then = time.monotonic()
    clips_rate, tokens_rate = Rate(begun), Rate(begun)
    if sys.stderr.isatty():
        with progress_bar() as bar:
            task = bar.add_task(what, total=total, unit="clips", more="")

            def show(clips: int, tokens: int = 0) -> None:
                now = time.monotonic()
                tokens_rate.add(tokens, now)
                bar.update(task, advance=clips, more=_tokens(tokens_rate, now))

            yield show
        return

    def tell(clips: int, tokens: int = 0) -> None:
        nonlocal then
        now = time.monotonic()
        clips_rate.add(clips, now)
        tokens_rate.add(tokens, now)
        if now - then >= _LOG_SECONDS:
            done, rate = clips_rate.total, clips_rate.per_second(now)
            left = f"{(total - done) / rate / 60:.0f}" if rate else "?"
            more = _tokens(tokens_rate, now)
            held = f"{rate:.1f} clips/s{', ' if more else ''}{more}"
            _log.info("%s: %s of %s clips, %s, %s min left", what, f"{done:,}", f"{total:,}", held, left)
            then = now

    yield tell


def _tokens(rate: Rate, now: float) -> str:
    return f"{rate.per_second(now):,.0f} tokens/s" if rate.total else ""
