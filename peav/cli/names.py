"""Options that are one name or several: `--splits train`, `--splits [train, test]`, `--splits train --splits test`."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

import yaml

#: The type of such an option.
Names = tuple[str, ...] | str


def names_of(given: Names) -> tuple[str, ...]:
    """Returns the names of such an option.

    >>> names_of("train"), names_of(("train", "test"))
    (('train',), ('train', 'test'))
    """
    return (given,) if isinstance(given, str) else tuple(given)


def join_names(words: Sequence[str], options: Collection[str]) -> list[str]:
    """Joins the values of such an option that is given several times: argparse would take the last one alone, without a word.

    Args:
        words: of the command line.
        options: that are of this type, such as `--splits`.

    >>> join_names(["a", "--splits", "train", "--out=x", "--splits=[test, validation]"], ["--splits"])
    ['a', '--out=x', '--splits=["train", "test", "validation"]']
    >>> join_names(["--splits", "[a, b]", "c"], ["--splits"])
    ['--splits', '[a, b]', 'c']
    """
    kept, values = collected(words, options)
    if all(len(given) == 1 for given in values.values()):
        return list(words)
    joined = {option: [name for value in given for name in _read(value)] for option, given in values.items()}
    return kept + [f"{option}={json.dumps(names, ensure_ascii=False)}" for option, names in joined.items()]


def collected(
    words: Sequence[str], options: Collection[str], stays: Callable[[str], bool] = lambda value: False
) -> tuple[list[str], dict[str, list[str]]]:
    """Takes options and their values out of a command line, `--option value` or `--option=value`.

    Args:
        words: of the command line.
        options: that are taken.
        stays: says of a value behind `=` that it stays where it is.

    Returns:
        the other words, and the values by option.
    """
    kept: list[str] = []
    values: dict[str, list[str]] = {}
    rest = list(words)
    while rest:
        option, equals, value = rest[0].partition("=")
        if option not in options or (equals and stays(value)) or (not equals and len(rest) == 1):
            kept.append(rest.pop(0))
            continue
        rest.pop(0)
        values.setdefault(option, []).append(value if equals else rest.pop(0))
    return kept, values


def _read(value: str) -> list[Any]:
    try:
        held = yaml.safe_load(value) if value.startswith("[") else value
    except yaml.YAMLError:
        return [value]
    return held if isinstance(held, list) else [value]
