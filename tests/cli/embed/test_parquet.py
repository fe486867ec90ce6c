"""`peav embed` to a parquet file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from peav.data.media.decode import decode_counts
from tests.cli.embed.helpers import read, run


def test_parquet(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.parquet"
    assert run(checkpoint, out, folder, text=folder / "notes.txt", to="audio") == 0
    assert run(checkpoint, out.with_suffix(".npz"), folder, text=folder / "notes.txt", to="audio") == 0
    expected = read(out.with_suffix(".npz"))
    table = parquet.read_table(out)
    assert table.column_names == ["id", "audio", "video", "audio_video", "text_audio"]
    assert table["id"].to_pylist() == expected["ids"].tolist()
    for name in table.column_names[1:]:
        rows = table[name].to_pylist()
        assert [row is not None for row in rows] == expected[f"{name}.present"].tolist()
        for row, value in zip(rows, expected[name], strict=True):
            if row is not None:
                np.testing.assert_array_equal(np.array(row, np.float32), value)


def test_frames_in_parquet(framewise: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.parquet"
    assert run(framewise, out, folder / "deep") == 0
    rows = parquet.read_table(out)["audio_frames"].to_pylist()
    assert [np.array(row).shape for row in rows] == [(6, 8), (42, 8), (10, 8), (11, 8)]


def test_without_pyarrow_parquet_is_refused_before_any_work(
    checkpoint: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    before = decode_counts()
    assert run(checkpoint, tmp_path / "table.parquet", folder) == 1
    assert "pip install 'peav[parquet]'" in capsys.readouterr().err
    assert decode_counts() == before and not os.listdir(tmp_path)
