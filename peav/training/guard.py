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
        self._seen: list[tuple[Tensor, tuple[str, ...], Tensor]] = []

    def watch(self, loss: Tensor, ids: Sequence[str], embeddings: Mapping[str, Embedding]) -> None:
        """Notes a loss, and which clips it came from. Asks the device for nothing: that is for :meth:`check`.

        Args:
            loss: scalar.
            ids: of the clips of this rank.
            embeddings: what the encoders made of them.
        """
        self._seen.append((torch.isfinite(loss.detach()), tuple(ids), _suspects(ids, embeddings, loss.device)))

    def check(self, parameters: Sequence[nn.Parameter], step: int, gradients: bool = True) -> None:
        """Takes the gradients away where the loss or one of them is not finite, so that the optimizer has nothing to do.

        Args:
            parameters: whose gradients there are.
            step: number of the optimizer step, for the message.
            gradients: whether to look at the gradients: a loss scaler does it itself.

        Raises:
            FloatingPointError: on every rank, when this was one step too many in a row.
        """
        seen, self._seen = self._seen, []
        grads = [_local(p.grad) for p in parameters if p.grad is not None]
        device = next((t.device for t in (*(finite for finite, _, _ in seen), *grads)), torch.device("cpu"))
        of_losses = torch.stack([finite for finite, _, _ in seen] or [torch.ones((), dtype=torch.bool, device=device)])
        of_gradients = torch.ones((), dtype=torch.bool, device=device)
        # A shard may be empty: the largest of no numbers is none.
        held = [grad for grad in grads if grad.numel()]
        if gradients and held:
            # The largest absolute value: a sum of squares can overflow where every gradient is finite.
            of_gradients = torch.stack(torch._foreach_norm(held, torch.inf)).isfinite().all()
        found = torch.stack((~of_losses.all(), ~of_gradients)).to(torch.float32)
        bad = distributed.sum_over_ranks(found).tolist()
        if not any(bad):
            self.in_row = 0
            return
        for parameter in parameters:
            parameter.grad = None
        self.skipped += 1
        self.in_row += 1
        what = "the loss" if bad[0] else "a gradient"
        # Of several batches of a step the first guilty one is named.
        guilty = next((some for some in seen if not some[0]), seen[-1] if seen else None)
        where = ""
        if distributed.world_size() > 1 and bad[0]:
            where = f"; on this rank it is {'finite' if bool(of_losses.all()) else 'not'}"
        clips = _named(guilty[1], guilty[2]) if guilty is not None else "unknown"
        message = f"step {step} is left out: {what} is not finite{where}. Clips: {clips}"
        if self.in_row >= self.most:
            raise FloatingPointError(f"{message}. {self.in_row} steps in a row (max_nonfinite_steps): training stops")
        log.warning(message)


def name_suspects(ids: Sequence[str], embeddings: Mapping[str, Embedding]) -> str:
    """Returns the ids of clips whose embeddings are not finite, or of all, the first few of them."""
    device = next((e.pooled.device for e in embeddings.values()), torch.device("cpu"))
    return _named(ids, _suspects(ids, embeddings, device))


def _suspects(ids: Sequence[str], embeddings: Mapping[str, Embedding], device: torch.device) -> Tensor:
    """Returns which clips have an embedding that is not finite, (N,) bool."""
    guilty = torch.zeros(len(ids), dtype=torch.bool, device=device)
    for embedding in embeddings.values():
        if len(embedding.pooled) == len(ids):
            guilty |= ~torch.isfinite(embedding.pooled.detach()).all(1)
    return guilty


def _named(ids: Sequence[str], suspects: Tensor) -> str:
    named = [name for name, bad in zip(ids, suspects.tolist(), strict=True) if bad] or list(ids)
    return ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")


def _local(gradient: Tensor) -> Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient
