"""Reading clips.jsonl: one JSON object a line, one clip an object.

    {"id": "street-1", "media": "street.mp4", "start": 2.0, "duration": 5.0,
     "captions": {"audio": "a dog barks", "video": ["a dog", {"text": "a brown dog", "origin": "synthetic"}]},
     "events": [{"phrase": "dog barking", "onset": 0.4, "offset": 1.1}], "split": "train"}

`media` is one file that may hold both sound and picture; `audio` and `video` are separate files. `start` and `duration` cut a
span out of them; the times of events and captions count from the start of the clip. `events: []` says that the clip was annotated
and nothing was heard; without `events` it is unknown. An event without times is heard somewhere in the clip (a weak label), or, with
confidence 0, is not heard in it. `vocabulary` names what was listened for (`peav.data.manifests.labels`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peav.data.manifests.fields import RecordError, check_names, hint, read_number, read_path, read_share, read_text
from peav.data.manifests.identities import normalize_text
from peav.data.manifests.taken_ids import TakenIds
from peav.data.manifests.texts import Caption, clean_captions, decode_entities, parse_captions, parse_transcript
from peav.fields import fields as own_fields
from peav.opening import MAX_LINE_BYTES, lines_of
from peav.types import Seconds

#: The fields of a record; anything else is an error, or a field of the user's own kind (`peav.fields`).
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
    "vocabulary",
    "split",
    "licence",
    "dataset",
)

#: The fields of an event.
EVENT_FIELDS = ("phrase", "onset", "offset", "label", "confidence")

#: The vocabulary of a clip of which nothing but its own events is known.
OPEN = "open"

#: The splits that a clip may belong to.
SPLITS = ("train", "validation", "test")

#: Other words for them.
SPLIT_WORDS = {
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "dev": "validation",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}

#: How far an event may reach over the edge of its clip and still be clamped, in seconds.
EVENT_TOLERANCE_SECONDS = 0.05


@dataclass(frozen=True)
class Event:
    """A sound event: what is heard, and when.

    Attributes:
        phrase: what is heard.
        onset: where it begins, in seconds from the start of the clip; None where nobody knows when it is heard: a weak label.
        offset: where it ends; None where `onset` is.
        label: its id in the ontology of a corpus, such as `/m/0bt9lr`; "" when it has none.
        confidence: how sure it is, from 0 to 1: a soft label. An event without times and with confidence 0 is not in the clip.

    Raises:
        RecordError: if only one of onset and offset is given, or the confidence is out of range.

    >>> Event("rain", 0.5, 2.0).span, Event("rain").span, Event("rain", confidence=0.0).is_absent
    ((0.5, 2.0), None, True)
    """

    phrase: str
    onset: Seconds | None = None
    offset: Seconds | None = None
    label: str = ""
    confidence: float = 1.0

    def __post_init__(self) -> None:
        if (self.onset is None) != (self.offset is None):
            raise RecordError(
                f"event {self.phrase!r} has an onset of {self.onset} and an offset of {self.offset}: give both, or neither where nobody "
                "knows when it is heard"
            )
        if not 0 <= self.confidence <= 1:  # NaN neither
            raise RecordError(
                f"the confidence of event {self.phrase!r} must be a number from 0 to 1, got {self.confidence!r}"
            )

    @property
    def span(self) -> tuple[Seconds, Seconds] | None:
        """Onset and offset; None of an event without times."""
        return None if self.onset is None or self.offset is None else (self.onset, self.offset)

    @property
    def is_absent(self) -> bool:
        """Whether it says that the phrase is not in the clip."""
        return self.onset is None and self.confidence == 0

    @property
    def is_weak(self) -> bool:
        """Whether it says that the phrase is somewhere in the clip."""
        return self.onset is None and self.confidence > 0

    @property
    def is_soft(self) -> bool:
        """Whether its confidence lies between 0 and 1."""
        return 0 < self.confidence < 1


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
        captions: by caption type, only types that have one.
        transcript: what is said, in one piece or in timed segments; empty when not given.
        domain: free label, such as "speech" or "music"; "" when not given.
        events: annotated events; None when the clip was not annotated.
        vocabulary: the closed vocabulary that was annotated (`peav.data.manifests.labels`): its other phrases are absent, and nothing is
            known of any further one. "" says that whatever is not among the events is absent; "open" that nothing else is known.
        split: `train`, `validation` or `test`.
        licence: of the media, free text; "" when not given.
        dataset: where the clip comes from, such as "AudioCaps"; "" when not given.
        notes: what was dropped from it.
        root: folder that its paths start from; None for the source folder.
        temporary: its files were unpacked for this run, and are deleted once they are packed.
        own: fields of the user's own kinds by name, as the record has them.
    """

    id: str
    line: int = 0
    media: str | None = None
    audio: str | None = None
    video: str | None = None
    start: Seconds = 0.0
    duration: Seconds | None = None
    captions: Mapping[str, tuple[Caption, ...]] = field(default_factory=dict)
    transcript: tuple[Caption, ...] = ()
    domain: str = ""
    events: tuple[Event, ...] | None = None
    vocabulary: str = ""
    split: str = "train"
    licence: str = ""
    dataset: str = ""
    notes: tuple[str, ...] = ()
    root: Path | None = None
    temporary: bool = False
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, str]:
        """Paths by role: `media`, `audio`, `video`."""
        return {role: path for role in ("media", "audio", "video") if (path := getattr(self, role)) is not None}


@dataclass(frozen=True)
class Reject:
    """A clip that was left out: its id, the file at fault, the line of its record, why, and whether its file is just not there."""

    id: str | None
    file: str | None
    line: int
    reason: str
    missing: bool = False


@dataclass(frozen=True)
class Note:
    """A clip that was kept, but not as its record had it; without its `lost` medium, `audio` or `video`, where that is not ""."""

    id: str
    line: int
    note: str
    lost: str = ""


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
    records: list[Record] = []
    rejects: list[Reject] = []
    for item in iter_records(path, max_caption_words):
        if isinstance(item, Record):
            records.append(item)
        elif strict:
            raise RecordError(f"{path}, line {item.line}: {item.reason}")
        else:
            rejects.append(item)
    notes = [Note(record.id, record.line, note) for record in records for note in record.notes]
    return RecordFile(records, rejects, notes)


def check_listing(path: Path) -> None:
    """Raises FileNotFoundError where there is no file of records."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {path}: it should hold one JSON object a clip (see peav.data.manifests.records)"
        )


def iter_records(path: str | Path, max_caption_words: int = 1000) -> Iterator[Record | Reject]:
    """Reads a JSONL file of clips a line at a time; a line that cannot be used gives a reject.

    What stays in memory is about 100 bytes an id, to notice duplicates (`TakenIds`).

    Raises:
        FileNotFoundError: if there is no such file.
    """
    path = Path(path)
    check_listing(path)
    taken = TakenIds()
    with path.open("rb") as stream:
        for number, line in enumerate(lines_of(stream), start=1):
            if not line.strip():
                continue
            clip_id: str | None = None
            try:
                data = parse_line(line)
                clip_id = _clip_id(data)
                taken.take(clip_id, number)
                yield parse_record(data, number, max_caption_words)[0]
            except RecordError as error:
                yield Reject(clip_id, None, number, str(error))


def parse_line(line: bytes) -> dict[str, Any]:
    """Returns the JSON object of a line.

    Raises:
        RecordError: if it holds something else, or is too long.
    """
    if len(line) > MAX_LINE_BYTES:
        raise RecordError(f"the line is longer than {MAX_LINE_BYTES:,} bytes, the rest of the file is not read")
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:  # also numbers with thousands of digits
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
    return read_text(data, "id") or ""


def parse_record(data: Mapping[str, Any], line: int = 0, max_caption_words: int = 1000) -> tuple[Record, list[str]]:
    """Turns a JSON object into a record, and notes on what was dropped from it.

    Raises:
        RecordError: if a field is unknown, of the wrong type or out of range.

    >>> record, notes = parse_record({"id": "a", "audio": "a.wav", "captions": {"audio": ["rain", " "]}})
    >>> record.captions, notes
    ({'audio': (Caption(text='rain', origin='real', start=None, end=None),)}, ["empty caption of type 'audio' dropped"])
    >>> parse_record({"id": "a", "audio": "a.wav", "domian": "music"})
    Traceback (most recent call last):
    peav.data.manifests.fields.RecordError: unknown field 'domian': did you mean 'domain'? The fields are id, media, audio, video, start, \
duration, captions, transcript, domain, events, vocabulary, split, licence, dataset
    """
    own = {name: value for name, value in data.items() if name not in RECORD_FIELDS and name in own_fields}
    if any(name not in RECORD_FIELDS and name not in own for name in data):
        check_names(data, (*RECORD_FIELDS, *own_fields), "field")
    notes: list[str] = []
    files = {role: read_path(data, role) for role in ("media", "audio", "video")}
    if not any(files.values()):
        raise RecordError("the record names no file: give 'media', or 'audio' and/or 'video'")
    if files["media"] and (files["audio"] or files["video"]):
        raise RecordError("give either 'media' (one file for both) or 'audio' and/or 'video', not both")
    duration = read_number(data, "duration")
    if duration == 0:
        raise RecordError("'duration' must be above 0 seconds, got 0")
    split = read_text(data, "split") or "train"
    if split not in SPLITS:
        raise RecordError(f"'split' must be one of {', '.join(SPLITS)}, got {split!r}{hint_split(split)}")
    captions = {
        kind: clean_captions(items, f"a caption of type {kind!r}", notes)
        for kind, items in parse_captions(data.get("captions"), max_caption_words, notes).items()
    }
    record = Record(
        id=_clip_id(data),
        line=line,
        start=read_number(data, "start") or 0.0,
        duration=duration,
        captions=captions,
        transcript=clean_captions(parse_transcript(data.get("transcript"), notes), "the transcript", notes),
        domain=read_text(data, "domain") or "",
        events=_clean_events(parse_events(data.get("events"))),
        vocabulary=read_text(data, "vocabulary") or "",
        split=split,
        licence=read_text(data, "licence") or "",
        dataset=read_text(data, "dataset") or "",
        media=files["media"],
        audio=files["audio"],
        video=files["video"],
        own={name: value for name, value in own.items() if value is not None},
    )
    return replace(record, notes=tuple(notes)), notes


def _clean_events(events: tuple[Event, ...] | None) -> tuple[Event, ...] | None:
    return None if events is None else tuple(replace(event, phrase=decode_entities(event.phrase)) for event in events)


def hint_split(word: str) -> str:
    """Returns the end of a sentence about a word that is no split.

    >>> hint_split("val"), hint_split("trian"), hint_split("x")
    (": did you mean 'validation'?", ": did you mean 'train'?", '.')
    """
    meant = SPLIT_WORDS.get(word.lower())
    return f": did you mean {meant!r}?" if meant else hint(word, SPLITS)


def fit_events(events: tuple[Event, ...], duration: Seconds) -> tuple[Event, ...]:
    """Clamps events into a clip of `duration` seconds.

    Raises:
        RecordError: if an event reaches out of the clip by more than `EVENT_TOLERANCE_SECONDS`.

    >>> fit_events((Event("rain", 0.0, 5.02),), 5.0)
    (Event(phrase='rain', onset=0.0, offset=5.0, label='', confidence=1.0),)
    """
    fitted = []
    for event in events:
        if event.span is not None:
            onset, offset = event.span
            if offset > duration + EVENT_TOLERANCE_SECONDS or onset >= duration:
                raise RecordError(
                    f"event {event.phrase!r} at {onset:g} to {offset:g} s lies outside its clip of {duration:.3f} s; event times count "
                    "from the start of the clip"
                )
            event = replace(event, offset=min(offset, duration))
        fitted.append(event)
    return tuple(fitted)


def parse_events(value: Any) -> tuple[Event, ...] | None:
    """Reads events; None when the clip was not annotated.

    Raises:
        RecordError: if one is not an event.
    """
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RecordError(f"'events' must be a list of objects with {', '.join(EVENT_FIELDS)}, got {value!r}")
    events = []
    for item in value:
        check_names(item, EVENT_FIELDS, "event field")
        phrase = read_text(item, "phrase")
        if phrase is None or not phrase.strip():
            raise RecordError(f"an event needs a 'phrase' that is not empty, got {item!r}")
        onset = read_number(item, "onset", minimum=-EVENT_TOLERANCE_SECONDS)
        offset = read_number(item, "offset")
        if onset is not None and offset is not None:
            onset = max(onset, 0.0)
            if onset >= offset:
                raise RecordError(f"event {phrase!r} ends at {offset:g} s, not after it begins at {onset:g} s")
        events.append(Event(phrase, onset, offset, read_text(item, "label") or "", read_share(item, "confidence")))
    check_contradictions(events)
    return tuple(events)


def check_contradictions(events: Iterable[Event]) -> None:
    """Refuses events of which one says that a phrase is not in the clip, and another that it is.

    Raises:
        RecordError: if there are such.
    """
    absent = {normalize_text(event.phrase) for event in events if event.is_absent}
    for event in events if absent else ():
        if event.confidence > 0 and normalize_text(event.phrase) in absent:
            raise RecordError(
                f"event {event.phrase!r} is in the clip by one entry, and by another, without times and with confidence 0, it is not"
            )
