"""VGGSound, AudioSet-Strong, DESED, URBAN-SED and FineLAP."""

from __future__ import annotations

from pathlib import Path

import pytest

from peav.data.manifests.fields import RecordError
from peav.data.readers import DESED, URBANSED, AudioSetStrong, FineLAP, VGGSound
from tests.data.readers.helpers import events, lines, origins, read, tabs, texts, wav_bytes, write


def vggsound(root: Path) -> Path:
    table = lines(
        '-a_b,1,"dog barking, whimpering",train',
        "cd,30,playing flute,test",
        "gone,5,rain,test",
        "cd,x,rain,test",
        "cd,60,rain,other",
        "cd,90,rain",
    )
    media = {"media/-a_b_000001.mp4": b"x", "media/cd_000030.mp4": b"x"}
    return write(root, {"vggsound.csv": table, **media})


def test_vggsound_labels_are_synthetic_captions_and_no_events(tmp_path: Path) -> None:
    source = vggsound(tmp_path / "set")
    records, rejects = read(VGGSound(), source)
    assert {clip_id: (record.files, texts(record), record.split) for clip_id, record in records.items()} == {
        "-a_b_1000": (
            {"media": "media/-a_b_000001.mp4"},
            {"class": ("dog barking, whimpering",), "audio": ("the sound of dog barking, whimpering",)},
            "train",
        ),
        "cd_30000": (
            {"media": "media/cd_000030.mp4"},
            {"class": ("playing flute",), "audio": ("the sound of playing flute",)},
            "test",
        ),
    }
    assert [caption.origin for caption in records["cd_30000"].captions["audio"]] == ["synthetic"]
    assert records["cd_30000"].events is None
    assert [(reject.id, reject.line, reject.missing) for reject in rejects] == [
        ("gone_5000", 3, True),
        (None, 4, False),
        ("cd_60000", 5, False),
        (None, 6, False),
    ]


def test_templates(tmp_path: Path) -> None:
    source = vggsound(tmp_path / "set")
    assert texts(read(VGGSound(template="{label}!"), source)[0]["cd_30000"])["audio"] == ("playing flute!",)
    assert texts(read(VGGSound(template=""), source)[0]["cd_30000"]) == {"class": ("playing flute",)}
    for make in (VGGSound, DESED):
        with pytest.raises(ValueError, match=r"got 'the sound of'"):
            make(template="the sound of")
    with pytest.raises(FileNotFoundError, match=r"no file 'vggsound.csv'"):
        read(VGGSound(), tmp_path)


def audioset(root: Path) -> Path:
    header = "segment_id|start_time_seconds|end_time_seconds|label"
    train = tabs(
        header,
        "-a_b_c_30000|0.5|2.25|/m/dog",
        "zz_0|0|10|/m/dog",
        "-a_b_c_30000|1|10|/m/walk",
        "bad_0|3|3|/m/dog",
        "bad_0|1|2|/m/dog",
        "what_0|0|1|/m/what",
        "nounderscore|0|1|/m/dog",
        "gone_30000|0|1|/m/dog",
    )
    media = {f"media/{name}.wav": b"x" for name in ("-a_b_c_30000", "zz", "bad_0", "what_0")}
    return write(
        root,
        {
            "audioset_train_strong.tsv": train,
            "audioset_eval_strong.tsv": tabs(header, "zz_5000|0|1|/m/walk"),
            "mid_to_display_name.tsv": tabs("/m/dog|Dog", "/m/walk|Walk, footsteps"),
            "media/zz_5000_15000.wav": b"x",
            **media,
        },
    )


def test_audioset_strong(tmp_path: Path) -> None:
    source = audioset(tmp_path / "set")
    records, rejects = read(AudioSetStrong(), source)
    assert {clip_id: (record.media, events(record), record.split) for clip_id, record in records.items()} == {
        "-a_b_c_30000": (
            "media/-a_b_c_30000.wav",
            [("Dog", 0.5, 2.25), ("Walk, footsteps", 1.0, 10.0)],
            "train",
        ),
        "zz_0": ("media/zz.wav", [("Dog", 0.0, 10.0)], "train"),
        "zz_5000": ("media/zz_5000_15000.wav", [("Walk, footsteps", 0.0, 1.0)], "test"),
    }
    assert [(reject.id, reject.line, reject.missing) for reject in rejects] == [
        ("bad_0", 5, False),
        ("what_0", 7, False),
        ("nounderscore", 8, False),
        ("gone_30000", 9, True),
    ]
    assert "ends at 3 s, not after it begins at 3 s" in rejects[0].reason
    assert "'/m/what' has no name in mid_to_display_name.tsv" in rejects[1].reason
    whole, _ = read(AudioSetStrong(whole_videos=True, splits=["train"]), source)
    assert (whole["zz_0"].start, whole["zz_0"].duration, len(whole)) == (0.0, 10.0, 2)


def test_audioset_strong_needs_the_names_of_its_labels(tmp_path: Path) -> None:
    source = audioset(tmp_path / "set")
    (source / "mid_to_display_name.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file 'mid_to_display_name.tsv'"):
        read(AudioSetStrong(), source)
    with pytest.raises(ValueError, match="has the splits train, test, not validation"):
        read(AudioSetStrong(splits=["validation"]), source)


def desed(root: Path) -> Path:
    strong = tabs(
        "filename|onset|offset|event_label",
        "a.wav|0.5|1.5|Alarm_bell_ringing",
        "b.wav|||",
        "a.wav|1|2|Dog",
        "c.wav",
        "bad.wav|2|1|Dog",
        "bad.wav|3|4|Dog",
        "half.wav|2||Dog",
        "gone.wav|0|1|Dog",
    )
    weak = tabs("filename|event_labels", "w.wav|Alarm_bell_ringing,Speech", "a.wav|", "|Dog")
    durations = tabs("filename|duration", "a.wav|10.0", "d.wav|10.0", "bad.wav|10.0")
    names = [f"validation/validation/{name}" for name in ("a", "b", "c", "d", "bad")]
    names += ["train/weak/w", "train/weak/a", "train/strong_label_real/s"]
    return write(
        root,
        {
            "metadata/validation/validation.tsv": strong,
            "metadata/validation/validation_durations.tsv": durations,
            "metadata/train/weak.tsv": weak,
            "metadata/train/audioset_strong.tsv": tabs("filename|onset|offset|event_label", "s.wav|0|1|Cat"),
            "metadata/train/unlabel_in_domain.tsv": tabs("filename", "u.wav"),
            "metadata/eval/public.tsv": tabs("filename|onset|offset|event_label", "e.wav|0|1|Cat"),
            "audio/train/unlabel_in_domain/u.wav": wav_bytes(),
            **{f"audio/{name}.wav": wav_bytes() for name in names},
        },
    )


def test_desed(tmp_path: Path) -> None:
    records, rejects = read(DESED(), desed(tmp_path / "set"))
    assert {clip_id: (events(record), record.split) for clip_id, record in records.items()} == {
        "train/strong_label_real/s.wav": ([("Cat", 0.0, 1.0)], "train"),
        "train/unlabel_in_domain/u.wav": (None, "train"),
        "train/weak/w.wav": ([("Alarm bell ringing", None, None), ("Speech", None, None)], "train"),
        "train/weak/a.wav": (None, "train"),
        "validation/validation/a.wav": ([("Alarm bell ringing", 0.5, 1.5), ("Dog", 1.0, 2.0)], "validation"),
        "validation/validation/b.wav": ([], "validation"),
        "validation/validation/c.wav": ([], "validation"),
        "validation/validation/d.wav": ([], "validation"),
    }
    weak = records["train/weak/w.wav"]
    assert weak.files == {"audio": "audio/train/weak/w.wav"}
    assert texts(weak) == {"audio": ("the sound of Alarm bell ringing and Speech",)} and origins(weak) == {"synthetic"}
    assert texts(records["train/weak/a.wav"]) == {}
    assert {(reject.id, reject.file, reject.line, reject.missing) for reject in rejects} == {
        (None, "metadata/eval/public.tsv", 0, True),
        (None, "metadata/train/weak.tsv", 4, False),
        ("validation/validation/bad.wav", "metadata/validation/validation.tsv", 6, False),
        ("validation/validation/half.wav", "metadata/validation/validation.tsv", 8, False),
        ("validation/validation/gone.wav", "audio/validation/validation/gone.wav", 9, True),
    }


def test_desed_tables_may_be_named(tmp_path: Path) -> None:
    source = desed(tmp_path / "set")
    reader = DESED(tables={"metadata/eval/public.tsv": "audio/other"})
    records, rejects = read(reader, write(source, {"audio/other/e.wav": wav_bytes()}))
    assert {clip_id: record.split for clip_id, record in records.items()} == {"other/e.wav": "test"} and not rejects
    with pytest.raises(FileNotFoundError, match=r"no file metadata/\*\*/\*.tsv"):
        read(DESED(), tmp_path)
    with pytest.raises(RecordError, match="'filename', it names 'a', 'b'"):
        read(DESED(), write(tmp_path, {"metadata/x.tsv": tabs("a|b"), "audio/x/a.wav": b""}))


def urbansed(root: Path) -> Path:
    return write(
        root,
        {
            "annotations/train/t0.txt": tabs("2|3|siren", "0.5|2|siren", "1|4.5|air_conditioner", "5|6|siren"),
            "annotations/train/t1.txt": "",
            "annotations/validate/v0.txt": tabs("1|2|drilling", "1|drilling"),
            "annotations/validate/v1.txt": tabs("1|1|drilling"),
            "annotations/validate/v2.txt": tabs("1|2|drilling"),
            "annotations/test/e0.txt": tabs("1|2|drilling"),
            **{f"audio/{name}.wav": wav_bytes() for name in ("train/t0", "train/t1", "validate/v0", "test/e0")},
        },
    )


def test_urbansed_merges_overlaps_of_a_class(tmp_path: Path) -> None:
    records, rejects = read(URBANSED(), urbansed(tmp_path / "set"))
    assert {clip_id: (events(record), record.split) for clip_id, record in records.items()} == {
        "t0": ([("siren", 0.5, 3.0), ("air conditioner", 1.0, 4.5), ("siren", 5.0, 6.0)], "train"),
        "t1": ([], "train"),
        "e0": ([("drilling", 1.0, 2.0)], "test"),
    }
    assert records["t0"].files == {"audio": "audio/train/t0.wav"} and records["t0"].dataset == "URBAN-SED"
    assert [(reject.id, reject.file, reject.line, reject.missing) for reject in rejects] == [
        ("v0", "annotations/validate/v0.txt", 2, False),
        ("v1", "annotations/validate/v1.txt", 1, False),
        ("v2", "audio/validate/v2.wav", 0, True),
    ]
    with pytest.raises(FileNotFoundError, match="no folder annotations/train, validate or test"):
        read(URBANSED(), tmp_path)


def finelap(root: Path) -> Path:
    table = lines(
        {
            "audio_id": "a",
            "audio_path": "wavs/a.wav",
            "caption": "A dog barks twice",
            "phrases": [{"phrase": "dog bark", "segments": [[0.0, 1.5], [2, 3]]}, {"phrase": "wind", "segments": []}],
        },
        {"audio_id": "b", "audio_path": "wavs/a.wav", "caption": "Rain", "phrases": []},
        {"audio_id": "c", "audio_path": "wavs/c.wav", "caption": "Rain"},
        {"audio_id": "d", "audio_path": "wavs/a.wav", "phrases": [{"phrase": "x", "segments": [[1, "2"]]}]},
        {"audio_id": "e", "audio_path": "wavs/a.wav", "phrases": [{"phrase": "x", "segments": [[1, 2, 3]]}]},
        {"audio_id": "f", "caption": "no path"},
        {"audio_id": "g", "audio_path": "../a.wav", "caption": "outside"},
        "no JSON",
        {"audio_id": "a", "audio_path": "wavs/a.wav"},
        {"audio_id": "h", "audio_path": "wavs/a.wav", "phrases": [{"phrase": "x", "segments": [[2, 2]]}]},
    )
    return write(root, {"train.jsonl": table, "wavs/a.wav": wav_bytes()})


def test_finelap(tmp_path: Path) -> None:
    source = finelap(tmp_path / "set")
    records, rejects = read(FineLAP(), source)
    assert {clip_id: (texts(record), events(record)) for clip_id, record in records.items()} == {
        "a": ({"audio": ("A dog barks twice",)}, [("dog bark", 0.0, 1.5), ("dog bark", 2.0, 3.0)]),
        "b": ({"audio": ("Rain",)}, None),
    }
    assert origins(records["a"]) == {"synthetic"} and origins(read(FineLAP(origin="real"), source)[0]["a"]) == {"real"}
    assert [(reject.id, reject.line, reject.missing) for reject in rejects] == [
        ("c", 3, True),
        ("d", 4, False),
        ("e", 5, False),
        ("f", 6, False),
        ("g", 7, False),
        (None, 8, False),
        ("a", 9, False),
        ("h", 10, False),
    ]
    moved, _ = read(
        FineLAP(table="../set/train.jsonl", media="set"), write(tmp_path, {"set/set/wavs/a.wav": b""}) / "set"
    )
    assert moved["a"].audio == "set/wavs/a.wav"
    with pytest.raises(ValueError, match="the origin of captions is real or synthetic, got 'human'"):
        FineLAP(origin="human")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"no file 'other.jsonl'"):
        read(FineLAP(table="other.jsonl"), source)
