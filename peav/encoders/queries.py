"""Queries made of a medium and a text."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from peav.encoders.base import Encoder
from peav.registry import register_encoder
from peav.types import Features, combine_groups


@register_encoder
class PlusTextEncoder(Encoder):
    """Plus-text queries: a medium's pooled vector beside a caption's, for the head to mix (PE-AV pairs 9 and 10).

    `audio_plus_text` joins audio with the visual caption and looks for video; `video_plus_text` joins video with the audio caption and
    looks for audio.

    Args:
        audio_dim: dimension of the audio features.
        video_dim: dimension of the video features.
        text_dim: dimension of the text features.
    """

    provides: Mapping[str, tuple[str, ...]] = {
        "audio_plus_text": ("features.audio", "features.text_video"),
        "video_plus_text": ("features.video", "features.text_audio"),
    }

    def __init__(self, audio_dim: int = 768, video_dim: int = 768, text_dim: int = 768) -> None:
        super().__init__()
        self.dims = {"audio_plus_text": audio_dim + text_dim, "video_plus_text": video_dim + text_dim}
        self.input_dims = {"audio": audio_dim, "video": video_dim, "text_audio": text_dim, "text_video": text_dim}

    def forward(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Features]:
        """Concatenates pooled vectors; present where both are."""
        outputs = {}
        for name in names:
            medium, text = (inputs[source] for source in self.provides[name])
            outputs[name] = Features(
                torch.cat((medium.pooled, text.pooled), -1),
                medium.present & text.present,
                combine_groups(medium.group, text.group),
            )
        return outputs
