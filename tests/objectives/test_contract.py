"""Every registered objective keeps the public contract, on one process and on two ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from peav import registry
from peav.objectives import Objective, PairObjective
from peav.objectives.functional import pair_logits
from peav.testing import GlooPool, check_objective, check_objective_on_ranks
from peav.types import Embedding, ObjectiveOutput
from tests.helpers import SMALL_OBJECTIVES


@pytest.mark.parametrize("name", list(registry.objectives))
def test_contract(name: str) -> None:
    check_objective(SMALL_OBJECTIVES[name])


@pytest.mark.parametrize("name", list(registry.objectives))
def test_ranks_equal_one_process(name: str, gloo: GlooPool) -> None:
    check_objective_on_ranks(SMALL_OBJECTIVES[name], gloo)


class PositivesOnly(PairObjective):
    """Pulls positives together and forgets the negatives, as transformers' port does."""

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        left, right = embeddings[self.left], embeddings[self.right]
        logits = pair_logits(left.pooled, right.pooled, self.logit_scale, self.logit_bias)
        valid = left.present & right.present
        diagonal = torch.where(valid, logits.diagonal(), 0)
        return ObjectiveOutput(-(diagonal * valid).sum() / valid.sum().clamp(min=1), valid.sum())


class IgnoresPresence(PairObjective):
    """Counts absent clips."""

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        everyone = {name: Embedding(e.pooled, torch.ones_like(e.present), e.group) for name, e in embeddings.items()}
        return super().forward(everyone, targets)


class LocalCount(PairObjective):
    """Divides by the rank's own count, which is wrong as soon as ranks hold different numbers."""

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        output = super().forward(embeddings, targets)
        local = (embeddings[self.left].present & embeddings[self.right].present).sum().clamp(min=1)
        return ObjectiveOutput(output.loss * output.count / local / 2, output.count)


def local_count() -> Objective:
    return LocalCount("audio", "video")


def test_the_contract_catches_a_loss_without_negatives() -> None:
    with pytest.raises(AssertionError, match="negatives"):
        check_objective(lambda: PositivesOnly("audio", "video"))


class Consistent(PairObjective):
    """Draws the left embedding to the right one as it is, as SimSiam and BYOL do: a gradient is stopped inside, on purpose."""

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        left, right = embeddings[self.left], embeddings[self.right]
        still = replace(right, pooled=right.pooled.detach(), world=None)
        there = super().forward({self.left: left, self.right: still}, targets)
        back = super().forward(
            {self.left: replace(left, pooled=left.pooled.detach(), world=None), self.right: right}, targets
        )
        return ObjectiveOutput(0.7 * there.loss + 0.2 * back.loss, there.count)


def test_an_objective_that_stops_a_gradient_leaves_out_the_one_clause_that_it_breaks() -> None:
    with pytest.raises(AssertionError, match=r"without=\('gradcheck',\)"):
        check_objective(lambda: Consistent("audio", "video"))
    check_objective(lambda: Consistent("audio", "video"), without=("gradcheck",))
    with pytest.raises(ValueError, match=r"no clause 'gradchek'\. Did you mean 'gradcheck'"):
        check_objective(lambda: Consistent("audio", "video"), without=("gradchek",))


@pytest.mark.parametrize("clause", ["negatives", "absent"])
def test_leaving_out_one_clause_leaves_out_no_other(clause: str) -> None:
    """Each of the two breaks one clause alone, and the other's name does not excuse it."""
    broken = {"negatives": PositivesOnly, "absent": IgnoresPresence}[clause]
    other = {"negatives": "absent", "absent": "negatives"}[clause]
    with pytest.raises(AssertionError, match=f"clause '{clause}'"):
        check_objective(lambda: broken("audio", "video"), without=(other,))


class OwnScale(PairObjective):
    """Keeps its scale as it is, not its log, and takes a published one over wrongly or not at all."""

    def __init__(self) -> None:
        super().__init__("audio", "video")
        self.temperature = torch.nn.Parameter(torch.tensor([0.1]))

    def forward(self, embeddings: Mapping[str, Embedding], targets: Mapping[str, Any]) -> ObjectiveOutput:
        output = super().forward(embeddings, targets)
        return ObjectiveOutput(output.loss / self.temperature.squeeze(), output.count)

    def pair_scores(self) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
        return {("audio", "video"): (1 / self.temperature.detach(), torch.zeros(1))}


def test_the_contract_catches_scores_that_are_not_taken_over() -> None:
    with pytest.raises(AssertionError, match="does not set what `pair_scores` returns"):
        check_objective(OwnScale)


def test_the_contract_catches_absent_rows() -> None:
    with pytest.raises(AssertionError, match="absent"):
        check_objective(lambda: IgnoresPresence("audio", "video"))


def test_the_contract_catches_a_local_count(gloo: GlooPool) -> None:
    with pytest.raises(AssertionError, match="over ranks"):
        check_objective_on_ranks(local_count, gloo)
