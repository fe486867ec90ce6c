"""Parameter groups and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from peav.objectives.base import Objective


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    """Splits trainable parameters into those with weight decay and those without.

    Only matrices and convolution kernels decay; norms, biases, the CLS vectors, token embeddings and all that objectives own (their
    logit_scale and logit_bias) do not.

    Args:
        modules: the modules to train.
        weight_decay: of the decaying group.
    """
    decay: list[nn.Parameter] = []
    keep: list[nn.Parameter] = []
    seen: set[int] = set()
    for root in modules:
        for module in root.modules():
            exempt = isinstance(module, nn.Embedding | Objective)
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad or id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                (keep if exempt or parameter.ndim < 2 else decay).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": keep, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


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
