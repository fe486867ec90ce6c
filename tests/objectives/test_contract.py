"""Every registered objective keeps the public contract, on one process and on two ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

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


def test_the_contract_catches_absent_rows() -> None:
    with pytest.raises(AssertionError, match="absent"):
        check_objective(lambda: IgnoresPresence("audio", "video"))


def test_the_contract_catches_a_local_count(gloo: GlooPool) -> None:
    with pytest.raises(AssertionError, match="over ranks"):
        check_objective_on_ranks(local_count, gloo)
