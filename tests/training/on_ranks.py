"""A small run in float64 on any number of processes: `python -m tests.training.on_ranks OUT STRATEGY RANKS real|virtual|cached ENCODERS`.

Lightning starts the other ranks by running this again. Rank 0 writes losses and whole weights to OUT. Real and cached batches hold
clips of different lengths on each rank, of which the last have no audio; virtual ones two clips at a time.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.tensor import DTensor

from peav.testing import tiny_batch
from peav.types import AudioInput, Batch
from tests.training.test_virtual import Chunks, cut, make

CLIPS, STEPS = 12, 4


class Losses(Callback):
    """Keeps the losses that are logged."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step > len(self.found):
            self.found.append(float(trainer.callback_metrics["train/loss"]))


def batches(rank: int, ranks: int, size: int) -> list[Batch]:
    """The chunks of a rank: of every global batch its share, `size` clips at a time."""
    found = []
    for step in range(STEPS):
        batch = tiny_batch(CLIPS, seed=step)
        assert isinstance(batch.audio, AudioInput)
        there = torch.arange(CLIPS) < CLIPS - 5  # one of three ranks has no audio at all
        samples = batch.audio.samples.double() * there[:, None]
        audio = replace(batch.audio, samples=samples, mask=batch.audio.mask & there[:, None], present=there)
        batch = replace(batch, ids=tuple(f"{step}-{name}" for name in batch.ids), audio=audio)
        found += cut(cut(batch, CLIPS // ranks)[rank], size)
    return found


def strategy_of(name: str, ranks: int) -> Strategy | str:
    """A strategy by its short name."""
    if name == "ddp":
        return DDPStrategy(process_group_backend="gloo")
    if name == "fsdp2":
        return ModelParallelStrategy(ranks, 1, save_distributed_checkpoint=False, process_group_backend="gloo")
    return "auto"


def whole(tensor: Tensor) -> Tensor:
    """A tensor of all ranks."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def main(out: Path, strategy: str, ranks: int, kind: str, encoders: str) -> None:
    torch.set_num_threads(1)
    kept = Losses()
    size = 2 if kind == "virtual" else CLIPS // ranks
    options: dict[str, Any] = {"learning_rate": 1e-3, "warmup_steps": 1}
    if kind == "virtual":
        options["virtual_batch_size"] = CLIPS
    if kind == "cached":
        options["cache_features"] = "fp32"
    module = make(encoders=encoders, **options)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=ranks,
        strategy=strategy_of(strategy, ranks),
        gradient_clip_val=0.5,
        use_distributed_sampler=False,  # each rank's batches are its own
        callbacks=[kept],
        default_root_dir=out.parent,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )

    class Data(Chunks):
        def train_dataloader(self) -> Any:
            self.batches = batches(trainer.global_rank, ranks, size)
            return super().train_dataloader()

    trainer.fit(module, datamodule=Data([], size))
    weights = {name: whole(p.detach()).clone() for name, p in module.named_parameters()}
    if trainer.global_rank == 0:
        torch.save({"losses": kept.found, "weights": weights}, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
