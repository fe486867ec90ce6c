"""`peav embed` goes on where it was interrupted, and notices what has changed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peav.cli import embed_pieces
from peav.cli.embed_store import PieceStore
from peav.data.media.decode import decode_counts
from peav.model import PEAV
from tests.cli.embed.helpers import noise, read, rejects, run
from tests.data.conftest import write_wav


def interrupted_after(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the user press Ctrl-C after so many pieces."""
    add = PieceStore.add
    written = [0]

    def add_and_stop(self: PieceStore, rows: Sequence[Any]) -> None:
        add(self, rows)
        written[0] += 1
        if written[0] == pieces:
            raise KeyboardInterrupt

    monkeypatch.setattr(PieceStore, "add", add_and_stop)


def test_an_interrupted_run_goes_on(
    checkpoint: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(embed_pieces, "_FILES_A_PIECE", 2)
    whole, out = tmp_path / "whole.npz", tmp_path / "out.npz"
    options = {"text": folder / "notes.txt"}
    before = decode_counts()
    assert run(checkpoint, whole, folder, **options) == 0
    decoded = decode_counts()["audio"] - before["audio"]
    with monkeypatch.context() as patch:
        interrupted_after(2, patch)
        with pytest.raises(SystemExit, match="the same command goes on"):
            run(checkpoint, out, folder, **options)
    assert not out.exists()
    pieces = sorted(path.name for path in out.with_suffix(".partial").glob("*.safetensors"))
    assert pieces == ["piece-000000.safetensors", "piece-000001.safetensors"]
    # Other settings, or another model, are refused and leave everything as it is.
    for change in ({"num_frames": 5}, {"overlap_seconds": 0.5}, {"precision": "bf16"}, {"to": "audio"}):
        assert run(checkpoint, out, folder, **options, **change) == 1
        message = capsys.readouterr().err
        assert "other settings" in message and next(iter(change)) in message
    torch.manual_seed(5)
    other = PEAV.from_pretrained(checkpoint)
    torch.nn.init.normal_(next(other.heads.parameters()))
    assert run(other.save_pretrained(tmp_path / "other"), out, folder, **options) == 1
    assert "model was" in capsys.readouterr().err
    before = decode_counts()
    assert run(checkpoint, out, folder, **options) == 0
    again = decode_counts()["audio"] - before["audio"]
    assert 0 < again < decoded - 2
    assert not out.with_suffix(".partial").exists()
    expected, found = read(whole), read(out)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    assert rejects(out) == rejects(whole)


def test_a_file_that_changed_and_files_that_came_are_embedded_anew(
    checkpoint: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_pieces, "_FILES_A_PIECE", 1)
    media, out = tmp_path / "media", tmp_path / "out.npz"
    shutil.copytree(folder / "deep/er", media)
    with monkeypatch.context() as patch:
        interrupted_after(3, patch)
        with pytest.raises(SystemExit):
            run(checkpoint, out, media)
    write_wav(media / "0.wav", noise(1.4, 77))
    write_wav(media / "00.wav", noise(1.2, 78))
    (media / "2.wav").unlink()
    before = decode_counts()["audio"]
    assert run(checkpoint, out, media) == 0
    assert decode_counts()["audio"] - before == 3  # 0.wav, 00.wav and 3.wav
    paths = sorted(map(str, media.iterdir()))
    table = read(out)
    assert table["ids"].tolist() == paths
    np.testing.assert_allclose(table["audio"], PEAV.from_pretrained(checkpoint).embed(audio=paths)["audio"], atol=1e-5)


def test_a_run_that_failed_before_it_did_anything_does_not_bind(
    framewise: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npz"
    assert run(framewise, out, folder / "deep", window_seconds=0.05) == 1
    assert "shorter than a frame of the model" in capsys.readouterr().err
    assert run(framewise, out, folder / "deep", window_seconds=2.0) == 0
