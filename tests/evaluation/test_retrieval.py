from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_hit_rate

from peav.evaluation.retrieval import (
    SharedPositives,
    chance_interval,
    chance_recall,
    dual_softmax,
    median_rank,
    metrics_of_ranks,
    rank_both_ways,
    ranks,
    recall_at_k,
    retrieval_metrics,
    shared_positives,
    similarity,
)


def loop_rank(scores: list[float], positives: list[bool]) -> int:
    """Sorts with every positive placed after the negatives it ties with."""
    if not any(positives):
        return 0
    order = sorted(range(len(scores)), key=lambda m: (-scores[m], positives[m]))
    return next(place for place, m in enumerate(order, 1) if positives[m])


def random_case(
    seed: int, queries: int = 40, items: int = 23, levels: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(queries, items, generator=g)
    if levels:
        scores = torch.randint(levels, (queries, items), generator=g).float()
    positives = torch.rand(queries, items, generator=g) < 0.08
    return scores, positives


@pytest.mark.parametrize("levels", [None, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_ranks_equal_a_loop_with_ties_and_queries_without_positives(seed, levels):
    scores, positives = random_case(seed, levels=levels)
    assert (~positives.any(1)).any() and (positives.sum(1) > 1).any()
    expected = [loop_rank(s, p) for s, p in zip(scores.tolist(), positives.tolist(), strict=True)]
    assert ranks(scores, positives).tolist() == expected


def test_recall_equals_torchmetrics_hit_rate():
    scores, positives = random_case(7)
    for k in (1, 5, 10):
        hits = [retrieval_hit_rate(s, p, top_k=k) for s, p in zip(scores, positives, strict=True) if p.any()]
        assert recall_at_k(ranks(scores, positives), k) == pytest.approx(float(torch.stack(hits).mean()))


def test_perfect_constant_and_inverted_scores():
    eye = torch.eye(30)
    perfect = retrieval_metrics(eye, eye.bool())
    assert perfect["R@1"] == 1 and perfect["median_rank"] == 1
    constant = retrieval_metrics(torch.zeros(30, 30), eye.bool())
    assert constant["R@1"] == constant["R@10"] == 0 and constant["median_rank"] == 30
    assert retrieval_metrics(-eye, eye.bool())["median_rank"] == 30


def test_random_scores_are_at_chance():
    g = torch.Generator().manual_seed(0)
    positives = torch.eye(100).bool().repeat(40, 1)
    found = retrieval_metrics(torch.randn(4000, 100, generator=g), positives)
    for k in (1, 5, 10):
        low, high = chance_interval(found[f"chance_R@{k}"], 4000, level=0.999)
        assert low <= found[f"R@{k}"] <= high
        assert found[f"chance_R@{k}"] == pytest.approx(k / 100)


@pytest.mark.parametrize(("positive", "candidates", "k"), [(1, 20, 5), (3, 20, 5), (4, 9, 2), (5, 12, 10), (2, 3, 2)])
def test_chance_is_hypergeometric(positive, candidates, k):
    exact = 1 - math.comb(candidates - positive, k) / math.comb(candidates, k)
    assert chance_recall(torch.tensor([positive]), candidates, k) == pytest.approx(exact)
    g = torch.Generator().manual_seed(k)
    orders = torch.rand(20000, candidates, generator=g).argsort(1)
    simulated = (orders[:, :k] < positive).any(1).double().mean()
    assert abs(exact - float(simulated)) < 0.015


def test_chance_averages_over_queries_and_leaves_out_those_without_positive():
    both = chance_recall(torch.tensor([1, 4, 0]), 10, 2)
    assert both == pytest.approx(
        (chance_recall(torch.tensor([1]), 10, 2) + chance_recall(torch.tensor([4]), 10, 2)) / 2
    )
    assert chance_recall(torch.tensor([1]), 3, 10) == 1


@pytest.mark.parametrize(("p", "n"), [(0.01, 120), (0.3, 50), (0.002, 1000)])
def test_chance_interval_holds_its_level_and_no_more_than_needed(p, n):
    low, high = (round(v * n) for v in chance_interval(p, n))
    mass = [math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(n + 1)]
    assert sum(mass[low : high + 1]) >= 0.95 - 1e-9
    assert sum(mass[: high + 1]) >= 0.975 - 1e-9 > sum(mass[:high])
    assert sum(mass[:low]) <= 0.025 + 1e-9 and sum(mass[: low + 1]) >= 0.025 - 1e-9
    assert chance_interval(0.0, n) == (0.0, 0.0) and chance_interval(1.0, n) == (1.0, 1.0)


def test_queries_without_positive_are_left_out_and_counted():
    scores, positives = torch.eye(4), torch.eye(4).bool()
    positives[3] = False
    found = retrieval_metrics(scores, positives)
    assert (found["num_queries"], found["num_without_positive"], found["num_candidates"]) == (3, 1, 4)
    assert found["R@1"] == 1
    with pytest.raises(ValueError, match="no query has a positive"):
        retrieval_metrics(scores, torch.zeros(4, 4).bool())


def test_nan_and_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        ranks(torch.tensor([[math.nan, 1.0]]), torch.tensor([[True, False]]))
    with pytest.raises(ValueError, match="same shape"):
        ranks(torch.zeros(2, 3), torch.zeros(2, 2).bool())
    with pytest.raises(ValueError, match="temperature"):
        dual_softmax(torch.zeros(2, 2), 0.0)
    with pytest.raises(ValueError, match="k must"):
        recall_at_k(torch.tensor([1]), 0)


def test_median_rank():
    assert median_rank(torch.tensor([3, 1, 9])) == 3
    assert median_rank(torch.tensor([3, 1, 9, 4, 0])) == 3.5


def test_dual_softmax_by_hand():
    scores = torch.tensor([[0.3, 0.1], [0.2, 0.4]], dtype=torch.float64)
    a, b = math.exp(3) / (math.exp(3) + math.exp(2)), math.exp(1) / (math.exp(1) + math.exp(4))
    expected = [[3 * a, 1 * b], [2 * (1 - a), 4 * (1 - b)]]
    torch.testing.assert_close(dual_softmax(scores), torch.tensor(expected, dtype=torch.float64))


def test_dual_softmax_is_over_queries_and_corrects_a_hub():
    # Candidate 0 is a hub that query 1 scores above its own candidate; only the other queries tell.
    scores = torch.tensor([[0.9, 0.0, 0.0], [0.62, 0.6, 0.0], [0.0, 0.0, 0.5]])
    positives = torch.eye(3).bool()
    assert ranks(scores, positives).tolist() == [1, 2, 1]
    assert ranks(dual_softmax(scores), positives).tolist() == [1, 1, 1]


def loop_positives(query_clips, item_clips, query_groups, item_groups):
    def right(q, m):
        return any(
            query_clips[a] == item_clips[b]
            for a in range(len(query_clips))
            if query_groups[a] == query_groups[q]
            for b in range(len(item_clips))
            if item_groups[b] == item_groups[m]
        )

    return [[right(q, m) for m in range(len(item_clips))] for q in range(len(query_clips))]


@pytest.mark.parametrize("seed", range(4))
def test_shared_positives_equal_a_loop(seed):
    g = torch.Generator().manual_seed(seed)

    def draw(high, size):
        return torch.randint(high, (size,), generator=g)

    args = (draw(12, 18), draw(12, 15), draw(10, 18) + 100, draw(9, 15) - 5)
    assert shared_positives(*args).tolist() == loop_positives(*(a.tolist() for a in args))


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("at_once", [1, 100, 10_000])
def test_ranks_in_chunks_equal_those_of_whole_matrices(levels, at_once):
    """Both directions, plain and after the dual softmax, with ties, duplicates and queries without positives."""
    g = torch.Generator().manual_seed(at_once)
    left, right = torch.randn(50, 8, generator=g), torch.randn(37, 8, generator=g)
    if levels:
        left, right = left.round().clamp(-1, 1) / 2, right.round().clamp(-1, 1) / 2
        right[10:20] = right[:10]
    clips = torch.randint(40, (50,), generator=g), torch.randint(40, (37,), generator=g)
    groups = torch.randint(45, (50,), generator=g), torch.randint(30, (37,), generator=g)
    scores, right_ones = similarity(left, right), shared_positives(*clips, *groups)
    forth, back = rank_both_ways(left, right, SharedPositives(*clips, *groups), 10.0, at_once)
    for found, matrix, positives in ((forth, scores, right_ones), (back, scores.T, right_ones.T)):
        assert torch.equal(found.plain, ranks(matrix, positives))
        assert torch.equal(found.dual_softmax, ranks(dual_softmax(matrix.double()).float(), positives))
        assert torch.equal(found.num_positives, positives.sum(1))
        assert 0 < int((found.plain == 0).sum()) < len(found.plain)
        whole = retrieval_metrics(matrix, positives)
        assert metrics_of_ranks(found.plain, found.num_positives, matrix.shape[1]) == whole


def test_ranks_in_chunks_refuse_what_whole_matrices_refuse():
    rows = torch.arange(3)
    positives = SharedPositives(rows, rows, rows, rows)
    with pytest.raises(ValueError, match="temperature"):
        rank_both_ways(torch.eye(3), torch.eye(3), positives, 0.0)
    with pytest.raises(ValueError, match="NaN"):
        rank_both_ways(torch.full((3, 3), math.nan), torch.eye(3), positives)
    with pytest.raises(ValueError, match="one clip and one group"):
        SharedPositives(rows, rows, rows[:2], rows)
    nothing = torch.zeros(0, dtype=torch.int64)
    none = rank_both_ways(torch.eye(3), torch.zeros(0, 3), SharedPositives(rows, nothing, rows, nothing))
    assert none[0].plain.tolist() == [0, 0, 0] and not len(none[1].plain)


def test_several_captions_and_duplicates():
    audio = torch.arange(3)
    captions, groups = torch.tensor([0, 0, 1, 2]), torch.tensor([5, 6, 5, 7])
    # Caption 5 stands at clips 0 and 1: both sounds are right for either copy; caption 6 is clip 0's alone.
    expected = [[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert shared_positives(captions, audio, groups, audio).int().tolist() == expected
    assert shared_positives(audio, captions, audio, groups).T.int().tolist() == expected
    # Clips 1 and 2 have the same sound: it is right for the captions of both.
    same = shared_positives(captions, audio, torch.arange(4), torch.tensor([0, 1, 1])).int().tolist()
    assert same == [[1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 1, 1]]
    # A caption that is repeated elsewhere answers either clip, so exact duplicates do not count as errors.
    tied = retrieval_metrics(torch.tensor([[1.0, 1.0]]), torch.tensor([[True, True]]))
    assert tied["R@1"] == 1


def test_shared_positives_without_candidates():
    empty = torch.zeros(0, dtype=torch.int64)
    assert shared_positives(torch.arange(2), empty, torch.arange(2), empty).shape == (2, 0)


def test_importing_retrieval_loads_neither_matplotlib_nor_lightning():
    code = (
        "import sys, peav.evaluation, peav.evaluation.retrieval as r; "
        "sys.exit(', '.join({'matplotlib', 'lightning', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
