"""Training from a checkpoint: what is loaded, what starts anew, and what is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from peav import registry
from peav.checkpoints import CheckpointError
from peav.encoders import DacAudioEncoder, Encoder
from peav.model import PEAV
from peav.objectives import CaptionPair, FrameAlignment, Objective, PairObjective, SegmentPair
from peav.objectives.functional import fit_scale_and_bias, sigmoid_pair_loss
from peav.testing import tiny_batch
from peav.training import PeavModule
from peav.training.features import FeatureCache
from peav.types import AudioInput, Batch, Features
from tests.checkpoints.test_formats import released_like
from tests.helpers import small_encoders
from tests.training.test_module import fit


def objectives() -> dict[str, Objective | None]:
    return {
        "audio": CaptionPair("audio", "audio"),
        "audio_video": SegmentPair("audio", "video"),
        "both_by_audio": CaptionPair("audio_video", "audio"),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released_like(seed=3).save_pretrained(tmp_path_factory.mktemp("initial"), "transformers")


def batch(rows: int = 4) -> Batch:
    """Clips as the tiny model takes them: 48 kHz, 56 pixels."""
    found = tiny_batch(rows, vocab_size=30, image_size=56)
    assert isinstance(found.audio, AudioInput)
    audio = found.audio
    return Batch(
        found.ids,
        AudioInput(audio.samples, audio.mask, audio.present, audio.group, 48000),
        found.video,
        found.captions,
        found.events,
        found.duration,
    )


def test_weights_scales_and_raw_heads_are_the_checkpoints(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = PEAV.from_pretrained(folder)
    with caplog.at_level("WARNING"):
        module = PeavModule(objectives=objectives(), init_from=str(folder))
    assert module.model.normalize is False and module.model.embedding_dim == source.embedding_dim
    assert set(module.model.encoders) == {"audio", "video", "audio_video", "text"}
    state = source.state_dict()
    for key, tensor in module.model.state_dict().items():
        assert torch.equal(tensor, state[key]), key
    for name, pair in (("audio", ("audio", "text_audio")), ("audio_video", ("audio", "video"))):
        scale, bias = source.score(pair)
        objective: Any = module.objectives[name]
        torch.testing.assert_close(objective.logit_scale.exp(), scale, rtol=1e-6, atol=0)
        assert torch.equal(objective.logit_bias, bias)
        assert objective.calibrate is False
    unknown: Any = module.objectives["both_by_audio"]
    assert unknown.calibrate is True
    assert "no scale and bias for both_by_audio (audio_video x text_audio)" in caplog.text


def test_the_first_batch_fits_the_pairs_without_a_published_scale(folder: Path, tmp_path: Path) -> None:
    module = PeavModule(objectives=objectives(), init_from=str(folder), learning_rate=0.0, weight_decay=0.0)
    objective: Any = module.objectives["both_by_audio"]
    before = objective.logit_scale.clone(), objective.logit_bias.clone()
    fit(module, [batch(8)], tmp_path, 1, enable_checkpointing=False)
    assert objective.calibrate is False
    assert not torch.equal(objective.logit_scale, before[0]) and not torch.equal(objective.logit_bias, before[1])
    with torch.no_grad():
        found = module.model.embed_batch(batch(8), ["audio_video", "text_audio"])
    left, right = found["audio_video"].pooled, found["text_audio"].pooled
    fitted = sigmoid_pair_loss(left, right, objective.logit_scale, objective.logit_bias)
    assert fitted < sigmoid_pair_loss(left, right, *before)


def test_a_fit_is_near_the_best_scale_and_bias() -> None:
    torch.manual_seed(0)
    size = 256
    dots = 20 + 5 * torch.randn(size, size) + 15 * torch.eye(size)
    own = torch.eye(size, dtype=torch.bool)

    def sums(where: torch.Tensor) -> torch.Tensor:
        return torch.stack((where.sum().float(), dots[where].sum(), dots[where].square().sum()))

    scale, bias = fit_scale_and_bias(sums(own), sums(~own))
    parameters = torch.tensor([scale, bias], requires_grad=True)

    def loss() -> torch.Tensor:
        logits = dots * parameters[0].exp() + parameters[1]
        return -torch.nn.functional.logsigmoid(torch.where(own, logits, -logits)).sum() / size

    first = float(loss())
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    assert first < 1.05 * float(loss())
    # An untrained batch, in which positives are no nearer than negatives, keeps a scale that can learn.
    low, _ = fit_scale_and_bias(torch.tensor([4.0, 0.0, 4.0]), torch.tensor([12.0, 12.0, 24.0]))
    assert low == pytest.approx(torch.tensor(0.1).log().item(), abs=0.1)


def test_the_head_of_phrases_starts_as_that_of_audio_captions(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = PEAV.from_pretrained(folder)
    with caplog.at_level("WARNING"):
        module = PeavModule(objectives={"frame": FrameAlignment()}, init_from=str(folder))
    assert "has no head for text_event: it starts as that of text_audio" in caplog.text
    assert "they start anew" not in caplog.text
    assert set(module.model.encoders) == {"audio", "text"}
    for name, tensor in module.model.heads["text_event"].state_dict().items():
        assert torch.equal(tensor, source.heads["text_audio"].state_dict()[name])


def test_a_head_that_the_checkpoint_lacks_starts_anew(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = PeavModule(objectives={"video": CaptionPair("video", "video")}, init_from=str(folder))
    fit(module, [batch()], tmp_path, 1).save_checkpoint(tmp_path / "last.ckpt")
    with caplog.at_level("WARNING"):
        PeavModule(objectives={"video": CaptionPair("video", "audio")}, init_from=str(tmp_path / "last.ckpt"))
    assert "has no head for text_audio: they start anew" in caplog.text


def test_phrases_through_the_head_of_captions_are_trained_saved_and_exported(folder: Path, tmp_path: Path) -> None:
    """The texts of both embed alike, before training and after, in the checkpoint and in the folder made of it."""
    options = {"text": {"phrase_head": "audio"}}
    trained: dict[str, Objective | None] = {"frame": FrameAlignment(), "audio": CaptionPair("audio", "audio")}
    module = PeavModule(objectives=trained, init_from=str(folder), encoder_options=options, learning_rate=1e-2)
    assert "text_event" not in module.model.heads and "text_event" in module.model.embedding_names
    fit(module, [batch()] * 2, tmp_path, 2).save_checkpoint(tmp_path / "last.ckpt")
    model = PEAV.from_pretrained(tmp_path / "last.ckpt")
    for one in (model, PEAV.from_pretrained(model.save_pretrained(tmp_path / "folder"))):
        with torch.no_grad():
            found = one.embed_batch(tiny_events_batch())
        text, phrase = found["text_audio"].pooled, found["text_event"].pooled
        assert torch.equal(text, phrase) and float(text.abs().sum()) > 0
    with pytest.raises(ValueError, match="phrase_head is 'title', but it reads captions of audio, video, audio_video"):
        PeavModule(objectives=trained, init_from=str(folder), encoder_options={"text": {"phrase_head": "title"}})


def tiny_events_batch() -> Batch:
    """A batch whose audio captions are the phrases of its events."""
    found = batch(3)
    assert found.events is not None
    return replace(found, captions={**found.captions, "audio": found.events.phrases})


def test_a_trained_checkpoint_becomes_a_model_with_its_scales(folder: Path, tmp_path: Path) -> None:
    module = PeavModule(objectives=objectives(), init_from=str(folder), learning_rate=1e-3)
    trainer = fit(module, [batch()] * 2, tmp_path, 2)
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    model = PEAV.from_pretrained(path)
    assert model.pairs == (("audio", "text_audio"), ("audio", "video"), ("audio_video", "text_audio"))
    scale, _ = model.score(("audio", "video"))
    own: Any = module.objectives
    torch.testing.assert_close(scale, own["audio_video"].logit_scale.detach().exp())
    with torch.no_grad():
        found, expected = model.embed_batch(batch()), module.eval().model.embed_batch(batch())
    for name in expected:
        assert torch.equal(found[name].pooled, expected[name].pooled)
    # And training goes on from it.
    again = PeavModule(objectives=objectives(), init_from=str(path))
    resumed: Any = again.objectives["audio"]
    torch.testing.assert_close(resumed.logit_scale, own["audio"].logit_scale)


def test_disagreement_with_the_checkpoint_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"normalize=True, but the checkpoint of init_from has normalize=False"):
        PeavModule(objectives=objectives(), init_from=str(folder), normalize=True)
    with pytest.raises(ValueError, match=r"names the encoder 'vidoe'\. Did you mean 'video'"):
        PeavModule(objectives=objectives(), init_from=str(folder), encoder_options={"vidoe": {}})
    with pytest.raises(ValueError, match=r"encoder 'audio' has no argument 'num_layer'\. Did you mean 'num_layers'"):
        PeavModule(objectives=objectives(), init_from=str(folder), encoder_options={"audio": {"num_layer": 1}})
    with pytest.raises(ValueError, match="they need init_from"):
        PeavModule(objectives=objectives(), encoder_options={"video": {}})
    with pytest.raises(ValueError, match="they need init_from"):
        PeavModule(objectives=objectives(), init_revision="perception_models")
    with pytest.raises(ValueError, match=r"set model\.encoders, or model\.init_from"):
        PeavModule(objectives=objectives())
    with pytest.raises(CheckpointError, match=r"heads\.|encoders\..* is .*, this model's is"):
        PeavModule(objectives=objectives(), init_from=str(folder), encoder_options={"video": {"mlp_dim": 96}})


@pytest.mark.parametrize("options", [{"audio": {"num_layers": 1}}, {"text": {"layer": 1}}])
def test_layers_of_the_checkpoint_are_never_dropped(folder: Path, options: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(CheckpointError, match=r"would be dropped: encoders|unexpected: text_model"):
        PeavModule(objectives=objectives(), init_from=str(folder), encoder_options=options)


@pytest.mark.parametrize("tune", ["heads", "last", "lora", "all"])
def test_frame_layers_that_were_asked_for_are_trained_by_every_budget(folder: Path, tune: Any) -> None:
    if tune == "lora":
        pytest.importorskip("peft")
    options = {"video": {"trainable_frame_layers": 1}}
    module = PeavModule(objectives=objectives(), init_from=str(folder), tune=tune, encoder_options=options)
    trained = {name for name, p in module.model.named_parameters() if "frontend" in name and p.requires_grad}
    assert trained and all("encoders.video.frontend.model." in name for name in trained)
    assert any(".blocks.1." in name for name in trained) and not any(".blocks.0." in name for name in trained)


TUNED = {
    "heads": ("heads.",),
    "last": ("heads.", ".transformer.blocks.1.", ".transformer.norm.", ".transformer.output.", ".model.layers.1."),
    "lora": ("heads.", "lora_"),
}


@pytest.mark.parametrize("tune", ["all", "last", "lora", "heads"])
def test_only_what_is_tuned_moves(folder: Path, tmp_path: Path, tune: Any) -> None:
    if tune == "lora":
        pytest.importorskip("peft")
    options: dict[str, Any] = {"tune_layers": 1, "lora_rank": 2, "learning_rate": 1e-2, "weight_decay": 0.1}
    module = PeavModule(objectives=objectives(), init_from=str(folder), tune=tune, **options)
    before = {name: p.detach().clone() for name, p in module.model.named_parameters()}
    trainer = fit(module, [batch()] * 3, tmp_path, 3)
    moved = {name for name, p in module.model.named_parameters() if not torch.equal(p, before[name])}
    frozen = {name for name in before if ".frontend." in name or name.endswith("final_norm.weight")}
    if tune == "all":
        assert moved == set(before) - frozen
    else:
        assert moved == {name for name in before if any(part in name for part in TUNED[tune])} - frozen
        assert any(name.startswith("heads.") for name in moved)
    # Whatever was tuned, the checkpoint rebuilds the model and becomes a plain PEAV.
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    rebuilt = PeavModule.load_from_checkpoint(path, weights_only=True).eval()
    plain = PEAV.from_pretrained(path)
    with torch.no_grad():
        expected = module.eval().model.embed_batch(batch())
        for other in (rebuilt.model, plain):
            for name, embedding in other.embed_batch(batch()).items():
                torch.testing.assert_close(embedding.pooled, expected[name].pooled, atol=1e-5, rtol=1e-5)
    assert not any("lora" in name for name, _ in plain.named_parameters())


def test_frame_layers_can_be_trained_and_checkpointed(folder: Path, tmp_path: Path) -> None:
    options: dict[str, dict[str, Any]] = {
        "video": {"trainable_frame_layers": 1, "activation_checkpointing": True},
        "audio": {"activation_checkpointing": True},
        "audio_video": {"activation_checkpointing": True},
        "text": {"activation_checkpointing": True},
    }
    plain = PeavModule(
        objectives=objectives(), init_from=str(folder), encoder_options={"video": {"trainable_frame_layers": 1}}
    )
    module = PeavModule(objectives=objectives(), init_from=str(folder), encoder_options=options)
    losses = [float(fit_one(m, tmp_path)) for m in (plain, module)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for (name, p), (_, q) in zip(plain.model.named_parameters(), module.model.named_parameters(), strict=True):
        trained = name.startswith("encoders.video.frontend.model.") and p.grad is not None
        if trained:
            assert ".blocks.1." in name or ".norm." in name or ".attn_pool." in name or ".head." in name
        if p.grad is not None and q.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, atol=1e-4 * float(p.grad.abs().max()), rtol=1e-3)
        assert (p.grad is None) == (q.grad is None)
    assert any(".blocks.1." in n and p.grad is not None for n, p in plain.model.named_parameters() if "frontend" in n)
    with pytest.raises(ValueError, match=r"trainable_frame_layers must lie in 0\.\.2"):
        PeavModule(
            objectives=objectives(), init_from=str(folder), encoder_options={"video": {"trainable_frame_layers": 3}}
        )


class SecondEar(DacAudioEncoder):
    """Another encoder of the same field, with a frontend of its own."""

    provides: Mapping[str, tuple[str, ...]] = {"ear": ("audio",)}
    hides = ()

    def __init__(self) -> None:
        super().__init__(**EAR)
        self.dims = {"ear": 16}

    def forward(self, inputs: Mapping[str, Any], names: Any) -> dict[str, Features]:
        return {"ear": super().forward(inputs, names)["audio"]}


EAR: dict[str, Any] = {
    "dim": 16,
    "num_layers": 1,
    "num_heads": 2,
    "sample_rate": 16000,
    "codec_hidden_size": 2,
    "codec_ratios": (2, 4),
    "codec_dim": 4,
}


def test_two_encoders_of_a_field_keep_their_own_frontends() -> None:
    """One set of features cannot stand for both: a cache is refused, and a virtual batch keeps the media."""
    torch.manual_seed(0)
    encoders: dict[str, Any] = {"audio": DacAudioEncoder(**EAR), "ear": SecondEar()}
    model = PEAV(encoders, embedding_dim=8).eval()
    some = tiny_batch(3)
    with torch.no_grad():
        expected = model.embed_batch(some)
        found = model.embed_batch(FeatureCache("exact").replace_media(some, model))
    for name, embedding in expected.items():
        torch.testing.assert_close(found[name].pooled, embedding.pooled, rtol=0, atol=0)
    with pytest.raises(ValueError, match="one set of features of audio, but the encoders audio, ear read it"):
        PeavModule(encoders, {"pair": SegmentPair("audio", "ear")}, cache_features="fp32")


def fit_one(module: PeavModule, folder: Path) -> torch.Tensor:
    embeddings = module.model.embed_batch(batch(), module.trained)
    total = torch.zeros(())
    for objective in module.objectives.values():
        assert isinstance(objective, PairObjective)
        objective.calibrate = False
        total = total + objective({key: embeddings[key] for key in objective.requires}, {}).loss
    total.backward()
    return total.detach()


class Losses(Callback):
    """Keeps every training loss, and how often the DAC ran."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_training_from_kept_features_equals_training_from_media(folder: Path, tmp_path: Path, precision: Any) -> None:
    found, runs = [], []
    for cache in (None, precision):
        torch.manual_seed(0)
        module = PeavModule(
            objectives=objectives(), init_from=str(folder), tune="heads", cache_features=cache, learning_rate=1e-3
        )
        audio = module.model.encoders["audio"]
        assert isinstance(audio, DacAudioEncoder)
        seen: list[int] = []
        audio.frontend.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(len(inputs[0])))
        callback = Losses()
        fit(module, [batch()] * 5, tmp_path, 5, enable_checkpointing=False, callbacks=[callback])
        found.append(callback.losses)
        runs.append(sum(seen))
    assert runs == [20, 4]
    assert found[0] == pytest.approx(found[1], rel=1e-5 if precision == "fp32" else 2e-2)
    assert len(set(found[0])) == 5


class Tabled(Encoder):
    """A stranger's encoder whose constructor computes with tensors, as filter banks and position tables do."""

    provides: Mapping[str, tuple[str, ...]] = {"audio": ("audio",)}

    def __init__(self, size: int = 16) -> None:
        super().__init__()
        table = torch.linspace(0, 1, size)
        if not bool((table.diff() > 0).all()):
            raise ValueError("the table must ascend")
        self.register_buffer("table", torch.from_numpy(table.numpy() ** 2))
        self.dims = {"audio": round(table.sum().item() * 2)}
        self.map = nn.Linear(size, self.dims["audio"])
        self.last = float(self.map.weight.detach().abs().max())

    def forward(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Features]:
        audio: AudioInput = inputs["audio"]
        table: Any = self.table
        return {"audio": Features(self.map(audio.samples[:, : len(table)] * table), audio.present, audio.group)}


@pytest.mark.parametrize("kind", ["MelAudioEncoder", "Tabled"])
def test_a_run_begins_with_a_checkpoint_of_any_encoder(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.encoders._classes, "Tabled", Tabled)
    audio = Tabled() if kind == "Tabled" else small_encoders()["audio"]
    chosen: dict[str, Objective | None] = {"audio": CaptionPair("audio", "audio")}
    first = PeavModule({"audio": audio, "text": small_encoders()["text"]}, chosen, embedding_dim=8)
    fit(first, [tiny_batch(4)], tmp_path, 1, enable_checkpointing=False).save_checkpoint(tmp_path / "first.ckpt")
    second = PeavModule(objectives={"audio": CaptionPair("audio", "audio")}, init_from=str(tmp_path / "first.ckpt"))
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], tensor, rtol=1e-6, atol=0)
    fit(second, [tiny_batch(4)], tmp_path, 1, enable_checkpointing=False)
