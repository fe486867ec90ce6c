"""The fields of a batch: `audio`, `video`, `events`, `captions.TYPE` for captions of any type, and fields of one's own kind.

`captions.transcript` is what is said, which a record gives as `transcript`.

A field of one's own kind is a plugin: a class that says how its value is read from a record, which part of it belongs to a span of
the clip, how it is decoded, and how the decoded values of a batch are joined (docs/field_plugin.md).
"""

from __future__ import annotations

import difflib
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from peav.registry import Registry, init_signature
from peav.suggest import suggest
from peav.types import CAPTION_TYPES, MEDIA_FIELDS, TRANSCRIPT, FieldInput, Seconds

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

#: What cannot be the name of a field of one's own: fields of a record, of a batch, and what their parts are called.
RESERVED_NAMES = frozenset(
    (
        *("audio", "video", "audio_video", "media", "events", "vocabulary", "captions", "transcript", "text"),
        *("id", "ids", "start", "duration", "domain", "split", "licence", "dataset", "extra", "caption"),
        *("features", "files"),
    )
)

#: What a record holds for a field, once it was read: bytes, which go into the shards, or JSON, which goes into the manifest.
Stored = Any

#: What cannot be a caption type, and why: its embedding would be `text_event` or `text_transcript`.
_TAKEN_TYPES = {
    "event": "'text_event' embeds the phrases of events: give those as 'events'",
    TRANSCRIPT: "'text_transcript' is what is said: give that as 'transcript'",
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


def check_text_type(kind: str) -> str:
    """Returns what texts of a batch can be: a caption type, or `transcript`.

    Raises:
        ValueError: if they cannot be of a type of that name.
    """
    return kind if kind == TRANSCRIPT else check_caption_type(kind)


@lru_cache(maxsize=256)  # asked for every caption of every clip that is read
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


class Field(ABC):
    """Base class of fields of one's own kind: depth, IMU, scores, whatever a clip has besides media, texts and events.

    `@register_field` makes the class known by its `name`: a record may then have a field of that name, a batch carries it in `extra`,
    and an encoder reads it by naming it in `provides`. One object serves a whole data set and is sent to worker processes, so it must be
    picklable. Arguments of the constructor have defaults; `data.field_options` sets them for decoding.

    Attributes:
        name: of the field, letters, digits and underscores.
        shape: of one step of a decoded sequence, such as `(6,)`, for the `collate` that is given.
    """

    name: ClassVar[str] = ""
    shape: ClassVar[tuple[int, ...]] = ()

    def __init__(self) -> None:
        """Takes no arguments; a subclass may."""
        super().__init__()

    @abstractmethod
    def read(self, value: Any, folder: Path) -> Stored:
        """Reads the field of a record, when it is packed.

        Args:
            value: what the record has: a path, a number, a list, an object. A cell of a table is a string.
            folder: that the paths of the record start from; `peav.data.find_file` finds a file in it.

        Returns:
            bytes, which are kept in the shards beside the media; or what JSON can hold, at most 64 KB of it, which is kept in the
            manifest and can be edited there. Either is about the whole recording.

        Raises:
            FileNotFoundError: if a file is not there. The clip is left out and counted as missing.
            ValueError: if the value cannot be used: a sentence with the value and the fix. The clip is left out.
        """

    @abstractmethod
    def cut(self, stored: Stored, start: Seconds, duration: Seconds) -> Stored:
        """Returns the part of what :meth:`read` returned that belongs to a span of the recording, of the same form.

        It is asked for when a clip is packed that is a part of its recording, and when one is loaded that is a part of its packed media.
        A field that has no clock, such as a score, returns `stored`.

        Args:
            stored: bytes or JSON.
            start: of the span, from where the media, or what was kept of them, begin.
            duration: of the span.
        """

    @abstractmethod
    def decode(self, stored: Stored, duration: Seconds) -> Any:
        """Decodes what is stored of a clip, when it is loaded; may run in a worker.

        What it raises makes the clip unreadable: in training another one takes its place.

        Args:
            stored: bytes or JSON, cut to the clip.
            duration: of the clip.

        Returns:
            something picklable; a tensor (T, *shape) for the `collate` that is given.
        """

    def collate(self, items: Sequence[Any], present: Tensor, group: Tensor) -> Any:
        """Joins the decoded values of B clips.

        Args:
            items: what :meth:`decode` returned, None for clips without the field.
            present: (B,) bool, which clips have it.
            group: (B,) int64, equal for clips with the same value, -1 for those without.

        Returns:
            a dataclass of tensors of B rows that has `present` and `group`. By default a `FieldInput`: padded sequences of steps of
            `shape`, in the type of the first one.

        Raises:
            ValueError: if a tensor does not have that shape.
        """
        for item in items:
            if item is not None and (not isinstance(item, Tensor) or not item.ndim or item.shape[1:] != self.shape):
                found = tuple(item.shape) if isinstance(item, Tensor) else type(item).__name__
                raise ValueError(
                    f"field {self.name!r}: decode returned {found}, its steps should have the shape {self.shape}: a tensor "
                    "(T, *shape); set `shape`, or write a `collate` of your own"
                )
        there = [item for item in items if item is not None]
        length = max([1, *(len(item) for item in there)])
        dtype = there[0].dtype if there else torch.float32
        values = torch.zeros(len(items), length, *self.shape, dtype=dtype)
        mask = torch.zeros(len(items), length, dtype=torch.bool)
        for row, item in enumerate(items):
            if item is not None:
                values[row, : len(item)], mask[row, : len(item)] = item, True
        return FieldInput(values, mask, present, group)


def _name_of(cls: type[Any]) -> str:
    name = cls.name
    if not isinstance(name, str) or not is_name(name) or name in RESERVED_NAMES:
        raise ValueError(
            f"{cls.__name__}.name must be a word of letters, digits and underscores that is no field of peav's own, got {name!r}"
        )
    for parameter in init_signature(cls).parameters.values():
        named = parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        if named and parameter.default is inspect.Parameter.empty:
            raise TypeError(
                f"{cls.__name__}: the argument {parameter.name!r} needs a default, for `peav prepare` builds the field without arguments"
            )
    return name


#: The fields of one's own kind, by name.
fields: Registry[Any] = Registry("field", Field, _name_of)

register_field = fields.register


def build_fields(names: Iterable[str], options: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Field]:
    """Builds the fields of one's own kind among the names of fields.

    Args:
        names: of fields of any kind.
        options: arguments by name.

    Raises:
        ValueError: if an option is for no field, or one that it does not have.
    """
    made: dict[str, Field] = {}
    for name in options or {}:
        if name not in fields:
            raise ValueError(f"field_options names {name!r}, which is no field of your own. {suggest(name, fields)}")
    for name in sorted(set(names)):
        if name in fields:
            cls, given = fields.get(name), dict((options or {}).get(name, {}))
            known = init_signature(cls).parameters
            for option in given:
                if option not in known:
                    raise ValueError(f"field {name!r} has no option {option!r}. {suggest(option, known)}")
            made[name] = cls(**given)
    return made


def is_field(name: str) -> bool:
    """Returns whether a batch can have a field of that name.

    >>> is_field("audio"), is_field("captions.title"), is_field("captions.my title"), is_field("nothing")
    (True, True, False, False)
    >>> is_field("captions.transcript"), is_field("captions.event")
    (True, False)
    """
    kind = name.removeprefix("captions.")
    if name in MEDIA_FIELDS or name in fields:
        return True
    if kind == name:  # no caption
        return False
    return kind == TRANSCRIPT or (kind not in _TAKEN_TYPES and is_name(kind))


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
    known = (*MEDIA_FIELDS, *(f"captions.{kind}" for kind in CAPTION_TYPES), *fields)
    return f"{suggest(name, known).rstrip('.')} and captions.TYPE of any type; a field of your own is a plugin (docs/field_plugin.md)."
