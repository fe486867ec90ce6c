"""How much of a model is trained: its heads, adapters, its last layers, or all of it."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from peav.checkpoints.adapters import LORA_SCALE
from peav.encoders.transformer import Transformer
from peav.model import PEAV

#: What is trained: `heads` alone; `lora`, adapters beside the linear maps of the transformers, and heads; `last`, the last layers of each
#: transformer and of the text model, and heads; `all` but the frozen frontends.
Tune = Literal["all", "last", "lora", "heads"]

#: Linear maps that get adapters: those of our transformers, and of ModernBERT.
LORA_TARGETS = ("qkv", "out", "gate_up", "down", "Wqkv", "Wo", "Wi")


def apply_tuning(model: PEAV, tune: Tune, num_layers: int, lora_rank: int) -> None:
    """Freezes what is not to be trained, and adds adapters where they are asked for.

    Args:
        model: whose parameters are frozen in place.
        tune: what to train.
        num_layers: of `last`.
        lora_rank: of `lora`; adapters start as zero, scaled by 2.

    Raises:
        ValueError: if there is no such way, or fewer than one layer or rank.
        ImportError: if `lora` is asked for without peft.
    """
    if tune not in ("all", "last", "lora", "heads"):
        raise ValueError(f"tune must be 'all', 'last', 'lora' or 'heads', not {tune!r}")
    if num_layers < 1 or lora_rank < 1:
        raise ValueError(f"tune_layers and lora_rank must be at least 1, not {num_layers} and {lora_rank}")
    if tune == "all":
        return
    for encoder in model.encoders.values():
        for name, parameter in encoder.named_parameters():
            if not name.startswith("frontend."):  # these say themselves which of their layers are trained
                parameter.requires_grad_(False)
        if tune == "lora":
            _add_adapters(encoder, lora_rank)
        elif tune == "last":
            for module in encoder.modules():
                if isinstance(module, Transformer):
                    _train(*list(module.blocks)[-num_layers:], module.norm, module.output)
            # A transformers text model: its list of layers, wherever it keeps it.
            text: Any = getattr(encoder, "model", None)
            if text is not None:
                layers: Any = getattr(text, "layers", None) or getattr(getattr(text, "encoder", None), "layer", ())
                _train(*list(layers)[-num_layers:])


def _train(*modules: nn.Module) -> None:
    for module in modules:
        module.requires_grad_(True)


def _add_adapters(encoder: nn.Module, rank: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415  an optional extra
    except ImportError as error:
        raise ImportError("tune='lora' needs peft: pip install 'peav[lora]'") from error
    names = {
        name
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear)
        and name.rsplit(".", 1)[-1] in LORA_TARGETS
        and "frontend" not in name.split(".")
    }
    if names:
        config = LoraConfig(r=rank, lora_alpha=round(LORA_SCALE * rank), lora_dropout=0.0, target_modules=sorted(names))
        frontend = {p: p.requires_grad for key, p in encoder.named_parameters() if key.startswith("frontend.")}
        inject_adapter_in_model(config, encoder)  # which freezes everything else
        for parameter, trained in frontend.items():
            parameter.requires_grad_(trained)
