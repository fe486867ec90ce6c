"""Video as in the released models: a PE frame encoder, one unit vector a frame, then a transformer (arXiv 2512.19687)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from peav.encoders.base import Encoder, Frontend, Stack
from peav.encoders.transformer import Transformer
from peav.encoders.video import FrameEncoder, reaching_arguments
from peav.registry import register_encoder
from peav.types import CachedFeatures, ClipFormat, Features, VideoInput


@register_encoder
class PEVideoEncoder(Encoder):
    """Video encoder of the released models: PE-Core on every frame, then a temporal transformer. Also reads cached frame vectors.

    Args:
        dim: width of the temporal transformer.
        num_layers: transformer blocks.
        num_heads: attention heads.
        mlp_dim: hidden width of the feed-forward networks; 8/3 of `dim` by default.
        frame_model: timm's name of the frame encoder.
        frame_options: further arguments of `timm.create_model`, such as `img_size` or `depth`.
        frame_dim: dimension of a frame's vector.
        trainable_frame_layers: last blocks of the frame encoder to train, with its pooling and head; 0 keeps it frozen.
        pretrained: whether to load timm's weights of the frame encoder from the hub.
        dropout: on the residual branches.
        activation_checkpointing: compute the blocks' activations again in the backward pass instead of keeping them.
    """

    provides: Mapping[str, tuple[str, ...]] = {"video": ("video",)}

    @classmethod
    def reaches_outside(cls, init_args: Mapping[str, Any]) -> tuple[str, ...]:
        """`pretrained`, a frame model of a hub or a folder, and options that name weights."""
        return reaching_arguments(init_args)

    def __init__(
        self,
        dim: int = 768,
        num_layers: int = 4,
        num_heads: int = 6,
        mlp_dim: int | None = None,
        frame_model: str = "vit_pe_core_large_patch14_336",
        frame_options: dict[str, Any] | None = None,
        frame_dim: int = 1024,
        trainable_frame_layers: int = 0,
        pretrained: bool = False,
        dropout: float = 0.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.dims = {"video": dim}
        options = {"num_classes": frame_dim, **(frame_options or {})}
        self.frontend = FrameEncoder(frame_model, options, pretrained)
        self.frontend.train_last(trainable_frame_layers)
        self.frontend.activation_checkpointing = activation_checkpointing
        self.proj = nn.Linear(frame_dim, dim, bias=False)
        self.data_proj = nn.Linear(dim, dim)
        self.transformer = Transformer(dim, num_layers, num_heads, mlp_dim, dropout)
        self.transformer.activation_checkpointing = activation_checkpointing
        self.clip_format = ClipFormat(frame_size=self.frontend.frame_size)

    @property
    def frontends(self) -> Mapping[str, Frontend]:
        """The frame encoder, `pe`, as long as it is frozen."""
        return {"video": Frontend("pe", self.frontend, self.frontend.dim)} if self.frontend.frozen else {}

    def stacks(self) -> Sequence[Stack]:
        """The temporal transformer, and the frame encoder."""
        return [stack for stack in (self.transformer.stack, self.frontend.stack(frontend=True)) if stack is not None]

    def frontend_features(self, name: str, media: VideoInput, padded: bool = False) -> CachedFeatures:
        """Runs the frame encoder alone: what may be kept and read in place of the frames, as long as it is frozen."""
        return self.frontend.features(media)

    @property
    def config(self) -> dict[str, Any]:
        """As for every plugin, but with the frame model's architecture in place of where its weights came from."""
        config = super().config
        built = self.frontend.built_as
        # The size of a frame's vector is an argument of its own.
        options = {name: value for name, value in (built["frame_options"] or {}).items() if name != "num_classes"}
        config["init_args"] |= {**built, "frame_options": options or None, "pretrained": False}
        return config

    def forward(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Features]:
        """Encodes `inputs["video"]`, frames or cached frame vectors.

        Raises:
            ValueError: if cached vectors have another dimension than the frame encoder makes.
        """
        video: VideoInput | CachedFeatures = inputs["video"]
        cached = self.frontend.features(video)
        vectors = torch.where(cached.mask.unsqueeze(-1), cached.values, 0).to(self.proj.weight.dtype)
        pooled, frames = self.transformer(self.data_proj(self.proj(vectors)), cached.mask)
        return {"video": Features(pooled, cached.present, cached.group, frames, cached.mask, cached.frame_seconds)}
