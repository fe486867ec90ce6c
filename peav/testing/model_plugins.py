"""What the contracts of stages and of backends share."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from peav.engine.plugin import ModelPlugin
from peav.engine.stage import not_plain
from peav.testing.rows import require


def require_model_plugin(cls: type[ModelPlugin], arguments: Mapping[str, Any]) -> None:
    """Checks what a stage or a backend says of itself before it is built.

    Args:
        cls: the class.
        arguments: all arguments of its constructor.

    Raises:
        AssertionError: if a method is missing, its identity is no plain data or changes, or its models have no licences.
    """
    name = cls.__name__
    require(not inspect.isabstract(cls), f"{name} lacks {', '.join(sorted(getattr(cls, '__abstractmethods__', ())))}")
    held = cls.identity(arguments)
    require(not not_plain(held), f"{name}.identity returns no plain data: {held!r}")
    require(cls.identity(arguments) == held, f"{name}.identity returns something else each time: {held!r}")
    models = cls.models(arguments)
    require(
        isinstance(models, Mapping) and all(isinstance(text, str) for item in models.items() for text in item),
        f"{name}.models must map names of models to licences, both texts, got {models!r}",
    )
