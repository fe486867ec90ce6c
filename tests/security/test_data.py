"""Data from elsewhere: manifests, indices and shards, features, stores. Each is opened by the commands that people run."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from peav.cli.main import main
from peav.data import ManifestError
from peav.data.loading.dataset import ClipDataset
from peav.data.loading.decoding import ClipReader, DecodeSettings
from peav.data.loading.features import FeatureReader, FeatureRow, write_segment
from peav.data.manifests.manifest import Manifest, load_manifest
from peav.data.stores.outside import remembered_at
from peav.data.stores.reader import ShardReader
from peav.data.stores.remote import ChunkCache, StoreError, StoreOptions
from peav.data.stores.samples import ShardError
from tests.data.world import make_data
from tests.security.hostile import Bomb, Scene, files_below, refused_by_command

Change = Callable[[dict[str, Any]], None]


def config(**changes: Any) -> Change:
    return lambda index: index["config"].update(changes)


def chunk(**changes: Any) -> Change:
    return lambda index: index["chunks"][0].update(changes)


INDICES: dict[str, tuple[Change, str]] = {
    "pickles": (config(data_format=["pickle", "bytes", "bytes", "bytes", "int"]), "'pickle'"),
    "pickles in a graph": (config(data_format=["str", "graph", "bytes", "bytes", "int"]), "'graph'"),
    "arrays": (config(data_format=["str", "no_header_tensor:1", "bytes", "bytes", "int"]), "no_header_tensor"),
    "files": (config(data_format=["str", "file", "bytes", "bytes", "int"]), "'file'"),
    "pictures": (config(data_format=["str", "tiff", "bytes", "bytes", "int"]), "'tiff'"),
    "a thousand fields": (config(data_format=["bytes"] * 1000), "1000 fields"),
    "no field": (config(data_format=[]), "0 fields"),
    "compression": (config(compression="zstd"), "compression='zstd'"),
    "encryption": (config(encryption={"algorithm": "evil"}), "encryption="),
    "another format": (config(format="mds"), "format='mds'"),
    "another loader": (config(item_loader="evil_encoders.Loader"), "evil_encoders.Loader"),
    "a chunk above": (chunk(filename="../../../secret.json"), "is no name of a chunk"),
    "a chunk elsewhere": (chunk(filename="/etc/passwd"), "is no name of a chunk"),
    "a chunk by backslashes": (chunk(filename="..\\..\\secret.json"), "is no name of a chunk"),
    "a chunk by a drive": (chunk(filename="C:secret.json"), "is no name of a chunk"),
    "a chunk with a NUL": (chunk(filename="chunk\0.bin"), "is no name of a chunk"),
    "a chunk that is a number": (chunk(filename=7), "is no name of a chunk"),
    "rows without end": (chunk(chunk_size=10**9), "cannot hold"),
    "fewer rows than none": (chunk(chunk_size=-5), "cannot hold"),
    "bytes without end": (chunk(chunk_bytes=1 << 60), "bytes and"),
    "no chunks": (lambda index: index.pop("chunks"), "damaged"),
    "nothing of an index": (lambda index: index.update(config=[], chunks=3), "damaged"),
}


@pytest.mark.parametrize("name", INDICES)
def test_an_index(scene: Scene, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, said = INDICES[name]
    scene.change_index(change)
    assert said in refused_by_command(scene.evaluate(), capsys)


def test_a_row_that_would_be_unpickled_is_bytes(scene: Scene) -> None:
    """The example of old: a shard whose index says `pickle` for the id."""
    path = next((scene.data / "shards" / "test").glob("*.bin"))
    body = pickle.dumps(Bomb(scene.canary))
    fields = [body, b"", b"", b"", struct.pack("<q", 0)]
    row = struct.pack("<5I", *map(len, fields)) + b"".join(fields)
    begin = 4 * 3
    path.write_bytes(struct.pack("<III", 1, begin, begin + len(row)) + row)
    scene.change_index(
        lambda index: index.update(
            chunks=[{"filename": path.name, "chunk_bytes": path.stat().st_size, "chunk_size": 1, "dim": None}]
        )
    )
    with pytest.raises(ShardError):
        ShardReader(scene.data / "shards" / "test").read(0)
    scene.change_index(config(data_format=["pickle", "bytes", "bytes", "bytes", "int"]))
    with pytest.raises(ShardError, match="may run code"):
        ShardReader(scene.data / "shards" / "test").read(0)


@pytest.mark.parametrize("offsets", [(0, 2**32 - 1), (2**32 - 1, 0), (12, 2**31)])
def test_offsets_beyond_the_chunk(scene: Scene, offsets: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    """The clips that they were of are left out by name, and nothing else of the chunk is read in their place."""
    path = sorted((scene.data / "shards" / "test").glob("*.bin"))[0]
    data = bytearray(path.read_bytes())
    data[4:12] = struct.pack("<II", *offsets)
    path.write_bytes(data)
    assert main(scene.evaluate()) == 0
    gone = [record.getMessage() for record in caplog.records if "left out: clip" in record.getMessage()]
    assert any("the chunk ends early" in message for message in gone) and all("cannot be read" in m for m in gone)
    found = json.loads((scene.folder / "report/evaluation.json").read_text())
    assert len(found["dataset"]["undecodable"]) == len(gone)


def spoiled_file(name: str, spoil: Callable[[Path, Scene], Any]) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        path = next((scene.data / "shards" / "test").glob(name))
        path.unlink()
        spoil(path, scene)

    return change


def of_a_gigabyte(path: Path, scene: Scene) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


FILES: dict[str, tuple[Callable[[Scene], None], str]] = {
    "an index of a gigabyte": (
        spoiled_file("index.json", of_a_gigabyte),
        "bytes; more than",
    ),
    "an index nested without end": (
        spoiled_file("index.json", lambda path, scene: path.write_text("[" * 200_000)),
        "nested too deep",
    ),
    "an index that links out": (
        spoiled_file("index.json", lambda path, scene: path.symlink_to(scene.secret)),
        "is a link out of its folder",
    ),
    "a chunk that links out": (
        spoiled_file("*.bin", lambda path, scene: path.symlink_to(scene.secret)),
        "is a link out of its folder",
    ),
    "a chunk without end": (
        spoiled_file("*.bin", lambda path, scene: path.symlink_to("/dev/zero")),
        "is no plain file",
    ),
    "a chunk that is a pipe": (spoiled_file("*.bin", lambda path, scene: os.mkfifo(path)), "is no plain file"),
}


@pytest.mark.parametrize("name", FILES)
def test_the_files_of_shards(scene: Scene, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, said = FILES[name]
    spoil(scene)
    message = refused_by_command(scene.evaluate(), capsys)
    assert said in message and "hunter2" not in message


def line(**changes: Any) -> Change:
    return lambda cut: cut["custom"].update(changes)


def recording(kind: str, source: str) -> Change:
    return lambda cut: cut.update(
        recording={
            "id": "r",
            "sources": [{"type": kind, "channels": [0], "source": source}],
            "sampling_rate": 8000,
            "num_samples": 80000,
            "duration": 10.0,
        }
    )


MANIFESTS: dict[str, tuple[Change, str]] = {
    "a store elsewhere": (line(store="/etc"), "names stores outside of its folder: '/etc'"),
    "a store above": (line(store="../../other/shards/test"), "names stores outside of its folder"),
    "a store at home": (line(store="~/shards"), "names stores outside of its folder"),
    "a store on the network": (line(store="s3://evil/shards/test"), "names stores outside of its folder"),
    "a store at an address": (line(store="http://evil/shards"), "names stores outside of its folder"),
    "a store by backslashes": (line(store="..\\shards"), "names stores outside of its folder"),
    "a store with a NUL": (line(store="shards\0/test"), "names stores outside of its folder"),
    "a slow disk": (line(store="local:/etc"), "names stores outside of its folder"),
    "a command": (recording("command", "touch canary"), "by running 'touch canary'"),
    "sources that are none": (lambda cut: cut.update(recording={"id": "r", "sources": "evil"}), "must be a list"),
    "a field of another class": (lambda cut: cut.update(type="PaddingCut"), "a clip is a MonoCut"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest(scene: Scene, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, said = MANIFESTS[name]
    scene.change_manifest(change)
    message = refused_by_command(scene.evaluate(), capsys)
    assert said in message
    if "stores" in said:
        assert f"peav data trust {scene.data}" in message


def test_a_manifest_for_lhotse_runs_no_command(scene: Scene) -> None:
    scene.change_manifest(recording("command", f"touch {scene.canary}"))
    with pytest.raises(ManifestError, match="by running"):
        load_manifest(scene.data, "test")


def test_a_clip_of_a_century(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    def century(cut: dict[str, Any]) -> None:
        cut["duration"] = 3e9
        cut["custom"] |= {"media_duration": 3e9, "has_audio": False}

    scene.change_manifest(century)
    assert "and would take 192,000.0 GB" in refused_by_command(scene.evaluate(), capsys)


def test_a_manifest_that_links_out(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    path = scene.data / "manifest" / "test.jsonl"
    path.unlink()
    path.symlink_to(scene.secret)
    message = refused_by_command(scene.evaluate(), capsys)
    assert "is a link out of its folder" in message and "hunter2" not in message


def test_captions_are_no_markup(scene: Scene) -> None:
    evil = "<script>alert(1)</script>"

    def spoil(cut: dict[str, Any]) -> None:
        cut["custom"] |= {"captions": {"audio": [evil]}, "domain": evil, "licence": evil, "transcript": evil}

    scene.change_manifest(spoil)
    assert main(["data", "inspect", str(scene.data), "--split", "test", "--out", str(scene.folder / "x.html")]) == 0
    assert main(scene.evaluate()) == 0
    for page in (scene.folder / "x.html", scene.folder / "report" / "report.html"):
        assert "<script" not in page.read_text() and "&lt;script&gt;alert" in page.read_text()


def test_a_line_without_end(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    with (scene.data / "manifest" / "test.jsonl").open("r+b") as stream:
        stream.truncate(1 << 30)
    assert "the line is longer than" in refused_by_command(scene.evaluate(), capsys)


def test_a_store_that_links_out_is_asked_for_once(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = scene.folder / "elsewhere"
    (scene.data / "shards").rename(elsewhere)
    (scene.data / "shards").symlink_to(elsewhere)
    assert "names stores outside of its folder: 'shards/test'" in refused_by_command(scene.evaluate(), capsys)
    before = {path: state for path, state in files_below(scene.data).items() if ".index" not in path}
    assert main(["data", "trust", str(scene.data)]) == 0
    said = capsys.readouterr().out
    assert "shards/test" in said and str(remembered_at()) in said
    after = files_below(scene.data)
    assert {path: state for path, state in after.items() if ".index" not in path} == before
    assert main(scene.evaluate()) == 0
    # A store that was not said yes to is asked for again.
    scene.change_manifest(line(store="/etc"))
    assert "'/etc'" in refused_by_command(scene.evaluate(), capsys)


def test_what_split_and_mix_write_is_known(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    out, mixed, moved = scene.folder / "split", scene.folder / "mixed", scene.folder / "moved"
    assert main(["data", "split", str(scene.data), str(out), "--test", "0.9", "--validation", "0", "--by", "id"]) == 0
    assert main(["data", "mix", str(out), "--out", str(mixed)]) == 0
    capsys.readouterr()
    assert len(ClipDataset(mixed, "test", fields=["audio"])) > 0
    mixed.rename(moved)
    with pytest.raises(StoreError, match=f"peav data trust {moved}"):
        ClipDataset(moved, "test", fields=["audio"])
    assert len(ClipDataset(moved, "test", fields=["audio"], store=StoreOptions(trust=True))) > 0


@pytest.mark.parametrize("words", [["split"], ["mix"]])
def test_split_and_mix_ask_for_the_stores_of_a_stranger(
    scene: Scene, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    scene.change_manifest(line(store="/etc"))
    out = scene.folder / "out"
    asked = ["data", *words, str(scene.data), *([str(out)] if words == ["split"] else ["--out", str(out)])]
    status = main(asked)
    assert status == 1 and "names stores outside of its folder: '/etc'" in capsys.readouterr().err


def test_validate_and_inspect_ask_too(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.change_manifest(line(store="/etc"))
    assert main(["data", "validate", str(scene.data), "--progress", "false"]) == 1
    assert "outside of its folder" in " ".join(capsys.readouterr().out.split())
    assert main(["data", "inspect", str(scene.data), "--split", "test", "--out", str(scene.folder / "x.html")]) == 0
    assert "which cannot be decoded" in capsys.readouterr().out


def test_features_from_elsewhere(scene: Scene) -> None:
    folder = scene.data / "features" / "dac"
    clips = list(Manifest(scene.data / "manifest" / "test.jsonl"))
    write_segment(folder / "test", 0, [FeatureRow(clip.id, torch.ones(2, 3), 0.04, clip.crc32) for clip in clips])
    segment = json.loads((folder / "test" / "segment-0.json").read_text())
    info = {"name": "dac", "kind": "audio", "dim": 3, "encoder": "X", "frontend": "x", "rows": {"test": len(clips)}}
    settings = DecodeSettings()
    info["media"] = {"sample_rate": settings.sample_rate, "downmix": settings.downmix}
    (folder / "features.json").write_text(json.dumps(info))

    def read() -> Any:
        (folder / "test" / "index.json").write_text(json.dumps(segment))
        return FeatureReader(ClipReader(str(scene.data), settings), "audio", "dac").read(clips[0])

    assert read()[0].shape == (2, 3)
    segment["config"]["data_format"][1] = "pickle"
    with pytest.raises(ShardError, match="may run code"):
        read()


def test_a_store_writes_nothing_outside_its_cache(tmp_path: Path) -> None:
    source = make_data(tmp_path / "source", clips=6, split="test")
    cache = tmp_path / "cache"
    options = StoreOptions(cache_dir=str(cache))
    index = source / "shards" / "test" / "index.json"
    shards = json.loads(index.read_text())
    chunk_file = source / "shards" / "test" / shards["chunks"][0]["filename"]
    (source / "shards" / "evil.bin").write_bytes(chunk_file.read_bytes())
    shards["chunks"][0]["filename"] = "../evil.bin"
    index.write_text(json.dumps(shards))
    with pytest.raises(ShardError, match="is no name of a chunk"):
        ShardReader(f"local:{source}/shards/test", options).read(0)
    for name in ("../evil.bin", "/evil.bin", "a/../../evil.bin", "..\\evil.bin", "evil.bin\0", "http:evil.bin"):
        for get in (
            ChunkCache(f"local:{source}/shards/test", options).fetch,
            ChunkCache(f"local:{source}", options).refresh,
        ):
            with pytest.raises(StoreError, match="leads out of the folder"):
                get(name)
    assert not list(tmp_path.rglob("cache/*/../*.bin")) and not list(cache.glob("*.bin"))
    assert not (tmp_path / "evil.bin").exists()


def test_a_store_that_gives_more_than_it_said(tmp_path: Path) -> None:
    source = make_data(tmp_path / "source", clips=6, split="test")
    with (source / "prepare.json").open("r+b") as stream:
        stream.truncate(1 << 28)
    with pytest.raises(StoreError, match="more than the"):
        ChunkCache(f"local:{source}", StoreOptions(cache_dir=str(tmp_path / "cache"))).refresh("prepare.json")
