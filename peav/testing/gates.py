"""The contract of gates of the caption engine."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from peav.engine.arguments import full_arguments
from peav.engine.gates import Gate, Written, reason_of
from peav.engine.stage import Stage
from peav.engine.stages.gates import usable_gate
from peav.testing.rows import require
from peav.testing.stages import tiny_columns
from peav.types import CAPTION_TYPES

#: What models write, good and bad: a gate must not stumble over any of it.
_TEXTS = (
    "A dog barks twice.",
    "",
    "rain " * 100,
    "\u043b\u0430\u0435\u0442",
    '{"audio": null}',
    "a bell\u0007 rings \ud800",
)


def tiny_captions() -> list[Written]:
    """Returns captions of each type as a gate is given them, good and bad ones, about four clips."""
    columns = tiny_columns()
    rows = [{name: values[place] for name, values in columns.items()} for place in range(len(columns["id"]))]
    return [
        Written(row["id"], kind, text, row["speech"].get("text", ""), columns=row)
        for row in rows
        for kind in CAPTION_TYPES
        for text in _TEXTS
    ]


def check_gate(
    cls: type[Gate],
    init_args: Mapping[str, Any],
    captions: Sequence[Written] | None = None,
    stages: Mapping[str, Stage] | None = None,
) -> None:
    """Checks that a gate keeps its contract.

    It has a name for reports and types of captions; of each caption it says in words why it must not pass, or None; it changes nothing
    that it is given; and it says the same in another order, and built again.

    Args:
        cls: the class.
        init_args: of its constructor.
        captions: that it is asked about; good and bad ones about four clips by default.
        stages: before it, by name, of a gate that needs some.

    Raises:
        AssertionError: if it does not; says which part.
    """
    name = cls.__name__
    require(issubclass(cls, Gate), f"{name} must be derived from peav.engine.gates.Gate")
    require(not inspect.isabstract(cls), f"{name} lacks check")
    asked = tiny_captions() if captions is None else list(captions)

    def said_of(some: Sequence[Written]) -> list[str | None]:
        try:
            gate = usable_gate(cls(**full_arguments(cls, init_args, name)))
        except ValueError as error:
            raise AssertionError(str(error)) from None
        gate.bind(stages or {})
        return [_asked(gate, caption) for caption in some if caption.kind in gate.kinds]

    said = said_of(asked)
    require(bool(said), f"{name} was asked about no caption: its kinds are {cls.kinds!r}")
    require(said_of(asked[::-1])[::-1] == said, f"{name}, built again and asked in another order, says something else")


def _asked(gate: Gate, caption: Written) -> str | None:
    name, before = type(gate).__name__, copy.deepcopy(caption.columns)
    try:
        reason = reason_of(gate, caption)
    except Exception as error:
        raise AssertionError(f"{name} fails at {caption.text!r:.100}: {type(error).__name__}: {error}") from error
    same = caption.columns.keys() == before.keys() and repr(dict(caption.columns)) == repr(before)
    require(same, f"{name} changes the columns that it is given")
    return reason
