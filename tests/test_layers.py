"""Imports go one way, nothing heavy is imported by `import peav`, and Lightning stays in its rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "peav"

#: Layer by the first part of a module's path under peav/.
LAYERS = {
    "atomic": 0,
    "host": 0,
    "html": 0,
    "lazy": 0,
    "types": 0,
    "registry": 0,
    "fields": 0,
    "trust": 0,
    "opening": 0,
    "mendable": 0,
    "suggest": 0,
    "distributed": 0,
    "devices": 0,
    "keyed_random": 0,
    "masking": 0,
    "tokenizing": 0,
    "plot_style": 0,
    "objectives": 1,
    "encoders": 1,
    "data": 1,
    "checkpoints": 2,
    "spans": 2,
    "embedding_model": 3,
    "digest": 4,
    "released": 4,
    "inputs": 5,
    "model": 6,
    "evaluation": 7,
    "engine": 7,
    "search": 7,
    "integrations": 7,
    "serve": 8,
    "training": 8,
    "cli": 9,
    "testing": 9,
}
#: Layer by the first part of a module's path under peav/data/.
DATA_LAYERS = {
    "locks": 0,
    "progress": 0,
    "workers": 0,
    "stores": 1,
    "media": 1,
    "synthetic": 1,
    "manifests": 2,
    "readers": 3,
    "loading": 3,
    "packing": 4,
    "curation": 5,
    "datamodule": 5,
    "__init__": 6,
}
LIGHTNING_ROOMS = ("training/", "cli/", "data/datamodule.py")
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_name(path: Path) -> str:
    return ".".join(("peav", *path.with_suffix("").parts)).removesuffix(".__init__")


def circles() -> list[list[str]]:
    """Files that import each other in a circle, by Tarjan's algorithm; imports inside functions and under TYPE_CHECKING count."""
    names = {module_name(path): path for path in MODULES}
    edges = {}
    for name, path in names.items():
        found = set(imports(path)) | {imported.rpartition(".")[0] for imported in imports(path)}
        # `from peav.data import Clip` names the package; `from peav.data import manifests` the module in it.
        packages = {imported.rpartition(".")[0] for imported in imports(path) if imported in names}
        edges[name] = ((found - packages) | (found & {i for i in imports(path)})) & set(names) - {name}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    parts: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in edges[name]:
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            part = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(part) > 1:
                parts.append(sorted(part))

    for name in names:
        if name not in index:
            visit(name)
    return parts


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles() == []


#: What rooms above may know of encoders and objectives by name: the base classes, what they declare, the head of an embedding,
#: and what makes scales and biases of texts.
OPEN = {"Encoder", "Frontend", "Stack", "Objective", "Head", "TextScore"}


#: The rooms themselves, and the data, which may not import them at all.
PLUGIN_ROOMS = ("encoders", "objectives", "data")


def classes_of_plugins() -> set[str]:
    """The classes that peav/encoders and peav/objectives define, their building blocks included."""
    found = set()
    for name in ("encoders", "objectives"):
        for path in (PACKAGE / name).rglob("*.py"):
            found |= {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)}
    return found - OPEN


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[0] not in PLUGIN_ROOMS], ids=str)
def test_no_class_of_a_plugin_is_known_outside_of_its_room(path: Path) -> None:
    """Neither to ask for it, nor in a table of classes: a stranger's plugin is equal to ours."""
    known = classes_of_plugins()
    assert {"MelAudioEncoder", "Transformer", "FrameAlignment", "PairObjective"} <= known
    tree = ast.parse((PACKAGE / path).read_text())
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("peav.encoders", "peav.objectives"))
        for alias in node.names
    }
    assert not used & known


def room(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_imports_only_lower_layers(path: Path) -> None:
    if path == Path("__init__.py"):
        return
    own = room(path)
    for name in imports(path):
        if not name.startswith("peav."):
            continue
        other = name.split(".")[1]
        if other not in LAYERS:
            continue  # peav.registry via `from peav import registry` is `peav.registry`; a version is not a module
        assert LAYERS[other] <= LAYERS[own], f"{path} (layer {LAYERS[own]}) imports {name} (layer {LAYERS[other]})"
        if LAYERS[own] == 1:
            assert other == own or LAYERS[other] == 0, f"{path} imports {name}: rooms of layer 1 do not know each other"


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[0] == "data"], ids=str)
def test_a_module_of_data_imports_only_lower_rooms_of_data(path: Path) -> None:
    own = room(path.relative_to("data"))
    for name in imports(path):
        if not name.startswith("peav.data."):
            continue
        other = name.split(".")[2]
        assert other == own or DATA_LAYERS[other] < DATA_LAYERS[own], f"{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_lightning_stays_in_its_rooms(path: Path) -> None:
    if str(path).startswith(LIGHTNING_ROOMS):
        return
    assert not [name for name in imports(path) if name.split(".")[0] in ("lightning", "pytorch_lightning")]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("peav", ("torch", "lightning", "transformers", "timm", "matplotlib")),
        ("peav.data", ("torch", "lightning", "lhotse", "litdata")),
        ("peav.data.media.decode", ("torchcodec", "torchvision", "lightning", "lhotse", "litdata", "transformers")),
        ("peav.model", ("torchcodec", "torchvision", "lightning", "lhotse", "litdata", "transformers", "timm")),
    ],
)
def test_an_import_loads_only_what_it_needs(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
