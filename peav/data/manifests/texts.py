"""Captions and transcripts: a text, who wrote it, and which part of the recording it is about."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from peav.data.manifests.fields import RecordError, check_names, check_unicode, hint, read_number, read_text
from peav.fields import check_caption_type, misspelt_caption_type
from peav.types import CAPTION_TYPES, Seconds

#: Who wrote a caption: people, or a model.
CAPTION_ORIGINS = ("real", "synthetic")

#: The caption type that names the classes of a clip, in the words of its data set: several texts where it belongs to several.
CLASS = "class"

#: A character as HTML writes it: by name or number, ended by a semicolon. (`&copy` alone is too often no entity.)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")

#: The fields of a caption that is more than its text.
CAPTION_FIELDS = ("text", "origin", "start", "end")

#: The fields of a segment of a transcript.
SEGMENT_FIELDS = ("text", "start", "end")


@dataclass(frozen=True)
class Caption:
    """A text about a clip.

    Attributes:
        text: what it says.
        origin: `real`, written by people, or `synthetic`, written by a model.
        start: second of the clip at which what it describes begins; None when it is about the whole clip.
        end: second at which that ends.
    """

    text: str
    origin: str = "real"
    start: Seconds | None = None
    end: Seconds | None = None

    def to_json(self) -> str | dict[str, Any]:
        """Returns the text alone where that says everything, else an object.

        >>> Caption("rain").to_json(), Caption("rain", "synthetic").to_json()
        ('rain', {'text': 'rain', 'origin': 'synthetic'})
        """
        if self.start is None and self.origin == "real":
            return self.text
        data: dict[str, Any] = {"text": self.text}
        if self.origin != "real":
            data["origin"] = self.origin
        if self.start is not None:
            data |= {"start": self.start, "end": self.end}
        return data


def parse_captions(value: Any, max_words: int, notes: list[str]) -> dict[str, tuple[Caption, ...]]:
    """Reads captions by type; empty and endless ones are dropped, and noted. So is a type that is almost called as one of PE-AV's.

    Args:
        value: `{type: text | {"text", "origin", "start", "end"} | list of these}`; a type is `audio`, `video`, `audio_video`, or any
            other word of letters, digits and underscores.
        max_words: longer captions are dropped.
        notes: gets a sentence for each caption that was dropped.

    Raises:
        RecordError: if it is anything else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RecordError(
            f"'captions' must map {', '.join(CAPTION_TYPES)}, or types of your own, to texts, got {value!r}"
        )
    captions: dict[str, tuple[Caption, ...]] = {}
    for kind, items in value.items():
        parse_caption_type(kind)
        if (meant := misspelt_caption_type(kind)) is not None:
            notes.append(f"captions of type {kind!r} are of a type of their own: did you mean {meant!r}?")
        items = [] if items is None else items if isinstance(items, list) else [items]
        kept = []
        for item in items:
            caption = _parse_caption(item, kind)
            if not caption.text.strip():
                notes.append(f"empty caption of type {kind!r} dropped")
            elif (words := len(caption.text.split())) > max_words:
                notes.append(
                    f"caption of type {kind!r} dropped: {words:,} words, more than max_caption_words={max_words}"
                )
            else:
                kept.append(caption)
        if kept:
            captions[kind] = tuple(kept)
    return captions


def decode_entities(text: str) -> str:
    r"""Returns a text with the characters that HTML entities stand for, once, and only those that a semicolon ends.

    >>> decode_entities("Tom &amp; Jerry&#39;s &quot;show&quot;, R&B, a &copy b, &amp;lt;")
    'Tom & Jerry\'s "show", R&B, a &copy b, &lt;'
    """
    return _ENTITY.sub(lambda found: html.unescape(found[0]), text) if "&" in text else text


def clean_captions(items: Iterable[Caption], what: str, notes: list[str]) -> tuple[Caption, ...]:
    """Returns captions with their HTML entities decoded; where that changed one, it is noted.

    Args:
        items: as a record has them.
        what: how notes call one.
        notes: gets a sentence for each that was changed.
    """
    cleaned = []
    for item in items:
        text = decode_entities(item.text)
        if text != item.text:
            notes.append(f"HTML entities of {what} decoded: {item.text[:80]!r}")
        cleaned.append(item if text == item.text else replace(item, text=text))
    return tuple(cleaned)


def parse_caption_type(kind: str) -> str:
    """Returns a caption type.

    Raises:
        RecordError: if captions cannot be of a type of that name.
    """
    try:
        return check_caption_type(kind)
    except ValueError as error:
        raise RecordError(str(error)) from None


def caption_column(name: str) -> str | None:
    """Returns the caption type of a column, or field, that is called `captions.TYPE`; None of any other.

    Raises:
        RecordError: if captions cannot be of a type of that name.

    >>> caption_column("captions.title"), caption_column("title")
    ('title', None)
    """
    kind = name.removeprefix("captions.")
    return None if kind == name else parse_caption_type(kind)


def missing_media(kind: str, has_audio: bool, has_video: bool) -> list[str]:
    """Returns what captions of a type describe and their clip has not; of a type that is none of PE-AV's nobody knows.

    >>> missing_media("audio_video", True, False), missing_media("title", True, False)
    (['video'], [])
    """
    there = {"audio": has_audio, "video": has_video}
    return [medium for medium in kind.split("_") if not there[medium]] if kind in CAPTION_TYPES else []


def parse_transcript(value: Any, notes: list[str]) -> tuple[Caption, ...]:
    """Reads a transcript: a string, or a list of {"text", "start", "end"}.

    Raises:
        RecordError: if it is anything else.
    """
    if value is None:
        return ()
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str if items is not value else dict) for item in items):
        raise RecordError(f"'transcript' must be a string or a list of objects with text, start and end, got {value!r}")
    segments = []
    for item in items:
        if isinstance(item, str):
            check_unicode(item, "transcript")
            segment = Caption(item)
        else:
            check_names(item, SEGMENT_FIELDS, "transcript field")
            segment = _parse_object(item, "a segment of the transcript", "real")
            if segment.start is None:
                raise RecordError(f"a segment of the transcript needs 'start' and 'end', got {item!r}")
        if segment.text.strip():
            segments.append(segment)
        else:
            notes.append("empty transcript dropped")
    return tuple(segments)


def join_segments(segments: Iterable[Caption]) -> str | None:
    """Returns all that is said as one text, None where nothing is.

    >>> join_segments([Caption("good ", "real", 0.0, 1.0), Caption("morning", "real", 1.0, 2.0)])
    'good morning'
    """
    return " ".join(segment.text.strip() for segment in segments) or None


def during(items: Iterable[Caption], begin: Seconds, end: Seconds, untimed: bool = True) -> tuple[Caption, ...]:
    """Returns the captions of a part of a clip, with times that count from the start of the part.

    One that has times belongs to the part if at least half of it lies there, or it covers at least half of the part.

    Args:
        items: of the clip.
        begin: of the part, seconds of the clip.
        end: likewise.
        untimed: whether captions without times belong to it.

    >>> during([Caption("rain", "real", 1.0, 4.0), Caption("wind", "real", 0.0, 2.0)], 1.5, 5.0)
    (Caption(text='rain', origin='real', start=0.0, end=2.5),)
    """
    kept = []
    for item in items:
        if item.start is None or item.end is None:
            if untimed:
                kept.append(item)
            continue
        start, stop = max(item.start, begin), min(item.end, end)
        if stop - start >= min(item.end - item.start, end - begin) / 2:
            kept.append(replace(item, start=start - begin, end=stop - begin))
    return tuple(kept)


def fit_captions(
    items: Iterable[Caption], duration: Seconds, tolerance: Seconds, what: str, notes: list[str]
) -> tuple[Caption, ...]:
    """Ends captions where their clip ends, and drops those that begin after it; both are noted.

    Args:
        items: of a clip.
        duration: of the clip, seconds.
        tolerance: an end beyond that of the clip by no more than this is not worth a note, seconds.
        what: how notes call one.
        notes: gets the sentences.
    """
    kept = []
    for item in items:
        if item.start is None or item.end is None or item.end <= duration:
            kept.append(item)
            continue
        place = f"{what} at {item.start:g} to {item.end:g} s"
        if item.start >= duration:
            notes.append(f"{place} dropped: its clip has {duration:.3f} s")
            continue
        if item.end > duration + tolerance:
            notes.append(f"{place} ends with its clip of {duration:.3f} s")
        kept.append(replace(item, end=duration))
    return tuple(kept)


def texts_of(captions: Mapping[str, Iterable[Caption]]) -> dict[str, tuple[str, ...]]:
    """Returns the bare texts by caption type."""
    return {kind: tuple(caption.text for caption in items) for kind, items in captions.items()}


def _parse_caption(item: Any, kind: str) -> Caption:
    if isinstance(item, str):
        check_unicode(item, f"captions.{kind}")
        return Caption(item)
    if not isinstance(item, dict):
        raise RecordError(
            f"captions of type {kind!r} must be strings, or objects with {', '.join(CAPTION_FIELDS)}, got {item!r}"
        )
    check_names(item, CAPTION_FIELDS, "caption field")
    origin = read_text(item, "origin") or "real"
    if origin not in CAPTION_ORIGINS:
        raise RecordError(
            f"the origin of a caption must be one of {', '.join(CAPTION_ORIGINS)}, got {origin!r}{hint(origin, CAPTION_ORIGINS)}"
        )
    return _parse_object(item, f"a caption of type {kind!r}", origin)


def _parse_object(item: Mapping[str, Any], what: str, origin: str) -> Caption:
    text = read_text(item, "text")
    if text is None:
        raise RecordError(f"{what} needs a 'text', got {item!r}")
    start, end = read_number(item, "start"), read_number(item, "end")
    if (start is None) != (end is None):
        raise RecordError(f"{what} has either 'start' and 'end' or neither, got {item!r}")
    if start is not None and end is not None and start >= end:
        raise RecordError(f"{what} ends at {end:g} s, not after it begins at {start:g} s")
    return Caption(text, origin, start, end)
