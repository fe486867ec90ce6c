"""AudioCaps, Clotho, VALOR and MSR-VTT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peav.data.manifests.fields import RecordError
from peav.data.readers import MSRVTT, VALOR, AudioCaps, Clotho
from tests.data.readers.helpers import lines, read, texts, wav_bytes, write

HEADER = "audiocap_id,youtube_id,start_time,caption"


def audiocaps(root: Path) -> Path:
    return write(
        root,
        {
            "train.csv": "\ufeff" + lines(HEADER, "1,-ab_cdefghi,30,Rain falls", '2,missingvide,0,"Wind, strong"'),
            "test.csv": lines(HEADER, "3,xyz,10,A dog barks", "4,other,5,Birds", "5,xyz,10,Barking"),
            "media/-ab_cdefghi_30.wav": wav_bytes(),
            "media/deeper/Yxyz.mp4": b"video",
            "media/xyz_10000.flac": b"audio",
            "media/other_000005.MKV": b"video",
        },
    )


def test_audiocaps_gathers_the_captions_of_a_span(tmp_path: Path) -> None:
    records, rejects = read(AudioCaps(), audiocaps(tmp_path / "set"))
    assert list(records) == ["-ab_cdefghi_30000", "xyz_10000", "other_5000"]
    rain, dog, birds = records.values()
    assert rain.files == {"media": "media/-ab_cdefghi_30.wav"}
    assert (rain.split, rain.dataset, rain.domain, rain.line, rain.root) == ("train", "AudioCaps", "", 2, None)
    assert texts(dog) == {"audio": ("A dog barks", "Barking")}
    assert dog.files == {"media": "media/xyz_10000.flac"}
    assert (dog.split, dog.start, dog.duration, dog.events) == ("test", 0.0, None, None)
    assert birds.files == {"media": "media/other_000005.MKV"}
    (reject,) = rejects
    assert (reject.id, reject.file, reject.line, reject.missing) == ("missingvide_0", "media/missingvide.*", 3, True)
    assert "missingvide_0_10.*" in reject.reason and "missingvide_000000.*" in reject.reason


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ab.opus", True),
        ("ab_30.wav", True),
        ("ab_30000.m4a", True),
        ("ab_30_40.webm", True),
        ("ab_30000_40000.avi", True),
        ("ab_000030.mov", True),
        ("Yab_30.000_40.000.ogg", True),
        ("ab_31.wav", False),
        ("ab_30.npy", False),
        ("._ab_30.wav", False),
        ("abc.wav", False),
    ],
)
def test_files_are_found_by_the_names_that_downloaders_give(tmp_path: Path, name: str, found: bool) -> None:
    source = write(tmp_path, {"test.csv": lines(HEADER, "1,ab,30,Rain"), f"media/{name}": b"x"})
    records, rejects = read(AudioCaps(), source)
    assert [record.media for record in records.values()] == ([f"media/{name}"] if found else [])
    assert [reject.missing for reject in rejects] == ([] if found else [True])


def test_sound_and_picture_may_be_files_of_their_own(tmp_path: Path) -> None:
    table = lines(HEADER, "1,ab,30,Rain")
    source = write(tmp_path, {"test.csv": table, "media/a/ab_30.wav": b"x", "media/v/ab_30.mp4": b"x"})
    records, _ = read(AudioCaps(), source)
    assert records["ab_30000"].files == {"audio": "media/a/ab_30.wav", "video": "media/v/ab_30.mp4"}


def test_whole_videos_are_cut_and_clips_are_not(tmp_path: Path) -> None:
    table = lines(HEADER, "1,ab,30,Rain", "2,ab,50,Wind", "3,cd,7,Hail")
    source = write(tmp_path, {"test.csv": table, "media/ab.mp4": b"x", "media/cd_7.mp4": b"x"})
    records, rejects = read(AudioCaps(whole_videos=True), source)
    assert [(record.start, record.duration) for record in records.values()] == [(30.0, 10.0), (50.0, 10.0), (0.0, None)]
    assert not rejects
    records, rejects = read(AudioCaps(), source)
    assert list(records) == ["ab_30000", "cd_7000"] and records["ab_30000"].duration is None
    assert rejects[0].id == "ab_50000" and not rejects[0].missing
    assert "taken as clip 'ab_30000' already: if it is the whole video, set whole_videos" in rejects[0].reason


def test_rows_that_cannot_be_understood_are_rejected_by_line(tmp_path: Path) -> None:
    table = lines(
        HEADER,
        "1,ab,30,Rain",
        "2,ab,thirty,Rain",
        "3,ab,30",
        "4,ab,30,",
        '5,ab,30,"never closed',
        '6,ab,30,"closed, ""quoted"" text"',
        "7,ab,nan,Rain",
    ).encode()
    source = write(tmp_path, {"test.csv": table + b"8,ab,30,\xff\xfe\n9,ab,30,Last", "media/ab_30.wav": b"x"})
    records, rejects = read(AudioCaps(), source)
    assert texts(records["ab_30000"]) == {"audio": ("Rain", 'closed, "quoted" text', "Last")}
    assert [(reject.file, reject.line, reject.missing) for reject in rejects] == [
        ("test.csv", line, False) for line in (3, 4, 5, 6, 8, 9)
    ]
    for reject, reason in zip(
        rejects,
        ["got 'thirty'", "3 columns, not 4", "'caption' is empty", "never closed", "got 'nan'", "not UTF-8: byte 0xff"],
        strict=True,
    ):
        assert reason in reject.reason


def test_a_clip_of_two_splits_stays_in_the_first(tmp_path: Path) -> None:
    source = write(
        tmp_path,
        {
            "train.csv": lines(HEADER, "1,ab,30,Rain"),
            "test.csv": lines(HEADER, "2,ab,30,Hail"),
            "media/ab_30.wav": b"x",
        },
    )
    records, rejects = read(AudioCaps(), source)
    assert records["ab_30000"].split == "train"
    assert [reject.line for reject in rejects] == [2] and "duplicate id 'ab_30000'" in rejects[0].reason


def test_central_files_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"none of the files train.csv, val.csv, test.csv is in {tmp_path}"):
        read(AudioCaps(), tmp_path)
    write(tmp_path, {"test.csv": lines(HEADER)})
    with pytest.raises(FileNotFoundError, match=rf"no folder 'media' in {tmp_path}"):
        read(AudioCaps(), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file 'train.csv'"):
        read(AudioCaps(splits=["train"]), tmp_path)
    write(tmp_path, {"test.csv": "id,caption\n"})
    with pytest.raises(RecordError, match=r"'youtube_id', 'start_time', it names 'id', 'caption'"):
        read(AudioCaps(), tmp_path)
    with pytest.raises(ValueError, match="a split is one of train, validation, test, got 'val'"):
        AudioCaps(splits=["val"])


def clotho(root: Path) -> Path:
    header = "file_name," + ",".join(f"caption_{number}" for number in range(1, 6))
    return write(
        root,
        {
            "clotho_captions_development.csv": lines(
                header, 'a b.wav,"One, two",2,3,4,5', "gone.wav,1,2,3,4,5", "short.wav,1,2"
            ),
            "clotho_captions_evaluation.csv": lines(header, "a b.wav,1,2,,4,5"),
            "development/a b.wav": wav_bytes(),
            "evaluation/a b.wav": wav_bytes(),
        },
    )


def test_clotho(tmp_path: Path) -> None:
    records, rejects = read(Clotho(), clotho(tmp_path / "set"))
    assert list(records) == ["development/a b.wav", "evaluation/a b.wav"]
    first, second = records.values()
    assert first.files == {"audio": "development/a b.wav"}
    assert texts(first) == {"audio": ("One, two", "2", "3", "4", "5")}
    assert (first.split, second.split, first.dataset, first.domain) == ("train", "test", "Clotho", "effects")
    assert texts(second) == {"audio": ("1", "2", "4", "5")} and second.notes == (
        "empty caption of type 'audio' dropped",
    )
    assert [(reject.file, reject.line, reject.missing) for reject in rejects] == [
        ("development/gone.wav", 3, True),
        ("clotho_captions_development.csv", 4, False),
    ]


def valor(root: Path) -> Path:
    entries = [
        {"video_id": "ab_1.000_11.000", "desc": "A man sings on stage."},
        {"video_id": "cd", "descs": ["One.", "Two."]},
        {"video_id": "gone", "desc": "x"},
        {"desc": "x"},
        {"video_id": "cd", "desc": "again"},
        {"video_id": "ef", "desc": 5},
        "no object",
    ]
    return write(
        root,
        {
            "desc_val.json": json.dumps(entries),
            "media/ab_1.000_11.000.mp4": b"x",
            "media/cd.mkv": b"x",
            "media/ef.mkv": b"x",
        },
    )


def test_valor(tmp_path: Path) -> None:
    source = valor(tmp_path / "set")
    records, rejects = read(VALOR(), source)
    assert {clip_id: (record.files, texts(record), record.split) for clip_id, record in records.items()} == {
        "ab_1.000_11.000": (
            {"media": "media/ab_1.000_11.000.mp4"},
            {"audio_video": ("A man sings on stage.",)},
            "validation",
        ),
        "cd": ({"media": "media/cd.mkv"}, {"audio_video": ("One.", "Two.")}, "validation"),
    }
    assert [(reject.id, reject.line, reject.missing) for reject in rejects] == [
        ("gone", 3, True),
        (None, 4, False),
        ("cd", 5, False),
        ("ef", 6, False),
        (None, 7, False),
    ]
    write(source, {"desc_val.json": "{}"})
    with pytest.raises(RecordError, match="must hold a JSON list"):
        read(VALOR(), source)


def msrvtt(root: Path) -> Path:
    videos = [
        {"video_id": "video0", "split": "train", "start time": 1.5, "end time": 9.0, "category": 3},
        {"video_id": "video1", "split": "validate"},
        {"video_id": "video2", "split": "train"},
        {"video_id": "video3", "split": "unknown"},
    ]
    sentences = [
        {"video_id": "video1", "caption": "a cat", "sen_id": 0},
        {"video_id": "video0", "caption": "a car"},
        {"video_id": "video1", "caption": "a cat sits"},
        {"video_id": "video0"},
    ]
    tests = {"videos": [{"video_id": "video7010", "split": "test"}], "sentences": []}
    return write(
        root,
        {
            "train_val_videodatainfo.json": json.dumps({"videos": videos, "sentences": sentences}),
            "test_videodatainfo.json": json.dumps(tests),
            "media/TrainValVideo/video0.mp4": b"x",
            "media/TrainValVideo/video1.mp4": b"x",
            "media/TestVideo/video7010.mp4": b"x",
        },
    )


def test_msrvtt(tmp_path: Path) -> None:
    source = msrvtt(tmp_path / "set")
    records, rejects = read(MSRVTT(), source)
    assert {clip_id: (texts(record), record.split) for clip_id, record in records.items()} == {
        "video0": ({"video": ("a car",)}, "train"),
        "video1": ({"video": ("a cat", "a cat sits")}, "validation"),
        "video7010": ({}, "test"),
    }
    assert records["video0"].files == {"media": "media/TrainValVideo/video0.mp4"}
    assert (records["video0"].start, records["video0"].duration) == (0.0, None)
    assert [(reject.id, reject.line, reject.missing) for reject in rejects] == [
        (None, 4, False),
        ("video2", 3, True),
        ("video3", 4, False),
    ]
    with pytest.raises(FileNotFoundError, match=r"no file 'all.json'"):
        read(MSRVTT(tables=["all.json"]), source)
    write(source, {"all.json": json.dumps({"videos": []})})
    with pytest.raises(RecordError, match="must hold a list 'sentences'"):
        read(MSRVTT(tables=["all.json"]), source)
