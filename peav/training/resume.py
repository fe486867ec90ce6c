"""What may differ between a run and the run that goes on with it.

An exact resume needs the settings of the run: the model's shape, the order of the clips, what a step is. Where they differ it is
refused, in one sentence. What does not shape what has been learned so far, such as the learning rate, may change: it counts from the
resumed step on, and the log says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from peav.checkpoints.pickled import read_pickled

#: Settings of the module that count from the resumed step on.
CHANGEABLE = (
    *("learning_rate", "objective_learning_rate", "weight_decay", "betas", "warmup_steps", "final_fraction"),
    *("max_nonfinite_steps", "log_gradient_norms", "exchange", "virtual_batch_storage", "cache_features"),
    "compile_layers",
)

#: Settings of the module that decide which weights there are.
SHAPING = ("encoders", "objectives", "embedding_dim", "normalize", "extra_embeddings", "tune", "lora_rank")

#: Settings of the trainer that decide which clips make which step.
_STEPS = ("accumulate_grad_batches", "limit_train_batches", "overfit_batches")

#: Settings of the trainer that count from the resumed step on.
_CHANGEABLE_TRAINER = ("precision", "gradient_clip_val", "gradient_clip_algorithm")

_MISSING = object()


class ResumeError(ValueError):
    """A run cannot be gone on with as it was asked for. The message says why, and what to do."""


def trainer_settings(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """Returns the settings of a trainer that a resumed run has to have, or may change: plain data."""
    values = {name: getattr(trainer, name) for name in (*_STEPS, *_CHANGEABLE_TRAINER)}
    if getattr(module, "virtual", None) is not None:
        del values["accumulate_grad_batches"]  # follows from the size of the virtual batch
    algorithm = values["gradient_clip_algorithm"]
    values["gradient_clip_algorithm"] = getattr(algorithm, "value", algorithm)
    return {**values, "seed_everything": os.environ.get("PL_GLOBAL_SEED")}


def read_resumable(path: str) -> dict[str, Any]:
    """Reads a checkpoint that a run is to go on from; of a file on disk only the parts that are looked at.

    Args:
        path: file, or folder of a sharded checkpoint.

    Raises:
        ResumeError: if it is not there, or no checkpoint of `peav fit`.
        TrustError: if it holds something else than tensors and plain data.
    """
    file = Path(path) / "meta.pt" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        if path in ("best", "last", "hpc", "registry") or path.startswith("registry:"):
            raise ResumeError(
                f"--ckpt_path={path} names no file: give one, such as --ckpt_path=RUN/checkpoints/last.ckpt"
            )
        raise ResumeError(f"there is no checkpoint {path}")
    try:
        found = read_pickled(file, mmap=True)
        known = {"encoders", "objectives"} <= set(found["hyper_parameters"])
    except (KeyError, TypeError) as error:
        raise ResumeError(f"{path} is not a checkpoint of `peav fit`: it names no hyper-parameters") from error
    if not known:
        raise ResumeError(
            f"{path} is not a checkpoint of `peav fit`: its hyper-parameters name no encoders and objectives"
        )
    return dict(found)


def check_evaluation(path: str, saved: Mapping[str, Any], module: LightningModule) -> None:
    """Checks that a checkpoint fits the model that the configuration describes.

    Raises:
        ResumeError: if it does not; the message names what differs.
    """
    old, new = saved["hyper_parameters"], module.hparams
    found = list(_differences("model", *({n: h[n] for n in SHAPING if n in old and n in new} for h in (old, new))))
    if found:
        raise ResumeError(
            f"{path} is of another model: {_listing(found)}. Give the configuration that it was trained with, the config.yaml "
            "of its run"
        )


def check_resume(path: str, saved: Mapping[str, Any], trainer: Trainer, module: LightningModule) -> list[str]:
    """Checks that a run can go on from a checkpoint.

    Args:
        path: of the checkpoint, for messages.
        saved: what it holds, of `read_resumable`.
        trainer: of the new run, with its settings as they were given.
        module: of the new run.

    Returns:
        what is different from here on, a line each.

    Raises:
        ResumeError: if it cannot; the message names what differs.
    """
    if "optimizer_states" not in saved and not Path(path).is_dir():
        raise ResumeError(
            f"{path} holds weights alone (save_weights_only): begin a new run from them with --model.init_from={path}"
        )
    old, new = saved["hyper_parameters"], module.hparams
    names = [name for name in new if name in old]
    firm = [name for name in names if name not in CHANGEABLE]
    found = list(_differences("model", {n: old[n] for n in firm}, {n: new[n] for n in firm}))
    before, now = saved.get("resume", {}).get("trainer", {}), trainer_settings(trainer, module)
    both = [name for name in now if name in before]
    seed = [name for name in both if name == "seed_everything" and None not in (before[name], now[name])]
    found += _differences("", {n: before[n] for n in seed}, {n: now[n] for n in seed})
    steps = [name for name in both if name in _STEPS]
    found += _differences("trainer", {n: before[n] for n in steps}, {n: now[n] for n in steps})
    if found:
        raise ResumeError(
            f"a run cannot go on from {path} with other settings: {_listing(found)}. Give those of the run, or begin a new one from "
            f"its weights in another folder: --model.init_from={path} --trainer.default_root_dir=..."
        )
    most = trainer.max_epochs
    if most is not None and most != -1 and saved.get("epoch", 0) > most:
        raise ResumeError(f"{path} lies in epoch {saved['epoch']}, beyond trainer.max_epochs={most}: raise it")
    loose = [name for name in names if name in CHANGEABLE]
    changed = list(_differences("model", {n: old[n] for n in loose}, {n: new[n] for n in loose}))
    free = [name for name in both if name in _CHANGEABLE_TRAINER]
    changed += _differences("trainer", {n: before[n] for n in free}, {n: now[n] for n in free})
    return [f"from step {saved.get('global_step', 0)} on {line}" for line in changed]


def _differences(name: str, old: Any, new: Any) -> Iterator[str]:
    """Yields a line for each setting that differs."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(
                f"{name}.{key}" if name else str(key), old.get(key, _MISSING), new.get(key, _MISSING)
            )
    elif new is _MISSING:
        yield f"{name} is left out"
    elif old is _MISSING:
        yield f"{name} is new"
    elif _plain(old) != _plain(new):
        yield f"{name} is {_short(new)}, it was {_short(old)}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"


def _listing(found: list[str]) -> str:
    return "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
