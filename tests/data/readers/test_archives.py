"""Media inside archives: WebDataset tars, parquet and Arrow files."""

from __future__ import annotations

import builtins
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Record
from peav.data.readers import HuggingFaceDataset, WebDatasetTars
from tests.data.readers.helpers import read, tar_bytes, texts, wav_bytes, write

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def unpacked(record: Record) -> dict[str, bytes]:
    """Returns the bytes of the files of a record by role, which must lie right in the folder of unpacked files."""
    assert record.root is not None and record.temporary
    assert all("/" not in path for path in record.files.values())
    return {role: (record.root / path).read_bytes() for role, path in record.files.items()}


def tars(root: Path) -> Path:
    first = {
        "0.flac": b"sound",
        "0.json": json.dumps({"text": ["Rain", "It rains"], "tag": ["rain"]}).encode(),
        "__index__": b"0",
        "1.json": json.dumps({"text": "A dog"}).encode(),
        "1.mp4": b"picture" * 1000,
        "2.wav": wav_bytes(),
        "2.txt": "\ufeffA cat\n".encode(),
    }
    second = {"0.mp3": b"a", "0.mp4": b"b", "deep/er.ogg": b"c"}
    return write(root, {"train/0.tar": tar_bytes(first), "test/0.tar": tar_bytes(second)})


def test_tars_are_unpacked_a_clip_at_a_time(tmp_path: Path) -> None:
    source, scratch = tars(tmp_path / "set"), tmp_path / "scratch"
    found: dict[str, tuple[dict[str, bytes], dict[str, tuple[str, ...]], str]] = {}
    for record in WebDatasetTars(dataset="Freesound").read(source, scratch, lambda _: False):
        assert isinstance(record, Record) and record.dataset == "Freesound"
        found[record.id] = unpacked(record), texts(record), record.split
        for path in record.files.values():
            (scratch / path).unlink()
        assert not list(scratch.iterdir()), "another clip was unpacked already"
    assert found == {
        "test/0/0": ({"audio": b"a", "video": b"b"}, {}, "test"),
        "test/0/deep/er": ({"media": b"c"}, {}, "test"),
        "train/0/0": ({"media": b"sound"}, {"audio": ("Rain", "It rains")}, "train"),
        "train/0/1": ({"media": b"picture" * 1000}, {"audio": ("A dog",)}, "train"),
        "train/0/2": ({"media": wav_bytes()}, {"audio": ("A cat",)}, "train"),
    }


def test_tars_skip_what_was_packed_before(tmp_path: Path) -> None:
    source, scratch = tars(tmp_path / "set"), tmp_path / "scratch"
    everything, _ = read(WebDatasetTars(), source, scratch)
    again, _ = read(WebDatasetTars(), source, tmp_path / "again", lambda clip_id: clip_id != "train/0/1")
    assert [(record.files, record.captions) for record in again.values()] == [
        (record.files, record.captions) for record in everything.values()
    ]
    assert [path.name for path in (tmp_path / "again").iterdir()] == [everything["train/0/1"].media]


def test_choices_of_tars(tmp_path: Path) -> None:
    source = tars(tmp_path / "set")
    records, _ = read(WebDatasetTars(caption_type="audio_video", split="validation"), source)
    assert {record.split for record in records.values()} == {"validation"}
    assert texts(records["train/0/1"]) == {"audio_video": ("A dog",)}
    with pytest.raises(ValueError, match=r"a word of letters, digits and underscores .* not 'scene text'"):
        WebDatasetTars(caption_type="scene text")
    with pytest.raises(ValueError, match="got 'tests'"):
        WebDatasetTars(split="tests")
    with pytest.raises(FileNotFoundError, match=r"no file \*.tar in"):
        read(WebDatasetTars(), write(tmp_path / "empty", {"a.zip": b""}))


@pytest.mark.parametrize("cut", ["in a file", "in a header", "before the end mark", "at once"])
def test_a_tar_that_is_cut_short(tmp_path: Path, cut: str) -> None:
    whole = tar_bytes({"a.flac": b"a" * 2000, "a.txt": b"A", "b.flac": b"b" * 2000, "b.txt": b"B"})
    size = {
        "in a file": 512 + 2048 + 1024 + 512 + 1000,
        "in a header": 512 + 2048 + 1024 + 200,
        "before the end mark": 2 * (512 + 2048 + 1024),
        "at once": 100,
    }[cut]
    source = write(tmp_path / "set", {"0.tar": whole[:size], "1.tar": tar_bytes({"c.flac": b"c"})})
    scratch = tmp_path / "scratch"
    records, rejects = read(WebDatasetTars(), source, scratch)
    assert list(records) == {"at once": ["1/c"], "in a header": ["1/c"]}.get(cut, ["0/a", "1/c"])
    (reject,) = rejects
    assert (reject.id, reject.file, reject.missing) == (None, "0.tar", False)
    assert "cut short or damaged" in reject.reason
    assert cut == "at once" or f"clip {'a' if cut == 'in a header' else 'b'!r} may not be whole" in reject.reason
    assert {path.name for path in scratch.iterdir()} == {record.media for record in records.values()}


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    whole = bytearray(tar_bytes({"a.flac": b"a", "b.flac": b"b", "c.flac": b"c"}))
    whole[1024 + 10] ^= 0xFF
    records, rejects = read(WebDatasetTars(), write(tmp_path / "set", {"0.tar": bytes(whole)}))
    assert not records and "no mark of the end" in rejects[0].reason


@pytest.mark.parametrize("name", ["../evil.flac", "/evil.flac", "a/../../evil.flac", "a/../evil.json"])
def test_members_cannot_lead_out_of_the_archive(tmp_path: Path, name: str) -> None:
    tar = tar_bytes({name: b"evil", "good.flac": b"good"})
    before = {path for path in tmp_path.parent.rglob("*evil*")}
    records, rejects = read(WebDatasetTars(), write(tmp_path / "set", {"0.tar": tar}))
    assert list(records) == ["0/good"] and unpacked(records["0/good"]) == {"media": b"good"}
    assert [reject.reason for reject in rejects] == [f"member {name!r} leads out of the archive: refused"]
    assert {path for path in tmp_path.parent.rglob("*evil*")} == before and not Path("/evil.flac").exists()


def test_links_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "a.flac"), (tarfile.LNKTYPE, "b.flac"), (tarfile.FIFOTYPE, "c.flac")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        folder = tarfile.TarInfo("d.flac")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    records, rejects = read(WebDatasetTars(), write(tmp_path / "set", {"0.tar": buffer.getvalue()}))
    assert not records and [reject.reason.split(" is a ")[0] for reject in rejects] == [
        "member 'a.flac'",
        "member 'b.flac'",
        "member 'c.flac'",
    ]


def test_clips_of_a_tar_that_cannot_be_used_leave_nothing_behind(tmp_path: Path) -> None:
    members = {
        "text.flac": b"x",
        "text.json": b'{"txt": "x"}',
        "broken.flac": b"x",
        "broken.json": b"{",
        "number.flac": b"x",
        "number.json": b'{"text": 3}',
        "bytes.flac": b"x",
        "bytes.txt": b"\xff",
        "alone.json": b'{"text": "x"}',
        "two.flac": b"1",
        "two.mp3": b"2",
        "good.flac": b"first",
        "other.flac": b"x",
        "good.wav": b"again",
    }
    scratch = tmp_path / "scratch"
    records, rejects = read(WebDatasetTars(), write(tmp_path / "set", {"0.tar": tar_bytes(members)}), scratch)
    assert list(records) == ["0/good", "0/other"] and unpacked(records["0/good"]) == {"media": b"first"}
    reasons = {
        "0/text": "text.json has no 'text'",
        "0/broken": "not JSON",
        "0/number": "must be strings",
        "0/bytes": "bytes.txt is not UTF-8",
        "0/alone": "no media file beside alone.json",
        "0/two": "the clip has two audio files",
        "0/good": "duplicate id '0/good'",
    }
    assert [reject.id for reject in rejects] == list(reasons)
    for reject in rejects:
        assert reasons[reject.id or ""] in reject.reason and reject.file == "0.tar"
    assert len(list(scratch.iterdir())) == 2


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    tar = tar_bytes({"\udcff.flac": b"x", "good.flac": b"x"})
    records, rejects = read(WebDatasetTars(), write(tmp_path / "set", {"0.tar": tar}))
    assert list(records) == ["0/good"] and rejects[0].id == "0/\\udcff"
    json.dumps(rejects[0].reason, ensure_ascii=False).encode()


def parquet(path: Path, columns: dict[str, Any], features: dict[str, str] | None = None) -> None:
    table = pa.table(columns)
    if features:
        info = {"info": {"features": {name: {"_type": kind} for name, kind in features.items()}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)


def hub(root: Path) -> Path:
    media = [
        {"bytes": wav_bytes(), "path": "a.wav"},
        {"bytes": b"flac", "path": "b.FLAC"},
        {"bytes": None, "path": "files/c.wav"},
        {"bytes": None, "path": "files/gone.wav"},
        {"bytes": b"raw", "path": None},
        None,
    ]
    captions = ["Rain", "Wind", "Hail", "Snow", None, "Sun"]
    parquet(root / "data/train-00000-of-00001.parquet", {"audio": media, "caption": captions, "id": [1, 1, 2, 3, 4, 5]})
    pairs = {
        "clip": [{"bytes": b"mp4", "path": "v.mp4"}],
        "sound": [{"bytes": b"wav", "path": "s.wav"}],
        "text": [["One", "Two"]],
        "audio_caption": ["A sound"],
        "transcription": ["hello"],
    }
    parquet(root / "data/test-00000-of-00001.parquet", pairs, {"clip": "Video", "sound": "Audio", "text": "Value"})
    return write(root, {"files/c.wav": wav_bytes(7)})


def test_parquet(tmp_path: Path) -> None:
    source, scratch = hub(tmp_path / "set"), tmp_path / "scratch"
    records, rejects = read(HuggingFaceDataset(dataset="Hub"), source, scratch)
    train, test = "data/train-00000-of-00001", "data/test-00000-of-00001"
    assert list(records) == [f"{test}/1", f"{train}/1", f"{train}/2", f"{train}/3", f"{train}/5"]
    pair, first, second, path, raw = records.values()
    assert unpacked(pair) == {"audio": b"wav", "video": b"mp4"} and pair.split == "test"
    assert texts(pair) == {"audio_video": ("One", "Two"), "audio": ("A sound",)}
    assert [item.text for item in pair.transcript] == ["hello"]
    assert unpacked(first) == {"media": wav_bytes()} and unpacked(second) == {"media": b"flac"}
    assert texts(first) == {"audio": ("Rain",)} and (first.split, first.dataset, first.line) == ("train", "Hub", 1)
    assert (path.files, path.root, path.temporary) == ({"media": "files/c.wav"}, None, False)
    assert unpacked(raw) == {"media": b"raw"} and texts(raw) == {}
    assert [(reject.id, reject.file, reject.line, reject.missing) for reject in rejects] == [
        (f"{train}/4", "files/gone.wav", 4, True),
        (f"{train}/6", f"{train}.parquet", 6, False),
    ]
    assert len(list(scratch.iterdir())) == 5


def test_parquet_skips_what_was_packed_before(tmp_path: Path) -> None:
    source, scratch = hub(tmp_path / "set"), tmp_path / "scratch"
    records, _ = read(HuggingFaceDataset(), source, scratch, lambda clip_id: not clip_id.endswith("/2"))
    assert len(records) == 5
    assert [path.read_bytes() for path in scratch.iterdir()] == [b"flac"]


def test_columns_may_be_named(tmp_path: Path) -> None:
    source = tmp_path / "set"
    columns = {"wav": [b"one", b"two", b"three"], "what": ["Rain", "Wind", "Hail"], "uid": ["a", "a", None]}
    parquet(source / "x.parquet", columns)
    reader = HuggingFaceDataset(audio_column="wav", captions={"what": "video"}, id_column="uid", split="validation")
    records, rejects = read(reader, source)
    assert {clip_id: (unpacked(record), texts(record), record.split) for clip_id, record in records.items()} == {
        "a": ({"media": b"one"}, {"video": ("Rain",)}, "validation")
    }
    assert [(reject.id, reject.line) for reject in rejects] == [("a", 2), (None, 3)]
    assert "duplicate id 'a'" in rejects[0].reason and "column 'uid' must hold an id" in rejects[1].reason
    with pytest.raises(
        RecordError, match="no column of audio, video or pictures: name one of wav, what, uid by audio_column"
    ):
        read(HuggingFaceDataset(), source)
    with pytest.raises(RecordError, match="no column 'waw': did you mean 'wav'"):
        read(HuggingFaceDataset(audio_column="waw"), source)
    with pytest.raises(ValueError, match=r"a caption type is a word .* not 'my speech'"):
        HuggingFaceDataset(captions={"what": "my speech"})
    parquet(source / "two.parquet", {"a": [b"x"], "b": [b"x"]}, {"a": "Audio", "b": "Audio"})
    (source / "x.parquet").unlink()
    with pytest.raises(RecordError, match="2 columns of the type Audio: name one of a, b by audio_column"):
        read(HuggingFaceDataset(), source)


def test_a_column_of_media_that_holds_none(tmp_path: Path) -> None:
    parquet(tmp_path / "set/x.parquet", {"audio": [1], "caption": ["Rain"]})
    parquet(tmp_path / "set/y.parquet", {"audio": [b"x"], "caption": [5]})
    parquet(tmp_path / "set/z.parquet", {"audio": ["../x.wav"]})
    records, rejects = read(HuggingFaceDataset(), tmp_path / "set")
    assert not records
    for reject, reason in zip(rejects, ["it holds int64", "must be strings", "inside the source folder"], strict=True):
        assert reason in reject.reason and not reject.missing


def test_damaged_files_of_the_hub(tmp_path: Path) -> None:
    source = hub(tmp_path / "set")
    whole = (source / "data/train-00000-of-00001.parquet").read_bytes()
    write(
        source,
        {"data/a.parquet": whole[:-50], "data/b.parquet": b"PAR1" + bytes(60) + whole[64:], "data/c.arrow": b"x"},
    )
    records, rejects = read(HuggingFaceDataset(), source)
    assert {f"data/{name}" for name in ("test-00000-of-00001/1", "train-00000-of-00001/1")} <= set(records)
    damaged = {reject.file for reject in rejects if "cannot be read" in reject.reason}
    assert damaged == {"data/a.parquet", "data/b.parquet", "data/c.arrow"}
    with pytest.raises(FileNotFoundError, match=r"no file \*.parquet or \*.arrow"):
        read(HuggingFaceDataset(), source / "files")


def test_what_save_to_disk_leaves(tmp_path: Path) -> None:
    table = pa.table(
        {"audio": [{"bytes": b"one", "path": "a.wav"}, {"bytes": b"two", "path": None}], "text": ["A", "B"]}
    )
    for name in ("train/data-00000-of-00001.arrow", "train/cache-1.arrow"):
        (tmp_path / "set/train").mkdir(parents=True, exist_ok=True)
        with pa.OSFile(str(tmp_path / "set" / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=1)
    write(tmp_path / "set", {"dataset_dict.json": "{}", "train/state.json": "{}"})
    records, rejects = read(HuggingFaceDataset(), tmp_path / "set")
    assert [(clip_id, unpacked(record), texts(record), record.split) for clip_id, record in records.items()] == [
        ("train/data-00000-of-00001/1", {"media": b"one"}, {"audio": ("A",)}, "train"),
        ("train/data-00000-of-00001/2", {"media": b"two"}, {"audio": ("B",)}, "train"),
    ]
    assert not rejects


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install peav\[parquet\]"):
        read(HuggingFaceDataset(), tmp_path)


def test_tars_of_images_and_texts(tmp_path: Path) -> None:
    parts: dict[str, bytes] = {
        "a.jpg": b"image",
        "a.txt": b"A dog",
        "a.json": json.dumps({"caption": "another", "url": "x"}).encode(),
        "b.webp": b"image",
        "b.json": json.dumps({"caption": "A cat"}).encode(),
        "c.flac": wav_bytes(),
        "c.png": b"image",
        "c.txt": b"A bark",
        "d.jpg": b"thumbnail",
        "d.mp4": b"film",
        "d.txt": b"A street",
        "e.mp4": b"film",
        "e.png": b"thumbnail",
        "e.txt": b"A road",
    }
    source = write(tmp_path / "set", {"images.tar": tar_bytes(parts)})
    seen: dict[str, tuple[dict, dict]] = {}
    for item in WebDatasetTars().read(source, tmp_path / "scratch", lambda clip_id: False):
        assert isinstance(item, Record)
        assert item.root is not None
        seen[item.id] = ({role: (item.root / file).read_bytes() for role, file in item.files.items()}, texts(item))
    assert seen == {
        "images/a": ({"media": b"image"}, {"video": ("A dog",)}),
        "images/b": ({"media": b"image"}, {"video": ("A cat",)}),
        "images/c": ({"audio": wav_bytes(), "video": b"image"}, {"audio": ("A bark",)}),
        "images/d": ({"media": b"film"}, {"audio": ("A street",)}),
        "images/e": ({"media": b"film"}, {"audio": ("A road",)}),
    }
    assert len(list((tmp_path / "scratch").iterdir())) == 6  # no thumbnail is left


def test_images_of_the_hub(tmp_path: Path) -> None:
    rows = {
        "image": [{"bytes": b"one", "path": "a.png"}, {"bytes": b"two", "path": None}],
        "text": ["A dog", "A cat"],
    }
    parquet(tmp_path / "set/train.parquet", rows, {"image": "Image"})
    records, rejects = read(HuggingFaceDataset(), tmp_path / "set")
    assert not rejects
    assert [(texts(record), list(record.files)) for record in records.values()] == [
        ({"video": ("A dog",)}, ["media"]),
        ({"video": ("A cat",)}, ["media"]),
    ]
