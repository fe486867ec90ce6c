"""The experiments that come with peav, by name: `tiny_cpu`, `cluster/ddp`; and `--config peav:NAME`, which reads one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile

from peav.suggest import suggest

#: What a recipe's name begins with where a file could be named as well.
PREFIX = "peav:"

#: `experiments/` of the repository: a link to it in a checkout, a copy in an installed package.
FOLDER = Path(__file__).parents[1] / "experiments"

#: What of it belongs to a checkout alone, beside the scripts that it needs.
_CHECKOUT_ONLY = "real"


def recipe_names() -> list[str]:
    """Returns the names of all recipes: YAMLs without their suffix, and the scripts beside them."""
    files = (path.relative_to(FOLDER) for path in FOLDER.rglob("*") if path.suffix in (".yaml", ".sh"))
    files = (file for file in files if file.parts[0] != _CHECKOUT_ONLY)
    return sorted(str(file.with_suffix("")) if file.suffix == ".yaml" else str(file) for file in files)


def find_recipe(name: str) -> Path:
    """Returns the file of a recipe.

    Args:
        name: such as `tiny_cpu` or `cluster/ddp`; `cluster/ddp.yaml` is the same.

    Raises:
        ValueError: if there is none of that name.
    """
    known = {known: FOLDER / (known if known.endswith(".sh") else f"{known}.yaml") for known in recipe_names()}
    path = known.get(name.removesuffix(".yaml"))
    if path is None:
        raise ValueError(f"no recipe is named {name!r}. {suggest(name, known)}")
    return path


def resolve_config(value: str) -> str:
    """Returns the path that `--config` names: `peav:NAME` is a recipe, everything else stays as it is.

    Raises:
        ValueError: if no recipe has that name.
    """
    return str(find_recipe(value.removeprefix(PREFIX))) if value.startswith(PREFIX) else value


def fault_of(path: Path) -> str | None:
    """Returns what is wrong with a file of options that YAML itself lets pass; None for what is right, or no YAML at all.

    Args:
        path: of the file.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None  # the parser says it
    if root is None:
        return f"{path} is empty"
    pending: list[yaml.Node] = [root]
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending += node.value
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                name = getattr(key, "value", None)
                if isinstance(name, str) and name in keys and name != "<<":
                    return (
                        f"{path}, line {key.start_mark.line + 1}: {name!r} is given twice, of which one would be lost"
                    )
                if isinstance(name, str):
                    keys.add(name)
                pending.append(value)
    return None


class RecipeOrFile(ActionConfigFile):
    """The action of `--config` in every command: a file, or `peav:NAME`."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Reads the file into the configuration."""
        try:
            values = resolve_config(values)
        except ValueError as error:
            parser.error(str(error))
        if isinstance(values, str) and (fault := fault_of(Path(values))):
            parser.error(fault)
        super().__call__(parser, cfg, values, option_string)
