"""Whole-model precisions of Lightning (`bf16-true`, `16-true`, `64-true`) for what it cannot or must not convert.

Batches are frozen, which Lightning's own conversion refuses; and of a batch only media are numbers to compute with, while times of
events and frames would lose their hundredths. The objectives' scalars stay in fp32: bf16 turns a scale of 10 into 9.94, and loses
every small step from there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision, Precision
from torch import nn

from peav.types import AudioInput, Batch, CachedFeatures

_DTYPES = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}


def teach_precision(plugin: Precision) -> None:
    """Lets a precision plugin convert a `Batch` and the encoders alone; those of mixed precision convert nothing and stay as they are."""
    if not isinstance(plugin, DoublePrecision | HalfPrecision):
        return
    dtype = _DTYPES[str(plugin.precision)]

    def convert_module(module: nn.Module) -> nn.Module:
        for name, child in module.named_children():
            if dtype == torch.float64 or name != "objectives":
                child.to(dtype)
        return module

    def convert_input(data: Any) -> Any:
        return cast_media(data, dtype)

    plugin.convert_module, plugin.convert_input = convert_module, convert_input  # type: ignore[method-assign]


def cast_media(batch: Batch, dtype: torch.dtype) -> Batch:
    """Returns the batch with waveforms and features in another floating point type; frames are uint8, and cast as they are normalised."""
    fields: dict[str, Any] = {}
    if isinstance(batch.audio, AudioInput):
        fields["audio"] = replace(batch.audio, samples=batch.audio.samples.to(dtype))
    for name in ("audio", "video"):
        value = getattr(batch, name)
        if isinstance(value, CachedFeatures):
            fields[name] = replace(value, values=value.values.to(dtype))
    return replace(batch, **fields)
