"""A scale and a bias for each text: trained, kept, read again, used wherever probabilities are made, and refused where they get lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from peav.checkpoints import CheckpointError
from peav.evaluation import EmbeddingTable, PeavModel
from peav.evaluation.directions import evaluate_frames, frame_logits
from peav.model import PEAV
from peav.objectives import FrameAlignment, Objective, SegmentPair
from peav.objectives.text_score import TextScore
from peav.testing import tiny_batch, tiny_events
from peav.training import PeavModule
from peav.training.evaluated import frame_scale
from tests.checkpoints.test_formats import released_like
from tests.helpers import small_encoders
from tests.training.test_module import fit
from tests.training.test_virtual import clips, cut, run

PAIR = ("audio", "text_event")


def train(folder: Path, **options: Any) -> tuple[PeavModule, Path]:
    torch.manual_seed(0)
    objectives: dict[str, Objective | None] = {
        "frame": FrameAlignment(per_text=True, embedding_dim=8),
        "pair": SegmentPair("audio", "video"),
    }
    module = PeavModule(
        small_encoders(), objectives, embedding_dim=8, learning_rate=0.01, warmup_steps=1, final_fraction=1, **options
    )
    trainer = fit(module, [tiny_batch(8)] * 8, folder, 8)
    trainer.save_checkpoint(folder / "last.ckpt")
    return module.eval(), folder / "last.ckpt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[PeavModule, Path]:
    return train(tmp_path_factory.mktemp("per text"))


def expected_logits(module: PeavModule) -> tuple[dict[str, Any], torch.Tensor]:
    """Embeddings, and by the definition the logits (A, K, T)."""
    with torch.no_grad():
        made = module.model.embed_batch(tiny_batch(8), ["audio", "text_event"], ["audio"])
        frames, texts = made["audio"].frames, made["text_event"].pooled
        score: Any = module.objectives["frame"].text_score
        assert frames is not None
        scale, bias = score.scales(score.norm(texts)).squeeze(1).exp(), score.biases(score.norm(texts)).squeeze(1)
        assert float(scale.std()) > 1e-3 and float(bias.std()) > 1e-3
        logits = torch.stack([scale[k] * (frames @ texts[k]) + bias[k] for k in range(len(texts))], 1)
    return {"audio_frames": frames, "audio": frames[:, 0], "text_event": texts}, logits


def test_what_was_trained_is_what_similarity_uses(trained: tuple[PeavModule, Path], tmp_path: Path) -> None:
    module, path = trained
    embeddings, expected = expected_logits(module)
    model = PEAV.from_pretrained(path)
    assert model.text_pairs == (PAIR,) and PAIR in model.pairs
    saved = PEAV.from_pretrained(model.save_pretrained(tmp_path / "peav"))
    for one in (model, saved):
        frames, texts = {"audio_frames": embeddings["audio_frames"]}, {"text_event": embeddings["text_event"]}
        torch.testing.assert_close(one.similarity(frames, texts), expected)
        torch.testing.assert_close(one.similarity(texts, frames), expected.transpose(0, 1))
        torch.testing.assert_close(one.similarity(texts, frames, PAIR), expected.transpose(0, 1))
        pooled = {"audio": embeddings["audio"]}
        torch.testing.assert_close(one.similarity(pooled, texts, PAIR), expected[:, :, 0])
        torch.testing.assert_close(one.similarity(texts, pooled, PAIR[::-1]), expected[:, :, 0].T)
        with pytest.raises(ValueError, match="each text has its own scale and bias for audio x text_event"):
            one.score(PAIR)
        one.check_score(PAIR)
    with pytest.raises(KeyError, match="holds no scale and bias for audio x text_audio"):
        model.check_score(("audio", "text_audio"))


def test_evaluation_uses_them(trained: tuple[PeavModule, Path]) -> None:
    module, path = trained
    batch = tiny_batch(8)
    assert batch.events is not None
    phrases = list(batch.events.phrases.texts)
    names = [phrases[k] for k in batch.events.phrase.tolist()]
    embeddings, expected = expected_logits(module)
    declared = frame_scale([o for o in module.objectives.values() if isinstance(o, Objective)])
    read = PeavModel(PEAV.from_pretrained(path)).frame_scale
    assert declared is not None and read is not None
    scale, bias = declared.of(embeddings["text_event"])
    assert read.of(embeddings["text_event"]) == (pytest.approx(scale), pytest.approx(bias))
    table = EmbeddingTable(
        clip_ids=list(batch.ids),
        embeddings={},
        clips={},
        groups={},
        frames=list(embeddings["audio_frames"]),
        frame_seconds=0.04,
        phrases=phrases,
        text_event=embeddings["text_event"],
        events=[[(names[row], 0.04, 0.2)] if row < len(names) else [] for row in range(8)],
        logit_scale=scale,
        logit_bias=bias,
    )
    for clip in range(8):
        torch.testing.assert_close(frame_logits(table, clip), expected[clip])
    whole = evaluate_frames(table)
    assert whole.metrics["brier"] is not None and 0 <= whole.metrics["brier"] <= 1
    with pytest.raises(ValueError, match="logit_bias must be one number or one a phrase, got 1 for 3 phrases"):
        replace(table, logit_bias=[0.0])


def test_training_goes_on_from_them_and_from_one_scale_for_all(
    trained: tuple[PeavModule, Path], tmp_path: Path
) -> None:
    module, path = trained
    start: dict[str, Objective | None] = {"frame": FrameAlignment(per_text=True, embedding_dim=8)}
    again = PeavModule(objectives=start, init_from=str(path))
    found, expected = again.objectives["frame"].state_dict(), module.objectives["frame"].state_dict()
    assert set(found) == set(expected) and all(torch.equal(found[key], expected[key]) for key in expected)
    released = released_like(frame_level=True)
    with torch.no_grad():
        released.set_score(PAIR, torch.tensor([7.0]), torch.tensor([-3.0]))
    dim = released.embedding_dim
    folder = released.save_pretrained(tmp_path / "one")
    start = {"frame": FrameAlignment(per_text=True, embedding_dim=dim)}
    score: Any = PeavModule(objectives=start, init_from=str(folder)).objectives["frame"].text_score
    scale, bias = score(torch.randn(5, dim))
    torch.testing.assert_close(scale, torch.full((5,), 7.0))
    torch.testing.assert_close(bias, torch.full((5,), -3.0))


@pytest.mark.parametrize("target", ["meta", "transformers"])
def test_formats_that_hold_one_scale_refuse(target: Any, tmp_path: Path) -> None:
    model = released_like(frame_level=True)
    model.scores[":".join(PAIR)] = TextScore(model.embedding_dim)
    with pytest.raises(CheckpointError, match=r"holds one scale and one bias for audio x text_event.*format=\"peav\""):
        model.save_pretrained(tmp_path, target)


def test_a_virtual_batch_has_the_gradient_of_a_whole_one(tmp_path: Path) -> None:
    """Weak, soft and absent labels, vocabularies and related phrases: two chunks of four clips, and the eight at once."""
    batch = replace(clips(8), events=tiny_events(8, every_kind=True))
    found = {}
    for name, size in (("whole", 8), ("virtual", 4)):
        torch.manual_seed(0)
        objective = FrameAlignment(per_text=True, pooling="attention", embedding_dim=8)
        virtual = None if size == 8 else 8
        module = PeavModule(
            small_encoders(), {"frame": objective}, embedding_dim=8, virtual_batch_size=virtual
        ).double()
        (found[name],) = run(module, cut(batch, size), size, tmp_path / name)
    assert any("attention" in key for key in found["whole"]) and any("biases" in key for key in found["whole"])
    for key, gradient in found["whole"].items():
        torch.testing.assert_close(found["virtual"][key], gradient, rtol=1e-8, atol=1e-10, msg=key)
