"""Changes of the package as they are counted: in which order they are tried, and what is known of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tests.mutation.changes import Change, find_changes
from tests.mutation.selection import modules

EQUIVALENT = Path(__file__).with_name("equivalent.json")

#: Of so many changes one is of a number or a flag, which are as many as all operators together, but seldom where a slip happens.
CONSTANT_EVERY = 4


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

    @property
    def name(self) -> tuple[str, str, str, str]:
        """File, line, before and after: how `equivalent.json` calls it."""
        return self.file, self.text, self.change.before, self.change.after

    def key(self, seed: int = 0) -> str:
        """Returns what tells it from others: it stays the same where other lines of the file change."""
        lines = _lines(self.source)[: self.change.line]
        parts = [seed, self.file, self.text, lines.count(lines[-1]), self.change.column, self.change.before]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()

    @property
    def digest(self) -> str:
        """Which source a result is about."""
        return hashlib.blake2b(self.source.encode(), digest_size=8).hexdigest()


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


def equivalents(path: Path = EQUIVALENT) -> dict[tuple[str, str, str, str], str]:
    """Returns the reason by (file, line, before, after) of the mutants that nothing can notice."""
    if not path.exists():
        return {}
    return {tuple(item["change"]): item["reason"] for item in json.loads(path.read_text())}
