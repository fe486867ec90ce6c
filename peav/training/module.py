"""The LightningModule: any subset of encoders and objectives, trained together."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from peav import registry
from peav.encoders import Encoder, TextEncoder
from peav.encoders.graph import resolve
from peav.model import PEAV
from peav.objectives import Objective, PairObjective
from peav.training.features import CachePrecision, FeatureCache
from peav.training.initial import load_initial, read_initial
from peav.training.optim import parameter_groups, warmup_cosine
from peav.training.tuning import Tune, apply_tuning
from peav.types import BATCH_FIELDS, Batch

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class PeavModule(LightningModule):
    """Trains encoders by objectives; builds and runs only what the objectives need.

    Args:
        encoders: the encoders by a name of your choice. Those that no objective needs are left out. With `init_from` those of the
            checkpoint by default.
        objectives: the objectives by a name of your choice, under which their losses are logged; null removes one.
        embedding_dim: dimension of the shared space; the checkpoint's, or 1024.
        normalize: whether embeddings get unit length; kept with the checkpoint, because search must compute the same score. The
            checkpoint's, or true: raw dot products only learn from where they are scaled already.
        learning_rate: peak learning rate of AdamW.
        objective_learning_rate: that of the objectives' learned scales and biases; `learning_rate` by default.
        weight_decay: of matrices and kernels; nothing else decays.
        betas: of AdamW.
        warmup_steps: optimizer steps of linear warm-up, before the cosine.
        final_fraction: share of the peak learning rate that is left at the end.
        extra_embeddings: embeddings to build although no objective trains them, to be evaluated as they are (ablations).
        init_from: checkpoint to start from: a folder in Meta's format, transformers' or peav's, a `.ckpt` of `peav fit`, or a
            repository of the hub such as `facebook/pe-av-small`.
        init_revision: of the repository.
        encoder_options: arguments of the checkpoint's encoders to change, by encoder: `{"video": {"trainable_frame_layers": 2}}`.
        tune: what is trained: `all` but frozen frontends; `last`, the last layers of each transformer, and heads; `lora`, adapters, and
            heads; or `heads`.
        tune_layers: of `last`.
        lora_rank: of `lora`.
        cache_features: keep what frozen frontends make of a clip in memory, in `fp16` or `fp32`, from the first epoch on.

    Raises:
        ValueError: if no objective is left, one reads an embedding that no encoder provides, or the checkpoint cannot be read.
    """

    def __init__(
        self,
        encoders: dict[str, Encoder] | None = None,
        objectives: dict[str, Objective | None] | None = None,
        embedding_dim: int | None = None,
        normalize: bool | None = None,
        learning_rate: float = 1e-4,
        objective_learning_rate: float | None = None,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.98),
        warmup_steps: int = 1000,
        final_fraction: float = 0.0,
        extra_embeddings: list[str] | None = None,
        init_from: str | None = None,
        init_revision: str | None = None,
        encoder_options: dict[str, dict[str, Any]] | None = None,
        tune: Tune = "all",
        tune_layers: int = 2,
        lora_rank: int = 16,
        cache_features: CachePrecision | None = None,
    ) -> None:
        super().__init__()
        chosen = {name: objective for name, objective in (objectives or {}).items() if objective is not None}
        if not chosen:
            raise ValueError("no objective is left to train: set at least one under model.objectives")
        checkpoint = read_initial(init_from, init_revision, encoder_options or {}) if init_from is not None else None
        if checkpoint is not None:
            encoders = {**checkpoint.spec.encoders, **(encoders or {})}  # type: ignore[dict-item]
            embedding_dim = _agree("embedding_dim", embedding_dim, checkpoint.spec.embedding_dim)
            normalize = _agree("normalize", normalize, checkpoint.spec.normalize)
        elif encoder_options or init_revision:
            raise ValueError("encoder_options and init_revision say something about a checkpoint: they need init_from")
        if not encoders:
            raise ValueError("no encoders are given: set model.encoders, or model.init_from")
        embedding_dim = 1024 if embedding_dim is None else embedding_dim
        normalize = True if normalize is None else normalize
        built_objectives = {name: _build(registry.objectives, value) for name, value in chosen.items()}
        requires = {f"objective {name!r}": objective.requires for name, objective in built_objectives.items()}
        needed = needed_encoders(_provides(encoders), {**requires, "extra_embeddings": extra_embeddings or ()})
        built_encoders = {name: _build(registry.encoders, encoders[name]) for name in needed}
        for name, objective in built_objectives.items():
            _check_targets(name, objective)
        # Plain data only: a checkpoint rebuilds the model without the YAML and loads with weights_only.
        self.hparams.update(
            {
                "encoders": {name: encoder.config for name, encoder in built_encoders.items()},
                "objectives": {name: objective.config for name, objective in built_objectives.items()},
                "embedding_dim": embedding_dim,
                "normalize": normalize,
                "learning_rate": learning_rate,
                "objective_learning_rate": objective_learning_rate,
                "weight_decay": weight_decay,
                "betas": list(betas),
                "warmup_steps": warmup_steps,
                "final_fraction": final_fraction,
                "extra_embeddings": extra_embeddings,
                "tune": tune,
                "tune_layers": tune_layers,
                "lora_rank": lora_rank,
                "cache_features": cache_features,
            }
        )
        self._hparams_name = "kwargs"
        embeddings = {embedding for objective in built_objectives.values() for embedding in objective.requires}
        self.model = PEAV(built_encoders, embeddings | set(extra_embeddings or ()), embedding_dim, normalize)
        self.trained = tuple(sorted(embeddings))
        self.objectives = nn.ModuleDict(built_objectives)
        if checkpoint is not None:
            load_initial(self.model, built_objectives, checkpoint)
        apply_tuning(self.model, tune, tune_layers, lora_rank)
        self._freeze_what_nothing_trains()
        self.features = FeatureCache(cache_features) if cache_features is not None else None
        self.frames = frozenset(name for objective in built_objectives.values() for name in objective.frames)
        self.learning_rate, self.weight_decay, self.betas = learning_rate, weight_decay, tuple(betas)
        self.objective_learning_rate = learning_rate if objective_learning_rate is None else objective_learning_rate
        self.warmup_steps, self.final_fraction = warmup_steps, final_fraction
        self.empty_batches = dict.fromkeys(self.objectives, 0)

    @property
    def batch_fields(self) -> frozenset[str]:
        """The fields of a batch that the encoders and objectives read: what the data module has to decode."""
        targets = {target for _, objective in self._objectives() for target in objective.targets}
        return self.model.fields_for(self.trained) | targets

    @property
    def tokenize(self) -> Callable[[Sequence[str]], tuple[Tensor, Tensor]] | None:
        """How texts become token ids, or None when nothing reads text."""
        for encoder in self.model.encoders.values():
            if isinstance(encoder, TextEncoder):
                return encoder.tokenize
        return None

    def _freeze_what_nothing_trains(self) -> None:
        """Extra embeddings stay as they are: no weight decay on them, and no parameter without gradient, on which DDP would wait."""
        used = self.model.encoders_for(self.trained)
        for name, encoder in self.model.encoders.items():
            if name not in used:
                encoder.requires_grad_(False)
        for name, head in self.model.heads.items():
            if name not in self.trained:
                head.requires_grad_(False)

    def _objectives(self) -> Iterable[tuple[str, Objective]]:
        return ((name, o) for name, o in self.objectives.items() if isinstance(o, Objective))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Computes the weighted sum of the objectives' losses."""
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As in training, logged under `validation/`."""
        return self._step(batch, "validation")

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As in training, logged under `test/`."""
        return self._step(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Returns the clips' ids and, by embedding name, their embeddings (N, D) and which of them are present."""
        embeddings = self.model.embed_batch(batch, self.trained)
        return {
            "ids": batch.ids,
            "embeddings": {name: e.pooled for name, e in embeddings.items()},
            "present": {name: e.present for name, e in embeddings.items()},
        }

    def _step(self, batch: Batch, stage: str) -> Tensor:
        training = stage == "train"
        if self.features is not None and training:
            batch = self.features.replace_media(batch, self.model.encoders)
        embeddings = self.model.embed_batch(batch, self.trained, self.frames)
        total = torch.zeros((), device=self.device)
        values: dict[str, Tensor] = {}
        for name, objective in self._objectives():
            output = objective(
                {key: embeddings[key] for key in objective.requires},
                {target: batch.read(target) for target in objective.targets},
            )
            total = total + objective.weight * output.loss
            values |= {f"{stage}/{name}/{key}": value for key, value in output.log.items()}
            values[f"{stage}/{name}/loss"] = output.loss
            if training:
                self.empty_batches[name] += int(output.count == 0)
                values[f"{stage}/{name}/empty_batches"] = torch.tensor(float(self.empty_batches[name]))
        if not torch.isfinite(total):
            raise FloatingPointError(
                f"the {stage} loss is {total.item()} at step {self.global_step} (clips {', '.join(batch.ids[:8])} ...): "
                + ", ".join(f"{key}={float(value):.4g}" for key, value in values.items() if key.endswith("/loss"))
            )
        # A mean over an empty set is NaN: the objective had no such pair in this batch, and the mean over steps must not see it. Ranks
        # must agree on what they reduce, so that only the losses, which are always finite, are logged over an epoch.
        finite = {
            key: value.detach()
            for key, value in values.items()
            if (training and torch.isfinite(value)) or key.endswith("/loss")
        }
        self.log_dict(finite, on_step=training, on_epoch=not training, batch_size=len(batch), sync_dist=not training)
        self.log(
            f"{stage}/loss",
            total.detach(),
            prog_bar=True,
            on_step=training,
            on_epoch=not training,
            batch_size=len(batch),
            sync_dist=not training,
        )
        return total

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the counters of batches in which an objective found nothing."""
        checkpoint["empty_batches"] = dict(self.empty_batches)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the counters."""
        self.empty_batches.update(checkpoint.get("empty_batches", {}))
        for _, objective in self._objectives():
            if isinstance(objective, PairObjective):
                objective.calibrate = False  # what is resumed has been fitted

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with weight decay where it belongs; warm-up and cosine by optimizer step."""
        groups = [
            {**group, "lr": self.learning_rate} for group in parameter_groups([self.model], self.weight_decay)
        ] + [
            {**group, "lr": self.objective_learning_rate}
            for group in parameter_groups([self.objectives], self.weight_decay)
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=(self.betas[0], self.betas[1]))
        total = self.trainer.estimated_stepping_batches
        if not math.isfinite(total) or total <= 0:
            raise ValueError("the cosine schedule needs an end: set trainer.max_steps or trainer.max_epochs")
        schedule = warmup_cosine(self.warmup_steps, int(total), self.final_fraction)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _agree(name: str, given: _T | None, found: _T) -> _T:
    """Returns a setting of the checkpoint, unless the user asks for another."""
    if given is not None and given != found:
        raise ValueError(f"{name}={given}, but the checkpoint of init_from has {name}={found}: leave it out")
    return found


def _build(plugins: registry.Registry[Any], value: Any) -> Any:
    return plugins.build(value) if isinstance(value, Mapping) else value


def _provides(encoders: Mapping[str, Any]) -> dict[str, Mapping[str, tuple[str, ...]]]:
    """What each encoder provides, whether built or still configuration."""
    return {
        name: registry.encoders.resolve(value["class_path"]).provides if isinstance(value, Mapping) else value.provides
        for name, value in encoders.items()
    }


def needed_encoders(
    provides: Mapping[str, Mapping[str, tuple[str, ...]]], requires: Mapping[str, Sequence[str]]
) -> list[str]:
    """Returns the names of the encoders that are needed.

    Args:
        provides: for each encoder, what it provides.
        requires: for each reader (as messages call it), the embeddings it reads.

    Raises:
        ValueError: if an objective reads what no encoder provides; the message names both.
    """
    needed: dict[str, None] = {}
    for reader, embeddings in requires.items():
        order = resolve(provides, embeddings, asked_by=reader)
        needed |= dict.fromkeys(order.values())
    return [name for name in provides if name in needed]


def _check_targets(name: str, objective: Objective) -> None:
    for target in objective.targets:
        if target not in BATCH_FIELDS:
            raise ValueError(f"objective {name!r} has target {target!r}. {registry.suggest(target, BATCH_FIELDS)}")
    for frames in objective.frames:
        if frames not in objective.requires:
            raise ValueError(f"objective {name!r} wants frames of {frames!r}, which is not among its `requires`")
