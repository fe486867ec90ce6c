"""`peav recipes`."""

from __future__ import annotations

import sys
from itertools import takewhile

from peav.cli.recipe_files import PREFIX, find_recipe, recipe_names


def recipes(name: str | None = None) -> None:
    """List the experiments that come with peav, or print one of them.

    `peav recipes NAME > mine.yaml` copies one, to be changed; `--config peav:NAME` names one wherever a command takes --config, and
    overlays are given as a second --config: peav fit --config peav:tiny_cpu --config peav:cluster/ddp

    Args:
        name: of the recipe to print; all are listed without it.
    """
    if name is not None:
        sys.stdout.write(find_recipe(name.removeprefix(PREFIX)).read_text(encoding="utf-8"))
        return
    for known in recipe_names():
        lines = find_recipe(known).read_text(encoding="utf-8").splitlines()
        head = takewhile(lambda line: line.startswith("#"), [line for line in lines if not line.startswith("#!")])
        print("\n".join([known, *(f"    {line[1:].strip()}" for line in head), ""]))
