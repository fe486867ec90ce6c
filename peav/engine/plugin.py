"""What plugins of the engine that run models share: what their results depend on, under which licences, and how they end."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar


class ModelPlugin(ABC):  # noqa: B024  what is abstract, stages and backends say
    """Base class of stages and backends.

    Attributes:
        version: of the code, part of the key under which results are kept; it changes when the code changes what comes out.
    """

    version: ClassVar[int] = 1

    def __init__(self) -> None:
        """Takes no arguments; a subclass may."""
        super().__init__()

    @classmethod
    def identity(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns what else the results depend on, as plain data, such as a digest of weights; is asked before anything is built.

        Args:
            init_args: all arguments of the constructor, defaults included.
        """
        return {}

    @classmethod
    def models(cls, init_args: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns the licences of the models that it runs, by name; "" where it is unknown. They go into the provenance.

        Args:
            init_args: all arguments of the constructor, defaults included.
        """
        return {}

    def close(self) -> None:  # noqa: B027  most hold nothing
        """Gives back what it holds, such as connections."""
