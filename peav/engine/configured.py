"""From a class_path and its init_args to a class of the engine's and all its arguments, with a sentence where that cannot be."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from peav.engine.arguments import full_arguments
from peav.registry import Registry
from peav.suggest import suggest
from peav.trust import Trust


def configured(registry: Registry[Any], config: Any, place: str) -> tuple[type[Any], dict[str, Any]]:
    """Returns the class that a configuration names, and all arguments of its constructor.

    Args:
        registry: of stages, gates or backends.
        config: `{"class_path": ..., "init_args": {...}}`, the arguments optional; what it names may be imported.
        place: where it stands, for messages, such as `stages.tags`.

    Raises:
        ValueError: if it is no such configuration, or the class cannot be found or imported, is of another kind, is not finished, or
            does not take the arguments.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("class_path"), str):
        raise ValueError(f"{place} must be {{class_path: ..., init_args: {{...}}}}, got {config!r:.200}")
    if unknown := sorted(set(map(str, config)) - {"class_path", "init_args"}):
        raise ValueError(f"{place} has no {unknown[0]!r}. {suggest(unknown[0], ('class_path', 'init_args'))}")
    init_args = config.get("init_args") or {}
    if not isinstance(init_args, Mapping):
        raise ValueError(f"{place}.init_args must be arguments by name, got {init_args!r:.200}")
    try:
        cls = registry.resolve(config["class_path"], Trust.CODE)
    except ImportError as error:
        raise ValueError(
            f"{place}: {config['class_path']!r} cannot be imported ({error}): put the folder of its module on PYTHONPATH, or install "
            "its package"
        ) from None
    except TypeError as error:
        base = f"{registry.base.__module__.removesuffix('.base')}.{registry.base.__name__}"
        raise ValueError(f"{place}: {error}: derive it from {base}") from None
    except KeyError as error:
        raise ValueError(f"{place}: {error.args[0]}") from None
    if inspect.isabstract(cls):
        raise ValueError(f"{place}: {cls.__name__} lacks {', '.join(sorted(cls.__abstractmethods__))}")
    return cls, full_arguments(cls, init_args, place)
