"""Names are unique, suggestions help, and plugins rebuild from their configuration."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from peav import registry
from peav.objectives import Objective, SegmentPair
from peav.registry import Registry
from peav.trust import Trust, TrustError
from peav.types import Embedding, ObjectiveOutput


class ForeignPair(Objective):
    """An objective that nobody registered."""

    requires = ("audio", "video")

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        raise RuntimeError


def test_a_second_class_of_the_same_name_is_refused() -> None:
    plugins: Registry[Any] = Registry("objective")
    plugins.register(SegmentPair)
    plugins.register(SegmentPair)  # the same class again is no clash

    class Other(Objective):
        def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
            raise RuntimeError

    Other.__name__ = "SegmentPair"
    with pytest.raises(ValueError, match="two objective classes are named 'SegmentPair'"):
        plugins.register(Other)


def test_only_plugins_register() -> None:
    with pytest.raises(TypeError, match="takes a subclass"):
        registry.register_objective(dict)


def test_an_unknown_name_suggests_one() -> None:
    with pytest.raises(KeyError, match="Did you mean 'CaptionPair'"):
        registry.objectives.get("CaptionPear")


def test_config_keeps_defaults_and_rebuilds() -> None:
    config = SegmentPair("audio", right="video", scale=7).config
    assert config["class_path"] == "SegmentPair"
    assert config["init_args"] == {
        "left": "audio",
        "right": "video",
        "scale": 7,
        "bias": -10.0,
        "duplicates": "drop",
        "weight": 1.0,
        "max_scale": None,
    }
    assert registry.objectives.build(config).config == config


def test_a_class_that_inherits_its_arguments_keeps_them() -> None:
    class Narrow(SegmentPair):
        pass

    expected = SegmentPair("audio", "video", scale=7).config["init_args"]
    assert Narrow("audio", "video", scale=7).config["init_args"] == expected


def test_a_dotted_path_must_lead_to_a_plugin() -> None:
    with pytest.raises(TypeError, match="not a peav objective"):
        registry.objectives.build({"class_path": "os.system", "init_args": {}}, Trust.CODE)


def test_a_dotted_path_is_imported_only_when_trusted() -> None:
    with pytest.raises(TrustError, match=r"'this\.Zen' is not among the registered ones"):
        registry.objectives.build({"class_path": "this.Zen", "init_args": {}})
    assert "this" not in sys.modules


def test_a_class_of_another_package_is_found_again_by_its_dotted_path() -> None:
    config = ForeignPair().config
    assert config["class_path"] == f"{__name__}.ForeignPair"
    with pytest.raises(TrustError):
        registry.objectives.resolve(config["class_path"])
    assert registry.objectives.resolve(config["class_path"], Trust.CODE) is ForeignPair


def test_a_dotted_path_leads_to_its_own_module_though_another_of_the_package_registered_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "twins"
    package.mkdir()
    body = "from peav.objectives import Objective\nclass Twin(Objective):\n    def forward(self, embeddings, targets): ...\n"
    (package / "__init__.py").touch()
    for name in ("first", "second"):
        (package / f"{name}.py").write_text(body)
    (package / "shown.py").write_text("from twins.first import Twin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    first = importlib.import_module("twins.first").Twin
    plugins: Registry[Any] = Registry("objective")
    plugins.register(first)
    assert plugins.resolve("twins.second.Twin") is first  # nothing is imported, and so nobody knows of another
    assert plugins.resolve("twins.shown.Twin", Trust.CODE) is first
    assert plugins.resolve("twins.gone.Twin", Trust.CODE) is first  # it has moved within its package
    second = plugins.resolve("twins.second.Twin", Trust.CODE)
    assert second.__module__ == "twins.second"
    with pytest.raises(TrustError, match=r"'twins\.second\.Twin' is not among the registered ones"):
        plugins.resolve("twins.second.Twin")


def test_arguments_that_a_checkpoint_cannot_hold_are_refused() -> None:
    with pytest.raises(TypeError, match="must be plain data"):
        _ = SegmentPair("audio", "video", weight=1.0, duplicates={1, object()}).config  # type: ignore[arg-type]


def test_arguments_without_a_name_are_refused() -> None:
    plugins: Registry[Any] = Registry("objective")

    class Variadic(Objective):
        def __init__(self, *names: str) -> None:
            super().__init__()

        def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
            raise RuntimeError

    with pytest.raises(TypeError, match="the argument 'names' has no name in a YAML"):
        plugins.register(Variadic)


@pytest.mark.parametrize(
    "code",
    [
        "registry.objectives.build({'class_path': 'CaptionPair', 'init_args': {'medium': 'audio', 'caption': 'audio'}})",
        "registry.encoders.get('TextEncoder')",
        "assert 'SegmentPair' in registry.objectives",
        "assert 'MelAudioEncoder' in list(registry.encoders) and len(registry.objectives) > 4",
    ],
)
def test_built_in_plugins_are_there_when_asked_for(code: str) -> None:
    """In a process that has imported nothing else, as a person's has."""
    command = [sys.executable, "-c", f"from peav import registry; {code}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
