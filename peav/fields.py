"""What a field of a batch may be called: `audio`, `video`, `events`, and `captions.TYPE` for captions of any type."""

from __future__ import annotations

import difflib
import re

from peav.suggest import suggest
from peav.types import CAPTION_TYPES, MEDIA_FIELDS

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

#: What cannot be a caption type, and why: its embedding would be `text_event` or `text_transcript`.
_TAKEN_TYPES = {
    "event": "'text_event' embeds the phrases of events: give those as 'events'",
    "transcript": "'text_transcript' is what is said: give that as 'transcript'",
}

#: How like a caption type of PE-AV's another one is that is misspelt, most likely.
_MISSPELT = 0.8


def is_name(name: str) -> bool:
    """Returns whether a caption type, or a field of one's own, can be called so.

    >>> is_name("title"), is_name("scene_text"), is_name("2nd"), is_name("my title")
    (True, True, False, False)
    """
    return _NAME.fullmatch(name) is not None


def check_caption_type(kind: str) -> str:
    """Returns a caption type.

    Raises:
        ValueError: if captions cannot be of a type of that name.
    """
    if kind in _TAKEN_TYPES:
        raise ValueError(f"no caption type can be called {kind!r}: {_TAKEN_TYPES[kind]}")
    if not is_name(kind):
        raise ValueError(
            f"a caption type is a word of letters, digits and underscores that begins with a letter, not {kind!r}"
        )
    return kind


def misspelt_caption_type(kind: str) -> str | None:
    """Returns which of PE-AV's caption types is meant by one that is almost called so, None where it has a name of its own.

    >>> misspelt_caption_type("audo"), misspelt_caption_type("audio"), misspelt_caption_type("title")
    ('audio', None, None)
    """
    close = difflib.get_close_matches(kind, CAPTION_TYPES, n=1, cutoff=_MISSPELT)
    return close[0] if close and kind not in CAPTION_TYPES else None


def order_caption_types(kinds: set[str]) -> list[str]:
    """Returns PE-AV's caption types, then the others of `kinds` by name.

    >>> order_caption_types({"video", "title", "ocr"})
    ['audio', 'video', 'audio_video', 'ocr', 'title']
    """
    return [*CAPTION_TYPES, *sorted(kinds - set(CAPTION_TYPES))]


def is_field(name: str) -> bool:
    """Returns whether a batch can have a field of that name.

    >>> is_field("audio"), is_field("captions.title"), is_field("captions.my title"), is_field("depth")
    (True, True, False, False)
    """
    kind = name.removeprefix("captions.")
    return name in MEDIA_FIELDS or (kind != name and kind not in _TAKEN_TYPES and is_name(kind))


def check_field(name: str) -> str:
    """Returns the name of a field of a batch.

    Raises:
        ValueError: if a batch cannot have it; the message lists the choices.
    """
    if not is_field(name):
        raise ValueError(f"no batch field is called {name!r}. {suggest_field(name)}")
    return name


def suggest_field(name: str) -> str:
    """Returns the fields that a batch can have as a sentence, with a "did you mean" when one of them is close."""
    return f"{suggest(name, (*MEDIA_FIELDS, *(f'captions.{kind}' for kind in CAPTION_TYPES))).rstrip('.')} and captions.TYPE of any type."
