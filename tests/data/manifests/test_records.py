import json
from pathlib import Path
from typing import Any

import pytest

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Event, fit_events, parse_record, read_records
from peav.data.manifests.texts import Caption

GOOD: dict[str, Any] = {"id": "a", "media": "a.mp4"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"captoins": {}}, "unknown field 'captoins': did you mean 'captions'"),
        ({"captions": {"my title": "x"}}, "a caption type is a word of letters"),
        ({"captions": {"event": "x"}}, "no caption type can be called 'event'"),
        ({"captions": "x"}, "'captions' must map"),
        ({"captions": {"audio": [1]}}, "must be strings, or objects with text"),
        ({"media": 3}, "'media' must be a string"),
        ({"media": "../a.mp4"}, "inside the source folder"),
        ({"media": "b/../../a.mp4"}, "inside the source folder"),
        ({"media": "/etc/a.mp4"}, "inside the source folder"),
        ({"media": None}, "names no file"),
        ({"audio": "a.wav"}, "not both"),
        ({"start": -1}, "at least 0, got -1"),
        ({"start": float("nan")}, "finite"),
        ({"duration": float("inf")}, "finite"),
        ({"duration": 0}, "above 0"),
        ({"duration": True}, "number of seconds"),
        ({"split": "valid"}, "did you mean 'validation'"),
        ({"events": [{"phrase": "x", "onset": 2, "offset": 1}]}, "not after it begins"),
        ({"events": [{"phrase": "x", "onset": 1, "offset": 1}]}, "not after it begins"),
        ({"events": [{"phrase": "x", "onset": -1, "offset": 1}]}, "at least"),
        ({"events": [{"phrase": " ", "onset": 0, "offset": 1}]}, "needs a 'phrase'"),
        ({"events": [{"phrase": "x", "onset": 0}]}, "give both, or neither"),
        ({"events": [{"phrase": "x", "start": 0, "offset": 1}]}, "unknown event field 'start'"),
        (
            {"events": [{"phrase": "x", "confidence": float("nan")}]},
            "'confidence' must be a number from 0 to 1, got nan",
        ),
        ({"events": [{"phrase": "x", "confidence": 1.5}]}, "from 0 to 1, got 1.5"),
        ({"events": [{"phrase": "x", "confidence": True}]}, "from 0 to 1, got True"),
        ({"events": [{"phrase": "x", "label": 3}]}, "'label' must be a string"),
        ({"events": [{"phrase": "Dog"}, {"phrase": "dog.", "confidence": 0}]}, "by another, without times"),
        ({"vocabulary": 3}, "'vocabulary' must be a string"),
        ({"id": ""}, "not empty"),
        ({"id": 7}, "must be a string"),
    ],
)
def test_bad_fields_are_named(change: dict[str, Any], message: str) -> None:
    parse_record(GOOD)
    with pytest.raises(RecordError, match=message):
        parse_record({**GOOD, **change})


def test_a_bad_line_does_not_stop_the_others(tmp_path: Path) -> None:
    lines = [
        json.dumps(GOOD),
        "{not json",
        "",
        "[1]",
        '{"media": "b.mp4"}',
        json.dumps(GOOD),
        json.dumps({"id": "b", "media": "b.mp4", "durration": 1}),
        json.dumps({"id": "c", "audio": "c.wav", "video": "c.mp4", "split": "test"}),
    ]
    path = tmp_path / "clips.jsonl"
    path.write_text("\n".join(lines))
    found = read_records(path)
    assert [record.id for record in found.records] == ["a", "c"]
    assert found.records[1].files == {"audio": "c.wav", "video": "c.mp4"}
    assert [(reject.line, reject.id) for reject in found.rejects] == [
        (2, None),
        (4, None),
        (5, None),
        (6, "a"),
        (7, "b"),
    ]
    assert "duplicate id 'a': line 1" in found.rejects[3].reason
    assert "did you mean 'duration'" in found.rejects[4].reason
    with pytest.raises(RecordError, match="line 2: not JSON"):
        read_records(path, strict=True)


def test_captions_that_are_empty_or_endless_are_dropped_and_noted() -> None:
    captions = {"audio": ["", "rain"], "video": "word " * 10_000, "audio_video": None}
    record, notes = parse_record({**GOOD, "captions": captions, "transcript": " "})
    assert record.captions == {"audio": (Caption("rain"),)}
    assert record.transcript == ()
    assert len(notes) == 3
    assert any("10,000 words" in note for note in notes)


def test_unknown_is_not_the_same_as_nothing_heard() -> None:
    assert parse_record(GOOD)[0].events is None
    assert parse_record({**GOOD, "events": []})[0].events == ()


def test_events_are_clamped_by_little_and_refused_beyond() -> None:
    assert fit_events((Event("x", 0.0, 2.04),), 2.0) == (Event("x", 0.0, 2.0),)
    for event in (Event("x", 0.0, 2.06), Event("x", 2.01, 2.02)):
        with pytest.raises(RecordError, match=r"outside its clip of 2\.000 s"):
            fit_events((event,), 2.0)


def test_an_event_has_times_or_has_none_and_says_how_sure_it_is() -> None:
    given = [
        {"phrase": "rain", "onset": 0.5, "offset": 1, "label": "/m/06mb1", "confidence": 0.3},
        {"phrase": "wind"},
        {"phrase": "wind", "onset": 0, "offset": 1},
        {"phrase": "hail", "onset": 0, "offset": 1, "confidence": 0},
        {"phrase": "hail", "confidence": 0},
    ]
    record, notes = parse_record({**GOOD, "events": given, "vocabulary": "weather"})
    assert record.events is not None and not notes and record.vocabulary == "weather"
    kinds = [(event.span is not None, event.is_weak, event.is_absent, event.is_soft) for event in record.events]
    strong, weak, absent = (True, False, False), (False, True, False), (False, False, True)
    assert kinds == [(*strong, True), (*weak, False), (*strong, False), (*strong, False), (*absent, False)]
    assert record.events[0] == Event("rain", 0.5, 1.0, "/m/06mb1", 0.3)
    assert fit_events(record.events, 5.0) == record.events
    for onset, offset, confidence in ((1.0, None, 1.0), (None, 1.0, 1.0), (0.0, 1.0, float("nan")), (None, None, -0.1)):
        with pytest.raises(RecordError, match="event 'x'"):
            Event("x", onset, offset, confidence=confidence)
