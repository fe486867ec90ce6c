"""Meta's own format (revision `perception_models` of the released repositories; facebookresearch/perception_models).

It holds raw heads; the scales and biases of PE-AV's pairs are not in it, PE-A-Frame's are. It also holds what no computation reads:
text layers after the one that is read, and the half of the DAC-VAE's bottleneck that only its training needs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from peav.checkpoints.keymap import Rule, apply_to_ours, apply_to_theirs, listing, weight_and_bias
from peav.checkpoints.meta_config import FRAME_HEADS, HEADS, write_config
from peav.checkpoints.parts import (
    check_exportable,
    encoder_name,
    fusion_rules,
    head_rules,
    init_args,
    prefixed,
    transformer_rules,
)
from peav.checkpoints.spec import FRAME_PAIR, CheckpointError, ModelSpec

log = logging.getLogger(__name__)

_SPARE = "unused."  # prefix, inside the conversion, of what is read into `unused`


def _rules(spec: ModelSpec, keys: Collection[str]) -> list[Rule]:
    frame_level = "video" not in {name for name in spec.embeddings}
    prefix = "" if frame_level else "audio_visual_model."
    name = encoder_name(spec, "audio")
    ours, theirs = f"encoders.{name}.", f"{prefix}audio_model."
    embeddings = ("embeddings", "cls_token")
    rules = [
        *prefixed(keys, f"{ours}frontend.encoder.", f"{theirs}dac_vae_encoder.encoder."),
        *(
            Rule(
                (f"{ours}frontend.bottleneck.{part}", f"{_SPARE}{theirs}dac_vae_encoder.bottleneck.scale.{part}"),
                (f"{theirs}dac_vae_encoder.bottleneck.in_proj.{part}",),
                our_parts=(1, 1),
            )
            for part in ("weight", "bias")
        ),
        *weight_and_bias(f"{ours}data_proj", f"{theirs}data_proj"),
        *transformer_rules(
            f"{ours}transformer.", f"{theirs}audio_transformer.", init_args(spec, "audio")["num_layers"], *embeddings
        ),
        *prefixed(keys, f"encoders.{encoder_name(spec, 'text')}.model.", "text_model."),
    ]
    for embedding, head in (FRAME_HEADS if frame_level else HEADS).items():
        rules += head_rules(f"heads.{embedding}", head)
    if frame_level:
        score = f"scores.{FRAME_PAIR[0]}:{FRAME_PAIR[1]}"
        return [*rules, Rule((f"{score}.scale",), ("logit_scale",)), Rule((f"{score}.bias",), ("logit_bias",))]
    name = encoder_name(spec, "video")
    ours, theirs = f"encoders.{name}.", f"{prefix}visual_model."
    rules += [
        *_frame_encoder_rules(keys, f"{ours}frontend.model.", f"{theirs}pe_encoder."),
        Rule((f"{ours}proj.weight",), (f"{theirs}proj.weight",)),
        *weight_and_bias(f"{ours}data_proj", f"{theirs}data_proj"),
        *transformer_rules(
            f"{ours}transformer.", f"{theirs}visual_transformer.", init_args(spec, "video")["num_layers"], *embeddings
        ),
    ]
    ours, theirs = f"encoders.{encoder_name(spec, 'audio_video')}.", f"{prefix}audio_visual_transformer."
    aligner = f"{theirs}modality_aligner."
    return [
        *rules,
        *fusion_rules(ours, f"{aligner}conv", f"{aligner}layer_norm", theirs),
        *transformer_rules(f"{ours}transformer.", theirs, init_args(spec, "audio_video")["num_layers"], *embeddings),
    ]


#: timm's names and Meta's of the PE frame encoder, in the order in which they are replaced.
_PE_NAMES = (
    (r"^patch_embed\.proj\.", "conv1."),
    (r"^blocks\.", "transformer.resblocks."),
    (r"^norm_pre\.", "ln_pre."),
    (r"^norm\.", "ln_post."),
    (r"^attn_pool\.norm\.", "attn_pool.layernorm."),
    (r"^attn_pool\.proj\.", "attn_pool.attn.out_proj."),
    (r"\.norm([12])\.", r".ln_\1."),
    (r"\.attn\.qkv\.", ".attn.in_proj_"),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.gamma_([12])$", r".ls_\1.gamma"),
)


def _frame_encoder_rules(keys: Collection[str], ours: str, theirs: str) -> list[Rule]:
    special = {
        "cls_token": ("class_embedding", "(1, 1, D) as vector"),
        "pos_embed": ("positional_embedding", "(1, N, D) as (N, D)"),
        "attn_pool.latent": ("attn_pool.probe", "same"),
        "head.weight": ("proj", "transposed"),
    }
    rules = []
    for key in sorted(key for key in keys if key.startswith(ours)):
        name = key.removeprefix(ours)
        if name in special:
            rules.append(Rule((key,), (theirs + special[name][0],), special[name][1]))
        elif name.startswith("attn_pool.q."):
            part = name.rsplit(".", 1)[1]
            both = (f"{ours}attn_pool.q.{part}", f"{ours}attn_pool.kv.{part}")
            rules.append(Rule(both, (f"{theirs}attn_pool.attn.in_proj_{part}",), our_parts=(1, 2)))
        elif not name.startswith("attn_pool.kv.") and name != "head.bias":
            for pattern, replacement in _PE_NAMES:
                name = re.sub(pattern, replacement, name)
            rules.append(Rule((key,), (theirs + name,)))
    return rules


def to_ours(
    spec: ModelSpec, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: object
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Turns Meta's tensors into ours.

    Args:
        spec: what the model is.
        tensors: of model.safetensors.
        expected: our state dict, for its names and shapes.
        source: for messages.

    Returns:
        our tensors, and what no computation reads, by Meta's names.

    Raises:
        CheckpointError: if tensors are missing or unexpected; the message lists them.
    """
    state, rest = apply_to_ours(_rules(spec, expected), tensors, source)
    layer = init_args(spec, "text")["layer"]
    spare = {key: rest.pop(key) for key in list(rest) if _is_unused(key, layer)}
    if rest:
        raise CheckpointError(f"{source}: {listing(sorted(rest), 'unexpected')}")
    spare |= {key.removeprefix(_SPARE): state.pop(key) for key in list(state) if key.startswith(_SPARE)}
    # timm's head has a bias, Meta's projection none.
    state |= {
        key: torch.zeros_like(tensor, device="cpu")
        for key, tensor in expected.items()
        if key.endswith("frontend.model.head.bias")
    }
    return state, spare


def _is_unused(key: str, layer: int | None) -> bool:
    found = re.match(r"text_model\.layers\.(\d+)\.", key)
    return (found is not None and layer is not None and int(found[1]) >= layer) or "bottleneck.out_proj." in key


def to_theirs(
    spec: ModelSpec, state: Mapping[str, Tensor], unused: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Turns a model into Meta's config.json and tensors.

    What Meta's format has and no computation reads is taken from `unused`, else zero.

    Raises:
        CheckpointError: if the format cannot hold the model.
    """
    check_exportable(spec, "Meta's format")
    frame_level = spec.embeddings == ("text_event",) and spec.frames == ("audio",)
    if not frame_level and set(spec.embeddings) != set(HEADS):
        raise CheckpointError(
            f"Meta's format holds either the eight embeddings {', '.join(HEADS)} or PE-A-Frame's; this model has "
            f"{', '.join(spec.embeddings)}"
        )
    state = dict(state)
    for key in [key for key in state if key.endswith("frontend.model.head.bias")]:
        if state.pop(key).any():
            raise CheckpointError(f"Meta's format has no bias in the frame encoder's head, but {key} is not zero")
    rules = _rules(spec, state)
    for rule in rules:
        for ours, spare in zip(rule.ours, rule.ours[1:], strict=False):
            if spare.startswith(_SPARE):
                state[spare] = unused.get(spare.removeprefix(_SPARE), torch.zeros_like(state[ours]))
    tensors = apply_to_theirs(rules, state)
    prefix = "" if frame_level else "audio_visual_model."
    codec = f"{prefix}audio_model.dac_vae_encoder.bottleneck"
    latents, channels, _ = tensors[f"{codec}.in_proj.weight"].shape
    tensors[f"{codec}.out_proj.weight"] = unused.get(f"{codec}.out_proj.weight", torch.zeros(channels, latents // 2, 1))
    tensors[f"{codec}.out_proj.bias"] = unused.get(f"{codec}.out_proj.bias", torch.zeros(channels))
    num_layers = _add_unused_text_layers(tensors, unused, init_args(spec, "text"))
    return write_config(spec, frame_level, num_layers), tensors


def _add_unused_text_layers(tensors: dict[str, Tensor], unused: Mapping[str, Tensor], text: Mapping[str, Any]) -> int:
    """Adds the text layers after the one that is read, and returns the number of all.

    Were there none, Meta's code would read behind the final norm.
    """
    layer, options = text.get("layer"), text.get("options") or {}
    if layer is None:
        return int(options.get("num_hidden_layers", 22))
    kept = {key: tensor for key, tensor in unused.items() if key.startswith("text_model.layers.")}
    if kept:
        tensors |= kept
        return 1 + max(int(key.split(".")[2]) for key in kept)
    last = f"text_model.layers.{layer - 1}."
    log.info("Meta's format needs a text layer after the %d that are read: one of zeros is written", layer)
    copies = {
        key.replace(last, f"text_model.layers.{layer}."): torch.zeros_like(tensor)
        for key, tensor in tensors.items()
        if key.startswith(last)
    }
    # Layer 0 has no norm before its attention, later ones have.
    if layer == 1:
        copies[f"text_model.layers.{layer}.attn_norm.weight"] = torch.zeros_like(tensors[f"{last}mlp_norm.weight"])
    tensors |= copies
    return layer + 1
