"""A copy of the checkout in which tests run, with a change or without."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutation.mutants import Mutant

WARM = Path(__file__).with_name("warm.py")


@dataclass(frozen=True)
class Run:
    """What came of a run of tests.

    Attributes:
        code: pytest's exit code, a signal as a negative number, None where the time was up.
        events: what was written down as it happened, see `tests.mutation.warm.Watch`.
        output: what was printed.
    """

    code: int | None
    events: list[dict[str, Any]]
    output: str

    @property
    def outcomes(self) -> dict[str, str]:
        """`passed`, `skipped` or `failed` by test."""
        return {event["name"]: event["outcome"] for event in self.events if event["event"] == "end"}

    @property
    def collected(self) -> set[str]:
        """The tests that would run, where they were only collected."""
        return {name for event in self.events if event["event"] == "collected" for name in event["names"]}

    @property
    def culprit(self) -> str | None:
        """The test that failed, or that ran when the process ended, or the file that could not be collected."""
        for event in self.events:
            if event["event"] == "not collected" or event.get("outcome") == "failed":
                return event["name"]
        begun = [event["name"] for event in self.events if event["event"] == "begin"]
        return next((name for name in begun if name not in self.outcomes), None)


class Bench:
    """A copy of the checkout, and a warm process that runs tests there.

    Args:
        root: the checkout.
        folder: of the copy.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder, self._scratch = folder / "checkout", folder / "scratch"
        names = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            check=True,
        ).stdout
        for name in filter(None, names.decode().split("\0")):
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (root / name).is_symlink() or (root / name).is_file():
                shutil.copy2(root / name, target, follow_symlinks=False)
        # Nothing writes compiled files while a change is there: they are found again by time and size, and a change may have both.
        compiled = [sys.executable, "-m", "compileall", "-q", "peav", "tests"]
        subprocess.run(compiled, cwd=self.folder, check=True)
        self._warm: subprocess.Popen[str] | None = None

    def close(self) -> None:
        """Ends the warm process, and the tests that it runs."""
        if self._warm is not None:
            self._warm.terminate()
            self._warm.wait()

    @contextlib.contextmanager
    def changed(self, mutant: Mutant) -> Iterator[None]:
        """The file of a mutant is changed in here."""
        path = self.folder / mutant.file
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        path.write_text(mutant.change.apply(mutant.source))
        try:
            yield
        finally:
            path.write_text(mutant.source)

    def pytest(self, arguments: list[str], seconds: float, coverage: Path | None = None) -> Run:
        """Runs tests that are not slow until one fails, within a limit of time.

        Args:
            arguments: of pytest.
            seconds: after which the run is ended.
            coverage: the settings under which it is written down which tests run which lines; then no failure ends the run.
        """
        shutil.rmtree(self._scratch, ignore_errors=True)
        (self._scratch / "tmp").mkdir(parents=True)
        common = [
            "-q",
            "-m",
            "not slow",
            "-p",
            "no:cacheprovider",
            "--no-header",
            "--tb=line",
            "--basetemp",
            str(self._scratch / "base"),
        ]
        environment = {
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self._scratch / "tmp"),
        }
        output, events = self._scratch / "output", self._scratch / "events"
        job: dict[str, Any] = {
            "folder": str(self.folder),
            "arguments": [*common, *(() if coverage else ("-x",)), *arguments],
            "environment": environment,
            "seconds": max(1.0, seconds),
            "output": str(output),
            "events": str(events),
        }
        if coverage:
            job["coverage"] = str(coverage)
            environment["COVERAGE_PROCESS_START"] = str(coverage)
        code = self._ask(job)
        found = events.read_text().splitlines() if events.exists() else []
        return Run(
            code, [json.loads(line) for line in found], output.read_text(errors="replace") if output.exists() else ""
        )

    def _ask(self, job: dict[str, Any]) -> int | None:
        if self._warm is None:
            self._warm = subprocess.Popen(
                [sys.executable, str(WARM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
            self._write(third_party(self.folder))
        self._write(job)
        assert self._warm.stdout is not None
        answer = self._warm.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process that runs tests ended with exit code {self._warm.wait()}")
        return json.loads(answer)

    def _write(self, message: Any) -> None:
        assert self._warm is not None and self._warm.stdin is not None
        self._warm.stdin.write(json.dumps(message) + "\n")
        self._warm.stdin.flush()


@contextlib.contextmanager
def make_bench(root: Path) -> Iterator[Bench]:
    """A copy of a checkout that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="peav-mutation-", ignore_cleanup_errors=True) as folder:
        bench = Bench(root, Path(folder))
        try:
            yield bench
        finally:
            bench.close()


def third_party(root: Path) -> list[tuple[str, str]]:
    """Returns what the files of a checkout, and plugins of pytest, import from libraries, as (module, name)."""
    found = {("coverage", "")}
    for plugin in importlib.metadata.entry_points(group="pytest11"):
        found |= {(plugin.module, ""), (plugin.dist.name if plugin.dist else plugin.module, "")}
    for path in sorted([*(root / "peav").rglob("*.py"), *(root / "tests").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {(alias.name, "") for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {(node.module, alias.name) for alias in node.names}
    own = ("peav", "tests", "__future__")
    return sorted(item for item in found if item[0].split(".")[0] not in own)
