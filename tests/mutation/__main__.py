"""Changes operators and constants of peav at random, one at a time, and says which changes no test notices.

    python -m tests.mutation --count 100                      all rooms but pictures and pages
    python -m tests.mutation --count 40 --only peav/data      one room
    python -m tests.mutation --count 100 --again              runs again what was not noticed

First, all tests run once under coverage, to know which of them run which lines (95 minutes on crowded cores); later, those that are new.
A run that was stopped goes on where it was; a larger count goes on from a smaller one. What cannot be noticed, since the changed program
does the same, is listed with the reason in tests/mutation/equivalent.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import queue
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from tests.mutation.bench import make_bench
from tests.mutation.mutants import Mutant, equivalents, sample
from tests.mutation.record import Record
from tests.mutation.trial import Trial

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """What came of a mutant.

    Attributes:
        key: of the mutant.
        place: file and line.
        diff: the change.
        status: `noticed`, `not noticed`, `unfinished` where the time was too short for the tests that run the line, or `equivalent`.
        by: the test that noticed it, how many did not, or the reason why none can.
        seconds: that it took.
        digest: of the file; another one makes the result void.
    """

    key: str
    place: str
    diff: str
    status: str
    by: str
    seconds: float
    digest: str


class Results:
    """The file of results: one entry a mutant, written whole after each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        entries: list[dict[str, Any]] = json.loads(path.read_text())["mutants"] if path.exists() else []
        self.by_key = {entry["key"]: Result(**entry) for entry in entries}

    def add(self, result: Result) -> None:
        """Adds a result."""
        with self._lock:
            self.by_key[result.key] = result
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_suffix(".partial")
            mutants = [asdict(item) for item in sorted(self.by_key.values(), key=lambda item: item.place)]
            partial.write_text(json.dumps({"mutants": mutants}, indent=1))
            partial.replace(self.path)


def run(root: Path, options: argparse.Namespace) -> list[Result]:
    """Tries the mutants of a checkout that have no result yet, and returns the results of all."""
    results, known, record = Results(options.out / "results.json"), equivalents(), Record(root, options.out / "tests")
    chosen = sample(root, tuple(options.only), options.seed)[: options.count]
    repeat = ("not noticed", "unfinished") if options.again else ("unfinished",)
    trials: queue.Queue[Trial] = queue.Queue()
    with contextlib.ExitStack() as stack:
        benches = [stack.enter_context(make_bench(root)) for _ in range(options.processes)]
        record.complete(benches[0])
        for bench in benches:
            trials.put(Trial(bench))

        def one(mutant: Mutant) -> None:
            begin, place = time.monotonic(), f"{mutant.file}:{mutant.change.line}"
            if mutant.name in known:
                status, by = "equivalent", known[mutant.name]
            else:
                trial = trials.get()
                try:
                    watching = record.watching(mutant)
                    status, by = trial.try_out(mutant, watching, record.rest(mutant, watching), options.seconds)
                finally:
                    trials.put(trial)
            seconds = round(time.monotonic() - begin, 1)
            diff = mutant.change.diff(mutant.source, mutant.file)
            results.add(Result(mutant.key(), place, diff, status, by, seconds, mutant.digest))
            print(f"{place} {mutant.change}: {status} {by} ({seconds:.0f} s)", flush=True)

        todo = []
        for mutant in chosen:
            old = results.by_key.get(mutant.key())
            if (
                old is None
                or old.digest != mutant.digest
                or old.status in repeat
                or (old.status == "equivalent") != (mutant.name in known)
            ):
                todo.append(mutant)
        with ThreadPoolExecutor(options.processes) as pool:
            try:
                list(pool.map(one, todo))
            except BaseException:
                for bench in benches:  # whose tests the pool would wait for
                    bench.close()
                raise
    return [results.by_key[mutant.key()] for mutant in chosen]


def main(root: Path = ROOT, arguments: list[str] | None = None) -> None:
    """Runs the check and prints what was not noticed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="changes to try")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the changes")
    parser.add_argument("--only", nargs="*", default=[], metavar="PATH", help="rooms or files, such as peav/data")
    parser.add_argument("--processes", type=int, default=1, help="changes that are tested side by side")
    parser.add_argument("--seconds", type=float, default=600, help="time for the tests of a change")
    parser.add_argument("--out", type=Path, default=Path("runs/mutation"), help="folder of results")
    parser.add_argument("--again", action="store_true", help="run again what was not noticed")
    options = parser.parse_args(arguments)
    results = run(root, options)
    for result in results:
        if result.status in ("not noticed", "unfinished"):
            print(f"\n{result.status}: {result.place}\n{result.diff}")
    counts = {
        status: sum(result.status == status for result in results)
        for status in dict.fromkeys(r.status for r in results)
    }
    tried = len(results) - counts.get("equivalent", 0)
    print(f"\n{counts.get('noticed', 0)} of {tried} changes were noticed; {counts}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
