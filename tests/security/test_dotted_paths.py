"""Classes of one's own that no package announces: `peav fit` takes them by dotted path, and who trusts what it wrote can use it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from peav import PEAV, registry
from peav.cli.main import main
from tests.data.world import make_data, tone
from tests.helpers import small_tokenizer
from tests.security.hostile import refused_by_command

ROOT = Path(__file__).parents[2]

MINE = """
from collections.abc import Mapping
from torch import nn
import torch
from peav.encoders import Encoder
from peav.objectives import CaptionPair
from peav.registry import register_encoder
from peav.types import Features

class Loudness(Encoder):
    provides = {"audio": ("audio",)}
    def __init__(self, dim: int = 4) -> None:
        super().__init__()
        self.dims = {"audio": dim}
        self.proj = nn.Linear(1, dim)
    def forward(self, inputs, names):
        audio = inputs["audio"]
        valid = audio.mask.sum(1, keepdim=True).clamp(min=1)
        level = torch.where(audio.mask, audio.samples, 0).abs().sum(1, keepdim=True) / valid
        return {"audio": Features(self.proj(level), audio.present, audio.group)}

@register_encoder
class Announced(Loudness):
    pass

class MyPair(CaptionPair):
    pass
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "mine_alone.py").write_text(MINE)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_data(folder, clips=16, split="test")
    return make_data(folder, clips=16, split="train")


@pytest.fixture(scope="module", params=["Announced", pytest.param("Loudness", marks=pytest.mark.slow)])
def run(request: pytest.FixtureRequest, modules: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `peav fit` with an encoder that nobody registered, and with one that registers itself when it is imported."""
    folder = tmp_path_factory.mktemp("run")
    options = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = {
        "trainer": {"max_steps": 1, "accelerator": "cpu", "default_root_dir": str(folder), "logger": False},
        "data": {"data": str(data), "batch_size": 8, "num_workers": 0},
        "model": {
            "embedding_dim": 8,
            "encoders": {
                "audio": {"class_path": f"mine_alone.{request.param}"},
                "text": {
                    "class_path": "TextEncoder",
                    "init_args": {"tokenizer": small_tokenizer(), "options": options},
                },
            },
            "objectives": {
                "pair": {"class_path": "mine_alone.MyPair", "init_args": {"medium": "audio", "caption": "audio"}}
            },
        },
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(config))
    environment = {**os.environ, "PYTHONPATH": f"{modules}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "peav.cli.main", "fit", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def known(modules: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets the module be found, and forgets it in the end."""
    monkeypatch.syspath_prepend(str(modules))
    yield
    sys.modules.pop("mine_alone", None)
    registry.encoders._classes.pop("Announced", None)


def evaluate(run: Path, data: Path, *more: str) -> list[str]:
    words = ["evaluate", str(run / "checkpoints/last.ckpt"), str(data), "--num_workers", "0", "--device", "cpu"]
    return [*words, "--out", str(run / "report"), *more]


def test_without_trust_one_sentence_says_what_to_do(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused_by_command(evaluate(run, data), capsys)
    assert "mine_alone." in said and "--trust" in said and "peav.plugins" in said
    assert "mine_alone" not in sys.modules


def test_where_the_module_is_not_found_it_says_so(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "PYTHONPATH" in refused_by_command(evaluate(run, data, "--trust"), capsys)


def test_with_trust_it_is_evaluated_embedded_and_exported(
    run: Path, data: Path, known: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(evaluate(run, data, "--trust")) == 0
    assert (run / "report" / "evaluation.json").is_file()
    sound = tmp_path / "a.wav"
    sound.write_bytes(tone(2, 1.0))
    words = ["embed", str(sound), "--out", str(tmp_path / "x.npz"), "--workers", "0", "--device", "cpu"]
    checkpoint = str(run / "checkpoints/last.ckpt")
    assert main([*words, "--model", checkpoint, "--trust"]) == 0
    assert main(["convert", checkpoint, str(tmp_path / "model"), "--trust"]) == 0
    capsys.readouterr()
    (tmp_path / "x.npz").unlink()
    assert "mine_alone." in json.loads((tmp_path / "model/config.json").read_text())["encoders"]["audio"]["class_path"]
    model = PEAV.from_pretrained(tmp_path / "model", trust=True)
    again = PEAV.from_pretrained(checkpoint, trust=True)
    found, expected = model.embed(audio=sound)["audio"], again.embed(audio=sound)["audio"]
    torch.testing.assert_close(found, expected)


def test_a_class_that_a_package_announces_needs_no_trust(run: Path, data: Path, known: None) -> None:
    """What registered itself is found by its dotted path once it is imported, as installed packages are at every start."""
    mine_alone: Any = importlib.import_module("mine_alone")
    registry.encoders.register(mine_alone.Loudness)
    registry.objectives.register(mine_alone.MyPair)
    try:
        assert main(evaluate(run, data)) == 0
    finally:
        registry.encoders._classes.pop("Loudness", None)
        registry.objectives._classes.pop("MyPair", None)
