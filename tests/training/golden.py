"""The losses of the first steps of experiments/tiny_cpu.yaml. `python -m tests.training.golden` writes them anew.

The data are a world of 96 clips instead of 1,600, so that a test can make them; everything else is the experiment's.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from peav.cli.lightning import run_lightning
from peav.data.packing.prepare import prepare
from peav.data.synthetic import synthesize

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/assets/tiny_cpu_losses.json"
NUM_CLIPS = 96
NUM_STEPS = 20


class Recorder(Callback):
    """Keeps the loss of every training step."""

    losses: list[float] = []  # noqa: RUF012  the command line builds the callback, and the test reads it here

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: object, *_: object) -> None:
        assert isinstance(outputs, dict)
        self.losses.append(float(outputs["loss"]))


def make_world(folder: Path) -> Path:
    """Makes and prepares the small world."""
    synthesize(folder / "world", NUM_CLIPS, seed=0, workers=2)
    prepare(folder / "world", folder / "data", workers=2, progress=False)
    return folder / "data"


def first_losses(data: Path, out: Path) -> list[float]:
    """Trains tiny_cpu.yaml on the small world for 20 steps and returns the losses."""
    Recorder.losses.clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run_lightning(
            [
                "fit",
                f"--config={ROOT / 'experiments/tiny_cpu.yaml'}",
                f"--trainer.max_steps={NUM_STEPS}",
                "--trainer.limit_val_batches=0",
                f"--trainer.default_root_dir={out}",
                "--trainer.logger=false",
                "--trainer.callbacks=tests.training.golden.Recorder",
                "--trainer.enable_checkpointing=false",
                f"--data.data={data}",
                f"--model.encoders.text.init_args.tokenizer={data / 'tokenizer.json'}",
            ]
        )
    finally:
        torch.set_num_threads(threads)
    return list(Recorder.losses)


if __name__ == "__main__":
    # The command line imports this module by its name, which is another one than `__main__`.
    from tests.training import golden

    with tempfile.TemporaryDirectory() as temporary:
        found = golden.first_losses(make_world(Path(temporary)), Path(temporary) / "run")
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps({"num_clips": NUM_CLIPS, "losses": found}, indent=1) + "\n")
    sys.stdout.write(f"{GOLDEN}: {found}\n")
