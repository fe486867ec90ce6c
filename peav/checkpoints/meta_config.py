"""config.json of Meta's own format, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peav.checkpoints.parts import init_args, text_config, text_options, transformer_size
from peav.checkpoints.spec import FRAME_PAIR, CheckpointError, MediaSettings, ModelSpec

#: Our embedding names and Meta's heads.
HEADS = {
    "audio": "audio_head",
    "video": "visual_head",
    "audio_video": "audio_visual_head",
    "text_audio": "audio_text_head",
    "text_video": "visual_text_head",
    "text_audio_video": "audio_visual_text_head",
    "audio_plus_text": "audio_plus_text_head",
    "video_plus_text": "visual_plus_text_head",
}
FRAME_HEADS = {"audio": "audio_head", "text_event": "text_head"}

#: Meta's names of PE frame encoders, and timm's.
PE_MODELS = {
    "PE-Core-L14-336": ("vit_pe_core_large_patch14_336", 336, 1024),
    "PE-Core-B16-224": ("vit_pe_core_base_patch16_224", 224, 1024),
    "PE-Core-S16-384": ("vit_pe_core_small_patch16_384", 384, 512),
    "PE-Core-T16-384": ("vit_pe_core_tiny_patch16_384", 384, 512),
    "PE-Core-G14-448": ("vit_pe_core_gigantic_patch14_448", 448, 1280),
}
_NUM_FRAMES = 16  # of the models with a fixed number of frames


def is_meta(config: Mapping[str, Any]) -> bool:
    """Tells this format by its config.json."""
    return "model_type" not in config and ("audio_visual_model" in config or "audio_model" in config)


def read_spec(config: Mapping[str, Any]) -> ModelSpec:
    """Turns config.json into a specification.

    Raises:
        CheckpointError: if it describes something else.
    """
    try:
        return _frame_spec(config) if "audio_visual_model" not in config else _audio_video_spec(config)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"config.json is not Meta's of PE-AV or PE-A-Frame: {type(error).__name__}: {error}"
        ) from error


def _audio_args(config: Mapping[str, Any]) -> dict[str, Any]:
    codec: dict[str, Any] = {
        "encoder_hidden_size": 64,
        "downsampling_ratios": [2, 8, 10, 12],
        "codebook_dim": 128,
        "sampling_rate": 48000,
    }
    codec |= config.get("dac_vae_encoder") or {}
    return {
        **_transformer_args(config.get("audio_transformer") or {}),
        "sample_rate": codec["sampling_rate"],
        "codec_hidden_size": codec["encoder_hidden_size"],
        "codec_ratios": list(codec["downsampling_ratios"]),
        "codec_dim": codec["codebook_dim"],
    }


def _transformer_args(config: Mapping[str, Any]) -> dict[str, Any]:
    if config.get("num_key_value_heads") not in (None, config.get("num_attention_heads", 8)):
        raise CheckpointError("grouped key and value heads, which no released model has, are not supported")
    return {
        "dim": config.get("hidden_size", 1024),
        "num_layers": config.get("num_hidden_layers", 16),
        "num_heads": config.get("num_attention_heads", 8),
        "mlp_dim": config.get("intermediate_size", 2752),
    }


def _text_args(config: Mapping[str, Any]) -> dict[str, Any]:
    layer = config.get("nth_text_layer", 22)
    options = text_options(
        config.get("text_model")
        or {"hidden_size": 1024, "intermediate_size": 2624, "num_hidden_layers": 28, "num_attention_heads": 16}
    )
    # The hidden state after the last layer is, in transformers, the one after the final norm.
    kept = layer if layer is not None and layer < options["num_hidden_layers"] else None
    return {
        "tokenizer": None,
        "architecture": "modernbert",
        "options": options,
        "layer": kept,
        "max_tokens": 512,
        "pooling": "cls",
    }


def _frame_encoder_args(config: Mapping[str, Any], vision: Mapping[str, Any] | None) -> tuple[dict[str, Any], int]:
    if vision is not None:
        grid = vision["image_size"] // vision["patch_size"]
        options = {
            "img_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "embed_dim": vision["width"],
            "depth": vision["layers"],
            "num_heads": vision["heads"],
            "mlp_ratio": vision["mlp_ratio"],
            "class_token": vision.get("use_cls_token", True),
            "attn_pool_num_heads": vision.get("attn_pooler_heads", 8),
            "ref_feat_shape": [grid, grid],
        }
        args = {
            "frame_model": PE_MODELS["PE-Core-L14-336"][0],
            "frame_options": options,
            "frame_dim": vision["output_dim"],
        }
        return args, vision["image_size"]
    name = config.get("pe_encoder", "PE-Core-L14-336")
    if name not in PE_MODELS:
        raise CheckpointError(f"config.json names the frame encoder {name!r}; known are {', '.join(PE_MODELS)}")
    model, size, dim = PE_MODELS[name]
    return {"frame_model": model, "frame_options": None, "frame_dim": dim}, size


def _audio_video_spec(config: Mapping[str, Any]) -> ModelSpec:
    joint = config["audio_visual_model"]
    visual = joint.get("visual_model") or {}
    audio = _audio_args(joint.get("audio_model") or {})
    video = _transformer_args(visual.get("visual_transformer") or {})
    frame_encoder, frame_size = _frame_encoder_args(visual, config.get("pe_vision"))
    fusion = _transformer_args(joint.get("audio_visual_transformer") or {})
    text = _text_args(config)
    text_dim = text["options"].get("hidden_size", 768)
    sizes = {"audio_dim": audio["dim"], "video_dim": video["dim"]}
    encoders = {
        "audio": {"class_path": "DacAudioEncoder", "init_args": audio},
        "video": {"class_path": "PEVideoEncoder", "init_args": video | frame_encoder},
        "audio_video": {"class_path": "FusionEncoder", "init_args": sizes | fusion},
        "text": {"class_path": "TextEncoder", "init_args": text},
        "plus_text": {"class_path": "PlusTextEncoder", "init_args": {**sizes, "text_dim": text_dim}},
    }
    media = MediaSettings(
        sample_rate=audio["sample_rate"],
        num_frames=_NUM_FRAMES if visual.get("fixed_len_video") else None,
        frame_size=frame_size,
    )
    return ModelSpec(encoders, tuple(HEADS), embedding_dim=config.get("output_dim", 1024), media=media)


def _frame_spec(config: Mapping[str, Any]) -> ModelSpec:
    audio = _audio_args(config["audio_model"])
    encoders = {
        "audio": {"class_path": "DacAudioEncoder", "init_args": audio},
        "text": {"class_path": "TextEncoder", "init_args": _text_args(config)},
    }
    media = MediaSettings(sample_rate=audio["sample_rate"])
    return ModelSpec(
        encoders, ("text_event",), ("audio",), config.get("output_dim", 1024), pairs=(FRAME_PAIR,), media=media
    )


def write_config(spec: ModelSpec, frame_level: bool, num_text_layers: int) -> dict[str, Any]:
    """Writes config.json.

    Args:
        spec: what the model is.
        frame_level: whether it is a PE-A-Frame.
        num_text_layers: those that are read, and those after them.

    Raises:
        CheckpointError: if the format cannot say it.
    """
    text, audio = init_args(spec, "text"), init_args(spec, "audio")
    hop_channels = audio["codec_hidden_size"] * 2 ** len(audio["codec_ratios"])
    audio_model = {
        "dac_vae_encoder": {
            "encoder_hidden_size": audio["codec_hidden_size"],
            "downsampling_ratios": list(audio["codec_ratios"]),
            "codebook_size": hop_channels,
            "codebook_dim": audio["codec_dim"],
            "sampling_rate": audio["sample_rate"],
            "hidden_size": hop_channels,
            "quantizer_dropout": 0,
        },
        "audio_transformer": _transformer_config(audio),
    }
    config: dict[str, Any] = {
        "text_model": text_config(text.get("options") or {}, num_text_layers),
        "output_dim": spec.embedding_dim,
        "nth_text_layer": text.get("layer"),
    }
    if frame_level:
        return {"audio_model": audio_model, **config}
    video, fusion = init_args(spec, "video"), init_args(spec, "audio_video")
    if not audio["dim"] == video["dim"] == fusion["dim"]:
        raise CheckpointError(
            "Meta's format gives the audio, video and fusion transformers one width; this model's differ"
        )
    name = next(
        (
            key
            for key, (model, _, _) in PE_MODELS.items()
            if model == video["frame_model"] and not video.get("frame_options")
        ),
        None,
    )
    visual = {
        "pe_encoder": name or "custom",
        "visual_transformer": _transformer_config(video),
        "fixed_len_video": spec.known_media.num_frames == _NUM_FRAMES,
    }
    if name is None:
        config["pe_vision"] = _vision_config(video)
    return {
        "audio_visual_model": {
            "audio_visual_transformer": _transformer_config(fusion),
            "visual_model": visual,
            "audio_model": audio_model,
        },
        **config,
    }


def _transformer_config(args: Mapping[str, Any]) -> dict[str, Any]:
    heads, mlp_dim = transformer_size(args)
    return {
        "hidden_size": args["dim"],
        "intermediate_size": mlp_dim,
        "num_hidden_layers": args["num_layers"],
        "num_attention_heads": heads,
    }


def _vision_config(video: Mapping[str, Any]) -> dict[str, Any]:
    options = video.get("frame_options") or {}
    names = {
        "image_size": "img_size",
        "patch_size": "patch_size",
        "width": "embed_dim",
        "layers": "depth",
        "heads": "num_heads",
        "mlp_ratio": "mlp_ratio",
        "use_cls_token": "class_token",
        "attn_pooler_heads": "attn_pool_num_heads",
    }
    defaults = {"mlp_ratio": 4.0, "use_cls_token": True, "attn_pooler_heads": 8}
    try:
        vision = {theirs: options[ours] if ours in options else defaults[theirs] for theirs, ours in names.items()}
    except KeyError as error:
        raise CheckpointError(
            f"the frame encoder's {error} is not in its frame_options, so Meta's config cannot say it"
        ) from None
    return {**vision, "pool_type": "attn", "output_dim": video["frame_dim"]}
