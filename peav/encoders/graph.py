"""Which encoder makes which features, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from peav.encoders.base import Encoder
from peav.fields import is_field, suggest_field
from peav.types import Features


def resolve(
    provides: Mapping[str, Mapping[str, tuple[str, ...]]], names: Iterable[str], asked_by: str = "the model"
) -> dict[str, str]:
    """Finds which encoders make which features, in an order in which each finds its inputs.

    Args:
        provides: for each encoder, `Encoder.provides`.
        names: the features wanted.
        asked_by: who wants them, for the message.

    Returns:
        feature name -> encoder name, inputs before what reads them.

    Raises:
        ValueError: if nobody provides a feature, two encoders provide the same one, or encoders read each other in a circle.
    """
    owner: dict[str, str] = {}
    for encoder, features in provides.items():
        for feature in features:
            if feature in owner:
                raise ValueError(f"encoders {owner[feature]!r} and {encoder!r} both provide {feature!r}: remove one")
            owner[feature] = encoder
    order: dict[str, str] = {}

    def visit(name: str, reader: str, path: tuple[str, ...]) -> None:
        if name in order:
            return
        if name in path:
            raise ValueError(f"encoders read each other in a circle: {' -> '.join((*path, name))}")
        if name not in owner:
            offered = ", ".join(sorted(owner)) or "nothing"
            raise ValueError(
                f"{reader} reads {name!r}, but the encoders provide {offered}. Add an encoder that provides {name!r}, or drop "
                "what reads it."
            )
        for source in provides[owner[name]][name]:
            if source.startswith("features."):
                visit(source.removeprefix("features."), f"encoder {owner[name]!r}", (*path, name))
            elif not is_field(source):
                raise ValueError(
                    f"encoder {owner[name]!r} reads {source!r}, which is neither a batch field nor features.NAME. {suggest_field(source)}"
                )
        order[name] = owner[name]

    for name in names:
        visit(name, asked_by, ())
    return order


def shared_heads(encoders: Mapping[str, Encoder], order: Mapping[str, str]) -> dict[str, str]:
    """Returns which features go through the head of another one (`Encoder.shared_heads`).

    Args:
        encoders: by name.
        order: feature name -> encoder name, from :func:`resolve`.

    Raises:
        ValueError: if the encoder does not provide the other one, or of another dimension.
    """
    shared = {
        name: encoders[owner].shared_heads[name]
        for name, owner in order.items()
        if name in encoders[owner].shared_heads
    }
    for name, other in shared.items():
        dims = encoders[order[name]].dims
        if dims.get(other) != dims[name] or other in encoders[order[name]].shared_heads:
            raise ValueError(
                f"encoder {order[name]!r} lets {name!r}, of dimension {dims[name]}, go through the head of {other!r}, which "
                f"{'it does not provide' if other not in dims else 'is of another dimension or has no head of its own'}"
            )
    return shared


def sources_of(names: Iterable[str]) -> list[str]:
    """Returns the features that embeddings, or `features.NAME`, are made of.

    >>> sources_of(["audio", "features.audio", "video"])
    ['audio', 'video']
    """
    return list(dict.fromkeys(name.removeprefix("features.") for name in names))


def is_ready(source: str, features: Mapping[str, Features]) -> bool:
    """Returns whether what an encoder reads is there: a field of the batch always is, features once they are made."""
    return not source.startswith("features.") or source.removeprefix("features.") in features
