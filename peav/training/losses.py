"""One pass over all objectives: what they share is gathered once, and their gradients at the embeddings are found at once.

The objectives see copies of the embeddings that end the graph. What comes out is a number and, for each embedding, its gradient,
which goes back into the encoders in one pass: at once in a real batch, chunk by chunk in a virtual one. Each objective's gradient is
added to the others' and forgotten before the next is computed, so that ten pairs need little more memory than one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from peav import distributed
from peav.devices import accumulator_dtype, widest
from peav.objectives import Objective
from peav.objectives.base import full_precision, in_full_precision
from peav.types import Embedding

Exchange = Literal["gather", "ring"]


@dataclass(frozen=True)
class Losses:
    """What the objectives make of a batch.

    Attributes:
        total: the weighted sum of the losses, without gradient.
        losses: the loss of each objective, before its weight, without gradient.
        counts: valid positives in the global batch, by objective.
        log: what each objective wants logged.
        pooled: gradients of the embeddings (N, D), by name; empty without gradient.
        frames: gradients of the frames (N, T, D), by name.
        parameters: the objectives' parameters and their gradients.
        norms: by objective, the norm of its gradient at the embeddings of the global batch, where asked for.
    """

    total: Tensor
    losses: dict[str, Tensor]
    counts: dict[str, Tensor]
    log: dict[str, dict[str, Tensor]]
    pooled: dict[str, Tensor] = field(default_factory=dict)
    frames: dict[str, Tensor] = field(default_factory=dict)
    parameters: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    norms: dict[str, Tensor] = field(default_factory=dict)


def evaluate_objectives(
    objectives: Mapping[str, Objective],
    embeddings: Mapping[str, Embedding],
    targets: Mapping[str, Any],
    weights: Mapping[str, float],
    exchange: Exchange = "gather",
    wire: torch.dtype | None = None,
    norms: bool = False,
) -> Losses:
    """Computes losses and, where gradients are enabled, what they are at the embeddings and at the objectives' own parameters.

    On several ranks every rank must call it, with the same objectives and weights.

    Args:
        objectives: by name.
        embeddings: by name, rows of this rank.
        targets: batch fields by name.
        weights: of the losses, by objective. Of one whose weight is 0 only the loss is computed.
        exchange: whether rows of all ranks are gathered, or travel in a ring where only pairs ask for them.
        wire: in which rows travel: see `distributed.with_world`.
        norms: whether to compute each objective's gradient norm; on several ranks each then costs a collective more.
    """
    # Backward too: what an objective multiplies by, autograd would multiply in half precision where autocast is on.
    with in_full_precision(embeddings):
        return _evaluate(objectives, embeddings, targets, weights, exchange, wire, norms)


def _evaluate(
    objectives: Mapping[str, Objective],
    embeddings: Mapping[str, Embedding],
    targets: Mapping[str, Any],
    weights: Mapping[str, float],
    exchange: Exchange,
    wire: torch.dtype | None,
    norms: bool,
) -> Losses:
    training = torch.is_grad_enabled()
    leaves = {name: _leaf(full_precision(e), training) for name, e in embeddings.items()}
    pairs = [pair for o in objectives.values() for pair in o.pairs if exchange == "gather" or not o.ring]
    gathers = {name for objective in objectives.values() for name in objective.gathers}
    gathered = distributed.with_world(leaves, pairs, gathers, wire)
    several = distributed.world_size() > 1
    cover = [n for n, e in gathered.items() if several and e.world is not None and e.world.pooled is not None]
    inputs = {name: _end_of_graph(e) if name in cover and training else e for name, e in gathered.items()}
    sums = _Sums()
    total = next(iter(leaves.values())).pooled.new_zeros(())
    found = Losses(total, {}, {}, {})
    for name, objective in objectives.items():
        some = {key: inputs[key] for key in objective.requires}
        with torch.set_grad_enabled(training and weights[name] != 0):
            output = objective(some, {target: targets[target] for target in objective.targets})
        found.losses[name], found.counts[name], found.log[name] = output.loss.detach(), output.count, output.log
        if weights[name] != 0:  # zero times infinity is no number
            total = total + weights[name] * output.loss.detach()
        if not output.loss.requires_grad:
            continue
        wanted = _wanted(some, several) + [p for p in objective.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(weights[name] * output.loss, wanted, allow_unused=True)
        del output
        own = _Sums()
        for tensor, gradient in zip(wanted, gradients, strict=True):
            if gradient is not None:
                sums.add(tensor, gradient)
                own.add(tensor, gradient)
        del gradients
        if norms:
            own.add_all(_through_gather(cover, gathered, inputs, leaves, own))
            found.norms[name] = _norm(own, leaves)
        del own
    if training:
        sums.add_all(_through_gather(cover, gathered, inputs, leaves, sums))
        for name, leaf in leaves.items():
            if leaf.pooled.requires_grad:
                found.pooled[name] = sums.of(leaf.pooled)
            if leaf.frames is not None and sums.has(leaf.frames):
                found.frames[name] = sums.of(leaf.frames)
        for objective in objectives.values():
            found.parameters.extend((p, sums.of(p)) for p in objective.parameters() if p.requires_grad)
    return replace(found, total=total)


class _Sums:
    """Gradients by tensor."""

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}

    def add(self, tensor: Tensor, gradient: Tensor) -> None:
        known = self._sums.get(id(tensor))
        # The first is kept as it came, and may be shared with others: what is added to it makes a new tensor, once.
        self._sums[id(tensor)] = gradient if known is None else known + gradient

    def add_all(self, gradients: Sequence[tuple[Tensor, Tensor]]) -> None:
        for tensor, gradient in gradients:
            self.add(tensor, gradient)

    def has(self, tensor: Tensor) -> bool:
        return id(tensor) in self._sums

    def of(self, tensor: Tensor) -> Tensor:
        return self._sums[id(tensor)] if self.has(tensor) else torch.zeros_like(tensor)


def _leaf(embedding: Embedding, training: bool) -> Embedding:
    def cut(tensor: Tensor) -> Tensor:
        return tensor.detach().requires_grad_(training and tensor.requires_grad)

    frames = embedding.frames
    return replace(embedding, pooled=cut(embedding.pooled), frames=None if frames is None else cut(frames))


def _end_of_graph(embedding: Embedding) -> Embedding:
    """Cuts the graph behind the gathered rows, so that all objectives go back through the gather together."""
    world = distributed.world_of(embedding)
    if world.pooled is None or not world.pooled.requires_grad:
        return embedding
    return replace(embedding, world=replace(world, pooled=world.pooled.detach().requires_grad_()))


def _wanted(embeddings: Mapping[str, Embedding], several: bool) -> list[Tensor]:
    tensors: list[Tensor | None] = []
    for embedding in embeddings.values():
        tensors += [embedding.pooled, embedding.frames]
        if several and embedding.world is not None:
            tensors.append(embedding.world.pooled)
    return [tensor for tensor in tensors if tensor is not None and tensor.requires_grad]


def _through_gather(
    cover: Sequence[str],
    gathered: Mapping[str, Embedding],
    inputs: Mapping[str, Embedding],
    leaves: Mapping[str, Embedding],
    sums: _Sums,
) -> list[tuple[Tensor, Tensor]]:
    """Brings the gradients of gathered rows home, all in one message."""
    names = [n for n in cover if leaves[n].pooled.requires_grad]
    if not names:
        return []
    outputs, found = ([distributed.world_of(e[n]).pooled for n in names] for e in (gathered, inputs))
    gradients = [sums.of(tensor) for tensor in found if tensor is not None]
    own = [leaves[name].pooled for name in names]
    home = torch.autograd.grad([t for t in outputs if t is not None], own, gradients, retain_graph=True)
    return list(zip(own, home, strict=True))


def _norm(sums: _Sums, leaves: Mapping[str, Embedding]) -> Tensor:
    """Returns the norm of a gradient at the embeddings of the global batch."""
    device = next(iter(leaves.values())).pooled.device
    square = torch.zeros((), dtype=accumulator_dtype(device), device=device)
    for embedding in leaves.values():
        for tensor in (embedding.pooled, embedding.frames):
            if tensor is not None and sums.has(tensor):
                square = square + widest(sums.of(tensor)).square().sum()
    # A rank's gradient is world_size times its share of the global one.
    return distributed.sum_over_ranks(square).sqrt() / distributed.world_size()


class _Backpropagate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *tensors: Tensor) -> Tensor:
        ctx.gradients, ctx.dtypes = gradients, [tensor.dtype for tensor in tensors]
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        # A loss scaler's factor comes first: unscaled, small gradients would be zero in fp16.
        scaled = (grad_outputs[0].to(gradient.dtype) * gradient for gradient in ctx.gradients)
        return (None, None, *(gradient.to(dtype) for gradient, dtype in zip(scaled, ctx.dtypes, strict=True)))


def with_gradients(value: Tensor, gradients: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Returns a scalar of that value, whose backward pass gives each tensor its gradient.

    Args:
        value: scalar.
        gradients: tensors, each with its gradient, of the same shape.
    """
    tensors, found = [t for t, _ in gradients], [g for _, g in gradients]
    return _Backpropagate.apply(value, found, *tensors)
