"""What a file that may come from elsewhere is allowed to name, and who may allow it more (docs/security.md).

A checkpoint, a folder or a repository says which classes to build and with which arguments. From there, names of registered plugins
are all that is needed; a dotted path would import a module, and a path among the arguments would read a file or ask the network. Both
wait for the user's word: `trust=True`, or `--trust` on the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

#: Values that a configuration from a file may hold, and how deep it may be nested; ours have some hundred, four deep.
MAX_VALUES, MAX_DEPTH = 20_000, 24

#: Larger numbers than this are no size of a layer and no sample rate.
MAX_NUMBER = 10_000_000


class TrustError(ValueError):
    """A file asks for what only the user may allow. The message says what it is, and how to allow it."""


class Trust(Enum):
    """Where a configuration comes from, and so what it may name."""

    NAMES = "registered names alone"
    """A file that may come from elsewhere: nothing is imported, and no argument leads to a file or to the network."""
    ASKED = "whatever the file names"
    """Such a file, which the user said to trust."""
    CODE = "like code"
    """The user's own words: Python, the command line, or the file behind their `--config`."""

    @classmethod
    def of(cls, asked: bool) -> Trust:
        """Returns how far to trust a file, given whether the user said `trust`.

        >>> Trust.of(False).imports, Trust.of(True).imports
        (False, True)
        """
        return cls.ASKED if asked else cls.NAMES

    @property
    def imports(self) -> bool:
        """Whether dotted paths are imported."""
        return self is not Trust.NAMES


def check_plain(value: Any, source: object) -> None:
    """Refuses configuration from a file that is larger, or nested deeper, or of larger numbers than any model's.

    Args:
        value: as JSON or a weights-only checkpoint gives it.
        source: the file, for the message.

    Raises:
        TrustError: if it is; or holds something else than plain data.
    """
    left = MAX_VALUES
    pending = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise TrustError(
                f"{source}: its configuration is nested more than {MAX_DEPTH} deep or holds more than {MAX_VALUES:,} values, which no "
                "model of peav needs: it is refused"
            )
        if isinstance(item, Mapping):
            pending += [(key, depth + 1) for key in item] + [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list | tuple):
            pending += [(inner, depth + 1) for inner in item]
        elif isinstance(item, int | float) and not isinstance(item, bool):
            if not abs(item) <= MAX_NUMBER:  # NaN is not below anything
                raise TrustError(
                    f"{source}: its configuration holds the number {item!s:.30}, beyond {MAX_NUMBER:,}: it is refused"
                )
        elif not (item is None or isinstance(item, bool | str)):
            raise TrustError(f"{source}: its configuration holds a {type(item).__name__}, which is no plain data")


def looks_like_a_place(value: Any) -> bool:
    r"""Returns whether a text could be a path, an address or a repository rather than the name of a choice.

    >>> [looks_like_a_place(text) for text in ("mean", "/etc/passwd", "a/b", "hf-hub:x", "~x", "C:\\x", "vit_tiny.v1", 3)]
    [False, True, True, True, True, True, False, False]
    """
    return isinstance(value, str) and (value.startswith(("~", ".")) or any(mark in value for mark in "/\\:\0"))


def places_in(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the arguments that hold, at any depth, a text that looks like a place."""

    def holds(value: Any) -> bool:
        if isinstance(value, Mapping):
            return any(holds(key) or holds(inner) for key, inner in value.items())
        if isinstance(value, list | tuple):
            return any(holds(inner) for inner in value)
        return looks_like_a_place(value)

    return tuple(name for name, value in arguments.items() if holds(value))
