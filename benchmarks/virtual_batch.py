"""Memory of a virtual batch: tiny_cpu.yaml with 2,048 clips seen together, beside the batch of 32 that its encoders take at a time.

Each case runs in a process of its own, of which the largest resident memory is taken; what a process that trains nothing holds is taken
off, and glibc is told to give back what is freed. The first loss of the virtual batch is compared with that of all clips in one
forward pass. Needs a world with as many training clips: `peav synth world --clips 2400 && peav prepare world data`, then
`python benchmarks/virtual_batch.py data`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import torch
from jsonargparse import auto_cli
from lightning.pytorch import Callback, LightningModule, Trainer

from peav.cli.lightning import PeavCLI
from peav.data.datamodule import ClipDataModule
from peav.training import PeavModule
from peav.training.losses import evaluate_objectives

ROOT = Path(__file__).parents[1]


class FirstLoss(Callback):
    """Keeps the first loss, and what the embeddings of a step take."""

    loss = 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if trainer.global_step == 1 and not self.loss:
            self.loss = float(trainer.callback_metrics["train/loss"])


def build(data: str, *options: str) -> PeavCLI:
    return PeavCLI(
        PeavModule,
        ClipDataModule,
        args=[
            f"--config={ROOT / 'experiments/tiny_cpu.yaml'}",
            *(f"--data.data={data}", "--data.cache_megabytes=0", "--trainer.enable_progress_bar=false"),
            *(f"--model.encoders.text.init_args.tokenizer={data}/tokenizer.json", "--trainer.logger=false"),
            *(
                "--trainer.enable_checkpointing=false",
                "--trainer.limit_val_batches=0",
                "--trainer.max_epochs=1",
                *options,
            ),
        ],
        run=False,
        save_config_callback=None,
        auto_configure_optimizers=False,
    )


def work(case: str, data: str, size: int) -> None:
    """Runs one case in this process and prints what it found."""
    found: dict[str, float] = {}
    torch.set_num_threads(2)
    if case == "whole":
        cli = build(data, f"--data.batch_size={size}")
        batch = next(iter(loader(cli)))
        module = cli.model
        with torch.no_grad():
            made = module.model.embed_batch(batch, module.trained, module.frames)
            objectives = dict(module._objectives())
            targets = {name: batch.read(name) for name in module.targets}
            losses = evaluate_objectives(objectives, made, targets, {n: o.weight_at(0) for n, o in objectives.items()})
        found["loss"] = float(losses.total)
        found["embeddings_mb"] = (
            sum(4 * t.numel() for e in made.values() for t in (e.pooled, e.frames) if t is not None) / 1e6
        )
    else:
        options = {
            "nothing": [],
            "batch": ["--trainer.limit_train_batches=4"],
            "memory": [f"--trainer.limit_train_batches={size // 32}", f"--model.virtual_batch_size={size}"],
        }
        options["disk"] = [*options["memory"], "--model.virtual_batch_storage=disk"]
        first = FirstLoss()
        cli = build(data, *options[case])
        cli.trainer.callbacks.append(first)
        if case != "nothing":
            cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        found["loss"] = first.loss
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


def loader(cli: PeavCLI) -> object:
    """The training batches, outside of a fit."""
    cli.datamodule.trainer = cli.trainer
    cli.trainer.strategy.connect(cli.model)
    cli.model.trainer = cli.trainer
    cli.datamodule.setup("fit")
    return cli.datamodule.train_dataloader()


def main(data: str, size: int = 2048, case: str | None = None) -> None:
    if case is not None:
        return work(case, data, size)
    found = {}
    for name in ("nothing", "batch", "disk", "memory", "whole"):
        command = [sys.executable, __file__, data, f"--size={size}", f"--case={name}"]
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        found[name] = json.loads(done.stdout.strip().splitlines()[-1])
    base = found["nothing"]["peak_mb"]
    print(f"embeddings and frames of {size} clips: {found['whole']['embeddings_mb']:.0f} MB")
    print("| | peak beyond an idle process, MB | first loss |\n|---|---:|---:|")
    labels = {
        "batch": "batch of 32",
        "disk": f"virtual batch of {size}, inputs on disk",
        "memory": f"virtual batch of {size}, inputs in memory",
        "whole": f"{size} clips in one forward pass, no backward",
    }
    for name, label in labels.items():
        print(f"| {label} | {found[name]['peak_mb'] - base:.0f} | {found[name]['loss']:.6f} |")
    return None


if __name__ == "__main__":
    auto_cli(main)
