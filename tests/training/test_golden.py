"""The first losses of tiny_cpu.yaml do not move, and the same seed gives the same losses twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.golden import GOLDEN, NUM_STEPS, first_losses


@pytest.fixture(scope="module")
def losses(world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return first_losses(world, tmp_path_factory.mktemp("golden"))


def test_the_first_losses_are_the_golden_ones(losses: list[float]) -> None:
    expected = json.loads(GOLDEN.read_text())["losses"]
    assert len(expected) == NUM_STEPS
    # Kernels and encoders of other CPUs round differently; a change of the model moves the losses by percents.
    assert losses == pytest.approx(expected, rel=2e-3)


def test_the_same_seed_gives_the_same_losses(losses: list[float], world: Path, tmp_path: Path) -> None:
    assert first_losses(world, tmp_path) == losses
