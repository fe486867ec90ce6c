"""When a run saves itself: every half hour, at the end of an epoch, and when it is told to end."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import distributed as dist

from peav import distributed
from peav.training.boundary import at_step_end

log = logging.getLogger(__name__)

#: Exit status of a run that was told to end, and has saved itself: to be gone on with.
INTERRUPTED = 75

#: Signals that end a run at the end of its step. SLURM sends the second before a job's time is over (`--signal=SIGUSR1@120`).
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class RunInterrupted(Exception):  # noqa: N818  the name says what happened
    """A signal ended the run, which has saved itself.

    Args:
        path: of the checkpoint.
        step: optimizer steps that it holds.
        received: the signal.
    """

    def __init__(self, path: Path, step: int, received: signal.Signals) -> None:
        super().__init__(f"{received.name} ended the run after step {step}; go on with --ckpt_path={path}")
        self.received = received


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there, so that a kill at any moment leaves the earlier one whole.

    Lightning's own goes by the system's temporary folder, from where a file on another disk is copied.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a file; on other than local paths as Lightning does."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.name}.partial")
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        if place.is_dir():
            shutil.rmtree(place)
        os.replace(partial, place)


class SaveRun(Checkpoint):
    """Saves a run in `last.ckpt`: at the end of an epoch, of a step every so often, and of the step in which a signal tells it to end.

    SIGTERM ends it on all ranks, whichever of them gets it, with exit status 75; under SLURM so does SIGUSR1, and the job is queued
    again.

    Args:
        every_minutes: of training; 0 for the ends of epochs and signals alone.
        folder: where `last.ckpt` lies; `checkpoints` in the trainer's default_root_dir by default.

    Raises:
        ValueError: if `every_minutes` is negative.
    """

    def __init__(self, every_minutes: float = 30.0, folder: str | None = None) -> None:
        super().__init__()
        if every_minutes < 0:
            raise ValueError(f"every_minutes must be at least 0, not {every_minutes}")
        self.every_minutes, self.folder = every_minutes, folder
        #: Files of an earlier run that this one takes the place of.
        self.replaces: Sequence[Path] = ()
        self._received: signal.Signals | None = None
        self._ending: signal.Signals | None = None
        self._found: dict[int, Any] = {}
        self._group: Any = None
        self._saved_at = 0.0
        self._unwritten = False

    def folder_in(self, trainer: Trainer) -> Path:
        """Returns the folder of `last.ckpt`."""
        return Path(self.folder) if self.folder is not None else Path(trainer.default_root_dir) / "checkpoints"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Removes what this run takes the place of, now that its data have been opened; listens to SLURM."""
        if stage != "fit":
            return
        for path in self.replaces if trainer.is_global_zero else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if SLURMEnvironment.detect():
            self._listen(signal.SIGUSR1)  # before Lightning does, which saves in the middle of a step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock, and listens to signals in place of Lightning, whose answer to SIGTERM is a collective in mid-step."""
        self._saved_at = time.monotonic()
        self._ending = None
        for number in SIGNALS:
            self._listen(number)
        if trainer.received_sigterm:
            self._received = signal.SIGTERM
        if distributed.world_size() > 1:
            # Of the hosts: a device would have to wait for it.
            self._group = dist.new_group(backend="gloo")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Ends the run after a step that was the last; else writes the log up to what was saved."""
        if self._ending is not None:
            self._end(trainer, self._ending)
        if self._unwritten:
            self._unwritten = False
            for logger in trainer.loggers:
                logger.save()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves at the end of a step, where it is time to."""
        if not at_step_end(trainer):
            return
        due = self.every_minutes > 0 and time.monotonic() - self._saved_at >= 60 * self.every_minutes
        # At the end of an epoch is one that knows of the validation, too.
        received, due = self._agree(due and not trainer.is_last_batch)
        self._ending = received
        if due or received is not None:
            self._save(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Ends the run in mid-validation; what is saved is the step before it."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            received, _due = self._agree(False)
            if received is not None:
                if self._ending is None:
                    self._save(trainer)
                self._end(trainer, received)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves at the end of an epoch."""
        received, _due = self._agree(False)
        self._save(trainer)
        if received is not None and not _finished(trainer):
            self._end(trainer, received)

    def stop_listening(self) -> None:
        """Leaves signals as they were."""
        for number, handler in self._found.items():
            signal.signal(number, handler)
        self._found = {}

    def _save(self, trainer: Trainer) -> None:
        if getattr(trainer, "fast_dev_run", False):
            return
        place = self.folder_in(trainer) / "last.ckpt"
        if getattr(trainer.strategy, "_save_distributed_checkpoint", False):
            _save_folder(trainer, place)
        else:
            trainer.save_checkpoint(place, weights_only=False)
        self._saved_at, self._unwritten = time.monotonic(), True

    def _end(self, trainer: Trainer, received: signal.Signals) -> None:
        raise RunInterrupted(self.folder_in(trainer) / "last.ckpt", trainer.global_step, received)

    def _listen(self, number: signal.Signals) -> None:
        if threading.current_thread() is threading.main_thread():
            known = signal.signal(number, self._receive)
            self._found.setdefault(number, known)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)

    def _agree(self, due: bool) -> tuple[signal.Signals | None, bool]:
        """Returns the signal that any rank has received, and whether it is time by the clock of any."""
        if self._group is None:
            return self._received, due
        word = torch.tensor([0 if self._received is None else int(self._received), int(due)])
        dist.all_reduce(word, dist.ReduceOp.MAX, group=self._group)
        number, agreed = word.tolist()
        return (signal.Signals(number) if number else None), bool(agreed)


def _save_folder(trainer: Trainer, place: Path) -> None:
    """Saves a sharded checkpoint beside its place and moves it there; a kill leaves an earlier one there, or under `.NAME.earlier`."""
    partial, earlier = (place.with_name(f".{place.name}.{word}") for word in ("partial", "earlier"))
    if trainer.is_global_zero:
        shutil.rmtree(partial, ignore_errors=True)
    trainer.strategy.barrier()
    trainer.save_checkpoint(partial, weights_only=False)
    if trainer.is_global_zero:
        if place.exists():
            shutil.rmtree(earlier, ignore_errors=True)
            place.rename(earlier)
        partial.rename(place)
        shutil.rmtree(earlier, ignore_errors=True)
    trainer.strategy.barrier()


def exit_status(trainer: Trainer, interrupted: RunInterrupted) -> int:
    """Returns the exit status of a process whose run was interrupted, and has SLURM queue its job again where it asked for that.

    Processes that Lightning started end with 0: their parent, which would take another status for a crash, speaks for them.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    wanted = environment.auto_requeue if isinstance(environment, SLURMEnvironment) else SLURMEnvironment.detect()
    if wanted and trainer.is_global_zero and interrupted.received == signal.SIGUSR1:
        _requeue()
    return 0 if isinstance(environment, LightningEnvironment) and trainer.local_rank > 0 else INTERRUPTED


def _requeue() -> None:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    done = subprocess.run(["scontrol", "requeue", job], check=False)
    if done.returncode:
        log.error("`scontrol requeue %s` ended with %d: the job is not queued again", job, done.returncode)


def _finished(trainer: Trainer) -> bool:
    steps, epochs = trainer.max_steps, trainer.max_epochs
    progress: Any = trainer.fit_loop.epoch_progress.current
    by_steps = steps != -1 and trainer.global_step >= steps
    return by_steps or (epochs is not None and epochs != -1 and progress.processed >= epochs)
