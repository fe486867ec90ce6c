"""The check that changes operators: what it changes, which tests it runs, and what it says of a small package."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

import pytest

from tests.mutation.__main__ import ROOT, Mutant, equivalents, main, sample
from tests.mutation.changes import Change, find_changes
from tests.mutation.selection import PICTURES, Tree, modules

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
    found = {(m.file, m.text, m.change.before, m.change.after) for m in sample(ROOT, files, 0)}
    assert set(equivalents()) <= found and all(len(reason) > 20 for reason in equivalents().values())


def test_a_small_package(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = tmp_path / "checkout"
    files = {
        "peav/__init__.py": "",
        "peav/sums.py": "def add(a, b):\n    return a + b\n\n\ndef unwatched(a, b):\n    return a * b\n",
        "tests/__init__.py": "",
        "tests/test_sums.py": "from peav.sums import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    out = tmp_path / "results.json"
    main(root, ["--out", str(out), "--processes", "2"])
    assert "1 of 2 changes were noticed" in capsys.readouterr().out
    found = {item["place"]: item for item in json.loads(out.read_text())["mutants"]}
    assert found["peav/sums.py:2"]["status"] == "noticed"
    assert found["peav/sums.py:2"]["by"] == "tests/test_sums.py::test_add"
    assert found["peav/sums.py:6"]["status"] == "not noticed"
    assert "-    return a * b\n+    return a / b" in found["peav/sums.py:6"]["diff"]
    assert {path: (root / path).read_text() for path in files} == files
    # What has a result is not tried again.
    before = out.read_text()
    main(root, ["--out", str(out)])
    assert out.read_text() == before and capsys.readouterr().out.count(" s)") == 0
