"""Which tests run which lines, and how long they take: all run once under coverage, and a file is kept for each file of tests.

Lines are known by their text and not by their number, so that a record stays of use where other lines of a file change. A file of tests
that has changed is recorded again. What else has changed makes a record less of a help, and no result wrong: all other tests that may
notice a change are run after those that are known to run its line.
"""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from tests.mutation.bench import Bench, Run
from tests.mutation.mutants import Mutant
from tests.mutation.selection import Tree
from tests.mutation.warm import CONTEXT

#: The time that the tests of a file may take, in seconds.
FILE_SECONDS = 1800

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Test:
    """A test that passes.

    Attributes:
        name: its node id.
        seconds: that it takes alone, with the fixtures that it shares with others.
    """

    __test__ = False

    name: str
    seconds: float

    @property
    def file(self) -> str:
        """The file it is in."""
        return self.name.split("::")[0]


class Record:
    """The record of a checkout.

    Args:
        root: the checkout.
        folder: of the record.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder, self.tree = root, folder, Tree(root)

    def files(self) -> list[str]:
        """Returns the files with tests: those of tests/ and the examples of the package, without the tests of this check."""
        examples = [path for path in self.tree.package if ">>>" in (self.root / path).read_text()]
        return [path for path in [*self.tree.tests, *examples] if not path.startswith("tests/mutation/")]

    def missing(self) -> list[str]:
        """Returns the files whose tests have changed since they were recorded, or never were."""
        return [file for file in self.files() if self._read(file) is None]

    def complete(self, bench: Bench) -> None:
        """Records what is missing, file by file: a run that was stopped goes on where it was."""
        missing = self.missing()
        for number, file in enumerate(missing):
            entry = _record(bench, file)
            passed = sum(test["outcome"] == "passed" for test in entry["tests"].values())
            _log.info(
                "recorded %d of %d files: %d of %d tests pass in %s",
                number + 1,
                len(missing),
                passed,
                len(entry["tests"]),
                file,
            )
            path = self._path(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps({"digest": _digest(bench.folder / file), **entry}))
            partial.replace(path)
        for name in ("_entries", "tests"):
            self.__dict__.pop(name, None)

    @cached_property
    def _entries(self) -> list[dict[str, Any]]:
        return [entry for file in self.files() if (entry := self._read(file)) is not None]

    @cached_property
    def tests(self) -> dict[str, list[Test]]:
        """The tests that pass, by file."""
        found: dict[str, list[Test]] = {}
        for entry in self._entries:
            for name, test in entry["tests"].items():
                if test["outcome"] == "passed":
                    found.setdefault(name.split("::")[0], []).append(Test(name, test["seconds"]))
        return found

    def runs(self, file: str, lines: Iterable[str] | None = None) -> set[str]:
        """Returns the names of the tests that run one of some lines of a module, by the lines' keys, or any."""
        found: set[str] = set()
        for entry in self._entries:
            known: dict[str, int] = entry["lines"].get(file, {})
            mask = 0
            for key in known if lines is None else lines:
                mask |= known.get(key, 0)
            if mask:
                found |= {name for number, name in enumerate(entry["tests"]) if mask >> number & 1}
        return found

    def watching(self, mutant: Mutant) -> list[Test]:
        """Returns the tests that run the line of a mutant, or what a value that is made at import is used in, the quickest first."""
        lines = _lines(mutant.source)
        names: set[str] = set()
        place = Place.of(mutant)
        names |= self.runs(mutant.file, {line_key(lines, number) for number in place.lines})
        if place.at_import:
            names |= self.runs(mutant.file, {line_key(lines, number) for number in sorted(inner_lines(mutant.source))})
        for name in place.names:
            for path in self.tree.package:
                source = (self.root / path).read_text()
                if name in source:
                    used = [n for n in inner_lines(source) if re.search(rf"\b{name}\b", _lines(source)[n - 1])]
                    names |= self.runs(path, {line_key(_lines(source), number) for number in used})
        return sorted(
            (t for tests in self.tests.values() for t in tests if t.name in names), key=lambda test: test.seconds
        )

    def rest(self, mutant: Mutant, watching: Iterable[Test]) -> list[Test]:
        """Returns the other tests of the rooms that may notice a change.

        First those that run another line of its module, the quickest before the others; then the rest, in the order of the rooms.
        """
        known, module = {test.name for test in watching}, self.runs(mutant.file)
        files = self.tree.select(mutant.file)
        found = [test for file in files for test in self.tests.get(file, []) if test.name not in known]
        return sorted(
            found,
            key=lambda test: (test.name not in module, test.seconds if test.name in module else files.index(test.file)),
        )

    def _path(self, file: str) -> Path:
        return self.folder / f"{file.removesuffix('.py').replace('/', '.')}.json"

    def _read(self, file: str) -> dict[str, Any] | None:
        path = self._path(file)
        entry = json.loads(path.read_text()) if path.exists() else None
        return entry if entry is not None and entry["digest"] == _digest(self.root / file) else None


@dataclass(frozen=True)
class Place:
    """Where a mutant stands.

    Attributes:
        lines: numbers of the lines that run where it runs: those of its statement, or of the function whose default it is.
        at_import: whether it runs when its module is imported.
        names: what is made there, for others to use.
    """

    lines: tuple[int, ...]
    at_import: bool = False
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, mutant: Mutant) -> Place:
        """Returns the place of a mutant."""
        return _place(mutant.source, mutant.change.line)


@lru_cache(maxsize=2048)
def _place(source: str, line: int) -> Place:
    outer: list[ast.stmt] = []
    body: list[ast.stmt] = ast.parse(source).body
    while True:
        inner = [node for node in body if _begin(node) <= line <= (node.end_lineno or 0)]
        if not inner:
            break
        outer.append(inner[0])
        body = list(_children(inner[0]))
    if not outer:
        return Place((line,), at_import=True)
    statement = outer[-1]
    functions = [node for node in outer if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if functions and functions[-1] is statement:
        return Place(
            tuple(range(statement.body[0].lineno, (statement.end_lineno or 0) + 1)), at_import=len(functions) == 1
        )
    first = next(iter(_children(statement)), None)
    end = (_begin(first) - 1) if first is not None else statement.end_lineno or line
    lines = tuple(range(_begin(statement), max(end, line, _begin(statement)) + 1))
    if functions:
        return Place(lines)
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return Place(lines, at_import=True, names=tuple(target.id for target in targets if isinstance(target, ast.Name)))


def _begin(node: ast.stmt) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def _children(node: ast.stmt) -> Iterator[ast.stmt]:
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, name, []):
            if isinstance(child, ast.stmt):
                yield child
            else:  # an `except` or a `case`
                yield from child.body


@lru_cache(maxsize=512)
def inner_lines(source: str) -> frozenset[int]:
    """Returns the numbers of the lines inside functions."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found |= set(range(node.body[0].lineno, (node.end_lineno or 0) + 1))
    return frozenset(found)


@lru_cache(maxsize=512)
def _lines(source: str) -> tuple[str, ...]:
    return tuple(source.splitlines())


@lru_cache(maxsize=512)
def _keys(lines: tuple[str, ...]) -> list[str]:
    seen: dict[str, int] = defaultdict(int)
    keys = []
    for line in lines:
        seen[line] += 1
        keys.append(hashlib.blake2b(f"{seen[line]} {line}".encode(), digest_size=6).hexdigest())
    return keys


def line_key(lines: tuple[str, ...], number: int) -> str:
    """Returns what tells a line from others: its text, and how many lines of that text are above it."""
    return _keys(lines)[number - 1]


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def _record(bench: Bench, file: str) -> dict[str, Any]:
    """Runs the tests of a file under coverage, in this process's children and in theirs."""
    from coverage import Coverage

    folder = bench.folder.parent / "coverage"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    settings = folder / "settings.ini"
    settings.write_text(
        f"[run]\nsource = {bench.folder / 'peav'}\ndata_file = {folder / 'data'}\nparallel = true\n"
        f"concurrency = multiprocessing, thread\ncontext = ${{{CONTEXT}-}}\ndisable_warnings = no-data-collected, module-not-measured\n"
    )
    run = bench.pytest([file], FILE_SECONDS, settings)
    if run.code not in (0, 1, 5):
        _log.warning("%s ended with %s: %s", file, run.code, run.output[-2000:])
    tests = _tests(run)
    masks = _masks(run, list(tests))
    total = Coverage(data_file=str(folder / "whole"), config_file=False)
    total.combine([str(path) for path in folder.glob("data.*")], strict=True)
    data = total.get_data()
    lines: dict[str, dict[str, int]] = {}
    for path in sorted(data.measured_files()):
        module = Path(path).relative_to(bench.folder.resolve()).as_posix()
        source = _lines((bench.folder / module).read_text())
        for number, contexts in data.contexts_by_lineno(path).items():
            mask = 0
            for context in contexts:
                mask |= masks.get(context, 0)
            if mask and number:  # an empty file has a line 0
                lines.setdefault(module, {})[line_key(source, number)] = mask
    return {"tests": tests, "lines": lines}


def _tests(run: Run) -> dict[str, Any]:
    shared = {event["name"]: event["seconds"] for event in run.events if event["event"] == "fixture"}
    found, paid = {}, set[str]()
    for event in run.events:
        if event["event"] == "end":
            # The first test has waited for the fixtures; alone each would.
            waited = sum(shared.get(name, 0.0) for name in event["fixtures"] if name in paid)
            paid |= set(event["fixtures"])
            seconds = round(event["seconds"] + waited, 3)
            found[event["name"]] = {"outcome": event["outcome"], "seconds": seconds, "fixtures": event["fixtures"]}
    return found


def _masks(run: Run, names: list[str]) -> dict[str, int]:
    """Returns a bit for each test, by the name of the context: a fixture that tests share runs for each of them."""
    masks: dict[str, int] = defaultdict(int)
    for number, name in enumerate(names):
        masks[name] = 1 << number
    for event in run.events:
        if event["event"] == "end":
            for fixture in event["fixtures"]:
                masks[f"fixture {fixture}"] |= masks[event["name"]]
    return masks
