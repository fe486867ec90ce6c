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
from peav.objectives import CaptionPair
from peav.training import PeavModule
from peav.training.compiling import compile_model, layers_of
from tests.helpers import small_encoders
from tests.training.test_precision import guessing

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_layers_of_a_kind_share_a_graph_and_checkpoints_stay_the_same() -> None:
    audio = MelAudioEncoder(sample_rate=16000, dim=16, num_layers=3, num_heads=2)
    model = EmbeddingModel({"audio": audio, "text": small_encoders()["text"]}, {"audio", "text_audio"}, 8)
    before = list(model.state_dict())
    compile_model(model)
    assert list(model.state_dict()) == before
    layers = layers_of(model)
    assert all(layer.compiled for layer in layers)
    one, *others = (layer.forward.func for stack in audio.stacks() for layer in stack.layers)  # type: ignore[attr-defined]
    assert len(others) == 2 and all(other is one for other in others)
    assert all(layer.forward.func is not one for layer in layers[3:])  # type: ignore[attr-defined]


def test_a_model_without_layers_is_refused() -> None:
    module = guessing()
    with pytest.raises(ValueError, match="no encoder says which layers it has"):
        compile_model(module.model)


def test_a_model_is_compiled_where_it_is_trained_and_nowhere_else() -> None:
    encoders = {"audio": MelAudioEncoder(16, 1, 2), "text": small_encoders()["text"]}
    module = PeavModule(encoders, {"audio": CaptionPair("audio", "audio")}, 8, compile_layers=True)
    assert not any(getattr(layer, "compiled", False) for layer in layers_of(module.model))


def losses_of_a_run(data: Path, out: Path, *options: str) -> list[float]:
    command = [sys.executable, "-m", "peav.cli.main", "fit", "--config", str(EXPERIMENTS / "tiny_cpu.yaml"), *options]
    command += [f"--data.data={data}", f"--model.encoders.text.init_args.tokenizer={data / 'tokenizer.json'}"]
    command += [f"--trainer.default_root_dir={out}", "--trainer.max_steps=6", "--trainer.max_epochs=-1"]
    command += ["--trainer.log_every_n_steps=1", "--trainer.limit_val_batches=0", "--trainer.precision=32-true"]
    objectives = yaml.safe_load((EXPERIMENTS / "tiny_cpu.yaml").read_text())["model"]["objectives"]
    command += [f"--model.objectives.{name}=null" for name in objectives if name != "audio"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(out / "graphs")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "recompile_limit" not in done.stderr, done.stderr[-3000:]
    with next(out.rglob("metrics.csv")).open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_whole_run_computes_the_same(world: Path, tmp_path: Path, ranks: int) -> None:
    """On clips of several lengths; on two ranks with FSDP2."""
    options = [f"--data.batch_size={8 // ranks}"]
    if ranks > 1:
        options += [f"--config={EXPERIMENTS / 'cluster/fsdp2.yaml'}", f"--trainer.devices={ranks}"]
    plain = losses_of_a_run(world, tmp_path / "plain", *options)
    compiled = losses_of_a_run(world, tmp_path / "compiled", *options, "--model.compile_layers=true")
    assert len(plain) == len(compiled) == 6
    assert compiled == pytest.approx(plain, rel=2e-3)
    assert list((tmp_path / "compiled/graphs").rglob("*.py")) and not (tmp_path / "plain/graphs").exists()
    if ranks == 1:
        module = PeavModule.load_from_checkpoint(tmp_path / "compiled/checkpoints/last.ckpt")
        assert not any(getattr(layer, "compiled", False) for layer in layers_of(module.model))
