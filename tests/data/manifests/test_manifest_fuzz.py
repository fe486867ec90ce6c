"""Whatever a line of a manifest or of clips.jsonl holds: it gives a clip or a record, or a RecordError, and never another exception."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from peav.data.manifests.clip import CUSTOM_FIELDS, CUT_FIELDS, Clip, clip_from_json, clip_from_line
from peav.data.manifests.fields import RecordError
from peav.data.manifests.identities import bytes_group
from peav.data.manifests.records import RECORD_FIELDS, SPLITS, Event, Record, parse_line, parse_record
from peav.data.manifests.texts import Caption

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])

#: What JSON can hold that Python's `json` reads: NaN, infinities and half surrogate pairs as well.
TEXTS = st.text(st.characters(), max_size=12) | st.sampled_from(
    [
        "",
        " ",
        "train",
        "a",
        "\ud800",
        "\0",
        "real",
        "MonoCut",
        "shards/train",
        "../x",
        "/x",
        "text",
        "audio",
        "start",
        "id",
    ]
)
NUMBERS = (
    st.integers(-(10**20), 10**20)
    | st.floats()
    | st.sampled_from([0, -1, 1, 0.5, 2**63, 2**63 - 1, 10**400, -(10**400), math.nan, math.inf, -math.inf, -0.0, 4e9])
)
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS
KEYS = TEXTS | st.sampled_from(
    [
        *CUSTOM_FIELDS,
        *CUT_FIELDS,
        *RECORD_FIELDS,
        "text",
        "origin",
        "end",
        "phrase",
        "onset",
        "offset",
        "label",
        "confidence",
        "weak",
        "audio_video",
    ]
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12
)

CLIP = Clip(
    "a",
    2.0,
    start=1.0,
    captions={"audio": (Caption("rain"), Caption("wind", "synthetic", 0.5, 1.0))},
    transcript="la",
    segments=(Caption("la", "real", 0.25, 1.0),),
    events=(
        Event("rain", 0.25, 1.5, "/m/06mb1", 0.75),
        Event("wind", label="/m/03m9d0z"),
        Event("thunder", confidence=0.0),
    ),
    vocabulary="weather",
    domain="music",
    licence="CC0",
    dataset="X",
    has_audio=True,
    has_video=True,
    files={"media": "a.mp4"},
    origins={"media": 0.5},
    video={"num_frames": 24, "fps": 12.0, "size": [48, 64]},
    store="shards/train",
    row=3,
    crc32=7,
    media_start=0.5,
    media_duration=4.0,
    audio_group=bytes_group(b"x"),
    video_group=bytes_group(b"y"),
    recording={"id": "a.mp4", "sources": []},
    extra={"mine": [1], "packed_id": "b"},
)
RECORD = {
    "id": "a",
    "media": "a.mp4",
    "start": 1.0,
    "duration": 2.0,
    "captions": {"audio": ["rain", {"text": "wind", "origin": "synthetic", "start": 0.5, "end": 1.0}]},
    "transcript": [{"text": "la", "start": 0.0, "end": 1.0}],
    "domain": "music",
    "events": [
        {"phrase": "rain", "onset": 0.25, "offset": 1.5, "label": "/m/06mb1", "confidence": 0.75},
        {"phrase": "wind", "confidence": 0},
    ],
    "vocabulary": "weather",
    "split": "test",
    "licence": "CC0",
    "dataset": "X",
}


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places in a JSON value."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [inner for key, item in items for inner in paths(item, (*path, key))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


def check_clip(line: bytes) -> Clip | None:
    try:
        clip = clip_from_line(line)
    except RecordError as error:
        assert str(error)
        str(error).encode()  # printed, and written to files
        return None
    assert 0 < clip.duration <= 4e9 and clip.start >= 0 and clip.id.strip() and clip.split in SPLITS
    spans = [event.span for event in clip.events or () if event.span is not None]
    assert all(0 <= onset < offset <= clip.duration for onset, offset in spans)
    assert all(caption.text.strip() for captions in clip.captions.values() for caption in captions)
    assert all(captions for captions in clip.captions.values())
    # Whatever reads a clip must be able to.
    assert (
        isinstance(clip.is_part, bool)
        and clip.packed_id
        and clip.group("audio") >= -1
        and isinstance(clip.origin("video"), float)
    )
    written = clip.to_line()
    again = clip_from_line(written.encode())
    assert again.to_line() == written
    assert repr(again) == repr(clip)  # NaN in a field of others is not equal to itself
    return clip


def test_the_line_that_is_fuzzed_is_a_clip() -> None:
    assert check_clip(CLIP.to_line().encode()) == CLIP
    assert isinstance(parse_record(RECORD)[0], Record)


@FUZZ
@given(path=st.sampled_from(paths(CLIP.to_json())), value=JSON)
@example(path=("custom", "files"), value={"media": "\ud800"})
@example(path=("custom", "files"), value={"\ud800": "a.mp4"})
@example(path=("custom", "origins"), value={"\ud800": 0.0})
@example(path=("custom", "video"), value={"size": "\ud800"})
@example(path=("custom", "video"), value={"size": math.nan})
@example(path=("custom", "mine"), value="\ud800")
@example(path=("custom", "packed_id"), value=3)
@example(path=("custom", "packed_id"), value=None)
@example(path=("recording",), value={})
@example(path=("recording", "id"), value="\ud800")
@example(path=("type",), value=[])
@example(path=("custom", "captions"), value={"audio": {"text": "a", "start": 10**400, "end": 1}})
def test_any_value_in_any_field_of_a_cut(path: tuple[Any, ...], value: Any) -> None:
    check_clip(json.dumps(replaced(CLIP.to_json(), path, value)).encode())


@FUZZ
@given(fields=st.dictionaries(st.sampled_from(CUT_FIELDS), JSON), custom=st.dictionaries(KEYS, JSON, max_size=8))
def test_several_fields_of_a_cut_at_once(fields: dict[str, Any], custom: dict[str, Any]) -> None:
    whole = CLIP.to_json()
    check_clip(json.dumps({**whole, "custom": {**whole["custom"], **custom}, **fields}).encode())


@FUZZ
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"")
@example(b"\xff\xfe")
@example(b"[" * 100_000)
@example(b'{"id": ' + b"1" * 10_000 + b"}")
@example(b'\xef\xbb\xbf{"id": "a"}')
def test_any_bytes(line: bytes) -> None:
    check_clip(line)


@FUZZ
@given(place=st.integers(0, 2000), byte=st.integers(0, 255), whether=st.sampled_from(["replace", "delete", "insert"]))
def test_a_line_with_one_wrong_byte(place: int, byte: int, whether: str) -> None:
    line = bytearray(CLIP.to_line().encode())
    place %= len(line)
    line[place : place + (whether != "insert")] = b"" if whether == "delete" else bytes([byte])
    check_clip(bytes(line))


def check_record(data: dict[str, Any]) -> None:
    try:
        record, notes = parse_record(data)
    except RecordError as error:
        str(error).encode()
        return
    json.dumps(notes, ensure_ascii=False).encode()
    assert record.id.strip() and record.files and record.split in SPLITS
    assert record.duration is None or 0 < record.duration <= 4e9
    assert all(0 <= event.confidence <= 1 for event in record.events or ())
    spans = [event.span for event in record.events or () if event.span is not None]
    assert all(0 <= onset < offset for onset, offset in spans)
    assert all(segment.text.strip() for segment in record.transcript)
    for captions in record.captions.values():
        assert captions and all(caption.text.strip() for caption in captions)
        for caption in captions:
            assert (caption.start is None) == (caption.end is None)
            json.dumps(caption.to_json(), ensure_ascii=False).encode()


@FUZZ
@given(path=st.sampled_from(paths(RECORD)[1:]), value=JSON)
@example(path=("captions",), value={"audio": ["\ud800"]})
@example(path=("transcript",), value=["a", "b"])
@example(path=("media",), value="\ud800")
@example(path=("media",), value="a\0b")
@example(path=("events",), value=[{"phrase": "x", "onset": -0.01, "offset": 0}])
def test_any_value_in_any_field_of_a_record(path: tuple[Any, ...], value: Any) -> None:
    check_record(replaced(RECORD, path, value))


@FUZZ
@given(st.dictionaries(KEYS, JSON, max_size=8))
def test_any_object_as_a_record(data: dict[str, Any]) -> None:
    check_record({**RECORD, **data})


def test_a_renamed_clip_is_no_part_and_its_media_are_those_of_before() -> None:
    clip = Clip("x/a", 2.0, media_duration=2.0, audio_group=5, extra={"packed_id": "a"})
    assert clip.packed_id == "a" and not clip.is_part and clip.group("audio") == 5
    whole = Clip("a", 2.0, media_duration=2.0, audio_group=5)
    assert whole.packed_id == "a" and not whole.is_part and whole.group("audio") == 5
    part = Clip("a", 1.0, media_duration=2.0, audio_group=5)
    assert part.is_part and part.group("audio") != 5


@pytest.mark.parametrize("line", [b"null", b"[]", b"1", b'"a"', b"{", b"\xff", b"NaN"])
def test_a_line_that_is_no_object_is_refused(line: bytes) -> None:
    for read in (clip_from_line, parse_line):
        with pytest.raises(RecordError):
            read(line)


def test_a_cut_without_custom_fields_is_refused() -> None:
    for name in ("custom", "id", "duration"):
        with pytest.raises(RecordError, match=name):
            clip_from_json({key: value for key, value in CLIP.to_json().items() if key != name})
