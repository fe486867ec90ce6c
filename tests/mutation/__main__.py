"""Changes operators and constants of peav at random, one at a time, and says which changes no test notices.

    python -m tests.mutation --count 100                      all rooms but pictures and pages
    python -m tests.mutation --count 40 --only peav/data      one room
    python -m tests.mutation --count 100 --again              runs again what was not noticed

A run that was stopped goes on where it was; a larger count goes on from a smaller one. What cannot be noticed, since the changed program
does the same, is listed with the reason in tests/mutation/equivalent.json.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from tests.mutation.changes import Change, find_changes
from tests.mutation.selection import Tree, modules

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.json")

#: Of so many changes one is of a number or a flag, which are as many as all operators together, but seldom where a slip happens.
CONSTANT_EVERY = 4

#: A test that takes longer, in seconds, hangs.
TEST_SECONDS = 300

_log = logging.getLogger(__name__)


@lru_cache(maxsize=512)
def _lines(source: str) -> list[str]:
    return source.splitlines()


@dataclass(frozen=True)
class Mutant:
    """A change of a file of the package."""

    file: str
    change: Change
    source: str

    @property
    def text(self) -> str:
        """The line before the change."""
        return _lines(self.source)[self.change.line - 1].strip()

    def key(self, seed: int = 0) -> str:
        """Returns what tells it from others: it stays the same where other lines of the file change."""
        lines = _lines(self.source)[: self.change.line]
        parts = [seed, self.file, self.text, lines.count(lines[-1]), self.change.column, self.change.before]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Result:
    """What came of a mutant.

    Attributes:
        key: of the mutant.
        place: file and line.
        diff: the change.
        status: `noticed`, `not noticed`, `unfinished` where the time was too short for all tests, or `equivalent`.
        by: the test that noticed it, or the reason why none can.
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


def sample(root: Path, only: tuple[str, ...], seed: int) -> list[Mutant]:
    """Returns all mutants of the files that begin with one of `only`, in random order: three operators, then a constant."""
    found = []
    for file in modules(root):
        if not only or file.startswith(only):
            source = (root / file).read_text()
            found += [Mutant(file, change, source) for change in find_changes(source)]
    found = sorted(found, key=lambda mutant: mutant.key(seed))
    operators = [mutant for mutant in found if mutant.change.is_operator]
    constants = [mutant for mutant in found if not mutant.change.is_operator]
    order: list[Mutant] = []
    for number, constant in enumerate(constants):
        order += [*operators[(CONSTANT_EVERY - 1) * number : (CONSTANT_EVERY - 1) * (number + 1)], constant]
    return order + operators[(CONSTANT_EVERY - 1) * len(constants) :]


def digest(mutant: Mutant) -> str:
    """Returns which source a result is about."""
    return hashlib.blake2b(mutant.source.encode(), digest_size=8).hexdigest()


def equivalents(path: Path = EQUIVALENT) -> dict[tuple[str, str, str, str], str]:
    """Returns the reason by (file, line, before, after) of the mutants that nothing can notice."""
    if not path.exists():
        return {}
    return {tuple(item["change"]): item["reason"] for item in json.loads(path.read_text())}


class Bench:
    """A copy of the checkout in which a mutant is tested."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        names = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            check=True,
        ).stdout
        for name in filter(None, names.decode().split("\0")):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (root / name).is_file():
                shutil.copy2(root / name, target)

    def pytest(self, arguments: list[str], seconds: float) -> tuple[int | None, str]:
        """Runs tests until one fails; returns pytest's exit code, None when the time is up, and what it printed."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-m",
            "not slow",
            "-p",
            "no:cacheprovider",
            "--no-header",
        ]
        command += ["--tb=no", f"--timeout={TEST_SECONDS}", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output = process.communicate(timeout=seconds)[0]
            return process.returncode, output
        except subprocess.TimeoutExpired:
            return None, ""
        finally:
            # Workers that a changed loader left behind too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def try_out(self, mutant: Mutant, files: list[str], seconds: float) -> tuple[str, str]:
        """Returns the status of a mutant, and the test that noticed it.

        A test counts that fails twice with the change and passes without it.
        """
        path, end = self.folder / mutant.file, time.monotonic() + seconds
        ignored: list[str] = []
        while True:
            path.write_text(mutant.change.apply(mutant.source))
            try:
                code, output = self.pytest([*files, *ignored], end - time.monotonic())
                if code is None:
                    return "unfinished", ""
                if code in (0, 5):
                    return "not noticed", ""
                failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
                if not failed:
                    return "noticed", output.strip().splitlines()[-1] if output.strip() else f"exit code {code}"
                again, _ = self.pytest(failed[:1], 2 * TEST_SECONDS)
            finally:
                path.write_text(mutant.source)
            whole, _ = self.pytest(failed[:1], 2 * TEST_SECONDS)
            if again not in (0, 5) and whole in (0, 5):
                return "noticed", failed[0]
            _log.warning("%s fails now and then, or without the change: it does not count", failed[0])
            ignored.append(f"--deselect={failed[0]}")


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
    tree, results, known = Tree(root), Results(options.out), equivalents()
    chosen = sample(root, tuple(options.only), options.seed)[: options.count]
    repeat = ("not noticed", "unfinished") if options.again else ("unfinished",)
    benches: queue.Queue[Bench] = queue.Queue()
    with tempfile.TemporaryDirectory(prefix="peav-mutation-") as folder:
        for number in range(options.processes):
            benches.put(Bench(root, Path(folder) / str(number)))

        def one(mutant: Mutant) -> None:
            begin, place = time.monotonic(), f"{mutant.file}:{mutant.change.line}"
            reason = known.get((mutant.file, mutant.text, mutant.change.before, mutant.change.after))
            if reason is not None:
                status, by = "equivalent", reason
            else:
                bench = benches.get()
                try:
                    status, by = bench.try_out(mutant, tree.select(mutant.file), options.seconds)
                finally:
                    benches.put(bench)
            seconds = round(time.monotonic() - begin, 1)
            diff = mutant.change.diff(mutant.source, mutant.file)
            results.add(Result(mutant.key(), place, diff, status, by, seconds, digest(mutant)))
            print(f"{place} {mutant.change}: {status} {by} ({seconds:.0f} s)", flush=True)

        todo = []
        for mutant in chosen:
            old = results.by_key.get(mutant.key())
            if old is None or old.digest != digest(mutant) or old.status in repeat:
                todo.append(mutant)
        with ThreadPoolExecutor(options.processes) as pool:
            list(pool.map(one, todo))
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
    parser.add_argument("--seconds", type=float, default=900, help="time for the tests of a change")
    parser.add_argument("--out", type=Path, default=Path("runs/mutation.json"), help="file of results")
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
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    main()
