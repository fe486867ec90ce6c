"""Vocabularies and ontologies: what they say, what they cannot be, and that they go with the data wherever these go."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lhotse import CutSet
from lhotse.supervision import SupervisionSegment

from peav.data import Event, open_manifest, prepare, read_records, save_manifest
from peav.data.curation.edit import mix, split_manifest
from peav.data.curation.page import inspect_manifest
from peav.data.curation.stats import manifest_stats
from peav.data.curation.validate import validate
from peav.data.manifests.labels import MAX_ANCESTORS, Labels, LabelsError, labels_from_json, load_labels, write_labels
from peav.data.manifests.manifest import manifest_path
from tests.data.conftest import RATE, write_records, write_wav

PETS = {
    "vocabularies": {"pets": ["Dog", "Cat"]},
    "parents": {"Bark": ["Dog"], "Dog": ["Animal"], "/m/05tny_": ["Bark"]},
}


def source(folder: Path, labels: dict[str, Any] | None = PETS, *more: dict[str, Any], first: str = "a") -> Path:
    """Three clips of one, two and 1.5 seconds: one of strong and soft labels, one of weak ones, one of which little is known."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(ord(first))
    names = [chr(ord(first) + number) for number in range(3)]
    for name, seconds in zip(names, (1.0, 2.0, 1.5), strict=True):
        write_wav(folder / f"{name}.wav", rng.uniform(-0.5, 0.5, round(seconds * RATE)))
    soft = {"phrase": "dog", "onset": 0.1, "offset": 0.6, "label": "/m/0bt9lr", "confidence": 0.4}
    events = [
        [soft, {"phrase": "Cat", "onset": 0.0, "offset": 1.0}],
        [{"phrase": "Dog", "label": "/m/0bt9lr"}, {"phrase": "Cat", "confidence": 0}],
        [{"phrase": "a lorry", "onset": 0.0, "offset": 1.0}],
    ]
    records = [
        {"id": name, "audio": f"{name}.wav", "captions": {"audio": f"sound {name}"}, "events": held}
        for name, held in zip(names, events, strict=True)
    ]
    for record, vocabulary in zip(records, ("pets", "pets", "open"), strict=True):
        record["vocabulary"] = vocabulary
    write_records(folder / "clips.jsonl", [*records, *more])
    if labels is not None:
        (folder / "labels.json").write_text(json.dumps(labels))
    return folder


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], r'must hold \{"vocabularies"'),
        ({"vocabulary": {}}, "unknown field 'vocabulary': did you mean 'vocabularies'"),
        ({"vocabularies": []}, "'vocabularies' must map strings to lists"),
        ({"vocabularies": {"a": "Dog"}}, "'vocabularies' must map strings to lists"),
        ({"parents": {"a": [1]}}, "'parents' must map strings to lists"),
        ({"vocabularies": {"a": ["Dog", "dog."]}}, "hold 'dog.' twice"),
        ({"vocabularies": {"a": [" "]}}, "an empty phrase"),
        ({"vocabularies": {"open": ["Dog"]}}, "cannot be called 'open'"),
        ({"vocabularies": {"": ["Dog"]}}, "cannot be called ''"),
        ({"parents": {"Dog": ["Cat"], "dog ": ["Pet"]}}, "has 'dog ' twice"),
        ({"parents": {"Dog": ["\ud800"]}}, "half of a surrogate pair"),
        ({"parents": {"Dog": ["dog"]}}, "form a circle: 'Dog', 'Dog'"),
        ({"parents": {"A": ["B"], "b": ["C", "X"], "c.": ["A"]}}, "form a circle: '[ABbc.]+', '[ABbc.]+', '[ABbc.]+'"),
        ({"vocabularies": {"a": [str(number) for number in range(1_000_001)]}}, "1,000,001 phrases; more than"),
    ],
)
def test_what_labels_cannot_be(data: Any, message: str) -> None:
    with pytest.raises(LabelsError, match=message):
        labels_from_json(data)


def test_a_lineage_is_every_ancestor_once_by_phrase_and_by_id() -> None:
    labels = Labels(parents={"Bark": ("Dog", "Noise"), "Dog": ("Pet", "Animal"), "Pet": ("Animal",), "/m/1": ("Bark",)})
    assert labels.lineage("bark") == ("Dog", "Noise", "Pet", "Animal")
    assert labels.lineage("woof", "/m/1") == ("Bark", "Dog", "Noise", "Pet", "Animal")
    assert labels.lineage("Bark", "/m/1") == ("Dog", "Noise", "Pet", "Animal")  # not its own ancestor
    assert labels.lineage("Animal") == labels.lineage("lorry", "/m/9") == ()
    # As deep as an ontology is long, without a recursion; but nobody means a thousand ancestors.
    deep = Labels(parents={str(number): (str(number + 1),) for number in range(5000)})
    assert deep.lineage("4000") == tuple(map(str, range(4001, 5001)))
    with pytest.raises(LabelsError, match=f"more than {MAX_ANCESTORS:,} ancestors"):
        deep.lineage("0")


def test_two_data_sets_share_their_labels_or_disagree() -> None:
    pets, more = labels_from_json(PETS), Labels({"birds": ("Owl",)}, {"dog": ("Pet", "animal")})
    both = pets.merged(more)
    assert both.lineage("Bark") == ("Dog", "Animal", "Pet") and set(both.vocabularies) == {"birds", "pets"}
    assert pets.merged(Labels({"pets": ("cat", "DOG")})) == pets and pets.merged(Labels()) == pets
    with pytest.raises(LabelsError, match="two vocabularies are called 'pets'"):
        pets.merged(Labels({"pets": ("Dog", "Cat", "Fish")}))
    with pytest.raises(LabelsError, match="circle"):
        pets.merged(Labels(parents={"Animal": ("Bark",)}))


def test_labels_go_from_the_source_to_every_manifest(tmp_path: Path) -> None:
    data = tmp_path / "data"
    source(tmp_path / "source")
    subprocess.run([sys.executable, "-m", "peav.cli.main", "prepare", tmp_path / "source", data], check=True)
    labels = load_labels(data)
    assert labels.to_json() == PETS and validate(data).errors == 0
    first, second, third = open_manifest(data, "train")
    assert first.events == (Event("dog", 0.1, 0.6, "/m/0bt9lr", 0.4), Event("Cat", 0.0, 1.0))
    assert second.events == (Event("Dog", label="/m/0bt9lr"), Event("Cat", confidence=0.0))
    assert [clip.vocabulary for clip in (first, second, third)] == ["pets", "pets", "open"]
    split_manifest(data, tmp_path / "split", by="id", validation=0.0, test=0.0)
    assert load_labels(tmp_path / "split").to_json() == PETS and validate(tmp_path / "split").errors == 0
    # Other labels are another preparation.
    (tmp_path / "source" / "labels.json").write_text(json.dumps({**PETS, "parents": {}}))
    with pytest.raises(Exception, match="prepared from another source"):
        prepare(tmp_path / "source", data, workers=0, progress=False)
    prepare(tmp_path / "source", data, workers=0, progress=False, overwrite=True)
    assert load_labels(data).parents == {}


def test_a_mix_renames_vocabularies_that_differ_and_keeps_those_that_do_not(tmp_path: Path) -> None:
    fish = {"vocabularies": {"pets": ["Dog", "Cat", "Fish"]}, "parents": {"Cat": ["Animal"]}}
    for name, labels, first in (("one", PETS, "a"), ("two", PETS, "k"), ("three", fish, "t")):
        prepare(source(tmp_path / name, labels, first=first), tmp_path / f"{name}-data", workers=0, progress=False)
    mix(tmp_path / "same", [f"one={tmp_path / 'one-data'}", f"two={tmp_path / 'two-data'}"])
    assert load_labels(tmp_path / "same").to_json() == PETS and validate(tmp_path / "same").errors == 0
    report = mix(tmp_path / "all", [f"{name}={tmp_path / name}-data" for name in ("one", "two", "three")])
    merged = load_labels(tmp_path / "all")
    assert set(merged.vocabularies) == {"one/pets", "two/pets", "three/pets"} and validate(tmp_path / "all").errors == 0
    assert merged.lineage("cat") == ("Animal",) and any("NAME/VOCABULARY" in note for note in report.notes)
    held = [clip.vocabulary for clip in open_manifest(tmp_path / "all", "train")]
    assert held == ["one/pets", "one/pets", "open", "two/pets", "two/pets", "open", "three/pets", "three/pets", "open"]
    # A mix over a mix without labels leaves none of them behind.
    prepare(source(tmp_path / "bare", None, first="p"), tmp_path / "bare-data", workers=0, progress=False)
    mix(tmp_path / "all", [str(tmp_path / "bare-data")], overwrite=True)
    assert not (tmp_path / "all" / "labels.json").exists()


def test_unknown_labels_leave_a_clip_out_and_are_found_later(tmp_path: Path) -> None:
    more: list[dict[str, Any]] = [
        {"id": "x", "audio": "a.wav", "events": [{"phrase": "Dgo", "onset": 0, "offset": 1}], "vocabulary": "pets"},
        {"id": "y", "audio": "a.wav", "events": [], "vocabulary": "pet"},
    ]
    report = prepare(source(tmp_path / "source", PETS, *more), tmp_path / "data", workers=0, progress=False)
    reasons = {reject.id: reject.reason for reject in report.rejects}
    assert set(reasons) == {"x", "y"}
    assert "event 'Dgo' is not in the vocabulary 'pets'" in reasons["x"] and "did you mean 'Dog'" in reasons["x"]
    assert "the vocabulary 'pet' is unknown: did you mean 'pets'" in reasons["y"]
    write_labels(tmp_path / "data", Labels({"pets": ("Cat",)}))
    found = validate(tmp_path / "data")
    assert [problem.kind for problem in found.problems] == ["labels", "labels"] and "'dog'" in found.problems[0].message
    (tmp_path / "data" / "labels.json").write_text("{")
    found = validate(tmp_path / "data")
    assert [problem.kind for problem in found.problems] == ["labels"] and "is no JSON" in found.problems[0].message
    clips = list(open_manifest(tmp_path / "data", "train"))
    events = (Event("Dog", 0.0, 0.5), Event("dog", confidence=0.0))
    save_manifest(tmp_path / "data", "train", [replace(clips[0], events=events), *clips[1:]])
    write_labels(tmp_path / "data", Labels({"pets": ("Cat", "Dog")}))
    (problem,) = validate(tmp_path / "data").problems
    assert problem.kind == "events" and "'Dog' is in the clip by one entry" in problem.message


def test_stats_and_pages_tell_strong_from_weak_absent_and_soft(tmp_path: Path) -> None:
    prepare(source(tmp_path / "source"), tmp_path / "data", workers=0, progress=False)
    stats = manifest_stats(open_manifest(tmp_path / "data", "train"))
    assert stats.event_kinds == {"strong": 3, "weak": 1, "absent": 1, "soft": 1}
    assert (stats.events, stats.with_events, stats.annotated) == (4, 3, 3)
    assert {name: share.clips for name, share in stats.vocabularies.items()} == {"pets": 2, "open": 1}
    assert any("1 phrases are said to be absent" in line for line in stats.sentences())
    html = inspect_manifest(tmp_path / "data", out=tmp_path / "page.html").html.read_text()
    assert "0.10 to 0.60 s (0.4)" in html and " somewhere" in html and " is not in it" in html
    assert "vocabulary of annotated clips" in html and ">pets<" in html


def test_lhotse_cuts_weak_labels_as_they_are_meant(tmp_path: Path) -> None:
    prepare(source(tmp_path / "source"), tmp_path / "data", workers=0, progress=False)
    cuts = CutSet.from_file(manifest_path(tmp_path / "data", "train")).to_eager()
    weak = cuts["b"]
    assert [one.custom for one in weak.supervisions] == [
        {"weak": True, "label": "/m/0bt9lr"},
        {"weak": True, "confidence": 0.0},
    ]
    assert [(one.start, one.duration) for one in weak.supervisions] == [(0.0, 2.0), (0.0, 2.0)]
    # A part: where the dog is nobody knows, the cat is nowhere. Of a strong clip all is known.
    save_manifest(tmp_path / "data", "train", [weak.truncate(offset=0.5, duration=1.0), cuts["a"].truncate(offset=0.5)])
    for _ in range(2):  # and the same when it is written again
        part, strong = open_manifest(tmp_path / "data", "train")
        assert part.events == (Event("Cat", confidence=0.0),) and part.vocabulary == "open"
        assert strong.vocabulary == "pets" and strong.events is not None
        assert {(event.phrase, event.confidence) for event in strong.events} == {("dog", 0.4), ("Cat", 1.0)}
        save_manifest(tmp_path / "data", "train", [part, strong])
    assert validate(tmp_path / "data").errors == 0
    # A part that was listened to has labels of its own.
    part = replace(part, events=(Event("Dog"),), vocabulary="pets")
    save_manifest(tmp_path / "data", "train", [part])
    assert list(open_manifest(tmp_path / "data", "train")) == [part]
    # A supervision that Lhotse's user makes is a strong label; one of less than the cut is somewhere in it.
    own = SupervisionSegment("s", weak.recording_id, 0.25, 0.5, text="Dog")
    soft = SupervisionSegment("t", weak.recording_id, 0.25, 0.5, text="Dog", custom={"weak": True, "confidence": 0.5})
    cut = weak.truncate(duration=2.0)
    cut.supervisions = [own, soft]
    save_manifest(tmp_path / "data", "train", [cut])
    assert next(iter(open_manifest(tmp_path / "data", "train"))).events == (
        Event("Dog", 0.25, 0.75),
        Event("Dog", confidence=0.5),
    )


def test_records_need_no_labels_to_be_read(tmp_path: Path) -> None:
    found = read_records(source(tmp_path / "source", None) / "clips.jsonl")
    assert not found.rejects and [record.vocabulary for record in found.records] == ["pets", "pets", "open"]
    with pytest.raises(Exception, match="'pets' is unknown"):
        prepare(tmp_path / "source", tmp_path / "data", workers=0, progress=False, strict=True)
