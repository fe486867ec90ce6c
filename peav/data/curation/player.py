"""Sounds to listen to, inside a page that needs no other file."""

from __future__ import annotations

import base64

from torch import Tensor
from torchcodec.encoders import AudioEncoder

from peav.types import Seconds

#: What of a sound can be heard: the page carries 6 KB for each of its seconds, and a third more as text.
PLAYED_SECONDS: Seconds = 30.0

_BIT_RATE = 48000


def sound_uri(samples: Tensor, sample_rate: int) -> str:
    """Encodes the first seconds of a sound as the `data:` URI of an AAC file, which browsers play and every FFmpeg can write.

    Args:
        samples: (S,) float, at least one; beyond [-1, 1] they are clipped.
        sample_rate: in Hz.
    """
    heard = samples[: round(PLAYED_SECONDS * sample_rate)].float().clamp(-1, 1)
    held = AudioEncoder(heard[None], sample_rate=sample_rate).to_tensor("adts", bit_rate=_BIT_RATE)
    return f"data:audio/aac;base64,{base64.b64encode(held.numpy().tobytes()).decode()}"


def player(uri: str, label: str) -> str:
    """Returns the HTML of a player.

    Args:
        uri: of the sound.
        label: what it plays, escaped.
    """
    return f'<audio controls preload="none" src="{uri}" aria-label="{label}"></audio>'
