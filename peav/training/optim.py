"""Parameter groups and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from peav.objectives.base import Objective

#: Modules whose weight multiplies what comes in: matrices and kernels.
_MULTIPLYING = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.MultiheadAttention, nn.RNNBase)

#: Parts of names by which modules of other packages call matrices that they keep as plain parameters.
_MATRIX_NAMES = ("weight", "kernel", "proj", "projection")


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    """Splits trainable parameters into those with weight decay and those without.

    Only matrices and convolution kernels decay: weights of linear maps, convolutions, attention and recurrent cells, and plain matrices
    that are named as one (`weight`, `in_proj_weight`, `kernel`, `proj`). Norms, biases, scales, token and position embeddings, the CLS
    and register tokens, latent queries, all that a module's own `no_weight_decay()` names (timm's convention), and all that objectives
    own do not.

    Args:
        modules: the modules to train.
        weight_decay: of the decaying group.
    """
    decay: list[nn.Parameter] = []
    keep: list[nn.Parameter] = []
    seen: set[int] = set()
    for root in modules:
        exempt = _exempt(root)
        for module in root.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad or id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                decays = id(parameter) not in exempt and _is_matrix(module, name, parameter)
                (decay if decays else keep).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": keep, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _exempt(root: nn.Module) -> set[int]:
    """Returns the ids of parameters that objectives own, that are embeddings, or that a module asks to spare."""
    exempt: set[int] = set()
    for module in root.modules():
        if isinstance(module, Objective):
            exempt |= {id(parameter) for parameter in module.parameters()}
        elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
            # Shared with a linear map, as some language models have it, a table is a table still.
            exempt |= {id(parameter) for parameter in module.parameters(recurse=False)}
        asks: Any = getattr(module, "no_weight_decay", None)
        if callable(asks):
            spared = {str(name) for name in asks()}
            exempt |= {id(parameter) for name, parameter in module.named_parameters() if name in spared}
        keywords: Any = getattr(module, "no_weight_decay_keywords", None)
        if callable(keywords):
            parts = tuple(str(name) for name in keywords())
            exempt |= {id(p) for name, p in module.named_parameters() if any(part in name for part in parts)}
    return exempt


def _is_matrix(module: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    """Tells a matrix or a kernel by the module that holds it and, among plain parameters, by its name."""
    if parameter.ndim < 2 or name.endswith("_g") or "bias" in name:  # weight_g is the scale of a weight norm
        return False
    if isinstance(module, ParametrizationList):
        return name != "original0"  # likewise
    if isinstance(module, _MULTIPLYING):
        return True
    # Norms over several axes have a weight of as many.
    return parameter.ndim == 2 and "Norm" not in type(module).__name__ and name.rsplit("_", 1)[-1] in _MATRIX_NAMES


def warmup_cosine(warmup_steps: int, total_steps: int, final_fraction: float = 0.0) -> Callable[[int], float]:
    """Returns the factor of the learning rate by step: linear from 1/warmup_steps to 1, then a cosine down to `final_fraction`.

    Args:
        warmup_steps: steps of the rise.
        total_steps: steps at whose end `final_fraction` is reached.
        final_fraction: of the peak.

    >>> factor = warmup_cosine(2, 10)
    >>> [round(factor(step), 3) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor


class Schedule:
    """The factor of the learning rate, whose end is told before the first step: `warmup_cosine`.

    Args:
        warmup_steps: steps of the rise.
        final_fraction: of the peak.

    Attributes:
        total_steps: steps at whose end `final_fraction` is reached; None until it is known. The first step's factor needs none.
    """

    def __init__(self, warmup_steps: int, final_fraction: float = 0.0) -> None:
        self.warmup_steps, self.final_fraction = warmup_steps, final_fraction
        self.total_steps: int | None = None

    def factor(self, step: int) -> float:
        """Returns the factor at an optimizer step."""
        if self.total_steps is None and step > 0:
            raise RuntimeError(f"the schedule was asked for step {step} before it was told its end")
        total = max(1, self.warmup_steps) if self.total_steps is None else self.total_steps
        return warmup_cosine(self.warmup_steps, total, self.final_fraction)(step)
