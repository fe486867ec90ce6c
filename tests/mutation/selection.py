"""Which tests may notice a change of a module: those of its room and of its users, the most likely ones first."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

#: Pictures and pages, whose look no test can judge.
PICTURES = (
    "peav/data/curation/gallery.py",
    "peav/data/curation/page.py",
    "peav/data/synthetic/motion.py",
    "peav/data/synthetic/pictures.py",
    "peav/evaluation/media_plots.py",
    "peav/evaluation/overview.py",
    "peav/evaluation/plots.py",
    "peav/evaluation/report.py",
    "peav/evaluation/report_parts.py",
    "peav/html.py",
    "peav/plot_style.py",
)


def modules(root: Path) -> list[str]:
    """Returns the files of the package that may be changed, relative to the root."""
    found = (path.relative_to(root).as_posix() for path in (root / "peav").rglob("*.py"))
    return sorted(path for path in found if path not in PICTURES)


@dataclass
class Tree:
    """The files of a checkout, and who imports whom.

    Attributes:
        root: of the checkout.
    """

    root: Path
    _known: dict[str, set[str]] = field(default_factory=dict)

    @cached_property
    def tests(self) -> list[str]:
        """Files with tests, relative to the root."""
        return sorted(path.relative_to(self.root).as_posix() for path in (self.root / "tests").rglob("test_*.py"))

    @cached_property
    def package(self) -> list[str]:
        """All files of the package."""
        return sorted(path.relative_to(self.root).as_posix() for path in (self.root / "peav").rglob("*.py"))

    def imports(self, path: str) -> set[str]:
        """Returns the files of the package that a file imports; names that a package hands on are those of the file they come from."""
        if path not in self._known:
            names = _imported(ast.parse((self.root / path).read_text()))
            self._known[path] = {file for name in names if (file := self._resolve(*name))}
        return self._known[path]

    def users(self, module: str) -> list[str]:
        """Returns the files of the package that import a module."""
        return [path for path in self.package if path != module and module in self.imports(path)]

    def select(self, module: str) -> list[str]:
        """Returns the files whose tests are run for a change of a module, in order.

        Its own examples, the tests that import it, those of its room, those that import its users, and those of the users' rooms.
        """
        users = self.users(module)
        own = room_of(module)
        groups: list[Iterable[str]] = [
            [module] if ">>>" in (self.root / module).read_text() else [],
            self._nearest(own, (test for test in self.tests if module in self._reached(test))),
            self._in_room(own),
            self._nearest(own, (test for test in self.tests if self._reached(test) & set(users))),
            (test for user in users for test in self._in_room(room_of(user))),
        ]
        return list(dict.fromkeys(path for group in groups for path in group))

    def _reached(self, test: str) -> set[str]:
        """Returns what a test imports, itself or by helpers beside it."""
        found = set(self.imports(test))
        for helper in [path for path in found if path.startswith("tests/")]:
            found |= self.imports(helper)
        return found

    def _in_room(self, room: str) -> list[str]:
        if "/" not in room:  # a file beside the rooms
            return [test for test in self.tests if test == f"tests/test_{room}.py"]
        found = [test for test in self.tests if test.startswith(f"tests/{room}")]
        # A room without tests of its own is tested where the house that it is in is.
        outer = room.removesuffix("/").rpartition("/")[0]
        return found or (self._in_room(f"{outer}/") if outer else [])

    def _nearest(self, room: str, tests: Iterator[str]) -> list[str]:
        return sorted(tests, key=lambda test: (not test.startswith(f"tests/{room}"), len(self.imports(test)), test))

    def _resolve(self, module: str, name: str) -> str | None:
        """Returns the file that `from module import name` takes the name from."""
        base = module.replace(".", "/")
        for file in (f"{base}/{name}.py", f"{base}/{name}/__init__.py", f"{base}.py", f"{base}/__init__.py"):
            if not name and file.startswith(f"{base}//"):
                continue
            if (self.root / file).is_file():
                break
        else:
            return None
        if file.endswith("__init__.py") and name:
            for inner, inner_name in _imported(ast.parse((self.root / file).read_text())):
                if inner_name == name and inner != module:
                    return self._resolve(inner, name)
        return file


def room_of(module: str) -> str:
    """Returns the room of a module, as a folder under tests/, or its name where it stands beside the rooms.

    >>> room_of("peav/data/loading/plan.py"), room_of("peav/masking.py"), room_of("peav/data/__init__.py")
    ('data/loading/', 'masking', 'data/')
    """
    inner = module.removeprefix("peav/").removesuffix(".py")
    return inner.rpartition("/")[0] + "/" if "/" in inner else inner


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yields (module, name) of what a file imports from this checkout; the name is "" where the whole module is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        yield from ((module, name) for module, name in names if module.split(".")[0] in ("peav", "tests"))
