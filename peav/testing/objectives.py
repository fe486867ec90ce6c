"""The contract of objectives on one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from peav.objectives.base import Objective
from peav.testing.rows import absent, clip_rows, require, take_targets
from peav.testing.tiny import tiny_embeddings, tiny_targets
from peav.types import Embedding, ObjectiveOutput

MakeTargets = Callable[[Objective, int], Mapping[str, Any]]


def check_objective(make: Callable[[], Objective], make_targets: MakeTargets = tiny_targets) -> None:
    """Runs the contract of objectives on one process.

    The loss is a finite scalar that depends on every embedding; its gradient agrees with finite differences in float64; absent rows,
    whatever they hold, equal deleted rows; padded frames change nothing; the order of the clips changes nothing; negatives get
    gradient; a batch without any valid pair is reported (`count` 0) with a loss of 0 and finite gradients; autocast changes nothing.

    Args:
        make: builds the objective.
        make_targets: builds its targets for a number of clips, if `peav.testing.tiny_targets` does not fit.

    Raises:
        AssertionError: naming the first clause that does not hold.
    """
    objective = make().double()
    require(bool(objective.requires), "an objective must name the embeddings it `requires`")
    targets = make_targets(objective, 6)
    embeddings = tiny_embeddings(objective)
    output = _run(objective, embeddings, targets)
    require(output.loss.ndim == 0 and torch.isfinite(output.loss), "the loss must be a finite scalar")
    require(output.count > 0, "`count` must count the valid positives")
    _check_gradient(objective, embeddings, targets)
    _check_absent(objective, embeddings, targets)
    _check_order(objective, embeddings, targets)
    _check_empty(objective, embeddings, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = objective.float()(_float(embeddings), targets).loss
    plain = objective(_float(embeddings), targets).loss
    require(torch.allclose(cast.float(), plain, rtol=1e-5), f"autocast changes the loss: {cast} against {plain}")


def _run(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
    return objective(embeddings, targets)


def _float(embeddings: Mapping[str, Embedding]) -> dict[str, Embedding]:
    return {
        name: replace(e, pooled=e.pooled.float(), frames=None if e.frames is None else e.frames.float())
        for name, e in embeddings.items()
    }


def _leaves(
    objective: Objective, embeddings: Mapping[str, Embedding]
) -> tuple[dict[str, Embedding], dict[str, Tensor]]:
    """Copies the embeddings with leaves that require grad: the frames where the objective wants them, else the pooled vectors."""
    copies, leaves = {}, {}
    for name, embedding in embeddings.items():
        if embedding.frames is not None:
            leaves[name] = embedding.frames.detach().clone().requires_grad_()
            copies[name] = replace(embedding, frames=leaves[name])
        else:
            leaves[name] = embedding.pooled.detach().clone().requires_grad_()
            copies[name] = replace(embedding, pooled=leaves[name])
    return copies, leaves


def gradients_of(
    objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns the loss and its gradients by embedding name: of the frames where the objective wants them, else of the pooled vectors."""
    copies, leaves = _leaves(objective, embeddings)
    loss = _run(objective, copies, targets).loss
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    gradients = {}
    for (name, leaf), gradient in zip(leaves.items(), found, strict=True):
        gradients[name] = torch.zeros_like(leaf) if gradient is None else gradient
    return loss.detach(), gradients


def _check_gradient(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
    _, gradients = gradients_of(objective, embeddings, targets)
    for name, gradient in gradients.items():
        depends = bool(gradient.abs().sum() > 0)
        require(depends or name in objective.detached, f"the loss does not depend on {name!r}")
        require(not depends or name not in objective.detached, f"{name!r} is `detached`, but gets a gradient")
    copies, leaves = _leaves(objective, embeddings)
    names = [name for name in leaves if name not in objective.detached]

    def loss(*values: Tensor) -> Tensor:
        changed = dict(copies)
        changed |= {
            name: replace(copies[name], pooled=value)
            if copies[name].frames is None
            else replace(copies[name], frames=value)
            for name, value in zip(names, values, strict=True)
        }
        return _run(objective, changed, targets).loss

    torch.autograd.gradcheck(loss, tuple(leaves[name] for name in names))
    parameters = [p for p in objective.parameters() if p.requires_grad]
    for parameter in parameters:
        gradient = torch.autograd.grad(_run(objective, embeddings, targets).loss, parameter, allow_unused=True)[0]
        require(
            gradient is not None and torch.isfinite(gradient).all(), "a parameter of the objective gets no gradient"
        )
    for name in names:
        if name == "text_event":
            continue
        # A clip of which only this embedding is there has no positive: what gradient it gets, it gets as a negative.
        others = {
            other: embeddings[other] if other in (name, "text_event") else absent(embeddings[other], [0], garbage=False)
            for other in leaves
        }
        if len([other for other in leaves if other != "text_event"]) > 1:
            _, gradients = gradients_of(objective, others, targets)
            require(gradients[name][0].abs().sum() > 0, f"negatives of {name!r} get no gradient")


def _check_absent(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
    num_clips = max(len(e.pooled) for name, e in embeddings.items() if name != "text_event")
    gone = {name: e if name == "text_event" else absent(e, [1, 4]) for name, e in embeddings.items()}
    rows = torch.tensor([row for row in range(num_clips) if row not in (1, 4)])
    loss, gradients = gradients_of(objective, gone, targets)
    deleted, _ = gradients_of(objective, clip_rows(embeddings, rows), take_targets(targets, rows))
    require(
        torch.allclose(loss, deleted, rtol=1e-12), f"absent rows do not equal deleted rows: {loss} against {deleted}"
    )
    for name, gradient in gradients.items():
        if name != "text_event":
            require(gradient[[1, 4]].abs().sum() == 0, f"absent rows of {name!r} get a gradient")
    for name, embedding in embeddings.items():
        if embedding.frames is None or embedding.mask is None:
            continue
        noisy = torch.where(embedding.mask.unsqueeze(-1), embedding.frames, 1e4)
        changed, gradients = gradients_of(objective, {**embeddings, name: replace(embedding, frames=noisy)}, targets)
        plain, _ = gradients_of(objective, embeddings, targets)
        require(torch.equal(changed, plain), f"padded frames of {name!r} change the loss")
        require(gradients[name][~embedding.mask].abs().sum() == 0, f"padded frames of {name!r} get a gradient")


def _check_order(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
    num_clips = max(len(e.pooled) for name, e in embeddings.items() if name != "text_event")
    rows = torch.randperm(num_clips, generator=torch.Generator().manual_seed(3))
    plain, gradients = gradients_of(objective, embeddings, targets)
    moved, moved_gradients = gradients_of(objective, clip_rows(embeddings, rows), take_targets(targets, rows))
    require(torch.allclose(plain, moved, rtol=1e-12), "the order of the clips changes the loss")
    for name, gradient in gradients.items():
        expected = gradient if name == "text_event" else gradient[rows]
        require(torch.allclose(moved_gradients[name], expected, rtol=1e-9, atol=1e-12), f"order changes d/d {name!r}")


def _check_empty(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
    nothing = {name: absent(e, range(len(e.pooled))) for name, e in embeddings.items()}
    copies, leaves = _leaves(objective, nothing)
    output = _run(objective, copies, targets)
    require(output.count == 0, "a batch in which nothing is present must be reported with count 0")
    require(output.loss == 0, f"a batch in which nothing is present must have loss 0, not {output.loss}")
    for gradient in torch.autograd.grad(output.loss, list(leaves.values()), allow_unused=True):
        require(
            gradient is None or torch.isfinite(gradient).all(),
            "a batch in which nothing is present gives NaN gradients",
        )
