"""`peav plugins`."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from peav import registry
from peav.encoders import Encoder
from peav.engine.backends import backends
from peav.engine.gates import gates
from peav.engine.stage import stages
from peav.fields import fields


def plugins() -> None:
    """List the encoders, objectives, adapters, fields, and stages, gates and backends of the engine, and where they come from."""
    sources = {entry.value.partition(":")[0]: entry for entry in entry_points(group=registry.ENTRY_POINT_GROUP)}
    table = Table("kind", Column("name", no_wrap=True), "what it is", "what it makes of what", "from")
    for plugins_ in (registry.encoders, registry.objectives, registry.adapters, fields, stages, gates, backends):
        for name in plugins_:
            cls = plugins_.get(name)
            entry = next((e for module, e in sources.items() if cls.__module__.startswith(module)), None)
            package = (
                entry.dist.name if entry is not None and entry.dist is not None else cls.__module__.partition(".")[0]
            )
            first = inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]
            table.add_row(plugins_.kind, name, first, _made(cls), f"{package} ({cls.__module__})")
    Console(width=max(Console().width, 120)).print(table)  # narrower than this it would lose its words; a pipe says 80


def _made(cls: Any) -> str:
    """Says what an encoder provides without arguments, and what spans it can hide; empty for what is no encoder."""
    if not issubclass(cls, Encoder):
        return ""
    lines = [f"{name} <- {', '.join(sources)}" for name, sources in cls.provided({}).items()]
    return "\n".join([*lines, *([f"hides spans of {', '.join(cls.hides)}"] if cls.hides else [])])
