"""`peav embed --partial keep`: a file of which one medium cannot be read gives the other one's embedding, and says so."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from peav.cli import embed_pieces
from peav.model import PEAV
from tests.cli.embed.helpers import read, rejects, run
from tests.cli.embed.test_interruptions import interrupted_after
from tests.data.conftest import ffmpeg


def _damage(path: Path, stream: str) -> None:
    """Overwrites what the packets of the `v` or `a` stream hold."""
    show = ["ffprobe", "-v", "error", "-select_streams", stream, "-show_entries", "packet=pos,size", "-of", "csv=p=0"]
    listed = subprocess.run([*show, str(path)], capture_output=True, text=True, check=True).stdout
    data = bytearray(path.read_bytes())
    for line in listed.split():
        size, place = map(int, line.rstrip(",").split(",")[:2])
        data[place + 5 : place + size] = bytes((7 * i + 13) % 256 for i in range(size - 5))
    path.write_bytes(data)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos: a good one, one with bad pictures, one with bad sound, one with both."""
    root = tmp_path_factory.mktemp("damaged")
    inputs = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=3", "-f", "lavfi", "-i", "anoisesrc=d=3:r=16000:a=0.5:s=1"]
    ffmpeg(*inputs, "-c:v", "libx264", "-threads", "1", "-g", "5", "-c:a", "alac", str(root / "good.mp4"))
    for name, streams in (("pictures.mp4", "v"), ("sound.mp4", "a"), ("neither.mp4", "va")):
        (root / name).write_bytes((root / "good.mp4").read_bytes())
        for stream in streams:
            _damage(root / name, stream)
    return root


def notes(out: Path) -> dict[str, tuple[str, str]]:
    lines = map(json.loads, out.with_suffix(".notes.jsonl").read_text().splitlines())
    return {Path(line["file"]).name: (line["lost"], line["reason"]) for line in lines}


def test_by_default_such_a_file_is_left_out(checkpoint: Path, damaged: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    assert run(checkpoint, out, damaged) == 0
    assert set(rejects(out)) == {"pictures.mp4", "sound.mp4", "neither.mp4"}
    assert [Path(name).name for name in read(out)["ids"]] == ["good.mp4"]
    assert not out.with_suffix(".notes.jsonl").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_what_can_be_read_is_embedded(
    checkpoint: Path, damaged: Path, tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npz"
    assert run(checkpoint, out, damaged, partial="keep", workers=workers) == 0
    table = read(out)
    assert [Path(name).name for name in table["ids"]] == ["good.mp4", "pictures.mp4", "sound.mp4"]
    assert table["audio.present"].tolist() == [True, True, False]
    assert table["video.present"].tolist() == [True, False, True]
    assert table["audio_video.present"].tolist() == [True, False, False]
    good = PEAV.from_pretrained(checkpoint).embed(audio=str(damaged / "good.mp4"), video=str(damaged / "good.mp4"))
    np.testing.assert_allclose(table["audio"][1], good["audio"][0], atol=1e-5)
    np.testing.assert_allclose(table["video"][2], good["video"][0], atol=1e-5)
    reasons = notes(out)
    assert {name: kind for name, (kind, _) in reasons.items()} == {"pictures.mp4": "video", "sound.mp4": "audio"}
    assert all(reason for _, reason in reasons.values())
    assert set(rejects(out)) == {"neither.mp4"}
    said = capsys.readouterr().out
    assert "1 files were embedded without their audio" in said and "1 files were embedded without their video" in said
    assert "1 files could not be embedded" in said


def test_an_interrupted_run_still_says_what_was_lost(
    checkpoint: Path, damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_pieces, "_FILES_A_PIECE", 1)
    whole, out = tmp_path / "whole.npz", tmp_path / "out.npz"
    assert run(checkpoint, whole, damaged, partial="keep") == 0
    with monkeypatch.context() as patch:
        interrupted_after(2, patch)  # the good one, and one without its pictures
        with pytest.raises(SystemExit, match="the same command goes on"):
            run(checkpoint, out, damaged, partial="keep")
    assert run(checkpoint, out, damaged) == 1  # another setting
    assert run(checkpoint, out, damaged, partial="keep") == 0
    assert notes(out) == notes(whole) and rejects(out) == rejects(whole)
    for name, value in read(whole).items():
        np.testing.assert_array_equal(read(out)[name], value, err_msg=name)
