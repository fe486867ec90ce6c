"""Sounds to listen to, inside a page that needs no other file."""

from __future__ import annotations

import base64

import torch
from torch import Tensor
from torchcodec.encoders import AudioEncoder

from peav.types import Seconds

#: What of a sound can be heard: a minute of FLAC would be a megabyte of the page.
PLAYED_SECONDS: Seconds = 15.0


def sound_uri(samples: Tensor, sample_rate: int) -> str:
    """Encodes the first seconds of a sound as the `data:` URI of a FLAC file, which every browser plays.

    Args:
        samples: (S,) float, at least one; beyond [-1, 1] they are clipped.
        sample_rate: in Hz.
    """
    heard = samples[: round(PLAYED_SECONDS * sample_rate)].float().clamp(-1, 1)
    # The encoder wants a frame of samples.
    heard = torch.nn.functional.pad(heard, (0, max(0, 4096 - len(heard))))
    held = AudioEncoder(heard[None], sample_rate=sample_rate).to_tensor("flac")
    return f"data:audio/flac;base64,{base64.b64encode(held.numpy().tobytes()).decode()}"


def player(uri: str, label: str) -> str:
    """Returns the HTML of a player.

    Args:
        uri: of the sound.
        label: what it plays, escaped.
    """
    return f'<audio controls preload="none" src="{uri}" aria-label="{label}"></audio>'
