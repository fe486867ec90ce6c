"""`peav embed`, run as a user runs it: files and folders to a table, through interruptions and bad files."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peav.checkpoints import MediaSettings
from peav.cli import embed as command
from peav.cli.embed_store import PieceStore
from peav.cli.main import main
from peav.data.media.decode import decode_counts
from peav.model import PEAV
from tests.data.conftest import ffmpeg, write_float_wav, write_wav
from tests.helpers import SMALL_ENCODERS

RATE = 16000
TEXTS = ["a bell", "the red house"]


def noise(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * RATE))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    names = {
        "audio": "DacAudioEncoder",
        "video": "PEVideoEncoder",
        "audio_video": "FusionEncoder",
        "text": "TextEncoder",
        "plus_text": "PlusTextEncoder",
    }
    media = MediaSettings(sample_rate=RATE, frame_size=32, num_frames=3, window_seconds=2.0)
    model = PEAV({name: SMALL_ENCODERS[kind]() for name, kind in names.items()}, embedding_dim=8, media=media)
    return model.save_pretrained(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def framewise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    encoders = {"audio": SMALL_ENCODERS["DacAudioEncoder"](), "text": SMALL_ENCODERS["TextEncoder"]()}
    media = MediaSettings(sample_rate=RATE, frame_size=32)
    model = PEAV(encoders, ["text_event"], 8, frames=["audio"], pairs=[("audio", "text_event")], media=media)
    return model.save_pretrained(tmp_path_factory.mktemp("model") / "frames")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six media and two bad ones, in two depths, with a file beside them that is none."""
    root = tmp_path_factory.mktemp("media")
    (root / "deep/er").mkdir(parents=True)
    pattern = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=1.5"]
    tone = ["-f", "lavfi", "-i", "anoisesrc=d=1.5:r=16000:a=0.5:s=1"]
    ffmpeg(*pattern, *tone, "-c:v", "libx264", "-threads", "1", "-c:a", "aac", str(root / "both.MP4"))
    ffmpeg(*pattern, "-c:v", "libx264", "-threads", "1", str(root / "deep/silent.mp4"))
    for index, seconds in enumerate((0.7, 5.0, 1.1, 1.3)):
        write_wav(root / f"deep/er/{index}.wav", noise(seconds, index))
    (root / "bad.mp4").write_bytes((root / "both.MP4").read_bytes()[:2000])
    (root / "bad.wav").write_text("not a sound")
    (root / "notes.txt").write_text("\n".join([TEXTS[0], "", f"  {TEXTS[1]} "]))
    return root


GOOD = ["both.MP4", "deep/er/0.wav", "deep/er/1.wav", "deep/er/2.wav", "deep/er/3.wav", "deep/silent.mp4"]


def run(checkpoint: Path, out: Path, *media: Path | str, **options: Any) -> int:
    words = [f"--{name}={'null' if value is None else value}" for name, value in ({"workers": 0} | options).items()]
    return main(["embed", *map(str, media), f"--model={checkpoint}", f"--out={out}", *words])


def read(out: Path) -> dict[str, np.ndarray]:
    with np.load(out) as archive:
        return dict(archive)


def rejects(out: Path) -> dict[str, str]:
    lines = out.with_suffix(".rejects.jsonl").read_text().splitlines()
    return {Path(line["file"]).name: line["reason"] for line in map(json.loads, lines)}


def test_a_folder_and_texts(checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new/table.npz"
    assert run(checkpoint, out, folder, text=folder / "notes.txt") == 0
    table = read(out)
    paths = [str(folder / name) for name in GOOD]
    assert table["ids"].tolist() == paths + TEXTS
    model = PEAV.from_pretrained(checkpoint)
    media = {"audio": [0, 1, 2, 3, 4], "video": [0, 5], "audio_video": [0]}
    heads = {name: [6, 7] for name in ("text_audio", "text_video", "text_audio_video", "text_event")}
    names = [name for name in table if name != "ids" and not name.endswith(".present")]
    assert set(names) == {*media, *heads}
    for name, rows in (media | heads).items():
        assert np.flatnonzero(table[f"{name}.present"]).tolist() == rows
        assert table[name].shape == (8, 8) and table[name].dtype == np.float32
        assert not table[name][~table[f"{name}.present"]].any()
    expected = model.embed(audio=paths[:5])["audio"]  # 1.wav in three windows
    np.testing.assert_allclose(table["audio"][:5], expected, atol=1e-5)
    np.testing.assert_allclose(table["video"][[0, 5]], model.embed(video=[paths[0], paths[5]])["video"], atol=1e-5)
    fused = model.embed(audio=paths[0], video=paths[0])["audio_video"]
    np.testing.assert_allclose(table["audio_video"][:1], fused, atol=1e-5)
    for name, value in model.embed(text=TEXTS).items():
        np.testing.assert_allclose(table[name][6:], value, atol=1e-5)
    found = rejects(out)
    assert set(found) == {"bad.mp4", "bad.wav"}
    assert all("cannot be" in reason for reason in found.values())
    assert not out.with_suffix(".partial").exists()
    assert sorted(path.name for path in out.parent.iterdir()) == ["table.npz", "table.rejects.jsonl"]
    said = capsys.readouterr()
    assert "8 rows; 5 audio, 2 video, 1 audio_video" in said.out and "2 files could not be embedded" in said.out
    # What is there is not overwritten.
    assert run(checkpoint, out, folder) == 1
    assert "is there already" in capsys.readouterr().err


def test_processes_and_groups_change_nothing(
    checkpoint: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "c.npz"
    assert run(checkpoint, first, folder / "deep") == 0
    assert not first.with_suffix(".rejects.jsonl").exists()
    assert run(checkpoint, second, folder / "deep", workers=2, batch_seconds=1.0) == 0
    monkeypatch.setattr(command, "_BYTES_A_PART", 1)  # a window a part, of which a group is put together again
    monkeypatch.setattr(command, "_FILES_A_PIECE", 3)
    assert run(checkpoint, third, folder / "deep") == 0
    one = read(first)
    for other in (read(second), read(third)):
        assert set(one) == set(other) and one["ids"].tolist() == other["ids"].tolist()
        for name in set(one) - {"ids"}:
            np.testing.assert_allclose(one[name].astype(np.float64), other[name].astype(np.float64), atol=1e-5)


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
    monkeypatch.setattr(command, "_FILES_A_PIECE", 2)
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
    monkeypatch.setattr(command, "_FILES_A_PIECE", 1)
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


def test_nothing_embedded_fails(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npz"
    assert run(checkpoint, out, folder / "bad.mp4", folder / "bad.wav") == 1
    assert "none of the 2 files could be embedded" in capsys.readouterr().err
    assert set(rejects(out)) == {"bad.mp4", "bad.wav"}
    assert not out.exists() and not out.with_suffix(".partial").exists()


def test_a_file_that_breaks_while_it_is_decoded_is_rejected(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    """Its header is whole, so that only decoding finds out; its windows that were well are not kept."""
    broken, out = tmp_path / "broken.wav", tmp_path / "out.npz"
    data = noise(6.0, 3)
    write_wav(broken, data)
    floats = tmp_path / "late_nan.wav"
    data[-100] = np.nan
    write_float_wav(floats, data)
    assert run(checkpoint, out, broken, floats) == 0
    assert read(out)["ids"].tolist() == [str(broken)]
    assert "NaN" in rejects(out)["late_nan.wav"]


def test_a_model_that_needs_both_rejects_what_has_one(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    whole = PEAV.from_pretrained(checkpoint)
    encoders = {name: whole.encoders[name] for name in ("audio", "video", "audio_video")}
    fused = PEAV(encoders, ["audio_video"], 8, media=whole.media)  # type: ignore[arg-type]
    out = tmp_path / "out.npz"
    assert run(fused.save_pretrained(tmp_path / "fused"), out, folder) == 0
    assert read(out)["ids"].tolist() == [str(folder / "both.MP4")]
    assert rejects(out)["silent.mp4"] == "holds only video, of which alone the model makes no embedding"


def test_a_run_that_failed_before_it_did_anything_does_not_bind(
    framewise: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npz"
    assert run(framewise, out, folder / "deep", window_seconds=0.05) == 1
    assert "shorter than a frame of the model" in capsys.readouterr().err
    assert run(framewise, out, folder / "deep", window_seconds=2.0) == 0


def test_texts_alone_and_a_head(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "texts.npz"
    assert run(checkpoint, out, text=folder / "notes.txt", to="audio_video") == 0
    table = read(out)
    assert set(table) == {"ids", "text_audio_video", "text_audio_video.present"}
    expected = PEAV.from_pretrained(checkpoint).embed(text=TEXTS, to="audio_video")["text_audio_video"]
    np.testing.assert_allclose(table["text_audio_video"], expected, atol=1e-6)


def test_frames_of_a_frame_level_model(framewise: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "frames.npz"
    assert run(framewise, out, folder, text=folder / "notes.txt") == 0
    table = read(out)
    assert "holds only video, and the model reads audio" in rejects(out)["silent.mp4"]
    paths = [str(folder / name) for name in GOOD[:5]]
    assert table["ids"].tolist() == paths + TEXTS
    expected = PEAV.from_pretrained(framewise).embed(audio=paths)
    mask = expected["audio_frames_mask"]
    assert table["audio_frames.lengths"].tolist() == [*mask.sum(1).tolist(), 0, 0]
    assert table["audio_frames.present"].tolist() == [True] * 5 + [False] * 2
    np.testing.assert_allclose(table["audio_frames"], expected["audio_frames"][mask], atol=1e-5)
    assert "audio" not in table


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["nowhere"], {}, "there is no file or folder"),
        ([], {}, "nothing to embed: name files or folders"),
        (["empty"], {}, "holds no media; looked for"),
        (["deep"], {"out": "x.csv"}, "must end in .npz or .parquet, not 'x.csv'"),
        (["deep"], {"to": "audio"}, "there is no --text"),
        (["deep"], {"text": "nowhere.txt"}, "--text: there is no file"),
        (["deep"], {"text": "both.MP4"}, "is not UTF-8 text"),
        (["deep"], {"batch_seconds": 0}, "batch_seconds must be positive"),
        (["deep"], {"workers": -1}, "workers must be 0, to work in this process, or more"),
        (["deep"], {"num_frames": 2, "fps": 2}, "both say which frames"),
        (["deep"], {"overlap_seconds": 9}, "0 <= overlap_seconds < window_seconds=2"),
        (["deep"], {"model": "nowhere/at/all"}, "there is no folder nowhere/at/all"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    checkpoint: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    options: dict[str, Any],
    message: str,
) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    before = decode_counts()
    options = dict(options)
    out = tmp_path / options.pop("out", "out.npz")
    model = options.pop("model", checkpoint)
    if "text" in options:
        options["text"] = folder / options["text"]
    assert run(model, out, *(folder / word for word in words), **options) == 1
    assert message in capsys.readouterr().err
    assert decode_counts() == before and not out.exists()
    assert not list(tmp_path.glob("*.partial"))


def test_misspelt_options_are_refused(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        run(checkpoint, tmp_path / "out.npz", folder, wokers=1)
    assert caught.value.code == 2
    with pytest.raises(SystemExit):
        run(checkpoint, tmp_path / "out.npz", folder, to="smell")


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["embed", "--help"])
    assert caught.value.code == 0
    words = " ".join(capsys.readouterr().out.split())
    for option in ("MEDIA", "--model", "--out", "--text", "--to", "--num_frames", "--fps", "--window_seconds"):
        assert f" {option} " in words
    assert "files, and folders that are searched at any depth" in words
    assert "goes on where it was" in words and "NAME.present" in words


def test_parquet(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
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
    parquet = pytest.importorskip("pyarrow.parquet")
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


def test_a_name_that_is_no_text_is_rejected_and_stops_nothing(checkpoint: Path, tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    write_wav(media / "a.wav", noise(1.0, 3), RATE)
    strange = os.fsencode(media) + b"/bad\xff.wav"
    with open(strange, "wb") as file:
        file.write((media / "a.wav").read_bytes())
    out = tmp_path / "x.npz"
    assert run(checkpoint, out, media) == 0
    assert [Path(name).name for name in read(out)["ids"]] == ["a.wav"]
    assert [reason for reason in rejects(out).values()] == [
        "its name is not UTF-8, so that no table could hold it: rename it"
    ]


def test_a_file_that_is_named_in_several_ways_is_embedded_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wav(tmp_path / "a.wav", noise(1.0, 3), RATE)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "x.npz"
    assert run(checkpoint, out, "a.wav", "./a.wav", tmp_path / "a.wav") == 0
    assert read(out)["ids"].tolist() == ["a.wav"]
