"""A process that has imported what peav and its tests import, and forks for each run of tests: their start is saved.

`tests/mutation/bench.py` starts it as a script and writes a job in JSON a line; the answer is a line with pytest's exit code, null where
the time was up. Nothing of peav or of the tests is imported here: each run sees the files of its folder as they are then.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from typing import Any, TextIO

#: What a changed program may take of memory, and write into one file, in bytes.
MEMORY, FILE = 12 << 30, 8 << 30

#: The variable by which the processes that a test starts know for whom they run.
CONTEXT = "PEAV_MUTATION_CONTEXT"


class Watch:
    """A plugin of pytest that writes down, as it happens, which test begins and how it ends: who crashes is known, too.

    Args:
        file: of events, a line each.
        lines: a running `coverage.Coverage` that is told which test runs, if there is one.
    """

    def __init__(self, file: TextIO, lines: Any = None) -> None:
        self.file, self.lines = file, lines
        self.reports: dict[str, list[Any]] = {}
        self.wide: dict[str, list[str]] = {}
        self.contexts: list[str] = []

    def write(self, **event: Any) -> None:
        """Writes an event."""
        self.file.write(json.dumps(event) + "\n")
        self.file.flush()

    @contextlib.contextmanager
    def context(self, name: str) -> Iterator[None]:
        """What runs in here runs for a test, or for a fixture that tests share."""
        self.contexts.append(name)
        self._switch(name)
        try:
            yield
        finally:
            self.contexts.pop()
            self._switch(self.contexts[-1] if self.contexts else "")

    def _switch(self, name: str) -> None:
        if self.lines is not None:
            os.environ[CONTEXT] = name
            self.lines.switch_context(name)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.write(event="not collected", name=report.nodeid)

    def pytest_collection_finish(self, session: Any) -> None:
        if session.config.option.collectonly:
            self.write(event="collected", names=[item.nodeid for item in session.items])

    def pytest_runtest_logreport(self, report: Any) -> None:
        reports = self.reports.setdefault(report.nodeid, [])
        reports.append(report)
        if report.when == "teardown":
            outcomes = [item.outcome for item in reports]
            outcome = next((name for name in ("failed", "skipped") if name in outcomes), "passed")
            seconds = sum(item.duration for item in reports)
            wide = self.wide.get(report.nodeid, [])
            self.write(event="end", name=report.nodeid, outcome=outcome, seconds=seconds, fixtures=wide)


def hooks(watch: Watch) -> Any:
    """Returns the hooks that wrap others, which pytest has to be imported for."""
    import pytest

    class Hooks:
        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
            known = item._fixtureinfo.name2fixturedefs if hasattr(item, "_fixtureinfo") else {}
            watch.wide[item.nodeid] = [name for name, found in known.items() if found[-1].scope != "function"]
            watch.write(event="begin", name=item.nodeid)
            with watch.context(item.nodeid):
                return (yield)

        @pytest.hookimpl(wrapper=True)
        def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
            if fixturedef.scope == "function":
                return (yield)
            begin = time.monotonic()
            with watch.context(f"fixture {fixturedef.argname}"):
                result = yield
            watch.write(event="fixture", name=fixturedef.argname, seconds=time.monotonic() - begin)
            return result

    return Hooks()


def preload(names: list[tuple[str, str]]) -> None:
    """Imports (module, name) as `from module import name` does; what is not installed is left out."""
    for module, name in names:
        # Whatever an optional part raises: what needs it will say so.
        with contextlib.suppress(Exception):
            found = importlib.import_module(module)
            if name and not hasattr(found, name):
                importlib.import_module(f"{module}.{name}")


def run(job: dict[str, Any]) -> int | None:
    """Runs tests in a process of its own, with a limit of time in seconds; returns pytest's exit code, a signal as a negative number."""
    process = os.fork()
    if process == 0:
        code = 70
        try:
            code = run_here(job)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + job["seconds"]
    try:
        while time.monotonic() < end:
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        return None
    finally:
        # Workers that a changed loader left behind too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process, 0)


def run_here(job: dict[str, Any]) -> int:
    """Runs tests in this process; returns pytest's exit code."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for kind, limit in ((resource.RLIMIT_DATA, MEMORY), (resource.RLIMIT_FSIZE, FILE)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    os.chdir(job["folder"])
    # In the place of the folder of this script.
    sys.path[0] = job["folder"]
    sys.argv = ["pytest", *job["arguments"]]
    os.environ.update(job["environment"])
    tempfile.tempdir = None

    import pytest

    with open(job["events"], "w") as file:
        if "coverage" not in job:
            watch = Watch(file)
            return int(pytest.main(job["arguments"], plugins=[watch, hooks(watch)]))

        import coverage

        lines = coverage.Coverage(config_file=job["coverage"], data_suffix=True)
        watch = Watch(file, lines)
        lines.start()
        try:
            return int(pytest.main(job["arguments"], plugins=[watch, hooks(watch)]))
        finally:
            lines.stop()
            lines.save()


def main() -> None:
    """Imports what the first line names, and runs a job for each further line."""
    # What is answered goes out by a descriptor of its own: libraries print, too.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Who is told to end ends the tests that it runs, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    preload(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        answers.write(json.dumps(run(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
