"""The shapes of the columns that the engine itself reads: an answer of another shape is a failure of its clip, not the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_Check = Callable[[Any], bool]


def misshapen(column: str, value: Any) -> str | None:
    """Returns what is wrong with a value of a column; None where it is right, or the engine does not read the column.

    Args:
        column: its name.
        value: of one clip.

    >>> misshapen("texts", "a dog barks")
    "'texts' must be {type of caption: text or list of texts}, got 'a dog barks'"
    >>> misshapen("texts", {"audio": ["a dog barks"]}), misshapen("speech", None), misshapen("mine", 5)
    (None, None, None)
    """
    if value is None or column not in _SHAPES:
        return None
    fits, said = _SHAPES[column]
    return None if fits(value) else f"{column!r} must be {said}, got {value!r:.100}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        _text(given) or (isinstance(given, list | tuple) and all(text is None or _text(text) for text in given))
        for given in value.values()
    )


def _is_event(item: Any) -> bool:
    return (
        isinstance(item, Mapping)
        and _text(item.get("phrase"))
        and _number(item.get("onset"))
        and _number(item.get("offset"))
        and _number(sure := item.get("confidence", 1.0))
        and 0 <= sure <= 1
    )


def _is_segment(item: Any) -> bool:
    return (
        isinstance(item, Mapping)
        and _text(item.get("text"))
        and _number(item.get("start"))
        and _number(item.get("end"))
    )


def _is_speech(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and _text(value.get("text") or "")
        and _list_of(_is_segment)(value.get("segments") or [])
    )


def _list_of(fits: _Check) -> _Check:
    return lambda value: isinstance(value, list | tuple) and all(map(fits, value))


def _with_texts(*names: str) -> _Check:
    return lambda item: isinstance(item, Mapping) and all(_text(item.get(name)) for name in names)


_SHAPES: dict[str, tuple[_Check, str]] = {
    "texts": (_is_texts, "{type of caption: text or list of texts}"),
    "speech": (_is_speech, "{text: ..., segments: [{text, start, end}, ...]}, the segments optional, times in seconds"),
    "domain": (_text, "a text"),
    "events": (
        _list_of(_is_event),
        "a list of {phrase, onset, offset, confidence}, times in seconds, the confidence optional and from 0 to 1",
    ),
    "tags": (_list_of(_with_texts("phrase")), "a list of {phrase: text, ...}"),
    "candidates": (_list_of(_with_texts("kind", "text")), "a list of {kind: type of caption, text: ..., ...}"),
    "verdicts": (
        _list_of(_with_texts("kind", "gate", "reason", "outcome")),
        "a list of {kind, gate, reason, outcome}, all of them texts",
    ),
}
