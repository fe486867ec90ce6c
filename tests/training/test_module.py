"""The LightningModule assembles any subset and refuses what cannot be trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from peav.encoders import Head
from peav.model import PEAV
from peav.objectives import CaptionPair, FrameAlignment, FusionTeacher, Objective, SegmentPair
from peav.testing import tiny_batch
from peav.training import PeavModule
from peav.training.guard import FiniteGuard
from peav.types import AudioInput, Batch
from tests.helpers import small_encoders

ALL = {
    "audio": lambda: CaptionPair("audio", "audio"),
    "audio_video": lambda: SegmentPair("audio", "video"),
    "both": lambda: CaptionPair("audio_video", "audio_video"),
    "video": lambda: CaptionPair("video", "video"),
    "plus": lambda: SegmentPair("audio_plus_text", "video"),
    "frame": lambda: FrameAlignment(),
}


def make(*names: str, **options: object) -> PeavModule:
    objectives: dict[str, Objective | None] = {name: ALL[name]() for name in names or ALL}
    return PeavModule(small_encoders(), objectives, embedding_dim=8, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "encoders", "fields"),
    [
        (["audio"], {"audio", "text"}, {"audio", "captions.audio"}),
        (["audio_video"], {"audio", "video"}, {"audio", "video"}),
        (["both"], {"audio", "video", "audio_video", "text"}, {"audio", "video", "captions.audio_video"}),
        (["plus"], {"audio", "video", "text", "plus_text"}, {"audio", "video", "captions.video"}),
        (["frame"], {"audio", "text"}, {"audio", "events"}),
    ],
)
def test_only_what_is_needed_is_built_and_read(names: list[str], encoders: set[str], fields: set[str]) -> None:
    module = make(*names)
    assert set(module.model.encoders) == encoders
    assert module.batch_fields == fields
    assert set(module.hparams["encoders"]) == encoders


def test_null_removes_an_objective() -> None:
    module = PeavModule(small_encoders(), {"audio": ALL["audio"](), "audio_video": None}, embedding_dim=8)
    assert list(module.objectives) == ["audio"]
    assert "video" not in module.model.encoders


def test_no_objective_is_refused() -> None:
    with pytest.raises(ValueError, match="no objective is left"):
        PeavModule(small_encoders(), {"audio": None}, embedding_dim=8)


def test_an_unsatisfiable_objective_is_refused_by_name() -> None:
    encoders = {name: encoder for name, encoder in small_encoders().items() if name in ("audio", "video")}
    with pytest.raises(ValueError, match=r"objective 'av' reads 'text_audio', but the encoders provide audio, video"):
        PeavModule(encoders, {"av": CaptionPair("audio", "audio")}, embedding_dim=8)


def test_dimensions_that_do_not_fit_are_refused() -> None:
    encoders = small_encoders()
    encoders["audio_video"] = type(encoders["audio_video"])(
        audio_dim=24, video_dim=16, dim=16, num_layers=1, num_heads=2
    )
    with pytest.raises(ValueError, match=r"expects 'audio' features of dimension 24, but encoder 'audio' makes .* 16"):
        PeavModule(encoders, {"both": ALL["both"]()}, embedding_dim=8)


def test_two_encoders_for_one_feature_are_refused() -> None:
    encoders = {**small_encoders(), "other": small_encoders()["audio"]}
    with pytest.raises(ValueError, match="'audio' and 'other' both provide 'audio'"):
        PeavModule(encoders, {"audio": ALL["audio"]()}, embedding_dim=8)


def fit(module: PeavModule, batches: list[Batch], folder: Path, steps: int, **options: object) -> Trainer:
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        **options,  # type: ignore[arg-type]
    )
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return trainer


def test_training_lowers_every_loss_and_moves_every_parameter(tmp_path: Path) -> None:
    module = make(learning_rate=1e-2, warmup_steps=2)
    batch = tiny_batch(8)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    with torch.no_grad():
        first = losses(module, batch)
    fit(module, [batch] * 30, tmp_path, 30, enable_checkpointing=False)
    with torch.no_grad():
        last = losses(module, batch)
    assert all(last[name] < 0.8 * first[name] for name in first), (first, last)
    still = [name for name, p in module.named_parameters() if torch.equal(p, before[name])]
    assert not still


def losses(module: PeavModule, batch: Batch) -> dict[str, float]:
    embeddings = module.model.embed_batch(batch, frames=module.frames)
    found = {}
    for name, objective in module.objectives.items():
        assert isinstance(objective, Objective)
        needed = {key: embeddings[key] for key in objective.requires}
        found[name] = float(objective(needed, {target: batch.read(target) for target in objective.targets}).loss)
    return found


def test_a_checkpoint_rebuilds_the_model_without_yaml_or_pickles(tmp_path: Path) -> None:
    module = make()
    batch = tiny_batch(8)
    trainer = fit(module, [batch] * 2, tmp_path, 2)
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    loaded = torch.load(path, weights_only=True)
    assert loaded["hyper_parameters"]["encoders"]["audio"]["class_path"] == "MelAudioEncoder"
    rebuilt = PeavModule.load_from_checkpoint(path, weights_only=True).eval()
    module.eval()
    with torch.no_grad():
        expected, found = module.model.embed_batch(batch), rebuilt.model.embed_batch(batch)
    assert set(expected) == set(found)
    for name in expected:
        torch.testing.assert_close(found[name].pooled, expected[name].pooled, rtol=0, atol=0)
    assert rebuilt.model.normalize == module.model.normalize


def test_weight_decay_spares_norms_biases_embeddings_and_objectives(tmp_path: Path) -> None:
    module = make(weight_decay=0.5, learning_rate=1e-3)
    fit(module, [tiny_batch(8)], tmp_path, 1, enable_checkpointing=False)
    groups = module.trainer.optimizers[0].param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    named = dict(module.named_parameters())
    assert set(decays) == {id(p) for p in named.values()}
    for name, parameter in named.items():
        exempt = parameter.ndim < 2 or name.startswith("objectives.") or "tok_embeddings" in name
        assert decays[id(parameter)] == (0.0 if exempt else 0.5), name
    assert "model.encoders.text.model.embeddings.tok_embeddings.weight" in named


def test_a_loss_that_is_not_finite_stops_with_the_clips(tmp_path: Path) -> None:
    module = make("audio", max_nonfinite_steps=2)
    head = module.model.heads["audio"]
    assert isinstance(head, Head)
    torch.nn.init.constant_(head.proj.weight, torch.nan)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    with pytest.raises(FloatingPointError, match=r"the loss is not finite.*clip-0.*2 steps in a row"):
        fit(module, [tiny_batch(4)] * 3, tmp_path, 3, enable_checkpointing=False)
    assert module.guard.skipped == 2
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter.nan_to_num(7), before[name].nan_to_num(7)), f"{name} was moved"


def test_a_step_that_is_not_finite_is_left_out_and_names_its_clip(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = tiny_batch(4), tiny_batch(4)
    assert isinstance(bad.audio, AudioInput)
    bad.audio.samples[2] = torch.nan
    module = make("audio")
    fit(module, [good, bad, good], tmp_path, 3, enable_checkpointing=False)
    assert (module.guard.skipped, module.guard.in_row) == (1, 0)
    (message,) = [record.message for record in caplog.records if "left out" in record.message]
    # A neighbour may be named too: packed rows meet in a convolution, where NaN times zero is NaN.
    assert message.startswith("step 1 is left out: the loss is not finite. Clips: ")
    assert "clip-2" in message and "clip-0" not in message
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_batches_without_a_valid_pair_are_counted(tmp_path: Path) -> None:
    module = make("audio")
    batch = tiny_batch(4)
    absent = torch.zeros(4, dtype=torch.bool)
    captions = batch.captions["audio"]
    changed = type(captions)(captions.input_ids, captions.mask, absent, captions.group, captions.texts)
    empty = Batch(
        batch.ids, batch.audio, batch.video, {**batch.captions, "audio": changed}, batch.events, batch.duration
    )
    fit(module, [empty, batch, empty], tmp_path, 3, enable_checkpointing=False)
    assert module.empty_batches == {"audio": 2}


def test_extra_embeddings_are_built_but_not_trained(tmp_path: Path) -> None:
    module = make("audio", extra_embeddings=["video", "text_video"], weight_decay=0.5, learning_rate=1e-2)
    assert set(module.model.embedding_names) == {"audio", "text_audio", "video", "text_video"}
    assert module.batch_fields == {"audio", "captions.audio"}
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    fit(module, [tiny_batch(8)], tmp_path, 1, enable_checkpointing=False)
    for name, parameter in module.named_parameters():
        extra = name.startswith(("model.encoders.video", "model.heads.video", "model.heads.text_video"))
        assert torch.equal(parameter, before[name]) == extra, name


def test_a_teacher_that_nothing_trains_is_refused(tmp_path: Path) -> None:
    alone = PeavModule(small_encoders(), {"teach": FusionTeacher("audio")}, embedding_dim=8)
    with pytest.raises(ValueError, match="learns from 'audio_video', which no other objective trains"):
        fit(alone, [tiny_batch(4)], tmp_path, 1)
    trained = CaptionPair("audio_video", "audio_video")
    both = PeavModule(small_encoders(), {"teach": FusionTeacher("audio"), "both": trained}, embedding_dim=8)
    fit(both, [tiny_batch(4)], tmp_path, 1, enable_checkpointing=False)


def test_a_run_of_a_teacher_alone_that_began_with_a_checkpoint_is_read_again(tmp_path: Path) -> None:
    trained = fit(make(), [tiny_batch(4)], tmp_path, 1, enable_checkpointing=False)
    trained.save_checkpoint(tmp_path / "first.ckpt")
    taught = PeavModule(objectives={"teach": FusionTeacher("audio")}, init_from=str(tmp_path / "first.ckpt"))
    fit(taught, [tiny_batch(4)], tmp_path, 1, enable_checkpointing=False).save_checkpoint(tmp_path / "taught.ckpt")
    (tmp_path / "first.ckpt").unlink()
    module = PeavModule.load_from_checkpoint(tmp_path / "taught.ckpt", weights_only=True)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, taught.state_dict()[name]), name
    fit(module, [tiny_batch(4)], tmp_path, 1, enable_checkpointing=False)
    assert set(PEAV.from_pretrained(tmp_path / "taught.ckpt").embedding_names) == {"audio", "audio_video"}


def test_accumulated_batches_name_the_guilty_one_and_step_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(CaptionPair, "after_step", lambda self: calls.append(self))
    bad = tiny_batch(4)
    bad = Batch(tuple(f"bad-{name}" for name in bad.ids), bad.audio, bad.video, bad.captions, bad.events)
    assert isinstance(bad.audio, AudioInput)
    bad.audio.samples[:] = torch.nan
    module = make("audio")
    fit(module, [bad, tiny_batch(4)] * 2, tmp_path, 2, enable_checkpointing=False, accumulate_grad_batches=2)
    assert "the loss is not finite. Clips: bad-clip-0" in caplog.text and module.guard.skipped == 2
    assert len(calls) == 2


def test_gradients_that_are_large_but_finite_are_kept() -> None:
    guard, parameter = FiniteGuard(3), torch.nn.Parameter(torch.zeros(10**6, dtype=torch.float16))
    parameter.grad = torch.full_like(parameter, 100)
    guard.watch(torch.tensor(1.0), ["a"], {})
    guard.check([parameter], 0)
    assert guard.skipped == 0 and parameter.grad is not None
    parameter.grad[7] = torch.nan
    guard.watch(torch.tensor(1.0), ["a"], {})
    guard.check([parameter], 1)
    assert guard.skipped == 1 and parameter.grad is None
