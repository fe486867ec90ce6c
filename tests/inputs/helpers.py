"""A small model, media, and batches made by hand, for the tests of `PEAV.embed`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchcodec.decoders import VideoDecoder
from torchvision.transforms.v2 import functional as transforms

from peav.checkpoints import MediaSettings
from peav.model import PEAV
from peav.types import AudioInput, Batch, VideoInput
from tests.data.conftest import write_wav
from tests.helpers import SMALL_ENCODERS

ASSETS = Path(__file__).parents[1] / "assets/pe_av_tiny"
RATE = 16000
HOP = 1920 / RATE
EXACT: dict[str, Any] = {"rtol": 0, "atol": 0}
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}


def make_model(embeddings: Sequence[str] | None = None, **options: Any) -> PEAV:
    torch.manual_seed(3)
    names = {
        "audio": "DacAudioEncoder",
        "video": "PEVideoEncoder",
        "audio_video": "FusionEncoder",
        "text": "TextEncoder",
        "plus_text": "PlusTextEncoder",
    }
    media = MediaSettings(**{"sample_rate": RATE, "frame_size": 32, "num_frames": 4, **options.pop("media", {})})
    model = PEAV({k: SMALL_ENCODERS[v]() for k, v in names.items()}, embeddings, 8, media=media, **options).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "frontend" in name:  # a DAC at its initial values hardly hears
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def noise(seconds: float, seed: int = 0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    wave = generator.standard_normal((channels, round(seconds * rate))) * np.linspace(0.05, 0.3, round(seconds * rate))
    return wave.astype(np.float32).squeeze(0) if channels == 1 else wave.astype(np.float32)


def wide_wav(path: Path, samples: np.ndarray, rate: int) -> np.ndarray:
    """Writes 16-bit samples (channels, S) and returns what the file holds."""
    write_wav(path, samples.T, rate)
    return (samples.T * 32767).astype("<i2").T


def by_hand(model: PEAV, samples: Tensor | None = None, frames: Tensor | None = None) -> dict[str, Tensor]:
    """One clip as a batch made by hand."""
    yes, row = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.int64)
    audio = video = None
    if samples is not None:
        mask = torch.ones(1, len(samples), dtype=torch.bool)
        audio = AudioInput(samples[None], mask, yes, row, model.media.sample_rate)
    if frames is not None:
        video = VideoInput(frames[None], torch.ones(1, len(frames), dtype=torch.bool), yes, row, torch.zeros(1))
    with torch.inference_mode():
        return model.allowed(Batch(("clip",), audio=audio, video=video), {1})


def all_frames(path: Path, size: int = 32) -> Tensor:
    frames = VideoDecoder(path)[:]
    return transforms.resize(frames, [size, size], antialias=True)
