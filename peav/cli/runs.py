"""Which run a folder holds, and whether `peav fit` may go on with it, or write there."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from peav.data.datamodule import ClipDataModule
from peav.training.module import PeavModule
from peav.training.resume import ResumeError, check_resume, read_resumable
from peav.training.saving import AtomicCheckpointIO, SaveRun

log = logging.getLogger(__name__)


def prepare_fit(
    trainer: Trainer, module: PeavModule, data: ClipDataModule, saver: SaveRun | None, path: str | None, overwrite: bool
) -> str | None:
    """Looks at what is there before anything is written.

    Args:
        trainer: of the run, not started.
        module: of the run.
        data: of the run.
        saver: that saves it; None for a run that saves nothing.
        path: checkpoint to go on from, as given.
        overwrite: whether the run may take the place of another.

    Returns:
        the checkpoint to go on from.

    Raises:
        ResumeError: if the run cannot go on from there, or would overwrite another.
        DataSettingError: likewise, because of its data.
    """
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    root = Path(trainer.default_root_dir)
    last = None if saver is None else saver.folder_in(trainer) / "last.ckpt"
    # SLURM counts how often it has queued a job again; the command is the one that began the run.
    if path is None and last is not None and last.exists() and os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
        path = str(last)
        log.warning("SLURM has queued this job again: it goes on from %s", path)
    saved = None if path is None else read_resumable(path)
    earlier = _checkpoints(trainer, saver)
    within = path is not None and Path(path).resolve() in {file.resolve() for file in earlier}
    if earlier and not within and not overwrite:
        raise ResumeError(
            f"{root} holds a run already ({_named(earlier)}): go on with it by --ckpt_path={_newest(earlier)}, begin anew in its place by "
            "--overwrite, or write elsewhere by --trainer.default_root_dir"
        )
    if path is not None and saved is not None:
        for line in check_resume(path, saved, trainer, module):
            log.warning("%s", line)
        data.check_resumed(saved.get(type(data).__qualname__, {}), trainer.world_size, before_setup=True)
    elif saver is not None and overwrite:
        logs = [*root.glob("csv/version_*"), *root.glob("tensorboard/events.out.*")]
        saver.replaces = [*earlier, *logs]
    return path


def _checkpoints(trainer: Trainer, saver: SaveRun | None) -> list[Path]:
    """Returns the checkpoints of an earlier run that this one would overwrite or mix with its own."""
    folders = [] if saver is None else [saver.folder_in(trainer)]
    kept = [callback.dirpath for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    folders += [Path(folder) for folder in kept if folder is not None and "://" not in str(folder)]
    if not folders:
        return []
    found = {file for folder in folders for file in folder.glob("*.ckpt") if not file.name.startswith(".")}
    return sorted(found | set(Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt")))


def _newest(files: list[Path]) -> Path:
    return max(files, key=lambda file: file.stat().st_mtime)


def _named(files: list[Path]) -> str:
    names = [file.name for file in files]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
