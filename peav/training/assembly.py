"""Which encoders and heads a set of objectives needs, and what objectives may ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from peav import registry
from peav.embedding_model import EmbeddingModel
from peav.encoders.graph import resolve, sources_of
from peav.fields import is_field, suggest_field
from peav.keyed_random import combine_seeds
from peav.objectives import Objective
from peav.trust import Trust

_T = TypeVar("_T")


def agree(name: str, given: _T | None, found: _T) -> _T:
    """Returns a setting of the checkpoint, unless the user asks for another."""
    if given is not None and given != found:
        raise ValueError(f"{name}={given}, but the checkpoint of init_from has {name}={found}: leave it out")
    return found


def build(plugins: registry.Registry[Any], value: Any) -> Any:
    """Builds a plugin from its configuration; what is built already comes back."""
    # What a file gives was checked when it was read.
    return plugins.build(value, Trust.CODE) if isinstance(value, Mapping) else value


def provided_by(encoders: Mapping[str, Any]) -> dict[str, Mapping[str, tuple[str, ...]]]:
    """What each encoder provides, whether built or still configuration."""
    return {
        name: registry.encoders.resolve(value["class_path"], Trust.CODE).provided(value.get("init_args") or {})
        if isinstance(value, Mapping)
        else value.provides
        for name, value in encoders.items()
    }


def needed_encoders(
    provides: Mapping[str, Mapping[str, tuple[str, ...]]], requires: Mapping[str, Sequence[str]]
) -> list[str]:
    """Returns the names of the encoders that are needed.

    Args:
        provides: for each encoder, what it provides.
        requires: for each reader (as messages call it), the embeddings it reads.

    Raises:
        ValueError: if an objective reads what no encoder provides; the message names both.
    """
    needed: dict[str, None] = {}
    for reader, embeddings in requires.items():
        order = resolve(provides, sources_of(embeddings), asked_by=reader)
        needed |= dict.fromkeys(order.values())
    return [name for name in provides if name in needed]


def check_targets(name: str, objective: Objective) -> None:
    """Checks that what an objective wants besides embeddings can be had.

    Raises:
        ValueError: if a batch field or frames that it names do not exist.
    """
    for target in objective.targets:
        if not is_field(target):
            raise ValueError(f"objective {name!r} has target {target!r}. {suggest_field(target)}")
    for frames in objective.frames:
        if frames not in objective.requires:
            raise ValueError(f"objective {name!r} wants frames of {frames!r}, which is not among its `requires`")


def check_teachers(objectives: Mapping[str, Objective], trained_before: bool) -> None:
    """Checks that embeddings which teach without gradient are trained by another objective.

    Args:
        objectives: by name.
        trained_before: whether the model comes from a checkpoint, so that a teacher may know something already.

    Raises:
        ValueError: if one would stay as random as it begins.
    """
    trained = {
        name for objective in objectives.values() for name in objective.requires if name not in objective.detached
    }
    for name, objective in objectives.items():
        untrained = [teacher for teacher in objective.detached if teacher not in trained]
        if untrained and not trained_before:
            raise ValueError(
                f"objective {name!r} learns from {untrained[0]!r}, which no other objective trains: add one that does, or start from a "
                "checkpoint with init_from"
            )


def hide_spans(
    model: EmbeddingModel, objectives: Mapping[str, Objective], step: int | None = None, seed: int = 0
) -> None:
    """Tells encoders which spans of their inputs to hide in training.

    Args:
        model: whose encoders.
        objectives: by name.
        step: optimizer step; spans are hidden only for objectives whose weight is not 0 there. None for any weight.
        seed: of the run, the same on all ranks; spans follow from it, the step, and each clip's identity.

    Raises:
        ValueError: if an encoder cannot, or two objectives want different spans.
    """
    for objective in objectives.values():
        for embedding in objective.masking:
            encoder = model.encoder_of(embedding)
            if embedding in encoder.hides:
                encoder.hide(embedding, None)
    for name, objective in objectives.items():
        if step is not None and objective.weight_at(step) == 0:
            continue
        for embedding, asked in objective.masking.items():
            masking = replace(asked, seed=combine_seeds(asked.seed, seed, step or 0))
            encoder = model.encoder_of(embedding)
            if embedding not in encoder.hides:
                raise ValueError(
                    f"objective {name!r} hides spans of {embedding!r}, which {type(encoder).__name__} cannot: its `hides` does not name "
                    "it. Leave the objective out, or choose an encoder that can"
                )
            if encoder.hidden_spans.get(embedding) not in (None, masking):
                raise ValueError(f"objective {name!r} hides spans of {embedding!r} otherwise than another objective")
            encoder.hide(embedding, masking)
