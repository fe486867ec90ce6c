"""docs/encoder_plugin.md as a stranger does it: an installed package whose encoders share nothing with peav's but the contract."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from peav import registry
from peav.encoders import Encoder
from peav.testing import check_encoder

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/encoder_plugin.md").read_text()

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "peav-wave"
version = "0.0.1"

{entry_points}
[tool.setuptools]
py-modules = ["peav_wave"]
"""


def block(language: str) -> str:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)[0]


def commands(*first: str) -> list[str]:
    """The guide's commands that begin so."""
    return [line for line in block("bash").strip().splitlines() if line.startswith(first)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the guide, installed."""
    package, folder = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("site")
    (package / "pyproject.toml").write_text(PYPROJECT.format(entry_points=block("toml")))
    (package / "peav_wave.py").write_text(block("python"))
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*install, str(folder), str(package)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def folder(site: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the guide's commands run: tiny_cpu.yaml with the guide's encoders and BEST-RQ, on a world of few clips."""
    place = tmp_path_factory.mktemp("wave")
    config = yaml.safe_load((ROOT / "experiments/tiny_cpu.yaml").read_text())
    model, guide = config["model"], yaml.safe_load(block("yaml"))["model"]
    model["encoders"] |= guide["encoders"]
    model["encoders"]["video"]["init_args"]["dim"] = 32
    model["encoders"]["video"]["init_args"]["num_heads"] = 2
    model["encoders"]["audio_video"]["init_args"] = {
        "audio_dim": 32,
        "video_dim": 32,
        "dim": 32,
        "num_layers": 1,
        "num_heads": 2,
    }
    model["encoders"]["plus_text"]["init_args"] = {"audio_dim": 32, "video_dim": 32, "text_dim": 32}
    model["objectives"]["best_rq"] = {
        "class_path": "BestRQ",
        "init_args": {"input_dim": 64, "dim": 32, "num_codes": 32},
    }
    config["data"] |= {"data": "my_data", "batch_size": 8}
    config["trainer"] |= {
        "max_epochs": 1,
        "limit_train_batches": 2,
        "limit_val_batches": 1,
        "check_val_every_n_epoch": 1,
        "logger": False,
        "enable_progress_bar": False,
    }
    (place / "wave.yaml").write_text(yaml.safe_dump(config))
    (place / "my_data").symlink_to(world)
    (place / "my_folder").symlink_to(world.parent / "world")
    return place


def run(site: Path, folder: Path, lines: list[str]) -> str:
    """Runs commands of peav in one fresh process, and returns what they print."""
    code = "import sys, shlex\nfrom peav.cli.main import main\nfor line in sys.argv[1:]:\n    status = main(shlex.split(line)[1:])\n"
    code += "    assert not status, (line, status)\n"
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *lines], capture_output=True, text=True, env=environment, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def classes() -> dict[str, Any]:
    """The guide's classes, in this process."""
    if "WaveEncoder" not in registry.encoders:
        exec(
            compile(block("python"), "encoder_plugin.md", "exec"),
            sys.modules.setdefault("guide", type(sys)("guide")).__dict__,
        )
    return {name: registry.encoders.get(name) for name in ("WaveEncoder", "CharacterEncoder")}


def test_the_package_imports_public_names_alone() -> None:
    for node in ast.walk(ast.parse(block("python"))):
        if isinstance(node, ast.ImportFrom):
            assert node.module in ("torch", "peav.encoders", "peav.registry", "peav.types")
            assert not any(alias.name.startswith("_") for alias in node.names)
    for cls in classes().values():
        assert cls.__bases__ == (Encoder,)


@pytest.mark.parametrize("name", ["WaveEncoder", "CharacterEncoder"])
def test_the_guides_encoders_pass_the_public_contract(name: str) -> None:
    check_encoder(classes()[name])


def test_they_train_evaluate_and_embed(site: Path, folder: Path) -> None:
    said = run(
        site,
        folder,
        ["peav plugins", *commands("peav fit --config wave.yaml --trainer", "peav evaluate", "peav convert")],
    )
    assert "WaveEncoder" in said and "peav-wave" in said
    results = json.loads((folder / "runs/wave/evaluation.json").read_text())
    assert {"audio->video", "text_audio->audio", "text_video->video"} <= set(results["directions"])
    assert results["frames"]["num_clips"] > 0


@pytest.mark.slow
def test_every_command_of_the_guide_on_one_process_and_fit_on_two_ranks(site: Path, folder: Path) -> None:
    lines = block("bash").strip().splitlines()
    run(site, folder, [line + (" --overwrite" if line.startswith("peav fit") else "") for line in lines])
    with np.load(folder / "sounds.npz") as table:
        assert table["audio"].shape[0] == len(table["ids"]) > 10 and np.isfinite(table["audio"]).all()
    before, after = ((folder / "runs" / name / "checkpoints/last.ckpt") for name in ("wave", "lora"))
    weights = [torch.load(path, map_location="cpu", weights_only=True)["state_dict"] for path in (before, after)]
    adapters = [key for key in weights[1] if "lora_A" in key and ".audio.layers." in key]
    assert adapters and any(".text.layers." in key for key in weights[1] if "lora_A" in key)
    ranks = "--trainer.devices=2 --trainer.strategy=ddp --data.batch_size=4 --trainer.default_root_dir=runs/ranks"
    command = [sys.executable, "-m", "peav.cli.main", *shlex.split(f"fit --config wave.yaml {ranks}")]
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    run(site, folder, ["peav convert runs/ranks/checkpoints/last.ckpt ranks_model"])
    assert (folder / "ranks_model/model.safetensors").is_file()
