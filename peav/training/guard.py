"""Steps whose loss or gradient is not finite: left out, counted, named, and an end to them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from peav import distributed
from peav.types import Embedding

log = logging.getLogger(__name__)

#: How many clips a message names.
_NAMED = 8


class FiniteGuard:
    """Leaves out optimizer steps that would make the weights NaN.

    All ranks leave out the same steps: one number is reduced before each step.

    Args:
        most: steps in a row after which training stops.

    Attributes:
        skipped: steps left out so far.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"max_nonfinite_steps must be at least 1, not {most}")
        self.most, self.skipped, self.in_row = most, 0, 0
        self._finite: Tensor | None = None
        self._ids: tuple[str, ...] = ()
        self._embeddings: dict[str, Tensor] = {}

    def watch(self, loss: Tensor, ids: Sequence[str], embeddings: Mapping[str, Embedding]) -> None:
        """Notes a loss, and which clips it came from.

        Args:
            loss: scalar.
            ids: of the clips of this rank.
            embeddings: what the encoders made of them.
        """
        finite = torch.isfinite(loss.detach())
        if self._finite is None or bool(self._finite):  # of several batches of a step the first guilty one is named
            self._ids, self._embeddings = tuple(ids), {n: e.pooled.detach() for n, e in embeddings.items()}
        self._finite = finite if self._finite is None else self._finite & finite

    def check(self, parameters: Sequence[nn.Parameter], step: int, gradients: bool = True) -> None:
        """Takes the gradients away where the loss or one of them is not finite, so that the optimizer has nothing to do.

        Args:
            parameters: whose gradients there are.
            step: number of the optimizer step, for the message.
            gradients: whether to look at the gradients: a loss scaler does it itself.

        Raises:
            FloatingPointError: on every rank, when this was one step too many in a row.
        """
        finite = self._finite if self._finite is not None else torch.tensor(True)
        self._finite = None
        held = [_local(p.grad) for p in parameters if p.grad is not None]
        of_gradients = torch.ones_like(finite)
        if gradients and held:
            # The largest absolute value: a sum of squares can overflow where every gradient is finite.
            of_gradients = torch.stack([torch.isfinite(most) for most in torch._foreach_norm(held, torch.inf)]).all()
        bad = distributed.sum_over_ranks(torch.stack((~finite, ~of_gradients)).to(torch.float32))
        if not bad.any():
            self.in_row = 0
            return
        for parameter in parameters:
            parameter.grad = None
        self.skipped += 1
        self.in_row += 1
        what = "the loss" if bad[0] else "a gradient"
        where = (
            f"; on this rank it is {'finite' if finite else 'not'}" if distributed.world_size() > 1 and bad[0] else ""
        )
        message = f"step {step} is left out: {what} is not finite{where}. Clips: {_named(self._ids, self._embeddings)}"
        if self.in_row >= self.most:
            raise FloatingPointError(f"{message}. {self.in_row} steps in a row (max_nonfinite_steps): training stops")
        log.warning(message)


def name_suspects(ids: Sequence[str], embeddings: Mapping[str, Embedding]) -> str:
    """Returns the ids of clips whose embeddings are not finite, or of all, the first few of them."""
    return _named(ids, {name: e.pooled.detach() for name, e in embeddings.items()})


def _named(ids: Sequence[str], embeddings: Mapping[str, Tensor]) -> str:
    guilty = torch.zeros(len(ids), dtype=torch.bool)
    for pooled in embeddings.values():
        if len(pooled) == len(ids):
            guilty |= ~torch.isfinite(pooled).all(1).cpu()
    named = [name for name, bad in zip(ids, guilty.tolist(), strict=True) if bad] or list(ids)
    return ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")


def _local(gradient: Tensor) -> Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient
