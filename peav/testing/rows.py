"""Rows of embeddings and targets: some of them, or marked as absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from torch import Tensor

from peav.types import AudioInput, Embedding, EventInput, Features, TextInput, VideoInput


def require(condition: bool | Tensor, message: str) -> None:
    """Raises AssertionError with `message` unless the condition holds."""
    if not bool(condition):
        raise AssertionError(message)


_Rows = TypeVar("_Rows", bound=Features | AudioInput | VideoInput | TextInput | EventInput)


def take(value: _Rows, rows: Tensor) -> _Rows:
    """Returns some rows of features, embeddings or a batch field; of events, those of some clips, with every phrase kept."""
    if isinstance(value, EventInput):
        return value.of_clips(rows)  # type: ignore[return-value]
    taken = {
        field.name: getattr(value, field.name)[rows]
        for field in fields(value)
        if isinstance(getattr(value, field.name), Tensor) and getattr(value, field.name).ndim
    }
    return replace(value, **taken)


def take_targets(targets: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """Returns the targets of some clips."""
    return {name: take(target, rows) for name, target in targets.items()}


def clip_rows(embeddings: Mapping[str, Embedding], rows: Tensor) -> dict[str, Embedding]:
    """Returns the embeddings of some clips; phrases stay as they are."""
    return {name: e if name == "text_event" else take(e, rows) for name, e in embeddings.items()}


def absent(embedding: Embedding, rows: Sequence[int], garbage: bool = True) -> Embedding:
    """Marks rows as absent and, unless told otherwise, fills them with garbage."""
    present, pooled, frames = embedding.present.clone(), embedding.pooled.clone(), embedding.frames
    present[list(rows)] = False
    if garbage:
        pooled[list(rows)] = 1e4
        if frames is not None:
            frames = frames.clone()
            frames[list(rows)] = 1e4
    return replace(embedding, present=present, pooled=pooled, frames=frames)
