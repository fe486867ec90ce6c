"""Rows of embeddings and targets: some of them, or marked as absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from peav.types import Embedding, EventInput


def require(condition: bool | Tensor, message: str) -> None:
    """Raises AssertionError with `message` unless the condition holds."""
    if not bool(condition):
        raise AssertionError(message)


def take(embedding: Embedding, rows: Tensor) -> Embedding:
    """Returns some rows of an embedding."""
    taken = {
        field.name: getattr(embedding, field.name)[rows]
        for field in fields(embedding)
        if isinstance(getattr(embedding, field.name), Tensor) and getattr(embedding, field.name).ndim
    }
    return replace(embedding, **taken)


def take_targets(targets: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """Returns the targets of some clips."""
    taken = {}
    for name, target in targets.items():
        if isinstance(target, EventInput):
            place = torch.full((len(target.annotated),), -1)
            place[rows] = torch.arange(len(rows))
            kept = place[target.clip] >= 0
            taken[name] = replace(
                target,
                annotated=target.annotated[rows],
                clip=place[target.clip][kept],
                phrase=target.phrase[kept],
                onset=target.onset[kept],
                offset=target.offset[kept],
            )
        else:
            changed = {
                field.name: getattr(target, field.name)[rows]
                for field in fields(target)
                if isinstance(getattr(target, field.name), Tensor)
            }
            taken[name] = replace(target, **changed)
    return taken


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
