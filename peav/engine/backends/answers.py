"""Reading what models answer: the text out of its wrapping, and captions by type out of something like JSON."""

from __future__ import annotations

import json
import re
from typing import Any

from peav.types import CAPTION_TYPES

_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```(?:json|text)?\s*(.*?)```", re.DOTALL)
_PAIR = re.compile(r"[\"']?([\w -]+?)[\"']?\s*:\s*\"((?:[^\"\\]|\\.)*)\"")


def plain_text(text: str) -> str:
    r"""Returns an answer without thoughts, fences, quotes around it, and line breaks.

    >>> plain_text('<think>hm</think>\n"A dog barks."\n')
    'A dog barks.'
    """
    text = _THOUGHT.sub("", text).strip()
    if fenced := _FENCE.fullmatch(text):
        text = fenced[1].strip()
    text = " ".join(text.split())
    if len(text) > 1 and (text[0], text[-1]) in (('"', '"'), ("'", "'"), ("“", "”")):
        text = text[1:-1].strip()
    return text


def read_captions(text: str) -> dict[str, str]:
    r"""Returns the captions by type that an answer holds, however it wraps them; {} where there are none.

    >>> read_captions('Sure! ```json\n{"Audio Caption": "rain", "video": "a street",}\n``` Anything else?')
    {'audio': 'rain', 'video': 'a street'}
    """
    text = _THOUGHT.sub("", text)
    for piece in [*_FENCE.findall(text), *_objects(text), text]:
        for candidate in (piece, re.sub(r",\s*([}\]])", r"\1", piece)):
            try:
                data = json.loads(candidate)
            except (ValueError, RecursionError):
                continue
            if isinstance(data, dict) and (found := _by_type(data)):
                return found
    pairs = {key: _unescape(value) for key, value in _PAIR.findall(text)}
    return _by_type(pairs)


def _objects(text: str) -> list[str]:
    start, end = text.find("{"), text.rfind("}")
    return [text[start : end + 1]] if 0 <= start < end else []


def _unescape(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


def _by_type(data: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in data.items():
        kind = _type_of(str(key))
        if kind is not None and isinstance(value, str) and value.strip() and kind not in found:
            found[kind] = " ".join(value.split())
    return {kind: found[kind] for kind in CAPTION_TYPES if kind in found}


def _type_of(key: str) -> str | None:
    key = re.sub(r"[\W_]+", " ", key.lower()).replace("caption", "").replace("visual", "video").strip()
    key = " ".join(key.split())
    return {"audio": "audio", "video": "video", "audio video": "audio_video", "audiovideo": "audio_video"}.get(key)
