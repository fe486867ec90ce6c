"""`peav index update`, run as a user runs it: what is new, changed, moved, deleted, away; and what kills it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peav.cli.index_update import IndexOptions, Updater, UpdateReport, watch
from peav.cli.main import main
from peav.data.media.decode import decode_counts
from peav.model import PEAV
from peav.search import Store
from tests.cli.embed.helpers import noise
from tests.data.conftest import write_wav

ROOT = Path(__file__).parents[3]
WINDOWS = {"window_seconds": 2.0, "overlap_seconds": 0.5}


def update(index: Path, *folders: Path, **options: Any) -> int:
    words = [f"--{name}={value}" for name, value in ({"workers": 0} | options).items()]
    return main(["index", "update", str(index), *map(str, folders), *words])


def held(index: Path) -> dict[str, int]:
    """Windows of each file, by name; each window is found once."""
    with Store(index) as store:
        files = {file.id: file for file in store.catalog.files()}
        counts = dict.fromkeys(files, 0)
        ids = []
        for segment in store.segments.values():
            for window in segment.windows:
                if int(window["file"]) in counts:
                    counts[int(window["file"])] += 1
                    ids.append(int(window["id"]))
        assert len(ids) == len(set(ids))
        assert all(counts[number] == file.windows for number, file in files.items())
        return {Path(file.path).name: counts[number] for number, file in files.items()}


@pytest.fixture
def media(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "media")
    return tmp_path / "media"


GOOD = {"both.MP4": 1, "0.wav": 1, "1.wav": 3, "2.wav": 1, "3.wav": 1, "silent.mp4": 1}


def test_a_folder_becomes_an_index_and_a_second_run_does_nothing(
    checkpoint: Path, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    assert update(index, media, model=checkpoint, **WINDOWS) == 0
    said = capsys.readouterr().out
    assert "6 added, 0 moved, 0 deleted, 0 unchanged; it holds 6 files in 8 windows" in said
    assert "2 files could not be indexed" in said
    assert held(index) == GOOD
    rejects = [json.loads(line) for line in (index / "rejects.jsonl").read_text().splitlines()]
    assert sorted(Path(line["file"]).name for line in rejects) == ["bad.mp4", "bad.wav"]
    assert all("cannot be" in line["reason"] for line in rejects)
    model = PEAV.from_pretrained(checkpoint)
    with Store(index) as store:
        by_name = {Path(file.path).name: file for file in store.catalog.files()}
        assert {name: file.kind for name, file in by_name.items() if name.endswith("4")} == {
            "both.MP4": "video",
            "silent.mp4": "video",
        }
        (segment,) = store.segments.values()
        row = np.flatnonzero(segment.windows["file"] == by_name["both.MP4"].id)
        expected = model.embed(audio=str(media / "both.MP4"), video=str(media / "both.MP4"))
        for name in ("audio", "video", "audio_video"):
            np.testing.assert_allclose(segment.take(name, row), expected[name].numpy(), atol=2e-3)
        long = segment.windows[segment.windows["file"] == by_name["1.wav"].id]
        assert long["start"].tolist() == [0.0, 1.5, 3.0] and long["seconds"].tolist() == [2.0, 2.0, 2.0]
        silent = np.flatnonzero(segment.windows["file"] == by_name["silent.mp4"].id)
        assert silent[0] in segment.rows["video"] and silent[0] not in segment.rows["audio"]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the model is loaded though there is nothing to embed")

    monkeypatch.setattr(PEAV, "from_pretrained", refuse)
    before = decode_counts()
    assert update(index, media) == 0 and update(index) == 0
    assert capsys.readouterr().out.count("0 added, 0 moved, 0 deleted, 6 unchanged") == 2
    assert decode_counts() == before


def test_what_changed_moved_came_and_went(
    checkpoint: Path, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index"
    assert update(index, media, model=checkpoint, **WINDOWS) == 0
    with Store(index) as store:
        ids = {Path(file.path).name: file.id for file in store.catalog.files()}
    os.utime(media / "both.MP4")  # touched: the same bytes
    (media / "moved").mkdir()
    (media / "deep/er/1.wav").rename(media / "moved/long.wav")
    (media / "deep/er/2.wav").unlink()
    write_wav(media / "deep/er/3.wav", noise(3.0, 9))
    write_wav(media / "new.wav", noise(1.0, 8))
    write_wav(media / "bad.wav", noise(1.0, 7))  # mended
    before = decode_counts()["audio"]
    capsys.readouterr()
    assert update(index) == 0
    assert "3 added, 1 moved, 1 deleted, 3 unchanged" in capsys.readouterr().out
    assert decode_counts()["audio"] - before == 4  # two windows of 3.wav, new.wav, bad.wav
    assert held(index) == {
        **{"both.MP4": 1, "0.wav": 1, "long.wav": 3, "3.wav": 2, "silent.mp4": 1},
        **{"new.wav": 1, "bad.wav": 1},
    }
    with Store(index) as store:
        after = {Path(file.path).name: file.id for file in store.catalog.files()}
    assert after["long.wav"] == ids["1.wav"] and after["both.MP4"] == ids["both.MP4"]
    assert after["3.wav"] != ids["3.wav"]
    assert [json.loads(line)["file"] for line in (index / "rejects.jsonl").read_text().splitlines()] == [
        str(media / "bad.mp4")
    ]


def test_a_folder_that_is_not_mounted_deletes_nothing(
    checkpoint: Path, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index"
    assert update(index, media, model=checkpoint, **WINDOWS) == 0
    # A drive within the folder: its mount point is there, and empty.
    (media / "deep").rename(tmp_path / "drive")
    (media / "deep").mkdir()
    capsys.readouterr()
    assert update(index, media) == 0
    said = capsys.readouterr().out
    assert "0 deleted" in said and "5 files are not there" in said and "--delete_missing" in said
    assert held(index) == GOOD
    # The folder itself: empty, then not there at all.
    media.rename(tmp_path / "elsewhere")
    for there in (True, False):
        media.mkdir() if there else media.rmdir()
        assert update(index, media) == 0
        assert held(index) == GOOD
    # The drive is back under another name, and its files are known by their bytes.
    before = decode_counts()["audio"]
    capsys.readouterr()
    assert update(index, tmp_path / "drive") == 0
    assert "0 added, 5 moved" in capsys.readouterr().out and decode_counts()["audio"] == before
    # What is deleted for good, and files of a folder that was removed while the others stay.
    (tmp_path / "elsewhere").rename(media)
    shutil.rmtree(media / "deep")
    (media / "both.MP4").unlink()
    assert update(index, media) == 0
    assert held(index) == {name: count for name, count in GOOD.items() if name != "both.MP4"}
    shutil.rmtree(tmp_path / "drive")
    assert update(index) == 0
    assert len(held(index)) == 5
    assert update(index, delete_missing=True) == 0
    assert held(index) == {}


def test_records_say_domain_and_transcript_and_may_change(checkpoint: Path, media: Path, tmp_path: Path) -> None:
    index, listing = tmp_path / "index", media / "clips.jsonl"
    record = {
        "id": "a",
        "media": "deep/er/0.wav",
        "domain": "speech",
        "transcript": "good morning",
        "captions": {"audio": "a man"},
    }
    listing.write_text(json.dumps(record))
    assert update(index, media, model=checkpoint, **WINDOWS) == 0

    def known() -> tuple[str, str, str]:
        with Store(index) as store:
            file = next(file for file in store.catalog.files() if file.path.endswith("0.wav"))
            return file.domain, file.transcript, file.captions

    assert known() == ("speech", "good morning", "a man")
    listing.write_text(json.dumps(record | {"transcript": "good night"}))
    before = decode_counts()
    assert update(index) == 0
    assert known() == ("speech", "good night", "a man") and decode_counts() == before


def test_texts_beside_the_files_are_words_too(checkpoint: Path, media: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    (media / "deep/er/0.txt").write_text("a man\n")
    (media / "deep/er/1.json").write_text(json.dumps({"captions": {"audio": "wind"}, "domain": "effects"}))
    (media / "deep/er/2.json").write_text("{broken")
    assert update(index, media, model=checkpoint, **WINDOWS) == 0

    def known() -> dict[str, tuple[str, str]]:
        with Store(index) as store:
            return {Path(file.path).name: (file.captions, file.domain) for file in store.catalog.files()}

    assert {name: said for name, said in known().items() if any(said)} == {
        "0.wav": ("a man", ""),
        "1.wav": ("wind", "effects"),
    }
    (media / "deep/er/0.txt").write_text("a woman")
    before = decode_counts()
    assert update(index) == 0
    assert known()["0.wav"] == ("a woman", "") and decode_counts() == before


def test_watching_takes_what_comes_changes_and_goes(checkpoint: Path, media: Path, tmp_path: Path) -> None:
    """The folder changes between two looks; one that is still being written is taken when it is whole."""
    index, reports = tmp_path / "index", []
    whole = (media / "deep/er/1.wav").read_bytes()

    def say(report: UpdateReport) -> None:
        reports.append((report.added, report.deleted, report.rejected))
        if len(reports) == 1:
            (media / "copied.wav").write_bytes(whole[:30])
            (media / "both.MP4").unlink()
        elif len(reports) == 2:
            (media / "copied.wav").write_bytes(whole)
        elif len(reports) == 4:
            raise KeyboardInterrupt

    options = IndexOptions(index, [str(media)], str(checkpoint), 2.0, 0.5, workers=0, watch=0.01)
    with pytest.raises(KeyboardInterrupt):
        watch(Updater(options), 0.01, say)
    assert reports == [(6, 0, 2), (0, 1, 3), (1, 0, 2), (0, 0, 2)]
    assert held(index) == {**{name: count for name, count in GOOD.items() if name != "both.MP4"}, "copied.wav": 3}


def test_other_settings_and_models_are_refused_with_what_to_run(
    checkpoint: Path, framewise: Path, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index"
    assert update(index, media, model=checkpoint, **WINDOWS) == 0
    for change in ({"window_seconds": 3.0}, {"overlap_seconds": 0.25}, {"precision": "bf16"}, {"cover_art": "true"}):
        assert update(index, media, **change) == 1
        assert "leave the option out, or make another index: peav index update OTHER" in capsys.readouterr().err
    torch.manual_seed(5)
    other = PEAV.from_pretrained(checkpoint)
    torch.nn.init.normal_(next(other.heads.parameters()))
    assert update(index, media, model=other.save_pretrained(tmp_path / "other")) == 1
    assert "embeddings of two models cannot be compared" in capsys.readouterr().err
    # The same model elsewhere is the same.
    shutil.copytree(checkpoint, tmp_path / "copy")
    write_wav(media / "new.wav", noise(1.0, 8))
    assert update(index, media, model=tmp_path / "copy") == 0
    assert held(index)["new.wav"] == 1
    assert update(tmp_path / "frames", media, model=framewise) == 1
    assert "makes none of audio, video, audio_video of whole windows" in capsys.readouterr().err
    assert not (tmp_path / "frames").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "there is no file or folder"),
        ([], "name the folders to index"),
        (["empty"], "hold no media; looked for"),
        (["deep", "--batch_seconds=0"], "batch_seconds must be positive"),
        (["deep", "--watch=0"], "watch is the seconds between two looks"),
        (["deep", "--overlap_seconds=11"], "0 <= overlap_seconds < window_seconds=10"),
        (["deep", "--model=nowhere/at/all"], "there is no folder nowhere/at/all"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_no_index(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    (media / "empty").mkdir()
    folders = [str(media / word) if not word.startswith("-") else word for word in words]
    assert main(["index", "update", str(tmp_path / "index"), *folders]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "index").exists()


#: With `HOLD` set the fifth file that is added is the last, until the process is killed.
_COMMAND = """
import os, time
from peav.cli import embed_pieces
from peav.cli.main import main
from peav.search.store import Store

embed_pieces._FILES_A_PIECE = 1
add, added = Store.add, []

def hold(*arguments):
    add(*arguments)
    added.append(1)
    while "HOLD" in os.environ and len(added) == 5:
        time.sleep(0.05)

Store.add = hold
raise SystemExit(main({}))
"""


def test_the_command_killed_twice_loses_nothing_and_doubles_nothing(checkpoint: Path, tmp_path: Path) -> None:
    """kill -9 as soon as a further segment is named; searching goes on beside it."""
    media, index = tmp_path / "media", tmp_path / "index"
    media.mkdir()
    for number in range(12):
        write_wav(media / f"{number:02d}.wav", noise(1.0 + 0.2 * number, number))
    words = ["index", "update", str(index), str(media), f"--model={checkpoint}", "--workers=0", "--window_seconds=2.0"]
    command = [sys.executable, "-c", _COMMAND.format([*words, "--overlap_seconds=0.5"])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    counts = [0]
    for _ in range(2):
        process = subprocess.Popen(
            command, env={**environment, "HOLD": "1"}, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        while process.poll() is None:
            if Store.is_one(index):
                with Store(index) as store:
                    if len(store.catalog.files()) > counts[-1]:
                        process.send_signal(signal.SIGKILL)
                        break
            time.sleep(0.01)
        process.wait()
        counts.append(len(held(index)))
    assert 0 < counts[1] < counts[2] < 12
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{12 - counts[2]} added" in done.stdout and f"{counts[2]} unchanged" in done.stdout
    # As many windows as 2 s ones that share half a second are; the last of a file is moved back if it is short.
    found = held(index)
    assert len(found) == 12 and found["00.wav"] == 1 and found["11.wav"] == 2
    assert {path.name for path in (index / "segments").iterdir()} == set(Store(index).segments)
