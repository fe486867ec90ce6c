"""Frozen frontends run once a clip: what they make is kept in memory, and read in the next epochs in place of the media."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from peav.data.loading.features import FeatureInfo
from peav.data.loading.plan import DataSettingError
from peav.encoders import DacAudioEncoder, PEVideoEncoder
from peav.types import AudioInput, Batch, CachedFeatures, VideoInput

CachePrecision = Literal["fp16", "fp32"]


def frontend_checksum(encoder: nn.Module) -> str:
    """Returns a checksum of the weights of an encoder's frontend; on several ranks all must ask."""
    frontend = encoder.frontend
    if not isinstance(frontend, nn.Module):
        raise TypeError(f"{type(encoder).__name__} has no frontend")
    crc = 0
    for name, tensor in sorted(frontend.state_dict().items()):
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        crc = zlib.crc32(name.encode(), crc)
        crc = zlib.crc32(whole.detach().to("cpu", torch.float32).contiguous().numpy().tobytes(), crc)
    return f"{crc:08x}"


def check_features(infos: Mapping[str, FeatureInfo], encoders: nn.ModuleDict) -> None:
    """Compares the frontends that made cached features with those of the model that is about to read them.

    Args:
        infos: what the data module reads in place of media, by `audio` and `video`.
        encoders: of the model.

    Raises:
        DataSettingError: if a frontend has other weights, or is trained.
    """
    for kind, info in infos.items():
        for name, encoder in encoders.items():
            reads = DacAudioEncoder if kind == "audio" else PEVideoEncoder
            if not isinstance(encoder, reads):
                continue
            if isinstance(encoder, PEVideoEncoder) and not encoder.frontend.frozen:
                raise DataSettingError(
                    f"encoder {name!r} trains its frontend, but data.features gives it {info.name!r} in place of frames"
                )
            found = frontend_checksum(encoder)
            if found != info.frontend:
                raise DataSettingError(
                    f"the features {info.name!r} were made by a frontend with other weights ({info.frontend}) than that of encoder "
                    f"{name!r} ({found}): make them with this model, or initialise the model from the one that made them"
                )


class CheckFeatures(Callback):
    """Compares cached features with the frontends of the model, once the weights of a checkpoint are loaded."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks before training."""
        self._check(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks where validation is not a part of training."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._check(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks before testing."""
        self._check(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks before predicting."""
        self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, module: LightningModule) -> None:
        infos = getattr(trainer.datamodule, "feature_infos", {})  # type: ignore[attr-defined]
        check_features(infos, module.model.encoders)  # type: ignore[union-attr, arg-type]


class FeatureCache:
    """Features of the frozen frontends, by clip.

    The media of a clip must be the same in every epoch. Ten seconds take about 100 KB in fp16: 64 KB of audio, 32 KB of 16 frames.

    Args:
        precision: in which features are kept; in fp32 the losses equal those from media. `exact` keeps them as they come.
    """

    def __init__(self, precision: CachePrecision | Literal["exact"]) -> None:
        if precision not in ("fp16", "fp32", "exact"):
            raise ValueError(f"cache_features must be 'fp16' or 'fp32', not {precision!r}")
        self.dtype = {"fp16": torch.float16, "fp32": torch.float32}.get(precision)
        self._features: dict[tuple[str, str], tuple[Tensor, float]] = {}

    def __len__(self) -> int:
        return len(self._features)

    def replace_media(self, batch: Batch, encoders: nn.ModuleDict) -> Batch:
        """Returns the batch with features in place of the media that a frozen frontend reads."""
        for encoder in encoders.values():
            if isinstance(encoder, DacAudioEncoder) and isinstance(batch.audio, AudioInput):
                batch = replace(batch, audio=self._audio(batch.audio, batch.ids, encoder))
            if isinstance(encoder, PEVideoEncoder) and encoder.frontend.frozen and isinstance(batch.video, VideoInput):
                batch = replace(batch, video=self._video(batch.video, batch.ids, encoder))
        return batch

    def _audio(self, audio: AudioInput, ids: tuple[str, ...], encoder: DacAudioEncoder) -> CachedFeatures:
        rows = self._new("audio", ids, audio.present)
        if rows:
            some = torch.tensor(rows, device=audio.present.device)
            part = AudioInput(
                audio.samples[some], audio.mask[some], audio.present[some], audio.group[some], audio.sample_rate
            )
            made = encoder.frontend_features(part)
            hop = torch.as_tensor(made.frame_seconds).expand(len(rows))
            self._keep("audio", [ids[row] for row in rows], made, hop)
        return self._join("audio", ids, audio.present, audio.group, encoder.frontend.dim)

    def _video(self, video: VideoInput, ids: tuple[str, ...], encoder: PEVideoEncoder) -> CachedFeatures:
        rows = self._new("video", ids, video.present)
        if rows:
            some = torch.tensor(rows, device=video.present.device)
            seconds = video.frame_seconds[some]
            part = VideoInput(video.frames[some], video.mask[some], video.present[some], video.group[some], seconds)
            self._keep("video", [ids[row] for row in rows], encoder.frontend_features(part), seconds)
        return self._join("video", ids, video.present, video.group, encoder.frontend.dim)

    def _new(self, kind: str, ids: tuple[str, ...], present: Tensor) -> list[int]:
        return [row for row, there in enumerate(present.tolist()) if there and (kind, ids[row]) not in self._features]

    def _keep(self, kind: str, ids: list[str], features: CachedFeatures, seconds: Tensor) -> None:
        for clip, values, mask, hop in zip(ids, features.values, features.mask, seconds.tolist(), strict=True):
            self._features[kind, clip] = (values[mask].to("cpu", self.dtype or values.dtype), hop)

    def _join(self, kind: str, ids: tuple[str, ...], present: Tensor, group: Tensor, dim: int) -> CachedFeatures:
        empty = (torch.zeros(0, dim, dtype=self.dtype or torch.float32), 1.0)
        found = [
            self._features[kind, clip] if there else empty for clip, there in zip(ids, present.tolist(), strict=True)
        ]
        length = max(1, *(len(values) for values, _ in found))
        dtypes = [values.dtype for values, _ in found if len(values)]
        exact = dtypes[0] if self.dtype is None and dtypes else torch.float32
        values = torch.zeros(len(found), length, dim, dtype=exact)
        mask = torch.zeros(len(found), length, dtype=torch.bool)
        for row, (one, _) in enumerate(found):
            values[row, : len(one)] = one.to(exact)
            mask[row, : len(one)] = True
        device = present.device
        seconds = torch.tensor([hop for _, hop in found], device=device)
        return CachedFeatures(values.to(device), mask.to(device), present, group, seconds)
