"""The check that changes operators: what it changes, which tests it runs, and what it says of a small package."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mutation.__main__ import ROOT, main
from tests.mutation.bench import make_bench
from tests.mutation.changes import Change, find_changes
from tests.mutation.mutants import Mutant, equivalents, sample
from tests.mutation.record import Place, Record, Test, line_key
from tests.mutation.selection import PICTURES, Tree, modules
from tests.mutation.trial import Trial, batches

SOURCE = '''
"""Nothing of 1 < 2 here."""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    LIMIT = 3


def f(x: int | None, *, strict: bool = True) -> float | None:  # a > b
    é = "ä", x == 1.5
    total: int | float = -x
    if not strict and x is not None or f"{x + 1}" in é:
        total += (  # -
            x
            % min(x, 0x10)
        )
    return list(zip(é, é, strict=True)) <= total
'''


def test_what_is_changed() -> None:
    changes = find_changes(SOURCE)
    assert [(change.before, change.after) for change in changes] == [
        *(("True", "False"), ("==", "!="), ("1.5", "2.5"), ("-", ""), ("not ", ""), ("and", "or"), ("is not", "is")),
        *(("or", "and"), ("in", "not in"), ("+=", "-="), ("%", "//"), ("min", "max"), ("0x10", "17"), ("<=", "<")),
    ]
    for change in changes:
        changed = change.apply(SOURCE)
        ast.parse(changed)
        (line,) = [i for i, (a, b) in enumerate(zip(SOURCE.splitlines(), changed.splitlines(), strict=True)) if a != b]
        assert line == change.line - 1
    assert changes[1].diff(SOURCE, "f.py").splitlines()[1:] == ['-    é = "ä", x == 1.5', '+    é = "ä", x != 1.5']
    with pytest.raises(ValueError, match="in the place of '>'"):
        Change(2, 0, ">", "<").apply(SOURCE)


def test_the_order_is_the_same_each_time_and_three_of_four_are_operators() -> None:
    only = ("peav/data/loading", "peav/masking.py")
    first, again, other = sample(ROOT, only, 0), sample(ROOT, only, 0), sample(ROOT, only, 1)
    assert first == again and first != other and sorted(map(str, first)) == sorted(map(str, other))
    assert [mutant.change.is_operator for mutant in first[:40]] == 10 * [True, True, True, False]
    for mutant in first[::10]:
        ast.parse(mutant.change.apply(mutant.source))
    # A line elsewhere in the file changes nothing of what a mutant is called.
    (mutant, *_) = first
    moved = Change(mutant.change.line + 1, mutant.change.column, mutant.change.before, mutant.change.after)
    assert Mutant(mutant.file, moved, f"# a comment\n{mutant.source}").key() == mutant.key()


def test_the_tests_of_a_module_come_first() -> None:
    tree = Tree(ROOT)
    plan = tree.select("peav/data/loading/plan.py")
    assert plan[:2] == ["peav/data/loading/plan.py", "tests/data/loading/test_plan.py"]
    assert {"tests/data/loading/test_loading.py", "tests/data/loading/test_origins.py"} <= set(plan)
    assert "tests/cli/test_data.py" in tree.select("peav/data/curation/edit.py")
    assert not set(PICTURES) & set(modules(ROOT)) and all((ROOT / path).is_file() for path in PICTURES)
    for module in modules(ROOT)[::12]:
        found = tree.select(module)
        assert len(found) == len(set(found)) and all((ROOT / path).is_file() for path in found)


def test_equivalent_changes_are_still_there() -> None:
    """A reason whose line has gone is taken out of the list."""
    files = tuple(file for file, *_ in equivalents()) or ("none",)
    found = {mutant.name for mutant in sample(ROOT, files, 0)}
    assert set(equivalents()) <= found and all(len(reason) > 20 for reason in equivalents().values())


PLACES = """LIMIT = (
    3
)


@cached(size=2)
def f(
    x: int = 4,
) -> int:
    if x < 5 and (
        x > 6
    ):
        x += 7
    else:
        x -= 8
    try:
        return g(
            9
        )
    except Error:
        return 10


class C:
    WIDTH: int = 11

    def m(self, y=12):
        return y * 13
"""


@pytest.mark.parametrize(
    ("number", "place"),
    [
        ("3", Place((1, 2, 3), at_import=True, names=("LIMIT",))),
        ("2", Place(tuple(range(10, 22)), at_import=True)),
        ("4", Place(tuple(range(10, 22)), at_import=True)),
        ("5", Place((10, 11, 12))),
        ("6", Place((10, 11, 12))),
        ("8", Place((15,))),
        ("9", Place((17, 18, 19))),
        ("10", Place((21,))),
        ("11", Place((25,), at_import=True, names=("WIDTH",))),
        ("12", Place((28,), at_import=True)),
        ("13", Place((28,))),
    ],
)
def test_which_lines_run_where_a_change_runs(number: str, place: Place) -> None:
    (change,) = [change for change in find_changes(PLACES) if change.before == number]
    assert Place.of(Mutant("peav/f.py", change, PLACES)) == place


def test_runs_of_tests_double_and_hold_the_tests_of_a_file_together() -> None:
    tests = [Test(f"tests/test_{'ab'[k % 2]}.py::test_{k}", 2.0) for k in range(12)]
    found = list(batches(tests))
    assert [len(batch) for batch in found] == [3, 6, 3]
    assert sorted((test for batch in found for test in batch), key=tests.index) == tests
    assert all([test.file for test in batch] == sorted(test.file for test in batch) for batch in found)
    assert [len(batch) for batch in batches([Test("t.py::slow", 100.0), *tests[:1]])] == [1, 1]


PACKAGE = {
    "peav/__init__.py": "",
    "peav/sums.py": """LIMIT = 5


def add(a, b):
    return a + b


def unwatched(a, b):
    return a * b


def limited(a):
    return min(a, LIMIT)
""",
    "peav/__main__.py": "from peav.sums import limited\n\nprint(limited(9))\n",
    "peav/loops.py": """import os


def count(n):
    while n != 0:
        n -= 1
    return n


def alive(n):
    if n > 1:
        os.kill(os.getpid(), 9)
    return True


def made(n):
    return list(range(n + 1))
""",
    "tests/__init__.py": "",
    "tests/test_sums.py": """import subprocess
import sys

import pytest

from peav.sums import add


@pytest.fixture(scope="module")
def five():
    return add(2, 3)


def test_printed():
    assert subprocess.run([sys.executable, "-m", "peav"], capture_output=True, check=True).stdout == b"5\\n"


def test_slower(five):
    assert five == 5


def test_a_sum(five):
    assert five == 5


def test_that_fails():
    assert add(1, 1) == 3


@pytest.mark.slow
def test_slow():
    assert add(1, 1) == 3
""",
    "tests/test_loops.py": """import pytest

from peav.loops import alive, count, made


@pytest.mark.parametrize("n", made(2))
def test_count(n):
    assert count(n) == 0


def test_alive():
    assert alive(1)
""",
    "pytest.ini": "[pytest]\nmarkers = slow\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    for name, text in PACKAGE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def mutant(root: Path, file: str, before: str) -> Mutant:
    """Returns the change of an operator or number that a file has once."""
    source = (root / file).read_text()
    (change,) = [change for change in find_changes(source) if change.before == before]
    return Mutant(file, change, source)


def test_which_tests_run_a_line_and_what_a_crash_or_a_hang_is(checkout: Path, tmp_path: Path) -> None:
    record = Record(checkout, tmp_path / "record")
    with make_bench(checkout) as bench:
        record.complete(bench)
        add, limit = mutant(checkout, "peav/sums.py", "+"), mutant(checkout, "peav/sums.py", "5")
        names = [test.name for test in record.watching(add)]
        # Of those that share a fixture both; not those that fail, nor the slow ones.
        assert sorted(names) == ["tests/test_sums.py::test_a_sum", "tests/test_sums.py::test_slower"]
        assert record.watching(mutant(checkout, "peav/sums.py", "*")) == []
        # In a process that the test starts, too; what is made at import is watched by those that run what uses it.
        assert [test.name for test in record.watching(mutant(checkout, "peav/sums.py", "min"))] == [
            "tests/test_sums.py::test_printed"
        ]
        assert "tests/test_sums.py::test_printed" in [test.name for test in record.watching(limit)]
        assert [test.name for test in record.rest(add, record.watching(add))] == ["tests/test_sums.py::test_printed"]

        trial = Trial(bench, hang_seconds=1)
        for file, before, by in (
            ("peav/sums.py", "5", "tests/test_sums.py::test_printed"),
            ("peav/loops.py", "!=", "tests/test_loops.py::test_count"),
            ("peav/loops.py", "-=", "tests/test_loops.py::test_count"),
            ("peav/loops.py", ">", "tests/test_loops.py::test_alive"),
        ):
            changed = mutant(checkout, file, before)
            status, noticed_by = trial.try_out(changed, record.watching(changed), [], 100)
            assert status == "noticed" and noticed_by.startswith(by), (before, noticed_by)
        # Too short a time for the tests that run the line is no result; fewer tests than there were notice nothing.
        assert trial.try_out(add, record.watching(add), [], 0) == ("unfinished", "")
        fewer = mutant(checkout, "peav/loops.py", "+")
        tests = record.tests["tests/test_loops.py"]
        assert trial.try_out(fewer, tests, [], 100) == ("not noticed", "by 4 tests that run the line and 0 others")
        # Tests that fail without a change, or that fail once, do not count.
        failing = Test("tests/test_sums.py::test_that_fails", 0.1)
        unwatched = mutant(checkout, "peav/sums.py", "*")
        assert trial.try_out(unwatched, [failing], [], 100)[0] == "not noticed"
    assert record.missing() == []
    # A record is of use where other lines have changed; one of tests that changed is made again.
    (checkout / "peav/sums.py").write_text("# a comment\n" + PACKAGE["peav/sums.py"])
    assert [test.name for test in record.watching(mutant(checkout, "peav/sums.py", "+"))] == names
    (checkout / "tests/test_loops.py").write_text("# a comment\n" + PACKAGE["tests/test_loops.py"])
    assert record.missing() == ["tests/test_loops.py"]


def test_who_ends_the_check_ends_the_tests_that_it_runs(checkout: Path) -> None:
    begun = checkout / "begun"
    sleeping = (
        "import os, time\n\n\ndef test_long():\n    open({!r}, 'w').write(str(os.getpid()))\n    time.sleep(100)\n"
    )
    (checkout / "tests/test_long.py").write_text(sleeping.format(str(begun)))
    with make_bench(checkout) as bench, ThreadPoolExecutor(1) as pool:
        running = pool.submit(bench.pytest, ["tests/test_long.py"], 100)
        while not begun.exists() or not begun.read_text():
            time.sleep(0.05)
        bench.close()
        with pytest.raises(RuntimeError, match="ended with exit code 143"):
            running.result(timeout=60)
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)


def test_a_line_is_known_by_its_text_and_place() -> None:
    lines = ("a = 1", "b = 2", "a = 1")
    assert line_key(lines, 1) == line_key(("# new", *lines), 2) != line_key(lines, 3) == line_key(("# new", *lines), 4)


def test_a_small_package(checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, only = tmp_path / "results", ["--only", "peav/sums.py", "--out", str(tmp_path / "results")]
    main(checkout, [*only, "--processes", "2"])
    assert "3 of 4 changes were noticed" in capsys.readouterr().out
    found = {item["place"]: item for item in json.loads((out / "results.json").read_text())["mutants"]}
    assert found["peav/sums.py:5"]["status"] == "noticed"
    assert found["peav/sums.py:9"]["status"] == "not noticed"
    assert found["peav/sums.py:9"]["by"].startswith("by 0 tests that run the line")
    assert "-    return a * b\n+    return a / b" in found["peav/sums.py:9"]["diff"]
    assert {path: (checkout / path).read_text() for path in PACKAGE} == PACKAGE
    # What has a result is not tried again, and no test is recorded again.
    before = (out / "results.json").read_text()
    main(checkout, only)
    assert (out / "results.json").read_text() == before and " s)" not in capsys.readouterr().out
