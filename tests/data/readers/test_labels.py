"""What readers say of labels: vocabularies, ontologies, weak, soft and absent events; each on the layout of its data set."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peav.cli.span_files import FileSpans, to_tsv
from peav.data import Clip, Event, RecordError, Reject, open_manifest, prepare
from peav.data.curation.validate import validate
from peav.data.manifests.labels import LabelsError, load_labels
from peav.data.manifests.manifest import manifest_path
from peav.data.manifests.records import SPLITS
from peav.data.readers import DESED, URBANSED, AudioSetStrong, FineLAP, LabelTable, MAESTROReal, Reader
from peav.spans import Span
from tests.data.readers.helpers import events, lines, read, tabs, wav_bytes, write
from tests.data.readers.test_events import audioset, desed, urbansed

ONTOLOGY = [
    {"id": "/m/animal", "name": "Animal", "description": "", "child_ids": ["/m/dog"], "restrictions": ["abstract"]},
    {"id": "/m/dog", "name": "Dog (in the ontology)", "child_ids": ["/m/bark"]},
    {"id": "/m/bark", "name": "Bark", "child_ids": []},
    {"id": "/m/walk", "name": "Walk, footsteps"},
]


def prepared(reader: Reader, source: Path) -> tuple[dict[str, Clip], list[Reject]]:
    """The clips of a data set once it is prepared and found to be right, and what was left out."""
    out = source.parent / f"{source.name}-data"
    report = prepare(source, out, reader=reader, workers=0, progress=False, min_seconds=0.0, vocab_size=300)
    assert validate(out).errors == 0
    clips = [clip for split in SPLITS if manifest_path(out, split).exists() for clip in open_manifest(out, split)]
    return {clip.id: clip for clip in clips}, report.rejects


def with_negatives(root: Path) -> Path:
    """AudioSet-Strong with its ontology and the frames of the evaluation set, in the columns of the release of 2021."""
    source = audioset(root)
    frames = tabs(
        "segment_id|start_time_seconds|end_time_seconds|label|present",
        "zz_5000|0.0|0.96|/m/walk|PRESENT",
        "zz_5000|0.96|1.92|/m/walk|NOT_PRESENT",
        "zz_5000|0.0|0.96|/m/dog|NOT_PRESENT",
        "zz_5000|0.96|1.92|/m/dog|NOT_PRESENT",
        "other_0|0.0|0.96|/m/dog|NOT_PRESENT",
        "zz_5000|0.0|0.96|/m/dog|MAYBE",
        "zz_5000|0.0|0.96|/m/what|NOT_PRESENT",
    )
    sound = wav_bytes(80_000)
    media = {f"media/{name}.wav": sound for name in ("-a_b_c_30000", "zz", "bad_0", "what_0", "zz_5000_15000")}
    return write(
        source, {"audioset_eval_strong_framed_posneg.tsv": frames, "ontology.json": json.dumps(ONTOLOGY), **media}
    )


def test_audioset_strong_says_what_is_absent_and_what_is_a_kind_of_what(tmp_path: Path) -> None:
    source = with_negatives(tmp_path / "set")
    clips, rejects = prepared(AudioSetStrong(), source)
    assert {clip.vocabulary for clip in clips.values()} == {"audioset_strong"}
    assert clips["zz_0"].events == (Event("Dog", 0.0, 10.0, "/m/dog"),)
    assert clips["zz_5000"].events == (
        Event("Walk, footsteps", 0.0, 1.0, "/m/walk"),
        Event("Dog", label="/m/dog", confidence=0.0),
    )
    assert [(one.line, one.reason) for one in rejects if one.id == "zz_5000"] == [
        (7, "column 'present' must be PRESENT or NOT_PRESENT, got 'MAYBE'"),
        (8, "label '/m/what' has no name in mid_to_display_name.tsv"),
    ]
    labels = load_labels(tmp_path / "set-data")
    assert labels.vocabularies == {"audioset_strong": ("Dog", "Walk, footsteps")}
    # The names of the annotation, not of the ontology; by phrase, and by id whatever the phrase.
    assert labels.lineage("dog") == ("Animal",) and labels.lineage("woof", "/m/bark") == ("Bark", "Dog", "Animal")


@pytest.mark.parametrize(
    ("ontology", "message"),
    [
        ("{", "is no JSON"),
        ({}, "must hold a list"),
        ([{"id": "/m/dog"}], "must hold a list"),
        ([{"id": "/m/dog", "name": "Dog", "child_ids": "/m/bark"}], "must be a list of ids"),
        (
            [{"id": "/m/dog", "name": "Dog", "child_ids": ["/m/bark"]}],
            "has the child '/m/bark', which the file does not have",
        ),
        (
            [{"id": "a", "name": "A", "child_ids": ["b"]}, {"id": "b", "name": "B", "child_ids": ["a"]}],
            "circle: '[AB]', '[AB]', '[AB]'",
        ),
    ],
)
def test_an_ontology_that_cannot_be(ontology: Any, message: str, tmp_path: Path) -> None:
    source = audioset(tmp_path / "set")
    text = ontology if isinstance(ontology, str) else json.dumps(ontology)
    (source / "ontology.json").write_text(text)
    with pytest.raises(LabelsError, match=message):
        AudioSetStrong().labels(source)


def test_desed_is_strong_weak_and_unlabelled(tmp_path: Path) -> None:
    source = desed(tmp_path / "set")
    write(source, {str(path.relative_to(source)): wav_bytes(80_000) for path in source.rglob("*.wav")})
    write(source, {"metadata/train/weak.tsv": tabs("filename|event_labels", "w.wav|Dog,Speech", "a.wav|Siren")})
    clips, rejects = prepared(DESED(), source)
    assert clips["train/weak/w.wav"].events == (Event("Dog"), Event("Speech"))
    assert clips["train/unlabel_in_domain/u.wav"].events is None
    assert clips["validation/validation/d.wav"].events == ()
    known = {clip.id: clip.vocabulary for clip in clips.values() if clip.events is not None}
    assert len(known) == 6 and set(known.values()) == {"desed"}
    assert len(load_labels(tmp_path / "set-data").vocabularies["desed"]) == 10
    (unknown,) = [one for one in rejects if one.id == "train/weak/a.wav"]
    assert "event 'Siren' is not in the vocabulary 'desed'" in unknown.reason


def test_urbansed_and_finelap_say_what_they_listened_for(tmp_path: Path) -> None:
    source = urbansed(tmp_path / "urban")
    write(source, {str(path.relative_to(source)): wav_bytes(80_000) for path in source.rglob("*.wav")})
    clips, _ = prepared(URBANSED(), source)
    assert {clip.vocabulary for clip in clips.values()} == {"urban_sed"} and clips["t1"].events == ()
    assert len(load_labels(tmp_path / "urban-data").vocabularies["urban_sed"]) == 10
    phrases = [{"phrase": "a dog barking far away", "segments": [[0.0, 1.5], [2, 3]]}]
    rows = [
        {"audio_id": "a", "audio_path": "a.wav", "caption": "A dog barks", "phrases": phrases},
        {"audio_id": "b", "audio_path": "a.wav", "caption": "Rain"},
    ]
    clips, _ = prepared(FineLAP(), write(tmp_path / "lap", {"train.jsonl": lines(*rows), "a.wav": wav_bytes(80_000)}))
    assert clips["a"].vocabulary == "open" and clips["b"].events is None and clips["b"].vocabulary == ""


def maestro(root: Path) -> Path:
    """The folders of development_audio.zip and development_annotation.zip."""
    soft = tabs(
        "0|1|people talking|0.25",
        "0|1|cutlery and dishes|0",
        "1|2|people talking|0.25",
        "1|2|cutlery and dishes|0.9",
        "2|3|people talking|1.0000000002",
        "2|3|cutlery and dishes|0.0",
        "3|4|people talking|1.0",
    )
    return write(
        root,
        {
            "development_annotation/soft_labels_cafe_restaurant/cafe_restaurant_00.txt": soft,
            "development_annotation/soft_labels_metro_station/metro_station_03.txt": tabs("0|1|metro_leaving|0.5"),
            "development_annotation/soft_labels_metro_station/metro_station_04.txt": tabs("0|1|car|1.5"),
            "development_annotation/soft_labels_metro_station/metro_station_05.txt": tabs("0|1|car|nan"),
            "development_annotation/soft_labels_metro_station/metro_station_06.txt": tabs("0|1|car|1"),
            "development_audio/cafe_restaurant/cafe_restaurant_00.wav": wav_bytes(32_000),
            "development_audio/metro_station/metro_station_03.wav": wav_bytes(16_000),
            "development_audio/metro_station/metro_station_04.wav": wav_bytes(16_000),
        },
    )


def test_maestro_has_soft_labels(tmp_path: Path) -> None:
    clips, rejects = prepared(MAESTROReal(), maestro(tmp_path / "set"))
    assert clips["cafe_restaurant_00"].events == (
        Event("people talking", 0.0, 2.0, confidence=0.25),
        Event("cutlery and dishes", 1.0, 2.0, confidence=0.9),
        Event("people talking", 2.0, 4.0),
    )
    assert clips["metro_station_03"].events == (Event("metro leaving", 0.0, 1.0, confidence=0.5),)
    assert {clip.vocabulary for clip in clips.values()} == {"maestro_real"}
    assert {one.id: one.reason.split(":")[0] for one in rejects} == {
        "metro_station_04": "'value' must be a number from 0 to 1, got 1.5",
        "metro_station_05": "'value' must be a number from 0 to 1, got 'nan'",
        "metro_station_06": "no such file",
    }
    held = load_labels(tmp_path / "set-data").vocabularies["maestro_real"]
    assert held == ("car", "cutlery and dishes", "metro leaving", "people talking")
    with pytest.raises(FileNotFoundError, match="soft_labels_SCENE"):
        read(MAESTROReal(), tmp_path)


def label_table(root: Path) -> Path:
    table = tabs(
        "filename|onset|offset|event_label|confidence",
        "train/a.wav|0.5|1.5|Dog_bark",
        "train/a.wav|1|2|Dog_bark|0.5",
        "train/a.wav|||rain",
        "train/a.wav|||siren|0",
        "test/b.wav",
        "c.wav|2|1|siren",
        "d.wav|1||siren",
        "e.wav|0|1|siren|nan",
        "f.wav|0|1|siren|2",
        "g.wav|0|9|siren",
        "h.wav|-1|1|siren",
        "i.wav|0|1|",
        "gone.wav|0|1|siren",
    )
    names = ("train/a", "test/b", "c", "d", "e", "f", "g", "h", "i")
    return write(root, {"labels.tsv": table, **{f"{name}.wav": wav_bytes(20_000) for name in names}})


def test_a_table_of_labels_is_all_that_a_folder_needs(tmp_path: Path) -> None:
    clips, rejects = prepared(LabelTable(), label_table(tmp_path / "set"))
    assert clips["train/a.wav"].events == (
        Event("Dog bark", 0.5, 1.5),
        Event("Dog bark", 1.0, 2.0, confidence=0.5),
        Event("rain"),
        Event("siren", confidence=0.0),
    )
    assert clips["test/b.wav"].events == () and clips["test/b.wav"].split == "test"
    assert {clip.vocabulary for clip in clips.values()} == {"labels"}
    assert load_labels(tmp_path / "set-data").vocabularies == {"labels": ("Dog bark", "rain", "siren")}
    reasons = {one.id: one.reason for one in rejects}
    for name, reason in {
        "c.wav": "ends at 1 s, not after it begins at 2 s",
        "d.wav": "column 'offset' is empty",
        "e.wav": "'confidence' must be a number, got 'nan'",
        "f.wav": "'confidence' must be a number from 0 to 1, got 2",
        "g.wav": "lies outside its clip of 2.500 s",
        "h.wav": "at least -0.05, got -1",
        "i.wav": "column 'event_label' is empty",
        "gone.wav": "no such file",
    }.items():
        assert reason in reasons.pop(name)
    assert not reasons


def test_a_table_that_is_not_complete_leaves_the_rest_unknown(tmp_path: Path) -> None:
    source = label_table(tmp_path / "set")
    (source / "labels.json").write_text('{"parents": {"Dog bark": ["Dog"]}}')
    clips, _ = prepared(LabelTable(complete=False, split="validation"), source)
    assert {(clip.vocabulary, clip.split) for clip in clips.values()} == {("open", "validation")}
    assert load_labels(tmp_path / "set-data").lineage("dog bark") == ("Dog",)


def test_cells_in_quotation_marks_are_read_as_peav_detect_and_spreadsheets_write_them(tmp_path: Path) -> None:
    names = ['a "big" dog', "rain, then hail", "5' of wind"]
    found = [FileSpans("sub/a b.wav", 3.0, [[Span(0.5, 1.0, 0.9)], [Span(1.0, 2.5, 0.4)], [Span(0.0, 3.0, 0.7)]])]
    rows = list(csv.reader(io.StringIO(to_tsv(names, found)), "excel-tab"))
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    for delimiter, table in (("\t", to_tsv(names, found)), (",", stream.getvalue())):
        source = write(tmp_path / f"set{ord(delimiter)}", {"labels.tsv": table, "sub/a b.wav": wav_bytes(48_000)})
        clips, rejects = prepared(LabelTable(delimiter=delimiter), source)
        assert not rejects
        heard = {(event.phrase, event.span) for event in clips["sub/a b.wav"].events or ()}
        assert heard == {(names[0], (0.5, 1.0)), (names[1], (1.0, 2.5)), (names[2], (0.0, 3.0))}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "filename,onset,offset,event_label\n",
            "it lacks filename, onset, offset, event_label: its cells are separated by commas",
        ),
        (tabs("filename|onset|offset|label"), "it lacks event_label"),
    ],
)
def test_a_table_without_its_columns_says_so(table: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=message):
        read(LabelTable(), write(tmp_path, {"labels.tsv": table}))


@pytest.mark.parametrize("make", [desed, urbansed, audioset, maestro, label_table])
def test_labels_of_the_folder_are_added(make: Callable[[Path], Path], tmp_path: Path) -> None:
    reader = {"desed": DESED, "urbansed": URBANSED, "audioset": AudioSetStrong, "maestro": MAESTROReal}.get(
        make.__name__, LabelTable
    )()
    source = make(tmp_path / "set")
    own = reader.labels(source)
    (source / "labels.json").write_text('{"parents": {"Siren": ["Alarm"]}, "vocabularies": {"more": ["Owl"]}}')
    both = reader.labels(source)
    assert both.lineage("siren") == ("Alarm",) and set(both.vocabularies) == {*own.vocabularies, "more"}
    records, _ = read(reader, source)
    assert all(events(record) is None or record.vocabulary in own.vocabularies for record in records.values())
