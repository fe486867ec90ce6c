"""The LightningModule: any subset of encoders and objectives, trained together."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from peav import distributed, registry
from peav.checkpoints import CheckpointError, building
from peav.checkpoints.native import read_settings
from peav.embedding_model import EmbeddingModel
from peav.encoders import Encoder
from peav.objectives import Objective
from peav.tokenizing import Tokenizers
from peav.training.assembly import agree, build, check_targets, check_teachers, hide_spans, needed_encoders, provided_by
from peav.training.boundary import StepEnds
from peav.training.compiling import compile_model, layers_of
from peav.training.features import CachePrecision, CheckFeatures, FeatureCache, check_cache
from peav.training.frame_metrics import FrameMetrics
from peav.training.guard import FiniteGuard, name_suspects
from peav.training.initial import absolute_name, load_initial, read_initial
from peav.training.loss_log import LossLog
from peav.training.losses import Exchange, Losses, evaluate_objectives, with_gradients
from peav.training.optim import Schedule, parameter_groups
from peav.training.precision import teach_precision
from peav.training.random_state import ProcessRandom
from peav.training.resume import trainer_settings
from peav.training.sharding import shard_model, share_objectives
from peav.training.tuning import Tune, apply_tuning
from peav.training.virtual import Storage, VirtualBatches
from peav.trust import Trust
from peav.types import Batch, ClipFormat, Embedding

#: Arguments that lead elsewhere, which a checkpoint never has; one that has them was not written by us.
_NOT_FROM_A_FILE = {"self", "init_from", "init_revision", "encoder_options", "trust"}

log = logging.getLogger(__name__)


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
        trust: let the checkpoint of `init_from` name classes by dotted paths, whose modules are then imported, and arguments that lead
            to other files (docs/security.md).
        encoder_options: arguments of the checkpoint's encoders to change, by encoder: `{"video": {"trainable_frame_layers": 2}}`.
        tune: what is trained: `all` but frozen frontends; `last`, the last layers of each transformer, and heads; `lora`, adapters, and
            heads; or `heads`.
        tune_layers: of `last`.
        lora_rank: of `lora`.
        cache_features: keep what frozen frontends make of a clip in memory, in `fp16` or `fp32`, from the first epoch on.
        virtual_batch_size: clips, over all devices, whose negatives are seen together; `data.batch_size` at a time go through the
            encoders, twice. A multiple of `data.batch_size` times the devices.
        virtual_batch_storage: where the inputs of a virtual batch wait for their second pass: `memory` of the host, or `disk`.
        exchange: what devices do for each other's negatives: `gather` the fewest embeddings that all objectives need, or pass them
            on in a `ring`, which takes longer and needs memory for one device's rows only.
        max_nonfinite_steps: steps in a row whose loss or gradient is not finite, after which training stops. Each of them is left out.
        log_gradient_norms: log the norm of each objective's gradient at the embeddings, every so many steps.
        validated_frames: clips of a validation, over all devices, of which frame AUROC and PSDS1 are logged where an objective compares
            frames with phrases; 0 for none. 4 bytes times frames times dimensions of memory a clip.
        compile_layers: compile the encoders' layers for training (`torch.compile`): the first steps wait for the compiler, a minute or
            more. Evaluation runs them as they are.

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
        trust: bool = False,
        encoder_options: dict[str, dict[str, Any]] | None = None,
        tune: Tune = "all",
        tune_layers: int = 2,
        lora_rank: int = 16,
        cache_features: CachePrecision | None = None,
        virtual_batch_size: int | None = None,
        virtual_batch_storage: Storage = "memory",
        exchange: Exchange = "gather",
        max_nonfinite_steps: int = 10,
        log_gradient_norms: int | None = None,
        compile_layers: bool = False,
        validated_frames: int = 128,
    ) -> None:
        super().__init__()
        chosen = {name: objective for name, objective in (objectives or {}).items() if objective is not None}
        if not chosen:
            raise ValueError("no objective is left to train: set at least one under model.objectives")
        checkpoint = (
            read_initial(init_from, init_revision, encoder_options or {}, trust) if init_from is not None else None
        )
        if checkpoint is not None:
            encoders = {**checkpoint.spec.encoders, **(encoders or {})}  # type: ignore[dict-item]
            embedding_dim = agree("embedding_dim", embedding_dim, checkpoint.spec.embedding_dim)
            normalize = agree("normalize", normalize, checkpoint.spec.normalize)
        elif encoder_options or init_revision:
            raise ValueError("encoder_options and init_revision say something about a checkpoint: they need init_from")
        if not encoders:
            raise ValueError("no encoders are given: set model.encoders, or model.init_from")
        embedding_dim = 1024 if embedding_dim is None else embedding_dim
        normalize = True if normalize is None else normalize
        built_objectives = {name: build(registry.objectives, value) for name, value in chosen.items()}
        requires = {f"objective {name!r}": objective.requires for name, objective in built_objectives.items()}
        needed = needed_encoders(provided_by(encoders), {**requires, "extra_embeddings": extra_embeddings or ()})
        built_encoders = {name: build(registry.encoders, encoders[name]) for name in needed}
        for name, objective in built_objectives.items():
            check_targets(name, objective)
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
                "virtual_batch_size": virtual_batch_size,
                "virtual_batch_storage": virtual_batch_storage,
                "exchange": exchange,
                "max_nonfinite_steps": max_nonfinite_steps,
                "log_gradient_norms": log_gradient_norms,
                "compile_layers": compile_layers,
                "validated_frames": validated_frames,
            }
        )
        self._hparams_name = "kwargs"
        embeddings = {embedding for objective in built_objectives.values() for embedding in objective.requires}
        plain = {name.removeprefix("features.") for name in embeddings} | set(extra_embeddings or ())
        self.model = EmbeddingModel(built_encoders, plain, embedding_dim, normalize)
        media = None if checkpoint is None else checkpoint.spec.media
        self._initial_format = ClipFormat() if media is None else media.clip_format
        self.trained = tuple(sorted(embeddings))
        self.objectives = nn.ModuleDict(built_objectives)
        if checkpoint is not None:
            load_initial(self.model, built_objectives, checkpoint)
        apply_tuning(self.model, tune, tune_layers, lora_rank)
        if compile_layers:
            layers_of(self.model)  # which refuses models without any
        self._freeze_what_nothing_trains()
        hide_spans(self.model, built_objectives)
        #: What training began from, for evaluation, which shows retrieval before and after; None where it began anew.
        self.started_from: str | None = None if init_from is None else absolute_name(init_from)
        #: Whether a teacher may know something already.
        self.trained_before = checkpoint is not None
        if cache_features is not None:
            check_cache(self.model.each_encoder())
        self.features = FeatureCache(cache_features) if cache_features is not None else None
        self.frames = frozenset(name for objective in built_objectives.values() for name in objective.frames)
        self.learning_rate, self.weight_decay, self.betas = learning_rate, weight_decay, tuple(betas)
        self.objective_learning_rate = learning_rate if objective_learning_rate is None else objective_learning_rate
        self.warmup_steps, self.final_fraction = warmup_steps, final_fraction
        if exchange not in ("gather", "ring"):
            raise ValueError(f"exchange must be 'gather' or 'ring', not {exchange!r}")
        if log_gradient_norms is not None and log_gradient_norms < 1:
            raise ValueError(f"log_gradient_norms must be a number of steps, not {log_gradient_norms}")
        self.exchange, self.log_gradient_norms = exchange, log_gradient_norms
        self.virtual = (
            VirtualBatches(virtual_batch_size, virtual_batch_storage) if virtual_batch_size is not None else None
        )
        self.guard = FiniteGuard(max_nonfinite_steps)
        self.loss_log = LossLog(list(self.objectives))
        if validated_frames < 0:
            raise ValueError(f"validated_frames must be a number of clips, or 0 for none, not {validated_frames}")
        self.frame_metrics = {
            name: FrameMetrics(objective, validated_frames)
            for name, objective in built_objectives.items()
            if objective.frame_pair is not None and "events" in objective.targets and validated_frames
        }
        self.schedule = Schedule(warmup_steps, final_fraction)
        # That of `seed_everything`: the same on all ranks, and again when the run is resumed.
        self.seed = torch.initial_seed()
        self.ends = StepEnds()
        self._stepped, self._planned_steps = 0, None

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # Lightning's lets the file choose what is called
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        strict: bool = True,
        weights_only: bool = True,
        trust: bool = False,
        **changes: Any,
    ) -> Self:
        """Rebuilds a module from a checkpoint of `peav fit`, without running anything that the file holds.

        Args:
            checkpoint_path: the file.
            map_location: the device of the module; the CPU by default.
            strict: whether the file must have all parameters, and no others.
            weights_only: must be true: what a pickle holds may run when it is read.
            trust: see :meth:`peav.model.PEAV.from_pretrained`.
            **changes: arguments to change.

        Raises:
            FileNotFoundError: if it is not there.
            CheckpointError: if it is something else.
            TrustError: if it names classes or files that only `trust` allows.
        """
        if not weights_only:
            raise ValueError(
                "weights_only=False would run what the checkpoint holds: peav reads tensors and plain data alone"
            )
        saved, settings = read_settings(Path(checkpoint_path), Trust.of(trust))
        known = set(inspect.signature(cls.__init__).parameters) - _NOT_FROM_A_FILE
        given = {name: value for name, value in settings.items() if name in known}
        try:
            with building(sum(tensor.numel() for tensor in saved["state_dict"].values()), checkpoint_path):
                module = cls(**{**given, **changes})
            module.on_load_checkpoint(saved)
            module.load_state_dict(saved["state_dict"], strict=strict)
        except (AttributeError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"{checkpoint_path} is damaged, or was not written by `peav fit`: {error}") from error
        return module if map_location is None else module.to(map_location)

    @property
    def batch_fields(self) -> frozenset[str]:
        """The fields of a batch that the encoders and objectives read: what the data module has to decode."""
        targets = {target for _, objective in self._objectives() for target in objective.targets}
        return self.model.fields_for(self.trained) | targets

    @property
    def clip_format(self) -> ClipFormat:
        """What a clip must look like: to the encoders, and otherwise as in the checkpoint that training starts from."""
        initial = self._initial_format.of(self.batch_fields)
        return ClipFormat(**{**initial.settings(), **self.model.clip_format.settings()})

    @property
    def tokenize(self) -> Tokenizers:
        """How texts become token ids for the encoders that read them."""
        return self.model.tokenizers()

    def _freeze_what_nothing_trains(self) -> None:
        """Extra embeddings stay as they are: no weight decay on them, and no parameter without gradient, on which DDP would wait."""
        used, heads = self.model.encoders_for(self.trained), self.model.head_names(self.trained)
        for name, encoder in self.model.encoders.items():
            if name not in used:
                encoder.requires_grad_(False)
        for name, head in self.model.heads.items():
            if name not in heads:
                head.requires_grad_(False)

    def _objectives(self) -> Iterable[tuple[str, Objective]]:
        return ((name, o) for name, o in self.objectives.items() if isinstance(o, Objective))

    def on_fit_start(self) -> None:
        """Says what trains: an `objectives` in a second YAML replaces those of the first."""
        if self.trainer.is_global_zero:
            found = (f"{name} ({', '.join(objective.requires)})" for name, objective in self._objectives())
            log.info("%d objectives train: %s", len(self.objectives), "; ".join(found))
            self._warn_of_one_clip()

    def _warn_of_one_clip(self) -> None:
        """Says where a batch is a single clip, with which a pair has nothing to tell it from."""
        data = getattr(self.trainer, "datamodule", None)
        clips = getattr(data, "batch_size", 0) * self.trainer.world_size if self.virtual is None else self.virtual.size
        alone = [name for name, objective in self._objectives() if objective.compared]
        if clips == 1 and alone:
            log.warning(
                "a batch of one clip has no negatives: %s will only learn that everything is alike. Set data.batch_size to 32, say, or "
                "model.virtual_batch_size where so many do not fit",
                ", ".join(alone),
            )

    def setup(self, stage: str) -> None:
        """Checks teachers, says how many batches make a virtual one, and lets a lower precision be that of batches too.

        Raises:
            ValueError: if a teacher would stay as random as it begins.
        """
        teach_precision(self.trainer.precision_plugin)
        if stage == "fit":
            # Not in the constructor, which evaluation calls too, of a checkpoint that says nothing of the one before it.
            check_teachers(dict(self._objectives()), self.trained_before or self.trainer.ckpt_path is not None)
        if stage == "fit" and self.features is not None:
            data = getattr(self.trainer, "datamodule", None)
            check_cache(
                self.model.each_encoder(), [k for k in ("audio", "video") if getattr(data, f"{k}_augment", None)]
            )
        if stage == "fit" and self.virtual is not None:
            self.virtual.prepare(self.trainer)

    def configure_callbacks(self) -> list[Callback]:
        """Refuses cached features that another frontend made."""
        return [CheckFeatures()]

    def configure_model(self) -> None:
        """Compiles the layers that are to be trained so, and shards the model where the strategy does.

        FSDP2 is `lightning.pytorch.strategies.ModelParallelStrategy`.
        """
        if self.hparams["compile_layers"] and self.trainer.state.fn == TrainerFn.FITTING:
            compile_model(self.model)
        mesh = self.device_mesh
        if mesh is not None and not isinstance(self.model, FSDPModule):
            if mesh["tensor_parallel"].size() > 1:
                raise ValueError(
                    "peav shards over data-parallel devices only: set the strategy's data_parallel_size to the number of devices "
                    "and its tensor_parallel_size to 1"
                )
            shard_model(self.model, mesh["data_parallel"])
            share_objectives(self.objectives, self.trainer.strategy.root_device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Computes the weighted sum of the objectives' losses."""
        if self.features is not None:
            batch = self.features.replace_media(batch, self.model)
        hide_spans(self.model, dict(self._objectives()), self.global_step, self.seed)
        if self.virtual is not None:
            return self.virtual.step(self, batch, batch_idx)
        embeddings = self.model.embed_batch(batch, self.trained, self.frames)
        losses = self.evaluate_objectives(embeddings, {name: batch.read(name) for name in self.targets}, "train")
        self.log_losses(losses, "train", len(batch))
        self.guard.watch(losses.total, batch.ids, embeddings)
        return with_gradients(losses.total, [*_embedding_gradients(losses, embeddings), *losses.parameters])

    def evaluate_objectives(
        self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any], stage: str
    ) -> Losses:
        """Computes the losses and, in training, their gradients at the embeddings: see `peav.training.losses`."""
        every = self.log_gradient_norms
        objectives = dict(self._objectives())
        half = (
            torch.is_autocast_enabled(self.device.type) and torch.get_autocast_dtype(self.device.type) == torch.bfloat16
        )
        losses = evaluate_objectives(
            objectives,
            embeddings,
            targets,
            {name: objective.weight_at(self.trained_steps) for name, objective in objectives.items()},
            self.exchange,
            torch.bfloat16 if half else None,
            norms=stage == "train" and every is not None and self.global_step % every == 0,
        )
        if self._averages_by_hand and losses.parameters:
            flat = distributed.sum_over_ranks(torch.cat([g.flatten() for _, g in losses.parameters]))
            parts = (flat / distributed.world_size()).split([g.numel() for _, g in losses.parameters])
            averaged = [(p, part.view_as(p)) for (p, _), part in zip(losses.parameters, parts, strict=True)]
            losses = replace(losses, parameters=averaged)
        return losses

    @property
    def trained_steps(self) -> int:
        """The optimizer steps behind the weights: of the running fit, or of the checkpoint that is validated or tested."""
        return self.global_step if self.trainer.state.fn == TrainerFn.FITTING else self._stepped

    @property
    def _averages_by_hand(self) -> bool:
        """Whether the objectives' own parameters lie outside of what the strategy averages."""
        return isinstance(self.trainer.strategy, ModelParallelStrategy) and distributed.world_size() > 1

    @property
    def targets(self) -> tuple[str, ...]:
        """The batch fields that objectives read as they are."""
        return tuple(sorted({target for _, objective in self._objectives() for target in objective.targets}))

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As in training, logged under `validation/`; and frames of the first clips are kept for `FrameMetrics`."""
        return self._step(batch, "validation")

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As in training, logged under `test/`."""
        return self._step(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Returns the clips' ids and, by embedding name, their embeddings (N, D) and which of them are present."""
        embeddings = self.model.embed_batch(
            batch, [name for name in self.trained if name in self.model.embedding_names]
        )
        return {
            "ids": batch.ids,
            "embeddings": {name: e.pooled for name, e in embeddings.items()},
            "present": {name: e.present for name, e in embeddings.items()},
        }

    def _step(self, batch: Batch, stage: str) -> Tensor:
        embeddings = self.model.embed_batch(batch, self.trained, self.frames)
        losses = self.evaluate_objectives(embeddings, {name: batch.read(name) for name in self.targets}, stage)
        self.log_losses(losses, stage, len(batch))
        if stage == "validation" and not self.trainer.sanity_checking:
            for metrics in self.frame_metrics.values():
                metrics.add(embeddings, batch.read("events"))
        if not torch.isfinite(losses.total):
            log.error("the %s loss is %s (clips %s)", stage, losses.total.item(), name_suspects(batch.ids, embeddings))
        return losses.total

    def log_losses(self, losses: Losses, stage: str, clips: int) -> None:
        """Logs the losses, of the global batch, and what objectives want logged, of this rank; those of evaluation as means at its end."""
        if stage != "train":
            self.loss_log.evaluate(losses)
            return
        logged = self.loss_log.train(losses, self._writes_log, self.guard.skipped)
        values = {f"train/{name}": value for name, value in logged.values.items()}
        self.log_dict(values, on_step=True, on_epoch=False, batch_size=clips)
        # The number of a progress bar is read every step.
        bar = self.trainer.progress_bar_callback is not None
        self.log("train/loss", logged.total, prog_bar=bar, on_step=True, on_epoch=False, batch_size=clips)

    def on_validation_epoch_start(self) -> None:
        """Begins the means and metrics anew."""
        self.loss_log.begin_evaluation()
        for metrics in self.frame_metrics.values():
            metrics.reset()

    def on_test_epoch_start(self) -> None:
        """Begins the means anew."""
        self.loss_log.begin_evaluation()

    def on_validation_epoch_end(self) -> None:
        """Logs the means over the split, and how well sounds are found."""
        self._log_means("validation")
        if self.trainer.sanity_checking:
            return
        for name, metrics in self.frame_metrics.items():
            found = {f"validation/{name}/{key}": value for key, value in metrics.compute(self.device).items()}
            metrics.reset()
            # Ranks have the same metrics already.
            self.log_dict(found, sync_dist=True, batch_size=1)

    def on_test_epoch_end(self) -> None:
        """Logs the means over the split."""
        self._log_means("test")

    def _log_means(self, stage: str) -> None:
        """Logs the means over the split."""
        weights = {name: objective.weight_at(self.trained_steps) for name, objective in self._objectives()}
        logged = self.loss_log.end_evaluation(weights, self.device)
        # Ranks have the same means already.
        values = {f"{stage}/{name}": value for name, value in logged.values.items()}
        self.log_dict(values, sync_dist=True, batch_size=1)
        self.log(f"{stage}/loss", logged.total, prog_bar=True, sync_dist=True, batch_size=1)

    @property
    def _writes_log(self) -> bool:
        """Whether the trainer writes what this training step logs."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return bool(every and (self.global_step + 1) % every == 0) or self.trainer.should_stop

    @property
    def empty_batches(self) -> dict[str, int]:
        """By objective, batches in which no device had a valid pair."""
        return self.loss_log.empty_batches

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leaves the step out where the loss or a gradient is not finite; on all devices, or on none."""
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        self.guard.check(list(self.parameters()), self.global_step, gradients=not scaled)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps, and holds the objectives' scalars where their settings want them."""
        super().optimizer_step(*args, **kwargs)
        for _, objective in self._objectives():
            objective.after_step()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Goes on with the random numbers of the run that is resumed."""
        self.ends.restore_random(self.device)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Notes the end of a step."""
        self._stepped = self.global_step
        self.ends.note(self.trainer, self._counters, self.device)

    def on_train_epoch_end(self) -> None:
        """Notes the end of an epoch."""
        self.ends.note(self.trainer, self._counters, self.device)

    def on_validation_start(self) -> None:
        """Keeps the random numbers of training: those that validation draws must not move them."""
        self._random_of_training = ProcessRandom.now(self.device)

    def on_validation_end(self) -> None:
        """Gives training its random numbers back."""
        self._random_of_training.restore(self.device)

    @property
    def _counters(self) -> dict[str, Any]:
        """What is counted from the first step on; nothing is asked of the device."""
        return {
            "empty_batches": self.loss_log.empty,
            "nonfinite_steps": self.guard.skipped,
            "nonfinite_in_row": self.guard.in_row,
            "total_steps": self.schedule.total_steps,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what an exact resume needs: where the last optimizer step ended, random numbers, counters, settings of the trainer."""
        self.ends.write(self.trainer, checkpoint, self._counters, self.device)
        resume = checkpoint["resume"]
        if isinstance(empty := resume["empty_batches"], Tensor):
            resume["empty_batches"] = dict(zip(self.objectives, empty.tolist(), strict=True))
        resume["trainer"] = trainer_settings(self.trainer, self)
        if self.started_from is not None:
            checkpoint["started_from"] = self.started_from

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the counters."""
        self._stepped = checkpoint.get("global_step", 0)
        self.trained_before = True
        began = checkpoint.get("started_from")
        self.started_from = self.started_from or (began if isinstance(began, str) else None)
        found = {**checkpoint, **self.ends.read(checkpoint)}
        self.loss_log.resume(found.get("empty_batches", {}))
        self.guard.skipped, self.guard.in_row = found.get("nonfinite_steps", 0), found.get("nonfinite_in_row", 0)
        self._planned_steps = found.get("total_steps")
        for _, objective in self._objectives() if self._stepped else ():
            objective.end_calibration()  # what is resumed has been fitted

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with weight decay where it belongs; warm-up and cosine by optimizer step."""
        groups = [
            {**group, "lr": self.learning_rate} for group in parameter_groups([self.model], self.weight_decay)
        ] + [
            {**group, "lr": self.objective_learning_rate}
            for group in parameter_groups([self.objectives], self.weight_decay)
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=(self.betas[0], self.betas[1]))
        if self.trainer.max_steps == -1 and self.trainer.max_epochs == -1:
            raise ValueError("the cosine schedule needs an end: set trainer.max_steps or trainer.max_epochs")
        self._rates: list[tuple[float, float]] = [(group["lr"], group["weight_decay"]) for group in groups]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.schedule.factor(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """Tells the schedule where it ends, and lets the optimizer's settings be those of this run, also where its state was resumed.

        To ask for the end in `configure_optimizers` would have Lightning set up the loader before it has read where an interrupted run
        was, which would then be forgotten.
        """
        self._stepped = self.global_step
        if self.trainer.ckpt_path is None:
            self.ends.forget()
            self.ends.note(self.trainer, self._counters, self.device)
        total = self.trainer.estimated_stepping_batches
        if not math.isfinite(total) or total <= 0:
            raise ValueError("the cosine schedule needs an end: set trainer.max_steps, or data whose length is known")
        self.schedule.total_steps = int(total)
        if self.trainer.ckpt_path is not None and self._planned_steps not in (None, int(total)):
            message = "the learning rate now reaches its end at step %d, before it was %d: from here on it follows the new curve"
            log.warning(message, total, self._planned_steps)
        (config,) = self.trainer.lr_scheduler_configs
        config.scheduler.base_lrs = [rate for rate, _ in self._rates]
        for group, (rate, decay) in zip(self.trainer.optimizers[0].param_groups, self._rates, strict=True):
            lr = rate * self.schedule.factor(config.scheduler.last_epoch)
            group.update(initial_lr=rate, lr=lr, weight_decay=decay, betas=self.betas)


def _embedding_gradients(losses: Losses, embeddings: Mapping[str, Embedding]) -> list[tuple[Tensor, Tensor]]:
    """Pairs what the encoders made with its gradient."""
    found = [(embeddings[name].pooled, gradient) for name, gradient in losses.pooled.items()]
    for name, gradient in losses.frames.items():
        frames = embeddings[name].frames
        if frames is not None:
            found.append((frames, gradient))
    return found
