"""What comes back, and that the model is as it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from peav.checkpoints import MediaSettings
from peav.data.media.decode import decode_counts, load_audio
from peav.data.media.probing import MediaError
from peav.model import PEAV
from tests.helpers import SMALL_ENCODERS
from tests.inputs.helpers import ASSETS, CLOSE, EXACT, RATE, by_hand, make_model, noise


def test_embeddings_are_what_the_inputs_allow(model: PEAV, clips: Path) -> None:
    both, texts = clips / "both.mp4", ["a bell", "the red house"]
    heads = {"text_audio", "text_video", "text_audio_video", "text_event"}
    media = {"audio", "video", "audio_video"}
    before = decode_counts()
    assert set(model.embed(audio=both)) == {"audio"}
    assert decode_counts()["video"] == before["video"]
    pair = model.embed(audio=both, video=both)
    assert set(pair) == media
    assert set(model.embed(text=texts)) == heads
    assert set(model.embed(audio=both, video=both, text=texts)) == media | heads  # one clip, two texts
    everything = model.embed(audio=[both, clips / "mono.wav"], video=[both, clips / "long.mp4"], text=texts)
    assert set(everything) == media | heads | {"audio_plus_text", "video_plus_text"}
    assert {tuple(value.shape) for value in everything.values()} == {(2, 8)}
    assert all(value.dtype == torch.float32 and not value.requires_grad for value in everything.values())
    for name in media:
        torch.testing.assert_close(everything[name][:1], pair[name], **CLOSE)
    # The queries, by hand.
    audio = by_hand(model, load_audio(both, RATE))
    torch.testing.assert_close(pair["audio"], audio["audio"], **CLOSE)
    tokens = model.encoders["text"].tokenize(texts)  # type: ignore[operator]
    with torch.inference_mode():
        expected = model(
            input_values=torch.stack([load_audio(both, RATE)[: 12 * 1920]] * 2),
            input_ids=tokens[0],
            attention_mask=tokens[1],
        )
        found = model.embed(audio=[load_audio(both, RATE)[: 12 * 1920]] * 2, text=texts, sample_rate=RATE)
    assert set(found) == set(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **CLOSE)


def test_to_picks_a_head(model: PEAV, clips: Path) -> None:
    texts = ["a bell", "the red house", "bell bell bell bell bell"]
    heads = model.embed(text=texts)
    for to in ("audio", "video", "audio_video", "event"):
        found = model.embed(text=texts, to=to)
        assert set(found) == {f"text_{to}"}
        torch.testing.assert_close(found[f"text_{to}"], heads[f"text_{to}"], **EXACT)
        torch.testing.assert_close(model.embed(text=texts[1], to=to)[f"text_{to}"], found[f"text_{to}"][1:2], **CLOSE)
    assert not torch.allclose(heads["text_audio"], heads["text_video"], atol=1e-2)
    assert set(model.embed(audio=clips / "both.mp4", text="a bell", to="audio")) == {"audio", "text_audio"}


def test_order_and_grouping_change_nothing(normalized: PEAV, clips: Path) -> None:
    files = [clips / name for name in ("long.mp4", "both.mp4", "silent.mp4", "late.mp4")]
    sounds = [noise(seconds, seed) for seed, seconds in enumerate((0.3, 2.9, 1.0, 0.05))]
    texts = ["a", "the red house", "a bell rings", "rings"]

    def embed(rows: Sequence[int], **options: Any) -> dict[str, Tensor]:
        return normalized.embed(
            [sounds[row] for row in rows],
            [files[row] for row in rows],
            [texts[row] for row in rows],
            sample_rate=RATE,
            window_seconds=4.0,  # windows of 4, 2 (three of them) and 2.9 s
            **options,
        )

    whole = embed([0, 1, 2, 3])
    assert len(whole) == 9
    for rows in ([0, 1, 2, 3], [2, 0, 3, 1]):
        for batch_seconds in (0.1, 3.0, 1000.0):
            found = embed(rows, batch_seconds=batch_seconds)
            for name, value in found.items():
                torch.testing.assert_close(value, whole[name][rows], **CLOSE)
    for row in range(4):
        for name, value in embed([row]).items():
            torch.testing.assert_close(value, whole[name][[row]], **CLOSE)


def test_the_model_is_as_it_was_and_can_be_trained(clips: Path) -> None:
    model = make_model(normalize=True)
    model.train()
    model.encoders["video"].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    found = model.embed(audio=clips / "both.mp4", video=clips / "both.mp4", text="a bell")
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    with pytest.raises(MediaError):
        model.embed(audio=[clips / "mono.wav", clips / "text.wav"])
    assert {name: module.training for name, module in model.named_modules()} == modes
    # What came out is an ordinary tensor, and nothing in the model remembers inference mode.
    weight = torch.ones(8, requires_grad=True)
    sum((value * weight).sum() for value in found.values()).backward()  # type: ignore[union-attr]
    assert weight.grad is not None
    outputs = by_hand_with_gradient(model)
    sum(value.sum() for value in outputs.values()).backward()  # type: ignore[union-attr]


def by_hand_with_gradient(model: PEAV) -> dict[str, Tensor]:
    ids = torch.tensor([[2, 6, 7, 3]])
    frames = torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8)
    return model(torch.from_numpy(noise(0.5))[None], pixel_values_videos=frames, input_ids=ids)


def test_embedding_is_in_evaluation_mode_and_deterministic(clips: Path) -> None:
    torch.manual_seed(3)
    audio = type(SMALL_ENCODERS["DacAudioEncoder"]())(
        dim=16, num_layers=1, num_heads=2, sample_rate=RATE, codec_hidden_size=2, codec_dim=4, dropout=0.5
    )
    model = PEAV({"audio": audio}, ["audio"], 8, media=MediaSettings(sample_rate=RATE)).train()
    first = model.embed(audio=clips / "mono.wav")["audio"]
    torch.testing.assert_close(model.embed(audio=clips / "mono.wav")["audio"], first, **EXACT)
    torch.testing.assert_close(model.eval().embed(audio=clips / "mono.wav")["audio"], first, **EXACT)


def test_precision(normalized: PEAV, clips: Path) -> None:
    full = normalized.embed(audio=clips / "mono.wav", precision="fp32")["audio"]
    torch.testing.assert_close(normalized.embed(audio=clips / "mono.wav")["audio"], full, **EXACT)  # on a CPU
    half = normalized.embed(audio=clips / "mono.wav", precision="bf16")["audio"]
    assert half.dtype == torch.float32
    assert 0 < float((half - full).abs().max()) < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(normalized.embed(audio=clips / "mono.wav", precision="fp32")["audio"], full, **EXACT)


def test_embeddings_of_the_released_code() -> None:
    """The longest clip, which no zeros follow in the reference's batch either."""
    io = load_file(ASSETS / "io.safetensors")
    assert io["padding_mask"][0].all()
    model = PEAV.from_pretrained(ASSETS / "pe_av")
    found = model.embed(audio=io["input_values"][0], sample_rate=48000)["audio"]
    torch.testing.assert_close(found, io["out.audio_embeds"][:1], rtol=0, atol=2e-4)
    frames = PEAV.from_pretrained(ASSETS / "pe_a_frame").embed(audio=io["input_values"][0, 0], sample_rate=48000)
    torch.testing.assert_close(frames["audio_frames"], io["frame.audio_embeds"], rtol=0, atol=2e-4)
