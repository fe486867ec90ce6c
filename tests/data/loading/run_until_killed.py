"""A stand-in for training that kills itself: `python -m tests.data.loading.run_until_killed DATA OUT RANKS WORKERS KILL [KILLED_RANK]`.

KILL is `never`, `step:N` (kill -9 in the middle of the step after N steps) or `epoch:E` (kill -9 at the end of epoch E, after its
validation). It goes on from OUT/last.ckpt if that is there. Every step appends a line to OUT/steps-RANK.jsonl.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from peav.data.datamodule import ClipDataModule
from peav.data.loading.augment import Noise
from peav.types import AudioInput, Batch
from tests.data.world import RATE

EPOCHS, BATCH, STEPS = 3, 4, 6


class Model(LightningModule):
    """One weight, whose loss depends on every sample of every clip."""

    batch_fields = frozenset({"audio"})

    def __init__(self, out: Path, kill: str, killed_rank: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.out, self.killed_rank = out, killed_rank
        self.kill_kind, _, number = kill.partition(":")
        self.kill_at = int(number or -1)

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        assert isinstance(batch.audio, AudioInput)
        loss = (self.weight * batch.audio.samples.double().abs().mean(1) - 0.1).square().mean()
        line = {"step": self.global_step, "epoch": self.current_epoch, "ids": batch.ids, "loss": float(loss)}
        with (self.out / f"steps-{self.global_rank}.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        if self.kill_kind == "step" and self.global_step == self.kill_at:
            self._kill()
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        assert len(batch.ids)

    def on_train_epoch_end(self) -> None:
        if self.kill_kind == "epoch" and self.current_epoch == self.kill_at:
            self._kill()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def _kill(self) -> None:
        if self.global_rank == self.killed_rank:
            os.kill(os.getpid(), signal.SIGKILL)


def main(data: str, out: str, ranks: str, workers: str, kill: str, killed_rank: str = "0") -> None:
    """Runs it."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    module = ClipDataModule(
        data,
        batch_size=BATCH // int(ranks),
        num_workers=int(workers),
        sample_rate=RATE,
        seed=7,
        domain_weights={"a": 2.0, "b": 1.0},
        num_buckets=2,
        audio_augment=[Noise(probability=0.5)],
    )
    world: dict[str, Any] = {"devices": int(ranks)}
    if int(ranks) > 1:
        world["strategy"] = DDPStrategy(process_group_backend="gloo")
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        limit_train_batches=STEPS,
        callbacks=[ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_last=True)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **world,
    )
    last = folder / "last.ckpt"
    trainer.fit(Model(folder, kill, int(killed_rank)), module, ckpt_path=str(last) if last.is_file() else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
