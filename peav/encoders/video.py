"""Video: a timm frame encoder and a temporal transformer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from peav.encoders.base import Encoder, Stack
from peav.encoders.transformer import Transformer
from peav.encoders.unreached import freeze_unreached
from peav.host import to_device, to_host
from peav.registry import register_encoder
from peav.trust import places_in
from peav.types import CachedFeatures, ClipFormat, Features, VideoInput

#: Arguments of `timm.create_model` that lead to weights, wherever they lie.
_WEIGHTS = ("pretrained", "checkpoint", "cache_dir")


def reaching_arguments(init_args: Mapping[str, Any]) -> tuple[str, ...]:
    """Names the arguments by which an encoder with a timm model would read a file or ask the hub: see `Plugin.reaches_outside`."""
    found = list(places_in(init_args))
    if init_args.get("pretrained"):
        found.append("pretrained")
    options = init_args.get("frame_options") or {}
    if not isinstance(options, Mapping) or any(str(name).startswith(_WEIGHTS) for name in options):
        found.append("frame_options")
    return tuple(dict.fromkeys(found))


class FrameEncoder(nn.Module):
    """One unit vector a frame, by any timm model; only valid frames are computed.

    Args:
        name: timm's model name.
        options: further arguments of `timm.create_model`.
        pretrained: whether to load timm's weights from the hub.

    Attributes:
        built_as: `frame_model` and `frame_options` by which the model is built again, from its numbers alone: no hub, no folder.
        activation_checkpointing: whether a trained frame encoder computes its activations again in the backward pass.

    Raises:
        ValueError: if the model has batch normalisation; or comes from a hub or a folder whose description does not make it.
    """

    #: Frames that go through a frozen encoder at once.
    FRAMES_AT_ONCE = 256

    def __init__(self, name: str, options: Mapping[str, Any], pretrained: bool) -> None:
        super().__init__()
        import timm  # noqa: PLC0415  takes over a second, and is needed late

        self.model = timm.create_model(name, pretrained=pretrained, **{"num_classes": 0, **options})
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules()):
            raise ValueError(
                f"the frame encoder {name!r} has batch normalisation, by which clips of a batch would change each other; "
                "choose a model with layer or group normalisation (a ViT or a ConvNeXt, for instance)"
            )
        self.built_as = _built_as(name, options, self.model)
        sizes: Any = self.model  # nn.Module types its attributes as tensors
        self.dim = int(sizes.num_classes or sizes.num_features)
        self.activation_checkpointing = False
        self.frozen = False

    def freeze_unread(self) -> None:
        """Freezes parameters on which no vector depends. The model runs on a frame for it, which only a trained one is worth."""
        freeze_unreached(self.model, self._one_frame)

    def _one_frame(self, model: nn.Module) -> Tensor:
        """Runs the model on a frame as small as it takes."""
        embed: Any = getattr(model, "patch_embed", None)
        size = getattr(embed, "img_size", None) if getattr(embed, "strict_img_size", True) else None
        cfg: Any = model.pretrained_cfg
        return model(torch.zeros(1, 3, *(size or cfg["input_size"][1:]), dtype=self.model_dtype))

    def train_last(self, num_layers: int) -> None:
        """Freezes all but the last blocks, and what follows them; 0 freezes everything.

        Raises:
            ValueError: if the model has no such number of blocks.
        """
        blocks: Any = getattr(self.model, "blocks", ())
        if not 0 <= num_layers <= len(blocks):
            raise ValueError(f"trainable_frame_layers must lie in 0..{len(blocks)}, not {num_layers}")
        self.requires_grad_(False)
        self.frozen = num_layers == 0
        if num_layers:
            for module in (*list(blocks)[-num_layers:], *self._after()):
                module.requires_grad_(True)
            self.freeze_unread()

    def stack(self, frontend: bool = False) -> Stack | None:
        """Returns the model's blocks, and what follows them; None where it has neither `blocks` nor `stages`.

        Args:
            frontend: whether the frame encoder is one.
        """
        blocks: Any = getattr(self.model, "blocks", None)
        if blocks is None:
            stages: Any = getattr(self.model, "stages", ())
            blocks = [block for stage in stages for block in getattr(stage, "blocks", (stage,))]
        return Stack(list(blocks), self._after(), frontend) if len(blocks) else None

    def _after(self) -> tuple[nn.Module, ...]:
        """What follows the blocks."""
        names = ("norm", "attn_pool", "fc_norm", "head")
        return tuple(module for name in names if isinstance(module := getattr(self.model, name, None), nn.Module))

    @property
    def frame_size(self) -> int | None:
        """Height and width of the frames, pixels; None where any will do."""
        embed: Any = getattr(self.model, "patch_embed", None)
        size = getattr(embed, "img_size", None) if getattr(embed, "strict_img_size", True) else None
        return None if size is None else int(size[0])

    def features(self, video: VideoInput | CachedFeatures) -> CachedFeatures:
        """Returns a vector a frame, computed or cached.

        Raises:
            ValueError: if cached vectors have another dimension than this encoder makes.
        """
        if isinstance(video, CachedFeatures):
            if video.values.shape[-1] != self.dim:
                raise ValueError(
                    f"cached video features have dimension {video.values.shape[-1]}, the frame encoder makes {self.dim}"
                )
            return video
        vectors = self(video.frames, video.mask)
        return CachedFeatures(vectors, video.mask, video.present, video.group, video.frame_seconds)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Maps frames (B, F, 3, H, W), uint8 or scaled to [-1, 1], to vectors (B, F, dim); zero where mask (B, F) is False."""
        # Where the valid frames are is found on the host, which would wait at every use of the mask as an index.
        index = to_device(to_host(mask)[0].flatten().nonzero().squeeze(1), frames.device)
        # One blank frame keeps every parameter in the graph, so that ranks without video do not hang DDP.
        valid = frames.flatten(0, 1)[index] if len(index) else frames.new_zeros((1, *frames.shape[2:]))
        if self.frozen:
            with torch.no_grad():
                vectors = torch.cat([self._vectors(some) for some in valid.split(self.FRAMES_AT_ONCE)])
        else:
            vectors = self._vectors(valid)
        empty = vectors.new_zeros((mask.numel(), self.dim))
        found = empty.index_copy(0, index, vectors) if len(index) else empty + vectors.sum() * 0
        return found.view(*mask.shape, self.dim)

    def _vectors(self, frames: Tensor) -> Tensor:
        size: Any = getattr(getattr(self.model, "patch_embed", None), "img_size", None)
        if size is not None and tuple(size) != tuple(frames.shape[-2:]):
            raise ValueError(
                f"the frames are {frames.shape[-2]} x {frames.shape[-1]} pixels, the frame encoder takes {size[0]} x {size[1]}: resize "
                f"them, in training by data.frame_size={size[0]}"
            )
        images = frames.to(self.model_dtype)
        images = images if frames.is_floating_point() else images / 127.5 - 1
        if self.activation_checkpointing and torch.is_grad_enabled():
            return F.normalize(checkpoint(self.model, images, use_reentrant=False), dim=-1)
        return F.normalize(self.model(images), dim=-1)

    @property
    def model_dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return next(self.model.parameters()).dtype


def _built_as(name: str, options: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """Returns `frame_model` and `frame_options` that make a timm model again, without what its weights came from."""
    import timm  # noqa: PLC0415  takes over a second, and is needed late
    from timm.models import parse_model_name  # noqa: PLC0415  likewise

    plain = {key: value for key, value in options.items() if not str(key).startswith(_WEIGHTS)}
    if parse_model_name(name)[0] is None and len(plain) == len(options):
        return {"frame_model": name, "frame_options": plain or None}
    made: Any = model
    architecture = made.pretrained_cfg["architecture"]
    plain = {key: value for key, value in made._model_args.items() if not str(key).startswith(_WEIGHTS)}
    size = getattr(getattr(made, "patch_embed", None), "img_size", None)
    if size is not None:
        plain.setdefault("img_size", list(size))
    with torch.device("meta"):
        again = timm.create_model(architecture, **plain).state_dict()
    shapes, expected = ({k: v.shape for k, v in state.items()} for state in (again, made.state_dict()))
    if shapes != expected:
        raise ValueError(
            f"the frame model {name!r} is no {architecture!r} with the options {plain}: name the architecture and its options in its place"
        )
    return {"frame_model": architecture, "frame_options": plain}


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
        frame_model: str = "vit_tiny_patch16_224",
        frame_options: dict[str, Any] | None = None,
        pretrained: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dims = {"video": dim}
        self.frame_encoder = FrameEncoder(frame_model, frame_options or {}, pretrained)
        self.frame_encoder.freeze_unread()
        self.proj = nn.Linear(self.frame_encoder.dim, dim)
        self.transformer = Transformer(dim, num_layers, num_heads, mlp_dim, dropout)
        self.clip_format = ClipFormat(frame_size=self.frame_encoder.frame_size)

    def stacks(self) -> Sequence[Stack]:
        """The temporal transformer, and the frame encoder."""
        return [stack for stack in (self.transformer.stack, self.frame_encoder.stack()) if stack is not None]

    @property
    def config(self) -> dict[str, Any]:
        """As for every plugin, but with the frame model's architecture in place of where its weights came from."""
        config = super().config
        config["init_args"] |= {**self.frame_encoder.built_as, "pretrained": False}
        return config

    def forward(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Features]:
        """Encodes `inputs["video"]`, frames or cached frame vectors."""
        cached = self.frame_encoder.features(inputs["video"])
        # A unit vector has entries of size 1/sqrt(dim); the projection should see unit variance.
        tokens = self.proj(torch.where(cached.mask.unsqueeze(-1), cached.values, 0) * self.frame_encoder.dim**0.5)
        pooled, frames = self.transformer(tokens, cached.mask)
        return {"video": Features(pooled, cached.present, cached.group, frames, cached.mask, cached.frame_seconds)}
