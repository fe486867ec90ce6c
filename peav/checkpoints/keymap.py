"""Rules between the tensors of two formats, usable both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from peav.checkpoints.spec import CheckpointError

#: How the same tensor is laid out on the other side: (ours to theirs, theirs to ours).
_LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "same": (lambda x: x, lambda x: x),
    "transposed": (lambda x: x.T, lambda x: x.T),
    "vector as (1, 1, D)": (lambda x: x.view(1, 1, -1), lambda x: x.view(-1)),
    "(1, 1, D) as vector": (lambda x: x.view(-1), lambda x: x.view(1, 1, -1)),
    "(1, N, D) as (N, D)": (lambda x: x.squeeze(0), lambda x: x.unsqueeze(0)),
    "matrix as kernel of 1": (lambda x: x.unsqueeze(-1), lambda x: x.squeeze(-1)),
}


@dataclass(frozen=True)
class Rule:
    """Our tensors and theirs hold the same rows: concatenated along the first dimension, each side is the other.

    Attributes:
        ours: names on our side.
        theirs: names on the other side.
        layout: how the other side lays them out; a key of `_LAYOUTS`.
        our_parts: relative numbers of rows of ours.
        their_parts: relative numbers of rows of theirs.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    layout: str = "same"
    our_parts: tuple[int, ...] = (1,)
    their_parts: tuple[int, ...] = (1,)

    def to_ours(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Makes our tensors of theirs."""
        joined = _join([_LAYOUTS[self.layout][1](state[key]) for key in self.theirs])
        return dict(zip(self.ours, _split(joined, self.our_parts), strict=True))

    def to_theirs(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Makes their tensors of ours."""
        joined = _join([state[key] for key in self.ours])
        parts = _split(joined, self.their_parts)
        return dict(zip(self.theirs, (_LAYOUTS[self.layout][0](part) for part in parts), strict=True))


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _split(tensor: Tensor, parts: tuple[int, ...]) -> tuple[Tensor, ...]:
    if len(parts) == 1:
        return (tensor,)
    unit, rest = divmod(len(tensor), sum(parts))
    if rest:
        raise CheckpointError(f"a tensor of {len(tensor)} rows cannot be split in the proportion {parts}")
    return tensor.split([unit * part for part in parts])


def same(ours: str, theirs: str, *names: str) -> list[Rule]:
    """Makes the rules of tensors that differ in their prefix only."""
    return [Rule((ours + name,), (theirs + name,)) for name in names]


def weight_and_bias(ours: str, theirs: str) -> list[Rule]:
    """Makes the rules of a module with weight and bias."""
    return same(ours, theirs, ".weight", ".bias")


def apply_to_ours(
    rules: Iterable[Rule], state: Mapping[str, Tensor], source: object
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Turns a foreign state into ours.

    Returns:
        our tensors, and those of theirs that no rule reads.

    Raises:
        CheckpointError: if tensors are missing; the message lists them.
    """
    rules = list(rules)
    missing = sorted({key for rule in rules for key in rule.theirs} - set(state))
    read = {key for rule in rules for key in rule.theirs}
    rest = {key: tensor for key, tensor in state.items() if key not in read}
    if missing:
        raise CheckpointError(f"{source}: {listing(missing, 'missing')}{listing(sorted(rest), 'not read', '; ')}")
    ours: dict[str, Tensor] = {}
    for rule in rules:
        ours |= rule.to_ours(state)
    return ours, rest


def apply_to_theirs(rules: Iterable[Rule], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turns our state into a foreign one."""
    theirs: dict[str, Tensor] = {}
    for rule in rules:
        theirs |= rule.to_theirs(state)
    return theirs


def listing(keys: list[str], what: str, separator: str = "") -> str:
    """Says how many tensors are missing or unexpected, and which; all of them up to twenty."""
    if not keys:
        return ""
    shown = ", ".join(keys[:20]) + (f" and {len(keys) - 20} more" if len(keys) > 20 else "")
    return f"{separator}{len(keys)} tensors {what}: {shown}"
