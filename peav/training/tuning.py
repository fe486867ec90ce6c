"""How much of a model is trained: its heads, adapters, its last layers, or all of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from torch import nn

from peav.checkpoints.adapters import LORA_SCALE
from peav.embedding_model import EmbeddingModel
from peav.encoders import Encoder

#: What is trained: `heads` alone; `lora`, adapters beside the linear maps of the layers, and heads; `last`, the last layers of each stack,
#: and heads; `all` but the frozen frontends. Which layers there are the encoders say (`Encoder.stacks`).
Tune = Literal["all", "last", "lora", "heads"]


def apply_tuning(model: EmbeddingModel, tune: Tune, num_layers: int, lora_rank: int) -> None:
    """Freezes what is not to be trained, and adds adapters where they are asked for.

    Args:
        model: whose parameters are frozen in place.
        tune: what to train.
        num_layers: of `last`.
        lora_rank: of `lora`; adapters start as zero, scaled by 2.

    Raises:
        ValueError: if there is no such way, fewer than one layer or rank, or an encoder says nothing of its layers.
        ImportError: if `lora` is asked for without peft.
    """
    if tune not in ("all", "last", "lora", "heads"):
        raise ValueError(f"tune must be 'all', 'last', 'lora' or 'heads', not {tune!r}")
    if num_layers < 1 or lora_rank < 1:
        raise ValueError(f"tune_layers and lora_rank must be at least 1, not {num_layers} and {lora_rank}")
    if tune == "all":
        return
    for name, encoder in model.each_encoder().items():
        stacks = encoder.stacks()
        frontend = _parameters_of_frontends(encoder)
        own = [parameter for key, parameter in encoder.named_parameters() if key not in frontend]
        tuned = [stack for stack in stacks if not stack.frontend]
        if tune != "heads" and own and not tuned:
            raise ValueError(
                f"tune={tune!r}: encoder {name!r} ({type(encoder).__name__}) does not say which layers it has (`Encoder.stacks`), so that "
                "none of it would be trained. Declare them, or choose tune='heads' or 'all'"
            )
        for parameter in own:
            parameter.requires_grad_(False)
        if tune == "lora":
            _add_adapters(encoder, [layer for stack in tuned for layer in stack.layers], frontend, lora_rank)
        elif tune == "last":
            for stack in tuned:
                _train(*list(stack.layers)[-num_layers:], *stack.after)


def _parameters_of_frontends(encoder: Encoder) -> set[str]:
    """Returns the names of the parameters of an encoder's frontends, which say themselves which of them are trained."""
    modules = [frontend.module for frontend in encoder.frontends.values()]
    modules += [layer for stack in encoder.stacks() if stack.frontend for layer in (*stack.layers, *stack.after)]
    held = {id(parameter) for module in modules for parameter in module.parameters()}
    return {name for name, parameter in encoder.named_parameters() if id(parameter) in held}


def _train(*modules: nn.Module) -> None:
    for module in modules:
        module.requires_grad_(True)


def _add_adapters(encoder: Encoder, layers: Sequence[nn.Module], frontend: Collection[str], rank: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415  an optional extra
    except ImportError as error:
        raise ImportError("tune='lora' needs peft: pip install 'peav[lora]'") from error
    linear = {id(module) for layer in layers for module in layer.modules() if isinstance(module, nn.Linear)}
    names = sorted(name for name, module in encoder.named_modules() if id(module) in linear)
    if names:
        config = LoraConfig(r=rank, lora_alpha=round(LORA_SCALE * rank), lora_dropout=0.0, target_modules=names)
        trained = {key: p.requires_grad for key, p in encoder.named_parameters() if key in frontend}
        inject_adapter_in_model(config, encoder)  # which freezes everything else
        for key, parameter in encoder.named_parameters():
            if key in trained:
                parameter.requires_grad_(trained[key])
