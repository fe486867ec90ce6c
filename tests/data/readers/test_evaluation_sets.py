"""Readers of the sets that models are evaluated on, on miniatures of their real layouts."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from peav.data import open_manifest
from peav.data.manifests.clip import clip_from_record
from peav.data.manifests.fields import RecordError
from peav.data.manifests.index import REAL_CAPTIONS, SYNTHETIC_CAPTIONS, IndexBuilder
from peav.data.manifests.labels import read_labels
from peav.data.manifests.records import Record
from peav.data.manifests.texts import CLASS
from peav.data.packing.prepare import prepare
from peav.data.readers import (
    ESC50,
    GTZAN,
    HMDB51,
    MSVD,
    READERS,
    UCF101,
    ActivityNetCaptions,
    Classified,
    DiDeMo,
    DynamicSUPERB,
    Kinetics,
    NSynth,
    Reader,
    UrbanSound8K,
    VGGSound,
)
from tests.data.readers import miniatures
from tests.data.readers.helpers import lines, origins, read, tar_bytes, texts, wav_bytes, write


def classes(record: Record) -> tuple[str, ...]:
    """Returns the classes of a clip."""
    return texts(record).get(CLASS, ())


def files(records: dict[str, Record]) -> dict[str, str]:
    """Returns the one file of each clip."""
    return {clip_id: record.files["media"] for clip_id, record in records.items()}


@pytest.mark.parametrize("name", [name for name in miniatures.EVALUATION_SETS if issubclass(READERS[name], Classified)])
def test_the_classes_of_the_clips_are_those_of_the_set(name: str, tmp_path: Path) -> None:
    reader = READERS[name]()
    assert isinstance(reader, Classified)
    source = miniatures.EVALUATION_SETS[name](tmp_path / "set")
    known = reader.classes(source)
    records, _ = read(reader, source)
    assert len(known) > 1 and len(set(known)) == len(known)
    assert records and all(
        len(classes(record)) == 1 and set(classes(record)) <= set(known) for record in records.values()
    )
    assert origins(next(iter(records.values()))) <= {"real"}


def test_msvd(tmp_path: Path) -> None:
    source = miniatures.make_msvd(tmp_path / "set")
    records, rejects = read(MSVD(), source)
    assert {clip_id: (texts(record), record.split) for clip_id, record in records.items()} == {
        "aaa_1_4": ({"video": ("a man is playing a guitar",)}, "train"),
        "ccc_2_6": ({"video": ("a cat sits",)}, "validation"),
        "a_b-c_10_20": ({"video": ("a dog runs", "A brown dog is running.")}, "test"),
        "bbb_5_9": ({"video": ("a woman cooks",)}, "test"),
    }
    assert records["aaa_1_4"].files == {"media": "YouTubeClips/aaa_1_4.avi"}
    (gone,) = rejects
    assert (gone.id, gone.file, gone.line, gone.missing) == ("gone_0_7", "gone_0_7.*", 3, True)
    write(source, {"AllVideoDescriptions.txt": lines("# none", "aaa_1_4")})
    _, rejects = read(MSVD(splits=["train"]), source)
    assert [(reject.file, reject.line) for reject in rejects] == [("AllVideoDescriptions.txt", 2)]


def test_msvd_by_its_table(tmp_path: Path) -> None:
    source = miniatures.make_msvd(tmp_path / "set")
    (source / "AllVideoDescriptions.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"none of the files AllVideoDescriptions.txt, MSR Video Description"):
        read(MSVD(), source)
    table = lines(
        "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description",
        'a_b-c,10,20,1,clean,30,English,"A dog, brown, runs."',
        "a_b-c,10,20,2,clean,30,Slovene,Pes teče.",
        "aaa,1,4,3,unverified,30,English,",
    )
    write(source, {"MSR Video Description Corpus.csv": table})
    records, rejects = read(MSVD(splits=["test"]), source)
    assert texts(records["a_b-c_10_20"]) == {"video": ("A dog, brown, runs.",)} and texts(records["bbb_5_9"]) == {}
    assert [(reject.line, reject.missing) for reject in rejects] == [(4, False), (3, True)]
    slovene, _ = read(MSVD(language="Slovene", splits=["test"]), source)
    assert texts(slovene["a_b-c_10_20"]) == {"video": ("Pes teče.",)}
    write(source, {"MSR Video Description Corpus.csv": "VideoID,Start,End,Text\n"})
    with pytest.raises(RecordError, match="'Language', 'Description', it names 'VideoID'"):
        read(MSVD(), source)


def test_activitynet_joins_the_sentences(tmp_path: Path) -> None:
    source = miniatures.make_activitynet(tmp_path / "set")
    records, rejects = read(ActivityNetCaptions(), source)
    assert {clip_id: (texts(record), record.split) for clip_id, record in records.items()} == {
        "v_train000001": ({"video": ("A man jumps. He falls.",)}, "train"),
        "v_valid000001": ({"video": ("A woman swims. She gets out of the pool. She waves.",)}, "validation"),
        "v_-alid_00002": ({"video": ("A dog is washed.",)}, "validation"),
        "v_broken00001": ({"video": ("Nobody knows.",)}, "validation"),
    }
    assert records["v_-alid_00002"].files == {"media": "videos/-alid_00002.mkv"}
    (gone,) = rejects
    assert (gone.id, gone.line, gone.missing) == ("v_gone0000001", 4, True)
    assert "v_gone0000001.*, gone0000001.*" in gone.reason
    second, _ = read(ActivityNetCaptions(splits=["validation"], validation="val_2"), source)
    assert texts(second["v_valid000001"]) == {"video": ("Somebody is in the water.",)} and len(second) == 1
    parts, _ = read(ActivityNetCaptions(join=False), source)
    first, *_, last = parts["v_valid000001"].captions["video"]
    assert (first.text, first.start, first.end) == ("A woman swims.", 0.0, 0.2) and last.start == 0.4
    bad = {"v_valid000001": {"sentences": "x"}, "v_-alid_00002": {"sentences": ["x"], "timestamps": []}}
    write(source, {"val_1.json": json.dumps(bad)})
    _, rejects = read(ActivityNetCaptions(splits=["validation"], join=False), source)
    assert ["list of texts" in rejects[0].reason, "one a sentence" in rejects[1].reason] == [True, True]
    with pytest.raises(ValueError, match="val_1 and val_2, got 'val_3'"):
        ActivityNetCaptions(validation="val_3")  # type: ignore[arg-type]


def test_didemo_joins_the_descriptions(tmp_path: Path) -> None:
    source = miniatures.make_didemo(tmp_path / "set")
    records, rejects = read(DiDeMo(), source)
    assert {clip_id: (files(records)[clip_id], texts(record)["video"]) for clip_id, record in records.items()} == {
        "5@N00_5_e.m4v": ("videos/5@N00_5_e.mp4", ("a boat",)),
        "1@N00_1_a.avi": ("videos/1@N00_1_a.avi.mp4", ("the man waves he sits down",)),
        "2@N00_2_b.mov": ("videos/2@N00_2_b.mov", ("a cat walks away",)),
        "4@N00_4_d.avi": ("videos/4@N00_4_d.avi.mp4", ("this one is broken",)),
    }
    assert [record.split for record in records.values()] == ["validation", "test", "test", "test"]
    assert [(reject.id, reject.line, reject.missing) for reject in rejects] == [("3@N00_3_c.avi", 4, True)]
    apart, _ = read(DiDeMo(splits=["test"], join=False), source)
    assert texts(apart["1@N00_1_a.avi"]) == {"video": ("the man waves", "he sits down")}
    write(source, {"test_data.json": json.dumps([{"video": "x"}])})
    assert "no 'description'" in read(DiDeMo(splits=["test"]), source)[1][0].reason
    write(source, {"test_data.json": "{}"})
    with pytest.raises(RecordError, match="must hold a JSON list of descriptions"):
        read(DiDeMo(), source)


def test_esc50(tmp_path: Path) -> None:
    source = miniatures.make_esc50(tmp_path / "set")
    assert ESC50().classes(source) == ("dog", "rooster", "chirping birds")
    records, rejects = read(ESC50(), source)
    assert {clip_id: classes(record) for clip_id, record in records.items()} == {
        "1-1-A-0": ("dog",),
        "1-2-A-14": ("chirping birds",),
        "2-3-A-14": ("chirping birds",),
        "2-4-A-0": ("dog",),
        "2-5-A-1": ("rooster",),
    }
    first = records["1-1-A-0"]
    assert (first.media, first.split, first.dataset, first.domain) == ("audio/1-1-A-0.wav", "test", "ESC-50", "effects")
    assert [(reject.id, reject.line, reject.missing) for reject in rejects] == [("2-6-A-1", 7, True)]
    folds, _ = read(ESC50(test_folds=[2], template="the sound of a {label}"), source)
    assert Counter(record.split for record in folds.values()) == {"train": 2, "test": 3}
    assert texts(folds["2-4-A-0"]) == {"class": ("dog",), "audio": ("the sound of a dog",)}
    assert origins(folds["2-4-A-0"]) == {"real", "synthetic"}
    ten = ESC50(esc10=True)
    assert ten.classes(source) == ("dog", "rooster") and len(read(ten, source)[0]) == 3
    with pytest.raises(ValueError, match="the folds of ESC-50 are 1 to 5, got 6"):
        ESC50(test_folds=[6])
    write(source, {"meta/esc50.csv": "filename,fold,target\n"})
    with pytest.raises(
        RecordError, match=r"must name the column\(s\) 'category', it names 'filename', 'fold', 'target'"
    ):
        read(ESC50(), source)


def test_urbansound8k(tmp_path: Path) -> None:
    source = miniatures.make_urbansound8k(tmp_path / "set")
    assert UrbanSound8K().classes(source) == ("car horn", "dog bark")
    records, rejects = read(UrbanSound8K(test_folds=[2]), source)
    assert {clip_id: (classes(record), record.split) for clip_id, record in records.items()} == {
        "fold1/100-3-0-0": (("dog bark",), "train"),
        "fold1/200-1-0-0": (("car horn",), "train"),
        "fold2/300-3-1-0": (("dog bark",), "test"),
        "fold2/400-1-0-0": (("car horn",), "test"),
    }
    assert files(records)["fold1/100-3-0-0"] == "audio/fold1/100-3-0-0.wav"
    assert [(reject.id, reject.line, reject.missing) for reject in rejects] == [("fold2/500-1-0-0", 6, True)]
    table = lines("slice_file_name,fold,classID,class", "a.wav,one,1,x", "a.wav,1,one,x", "a.wav,1,1,")
    write(source, {"metadata/UrbanSound8K.csv": table})
    _, rejects = read(UrbanSound8K(), source)
    for reject, why in zip(rejects, ["number of a fold", "number of a class", "'class' is empty"], strict=True):
        assert why in reject.reason and not reject.missing


def test_gtzan(tmp_path: Path) -> None:
    source = miniatures.make_gtzan(tmp_path / "set")
    assert GTZAN().classes(source) == ("blues", "jazz")
    records, rejects = read(GTZAN(), source)
    assert list(records) == [
        "blues/blues.00000",
        "blues/blues.00001",
        "jazz/jazz.00000",
        "jazz/jazz.00001",
        "jazz/jazz.00054",
    ]
    assert {record.split for record in records.values()} == {"test"} and not rejects
    assert classes(records["jazz/jazz.00054"]) == ("jazz",) and records["jazz/jazz.00054"].domain == "music"
    listed, rejects = read(GTZAN(filtered=True), source)
    assert {clip_id: record.split for clip_id, record in listed.items()} == {
        "blues/blues.00000": "train",
        "jazz/jazz.00000": "train",
        "blues/blues.00001": "validation",
        "jazz/jazz.00001": "test",
    }
    assert [(reject.id, reject.file, reject.missing) for reject in rejects] == [
        ("jazz/jazz.00099", "jazz/jazz.00099.*", True)
    ]
    assert GTZAN(filtered=True, splits=["validation"]).classes(source) == ("blues",)
    write(source, {"test_filtered.txt": lines("jazz.00001.wav")})
    assert "GENRE/GENRE.NNNNN.wav, got 'jazz.00001'" in read(GTZAN(True, splits=["test"]), source)[1][0].reason
    with pytest.raises(ValueError, match="set filtered, or leave splits out"):
        GTZAN(splits=["test"])
    write(tmp_path / "first", {"genres/blues/blues.00000.au": b"x"})
    assert files(read(GTZAN(), tmp_path / "first")[0]) == {"blues/blues.00000": "genres/blues/blues.00000.au"}


def test_nsynth(tmp_path: Path) -> None:
    source = miniatures.make_nsynth(tmp_path / "set")
    assert NSynth().classes(source) == ("bass", "guitar", "reed", "synth lead")
    assert NSynth(splits=["test"]).classes(source) == ("bass", "guitar", "synth lead")
    records, rejects = read(NSynth(), source)
    assert {clip_id: (classes(record), record.split) for clip_id, record in records.items()} == {
        "reed_acoustic_011-060-050": (("reed",), "validation"),
        "synth_lead_synthetic_001-022-050": (("synth lead",), "test"),
        "bass_electronic_018-024-100": (("bass",), "test"),
        "guitar_acoustic_002-060-050": (("guitar",), "test"),
    }
    assert [(reject.id, reject.file, reject.missing) for reject in rejects] == [
        ("bass_synthetic_033-022-050", "nsynth-test/audio/bass_synthetic_033-022-050.*", True)
    ]
    pitch = NSynth("pitch", splits=["test"])
    assert pitch.classes(source) == ("22", "24", "60")
    assert NSynth("instrument_source").classes(source) == ("acoustic", "electronic", "synthetic")
    several = NSynth("qualities", splits=["test"])
    assert several.classes(source) == ("bright", "dark", "long release")
    found = {clip_id: classes(record) for clip_id, record in read(several, source)[0].items()}
    assert found == {
        "synth_lead_synthetic_001-022-050": ("dark", "long release"),
        "bass_electronic_018-024-100": (),
        "guitar_acoustic_002-060-050": ("bright",),
    }
    with pytest.raises(ValueError, match="not by 'velocity'"):
        NSynth("velocity")  # type: ignore[arg-type]
    write(source, {"nsynth-test/examples.json": json.dumps({"a": {"pitch": "60"}, "b": []})})
    reasons = [reject.reason for reject in read(NSynth("pitch", splits=["test"]), source)[1]]
    assert reasons == ["'pitch' must be a whole number, got '60'", "'pitch' must be a whole number, got None"]


@pytest.mark.parametrize("version", [400, 600, 700])
def test_kinetics(tmp_path: Path, version: int) -> None:
    source = miniatures.make_kinetics(tmp_path / "set", version)
    reader = Kinetics(version)  # type: ignore[arg-type]
    assert reader.classes(source) == ("abseiling", "massaging person's head", "riding a bike")
    records, rejects = read(reader, source)
    assert {clip_id: (classes(record), record.split) for clip_id, record in records.items()} == {
        "train-_0001_000004_000014": (("riding a bike",), "train"),
        "replaced001_000000_000010": (("abseiling",), "train"),
        "valid__0001_000059_000069": (("massaging person's head",), "validation"),
        "-valid00002_000137_000147": (("abseiling",), "validation"),
        "brokenclip0_000007_000017": (("abseiling",), "validation"),
    }
    assert files(records)["replaced001_000000_000010"].startswith("replacement/")
    assert records["valid__0001_000059_000069"].dataset == f"Kinetics-{version}"
    assert [(reject.id, reject.line, reject.missing) for reject in rejects] == [("gone0000001_000001_000011", 5, True)]


def test_kinetics_finds_its_tables_and_says_what_is_wrong_with_them(tmp_path: Path) -> None:
    source = miniatures.make_kinetics(tmp_path / "set")
    (source / "annotations/val.csv").rename(source / "kinetics_400_validate.csv")
    (source / "annotations/train.csv").unlink()
    assert len(read(Kinetics(), source)[0]) == 3
    with pytest.raises(FileNotFoundError, match=r"none of the files annotations/train.csv, train.csv"):
        read(Kinetics(splits=["train"]), source)
    write(source, {"test.csv": "youtube_id,time_start,time_end,split\nx,1,2,test\n"})
    records, rejects = read(Kinetics(), source)
    assert len(records) == 3 and "labels of this test are held out" in rejects[-1].reason
    write(source, {"train.csv": "youtube_id,time_start,time_end,split\nx,1,2,test\n"})
    with pytest.raises(RecordError, match=r"must name the column\(s\) 'label', it names 'youtube_id'"):
        read(Kinetics(), source)
    write(source, {"train.csv": lines("label,youtube_id,time_start,time_end", "a,b,one,2", ",b,1,2")})
    reasons = [reject.reason for reject in read(Kinetics(splits=["train"]), source)[1]]
    assert "got 'one'" in reasons[0] and "'label' is empty" in reasons[1]
    with pytest.raises(ValueError, match="are 400, 600, 700, got 500"):
        Kinetics(500)  # type: ignore[arg-type]


def test_ucf101(tmp_path: Path) -> None:
    source = miniatures.make_ucf101(tmp_path / "set")
    assert UCF101().classes(source) == ("Apply Eye Makeup", "Archery", "Yo Yo")
    records, rejects = read(UCF101(), source)
    assert {clip_id: (classes(record), record.split) for clip_id, record in records.items()} == {
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01": (("Apply Eye Makeup",), "train"),
        "Archery/v_Archery_g08_c01": (("Archery",), "train"),
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01": (("Apply Eye Makeup",), "test"),
        "YoYo/v_YoYo_g01_c01": (("Yo Yo",), "test"),
        "YoYo/v_YoYo_g01_c02": (("Yo Yo",), "test"),
    }
    assert [(reject.id, reject.line, reject.missing) for reject in rejects] == [("Archery/v_Archery_g01_c01", 2, True)]
    test, _ = read(UCF101(splits=["test"], template="a person doing {label}"), source)
    assert len(test) == 3 and texts(test["YoYo/v_YoYo_g01_c01"])["video"] == ("a person doing Yo Yo",)
    with pytest.raises(FileNotFoundError, match=r"no file 'ucfTrainTestlist/trainlist02.txt'.*by `lists`"):
        read(UCF101(fold=2), source)
    write(source, {"ucfTrainTestlist/testlist01.txt": lines("Juggling/x.avi", "x.avi")})
    reasons = [reject.reason for reject in read(UCF101(splits=["test"]), source)[1]]
    assert len(reasons) == 2 and all("a class of classInd.txt" in reason for reason in reasons)
    write(source, {"ucfTrainTestlist/classInd.txt": lines("ApplyEyeMakeup 1")})
    with pytest.raises(RecordError, match=r"classInd.txt, line 1: it must be a number and a class"):
        read(UCF101(), source)
    for kind in (UCF101, HMDB51):
        with pytest.raises(ValueError, match="are 1, 2 and 3, got 4"):
            kind(fold=4)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="has the splits train and test, not validation"):
            kind(splits=["validation"])


def test_hmdb51(tmp_path: Path) -> None:
    source = miniatures.make_hmdb51(tmp_path / "set")
    assert HMDB51().classes(source) == ("brush hair", "wave")
    records, rejects = read(HMDB51(), source)
    assert {clip_id: (classes(record), record.split) for clip_id, record in records.items()} == {
        "brush_hair/#20_Hair_brush_hair_u_nm_np1_ba_goo_0": (("brush hair",), "train"),
        "brush_hair/April_brush_hair_0": (("brush hair",), "test"),
        "wave/Good;_wave_u_nm_np1_fr_med_0": (("wave",), "test"),
        "wave/damaged_wave_u_nm_np1_fr_med_0": (("wave",), "test"),
    }
    (gone,) = rejects
    assert (gone.id, gone.missing) == ("wave/gone_wave_u_nm_np1_fr_med_0", True)
    assert gone.file == "wave/gone_wave_u_nm_np1_fr_med_0.*"
    second, _ = read(HMDB51(fold=2), source)
    assert {clip_id: record.split for clip_id, record in second.items()} == {
        "brush_hair/#20_Hair_brush_hair_u_nm_np1_ba_goo_0": "test",
        "wave/Good;_wave_u_nm_np1_fr_med_0": "train",
    }
    write(source, {"testTrainMulti_7030_splits/wave_test_split1.txt": lines("a.avi", "a.avi 3")})
    assert len([reject for reject in read(HMDB51(), source)[1] if "0, 1 or 2" in reject.reason]) == 2
    with pytest.raises(FileNotFoundError, match=r"no file CLASS_test_split3.txt"):
        read(HMDB51(fold=3), source)


def test_vggsound_has_classes(tmp_path: Path) -> None:
    source = miniatures.make_vggsound(tmp_path / "set")
    assert VGGSound().classes(source) == ("dog barking, whimpering", "playing flute", "raining")
    records, rejects = read(VGGSound(template=""), source)
    assert texts(records["ef_0"]) == {"class": ("dog barking, whimpering",)}
    assert [reject.id for reject in rejects] == ["gone_5000"]
    for template, synthetic in (("", False), ("the sound of {label}", True)):
        columns = IndexBuilder()
        for record in read(VGGSound(template=template), source)[0].values():
            columns.add(clip_from_record(record), 0)
        index = columns.build()
        assert len(index) == 4 and not index.has(REAL_CAPTIONS).any(), "origin_weights take classes for captions"
        assert index.has(SYNTHETIC_CAPTIONS).all() == index.has(SYNTHETIC_CAPTIONS).any() == synthetic


def test_dynamic_superb(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    source = miniatures.make_dynamic_superb(tmp_path / "set")
    assert DynamicSUPERB().classes(source) == ("angry", "happy")
    records, rejects = read(DynamicSUPERB(), source)
    first = records["data/test-00000-of-00001/1"]
    assert classes(first) == ("happy",) and texts(first)["instruction"][0].startswith("What emotion")
    assert (first.split, first.dataset, first.temporary, len(records)) == ("test", "Dynamic-SUPERB", True, 2)
    assert [(reject.line, reject.missing) for reject in rejects] == [(3, True)]
    import pyarrow.parquet

    table = {"audio": [b"x"], "audio2": [b"x"], "instruction": ["Same speaker?"], "label": ["yes"]}
    pyarrow.parquet.write_table(pyarrow.table(table), source / "data/test-00000-of-00001.parquet")
    with pytest.raises(RecordError, match="'audio2': an instance that compares sounds has no clips"):
        read(DynamicSUPERB(), source)
    pyarrow.parquet.write_table(pyarrow.table({"audio": [b"x"]}), source / "data/test-00000-of-00001.parquet")
    with pytest.raises(RecordError, match="no column 'label'"):
        read(DynamicSUPERB(), source)


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    """Writes a ZIP archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    """Writes a tar, compressed where its name says so."""
    content = tar_bytes(members)
    path.write_bytes(content if path.suffix == ".tar" else gzip.compress(content))


@pytest.mark.parametrize(
    ("name", "write_archive"),
    [("k.zip", write_zip), ("k.tar", write_tar), ("k.tar.gz", write_tar), ("K.TGZ", write_tar)],
)
def test_media_may_stay_in_archives(
    tmp_path: Path, name: str, write_archive: Callable[[Path, dict[str, bytes]], None]
) -> None:
    source = miniatures.make_kinetics(tmp_path / "set")
    expected = (source / "val/valid__0001_000059_000069.mp4").read_bytes()
    miniatures.pack(source, ["val"], write_archive, name)
    scratch = tmp_path / "scratch"
    records, rejects = read(Kinetics(), source, scratch)
    assert len(records) == 5 and [reject.id for reject in rejects] == ["gone0000001_000001_000011"]
    assert "or in its 1 archives" in rejects[0].reason
    clip = records["valid__0001_000059_000069"]
    assert (clip.root, clip.temporary, clip.split, classes(clip)) == (
        scratch,
        True,
        "validation",
        ("massaging person's head",),
    )
    assert (scratch / clip.files["media"]).read_bytes() == expected
    assert records["train-_0001_000004_000014"].root is None
    unpacked = {path: path.stat().st_mtime_ns for path in scratch.iterdir()}
    assert read(Kinetics(), source, tmp_path / "other", lambda _: True)[0].keys() == records.keys()
    assert len(unpacked) == 3 and not (tmp_path / "other").exists(), "what was packed already is not unpacked"


def test_damaged_and_hostile_archives_are_reported(tmp_path: Path) -> None:
    source = miniatures.make_urbansound8k(tmp_path / "set")
    scratch = tmp_path / "scratch"
    for path in (source / "audio").rglob("*.wav"):
        path.unlink()
    link = tarfile.TarInfo("fold1/200-1-0-0.wav")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(source / "links.tar", "w") as archive:
        archive.addfile(link)
        out = tarfile.TarInfo("../fold2/400-1-0-0.wav")
        out.size = 3
        archive.addfile(out, io.BytesIO(b"abc"))
    write_zip(source / "cut.zip", {"fold1/100-3-0-0.wav": wav_bytes()})
    (source / "cut.zip").write_bytes((source / "cut.zip").read_bytes()[:-30])
    content = gzip.compress(tar_bytes({"fold2/300-3-1-0.wav": random.Random(0).randbytes(9000)}))
    (source / "cut.tar.gz").write_bytes(content[: len(content) // 2])
    records, rejects = read(UrbanSound8K(), source, scratch)
    assert not records and (not scratch.exists() or not list(scratch.iterdir()))
    reasons = {reject.id: reject.reason for reject in rejects if reject.id}
    assert "it is a link or a device" in reasons["fold1/200-1-0-0"]
    assert "it leads out of the archive" in reasons["fold2/400-1-0-0"]
    assert "cannot be unpacked" in reasons["fold2/300-3-1-0"]
    assert reasons["fold1/100-3-0-0"] == "no media file in the data set or in its 3 archives: fold1/100-3-0-0.*"
    assert any(reject.file == "cut.zip" and "cut short or damaged" in reject.reason for reject in rejects)


def test_a_member_of_a_zip_that_is_damaged_costs_no_other(tmp_path: Path) -> None:
    source = miniatures.make_urbansound8k(tmp_path / "set")
    names = ["fold1/100-3-0-0", "fold1/200-1-0-0", "fold2/300-3-1-0"]
    members = {f"US/audio/{name}.wav": (source / f"audio/{name}.wav").read_bytes() for name in names}
    for name in names:
        (source / f"audio/{name}.wav").unlink()
    write_zip(source / "media.zip", members)
    content = bytearray((source / "media.zip").read_bytes())
    place = content.index(b"US/audio/fold1/200-1-0-0.wav") + 60
    content[place : place + 40] = bytes(40)
    (source / "media.zip").write_bytes(content)
    records, rejects = read(UrbanSound8K(), source)
    assert list(records) == ["fold2/400-1-0-0", "fold1/100-3-0-0", "fold2/300-3-1-0"]
    (bad,) = [reject for reject in rejects if reject.id == "fold1/200-1-0-0"]
    assert not bad.missing and "cannot be unpacked" in bad.reason


SETS = {**miniatures.EVALUATION_SETS, **miniatures.FURTHER_SETS}


@pytest.mark.parametrize("name", sorted(SETS))
def test_a_miniature_lacks_a_file_and_has_a_damaged_one(name: str, tmp_path: Path) -> None:
    source = SETS[name](tmp_path / "set")
    records, rejects = read(READERS[name](), source)
    assert len(records) > 1 and all(reject.missing for reject in rejects)
    assert bool(rejects) == (name != "GTZAN"), "GTZAN has no list of its files"
    assert (miniatures.DAMAGED.get(name) in records) == (name != "DynamicSUPERB")
    contents = [(record.root or source) / path for record in records.values() for path in record.files.values()]
    assert len({path.read_bytes() for path in contents}) == len(contents), "media of two clips are equal"


#: The sets that every run of the tests prepares; `pytest -m slow` prepares them all.
QUICK = ("ESC50", "MSVD", "UCF101")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(SETS)]
)
def test_prepare_packs_what_can_be_decoded(name: str, tmp_path: Path) -> None:
    source, out = SETS[name](tmp_path / "set"), tmp_path / "out"
    reader: Reader = READERS[name]()
    readable = {item.id for item in reader.read(source, tmp_path / "s", lambda _: True) if isinstance(item, Record)}
    report = prepare(source, out, reader=reader, workers=0, progress=False)
    packed = {clip.id: clip for split in report.clips for clip in open_manifest(out, split)}
    broken = {name} & miniatures.DAMAGED.keys() and {miniatures.DAMAGED[name]}
    assert set(packed) == readable - broken
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert {reject["id"] for reject in rejects if not reject["missing"]} == broken
    if isinstance(reader, Classified):
        known = reader.classes(source)
        assert read_labels(out).vocabularies == {reader.dataset: known}
        assert all(clip.dataset == reader.dataset for clip in packed.values())
        assert all(len(clip.texts[CLASS]) == 1 and clip.texts[CLASS][0] in known for clip in packed.values())


def test_names_that_are_one_are_one_phrase_of_the_vocabulary(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    source = miniatures.make_dynamic_superb(tmp_path / "set", ["Yes", "no", "yes."])
    assert DynamicSUPERB().classes(source) == ("Yes", "no", "yes.")
    assert DynamicSUPERB().labels(source).vocabularies == {"Dynamic-SUPERB": ("Yes", "no")}
    write(source, {"labels.json": json.dumps({"parents": {"Yes": ["Answer"]}})})
    assert DynamicSUPERB().labels(source).lineage("yes") == ("Answer",)
