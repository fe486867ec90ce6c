"""The progress of a run over clips: a bar on a terminal, else a line in the log every ten seconds."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from peav.cli.progress_bar import progress_bar

_log = logging.getLogger(__name__)

#: Time between two lines of the log.
_LOG_SECONDS = 10.0


@contextmanager
def clip_progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows clips a second and the time that is left; gives what is told how many clips were worked off.

    Args:
        what: the word before the bar.
        total: clips.
    """
    if sys.stderr.isatty():
        with progress_bar() as bar:
            task = bar.add_task(what, total=total, unit="clips")
            yield lambda clips: bar.advance(task, clips)
        return
    done, then, begun = 0, time.monotonic(), time.monotonic()

    def tell(clips: int) -> None:
        nonlocal done, then
        done += clips
        now = time.monotonic()
        if now - then >= _LOG_SECONDS:
            rate = done / (now - begun)
            left = (total - done) / rate / 60 if rate else 0.0
            _log.info("%s: %s of %s clips, %.1f clips/s, %.0f min left", what, f"{done:,}", f"{total:,}", rate, left)
            then = now

    yield tell
