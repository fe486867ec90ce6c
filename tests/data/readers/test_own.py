"""clips.jsonl, tables and folders of media."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peav.data.manifests.fields import RecordError
from peav.data.readers import Folder, JSONLines, Table
from tests.data.readers.helpers import events, lines, origins, read, texts, wav_bytes, write


def jsonl(root: Path) -> Path:
    table = lines(
        {"id": "a", "media": "a.wav", "captions": {"audio": "one two three"}, "split": "test", "dataset": "mine"},
        {"id": "b", "media": "gone.wav"},
        {"id": "c"},
    )
    return write(root, {"clips.jsonl": table, "a.wav": wav_bytes()})


def test_jsonl(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "set")
    records, rejects = read(JSONLines(), source)
    assert list(records) == ["a"] and texts(records["a"]) == {"audio": ("one two three",)}
    assert (records["a"].split, records["a"].dataset, records["a"].line) == ("test", "mine", 1)
    assert [(reject.id, reject.file, reject.line, reject.missing) for reject in rejects] == [
        ("b", "gone.wav", 2, True),
        ("c", None, 3, False),
    ]
    assert texts(read(JSONLines(max_caption_words=2), source)[0]["a"]) == {}
    outside = write(tmp_path, {"other.jsonl": lines({"id": "x", "media": "a.wav"})}) / "other.jsonl"
    assert list(read(JSONLines(str(outside)), source)[0]) == ["x"]
    with pytest.raises(FileNotFoundError, match=r"no file .*none.jsonl"):
        read(JSONLines("none.jsonl"), source)


def table(root: Path) -> Path:
    rows = lines(
        "id,media,audio,video,start,duration,transcript,domain,split,licence,caption,video_caption",
        'a,a.wav,,,1.5,2,"hello, world",speech,test,CC0,"One\ntwo",',
        "b,,a.wav,v.mp4,,,,,,,,A street",
        "c,gone.wav,,,,,,,,,,",
        "d,a.wav,,,one,,,,,,,",
        "e,a.wav,,,,,,,tests,,,",
        "f,a.wav,a.wav,,,,,,,,,",
        "a,a.wav,,,,,,,,,,",
        ",a.wav,,,,,,,,,,",
        "g,a.wav",
        "h,a.wav,,,,0,,,,,,",
    )
    return write(root, {"clips.csv": "\ufeff" + rows, "a.wav": wav_bytes(), "v.mp4": b"x"})


def test_table(tmp_path: Path) -> None:
    records, rejects = read(Table(dataset="mine", domain="music"), table(tmp_path / "set"))
    first, second = records.values()
    assert (first.id, first.line, first.files, first.start, first.duration) == ("a", 2, {"media": "a.wav"}, 1.5, 2.0)
    assert (first.domain, first.split, first.licence, first.dataset) == ("speech", "test", "CC0", "mine")
    assert texts(first) == {"audio": ("One\ntwo",)} and first.transcript[0].text == "hello, world"
    assert (second.id, second.line, second.files) == ("b", 4, {"audio": "a.wav", "video": "v.mp4"})
    assert (second.domain, second.split, second.duration) == ("music", "train", None)
    assert texts(second) == {"video": ("A street",)}
    assert [(reject.id, reject.line, reject.missing) for reject in rejects] == [
        ("c", 5, True),
        ("d", 6, False),
        ("e", 7, False),
        ("f", 8, False),
        ("a", 9, False),
        (None, 10, False),
        (None, 11, False),
        ("h", 12, False),
    ]


def test_the_columns_of_a_table(tmp_path: Path) -> None:
    rows = 'name\tfile\tsay\tnote\n1\ta.wav\tA "dog"\tx\n'
    source = write(tmp_path, {"my.tsv": rows, "a.wav": wav_bytes()})
    columns = {"name": "id", "file": "media", "say": "captions.audio_video"}
    records, rejects = read(Table("my.tsv", columns, ignored_columns=["note"]), source)
    assert texts(records["1"]) == {"audio_video": ('A "dog"',)} and not rejects
    with pytest.raises(RecordError, match="unknown column 'note'"):
        read(Table("my.tsv", columns), source)
    with pytest.raises(RecordError, match="has no column 'id'"):
        read(Table("my.tsv", {"name": "domain", "file": "media", "say": "licence"}, ["note"]), source)
    with pytest.raises(RecordError, match="unknown column 'domian': did you mean 'domain'"):
        read(Table(), write(tmp_path, {"clips.csv": "id,domian\n"}))
    with pytest.raises(ValueError, match=r"and captions.TYPE, not to events"):
        Table(columns={"a": "events", "b": "captions.title", "c": "id"})
    with pytest.raises(ValueError, match=r"a word of letters, digits and underscores .* not 'my title'"):
        Table(columns={"b": "captions.my title", "c": "id"})
    with pytest.raises(FileNotFoundError, match=r"no file 'none.csv'"):
        read(Table("none.csv"), source)


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_other_marks_between_the_cells(mark: str, name: str, tmp_path: Path) -> None:
    """As spreadsheets of other countries write them, with the mark that they begin a file with, and a comma in numbers."""
    rows = "\n".join(
        mark.join(row) for row in (["id", "media", "caption", "start"], ["a", "a.wav", "Rain, then wind", "1.5"])
    )
    rows += "\n" + mark.join(["b", "a.wav", "Wind", "1,5"])
    source = write(tmp_path, {"clips.csv": b"\xef\xbb\xbf" + rows.encode(), "a.wav": wav_bytes()})
    with pytest.raises(RecordError) as caught:
        read(Table(), source)
    assert f"its cells are separated by {name}, not by commas: add --reader.delimiter {mark!r}" in str(caught.value)
    records, rejects = read(Table(delimiter=mark), source)
    assert texts(records["a"]) == {"audio": ("Rain, then wind",)} and records["a"].start == 1.5
    assert [reject.reason for reject in rejects] == ["'start' must be a number of seconds, got '1,5': write 1.5"]
    with pytest.raises(ValueError, match="is one character"):
        Table(delimiter=";;")


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_the_index_of_pandas_is_named_for_what_it_is(name: str, tmp_path: Path) -> None:
    source = write(tmp_path, {"clips.csv": f"{name},id,media\n0,a,a.wav\n", "a.wav": wav_bytes()})
    with pytest.raises(
        RecordError, match=r"is the index that pandas writes, .* write the table with to_csv\(index=False\)"
    ):
        read(Table(), source)
    assert list(read(Table(ignored_columns=[name]), source)[0]) == ["a"]


def test_a_table_in_utf_16_is_named_for_what_it_is(tmp_path: Path) -> None:
    source = write(tmp_path, {"clips.csv": "id,media\na,a.wav\n".encode("utf-16")})
    with pytest.raises(RecordError, match="UTF-16, as spreadsheets and Notepad write it; save it as UTF-8"):
        read(Table(), source)


def folder(root: Path) -> Path:
    full = {
        "captions": {"video": "A street"},
        "text": [{"text": "Cars", "origin": "synthetic"}],
        "events": [{"phrase": "horn", "onset": 0, "offset": 1}],
        "split": "test",
        "uploader": "somebody",
    }
    return write(
        root,
        {
            "a.wav": wav_bytes(),
            "a.txt": " Rain on\na roof \n",
            "val/deep/b.MP4": b"x",
            "val/deep/b.json": json.dumps(full),
            "val/c.flac": b"x",
            "val/c.json": json.dumps({"caption": "Wind"}),
            "test.ogg": b"x",
            "bad.mp3": b"x",
            "bad.json": "[]",
            "both.mp3": b"x",
            "both.json": json.dumps({"text": "a", "captions": {"audio": "b"}}),
            "empty.mp3": b"x",
            "empty.json": json.dumps({"title": "x"}),
            "bytes.mp3": b"x",
            "bytes.txt": b"\xff",
            "two.m4v": b"x",
            "two.json": json.dumps({"domain": "speech"}),
            "two.txt": "A bell",
            ".hidden/d.wav": b"x",
            "notes.md": "x",
            "LICENSE": "x",
        },
    )


def test_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = folder(tmp_path / "set")
    records, rejects = read(Folder(dataset="mine"), source)
    assert "passed over 2 files by their extension: 1 without one, 1 .md" in caplog.text
    assert records["two.m4v"].domain == "speech"
    assert {clip_id: (texts(record), record.split, record.files) for clip_id, record in records.items()} == {
        "a.wav": ({"audio": ("Rain on\na roof",)}, "train", {"media": "a.wav"}),
        "test.ogg": ({}, "train", {"media": "test.ogg"}),
        "two.m4v": ({"audio": ("A bell",)}, "train", {"media": "two.m4v"}),
        "val/c.flac": ({"audio": ("Wind",)}, "validation", {"media": "val/c.flac"}),
        "val/deep/b.MP4": ({"video": ("A street",), "audio": ("Cars",)}, "test", {"media": "val/deep/b.MP4"}),
    }
    both = records["val/deep/b.MP4"]
    assert events(both) == [("horn", 0.0, 1.0)] and origins(both) == {"real", "synthetic"} and both.dataset == "mine"
    assert [(reject.id, reject.file) for reject in rejects] == [
        ("bad.mp3", "bad.json"),
        ("both.mp3", "both.json"),
        ("bytes.mp3", "bytes.txt"),
        ("empty.mp3", "empty.json"),
    ]
    records, _ = read(Folder(caption_type="audio_video", split="validation"), source)
    assert texts(records["a.wav"]) == {"audio_video": ("Rain on\na roof",)} and records["a.wav"].split == "validation"


def test_a_folder_without_media(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no media file in"):
        read(Folder(), write(tmp_path, {"a.txt": "x"}))


def test_links_to_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"a.wav": b"x"})
    source = write(tmp_path / "set", {"b.wav": b"x"})
    (source / "link").symlink_to(tmp_path / "elsewhere")
    (source / "circle").symlink_to(source)
    assert list(read(Folder(), source)[0]) == ["b.wav", "link/a.wav"]


def test_pictures_are_clips_and_their_captions_say_what_is_seen(tmp_path: Path) -> None:
    files: dict[str, Any] = {
        "a.JPG": b"x",
        "a.txt": "A dog",
        "b.png": b"x",
        "b.json": json.dumps({"text": "A cat", "domain": "pets"}),
    }
    files |= {"c.mp3": b"x", "c.txt": "Rain", "cover.webp": b"x"}
    source = write(tmp_path / "set", files)
    records, rejects = read(Folder(), source)
    assert not rejects and {name: texts(record) for name, record in records.items()} == {
        "a.JPG": {"video": ("A dog",)},
        "b.png": {"video": ("A cat",)},
        "c.mp3": {"audio": ("Rain",)},
        "cover.webp": {},
    }
    assert list(read(Folder(pictures=False), source)[0]) == ["c.mp3"]
    assert texts(read(Folder(caption_type="title"), source)[0]["a.JPG"]) == {"title": ("A dog",)}


def test_a_table_of_images(tmp_path: Path) -> None:
    rows = "id,image,audio,caption\na,a.png,,A dog\nb,b.jpg,b.wav,A bark\nc,,c.wav,Rain\n"
    source = write(tmp_path / "set", {"clips.csv": rows, "a.png": b"x", "b.jpg": b"x", "b.wav": b"x", "c.wav": b"x"})
    records, rejects = read(Table(), source)
    assert not rejects and {name: (record.files, texts(record)) for name, record in records.items()} == {
        "a": ({"video": "a.png"}, {"video": ("A dog",)}),
        "b": ({"audio": "b.wav", "video": "b.jpg"}, {"audio": ("A bark",)}),
        "c": ({"audio": "c.wav"}, {"audio": ("Rain",)}),
    }


@pytest.mark.parametrize("ids", [("talk", "talk#0000"), ("talk#0001", "talk")])
def test_an_id_that_a_chunk_would_have_is_refused(tmp_path: Path, ids: tuple[str, str]) -> None:
    lines = "".join(json.dumps({"id": name, "media": "a.wav"}) + "\n" for name in ids)
    table = "id,media\n" + "".join(f"{name},a.wav\n" for name in ids)
    source = write(tmp_path / "set", {"clips.jsonl": lines, "clips.csv": table, "a.wav": b"x"})
    for reader in (JSONLines(), Table()):
        records, rejects = read(reader, source)
        assert list(records) == [ids[0]] and [reject.id for reject in rejects] == [ids[1]]
        assert "rename one of them" in rejects[0].reason
    assert list(
        read(JSONLines(), write(tmp_path / "other", {"clips.jsonl": lines.replace('talk"', 'Talk"'), "a.wav": b"x"}))[0]
    )
