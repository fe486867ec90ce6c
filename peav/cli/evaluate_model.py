"""MODEL of `peav evaluate`: a `.ckpt`, a folder in any format, a repository of the hub, or a model of another family."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peav import registry
from peav.checkpoints import MediaSettings
from peav.checkpoints.pickled import read_pickled
from peav.data.datamodule import ClipDataModule
from peav.devices import resolve_device
from peav.evaluation.adapters import AdaptedModel, find_adapter
from peav.evaluation.models import EvaluatedModel, PeavModel, decode_settings
from peav.inputs import Precision, media_settings
from peav.model import PEAV
from peav.training import PeavModule
from peav.training.evaluated import DATA_SETTINGS, evaluated_model

log = logging.getLogger(__name__)


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
        device = resolve_device(self.device)
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
        if missing := [name for name in DATA_SETTINGS if name not in stored]:
            log.warning("%s does not say %s: they are the data module's defaults", path, ", ".join(missing))
        if self.num_frames is not None or self.fps is not None:
            other = media_settings(MediaSettings(), self.num_frames, self.fps)
            stored = {**stored, "num_frames": other.num_frames, "fps": other.fps}
        return evaluated_model(module, stored, self.name, self.precision), dict(module.hparams)
