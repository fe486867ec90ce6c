"""Frozen frontends run once a clip: what they make is kept in memory, and read in the next epochs in place of the media."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from peav import distributed
from peav.data.loading.features import FeatureInfo
from peav.data.loading.plan import DataSettingError
from peav.embedding_model import EmbeddingModel
from peav.encoders import Encoder
from peav.types import Batch, CachedFeatures, take_rows

CachePrecision = Literal["fp16", "fp32"]


def frontend_checksum(frontend: nn.Module) -> str:
    """Returns a checksum of the weights of a frontend; on several ranks all must ask."""
    crc = 0
    for name, tensor in sorted(frontend.state_dict().items()):
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        crc = zlib.crc32(name.encode(), crc)
        crc = zlib.crc32(whole.detach().to("cpu", torch.float32).contiguous().numpy().tobytes(), crc)
    return f"{crc:08x}"


def check_features(infos: Mapping[str, FeatureInfo], encoders: Mapping[str, Encoder]) -> None:
    """Compares the frontends that made cached features with those of the model that is about to read them.

    Args:
        infos: what the data module reads in place of media, by batch field.
        encoders: of the model.

    Raises:
        DataSettingError: if an encoder reads the media themselves, trains its frontend, or its frontend has other weights.
    """
    for kind, info in infos.items():
        for name, encoder in encoders.items():
            if not any(kind in sources for sources in encoder.provides.values()):
                continue
            frontend = encoder.frontends.get(kind)
            if frontend is None:
                raise DataSettingError(
                    f"data.features gives {info.name!r} in place of {kind}, but encoder {name!r} has no frozen frontend for {kind}: it "
                    "reads the media, or trains its frontend. Leave data.features out"
                )
            found = frontend_checksum(frontend.module)
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
        check_features(infos, module.model.each_encoder())  # type: ignore[union-attr, operator]


def cacheable(encoders: Mapping[str, Encoder]) -> dict[str, str]:
    """Returns the batch fields whose features may stand in their place, and the encoder whose frozen frontend makes them.

    A field that a second encoder reads is none of them: it would get the features of the first.
    """
    readers: dict[str, list[str]] = {}
    for name, encoder in encoders.items():
        for source in {source for sources in encoder.provides.values() for source in sources}:
            readers.setdefault(source, []).append(name)
    return {
        field: name
        for name, encoder in encoders.items()
        for field in encoder.frontends
        if readers.get(field, [name]) == [name]
    }


def check_cache(encoders: Mapping[str, Encoder], augmented: Collection[str] = ()) -> None:
    """Checks that features can be kept in memory.

    Args:
        encoders: of the model.
        augmented: the media that the data module changes at random.

    Raises:
        DataSettingError: if no encoder has a frozen frontend, one shares its media with another encoder, or the media of one differ
            from epoch to epoch.
    """
    kinds = {kind for encoder in encoders.values() for kind in encoder.frontends}
    if shared := sorted(kinds - set(cacheable(encoders))):
        readers = [name for name, e in encoders.items() if any(set(shared) & set(s) for s in e.provides.values())]
        raise DataSettingError(
            f"cache_features keeps one set of features of {' and '.join(shared)}, but the encoders {', '.join(readers)} read it, each in "
            "its own way: leave cache_features out"
        )
    if not kinds:
        have = ", ".join(type(encoder).__name__ for encoder in encoders.values())
        raise DataSettingError(
            f"cache_features keeps what frozen frontends make, but the model has none ({have}): leave it out. An encoder declares its "
            "frozen frontends in `Encoder.frontends`"
        )
    if frozen := sorted(kinds & set(augmented)):
        raise DataSettingError(
            f"cache_features would keep the first augmentation of {' and '.join(frozen)} for all epochs: leave out cache_features, or "
            f"{' and '.join(f'data.{kind}_augment' for kind in frozen)}"
        )


class FeatureCache:
    """Features of the frozen frontends, by clip.

    The media of a clip must be the same in every epoch; the data module lets it go to the same rank in each. Ten seconds take about
    100 KB in fp16: 64 KB of audio, 32 KB of 16 frames.

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

    def replace_media(self, batch: Batch, model: EmbeddingModel) -> Batch:
        """Returns the batch with features in place of the media that a frozen frontend reads; all ranks must call it."""
        encoders = model.each_encoder()
        for name, key in cacheable(encoders).items():
            media = batch.read(name) if batch.holds(name) else None
            if media is not None and not isinstance(media, CachedFeatures):
                dim = encoders[key].frontends[name].dim
                batch = batch.with_field(name, self._replace(name, media, batch.ids, model, key, dim))
        return batch

    def _replace(
        self, name: str, media: Any, ids: tuple[str, ...], model: EmbeddingModel, encoder: str, dim: int
    ) -> CachedFeatures:
        rows = self._new(name, ids, media.present)
        device = media.present.device
        wanted = len(rows)
        if isinstance(model, FSDPModule):
            # The weights of a sharded frontend are gathered from all ranks: it runs on all, or on none.
            wanted = int(distributed.sum_over_ranks(torch.full((), wanted, device=device)))
        if wanted:
            made = model.frontend_features(encoder, name, take_rows(media, torch.tensor(rows or [0], device=device)))
            if rows:
                seconds = torch.as_tensor(made.frame_seconds).expand(len(rows))
                self._keep(name, [ids[row] for row in rows], made, seconds)
        return self._join(name, ids, media.present, media.group, dim)

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
