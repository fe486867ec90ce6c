"""From prepared clips with labels of all kinds to the numbers: what nobody knows reaches no metric."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from peav.checkpoints import MediaSettings
from peav.data.packing.prepare import prepare
from peav.evaluation.collect import PassOptions, Split
from peav.evaluation.run import as_evaluated, evaluate_split
from peav.model import PEAV
from tests.helpers import SMALL_ENCODERS
from tests.inputs.helpers import RATE, noise, wide_wav

LABELS = {"vocabularies": {"pets": ["Dog", "Bark", "Cat"]}, "parents": {"Bark": ["Dog"]}}
CLIPS: dict[str, dict[str, Any]] = {
    "closed": {"events": [{"phrase": "Cat", "onset": 0.5, "offset": 1.5}]},
    "pets": {"events": [{"phrase": "Bark", "onset": 0.2, "offset": 1.0}], "vocabulary": "pets"},
    "weak": {"events": [{"phrase": "dog"}, {"phrase": "cat", "onset": 0.0, "offset": 1.0}], "vocabulary": "pets"},
    "open": {
        "events": [{"phrase": "rain", "onset": 0.0, "offset": 2.0}, {"phrase": "Cat", "confidence": 0.0}],
        "vocabulary": "open",
    },
    "nothing": {"events": [], "vocabulary": "open"},
    "dog": {"events": [{"phrase": "Dog", "onset": 0.3, "offset": 0.6}], "vocabulary": "pets"},
    "silent on it": {},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("made") / "data"
    lines = []
    for number, (name, said) in enumerate(CLIPS.items()):
        wide_wav(source / f"{number}.wav", noise(2.0, number)[None], RATE)
        record = {
            "id": name,
            "media": f"{number}.wav",
            "captions": {"audio": f"take {number}"},
            "split": "test",
            **said,
        }
        lines.append(json.dumps(record))
    (source / "clips.jsonl").write_text("\n".join(lines))
    (source / "labels.json").write_text(json.dumps(LABELS))
    prepare(source, out, workers=0, progress=False, min_seconds=0.0, vocab_size=300)
    return out


def test_what_a_split_knows_reaches_its_numbers(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    encoders = {"audio": SMALL_ENCODERS["DacAudioEncoder"](), "text": SMALL_ENCODERS["TextEncoder"]()}
    media = MediaSettings(sample_rate=RATE, frame_size=32)
    names = ["audio", "text_audio", "text_event"]
    model = PEAV(encoders, names, 8, frames=["audio"], pairs=[("audio", "text_event")], media=media)
    model.set_score(
        ("audio", "text_event"), torch.tensor([4.0]), torch.tensor([90.0])
    )  # everything is heard everywhere
    split = Split(data, "test")
    options = PassOptions(num_workers=0, progress=False)
    found = evaluate_split(as_evaluated(model), split, tmp_path / "cache", options)
    table, frames = found.table, found.evaluation.frames
    assert table.known is not None and frames is not None
    known = {
        clip: {phrase for phrase, is_known in zip(table.phrases, row, strict=True) if is_known}
        for clip, row in zip(table.clip_ids, table.known.tolist(), strict=True)
    }
    assert {normal.lower() for normal in table.phrases} == {"cat", "bark", "rain", "dog"}
    cat = next(phrase for phrase in table.phrases if phrase.lower() == "cat")
    assert known == {
        "closed": set(table.phrases),
        "pets": {"Bark", cat},
        "weak": {cat},
        "open": {"rain", cat},
        "nothing": set(),
        "dog": {"Dog", cat},
        "silent on it": set(),
    }
    assert frames.num_clips == 5
    assert {phrase: row["num_events"] for phrase, row in frames.per_phrase.items()} == {
        "Bark": 1, cat: 2, "rain": 1, "Dog": 1
    }  # fmt: skip
    # Rain is absent from one clip that says so, the cat from three, the bark and the dog from one each.
    seconds = {
        clip: table.frame_part.frame_seconds * len(f)
        for clip, f in zip(table.clip_ids, table.frames or [], strict=True)
    }
    hours = (3 * seconds["closed"] + sum(seconds[clip] for clip in ("pets", "open", "dog"))) / 3600
    assert frames.metrics["false_alarms_per_hour"] == pytest.approx(6 / hours)


def test_the_fingerprint_of_a_split_says_what_is_known(data: Path) -> None:
    before = Split(data, "test").fingerprint()
    (data / "labels.json").write_text(json.dumps({**LABELS, "parents": {}}))
    try:
        assert Split(data, "test").fingerprint() != before
    finally:
        (data / "labels.json").write_text(json.dumps(LABELS))
    assert Split(data, "test").fingerprint() == before
