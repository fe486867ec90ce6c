"""The format of transformers' PeAudioVideoModel and PeAudioFrameLevelModel (the main revision of the released repositories).

It holds the text layers that are read and no more, and the scales and biases of six pairs. Its embeddings have the text's width.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peav.checkpoints.keymap import Rule, apply_to_ours, apply_to_theirs, listing, weight_and_bias
from peav.checkpoints.meta_config import HEADS
from peav.checkpoints.parts import (
    check_exportable,
    encoder_name,
    fusion_rules,
    head_rules,
    init_args,
    prefixed,
    text_config,
    text_options,
    transformer_rules,
    transformer_size,
)
from peav.checkpoints.processors import read_media, read_sample_rate
from peav.checkpoints.spec import FRAME_PAIR, CheckpointError, MediaSettings, ModelSpec, Pair

#: Our embedding names and transformers' heads.
_HEADS = {
    "audio": "audio_model.audio_head",
    "video": "video_model.video_head",
    "audio_video": "audio_video_head",
    "text_audio": "audio_model.text_audio_head",
    "text_video": "video_model.text_video_head",
    "text_audio_video": "text_audio_video_head",
    "audio_plus_text": "audio_plus_text_head",
    "video_plus_text": "video_plus_text_head",
}
_FRAME_HEADS = {"audio": "audio_head", "text_event": "text_audio_head"}

#: Pairs and the names of their scales and biases.
_SCORES: dict[Pair, str] = {
    ("audio", "text_audio"): "audio_model.text_audio_logit",
    ("video", "text_video"): "video_model.text_video_logit",
    ("audio", "video"): "audio_video_logit",
    ("audio_video", "text_audio_video"): "text_audio_video_logit",
    ("audio_plus_text", "video"): "audio_plus_text_logit",
    ("video_plus_text", "audio"): "video_plus_text_logit",
}
_FRAME_SCORES: dict[Pair, str] = {FRAME_PAIR: "text_audio_logit"}

_FRAME_PROJ = "video_model.video_encoder.embedder.proj.weight"

#: Names under which a whole state dict shows the same tensors again (`PeAudioVideoModel._tied_weights_keys`).
_TIED = (
    ("audio_model.text_model.", "text_model."),
    ("video_model.text_model.", "text_model."),
    ("audio_video_encoder.embedder.audio_encoder.", "audio_model.audio_encoder."),
    ("audio_video_encoder.embedder.video_encoder.", "video_model.video_encoder."),
)

#: Metadata of the safetensors file that says which pairs have a scale of their own; the others hold 1 and 0.
PAIRS_KEY = "peav_pairs"


def is_huggingface(config: Mapping[str, Any]) -> bool:
    """Tells this format by its config.json."""
    return config.get("model_type") in ("pe_audio_video", "pe_audio")


def read_spec(
    config: Mapping[str, Any], folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> ModelSpec:
    """Turns config.json, and the processor's configuration beside it, into a specification.

    Args:
        config: of the model.
        folder: that holds it.
        tensors: of the model; the dimension of frame vectors is read off them, which config.json need not say.
        metadata: of their file.

    Raises:
        CheckpointError: if it describes something else.
    """
    from transformers import PeAudioConfig, PeAudioVideoConfig  # noqa: PLC0415  takes over a second, and is needed late

    values = {key: value for key, value in config.items() if key != "model_type"}
    try:
        if config["model_type"] == "pe_audio":
            if config.get("architectures") not in (None, ["PeAudioFrameLevelModel"]):
                raise CheckpointError(
                    f"config.json names {config['architectures']}; of transformers' audio models peav reads PeAudioFrameLevelModel"
                )
            rate = read_sample_rate(folder, config.get("audio_config"))
            return _frame_spec(PeAudioConfig(**values), rate)
        rate = read_sample_rate(folder, (config.get("audio_video_config") or {}).get("audio_config"))
        return _audio_video_spec(PeAudioVideoConfig(**values), folder, tensors, metadata, rate)
    except (TypeError, AttributeError, KeyError) as error:
        raise CheckpointError(f"config.json is not transformers' of PE-AV: {type(error).__name__}: {error}") from error


def _transformer_args(config: Any) -> dict[str, Any]:
    if (
        config.num_key_value_heads != config.num_attention_heads
        or config.head_dim * config.num_attention_heads != config.hidden_size
    ):
        raise CheckpointError(
            "heads that do not divide the width, or grouped ones, which no released model has, are not supported"
        )
    return {
        "dim": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_dim": config.intermediate_size,
    }


def _audio_args(config: Any, sample_rate: int) -> dict[str, Any]:
    codec = config.dac_config
    return {
        **_transformer_args(config),
        "sample_rate": sample_rate,
        "codec_hidden_size": codec.encoder_hidden_size,
        "codec_ratios": list(codec.downsampling_ratios),
        "codec_dim": codec.codebook_dim,
    }


def _text_args(config: Any) -> dict[str, Any]:
    options = text_options(config.to_dict())
    layer = options["num_hidden_layers"]
    return {
        "tokenizer": None,
        "architecture": "modernbert",
        "options": options,
        "layer": layer,
        "max_tokens": 512,
        "pooling": "cls",
    }


def _audio_video_spec(
    config: Any, folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], sample_rate: int
) -> ModelSpec:
    joint = config.audio_video_config
    audio, text = _audio_args(joint.audio_config, sample_rate), _text_args(config.text_config)
    video = _transformer_args(joint.video_config)
    vision = joint.video_config.vision_config
    options = dict(vision.model_args or {})
    frame_dim = tensors[_FRAME_PROJ].shape[1] if _FRAME_PROJ in tensors else vision.num_labels
    video |= {"frame_model": vision.architecture, "frame_options": options or None, "frame_dim": frame_dim}
    sizes = {"audio_dim": audio["dim"], "video_dim": video["dim"]}
    encoders = {
        "audio": {"class_path": "DacAudioEncoder", "init_args": audio},
        "video": {"class_path": "PEVideoEncoder", "init_args": video},
        "audio_video": {"class_path": "FusionEncoder", "init_args": sizes | _transformer_args(joint)},
        "text": {"class_path": "TextEncoder", "init_args": text},
        "plus_text": {
            "class_path": "PlusTextEncoder",
            "init_args": {**sizes, "text_dim": config.text_config.hidden_size},
        },
    }
    known = metadata.get(PAIRS_KEY)
    pairs = tuple(pair for pair in _SCORES if known is None or _score(pair) in known.split())
    media = read_media(folder, audio["sample_rate"], options.get("img_size"))
    return ModelSpec(encoders, tuple(HEADS), embedding_dim=config.text_config.hidden_size, pairs=pairs, media=media)


def _frame_spec(config: Any, sample_rate: int) -> ModelSpec:
    audio = _audio_args(config.audio_config, sample_rate)
    encoders = {
        "audio": {"class_path": "DacAudioEncoder", "init_args": audio},
        "text": {"class_path": "TextEncoder", "init_args": _text_args(config.text_config)},
    }
    media = MediaSettings(sample_rate=audio["sample_rate"])
    dim = config.text_config.hidden_size
    return ModelSpec(encoders, ("text_event",), ("audio",), dim, pairs=(FRAME_PAIR,), media=media)


def _rules(spec: ModelSpec, keys: Collection[str]) -> list[Rule]:
    frame_level = "video" not in spec.embeddings
    prefix = "" if frame_level else "audio_model."
    embeddings = ("patch_embedder", "class_embedding")
    ours, theirs = f"encoders.{encoder_name(spec, 'audio')}.", f"{prefix}audio_encoder."
    rules = [
        *prefixed(keys, f"{ours}frontend.encoder.", f"{theirs}embedder.dac_encoder."),
        *weight_and_bias(f"{ours}frontend.bottleneck", f"{theirs}embedder.bottleneck"),
        *weight_and_bias(f"{ours}data_proj", f"{theirs}embedder.data_proj"),
        *transformer_rules(f"{ours}transformer.", theirs, init_args(spec, "audio")["num_layers"], *embeddings),
        *prefixed(keys, f"encoders.{encoder_name(spec, 'text')}.model.", "text_model."),
    ]
    for embedding, head in (_FRAME_HEADS if frame_level else _HEADS).items():
        rules += head_rules(f"heads.{embedding}", head)
    for pair, name in (_FRAME_SCORES if frame_level else _SCORES).items():
        if f"scores.{_score(pair)}.scale" in keys:
            score = f"scores.{_score(pair)}"
            rules += [Rule((f"{score}.scale",), (f"{name}_scale",)), Rule((f"{score}.bias",), (f"{name}_bias",))]
    if frame_level:
        return rules
    ours, theirs = f"encoders.{encoder_name(spec, 'video')}.", "video_model.video_encoder."
    rules += [
        *prefixed(keys, f"{ours}frontend.model.", f"{theirs}embedder.vision_model.timm_model."),
        Rule((f"{ours}proj.weight",), (f"{theirs}embedder.proj.weight",)),
        *weight_and_bias(f"{ours}data_proj", f"{theirs}embedder.data_proj"),
        *transformer_rules(f"{ours}transformer.", theirs, init_args(spec, "video")["num_layers"], *embeddings),
    ]
    ours, theirs = f"encoders.{encoder_name(spec, 'audio_video')}.", "audio_video_encoder."
    embedder = f"{theirs}embedder."
    return [
        *rules,
        *fusion_rules(ours, f"{embedder}video_proj", f"{embedder}video_norm", embedder),
        *transformer_rules(f"{ours}transformer.", theirs, init_args(spec, "audio_video")["num_layers"], *embeddings),
    ]


def to_ours(
    spec: ModelSpec, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: object
) -> dict[str, Tensor]:
    """Turns transformers' tensors into ours.

    Args:
        spec: what the model is.
        tensors: of model.safetensors.
        expected: our state dict, for its names.
        source: for messages.

    Raises:
        CheckpointError: if tensors are missing or unexpected; the message lists them.
    """
    named: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        for again, first in _TIED:
            if key.startswith(again):
                key = first + key.removeprefix(again)
                break
        named[key] = tensor
    state, rest = apply_to_ours(_rules(spec, expected), named, source)
    scores = {
        f"{name}_{part}" for names in (_SCORES, _FRAME_SCORES) for name in names.values() for part in ("scale", "bias")
    }
    if unexpected := sorted(set(rest) - scores):
        raise CheckpointError(f"{source}: {listing(unexpected, 'unexpected')}")
    return state


def to_theirs(spec: ModelSpec, state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str]]:
    """Turns a model into transformers' config.json, tensors, and the metadata of their file.

    Pairs without a scale get 1 and 0, by which transformers' logits are dot products; the metadata say which pairs have one.

    Raises:
        CheckpointError: if the format cannot hold the model.
    """
    check_exportable(spec, "transformers' format")
    frame_level = spec.embeddings == ("text_event",) and spec.frames == ("audio",)
    if not frame_level and set(spec.embeddings) != set(HEADS):
        raise CheckpointError(
            f"transformers' format holds either the eight embeddings {', '.join(HEADS)} or PE-A-Frame's; this model has "
            f"{', '.join(spec.embeddings)}"
        )
    text = init_args(spec, "text")
    width = (text.get("options") or {}).get("hidden_size", 768)
    if spec.embedding_dim != width:
        raise CheckpointError(
            f"transformers' classes give embeddings the text's width, {width}, but this model's have {spec.embedding_dim}: "
            'save it as format="peav" or "meta"'
        )
    if text.get("layer") is None:
        raise CheckpointError(
            "transformers' format reads a text layer by its number; this model reads the last, after its norm"
        )
    held = _FRAME_SCORES if frame_level else _SCORES
    if extra := [" x ".join(pair) for pair in spec.pairs if pair not in held]:
        raise CheckpointError(f"transformers' format has no scale and bias for {', '.join(extra)}")
    tensors = apply_to_theirs(_rules(spec, state), state)
    for pair, name in held.items():
        if pair not in spec.pairs:
            tensors |= {f"{name}_scale": torch.ones(1), f"{name}_bias": torch.zeros(1)}
    metadata = {PAIRS_KEY: " ".join(_score(pair) for pair in spec.pairs)}
    return config_of(spec, frame_level), tensors, metadata


def config_of(spec: ModelSpec, frame_level: bool = False) -> dict[str, Any]:
    """Returns transformers' configuration of a model, PE-AV's or that of PE-A-Frame."""
    text, audio = init_args(spec, "text"), init_args(spec, "audio")
    text_values = text_config(text.get("options") or {}, text["layer"])
    from transformers import PeAudioConfig, PeAudioVideoConfig  # noqa: PLC0415  takes over a second, and is needed late

    audio_values = {
        **_transformer_config(audio),
        "dac_config": {
            "model_type": "dac",
            "encoder_hidden_size": audio["codec_hidden_size"],
            "downsampling_ratios": list(audio["codec_ratios"]),
            "codebook_dim": audio["codec_dim"],
            "sampling_rate": audio["sample_rate"],
        },
    }
    if frame_level:
        config = PeAudioConfig(text_config=text_values, audio_config=audio_values).to_dict()
        return {**config, "architectures": ["PeAudioFrameLevelModel"]}
    video, fusion = init_args(spec, "video"), init_args(spec, "audio_video")
    vision = {
        "model_type": "timm_wrapper",
        "architecture": video["frame_model"],
        "num_labels": video["frame_dim"],
        "do_pooling": True,
        "global_pool": "map",
        "model_args": dict(video.get("frame_options") or {}),
    }
    joint = {
        **_transformer_config(fusion),
        "audio_config": {"model_type": "pe_audio_encoder", **audio_values},
        "video_config": {"model_type": "pe_video_encoder", **_transformer_config(video), "vision_config": vision},
    }
    config = PeAudioVideoConfig(text_config=text_values, audio_video_config=joint).to_dict()
    # transformers forgets the number of classes of a nested timm model, unless it also goes by the name of its own.
    config["audio_video_config"]["video_config"]["vision_config"]["num_labels"] = video["frame_dim"]
    return {**config, "architectures": ["PeAudioVideoModel"]}


def _transformer_config(args: Mapping[str, Any]) -> dict[str, Any]:
    heads, mlp_dim = transformer_size(args)
    return {
        "hidden_size": args["dim"],
        "intermediate_size": mlp_dim,
        "num_hidden_layers": args["num_layers"],
        "num_attention_heads": heads,
        "head_dim": args["dim"] // heads,
    }


def _score(pair: Pair) -> str:
    return f"{pair[0]}:{pair[1]}"
