"""Rules and settings that Meta's format and transformers' have in common: both hold the same networks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from peav.checkpoints.keymap import Rule, same, weight_and_bias
from peav.checkpoints.spec import CheckpointError, ModelSpec

#: The encoders of the released architecture, by the names that imported models give them.
RELEASED = {
    "audio": "DacAudioEncoder",
    "video": "PEVideoEncoder",
    "audio_video": "FusionEncoder",
    "text": "TextEncoder",
    "plus_text": "PlusTextEncoder",
}

#: Configuration that says where a text model came from, not what it computes.
_NOT_OPTIONS = ("model_type", "transformers_version", "architectures", "dtype", "_name_or_path", "id2label", "label2id")


def transformer_rules(ours: str, theirs: str, num_layers: int, embeddings: str, cls: str) -> list[Rule]:
    """Makes the rules of a `peav.encoders.transformer.Transformer`.

    Args:
        ours: prefix of our names, with its last dot.
        theirs: prefix of the other names, with its last dot.
        num_layers: blocks.
        embeddings: how the other side calls the module of CLS token and ResNet block.
        cls: how it calls the CLS token.
    """
    rules = [Rule((f"{ours}cls",), (f"{theirs}{embeddings}.{cls}",), "vector as (1, 1, D)")]
    for index in (1, 2):
        block = f"{theirs}{embeddings}.resnet_block.block{index}"
        rules += weight_and_bias(f"{ours}resnet.norm{index}", f"{block}.groupnorm")
        rules += weight_and_bias(f"{ours}resnet.conv{index}", f"{block}.project")
    for layer in range(num_layers):
        mine, other = f"{ours}blocks.{layer}", f"{theirs}layers.{layer}"
        attention = f"{other}.self_attn"
        rules += [
            Rule((f"{mine}.attention_norm.weight",), (f"{other}.input_layernorm.weight",)),
            Rule(
                (f"{mine}.attention.qkv.weight",),
                tuple(f"{attention}.{name}_proj.weight" for name in "qkv"),
                their_parts=(1, 1, 1),
            ),
            Rule((f"{mine}.attention.q_norm.weight",), (f"{attention}.q_norm.weight",)),
            Rule((f"{mine}.attention.k_norm.weight",), (f"{attention}.k_norm.weight",)),
            Rule((f"{mine}.attention.out.weight",), (f"{attention}.o_proj.weight",)),
            Rule((f"{mine}.mlp_norm.weight",), (f"{other}.post_attention_layernorm.weight",)),
            Rule(
                (f"{mine}.gate_up.weight",),
                (f"{other}.mlp.gate_proj.weight", f"{other}.mlp.up_proj.weight"),
                their_parts=(1, 1),
            ),
            Rule((f"{mine}.down.weight",), (f"{other}.mlp.down_proj.weight",)),
        ]
    return [*rules, *same(ours, theirs, "norm.weight", "output.weight")]


def fusion_rules(ours: str, conv: str, norm: str, joint: str) -> list[Rule]:
    """Makes the rules of what a FusionEncoder has before its transformer."""
    return [
        Rule((f"{ours}video_proj.weight",), (f"{conv}.weight",), "matrix as kernel of 1"),
        Rule((f"{ours}video_proj.bias",), (f"{conv}.bias",)),
        *weight_and_bias(f"{ours}video_norm", norm),
        *weight_and_bias(f"{ours}proj.0", f"{joint}concat_modality_proj"),
        *weight_and_bias(f"{ours}proj.1", f"{joint}data_proj"),
    ]


def head_rules(ours: str, theirs: str) -> list[Rule]:
    """Makes the rules of a head."""
    return [
        *weight_and_bias(f"{ours}.norm", f"{theirs}.layer_norm"),
        Rule((f"{ours}.proj.weight",), (f"{theirs}.proj.weight",)),
    ]


def prefixed(keys: Collection[str], ours: str, theirs: str) -> list[Rule]:
    """Makes the rules of all our tensors under a prefix, which the other side calls the same under its own."""
    return [Rule((key,), (theirs + key.removeprefix(ours),)) for key in keys if key.startswith(ours)]


def init_args(spec: ModelSpec, name: str) -> Mapping[str, Any]:
    """Returns the constructor's arguments of an encoder by its released name."""
    found = spec.encoders[encoder_name(spec, name)].get("init_args") or {}
    return dict(found)


def encoder_name(spec: ModelSpec, name: str) -> str:
    """Returns what the model calls its encoder of a released kind.

    Raises:
        CheckpointError: if it has none, or the one that makes these features is of another kind.
    """
    for own, config in spec.encoders.items():
        if config["class_path"] == RELEASED[name]:
            return own
    kinds = ", ".join(config["class_path"] for config in spec.encoders.values())
    raise CheckpointError(f"the format holds a {RELEASED[name]}, which this model does not have; it has {kinds}")


def text_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Reduces a ModernBERT configuration, of whatever age, to what differs from transformers' defaults."""
    if config.get("model_type", "modernbert") != "modernbert":
        raise CheckpointError(f"the text model is a {config['model_type']!r}; PE-AV's is a 'modernbert'")
    from transformers import ModernBertConfig  # noqa: PLC0415  takes over a second, and is needed late

    full = ModernBertConfig(**config)
    found, default = full.to_dict(), ModernBertConfig(num_hidden_layers=full.num_hidden_layers).to_dict()
    return {
        key: value
        for key, value in found.items()
        if key in default and key not in _NOT_OPTIONS and (value != default[key] or key == "num_hidden_layers")
    }


def text_config(options: Mapping[str, Any], num_layers: int) -> dict[str, Any]:
    """Writes a ModernBERT configuration of `num_layers` layers."""
    kept = {key: value for key, value in options.items() if key not in ("num_hidden_layers", "layer_types")}
    if "layer_types" in options:
        kinds = list(options["layer_types"])
        kept["layer_types"] = [kinds[index % len(kinds)] for index in range(num_layers)]
    return {"model_type": "modernbert", **kept, "num_hidden_layers": num_layers}


def check_exportable(spec: ModelSpec, target: str) -> None:
    """Checks what neither released format can say.

    Raises:
        CheckpointError: with what would be lost.
    """
    if spec.normalize:
        raise CheckpointError(
            f"{target} means raw dot products, but this model's embeddings have unit length (normalize=True); "
            'save it as format="peav"'
        )
    if spec.text_pairs:
        pairs = ", ".join(" x ".join(pair) for pair in spec.text_pairs)
        raise CheckpointError(
            f"{target} holds one scale and one bias for {pairs}, but in this model each text has its own (per_text); "
            'save it as format="peav"'
        )
    text = init_args(spec, "text")
    if (text.get("architecture") or "modernbert") != "modernbert" or text.get("pooling", "cls") != "cls":
        raise CheckpointError(f'{target} holds a ModernBERT read at its CLS token; save this model as format="peav"')


def transformer_size(args: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the number of heads and the hidden width of the feed-forward networks of an encoder."""
    dim = int(args["dim"])
    mlp_dim = args.get("mlp_dim")
    return int(args["num_heads"]), int(mlp_dim) if mlp_dim is not None else 32 * round(dim * 8 / 3 / 32)
