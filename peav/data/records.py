"""Reading clips.jsonl: one JSON object a line, one clip an object.

    {"id": "street-1", "media": "street.mp4", "start": 2.0, "duration": 5.0,
     "captions": {"audio": "a dog barks", "video": ["a dog", "a brown dog"]},
     "events": [{"phrase": "dog barking", "onset": 0.4, "offset": 1.1}], "split": "train"}

`media` is one file that may hold both sound and picture; `audio` and `video` are separate files. `start` and `duration` cut a
span out of them; the times of events count from the start of the clip. `events: []` says that the clip was annotated and nothing
was heard; without `events` it is unknown.
"""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peav.types import CAPTION_TYPES, Seconds

#: The fields of a record; anything else is an error.
RECORD_FIELDS = (
    "id",
    "media",
    "audio",
    "video",
    "start",
    "duration",
    "captions",
    "transcript",
    "domain",
    "events",
    "split",
)

#: The fields of an event.
EVENT_FIELDS = ("phrase", "onset", "offset")

#: The splits that a clip may belong to.
SPLITS = ("train", "validation", "test")

#: How far an event may reach over the edge of its clip and still be clamped, in seconds.
EVENT_TOLERANCE_SECONDS = 0.05


class RecordError(ValueError):
    """A record, or an event in it, that cannot be used. The message names the value and the fix."""


@dataclass(frozen=True)
class Event:
    """A sound event: what is heard, and when, in seconds from the start of the clip."""

    phrase: str
    onset: Seconds
    offset: Seconds


@dataclass(frozen=True)
class Record:
    """One clip as its author described it.

    Attributes:
        id: unique name.
        line: line in the JSONL file, from 1.
        media: path of one file with sound, picture or both, relative to the root.
        audio: path of a separate audio file.
        video: path of a separate video file.
        start: where the clip begins in its files, seconds.
        duration: length of the clip in seconds; None means to the end of the files.
        captions: texts by caption type, only types that have one.
        transcript: what is said, or None.
        domain: free label, such as "speech" or "music"; "" when not given.
        events: annotated events; None when the clip was not annotated.
        split: `train`, `validation` or `test`.
    """

    id: str
    line: int = 0
    media: str | None = None
    audio: str | None = None
    video: str | None = None
    start: Seconds = 0.0
    duration: Seconds | None = None
    captions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    transcript: str | None = None
    domain: str = ""
    events: tuple[Event, ...] | None = None
    split: str = "train"

    @property
    def files(self) -> dict[str, str]:
        """Paths by role: `media`, `audio`, `video`."""
        return {role: path for role in ("media", "audio", "video") if (path := getattr(self, role)) is not None}


@dataclass(frozen=True)
class Reject:
    """A clip that was left out: its id, the file at fault, the line of its record, and why."""

    id: str | None
    file: str | None
    line: int
    reason: str


@dataclass(frozen=True)
class Note:
    """A clip that was kept, but not as its record had it."""

    id: str
    line: int
    note: str


@dataclass(frozen=True)
class RecordFile:
    """What a JSONL file held."""

    records: list[Record]
    rejects: list[Reject]
    notes: list[Note]


def read_records(path: str | Path, strict: bool = False, max_caption_words: int = 1000) -> RecordFile:
    """Reads a JSONL file of clips. Lines that cannot be used become rejects, and reading goes on.

    Args:
        path: the JSONL file; empty lines are skipped.
        strict: raise on the first bad line instead.
        max_caption_words: captions with more words are dropped, and noted.

    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if `strict` and a line is bad.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: it should hold one JSON object a clip (see peav.data.records)")
    records: list[Record] = []
    rejects: list[Reject] = []
    notes: list[Note] = []
    lines_by_id: dict[str, int] = {}
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            clip_id: str | None = None
            try:
                data = _parse_line(line)
                clip_id = _clip_id(data)
                if clip_id in lines_by_id:
                    raise RecordError(
                        f"duplicate id {clip_id!r}: line {lines_by_id[clip_id]} has it already; ids must be unique"
                    )
                lines_by_id[clip_id] = number
                record, dropped = parse_record(data, number, max_caption_words)
            except RecordError as error:
                if strict:
                    raise RecordError(f"{path}, line {number}: {error}") from None
                rejects.append(Reject(clip_id, None, number, str(error)))
                continue
            records.append(record)
            notes.extend(Note(record.id, number, note) for note in dropped)
    return RecordFile(records, rejects, notes)


def _parse_line(line: bytes) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise RecordError(f"a record is a JSON object, this line holds a {type(data).__name__}")
    return data


def _clip_id(data: Mapping[str, Any]) -> str:
    clip_id = data.get("id")
    if clip_id is None:
        raise RecordError("the record has no 'id'; give each clip a unique name")
    if not isinstance(clip_id, str) or not clip_id.strip():
        raise RecordError(f"'id' must be a string that is not empty, got {clip_id!r}")
    return clip_id


def parse_record(data: Mapping[str, Any], line: int = 0, max_caption_words: int = 1000) -> tuple[Record, list[str]]:
    """Turns a JSON object into a record, and notes on what was dropped from it.

    Raises:
        RecordError: if a field is unknown, of the wrong type or out of range.

    >>> record, notes = parse_record({"id": "a", "audio": "a.wav", "captions": {"audio": ["rain", " "]}})
    >>> record.captions, notes
    ({'audio': ('rain',)}, ["empty caption of type 'audio' dropped"])
    >>> parse_record({"id": "a", "audio": "a.wav", "domian": "music"})
    Traceback (most recent call last):
    peav.data.records.RecordError: unknown field 'domian': did you mean 'domain'? The fields are id, media, audio, video, start, \
duration, captions, transcript, domain, events, split
    """
    _check_names(data, RECORD_FIELDS, "field")
    notes: list[str] = []
    files = {role: _path(data, role) for role in ("media", "audio", "video")}
    if not any(files.values()):
        raise RecordError("the record names no file: give 'media', or 'audio' and/or 'video'")
    if files["media"] and (files["audio"] or files["video"]):
        raise RecordError("give either 'media' (one file for both) or 'audio' and/or 'video', not both")
    duration = _number(data, "duration")
    if duration == 0:
        raise RecordError("'duration' must be above 0 seconds, got 0")
    split = _text(data, "split") or "train"
    if split not in SPLITS:
        raise RecordError(f"'split' must be one of {', '.join(SPLITS)}, got {split!r}{_hint(split, SPLITS)}")
    transcript = _text(data, "transcript")
    if transcript is not None and not transcript.strip():
        notes.append("empty transcript dropped")
        transcript = None
    record = Record(
        id=_clip_id(data),
        line=line,
        start=_number(data, "start") or 0.0,
        duration=duration,
        captions=_captions(data.get("captions"), max_caption_words, notes),
        transcript=transcript,
        domain=_text(data, "domain") or "",
        events=_events(data.get("events")),
        split=split,
        **files,
    )
    return record, notes


def fit_events(events: tuple[Event, ...], duration: Seconds) -> tuple[Event, ...]:
    """Clamps events into a clip of `duration` seconds.

    Raises:
        RecordError: if an event reaches out of the clip by more than `EVENT_TOLERANCE_SECONDS`.

    >>> fit_events((Event("rain", 0.0, 5.02),), 5.0)
    (Event(phrase='rain', onset=0.0, offset=5.0),)
    """
    fitted = []
    for event in events:
        if event.offset > duration + EVENT_TOLERANCE_SECONDS or event.onset >= duration:
            raise RecordError(
                f"event {event.phrase!r} at {event.onset:g} to {event.offset:g} s lies outside its clip of {duration:.3f} s; "
                "event times count from the start of the clip"
            )
        fitted.append(Event(event.phrase, event.onset, min(event.offset, duration)))
    return tuple(fitted)


def _check_names(data: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for name in data:
        if name not in known:
            raise RecordError(f"unknown {what} {name!r}{_hint(name, known)} The {what}s are {', '.join(known)}")


def _hint(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {close[0]!r}?" if close else "."


def _text(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise RecordError(f"{name!r} must be a string, got {value!r}")
    return value


def _number(data: Mapping[str, Any], name: str, minimum: float = 0.0) -> float | None:
    value = data.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(f"{name!r} must be a number of seconds, got {value!r}")
    if not math.isfinite(value) or value < minimum:
        raise RecordError(f"{name!r} must be a finite number of seconds, at least {minimum:g}, got {value!r}")
    return float(value)


def _path(data: Mapping[str, Any], name: str) -> str | None:
    value = _text(data, name)
    if value is None:
        return None
    # Lexically: a folder of media may well be a symbolic link to another disk.
    normal = os.path.normpath(value)
    if not value.strip() or normal == "." or os.path.isabs(normal) or normal.split(os.sep)[0] == "..":
        raise RecordError(f"{name!r} must be a path inside the source folder and relative to it, got {value!r}")
    return normal


def _captions(value: Any, max_words: int, notes: list[str]) -> dict[str, tuple[str, ...]]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RecordError(f"'captions' must map {', '.join(CAPTION_TYPES)} to texts, got {value!r}")
    _check_names(value, CAPTION_TYPES, "caption type")
    captions: dict[str, tuple[str, ...]] = {}
    for kind, texts in value.items():
        texts = [] if texts is None else [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise RecordError(f"captions of type {kind!r} must be a string or a list of strings, got {texts!r}")
        kept = []
        for text in texts:
            if not text.strip():
                notes.append(f"empty caption of type {kind!r} dropped")
            elif (words := len(text.split())) > max_words:
                notes.append(
                    f"caption of type {kind!r} dropped: {words:,} words, more than max_caption_words={max_words}"
                )
            else:
                kept.append(text)
        if kept:
            captions[kind] = tuple(kept)
    return captions


def _events(value: Any) -> tuple[Event, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RecordError(f"'events' must be a list of objects with {', '.join(EVENT_FIELDS)}, got {value!r}")
    events = []
    for item in value:
        _check_names(item, EVENT_FIELDS, "event field")
        phrase = _text(item, "phrase")
        if phrase is None or not phrase.strip():
            raise RecordError(f"an event needs a 'phrase' that is not empty, got {item!r}")
        onset = _number(item, "onset", minimum=-EVENT_TOLERANCE_SECONDS)
        offset = _number(item, "offset")
        if onset is None or offset is None:
            raise RecordError(f"an event needs 'onset' and 'offset', got {item!r}")
        onset = max(onset, 0.0)
        if onset >= offset:
            raise RecordError(f"event {phrase!r} ends at {offset:g} s, not after it begins at {onset:g} s")
        events.append(Event(phrase, onset, offset))
    return tuple(events)
