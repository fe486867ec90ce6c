"""PEAV computes what it is asked for and nothing else."""

from __future__ import annotations

import pytest
import torch

from peav.encoders.graph import resolve
from peav.model import PEAV
from peav.testing import tiny_batch
from peav.types import DEFAULT_FIELDS, EMBEDDING_NAMES, Batch, VideoInput
from tests.helpers import small_encoders


def model(**options: object) -> PEAV:
    return PEAV(small_encoders(), embedding_dim=8, **options).eval()  # type: ignore[arg-type]


def test_every_embedding_of_the_family_can_be_made() -> None:
    peav = model()
    assert set(peav.embedding_names) == set(EMBEDDING_NAMES)
    assert peav.batch_fields == set(DEFAULT_FIELDS)
    found = peav.embed_batch(tiny_batch(), frames=["audio", "video", "audio_video"])
    for name, embedding in found.items():
        rows = 3 if name == "text_event" else 4
        assert embedding.pooled.shape == (rows, 8)
        torch.testing.assert_close(embedding.pooled.norm(dim=-1), torch.ones(rows))
        assert (embedding.frames is not None) == (name in ("audio", "video", "audio_video"))


def test_raw_heads_do_not_normalise() -> None:
    norms = model(normalize=False).embed_batch(tiny_batch(), ["audio"])["audio"].pooled.norm(dim=-1)
    assert not torch.allclose(norms, torch.ones_like(norms), atol=1e-2)


def test_one_embedding_reads_only_its_own_fields() -> None:
    peav, batch = model(), tiny_batch()
    assert peav.fields_for(["audio"]) == {"audio"}
    assert peav.fields_for(["audio_plus_text"]) == {"audio", "captions.video"}
    only_audio = Batch(batch.ids, audio=batch.audio)
    expected = peav.embed_batch(batch)["audio"].pooled
    torch.testing.assert_close(peav.embed_batch(only_audio, ["audio"])["audio"].pooled, expected)
    with pytest.raises(KeyError, match="carries no 'video'"):
        peav.embed_batch(only_audio, ["video"])


def test_an_embedding_the_model_lacks_is_named() -> None:
    peav = PEAV({"audio": small_encoders()["audio"]}, embedding_dim=8)
    with pytest.raises(KeyError, match="no embedding 'video'; it has audio"):
        peav.embed_batch(tiny_batch(), ["video"])
    with pytest.raises(ValueError, match="makes no frames"):
        model().embed_batch(tiny_batch(), ["text_audio"], frames=["text_audio"])


def test_encoders_that_nothing_needs_are_left_out() -> None:
    peav = PEAV(small_encoders(), ["audio", "text_audio"], embedding_dim=8)
    assert set(peav.encoders) == {"audio", "text"}
    assert set(peav.heads) == {"audio", "text_audio"}


def test_circles_and_unknown_sources_are_refused() -> None:
    with pytest.raises(ValueError, match=r"circle: a -> b -> a"):
        resolve({"x": {"a": ("features.b",)}, "y": {"b": ("features.a",)}}, ["a"])
    with pytest.raises(ValueError, match="reads 'smell'"):
        resolve({"x": {"a": ("smell",)}}, ["a"])


def test_missing_media_are_absent_in_everything_made_from_them() -> None:
    batch = tiny_batch()
    assert isinstance(batch.video, VideoInput)
    present = torch.tensor([True, False, True, True])
    video = VideoInput(
        batch.video.frames, batch.video.mask & present[:, None], present, batch.video.group, batch.video.frame_seconds
    )
    found = model().embed_batch(Batch(batch.ids, batch.audio, video, batch.captions, batch.events))
    for name in ("video", "audio_video", "video_plus_text"):
        assert found[name].present.tolist() == present.tolist()
    assert found["audio"].present.all()
    assert all(torch.isfinite(e.pooled).all() for e in found.values())
