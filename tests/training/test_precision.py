"""Whole-model precisions: the encoders are cast, the objectives' scalars and the times of events are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peav.objectives import CaptionPair
from peav.testing import tiny_batch
from peav.training.precision import cast_media
from peav.types import AudioInput
from tests.training.test_module import fit, make


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-true", torch.bfloat16), ("64-true", torch.float64)])
def test_a_run_casts_encoders_and_trains_scalars_in_full(precision: str, dtype: torch.dtype, tmp_path: Path) -> None:
    module = make(learning_rate=1e-3, warmup_steps=0)
    objective = module.objectives["audio"]
    assert isinstance(objective, CaptionPair)
    before = objective.logit_scale.detach().clone()
    fit(module, [tiny_batch(4)] * 2, tmp_path, 2, enable_checkpointing=False, precision=precision)
    assert {p.dtype for p in module.model.parameters()} == {dtype}
    scale = objective.logit_scale
    assert scale.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert 0 < float((scale - before).abs()) < 0.01  # steps of 1e-3, which bf16 would round to 0.0156 or nothing


def test_only_media_are_cast() -> None:
    batch = cast_media(tiny_batch(3), torch.bfloat16)
    assert isinstance(batch.audio, AudioInput) and batch.events is not None and batch.video is not None
    assert batch.audio.samples.dtype == torch.bfloat16
    assert batch.events.onset.dtype == torch.float32 and batch.duration is not None
    assert batch.duration.dtype == torch.float32
