"""Video: a timm frame encoder and a temporal transformer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peav.encoders.base import Encoder
from peav.encoders.transformer import Transformer
from peav.registry import register_encoder
from peav.types import Features, VideoInput


class FrameEncoder(nn.Module):
    """One unit vector a frame, by any timm model; only valid frames are computed.

    Args:
        name: timm's model name.
        options: further arguments of `timm.create_model`.
        pretrained: whether to load timm's weights from the hub.
    """

    def __init__(self, name: str, options: Mapping[str, Any], pretrained: bool) -> None:
        super().__init__()
        self.model = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules()):
            raise ValueError(
                f"the frame encoder {name!r} has batch normalisation, by which clips of a batch would change each other; "
                "choose a model with layer or group normalisation (a ViT or a ConvNeXt, for instance)"
            )
        num_features: Any = self.model.num_features  # nn.Module types its attributes as tensors
        self.dim = int(num_features)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Maps uint8 frames (B, F, 3, H, W) to vectors (B, F, dim); zero where mask (B, F) is False."""
        valid = frames[mask]
        if not len(valid):
            # One blank frame keeps every parameter in the graph, so that ranks without video do not hang DDP.
            valid = frames.new_zeros((1, *frames.shape[2:]))
        images = valid.to(self.model_dtype) / 127.5 - 1
        vectors = F.normalize(self.model(images), dim=-1)
        if not mask.any():
            return vectors.sum() * 0 + vectors.new_zeros((*mask.shape, self.dim))
        return vectors.new_zeros((*mask.shape, self.dim)).index_put(mask.nonzero(as_tuple=True), vectors)

    @property
    def model_dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return next(self.model.parameters()).dtype


@register_encoder
class FrameVideoEncoder(Encoder):
    """Video encoder: a timm model on every frame, then a temporal transformer.

    Args:
        dim: width of the temporal transformer.
        num_layers: transformer blocks.
        num_heads: attention heads.
        mlp_dim: hidden width of the feed-forward networks; 8/3 of `dim` by default.
        frame_model: timm's name of the frame encoder; one without batch normalisation.
        frame_options: further arguments of `timm.create_model`, such as `img_size` or `depths`.
        pretrained: whether to load timm's weights from the hub.
        dropout: on the residual branches.

    Raises:
        ValueError: if the frame encoder has batch normalisation.
    """

    provides: ClassVar[Mapping[str, tuple[str, ...]]] = {"video": ("video",)}

    def __init__(
        self,
        dim: int = 768,
        num_layers: int = 4,
        num_heads: int = 6,
        mlp_dim: int | None = None,
        frame_model: str = "vit_tiny_patch16_224",
        frame_options: dict[str, Any] | None = None,
        pretrained: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dims = {"video": dim}
        self.frame_encoder = FrameEncoder(frame_model, frame_options or {}, pretrained)
        self.proj = nn.Linear(self.frame_encoder.dim, dim)
        self.transformer = Transformer(dim, num_layers, num_heads, mlp_dim, dropout)

    def forward(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Features]:
        """Encodes `inputs["video"]`."""
        video: VideoInput = inputs["video"]
        # A unit vector has entries of size 1/sqrt(dim); the projection should see unit variance.
        vectors = self.frame_encoder(video.frames, video.mask) * self.frame_encoder.dim**0.5
        pooled, frames = self.transformer(self.proj(vectors), video.mask)
        return {"video": Features(pooled, video.present, video.group, frames, video.mask, video.frame_seconds)}
