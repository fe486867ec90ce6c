"""Scores of pairs: which embeddings are compared where there are several."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from peav.checkpoints import MediaSettings
from peav.model import PEAV
from tests.helpers import SMALL_ENCODERS


@pytest.fixture(scope="module")
def model() -> PEAV:
    """As `peav fit` leaves one that was trained with a frame-level objective beside pairs: `audio` is a vector and frames."""
    torch.manual_seed(3)
    encoders = {"audio": SMALL_ENCODERS["MelAudioEncoder"](), "text": SMALL_ENCODERS["TextEncoder"]()}
    pairs = [("audio", "text_audio"), ("audio", "text_event")]
    media = MediaSettings(sample_rate=16000)
    made = PEAV(encoders, ["audio", "text_audio", "text_event"], 8, frames=["audio"], pairs=pairs, media=media).eval()
    for index, pair in enumerate(pairs):
        made.set_score(pair, torch.tensor([2.0 + index]), torch.tensor([-1.0]))
    return made


def rows(*names: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(*((3, 5, 8) if name.endswith("_frames") else (3, 8)), generator=generator) for name in names
    }


@torch.no_grad()
def test_a_vector_is_compared_where_its_frames_are_there_too(model: PEAV) -> None:
    sounds, query = rows("audio", "audio_frames"), {"text_audio": torch.randn(2, 8)}
    expected = query["text_audio"] @ sounds["audio"].mT * 2 - 1
    torch.testing.assert_close(model.similarity(query, sounds), expected)
    torch.testing.assert_close(model.similarity(sounds, query), expected.mT)
    torch.testing.assert_close(model.similarity(query, sounds, pair=("audio", "text_audio")), expected)


@torch.no_grad()
def test_event_phrases_are_compared_with_frames(model: PEAV) -> None:
    sounds, query = rows("audio", "audio_frames"), {"text_event": torch.randn(2, 8)}
    expected = torch.einsum("atd,kd->akt", sounds["audio_frames"], query["text_event"]) * 3 - 1
    for pair in (None, ("audio", "text_event"), ("text_event", "audio")):
        torch.testing.assert_close(model.similarity(sounds, query, pair), expected)
        torch.testing.assert_close(model.similarity(query, sounds, pair), expected.transpose(0, 1))
    vector = {"audio": sounds["audio"]}
    assert model.similarity(query, vector).shape == (2, 3)  # given alone


@torch.no_grad()
def test_frames_are_compared_where_they_are_asked_for(model: PEAV) -> None:
    sounds, query = rows("audio", "audio_frames"), {"text_audio": torch.randn(2, 8)}
    by_name = model.similarity(query, sounds, pair=("text_audio", "audio_frames"))
    alone = model.similarity(query, {"audio_frames": sounds["audio_frames"]})
    expected = torch.einsum("kd,atd->kat", query["text_audio"], sounds["audio_frames"]) * 2 - 1
    torch.testing.assert_close(by_name, expected)
    torch.testing.assert_close(alone, expected)


@torch.no_grad()
def test_what_embed_returns_is_compared_as_it_is(model: PEAV) -> None:
    noise = torch.rand(2, 16000).numpy() - 0.5
    sounds = model.embed(audio=list(noise), sample_rate=16000)
    assert {"audio", "audio_frames", "audio_frames_mask"} <= set(sounds)
    query = model.embed(text="a bell rings", to="audio")
    assert model.similarity(query, sounds).shape == (1, 2)
    every = model.embed(text="a bell rings")
    with pytest.raises(ValueError, match=r"2 pairs .* say which with pair"):
        model.similarity(every, sounds)
    assert model.similarity(every, sounds, pair=("audio", "text_audio")).shape == (1, 2)
