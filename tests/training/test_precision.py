"""Precisions: encoders are cast or run under autocast; objectives, their backward passes and the times of events are not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from peav.encoders import Encoder
from peav.objectives import CaptionPair, Objective
from peav.testing import tiny_batch
from peav.training import PeavModule
from peav.training.losses import evaluate_objectives
from peav.training.precision import cast_media
from peav.types import AudioInput, Embedding, Features, ObjectiveOutput
from tests.training.test_module import fit, make
from tests.training.test_virtual import Gradients


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


class Loudness(Encoder):
    """A stranger's encoder, which computes the same whatever the precision of the run."""

    provides: Mapping[str, tuple[str, ...]] = {"audio": ("audio",)}

    def __init__(self) -> None:
        super().__init__()
        self.dims = {"audio": 16}
        self.map = nn.Linear(64, 16)

    def forward(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Features]:
        audio: AudioInput = inputs["audio"]
        with torch.autocast("cpu", enabled=False):
            pooled = self.map(audio.samples[:, :64].to(self.map.weight.dtype))
        return {"audio": Features(pooled, audio.present, audio.group)}


class Guess(Objective):
    """A stranger's objective: two matrix products, whose gradients are matrix products too, and a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.requires = ("features.audio",)
        self.first, self.second = nn.Linear(16, 33), nn.Parameter(torch.randn(33, 7))

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        x = embeddings["features.audio"].pooled
        logits = self.first(x).tanh() @ self.second
        scale = torch.tensor(1 + 2**-12)  # which half precision rounds to 1
        loss = scale * 1e-3 * logits.logsumexp(1).mean()
        return ObjectiveOutput(loss, torch.tensor(len(x)), {"scale": scale})


def guessing() -> PeavModule:
    torch.manual_seed(0)
    return PeavModule({"audio": Loudness()}, {"guess": Guess()}, embedding_dim=8)


def gradients_of(precision: str, folder: Path) -> dict[str, Tensor]:
    kept = Gradients()
    fit(guessing(), [tiny_batch(6)], folder, 1, enable_checkpointing=False, precision=precision, callbacks=[kept])
    return kept.steps[0]


def test_an_objectives_gradients_are_those_of_full_precision(tmp_path: Path) -> None:
    """Of the same embeddings, in a whole run: backward passes too run outside autocast."""
    full, mixed = gradients_of("32-true", tmp_path), gradients_of("bf16-mixed", tmp_path)
    names = ("objectives.guess.first.weight", "objectives.guess.first.bias", "objectives.guess.second")
    assert full.keys() == mixed.keys() == {*names, "model.encoders.audio.map.weight", "model.encoders.audio.map.bias"}
    for name, gradient in full.items():
        assert gradient.abs().sum() > 0 and torch.equal(mixed[name], gradient), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norms", [False, True])
def test_gradients_at_the_embeddings_are_those_of_full_precision(dtype: torch.dtype, norms: bool) -> None:
    """Lightning has no fp16 on the CPU; small gradients would be zero in it."""
    module = guessing()
    objectives = dict(module._objectives())

    def found(half: bool) -> list[Tensor]:
        with torch.autocast("cpu", dtype, enabled=half):
            made = module.model.embed_batch(tiny_batch(6), module.trained)
            losses = evaluate_objectives(objectives, made, {}, {"guess": 1e-3}, norms=norms)
        return [losses.total, *losses.pooled.values(), *(g for _, g in losses.parameters), *losses.norms.values()]

    for half, full in zip(found(True), found(False), strict=True):
        assert full.abs().sum() > 0 and torch.equal(half, full)


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_tensors_that_an_objective_makes_are_in_full_precision(precision: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"precision": precision, "log_every_n_steps": 1}
    trainer = fit(guessing(), [tiny_batch(6)], tmp_path, 1, enable_checkpointing=False, **options)
    assert float(trainer.callback_metrics["train/guess/scale"]) == 1 + 2**-12
    assert torch.get_default_dtype() == torch.float32
