"""`peav embed`, run as a user runs it: files, folders and texts to a table; bad files are left out and named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from peav.cli import decoding, embed_pieces
from peav.data.media.decode import decode_counts
from peav.model import PEAV
from tests.cli.embed.helpers import GOOD, RATE, TEXTS, noise, read, rejects, run
from tests.data.conftest import write_float_wav, write_wav


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


def test_processes_are_started_where_they_are_worth_it(
    checkpoint: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default what takes less time to decode than processes take to start is decoded here, and all else in them."""
    before = decode_counts()["audio"]
    assert run(checkpoint, tmp_path / "here.npz", folder / "deep", workers=None) == 0
    here = decode_counts()["audio"]
    assert here > before
    monkeypatch.setattr(decoding, "_START_SECONDS", 0.2)
    assert run(checkpoint, tmp_path / "there.npz", folder / "deep", workers=None, batch_seconds=1.0) == 0
    assert decode_counts()["audio"] == here
    for name, value in read(tmp_path / "here.npz").items():
        there = read(tmp_path / "there.npz")[name]
        if value.dtype.kind == "f":
            np.testing.assert_allclose(there, value, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(there, value, err_msg=name)


def test_processes_and_groups_change_nothing(
    checkpoint: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "c.npz"
    assert run(checkpoint, first, folder / "deep") == 0
    assert not first.with_suffix(".rejects.jsonl").exists()
    assert run(checkpoint, second, folder / "deep", workers=2, batch_seconds=1.0) == 0
    monkeypatch.setattr(decoding, "_BYTES_A_PART", 1)  # a window a part, of which a group is put together again
    monkeypatch.setattr(embed_pieces, "_FILES_A_PIECE", 3)
    assert run(checkpoint, third, folder / "deep") == 0
    one = read(first)
    for other in (read(second), read(third)):
        assert set(one) == set(other) and one["ids"].tolist() == other["ids"].tolist()
        for name in set(one) - {"ids"}:
            np.testing.assert_allclose(one[name].astype(np.float64), other[name].astype(np.float64), atol=1e-5)


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


def test_texts_alone_and_a_head(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "texts.npz"
    assert run(checkpoint, out, text=folder / "notes.txt", to="audio_video") == 0
    table = read(out)
    assert set(table) == {"ids", "text_audio_video", "text_audio_video.present"}
    expected = PEAV.from_pretrained(checkpoint).embed(text=TEXTS, to="audio_video")["text_audio_video"]
    np.testing.assert_allclose(table["text_audio_video"], expected, atol=1e-6)


def test_texts_as_people_have_them(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five lines are five texts: what separates lines elsewhere, and the mark that an editor puts first, is no part of that."""
    texts = [
        "a dog\u2028barks",
        "rain\u0085falls",
        "\u05db\u05dc\u05d1 \u05e0\u05d5\u05d1\u05d7",
        "\U0001f415\u200d\U0001f9ba barks\x0b",
        "last",
    ]
    path, out = tmp_path / "notes.txt", tmp_path / "texts.npz"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(texts).encode() + b"\n\n")
    assert run(checkpoint, out, text=path, to="audio") == 0
    assert read(out)["ids"].tolist() == [text.strip() for text in texts]
    path.write_bytes("a dog\n".encode("utf-16"))
    assert run(checkpoint, tmp_path / "other.npz", text=path) == 1
    assert "is not UTF-8 text: it is UTF-16, as spreadsheets and Notepad write it" in capsys.readouterr().err


def test_a_head_that_the_model_lacks_is_named(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoint, tmp_path / "out.npz", text=folder / "notes.txt", to="audoi") == 1
    assert "this model has no head text_audoi for texts. Did you mean 'audio'" in capsys.readouterr().err


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


def test_a_file_that_lasts_nothing_is_named_as_such(checkpoint: Path, tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    write_wav(media / "sound.wav", noise(0.6, 1))
    write_wav(media / "none.wav", np.zeros(0))
    write_float_wav(media / "nothing.wav", np.zeros(0))
    assert run(checkpoint, tmp_path / "table.npz", media) == 0
    assert read(tmp_path / "table.npz")["ids"].tolist() == [str(media / "sound.wav")]
    found = rejects(tmp_path / "table.npz")
    assert set(found) == {"none.wav", "nothing.wav"}
    assert all("holds nothing that lasts: its duration is 0 s" in reason for reason in found.values())
