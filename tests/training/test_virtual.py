"""Virtual batches equal real ones: embeddings, losses, gradients, random numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from peav.embedding_model import EmbeddingModel
from peav.encoders import DacAudioEncoder, Encoder, FrameVideoEncoder, TextEncoder
from peav.objectives import CaptionPair, FrameAlignment, Objective, SegmentPair
from peav.testing import tiny_batch
from peav.testing.rows import take
from peav.training import PeavModule
from peav.training.features import FeatureCache
from peav.training.losses import evaluate_objectives
from peav.training.virtual import join_embeddings, join_rows
from peav.types import AudioInput, Batch, CachedFeatures
from tests.helpers import SMALL_ENCODERS, small_encoders, small_tokenizer

CLIPS = 8


class Chunks(LightningDataModule):
    """Batches that are there already."""

    def __init__(self, batches: list[Batch], batch_size: int) -> None:
        super().__init__()
        self.batches, self.batch_size = batches, batch_size

    def train_dataloader(self) -> Any:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]


class Gradients(Callback):
    """Seeds the random numbers before the first batch, and keeps the gradients of every optimizer step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            torch.manual_seed(5)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.steps.append({n: p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None})


def clips(number: int = CLIPS) -> Batch:
    """A tiny batch with waveforms in float64."""
    batch = tiny_batch(number)
    assert isinstance(batch.audio, AudioInput)
    return replace(batch, audio=replace(batch.audio, samples=batch.audio.samples.double()))


def cut(batch: Batch, size: int) -> list[Batch]:
    """Takes a batch apart; every chunk keeps all phrases, of which it holds its own clips' events."""
    parts = []
    for begin in range(0, len(batch), size):
        rows = torch.arange(begin, min(begin + size, len(batch)))
        fields = {name: take(getattr(batch, name), rows) for name in ("audio", "video")}
        captions = {kind: take(text, rows) for kind, text in batch.captions.items()}
        assert batch.events is not None
        events = take(batch.events, rows)
        ids = tuple(batch.ids[row] for row in rows)
        parts.append(Batch(ids, captions=captions, events=events, **fields))
    return parts


def encoders_of(kind: str) -> dict[str, Encoder]:
    """`small`: those of tiny_cpu.yaml. `released`: DAC and PE, frozen. `shapes`: a ViT and BERT, whose shapes ranks do not divide."""
    encoders = small_encoders()
    if kind == "released":
        encoders |= {"audio": SMALL_ENCODERS["DacAudioEncoder"](), "video": SMALL_ENCODERS["PEVideoEncoder"]()}
    if kind == "shapes":
        vit = {"img_size": 32, "embed_dim": 12, "depth": 2, "num_heads": 2}
        encoders["video"] = FrameVideoEncoder(
            dim=16, num_layers=1, num_heads=2, frame_model="vit_tiny_patch16_224", frame_options=vit
        )
        bert = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
        encoders["text"] = TextEncoder(small_tokenizer(), architecture="bert", options=NO_DROPOUT | bert)
    return encoders


#: BERT has dropout by default, which ranks draw apart.
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make(dropout: float = 0.0, encoders: str = "small", **options: Any) -> PeavModule:
    torch.manual_seed(0)
    built = encoders_of(encoders)
    if dropout:
        for module in built["text"].modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = dropout
        config = built["text"].model.config  # type: ignore[union-attr]
        config.attention_dropout = dropout  # type: ignore[union-attr]
    objectives: dict[str, Objective | None] = {
        "audio": CaptionPair("audio", "audio"),
        "audio_video": SegmentPair("audio", "video"),
        "both": CaptionPair("audio_video", "audio_video"),
        "plus": SegmentPair("audio_plus_text", "video"),
        "frame": FrameAlignment(),
    }
    return PeavModule(built, objectives, embedding_dim=8, **options).double()


def run(module: PeavModule, batches: list[Batch], size: int, folder: Path, **options: Any) -> list[dict[str, Tensor]]:
    kept = Gradients()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[kept],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        **options,
    )
    trainer.fit(module, datamodule=Chunks(batches, size))
    return kept.steps


def by_hand(module: PeavModule, batches: list[Batch]) -> dict[str, Tensor]:
    """The whole batch with one graph: each chunk's encoders draw the random numbers that they draw in the first pass."""
    module.train()
    torch.manual_seed(5)
    parts = [module.model.embed_batch(batch.to("cpu"), module.trained, module.frames) for batch in batches]
    joined = {name: join_rows([part[name] for part in parts]) for name in parts[0]}
    targets = {"events": join_rows([batch.events for batch in batches])}
    objectives = dict(module._objectives())
    total = sum(
        o({name: joined[name] for name in o.requires}, {t: targets[t] for t in o.targets}).loss
        for o in objectives.values()
    )
    assert isinstance(total, Tensor)
    total.backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("storage", ["memory", "disk"])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_virtual_batch_equals_the_whole_with_dropout(size: int, storage: str, tmp_path: Path) -> None:
    batches = cut(clips(), size)
    module = make(0.2, virtual_batch_size=CLIPS, virtual_batch_storage=storage)
    expected = by_hand(make(0.2), batches)
    steps = run(module, batches, size, tmp_path)
    assert len(steps) == 1 and steps[0].keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(steps[0][name], gradient, rtol=1e-10, atol=1e-12)
    scale = steps[0]["objectives.audio.logit_scale"] / expected["objectives.audio.logit_scale"]
    assert float(scale) == pytest.approx(1, abs=1e-12)


def test_chunks_of_any_size_give_one_gradient(tmp_path: Path) -> None:
    batch = clips()
    whole = run(make(), [batch], CLIPS, tmp_path)[0]
    for size in (1, 4):
        (found,) = run(make(virtual_batch_size=CLIPS), cut(batch, size), size, tmp_path)
        for name, gradient in whole.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-11)


def test_steps_clipping_and_the_rest_of_an_epoch(tmp_path: Path) -> None:
    """Five chunks of two make a virtual batch of eight clips and one of the two that are left."""
    batches = cut(clips(), 2)
    module = make(virtual_batch_size=CLIPS, learning_rate=1e-3, warmup_steps=1)
    steps = run(module, [*batches, batches[0]], 2, tmp_path, gradient_clip_val=1e-3)
    assert len(steps) == 2 and module.trainer.global_step == 2
    assert module.trainer.estimated_stepping_batches == 2
    total = torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]).norm()
    assert float(total) == pytest.approx(1e-3, rel=1e-4)


def test_the_objectives_are_evaluated_once_a_virtual_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Objective] = []
    inner = Objective.__call__

    def counted(self: Objective, *args: Any) -> Any:
        calls.append(self)
        return inner(self, *args)

    monkeypatch.setattr(Objective, "__call__", counted)
    run(make(virtual_batch_size=CLIPS), cut(clips(), 2), 2, tmp_path)
    assert len(calls) == 5


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (8, {"virtual_batch_size": 12}, "virtual_batch_size=12 is no multiple of 8"),
        (8, {"virtual_batch_size": 4}, "virtual_batch_size=4 is no multiple of 8"),
        (8, {"virtual_batch_size": 16, "accumulate": 3}, "accumulate_grad_batches adds no negatives"),
    ],
)
def test_what_makes_no_virtual_batch_is_named(size: int, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    accumulate = options.pop("accumulate", 1)
    with pytest.raises(ValueError, match=message):
        run(make(**options), [clips()], size, tmp_path, accumulate_grad_batches=accumulate)


def test_joined_chunks_are_the_batch() -> None:
    batch = clips()
    events = join_rows([part.events for part in cut(batch, 3)])
    assert batch.events is not None
    assert torch.equal(events.clip, batch.events.clip) and torch.equal(events.annotated, batch.events.annotated)
    group = events.phrases.group
    assert torch.equal(group[events.phrase], batch.events.phrases.group[batch.events.phrase])
    with pytest.raises(ValueError, match="16000"):
        join_rows([16000, 8000])


def test_gradient_norms_are_those_of_each_objective() -> None:
    module = make()
    batch = clips()
    made = module.model.embed_batch(batch, module.trained, module.frames)
    objectives = dict(module._objectives())
    weights = {"audio": 0.5, "audio_video": 1.0, "both": 0.0, "plus": 1.0, "frame": 2.0}
    found = evaluate_objectives(objectives, made, {"events": batch.events}, weights, norms=True)
    assert set(found.norms) == set(objectives) - {"both"}
    leaves = join_embeddings([{name: made[name] for name in made}])
    for name in ("audio", "frame"):
        objective = objectives[name]
        some = {key: leaves[key] for key in objective.requires}
        loss = weights[name] * objective(some, {t: batch.read(t) for t in objective.targets}).loss
        tensors = [t for e in some.values() for t in (e.pooled, e.frames) if t is not None]
        gradients = [g for g in torch.autograd.grad(loss, tensors, allow_unused=True) if g is not None]
        expected = torch.stack([g.norm() for g in gradients]).norm()
        torch.testing.assert_close(found.norms[name], expected, rtol=1e-10, atol=0)


def test_chunks_of_a_run_that_broke_off_belong_to_no_other(tmp_path: Path) -> None:
    batches = cut(clips(), 2)
    module = make(virtual_batch_size=CLIPS)
    with pytest.raises(KeyError, match="carries no 'audio'"):
        run(module, [*batches[:2], replace(batches[2], audio=None), batches[3]], 2, tmp_path)
    assert module.virtual is not None and module.virtual.pending == 2
    found = run(module, batches, 2, tmp_path)[0]
    expected = run(make(virtual_batch_size=CLIPS), batches, 2, tmp_path)[0]
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="virtual_batch_size must be a number of clips, not 0"):
        make(virtual_batch_size=0)


def test_what_frozen_frontends_make_is_kept_as_it_is() -> None:
    encoder = SMALL_ENCODERS["DacAudioEncoder"]().double()
    assert isinstance(encoder, DacAudioEncoder)
    batch = clips(3)
    assert isinstance(batch.audio, AudioInput)
    kept = FeatureCache("exact").replace_media(batch, EmbeddingModel({"audio": encoder})).audio
    assert isinstance(kept, CachedFeatures) and kept.values.dtype == torch.float64
    made = encoder.frontend_features("audio", batch.audio)
    assert torch.equal(kept.values[made.mask], made.values[made.mask]) and torch.equal(kept.mask, made.mask)
