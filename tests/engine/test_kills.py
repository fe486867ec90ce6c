"""Killed before or behind any step that changes a file, a run goes on: the same manifest at the end, and no clip done twice.

The steps are every rename (a part's file, its marker, the job's settings, the manifest, provenance, what was dropped, the page) and every
line of a journal; a slow test has those of the manifest's index, which is made anew at the beginning and after publishing. A forked
process runs the job and sends itself SIGKILL at one of them; the next one runs it again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from peav.data.manifests.index import COLUMNS
from peav.engine.publish import PublishOptions
from peav.engine.rows import PartFile
from tests.engine.data import config, flaky, seen, write_clips
from tests.engine.test_run import run, spec

CLIPS, BATCH = 6, 2


def job(data: Path) -> None:
    os.chdir(data.parent)  # the path of the log is an argument of the stages, and so part of their keys
    stages = config("log", measure=flaky("log"), last={"class_path": "tests.engine.data.ReadsMeasures"})
    run(
        spec(data, stages, part_clips=3, batch_clips=BATCH), options=PublishOptions(max_copies=1, max_opening_share=1.0)
    )


class Steps:
    """Counts the steps of this process, and ends it at one of them."""

    def __init__(self, at: int, behind: bool, index: bool, names: Any = None) -> None:
        self.number, self.at, self.behind, self.index, self.names = 0, at, behind, index, names

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(own: Any, *arguments: Any) -> Any:
            if self.index != (own.__class__ is not PartFile and Path(arguments[0]).parent.suffix == ".index"):
                return call(own, *arguments)
            here, self.number = self.number == self.at, self.number + 1
            if here and not self.behind:
                os.kill(os.getpid(), signal.SIGKILL)
            made = call(own, *arguments)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.names is not None:
                self.names.send(str(getattr(own, "journal_path", None) or arguments[0]))
            return made

        return counted


def child(data: Path, at: int, behind: bool, index: bool = False, names: Any = None) -> None:
    steps = Steps(at, behind, index, names)
    Path.replace = steps.wrap(Path.replace)  # type: ignore[method-assign]
    PartFile.note = steps.wrap(PartFile.note)  # type: ignore[method-assign]
    job(data)


def in_a_fork(*arguments: Any) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=child, args=arguments)
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, bytes]]:
    """The steps of a run that nobody kills, and the files that it leaves."""
    return steps_and_files(tmp_path_factory.mktemp("whole"), index=False)


def steps_and_files(folder: Path, index: bool) -> tuple[list[str], dict[str, bytes]]:
    data = write_clips(folder / "d", CLIPS)
    ours, theirs = multiprocessing.get_context("fork").Pipe(duplex=False)
    assert in_a_fork(data, -1, False, index, theirs) == 0
    theirs.close()
    steps = []
    with suppress(EOFError):
        while True:
            steps.append(Path(ours.recv()).name)
    return steps, files(data)


def files(data: Path) -> dict[str, bytes]:
    held = [*(data / "manifest").glob("*.jsonl"), *(data / "provenance").glob("*"), data / "engine/dropped.jsonl"]
    return {str(path.relative_to(data)): path.read_bytes() for path in held}


def test_the_steps_are_those_that_matter(whole: tuple[list[str], dict[str, bytes]]) -> None:
    steps = whole[0]
    kinds = ("job.json", "000000.journal", "000000.jsonl", "000000.done", "train.jsonl", "dropped.jsonl", "report.html")
    assert all(kind in steps for kind in kinds), steps
    assert steps.count("train.jsonl") == 2  # the manifest, and its provenance
    assert len(steps) >= 12


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
def test_killed_at_any_step_nothing_is_lost_and_nothing_is_done_twice(
    tmp_path: Path, behind: bool, whole: tuple[list[str], dict[str, bytes]]
) -> None:
    kill_at_each(tmp_path, behind, False, *whole)


@pytest.mark.slow
@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
def test_killed_while_it_writes_an_index_nothing_is_lost(tmp_path: Path, behind: bool) -> None:
    steps, expected = steps_and_files(tmp_path / "whole", index=True)
    assert steps.count("index.json") == 2 and len(steps) == 2 * (1 + len(COLUMNS))
    kill_at_each(tmp_path, behind, True, steps, expected)


def kill_at_each(tmp_path: Path, behind: bool, index: bool, steps: list[str], expected: dict[str, bytes]) -> None:
    for at, step in enumerate(steps):
        data, log = write_clips(tmp_path / str(at) / "d", CLIPS), tmp_path / str(at) / "log"
        assert in_a_fork(data, at, behind, index) == -signal.SIGKILL, step
        manifest = (data / "manifest/train.jsonl").read_bytes()
        old = write_clips(tmp_path / str(at) / "old", CLIPS) / "manifest/train.jsonl"
        assert manifest in (old.read_bytes(), expected["manifest/train.jsonl"]), f"{step}: neither old nor new"
        assert in_a_fork(data, -1, behind) == 0, step
        assert files(data) == expected, f"killed {'behind' if behind else 'before'} step {at}, {step}"
        counts = Counter(seen(log))
        assert len(counts) == 3 * CLIPS
        twice = {line for line, count in counts.items() if count > 1}
        # A batch whose line in the journal was not written is computed again; everything else just once.
        assert len(twice) <= (BATCH if step.endswith(".journal") and not behind else 0), (step, twice)
        assert max(counts.values()) <= 2
        left = [path.name for path in data.rglob("*.partial")]
        assert not left, (step, left)
