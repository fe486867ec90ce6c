"""Fusion of audio and video into one sequence."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from peav.encoders.base import Encoder, Stack
from peav.encoders.transformer import Transformer
from peav.masking import mask_to_lengths
from peav.registry import register_encoder
from peav.types import Features, combine_groups


def align_nearest(frames: Tensor, lengths: Tensor, target_lengths: Tensor, target_length: int) -> Tensor:
    """Resamples sequences in time by nearest neighbour, valid length to valid length.

    Target position t takes source position `floor(t * (length / target_length))`, computed in fp32 as by
    `torch.nn.functional.interpolate(mode="nearest")` on each clip alone: in integers, one pair of lengths in fifty would differ
    from the released models. No loop over the batch.

    Args:
        frames: (B, T, D).
        lengths: (B,) valid source lengths.
        target_lengths: (B,) valid target lengths.
        target_length: T' of the result.

    Returns:
        (B, T', D); what stands past a clip's target length is arbitrary.
    """
    position = torch.arange(target_length, device=frames.device, dtype=torch.float32)
    step = lengths.float() / target_lengths.clamp(min=1).float()
    index = torch.minimum((position * step[:, None]).long(), (lengths - 1).clamp(min=0)[:, None])
    return frames.gather(1, index.unsqueeze(-1).expand(-1, -1, frames.shape[-1]))


@register_encoder
class FusionEncoder(Encoder):
    """Audio-video encoder: video frames are aligned to the audio's by nearest neighbour, joined, and a transformer reads both.

    Args:
        audio_dim: dimension of the audio features.
        video_dim: dimension of the video features.
        dim: width.
        num_layers: transformer blocks.
        num_heads: attention heads.
        mlp_dim: hidden width of the feed-forward networks; 8/3 of `dim` by default.
        dropout: on the residual branches.
        activation_checkpointing: compute the blocks' activations again in the backward pass instead of keeping them.
    """

    provides: Mapping[str, tuple[str, ...]] = {"audio_video": ("features.audio", "features.video")}

    def __init__(
        self,
        audio_dim: int = 768,
        video_dim: int = 768,
        dim: int = 768,
        num_layers: int = 6,
        num_heads: int = 6,
        mlp_dim: int | None = None,
        dropout: float = 0.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.dims = {"audio_video": dim}
        self.input_dims = {"audio": audio_dim, "video": video_dim}
        self.video_proj = nn.Linear(video_dim, audio_dim)
        self.video_norm = nn.LayerNorm(audio_dim)
        self.proj = nn.Sequential(nn.Linear(2 * audio_dim, dim), nn.Linear(dim, dim))
        self.transformer = Transformer(dim, num_layers, num_heads, mlp_dim, dropout)
        self.transformer.activation_checkpointing = activation_checkpointing

    def stacks(self) -> Sequence[Stack]:
        """The transformer."""
        return [self.transformer.stack]

    def forward(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Features]:
        """Fuses `inputs["features.audio"]` and `inputs["features.video"]`; present where both are.

        Raises:
            ValueError: if either has no frames.
        """
        audio: Features = inputs["features.audio"]
        video: Features = inputs["features.video"]
        if audio.frames is None or audio.mask is None or video.frames is None or video.mask is None:
            raise ValueError("FusionEncoder needs the frames of audio and video, not pooled vectors alone")
        present = audio.present & video.present
        mask = audio.mask & present[:, None]
        aligned = align_nearest(
            self.video_proj(video.frames), mask_to_lengths(video.mask), mask_to_lengths(audio.mask), mask.shape[1]
        )
        joint = self.proj(torch.cat((audio.frames, self.video_norm(aligned)), -1))
        pooled, frames = self.transformer(joint, mask)
        group = combine_groups(audio.group, video.group)
        return {"audio_video": Features(pooled, present, group, frames, mask, audio.frame_seconds)}
