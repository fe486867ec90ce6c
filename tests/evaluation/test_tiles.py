"""Ranks in tiles equal those of whole matrices, ties, duplicates and several captions a clip included, and never hold such a matrix."""

from __future__ import annotations

import math

import pytest
import torch

from peav.evaluation import EmbeddingTable, directions, evaluate_table
from peav.evaluation.retrieval import SharedPositives, dual_softmax, rank_both_ways, ranks, shared_positives, similarity
from peav.evaluation.tiles import _lambert, rank_in_tiles
from tests.evaluation.test_directions import LargestTensor


def case(seed: int, kind: str) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    g = torch.Generator().manual_seed(seed)
    queries, items, dim = 210, 137, 24
    left, right = torch.randn(queries, dim, generator=g), torch.randn(items, dim, generator=g)
    if kind == "unit":
        left, right = (torch.nn.functional.normalize(rows, dim=1) for rows in (left, right))
    elif kind == "ties":
        left, right = left.round().clamp(-1, 1) / 2, right.round().clamp(-1, 1) / 2
    elif kind == "duplicates":
        right[70:100], left[60:120] = right[:30], left[:60]
    elif kind == "large":  # the sums span more than exp can in fp32
        left, right = 5 * left, 5 * right
    elif kind == "half":
        left, right = (torch.nn.functional.normalize(rows, dim=1).half() for rows in (left, right))
    clips = torch.randint(110, (queries,), generator=g), torch.randint(110, (items,), generator=g)
    groups = torch.randint(180, (queries,), generator=g), torch.randint(100, (items,), generator=g)
    return left, right, (*clips, *groups)


@pytest.mark.parametrize("kind", ["plain", "unit", "ties", "duplicates", "large", "half"])
@pytest.mark.parametrize("tile", [(64, 32), (50, 37), (1024, 4096)])
def test_ranks_in_tiles_equal_those_of_whole_matrices(kind: str, tile: tuple[int, int]) -> None:
    left, right, identities = case(tile[0], kind)
    found = rank_in_tiles(left, right, SharedPositives(*identities), 10.0, tile=tile)
    scores, positives = similarity(left, right), shared_positives(*identities)
    for some, matrix, right_ones in ((found[0], scores, positives), (found[1], scores.T, positives.T)):
        assert torch.equal(some.plain, ranks(matrix, right_ones))
        assert torch.equal(some.dual_softmax, ranks(dual_softmax(matrix.double()).float(), right_ones))
        assert torch.equal(some.num_positives, right_ones.sum(1))
        assert 0 < int((some.plain == 0).sum()) < len(some.plain)


def test_metrics_equal_the_exact_ones_at_the_dimension_of_the_released_models() -> None:
    g = torch.Generator().manual_seed(0)
    left, right = torch.randn(600, 1024, generator=g), torch.randn(500, 1024, generator=g)
    left[:500] += 0.06 * right  # so that some are found
    clips = torch.arange(600) % 500
    positives = SharedPositives(clips, torch.arange(500), torch.arange(600), torch.arange(500))
    exact, found = rank_both_ways(left / 32, right / 32, positives), rank_in_tiles(left / 32, right / 32, positives)
    for one, other in zip(exact, found, strict=True):
        assert torch.equal(one.plain, other.plain) and torch.equal(one.dual_softmax, other.dual_softmax)
        assert len(one.plain.unique()) > 20


def test_a_collapsed_model_finds_nothing_in_tiles_either() -> None:
    rows = torch.arange(300)
    flat = torch.full((300, 7), 0.3)
    for found in rank_in_tiles(flat, flat.clone(), SharedPositives(rows, rows, rows, rows), tile=(64, 64)):
        assert found.plain.unique().tolist() == found.dual_softmax.unique().tolist() == [300]


def test_what_cannot_be_ranked_is_refused() -> None:
    rows = torch.arange(3)
    positives = SharedPositives(rows, rows, rows, rows)
    with pytest.raises(ValueError, match="temperature"):
        rank_in_tiles(torch.eye(3), torch.eye(3), positives, 0.0)
    with pytest.raises(ValueError, match="NaN"):
        rank_in_tiles(torch.full((3, 3), math.nan), torch.eye(3), positives)


def test_large_tables_are_ranked_in_tiles_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    embeddings = {
        name: torch.nn.functional.normalize(torch.randn(1500, 16, generator=g), dim=1) for name in ("audio", "video")
    }
    rows = {name: torch.arange(1500) for name in embeddings}
    table = EmbeddingTable([str(c) for c in range(1500)], embeddings, rows, rows)
    expected = evaluate_table(table)
    monkeypatch.setattr(directions, "_EXACT_SCORES", 1)
    monkeypatch.setattr(rank_in_tiles, "__defaults__", (10.0, True, (128, 256)))
    with LargestTensor() as largest:
        found = evaluate_table(table)
    assert found.directions == expected.directions
    assert largest.elements <= 128 * 256 * 2 + 20 * 1500  # all pairs: 2.25 million


@pytest.mark.parametrize("branch", [0, -1])
def test_lamberts_function_solves_its_equation(branch: int) -> None:
    negative = -torch.logspace(-12, math.log10(math.exp(-1) - 1e-9), 200, dtype=torch.float64)
    t = torch.cat([negative, torch.logspace(-9, 200, 400, dtype=torch.float64)])
    t = t[t < 0] if branch else t
    w = _lambert(t, branch)
    torch.testing.assert_close(w * w.exp(), t, rtol=1e-8, atol=0)
    assert bool((w <= -1).all()) if branch else bool((w >= -1).all())
    outside = _lambert(torch.tensor([-1.0], dtype=torch.float64), branch)
    assert float(outside) == (math.inf if branch else -math.inf)
