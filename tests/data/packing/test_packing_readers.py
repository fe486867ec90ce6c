"""`prepare` with a reader: coverage, media that are unpacked for the moment, and progress."""

import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peav.cli.main import main
from peav.data import Record, Reject, open_manifest, prepare
from peav.data import progress as progress_module
from peav.data.packing import prepare as prepare_module
from peav.data.progress import tracked
from peav.data.readers.base import Reader
from tests.data.conftest import RATE, write_records, write_wav
from tests.data.packing.test_packing import tree


class Unpacking(Reader):
    """Copies each file before it yields its record, as if out of an archive."""

    def __init__(self, dataset: str = "Tones") -> None:
        self.dataset = dataset

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        global most
        for index in range(12):
            name = f"{index}.wav"
            if not (source / name).exists():
                yield Reject(str(index), name, index + 1, "no such file", missing=True)
                continue
            if not skip(str(index)):
                unpacked.append(index)
                shutil.copy(source / name, scratch / name)
            most = max(most, len(list(scratch.iterdir())))
            split = "validation" if index % 3 == 1 else "train"
            kept: dict[str, Any] = {"dataset": self.dataset, "split": split, "root": scratch, "temporary": True}
            yield Record(str(index), index + 1, audio=name, **kept)


unpacked: list[int] = []
most = 0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(12):
        if index % 5 != 4:
            write_wav(folder / f"{index}.wav", rng.uniform(-0.5, 0.5, RATE // 2))
    (folder / "7.wav").write_bytes(b"")
    return folder


def test_coverage_and_temporary_files(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"workers": 0, "progress": False, "chunk_bytes": 40_000}
    global most
    unpacked.clear()
    most = 0
    report = prepare(source, tmp_path / "out", reader=Unpacking(), **arguments)
    assert report.coverage == {"Tones": (10, 12)} and report.rejected == 3
    whole = tree(tmp_path / "out")
    assert report.clips == {"train": 7, "validation": 2} and len(unpacked) == 10
    assert not (tmp_path / "out" / "scratch").exists()
    assert {clip.dataset for clip in open_manifest(tmp_path / "out", "train")} == {"Tones"}
    assert prepare(source, tmp_path / "out", reader=Unpacking(), **arguments).coverage == report.coverage

    # A run that was interrupted does not unpack again what is packed.
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "verify_and_count", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(source, tmp_path / "again", reader=Unpacking(), **arguments)
    unpacked.clear()
    again = prepare(source, tmp_path / "again", reader=Unpacking(), **arguments)
    assert not unpacked and again.coverage == report.coverage
    assert tree(tmp_path / "again") == whole


def test_unpacked_files_do_not_pile_up(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "_GROUP", 1)
    global most
    most = 0
    prepare(source, tmp_path / "out", reader=Unpacking(), workers=0, progress=False)
    assert most <= 3


def test_another_reader_is_another_source(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "out", reader=Unpacking(), workers=0, progress=False)
    with pytest.raises(RuntimeError, match="other settings"):
        prepare(source, tmp_path / "out", reader=Unpacking("Other"), workers=0, progress=False)
    write_wav(source / "4.wav", np.zeros(RATE))
    with pytest.raises(RuntimeError, match="other files"):
        prepare(source, tmp_path / "out", reader=Unpacking(), workers=0, progress=False)


def test_lines_of_the_log_where_there_is_no_terminal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "LOG_SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with caplog.at_level(logging.INFO), tracked("prepare", 2) as advance:
        advance()
        advance()
    with caplog.at_level(logging.INFO), tracked("prepare", None) as advance:
        advance()
    assert "prepare: 2 of 2 clips" in caplog.text and "min left" in caplog.text
    assert "left" not in caplog.messages[-1]


def test_the_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_records(source / "clips.jsonl", [{"id": "a", "audio": "0.wav"}, {"id": "b", "audio": "4.wav"}])
    options = ["--workers=0", "--normalize=true", "--audio_codec=opus", "--chunk_seconds=null"]
    assert main(["prepare", str(source), str(tmp_path / "out"), *options]) == 0
    printed = capsys.readouterr().out
    assert "1 left out" in printed and "4.wav: no such file" in printed
    (clip,) = open_manifest(tmp_path / "out", "train")
    assert clip.duration == pytest.approx(0.5) and clip.has_audio
