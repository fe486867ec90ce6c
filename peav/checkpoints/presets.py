"""The sizes of the released models (arXiv 2512.19687; `reference` parameter counts are those of the released checkpoints)."""

from __future__ import annotations

from typing import Any

from peav.checkpoints.meta_config import HEADS
from peav.checkpoints.spec import FRAME_PAIR, PUBLISHED_PAIRS, CheckpointError, MediaSettings, ModelSpec

#: Width, feed-forward width, heads and audio layers by size; video has 4 layers and fusion 6.
_SIZES = {"small": (768, 2048, 6, 12), "base": (1024, 2752, 8, 16), "large": (1792, 4800, 14, 28)}

#: Parameters of the released PE-AV checkpoints, with and without a fixed number of frames.
PARAMETERS = {"small": 846_991_308, "base": 1_033_701_580, "large": 2_234_700_748}

_TEXT_WIDTH = 1024

#: The released models.
PRESETS = (
    *(f"pe-av-{size}{frames}" for size in _SIZES for frames in ("", "-16-frame")),
    *(f"pe-a-frame-{size}" for size in _SIZES),
)


def preset(name: str) -> ModelSpec:
    """Returns the specification of a released model: PE-AV or PE-A-Frame, small, base or large, PE-AV also with 16 frames.

    Raises:
        CheckpointError: if no released model has that name.

    >>> preset("pe-av-small-16-frame").media.num_frames
    16
    """
    if name not in PRESETS:
        raise CheckpointError(f"no released model is named {name!r}; they are {', '.join(PRESETS)}")
    size = next(size for size in _SIZES if size in name)
    dim, mlp_dim, num_heads, audio_layers = _SIZES[size]
    common: dict[str, Any] = {"dim": dim, "num_heads": num_heads, "mlp_dim": mlp_dim}
    text = {"hidden_size": _TEXT_WIDTH, "intermediate_size": 2624, "num_hidden_layers": 22, "num_attention_heads": 16}
    text |= {"vocab_size": 50368}
    encoders: dict[str, dict[str, Any]] = {
        "audio": {"class_path": "DacAudioEncoder", "init_args": {**common, "num_layers": audio_layers}},
        "text": {"class_path": "TextEncoder", "init_args": {"options": text, "layer": 22}},
    }
    if name.startswith("pe-a-frame"):
        return ModelSpec(encoders, ("text_event",), ("audio",), _TEXT_WIDTH, pairs=(FRAME_PAIR,), name=name)
    media = {"audio_dim": dim, "video_dim": dim}
    encoders |= {
        "video": {"class_path": "PEVideoEncoder", "init_args": {**common, "num_layers": 4}},
        "audio_video": {"class_path": "FusionEncoder", "init_args": {**media, **common, "num_layers": 6}},
        "plus_text": {"class_path": "PlusTextEncoder", "init_args": {**media, "text_dim": _TEXT_WIDTH}},
    }
    return ModelSpec(
        encoders,
        tuple(HEADS),
        embedding_dim=_TEXT_WIDTH,
        pairs=PUBLISHED_PAIRS,
        media=MediaSettings(num_frames=16 if name.endswith("-16-frame") else None),
        name=name,
    )
