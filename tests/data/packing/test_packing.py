"""Runs of `prepare` that are killed, find the disk full or lose a worker: no orphans, and the same bytes in the end."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peav.data import PrepareError, ShardError, prepare
from peav.data.locks import FolderInUse
from peav.data.manifests.records import Reject
from peav.data.packing import packer
from peav.data.packing import prepare as prepare_module
from peav.data.packing.journal import JOURNAL, LineFile, Outcome, OutcomeLog
from tests.data.conftest import RATE, cut_bytes, write_records, write_wav
from tests.disks import small_disk

#: Processes that outlive their parent are found in /proc, which Linux alone has.
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc, which Linux alone has")

#: Two clips of 16 kB a chunk.
_CHUNK_BYTES = 40_000

#: Records are taken slowly, so that a signal finds the run at work; with `RUN_HOLDS_UNTIL` the seventh waits for that file.
_RUN = """
import itertools, json, logging, os, sys, time
from peav.data.packing import packer
from peav.data.packing.prepare import prepare
logging.basicConfig(level=logging.INFO)
add, taken = packer.Packer.add, itertools.count(1)
def slow_add(*arguments):
    time.sleep(0.03)
    if "RUN_HOLDS_UNTIL" in os.environ and next(taken) == 7:
        while not os.path.exists(os.environ["RUN_HOLDS_UNTIL"]):
            time.sleep(0.003)
    return add(*arguments)
packer.Packer.add = slow_add
prepare(**json.loads(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty records of two splits in turn, some of them bad, some spans, one recording to be cut into chunks."""
    folder = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    for index in range(5):
        write_wav(folder / f"{index}.wav", rng.uniform(-0.5, 0.5, RATE // 2))
    write_wav(folder / "long.wav", rng.uniform(-0.5, 0.5, 2 * RATE))
    cut_bytes(folder / "long.wav", folder / "half.wav", 0.5)
    records: list[dict[str, Any]] = []
    for index in range(58):
        record: dict[str, Any] = {
            "id": f"clip-{index}",
            "audio": f"{index % 5}.wav",
            "captions": {"audio": f"no {index}"},
        }
        if index % 7 == 3:
            record |= {"audio": "half.wav"}
        elif index % 9 == 4:
            record |= {"start": 0.1, "duration": 0.3}
        elif index % 5 == 2:
            record |= {"captions": {"audio": " ", "video": "a picture"}}
        records.append(record | {"split": "validation" if index % 4 == 1 else "train"})
    records.insert(20, {"id": "long", "audio": "long.wav", "captions": {"audio": "noise"}})
    records.insert(30, {"id": "odd", "audio": "0.wav", "colour": "red"})
    write_records(folder / "clips.jsonl", records)
    return folder


@pytest.fixture(scope="module")
def arguments(source: Path) -> dict[str, Any]:
    common = {"vocab_size": 300, "chunk_bytes": _CHUNK_BYTES, "chunk_seconds": 0.75, "min_seconds": 0.1}
    return {"source": str(source), "progress": False, **common}


@pytest.fixture(scope="module")
def whole(arguments: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "data"
    prepare(out=out, workers=0, **arguments)
    return tree(out)


def tree(out: Path) -> dict[str, bytes]:
    """Returns all files of a prepared folder, prepare.json without its wall time and path."""
    files = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    data = json.loads(files["prepare.json"])
    data["report"] |= {"seconds": 0, "out": ""}
    files["prepare.json"] = json.dumps(data).encode()
    return files


def test_the_folder_holds_what_it_says(whole: dict[str, bytes]) -> None:
    outside = [name for name in whole if not name.startswith("shards/")]
    assert outside == [
        "manifest/train.jsonl",
        "manifest/validation.jsonl",
        "notes.jsonl",
        "prepare.json",
        "rejects.jsonl",
        "tokenizer.json",
    ]
    assert sum(name.endswith(".bin") and "train" in name for name in whole) > 10
    report = json.loads(whole["prepare.json"])["report"]
    rejects = [json.loads(line) for line in whole["rejects.jsonl"].splitlines()]
    assert len(rejects) == report["rejected"] > 5
    assert [reject["line"] for reject in rejects] == sorted(reject["line"] for reject in rejects)
    assert len(whole["notes.jsonl"].splitlines()) == report["noted"] > 5
    assert "updated_at" not in json.loads(whole["shards/train/index.json"])


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_bytes(
    arguments: dict[str, Any], whole: dict[str, bytes], tmp_path: Path, workers: int
) -> None:
    prepare(out=tmp_path / "data", workers=workers, **arguments)
    assert tree(tmp_path / "data") == whole


class Run:
    """`prepare` in a process of its own, which is told from others by a mark in the environment of all its descendants."""

    def __init__(
        self, out: Path, arguments: dict[str, Any], workers: int = 1, hold_until: Path | None = None, **more: Any
    ) -> None:
        self.mark = f"PEAV_TEST_RUN={uuid.uuid4().hex}"
        self.out = out
        name, _, value = self.mark.partition("=")
        call = json.dumps({"out": str(out), "workers": workers, **arguments, **more})
        command = [sys.executable, "-c", _RUN, call]
        holds = {"RUN_HOLDS_UNTIL": str(hold_until)} if hold_until else {}
        self.process = subprocess.Popen(
            command,
            env={**os.environ, name: value, **holds},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def descendants(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                try:
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    if state != "Z" and self.mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
                except OSError:
                    continue  # it ended meanwhile
        return found

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < until, "nothing came of the run"
            time.sleep(0.003)

    def durable_chunks(self) -> int:
        path = self.out / JOURNAL
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def assert_no_orphans(self, seconds: float = 15.0) -> None:
        until = time.monotonic() + seconds
        while left := self.descendants():
            assert time.monotonic() < until, f"processes are left: {left}"
            time.sleep(0.05)

    def durable_names(self) -> list[str]:
        entries = [json.loads(line) for line in (self.out / JOURNAL).read_text().splitlines()]
        return [f"{entry['split']}/{chunk['filename']}" for entry in entries for chunk in entry["chunks"]]


@pytest.fixture
def start(arguments: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(**more: Any) -> Run:
        runs.append(Run(tmp_path / "data", {**arguments, **more.pop("replace", {})}, **more))
        return runs[-1]

    yield begin
    for run in runs:
        for pid in [*run.descendants(), *([run.process.pid] if run.process.poll() is None else [])]:
            os.kill(pid, signal.SIGKILL)
        run.process.communicate()


@needs_proc
def test_stopped_again_and_again_it_ends_with_the_same_bytes(
    start: Callable[..., Run], arguments: dict[str, Any], whole: dict[str, bytes], tmp_path: Path
) -> None:
    kept: dict[Path, int] = {}
    for number, chunks, workers in ((signal.SIGKILL, 1, 2), (signal.SIGTERM, 3, 1), (signal.SIGINT, 5, 0)):
        run = start(workers=workers)
        run.wait_for(lambda run=run, chunks=chunks: run.durable_chunks() >= chunks)  # type: ignore[misc]
        run.process.send_signal(number)
        run.process.wait(timeout=30)
        assert run.process.returncode != 0
        run.assert_no_orphans()
        assert run.durable_chunks() >= chunks and not (tmp_path / "data" / "prepare.json").exists()
        assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
        kept = {tmp_path / "data" / "shards" / name: 0 for name in run.durable_names()}
        kept = {path: path.stat().st_mtime_ns for path in kept}
    prepare(out=tmp_path / "data", workers=0, **arguments)
    assert tree(tmp_path / "data") == whole
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())


def test_only_what_is_not_on_disk_is_decoded_again(
    arguments: dict[str, Any], whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    check_records = prepare_module.check_records

    def counted(items: Any) -> Any:
        checked.extend(item.record.id for item in items if hasattr(item, "record"))
        return check_records(items)

    class Interrupted(Exception):
        pass

    add = packer.Packer.add

    def failing(self: Any, record_id: str, clips: Any) -> Any:
        if record_id == fail_at:
            raise Interrupted
        return add(self, record_id, clips)

    monkeypatch.setattr(prepare_module, "check_records", counted)
    monkeypatch.setattr(packer.Packer, "add", failing)
    for fail_at in ("clip-10", "clip-19", "clip-44", ""):
        checked.clear()
        try:
            prepare(out=tmp_path / "data", workers=0, **arguments)
        except Interrupted:
            assert fail_at
        if not fail_at:
            # A few before the last stop were in chunks that were not closed.
            assert checked[-1] == "clip-57" and 14 <= len(checked) <= 24
            assert "clip-3" not in checked  # a reject
    assert tree(tmp_path / "data") == whole


def test_the_end_of_a_run_can_be_killed_too(
    arguments: dict[str, Any], whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    for name in ("verify_and_count", "write_report", "remove_logs"):
        with monkeypatch.context() as patch:
            patch.setattr(prepare_module, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                prepare(out=tmp_path / "data", workers=0, **arguments)
    assert prepare(out=tmp_path / "data", workers=0, **arguments).done_before
    assert tree(tmp_path / "data") == whole


def test_another_source_does_not_go_on(
    arguments: dict[str, Any], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "verify_and_count", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(out=tmp_path / "data", workers=0, **arguments)
    with pytest.raises(PrepareError, match=r"left unfinished, with .* --overwrite true"):
        prepare(out=tmp_path / "data", workers=0, **{**arguments, "min_seconds": 0.2})
    few = tmp_path / "few.jsonl"
    few.write_text("".join((source / "clips.jsonl").read_text().splitlines(keepends=True)[:3]))
    report = prepare(out=tmp_path / "data", workers=0, **{**arguments, "captions": str(few)}, overwrite=True)
    assert sum(report.clips.values()) == 3 and not (tmp_path / "data" / JOURNAL).exists()


def test_changed_chunks_are_not_gone_on_with(
    arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "verify_and_count", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(out=tmp_path / "data", workers=0, **arguments)
    chunk = next((tmp_path / "data" / "shards" / "train").glob("*.bin"))
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-1])
    with pytest.raises(ShardError, match="changed or deleted"):
        prepare(out=tmp_path / "data", workers=0, **arguments)
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    chunk.write_bytes(flipped)
    with pytest.raises(ShardError, match="checksum"):
        prepare(out=tmp_path / "data", workers=0, **arguments)


@needs_proc
def test_an_error_leaves_no_process(start: Callable[..., Run]) -> None:
    run = start(workers=2, strict=True)
    error = run.process.communicate(timeout=60)[1]
    assert "PrepareError" in error and "truncated" in error
    run.assert_no_orphans()


@needs_proc
def test_a_killed_worker_changes_nothing(start: Callable[..., Run], whole: dict[str, bytes], tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    run = start(workers=2, hold_until=go_on)  # in the first of its eight groups, six of which are read ahead
    run.wait_for(lambda: run.durable_chunks() >= 1)
    workers = [pid for pid in run.descendants() if _parent(pid) != run.process.pid and _is_python(pid)]
    for pid in workers[:1]:
        os.kill(pid, signal.SIGKILL)
        run.wait_for(lambda pid=pid: pid not in run.descendants())  # type: ignore[misc]
    go_on.touch()
    error = run.process.communicate(timeout=60)[1]
    assert run.process.returncode == 0 and workers and "a worker process died" in error
    assert tree(tmp_path / "data") == whole
    run.assert_no_orphans()


def test_two_runs_do_not_share_a_folder(arguments: dict[str, Any], tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(FolderInUse, match="another process is at work"):
        prepare(out=tmp_path, workers=0, **arguments)
    os.close(descriptor)


@pytest.mark.parametrize("kilobytes", [160, 500])
def test_a_full_disk_says_so_and_goes_on_later(
    arguments: dict[str, Any], whole: dict[str, bytes], tmp_path: Path, kilobytes: int
) -> None:
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        for _ in range(2):
            with pytest.raises(PrepareError, match=r"the disk is full: .* run the same command again"):
                prepare(out=disk / "data", workers=0, **arguments)
        assert not (disk / "data" / "prepare.json").exists()
        assert (disk / "data" / JOURNAL).read_text()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        prepare(out=disk / "data", workers=0, **arguments)
        assert tree(disk / "data") == whole


def test_the_log_of_outcomes_survives_any_cut(tmp_path: Path) -> None:
    outcomes = [Outcome(f"clip-{i}", "train", i % 2, (Reject(f"clip-{i}", None, i, "no"),)) for i in range(6)]
    log = OutcomeLog(tmp_path)
    for outcome in outcomes[:4]:
        log.add(outcome)
    log.close()
    with (tmp_path / "outcomes.jsonl").open("a") as stream:
        stream.write('{"id": "cut sho')
    second = OutcomeLog(tmp_path)  # is killed after two records
    assert [second.earlier() for _ in range(6)] == [*outcomes[:4], None, None]
    for outcome in outcomes[:2]:
        second.add(outcome)
    second.close()
    third = OutcomeLog(tmp_path)
    assert [third.earlier() for _ in range(6)] == [*outcomes[:4], None, None]


def test_a_line_file_keeps_what_it_is_told_to(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "a")
    file.append("é")
    assert file.size == 3
    file.close()
    file = LineFile(tmp_path / "a", 0)
    file.append("b")
    file.close()
    assert (tmp_path / "a").read_text() == "b\n"


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _is_python(pid: int) -> bool:
    return b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
