"""Tries a change: the tests that run its line first, the quickest of them before the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence

from tests.mutation.bench import Bench, Run
from tests.mutation.mutants import Mutant
from tests.mutation.record import Test

#: How long the first tests take together, in seconds; each further run of tests may take twice as long.
FIRST_SECONDS = 6

#: A test hangs that takes so many times as long as it did, and some seconds.
HANG_TIMES, HANG_SECONDS = 10, 60.0

_log = logging.getLogger(__name__)


class Trial:
    """Tries changes on a bench, and remembers which tests pass there without one.

    Args:
        bench: a copy of the checkout.
        hang_seconds: which a test may take at least.
    """

    def __init__(self, bench: Bench, hang_seconds: float = HANG_SECONDS) -> None:
        self.bench, self.hang_seconds = bench, hang_seconds
        self._passing: dict[str, bool] = {}

    def try_out(
        self, mutant: Mutant, watching: Sequence[Test], rest: Sequence[Test], seconds: float
    ) -> tuple[str, str]:
        """Returns the status of a mutant, and the test that noticed it or who did not.

        A test counts that fails twice with the change and passes without it; so does one that crashes or hangs.

        Args:
            mutant: the change.
            watching: the tests that run its line. Where time is too short for them, the mutant is `unfinished`.
            rest: what is run when they all pass, as far as the time allows.
            seconds: for all of them.
        """
        end = time.monotonic() + seconds
        for tests in (watching, rest):
            for batch in batches(tests):
                noticed, finished = self._try_batch(mutant, batch, end)
                if noticed:
                    return "noticed", noticed
                if not finished:
                    return (
                        ("unfinished", "")
                        if tests is watching
                        else ("not noticed", f"by {len(watching)} tests that run the line")
                    )
        return "not noticed", f"by {len(watching)} tests that run the line and {len(rest)} others"

    def _try_batch(self, mutant: Mutant, batch: list[Test], end: float) -> tuple[str, bool]:
        """Returns the test that notices a mutant, and whether all were run."""
        left = {test.name: test for test in batch}
        while left:
            limit, remaining = self._limit(left.values()), end - time.monotonic()
            if remaining <= 0:
                return "", False
            with self.bench.changed(mutant):
                run = self._run(list(left), left.values(), min(limit, remaining))
                if run.code is None and remaining < limit:
                    return "", False
                if run.code == 0:
                    return "", True
                # Where no test is to blame, a file cannot be collected, or nothing at all, or a test is no longer there.
                blamed = [left[run.culprit]] if run.culprit in left else []
                files = sorted({test.file for test in left.values()})
                arguments = (
                    [blamed[0].name] if blamed else ["--collect-only", *([run.culprit] if run.culprit else files)]
                )
                again = self._run(arguments, blamed, self._limit(blamed))
            gone = left.keys() - again.collected if again.code == 0 and not blamed else set()
            if gone:
                # By a parameter that is made from the package: a test that is not run notices nothing.
                left = {name: test for name, test in left.items() if name not in gone}
                continue
            if again.code != 0 and self._passes(arguments):
                return run.culprit or "the start of all tests", True
            _log.warning("%s fails now and then, or without the change: it does not count", run.culprit)
            if not blamed:
                return "", False
            for name in [name for name, outcome in run.outcomes.items() if outcome != "failed"] + [blamed[0].name]:
                left.pop(name, None)
        return "", True

    def _run(self, arguments: list[str], tests: Iterable[Test], seconds: float) -> Run:
        longest = max((test.seconds for test in tests), default=0.0)
        return self.bench.pytest([*arguments, f"--timeout={self.hang_seconds + HANG_TIMES * longest:.0f}"], seconds)

    def _limit(self, tests: Iterable[Test]) -> float:
        """Returns the seconds after which a run of tests hangs where pytest cannot end it itself."""
        return 3 * HANG_SECONDS + HANG_TIMES * sum(test.seconds for test in tests)

    def _passes(self, arguments: list[str]) -> bool:
        key = " ".join(arguments)
        if key not in self._passing:
            self._passing[key] = self.bench.pytest(arguments, 600).code == 0
        return self._passing[key]


def batches(tests: Iterable[Test]) -> Iterator[list[Test]]:
    """Yields tests in runs of twice the seconds each, those of a file side by side: they share fixtures."""
    batch: list[Test] = []
    limit, total = float(FIRST_SECONDS), 0.0
    for test in tests:
        if batch and total + test.seconds > limit:
            yield sorted(batch, key=lambda item: item.file)
            batch, limit, total = [], 2 * limit, 0.0
        batch.append(test)
        total += test.seconds
    if batch:
        yield sorted(batch, key=lambda item: item.file)
