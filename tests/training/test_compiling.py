"""`compile_layers`: a whole run with compiled layers computes what it computes without."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from peav.embedding_model import EmbeddingModel
from peav.encoders import MelAudioEncoder
from peav.training.compiling import compile_model
from tests.helpers import small_encoders
from tests.training.test_precision import guessing

TINY = Path(__file__).parents[2] / "experiments/tiny_cpu.yaml"


def test_layers_of_a_kind_share_a_graph_and_checkpoints_stay_the_same() -> None:
    audio = MelAudioEncoder(sample_rate=16000, dim=16, num_layers=3, num_heads=2)
    model = EmbeddingModel({"audio": audio, "text": small_encoders()["text"]}, {"audio", "text_audio"}, 8)
    before = list(model.state_dict())
    compile_model(model)
    assert list(model.state_dict()) == before
    layers = [
        layer for encoder in model.each_encoder().values() for stack in encoder.stacks() for layer in stack.layers
    ]
    assert all(layer.compiled for layer in layers)
    one, *others = (layer.forward.func for stack in audio.stacks() for layer in stack.layers)  # type: ignore[attr-defined]
    assert len(others) == 2 and all(other is one for other in others)
    assert all(layer.forward.func is not one for layer in layers[3:])  # type: ignore[attr-defined]


def test_a_model_without_layers_is_refused() -> None:
    module = guessing()
    with pytest.raises(ValueError, match="no encoder says which layers it has"):
        compile_model(module.model)


def losses_of_a_run(data: Path, out: Path, *options: str) -> list[float]:
    command = [sys.executable, "-m", "peav.cli.main", "fit", "--config", str(TINY)]
    command += [f"--data.data={data}", f"--model.encoders.text.init_args.tokenizer={data / 'tokenizer.json'}"]
    command += [f"--trainer.default_root_dir={out}", "--trainer.max_steps=6", "--trainer.max_epochs=-1"]
    command += ["--trainer.log_every_n_steps=1", "--trainer.limit_val_batches=0", "--data.batch_size=8"]
    others = [name for name in yaml.safe_load(TINY.read_text())["model"]["objectives"] if name != "audio"]
    command += [f"--model.objectives.{name}=null" for name in others]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "recompile_limit" not in done.stderr, done.stderr[-3000:]
    with next(out.rglob("metrics.csv")).open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_whole_run_computes_the_same(world: Path, tmp_path: Path) -> None:
    # Clips of several lengths: the first batches compile, the last ones must need nothing new.
    plain = losses_of_a_run(world, tmp_path / "plain")
    compiled = losses_of_a_run(world, tmp_path / "compiled", "--model.compile_layers=true")
    assert len(plain) == len(compiled) == 6
    assert compiled == pytest.approx(plain, rel=2e-3)
    assert compiled != plain, "was anything compiled?"
