"""The contract of objectives on one process."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from peav.objectives.base import Objective
from peav.registry import suggest
from peav.testing.rows import absent, clip_rows, require, take_targets
from peav.testing.tiny import tiny_embeddings, tiny_targets
from peav.types import Embedding, ObjectiveOutput

MakeTargets = Callable[[Objective, int], Mapping[str, Any]]

#: The clauses of the contract, in the order in which they are checked.
CLAUSES = {
    "loss": "the loss is a finite scalar, and `count` counts the valid positives",
    "depends": "the loss depends on every embedding, but for those that are `detached`",
    "gradcheck": "the gradient agrees with finite differences in float64; not so where a gradient is stopped inside, on purpose",
    "parameters": "each trainable parameter gets a finite gradient",
    "negatives": "negatives get gradient",
    "absent": "absent rows, whatever they hold, equal deleted rows",
    "padding": "padded frames change nothing",
    "order": "the order of the clips changes nothing",
    "empty": "a batch without any valid pair is reported (`count` 0), with a loss of 0 and finite gradients",
    "autocast": "autocast changes nothing",
    "scores": "what `set_pair_score` takes over is what `pair_scores` returns",
}


def check_objective(
    make: Callable[[], Objective], make_targets: MakeTargets = tiny_targets, without: Collection[str] = ()
) -> None:
    """Runs the contract of objectives on one process: `peav.testing.objectives.CLAUSES`, one after the other.

    Args:
        make: builds the objective.
        make_targets: builds its targets for a number of clips, if `peav.testing.tiny_targets` does not fit.
        without: clauses to leave out, by name, because the objective breaks them on purpose: `("gradcheck",)` for one that stops a
            gradient inside.

    Raises:
        AssertionError: naming the first clause that does not hold.
        ValueError: if `without` names a clause that there is not.
    """
    for name in without:
        if name not in CLAUSES:
            raise ValueError(f"the contract has no clause {name!r}. {suggest(name, CLAUSES)}")
    objective = make().double()
    require(bool(objective.requires), "an objective must name the embeddings it `requires`")
    embeddings, targets = tiny_embeddings(objective), make_targets(objective, 6)
    for name, check in _CHECKS.items():
        if name in without:
            continue
        try:
            check(objective, embeddings, targets)
        except (AssertionError, GradcheckError) as error:
            raise AssertionError(
                f"{str(error).strip()}\n(clause {name!r}: {CLAUSES[name]}. If yours breaks it on purpose, say so: "
                f"check_objective(..., without=({name!r},)))"
            ) from error


def _check_loss(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
    output = _run(objective, embeddings, targets)
    require(output.loss.ndim == 0 and torch.isfinite(output.loss), "the loss must be a finite scalar")
    require(output.count > 0, "`count` must count the valid positives")


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


def _check_depends(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
    _, gradients = gradients_of(objective, embeddings, targets)
    for name, gradient in gradients.items():
        depends = bool(gradient.abs().sum() > 0)
        require(depends or name in objective.detached, f"the loss does not depend on {name!r}")
        require(not depends or name not in objective.detached, f"{name!r} is `detached`, but gets a gradient")


def _check_gradient(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
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


def _check_parameters(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            gradient = torch.autograd.grad(_run(objective, embeddings, targets).loss, parameter, allow_unused=True)[0]
            finite = gradient is not None and torch.isfinite(gradient).all()
            require(finite, f"the objective's parameter {name!r} gets no gradient")


def _check_negatives(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
    if len([name for name in embeddings if name != "text_event"]) < 2:
        return
    for name in embeddings:
        if name == "text_event" or name in objective.detached:
            continue
        # A clip of which only this embedding is there has no positive: what gradient it gets, it gets as a negative.
        others = {
            other: e if other in (name, "text_event") else absent(e, [0], garbage=False)
            for other, e in embeddings.items()
        }
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


def _check_padding(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
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


def _check_autocast(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
    single = copy.deepcopy(objective).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = single(_float(embeddings), targets).loss
    plain = single(_float(embeddings), targets).loss
    require(torch.allclose(cast.float(), plain, rtol=1e-5), f"autocast changes the loss: {cast} against {plain}")


def _check_scores(objective: Objective, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> None:
    taken = copy.deepcopy(objective)
    for pair, (scale, bias) in objective.pair_scores().items():
        require(scale.shape == bias.shape == (1,), f"scale and bias of {' x '.join(pair)} must be of shape (1,)")
        require(bool(scale > 0), f"the scale of {' x '.join(pair)} must be positive: is it still a logarithm?")
        try:
            taken.set_pair_score(pair, 2 * scale, bias - 1)
        except ValueError as error:
            raise AssertionError(str(error)) from error
        found = taken.pair_scores()[pair]
        same = torch.allclose(found[0], 2 * scale) and torch.allclose(found[1], bias - 1)
        require(same, f"`set_pair_score` of {' x '.join(pair)} does not set what `pair_scores` returns")


_CHECKS: dict[str, Callable[[Objective, Mapping[str, Embedding], Mapping[str, Any]], None]] = {
    "loss": _check_loss,
    "depends": _check_depends,
    "gradcheck": _check_gradient,
    "parameters": _check_parameters,
    "negatives": _check_negatives,
    "absent": _check_absent,
    "padding": _check_padding,
    "order": _check_order,
    "empty": _check_empty,
    "autocast": _check_autocast,
    "scores": _check_scores,
}
