"""A tiny model of the released architecture, in Meta's format, against what Meta's reference code computes.

The folder can be replaced by another of the same layout: nothing here depends on its sizes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from peav.encoders import DacAudioEncoder, PEVideoEncoder, TextEncoder
from peav.model import PEAV
from peav.released import TensorInputs, batch_from_tensors
from peav.spans import find_spans

FOLDER = Path(__file__).parents[1] / "assets/pe_av_tiny"
INPUTS = (
    "input_values",
    "padding_mask",
    "pixel_values_videos",
    "padding_mask_videos",
    "input_ids",
    "attention_mask",
)
#: Our embedding names and the reference's.
EMBEDDINGS = {
    "audio": "audio",
    "video": "visual",
    "audio_video": "audio_visual",
    "text_audio": "audio_text",
    "text_video": "visual_text",
    "text_audio_video": "audio_visual_text",
    "audio_plus_text": "audio_plus_text",
    "video_plus_text": "visual_plus_text",
}


@pytest.fixture(scope="module")
def io() -> dict[str, Tensor]:
    return load_file(FOLDER / "io.safetensors")


@pytest.fixture(scope="module")
def model() -> PEAV:
    return PEAV.from_pretrained(FOLDER / "pe_av")


def near(found: Tensor, expected: Tensor) -> None:
    """1e-4 absolute, and relative to the size of what is compared: fp32 has no more for values of some hundreds."""
    scale = max(1.0, float(expected.abs().max()) / 10)
    torch.testing.assert_close(found, expected, atol=1e-4 * scale, rtol=0)


@torch.no_grad()
def test_embeddings_with_masks(model: PEAV, io: dict[str, Tensor]) -> None:
    found = model(**{name: io[name] for name in INPUTS})
    assert set(found) == set(EMBEDDINGS)
    for name, reference in EMBEDDINGS.items():
        near(found[name], io[f"out.{reference}_embeds"])


@torch.no_grad()
def test_intermediate_tensors(model: PEAV, io: dict[str, Tensor]) -> None:
    audio, video, text = (model.encoders[name] for name in ("audio", "video", "text"))
    assert isinstance(audio, DacAudioEncoder) and isinstance(video, PEVideoEncoder) and isinstance(text, TextEncoder)
    inputs = TensorInputs(**{name: io[name] for name in INPUTS}, codec_features=None, frame_features=None)
    batch, _ = batch_from_tensors(inputs, audio, model.media)
    assert batch.audio is not None and batch.video is not None
    features = model.encode(batch, ["audio_video", "text_audio"])
    heard, seen = features["audio"].mask, features["video"].mask
    assert heard is not None and seen is not None
    near(batch.audio.values[heard], io["out.codec_features"][heard])  # type: ignore[union-attr]
    near(video.frontend_features("video", batch.video).values[seen], io["out.pe_features"][seen])  # type: ignore[arg-type]
    for name, reference, mask in (
        ("audio", "audio", heard),
        ("video", "visual", seen),
        ("audio_video", "audio_visual", heard),
    ):
        frames = features[name].frames
        assert frames is not None
        near(frames[mask], io[f"out.{reference}_sequence"][mask])
    near(features["text_audio"].pooled, io["out.text_pooled"])


@torch.no_grad()
def test_a_clip_without_padding_needs_no_mask(model: PEAV, io: dict[str, Tensor]) -> None:
    """The longest clip of the batch is what the reference computes for it alone."""
    lengths = io["padding_mask"].sum(1)
    row = int(lengths.argmax())
    assert lengths[row] == io["input_values"].shape[-1]
    frames = int(io["padding_mask_videos"][row].sum())
    tokens = int(io["attention_mask"][row].sum())
    found = model(
        input_values=io["input_values"][row : row + 1],
        pixel_values_videos=io["pixel_values_videos"][row : row + 1, :frames],
        input_ids=io["input_ids"][row : row + 1, :tokens],
    )
    for name, reference in EMBEDDINGS.items():
        near(found[name][0], io[f"out.{reference}_embeds"][row])


@torch.no_grad()
def test_cached_features_give_the_same(model: PEAV, io: dict[str, Tensor]) -> None:
    audio, video = model.encoders["audio"], model.encoders["video"]
    assert isinstance(audio, DacAudioEncoder) and isinstance(video, PEVideoEncoder)
    inputs = TensorInputs(**{name: io[name] for name in INPUTS}, codec_features=None, frame_features=None)
    batch, _ = batch_from_tensors(inputs, audio, model.media)
    assert batch.audio is not None and batch.video is not None
    found = model(
        codec_features=batch.audio.values,  # type: ignore[union-attr]
        padding_mask=batch.audio.mask,
        frame_features=video.frontend_features("video", batch.video).values,  # type: ignore[arg-type]
        padding_mask_videos=io["padding_mask_videos"],
        input_ids=io["input_ids"],
        attention_mask=io["attention_mask"],
    )
    for name, reference in EMBEDDINGS.items():
        near(found[name], io[f"out.{reference}_embeds"])


@torch.no_grad()
def test_frames_text_and_spans_of_the_frame_level_model(io: dict[str, Tensor]) -> None:
    model = PEAV.from_pretrained(FOLDER / "pe_a_frame")
    names = ("input_values", "padding_mask", "input_ids", "attention_mask")
    found = model(**{name: io[name][:1] for name in names})
    assert set(found) == {"audio_frames", "text_event"}
    near(found["audio_frames"], io["frame.audio_embeds"])
    near(found["text_event"], io["frame.text_embeds"])
    audio = model.encoders["audio"]
    assert isinstance(audio, DacAudioEncoder)
    hop = audio.frontend.hop / audio.frontend.sample_rate
    expected = json.loads((FOLDER / "frame_spans.json").read_text())
    probabilities = model.similarity(found, {"text_event": found["text_event"]}).sigmoid()
    mask = io["padding_mask"][:1, :: audio.frontend.hop]
    spans = find_spans(probabilities, mask, expected["threshold"], hop)
    assert [[(s.onset, s.offset) for s in clip[0]] for clip in spans] == [
        [pytest.approx(pair, abs=1e-6) for pair in clip] for clip in expected["spans"]
    ]
