"""Arguments of the engine's plugins as a configuration gives them: all there, none unknown, each of its type."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Union

from jsonargparse import ArgumentError, ArgumentParser

from peav.registry import init_signature
from peav.suggest import suggest

#: Types that are checked, alone and in each other.
_CHECKED = (str, int, float, bool, type(None), Path, Any, list, tuple, dict, Sequence, Mapping, Union, types.UnionType)


def full_arguments(cls: type[Any], given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Returns the arguments of a constructor with the defaults of those that are not given.

    What is given must be of the type that the constructor says, where that is one of plain data; it is converted where nothing is lost:
    YAML reads 1e-3 as a text.

    Args:
        cls: the class.
        given: by name.
        what: it is, for messages.

    Raises:
        ValueError: if it has no such argument, one is missing, or one is of another type.

    >>> class Loudest:
    ...     def __init__(self, threshold: float, language: str = "en") -> None: ...
    >>> full_arguments(Loudest, {"threshold": "1e-3"}, "stages.loud")
    {'threshold': 0.001, 'language': 'en'}
    >>> full_arguments(Loudest, {"threshold": 1, "language": False}, "stages.loud")
    Traceback (most recent call last):
    ...
    ValueError: stages.loud: language must be str, got False: YAML reads no, yes, on and off as false and true, so put it in quotes
    """
    parameters = init_signature(cls).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return dict(given)
    for name in given:
        if name not in parameters:
            known = ", ".join(parameters) or "no arguments"
            raise ValueError(
                f"{what}: {cls.__name__} has no argument {name!r}. {suggest(name, parameters) if parameters else known}"
            )
    missing = [name for name, one in parameters.items() if one.default is inspect.Parameter.empty and name not in given]
    if missing:
        raise ValueError(f"{what}: {cls.__name__} needs {', '.join(missing)}: set {what}.init_args.{missing[0]}")
    typed = _types(cls)
    checked = {name: _checked(value, typed.get(name, Any), f"{what}: {name}") for name, value in given.items()}
    return {name: checked.get(name, one.default) for name, one in parameters.items()}


def _types(cls: type[Any]) -> dict[str, Any]:
    """Returns the types of a constructor's arguments; none where one of them cannot be found, such as one imported for types alone."""
    try:
        return typing.get_type_hints(cls.__init__)
    except (NameError, TypeError, AttributeError):
        return {}


def _is_checked(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return True
    inside = [one for one in typing.get_args(annotation) if one is not Ellipsis]
    return (origin or annotation) in _CHECKED and all(map(_is_checked, inside))


def _without_any(annotation: Any) -> Any:
    """Returns a type without what is Any in it: of that the parser would import whatever a `class_path` names."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (None, Literal):
        return annotation
    if origin in (Union, types.UnionType):
        return Any if Any in inside else Union[tuple(map(_without_any, inside))]  # noqa: UP007  of a tuple
    held = tuple(one if one is Ellipsis else _without_any(one) for one in inside)
    return origin if Any in held else origin[held]


def _checked(value: Any, annotation: Any, place: str) -> Any:
    wanted = _without_any(annotation) if _is_checked(annotation) else Any
    if wanted is Any:
        return value
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=wanted)
    # The parser takes None for what is not given.
    if value is not None or type(None) in (annotation, *typing.get_args(annotation)):
        with suppress(ArgumentError):
            return parser.parse_object({"value": value}, defaults=False).value
    said = inspect.formatannotation(annotation).replace("collections.abc.", "").replace("typing.", "")
    quotes = ": YAML reads no, yes, on and off as false and true, so put it in quotes" * isinstance(value, bool)
    raise ValueError(f"{place} must be {said}, got {value!r:.200}{quotes}")
