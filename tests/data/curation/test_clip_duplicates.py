"""Which row of a table of vectors is whose, and clips without semantic duplicates, by the command that people run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from peav.cli.main import main
from peav.data.curation.clip_duplicates import ClipRows, SemanticOptions, find_clip_duplicates
from peav.data.curation.semdedup import SemDedup
from peav.data.curation.vector_table import UnitRows, VectorsError, VectorTable
from peav.data.manifests.clip import Clip
from peav.data.manifests.manifest import open_manifest
from tests.data.world import make_data

RANDOM = np.random.default_rng(0)


def write(path: Path, ids: list[str], **vectors: Any) -> Path:
    """As `peav embed` does, all rows with all embeddings; NaN in the first number of a vector says that a row has none."""
    given = {name: np.asarray(values) for name, values in vectors.items()}
    present = {f"{name}.present": ~np.isnan(values[:, 0]) for name, values in given.items()}
    return save(path, {"ids": np.array(ids, np.str_), **given, **present})


def save(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def pairs(count: int, dim: int = 8) -> np.ndarray:
    """Vectors of which each of the second half is nearly one of the first."""
    half = RANDOM.normal(size=(count // 2, dim))
    return np.concatenate([half, half + 0.01 * RANDOM.normal(size=half.shape)]).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_an_npz_is_mapped_and_not_read(tmp_path: Path, dtype: Any) -> None:
    vectors = RANDOM.normal(size=(50, 8)).astype(dtype)
    table = VectorTable(write(tmp_path / "v.npz", [f"a/{k}" for k in range(50)], audio=vectors))
    assert isinstance(table._files[0].arrays["audio"], np.memmap) and table.names == ("audio",) and len(table) == 50
    rows = np.array([7, 3, 49])
    assert (table.take("audio", rows) == vectors[rows].astype(np.float32)).all() and table.id_of(49) == "a/49"
    unit = UnitRows(table, "audio", np.arange(50)[::-1].copy()).take(np.array([0, 5]))
    expected = vectors[[49, 44]].astype(np.float32)
    assert np.allclose(unit, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)


def test_what_predict_wrote_on_several_ranks_is_one_table(tmp_path: Path) -> None:
    vectors = RANDOM.normal(size=(10, 4)).astype(np.float32)
    for rank, own in enumerate((slice(0, 6), slice(6, 10))):
        held = torch.from_numpy(vectors[own])
        tensors = {"audio": held, "audio.present": torch.ones(len(held), dtype=torch.bool)}
        ids = json.dumps([f"c{k}" for k in range(10)][own])
        save_file(tensors, tmp_path / f"embeddings-{rank}.safetensors", metadata={"ids": ids})
    table = VectorTable(tmp_path)
    assert list(table.ids()) == [f"c{k}" for k in range(10)] and table.id_of(6) == "c6"
    rows = np.array([9, 0, 6, 5])
    assert (table.take("audio", rows) == vectors[rows]).all()


def test_rows_belong_to_clips_by_id_and_by_the_end_of_their_path() -> None:
    class Table:
        path = Path("v.npz")
        names = ("audio", "text_audio")

        def __init__(self, ids: list[str]) -> None:
            self._ids = ids

        def __len__(self) -> int:
            return len(self._ids)

        def ids(self) -> Any:
            return iter(self._ids)

        def id_of(self, row: int) -> str:
            return self._ids[row]

        def present(self, name: str) -> np.ndarray:
            return np.ones(len(self._ids), bool)

    whole: dict[str, Any] = {"recording": {"id": "r", "duration": 3.0}, "media_duration": 3.0}
    clips = [
        Clip("by-id", 3.0),
        Clip("by-file", 3.0, files={"media": "talks/a.wav"}, **whole),
        Clip("same-name", 3.0, files={"media": "other/a.wav"}, **whole),
        Clip("later", 3.0, start=3.0, files={"media": "talks/b.wav"}, media_start=3.0, media_duration=3.0),
        Clip("begin", 1.0, files={"media": "talks/c.wav"}, **{**whole, "media_duration": 1.0}),
        Clip("chunk#0", 3.0, files={"media": "d.wav"}, **whole),
        Clip("chunk#1", 3.0, files={"media": "d.wav"}, **whole),
        Clip("two", 3.0, files={"audio": "e.wav", "video": "e.mp4"}, **whole),
    ]
    found = ClipRows()
    for clip in clips:
        found.add(clip)
    ids = [
        "/x/talks/a.wav",
        "by-id",
        "/x/other/a.wav",
        "b.wav",
        "/x/talks/b.wav",
        "talks/c.wav",
        "x/d.wav",
        "e.wav",
        "e.mp4",
    ]
    rows, kinds = found.match(Table(ids))  # type: ignore[arg-type]
    assert rows.tolist() == [1, 0, 2, -1, -1, -1, -1, -1] and kinds.tolist() == [1, 1, 1, -1, -1, -1, -1, -1]
    with pytest.raises(VectorsError, match=r"could both be the file 'talks/a\.wav'"):
        found.match(Table([*ids, "/y/talks/a.wav"]))  # type: ignore[arg-type]


def test_clips_are_held_against_those_of_which_the_same_is_compared(tmp_path: Path) -> None:
    vector = np.ones((4, 3), np.float32)
    none = np.full((1, 3), np.nan, np.float32)
    joint = np.concatenate([vector[:2], none, none])
    path = write(tmp_path / "v.npz", list("abcd"), audio=vector, audio_video=joint)
    clips = [(Clip(name, 1.0), True) for name in "abcd"]
    found = find_clip_duplicates(clips, lambda k: "abcd"[k], SemanticOptions(str(path)), tmp_path / "w")
    assert {name: one.stays for name, one in found.items()} == {"b": "a", "d": "c"}
    assert found["b"].similarity == 1.0 and "a" not in found and len(found) == 2


def test_peav_data_dedup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_data(tmp_path / "d", 12)
    make_data(tmp_path / "d", 3, split="test")
    path = write(tmp_path / "v.npz", [f"train-{k}" for k in range(12)], audio=pairs(12))
    command = ["data", "dedup", str(data), str(tmp_path / "out"), f"--vectors={path}"]
    assert main([*command, "--keep=random"]) == 0
    assert "6 clips are left out" in capsys.readouterr().out
    listed = [json.loads(line) for line in (tmp_path / "out/duplicates.jsonl").read_text().splitlines()]
    stay = {clip.id for clip in open_manifest(tmp_path / "out", "train")}
    assert len(listed) == 6 == len(stay) and not stay & {line["id"] for line in listed}
    for line in listed:
        gone, stays = (int(line[key].partition("-")[2]) for key in ("id", "stays"))
        assert line["stays"] in stay and abs(gone - stays) == 6 and line["similarity"] > 0.99
    assert len(open_manifest(tmp_path / "out", "test")) == 3
    assert main(["data", "validate", str(tmp_path / "out"), "--progress=false"]) == 0
    assert main(command) == 1 and "overwrite=true" in capsys.readouterr().err
    assert main([*command, "--eps=1e-6", "--overwrite=true"]) == 0
    assert len(open_manifest(tmp_path / "out", "train")) == 12
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("where", ["add", "_publish", "finish"])
@pytest.mark.parametrize("again", [False, True], ids=["new", "over another"])
def test_a_killed_edit_is_done_again_by_the_same_command(tmp_path: Path, where: str, again: bool) -> None:
    data = make_data(tmp_path / "d", 6)
    path = write(tmp_path / "v.npz", [f"train-{k}" for k in range(6)], audio=pairs(6))
    command = ["data", "dedup", str(data), str(tmp_path / "out"), f"--vectors={path}"]
    if again:
        assert main([*command, "--eps=1e-6"]) == 0
        command.append("--overwrite=true")
    kill = "lambda *_: os.kill(os.getpid(), 9)"
    code = f"import os; from peav.cli.main import main; from peav.data.curation.editing import EditWriter as E; E.{where} = {kill}"
    done = subprocess.run([sys.executable, "-c", f"{code}; main({command!r})"], capture_output=True, check=False)
    assert done.returncode == -9
    assert main(command) == 0
    assert len(open_manifest(tmp_path / "out", "train")) == 3
    names = {one.name for one in (tmp_path / "out").iterdir()}
    assert names - {"tokenizer.json"} == {"duplicates.jsonl", "manifest", "prepare.json", "semantic"}
    assert not list((tmp_path / "out/manifest").glob(".*"))


def test_the_folder_to_write_may_be_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data(tmp_path / "d", 4)
    path = write(tmp_path / "v.npz", [f"train-{k}" for k in range(4)], audio=pairs(4))
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    assert main(["data", "dedup", str(data), ".", f"--vectors={path}"]) == 0
    assert len(open_manifest(tmp_path / "out", "train")) == 2 and (tmp_path / "out/semantic").is_dir()


def test_two_rows_of_a_clip_must_agree_and_two_clips_of_an_id_are_refused(tmp_path: Path) -> None:
    def found(ids: str, rows: str, vectors: np.ndarray) -> Any:
        path = write(tmp_path / "v.npz", list(rows), audio=vectors)
        clips = [(Clip(name, 1.0), True) for name in ids]
        return find_clip_duplicates(clips, lambda k: ids[k], SemanticOptions(str(path), missing="stay"), tmp_path / "w")

    vectors = np.eye(3, dtype=np.float32)
    assert len(found("ab", "aba", vectors[[0, 1, 0]])) == 0
    with pytest.raises(VectorsError, match=r"rows 0 and 2 of .* both belong to the clip 'a', and their vectors differ"):
        found("ab", "aba", vectors)
    with pytest.raises(VectorsError, match=r"1 clips have the id of another one, such as 'a'"):
        found("aba", "ab", vectors[[0, 0]])


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("nan", "'train-2' in .* is not finite"),
        ("zero", "'train-2' in .* is zero"),
        ("short", "has 5 ids, but 'audio' is"),
        ("flat", "has 5 ids, but 'audio' is"),
        ("others", "none of the 5 clips, such as 'train-0'"),
        ("some", "no vector of 1 of 5 clips, such as 'train-4'"),
        ("texts", "holds the embeddings text_audio; clips are compared by audio_video"),
        ("compressed", "is compressed"),
        ("objects", "Python objects"),
        ("cut", "cannot be read as vectors"),
        ("no ids", "but no `ids`"),
        ("no vectors", "no embedding NAME with NAME.present"),
        ("parquet", "cannot be mapped into memory: write the vectors as .npz"),
        ("folder", "holds no embeddings-.*safetensors"),
        ("nothing", "there is no file or folder"),
        ("tensors", "is no safetensors file"),
    ],
)
def test_vectors_that_cannot_be_taken_are_a_sentence(tmp_path: Path, form: str, said: str) -> None:
    ids, vectors, path = [f"train-{k}" for k in range(5)], RANDOM.normal(size=(5, 4)), tmp_path / "v.npz"
    if form in ("nan", "zero"):
        vectors[2, 1:] = np.nan if form == "nan" else 0
        vectors[2, 0] = 0
    write(path, ids, audio=vectors)
    if form == "short":
        save(path, {"ids": np.array(ids), "audio": vectors[:4], "audio.present": np.ones(4, bool)})
    elif form == "flat":
        save(path, {"ids": np.array(ids), "audio": vectors[:, 0], "audio.present": np.ones(5, bool)})
    elif form == "others":
        write(path, [f"x/{k}.wav" for k in range(5)], audio=vectors)
    elif form == "some":
        write(path, ids[:4], audio=vectors[:4])
    elif form == "texts":
        write(path, ids, text_audio=vectors)
    elif form == "compressed":
        np.savez_compressed(path, ids=np.array(ids))
    elif form == "objects":
        np.savez(path, ids=np.array([None], object))
    elif form == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif form == "no ids":
        np.savez(path, audio=vectors)
    elif form == "no vectors":
        np.savez(path, ids=np.array(ids), audio=vectors)
    elif form == "parquet":
        path = path.rename(tmp_path / "v.parquet")
    elif form == "folder":
        path = tmp_path
    elif form == "nothing":
        path = tmp_path / "no.npz"
    elif form == "tensors":
        path = path.rename(tmp_path / "v.safetensors")
    clips = [(Clip(name, 1.0), True) for name in ids]
    with pytest.raises((VectorsError, FileNotFoundError), match=said):
        find_clip_duplicates(clips, ids.__getitem__, SemanticOptions(str(path)), tmp_path / "w")


def test_files_of_two_models_are_no_table(tmp_path: Path) -> None:
    for rank, dim in enumerate((4, 5)):
        tensors = {"audio": torch.ones(2, dim), "audio.present": torch.ones(2, dtype=torch.bool)}
        save_file(tensors, tmp_path / f"embeddings-{rank}.safetensors", metadata={"ids": f'["a{rank}", "b{rank}"]'})
    with pytest.raises(VectorsError, match=r"of \[4, 5\] dimensions"):
        UnitRows(VectorTable(tmp_path), "audio", np.arange(4))


def test_clips_without_a_vector_may_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "v.npz", ["a", "b"], audio=np.ones((2, 3)))
    clips = [(Clip(name, 1.0), True) for name in "abc"]
    options = SemanticOptions(str(path), SemDedup(), "stay")
    assert list(find_clip_duplicates(clips, lambda k: "abc"[k], options, tmp_path / "w")) == ["b"]
    with pytest.raises(ValueError, match="missing must be error or stay"):
        replace(options, missing="drop")  # type: ignore[arg-type]
