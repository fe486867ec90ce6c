"""Parameters on which nothing that a network returns depends: a pooler that nobody reads, a token of another task."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def reached_by(output: Tensor) -> set[int]:
    """Returns the ids of the parameters on which a tensor depends.

    >>> layer = nn.Linear(2, 2)
    >>> reached_by(layer(torch.ones(1, 2)) * 0 + 1) == {id(layer.weight), id(layer.bias)}
    True
    """
    found: set[int] = set()
    pending = [output.grad_fn]
    seen = set(pending)
    while pending:
        node = pending.pop()
        if node is None:
            continue
        leaf = getattr(node, "variable", None)  # of the nodes at which gradients arrive
        if leaf is not None:
            found.add(id(leaf))
        fresh = {following for following, _ in node.next_functions} - seen
        seen |= fresh
        pending += fresh
    return found


def freeze_unreached(module: nn.Module, forward: Callable[[nn.Module], Tensor]) -> list[str]:
    """Freezes the parameters on which a network's output does not depend, for which DDP would wait without end.

    The network runs once in evaluation mode, so that no random number is drawn, and is left in the mode it was in.

    Args:
        module: the network; on the meta device, where nothing is trained, nothing happens.
        forward: runs it on an input that it takes, however small, and returns what of its output is read.

    Returns:
        the names of the parameters.
    """
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if any(p.is_meta for p in parameters.values()):
        return []
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.enable_grad():
            reached = reached_by(forward(module))
    finally:
        for part in training:
            part.training = True
    unreached = [name for name, p in parameters.items() if id(p) not in reached]
    for name in unreached:
        parameters[name].requires_grad_(False)
    return unreached
