"""A callback for runs that are killed: it writes down every batch, and kills or signals its own process where it is told to."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Recorder(Callback):
    """Appends a line a batch to `FOLDER/batches-RANK.jsonl`: step, epoch, ids, loss and learning rate, numbers to the last bit.

    Args:
        folder: where to write.
        when: `batch:N`, in the middle of the batch after N batches; `epoch:E`, at the end of epoch E, after its checkpoint may or may
            not have been written; `validation:E`, in the validation of epoch E; `saving:N`, while the N-th checkpoint is written;
            or `never`.
        number: the signal that is sent then.
        rank: that it is sent to.
    """

    def __init__(self, folder: str, when: str = "never", number: int = int(signal.SIGKILL), rank: int = 0) -> None:
        self.folder, self.number, self.rank = Path(folder), number, rank
        self.kind, _, count = when.partition(":")
        self.count = int(count or -1)
        self.batches = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.kind == "saving" and trainer.global_rank == self.rank:
            replace, saved = os.replace, 0

            def counted(source: Any, target: Any) -> None:
                nonlocal saved
                if str(target).endswith(".ckpt"):
                    saved += 1
                    if saved == self.count:
                        with Path(source).open("r+b") as file:
                            file.truncate(1000)
                        self._send(trainer)
                replace(source, target)

            os.replace = counted  # type: ignore[assignment]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.kind == "batch" and self.batches == self.count:
            self._send(trainer)
        self.batches += 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loop = trainer.fit_loop.epoch_loop
        line = {
            "batch": loop.total_batch_idx,
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "ids": batch.ids,
            "loss": float(outputs["loss"]).hex(),
            "rates": [float(group["lr"]).hex() for group in trainer.optimizers[0].param_groups],
        }
        with (self.folder / f"batches-{trainer.global_rank}.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        if self.kind == "save" and self.batches == self.count + 1:
            trainer.save_checkpoint(self.folder / "middle.ckpt", weights_only=False)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.kind == "validation" and trainer.current_epoch == self.count and not trainer.sanity_checking:
            self._send(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.kind == "epoch" and trainer.current_epoch == self.count:
            self._send(trainer)

    def _send(self, trainer: Trainer) -> None:
        if trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.number)
