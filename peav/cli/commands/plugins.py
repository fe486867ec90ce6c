"""`peav plugins`."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points

from rich.console import Console
from rich.table import Table

from peav import registry
from peav.fields import fields


def plugins() -> None:
    """List the encoders, objectives and fields that are registered, and where they come from."""
    sources = {entry.value.partition(":")[0]: entry for entry in entry_points(group=registry.ENTRY_POINT_GROUP)}
    table = Table("kind", "name", "what it is", "from")
    for plugins_ in (registry.encoders, registry.objectives, fields):
        for name in plugins_:
            cls = plugins_.get(name)
            entry = next((e for module, e in sources.items() if cls.__module__.startswith(module)), None)
            package = (
                entry.dist.name if entry is not None and entry.dist is not None else cls.__module__.partition(".")[0]
            )
            first = (inspect.getdoc(cls) or "").partition("\n")[0]
            table.add_row(plugins_.kind, name, first, f"{package} ({cls.__module__})")
    Console().print(table)
