"""MODEL of `peav evaluate`: a `.ckpt`, a folder in any format, a repository of the hub, or a model of another family."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from peav import registry
from peav.checkpoints import MediaSettings
from peav.checkpoints.pickled import read_pickled
from peav.data.datamodule import ClipDataModule
from peav.data.loading.decoding import DecodeSettings
from peav.evaluation.adapters import AdaptedModel, find_adapter
from peav.evaluation.models import EvaluatedModel, FrameScale, PeavModel, decode_settings
from peav.inputs import Precision, media_settings
from peav.model import PEAV
from peav.objectives import Objective
from peav.training import PeavModule

log = logging.getLogger(__name__)

#: Settings of the data module that change what a clip looks like to the model; they are read from the checkpoint.
DATA_SETTINGS = ("sample_rate", "num_frames", "fps", "frame_size", "downmix", "sampling")


@dataclass(frozen=True)
class ModelChoice:
    """Which model is evaluated, and how it computes.

    Attributes:
        path: of it, or a repository of the hub.
        adapter: for a model of another family, the adapter's name; by what its config.json says by default.
        device: `cpu`, `cuda`, ... or `auto`.
        precision: `auto`, `fp32` or `bf16`.
        trust: see `PEAV.from_pretrained`.
        adapter_options: arguments of the adapter.
        num_frames: video frames a clip, in place of the model's setting.
        fps: video frames a second, instead.
    """

    path: str
    adapter: str | None = None
    device: str = "auto"
    precision: Precision = "auto"
    trust: bool = False
    adapter_options: dict[str, Any] = field(default_factory=dict)
    num_frames: int | None = None
    fps: float | None = None

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a checkpoint of `peav fit`."""
        return self.path.endswith(".ckpt")

    @property
    def run(self) -> Path | None:
        """The folder of the run that wrote the checkpoint, None for other models."""
        return Path(self.path).resolve().parent.parent if self.is_checkpoint else None

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.path if self.run is None else self.run.name

    def open(self) -> tuple[EvaluatedModel, dict[str, Any]]:
        """Opens the model.

        Returns:
            it, and its settings, for the report.

        Raises:
            FileNotFoundError: if a checkpoint is not there.
            CheckpointError: if it is no model that peav or an adapter knows.
        """
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.is_checkpoint:
            return self._open_checkpoint(device)
        adapter = self.adapter or find_adapter(self.path)
        if adapter is not None:
            return self._open_adapted(adapter, device)
        model = PEAV.from_pretrained(self.path, trust=self.trust).to(device)
        media = media_settings(model.media, self.num_frames, self.fps)
        found = PeavModel(model, self.name, settings=decode_settings(media), precision=self.precision)
        return found, model.spec.to_dict()

    def _open_adapted(self, adapter: str, device: str) -> tuple[EvaluatedModel, dict[str, Any]]:
        options = dict(self.adapter_options)
        if self.num_frames is not None:
            options["num_frames"] = self.num_frames
        if self.fps is not None:
            raise ValueError("--fps is not for models of other families: give --num_frames")
        made = registry.adapters.get(adapter)(self.path, **options)
        return AdaptedModel(made, self.name, device, self.precision), {"adapter": adapter, **options}

    def _open_checkpoint(self, device: str) -> tuple[EvaluatedModel, dict[str, Any]]:
        """Rebuilds a model with its objectives: they say which pairs are compared, also those that have no scale."""
        path = Path(self.path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no checkpoint {path}")
        module = PeavModule.load_from_checkpoint(path, map_location=device, trust=self.trust)
        stored = read_pickled(path, mmap=True).get(ClipDataModule.CHECKPOINT_HYPER_PARAMS_KEY) or {}
        settings = {name: stored[name] for name in DATA_SETTINGS if name in stored}
        if len(settings) < len(DATA_SETTINGS):
            log.warning("%s holds no data settings: sample rate, frames and sizes are the data module's defaults", path)
        if isinstance(size := settings.get("frame_size"), int):
            settings["frame_size"] = (size, size)
        elif size is not None:
            settings["frame_size"] = tuple(size)
        if self.num_frames is not None or self.fps is not None:
            other = media_settings(MediaSettings(), self.num_frames, self.fps)
            settings |= {"num_frames": other.num_frames, "fps": other.fps}
        if settings.get("fps") is not None:
            settings["num_frames"] = None
        objectives = [objective for objective in module.objectives.values() if isinstance(objective, Objective)]
        model = PeavModel(
            module.model,
            self.name,
            [pair for objective in objectives for pair in objective.compared],
            frame_scale(objectives),
            DecodeSettings(**settings),
            # Checkpoints of before have no fields of the user's own kinds.
            stored.get("field_options"),
            self.precision,
        )
        return model, dict(module.hparams)


def frame_scale(objectives: Sequence[Objective]) -> FrameScale | None:
    """Returns what the first objective with a frame level declares of it (`Objective.frame_pair`), None where none does."""
    declared = [(o.frame_pair, o) for o in objectives if o.frame_pair is not None]
    if not declared:
        return None
    pair, objective = declared[0]
    if others := [" x ".join(other) for other in dict.fromkeys(other for other, _ in declared) if other != pair]:
        log.warning("frames are evaluated for %s alone, not for %s", " x ".join(pair), ", ".join(others))
    if (by_phrase := objective.text_scores().get(pair)) is not None:
        return FrameScale(*pair, by_phrase=lambda phrases: by_phrase(phrases.to(by_phrase.device)))
    score = objective.pair_scores().get(pair)
    return FrameScale(*pair) if score is None else FrameScale(*pair, float(score[0]), float(score[1]))
