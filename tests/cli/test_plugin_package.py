"""A package outside the repository adds an objective by entry point; it is installed, found, and trains by its short name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from peav import registry
from peav.objectives import Objective
from peav.testing import GlooPool, check_objective, check_objective_on_ranks
from tests.cli.test_commands import ROOT, TINY, overrides

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "peav-cosine"
version = "0.0.1"

[project.entry-points."peav.plugins"]
cosine = "peav_cosine"

[tool.setuptools]
py-modules = ["peav_cosine"]
"""


def guide_code() -> str:
    """The plugin that docs/objective_plugin.md shows."""
    text = (ROOT / "docs/objective_plugin.md").read_text()
    return text.split("```python\n", 1)[1].split("```", 1)[0]


def guide_objective() -> Objective:
    """An objective of the guide's class."""
    namespace: dict[str, Any] = {"__name__": "guide"}
    if "CosineAgreement" in registry.objectives:
        return registry.objectives.build({"class_path": "CosineAgreement", "init_args": {}})
    exec(compile(guide_code(), "objective_plugin.md", "exec"), namespace)
    made: Objective = namespace["CosineAgreement"]()
    return made


def test_an_installed_package_trains_on_two_ranks_by_short_name(world: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(PYPROJECT)
    (package / "peav_cosine.py").write_text(guide_code())
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site)]
    subprocess.run([*install, str(package)], check=True, capture_output=True)
    config = yaml.safe_load(Path(TINY).read_text())
    config["model"]["objectives"] = {"mine": {"class_path": "CosineAgreement", "init_args": {"weight": 0.5}}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config))
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}

    def peav(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "peav.cli.main", *args]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)

    listed = peav("plugins")
    assert "CosineAgreement" in listed.stdout and "peav-cosine" in listed.stdout, listed.stdout + listed.stderr
    ranks = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=4"]
    trained = peav("fit", "--config", str(path), *overrides(world, tmp_path / "run"), *ranks)
    assert trained.returncode == 0, trained.stderr
    assert list((tmp_path / "run").glob("**/*.ckpt"))


def test_the_guides_plugin_passes_the_public_contract() -> None:
    check_objective(guide_objective)


def test_the_guides_plugin_passes_the_contract_on_two_ranks(gloo: GlooPool) -> None:
    check_objective_on_ranks(guide_objective, gloo)


def test_a_broken_plugin_is_named(tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "broken_plugin-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[peav.plugins]\nbroken = broken_plugin\n")
    (site / "broken_plugin.py").write_text("import a_module_that_is_not_there\n")
    command = [sys.executable, "-m", "peav.cli.main", "plugins"]
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 1
    assert "broken-plugin" in result.stderr and "a_module_that_is_not_there" in result.stderr
