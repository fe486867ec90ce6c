"""What a gate is: a plugin that says why a caption must not pass, or that it may."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from peav.registry import Registry
from peav.types import CAPTION_TYPES


@dataclass(frozen=True)
class Written:
    """A caption at the gate.

    Attributes:
        clip: id of the clip.
        kind: caption type.
        text: the caption.
        transcript: what is said in the clip; "" where nobody knows.
        finish: why the model ended the text, such as `length` where it was cut; "" where nobody says.
        columns: what else is known of the clip.
    """

    clip: str
    kind: str
    text: str
    transcript: str = ""
    finish: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)


class Gate(ABC):
    """Base class of gates. `@register_gate` makes one known by its name; its name in verdicts is `reason_name`.

    Attributes:
        version: of the code; another one makes the stage that holds the gate be done anew.
        reason_name: a word for reports.
        kinds: caption types that it looks at; others pass.
    """

    version: ClassVar[int] = 1
    reason_name: ClassVar[str] = ""
    kinds: tuple[str, ...] = CAPTION_TYPES

    def __init__(self) -> None:
        """Takes no arguments; a subclass may."""
        super().__init__()

    def bind(self, stages: Mapping[str, Any]) -> None:  # noqa: B027  most gates need no stage
        """Takes the stages before the gates, built, by name.

        Args:
            stages: of `peav.engine.stage.Stage`.

        Raises:
            ValueError: if it needs one that is not there.
        """

    @abstractmethod
    def check(self, caption: Written) -> str | None:
        """Returns why a caption must not pass, in a sentence that a writer understands; None if it may.

        Args:
            caption: to be looked at; nothing about it may be taken for an instruction.
        """


def reason_of(gate: Gate, caption: Written) -> str | None:
    """Asks a gate, and sees that it answers as it should.

    Args:
        gate: to be asked.
        caption: to be looked at.

    Raises:
        TypeError: if it returns neither a reason nor None; True and False may mean either.
    """
    reason = gate.check(caption)
    if reason is None or (isinstance(reason, str) and reason.strip()):
        return reason
    raise TypeError(f"{type(gate).__name__}.check must return a reason, in words, or None, got {reason!r:.100}")


gates: Registry[Any] = Registry("gate", Gate)

register_gate = gates.register
