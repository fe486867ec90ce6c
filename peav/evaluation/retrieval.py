"""Retrieval in the sense of CLIP: ranks, R@k, median rank, what chance would give, and the dual softmax.

`scores` is (Q, M): queries by candidates, higher is more similar. `positives` is (Q, M) bool: which candidates are
right for which query. A query may have several positives and counts as found when any of them is in the top k; a query
without any is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def dual_softmax(scores: Tensor, temperature: float = 10.0) -> Tensor:
    """Reweights scores by how much each candidate prefers each query: `(c * s) * softmax(c * s, over the queries)`.

    Meta's default in the evaluation of PE-AV, with c = 10. It looks at all queries at once, so numbers with and without
    it are not comparable.

    Args:
        scores: (Q, M) float.
        temperature: c, positive.

    Returns:
        (Q, M) reweighted scores.

    Raises:
        ValueError: if the temperature is not positive or the scores are not a matrix.

    >>> dual_softmax(torch.zeros(2, 3)).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if scores.ndim != 2:
        raise ValueError(f"expected scores (queries, candidates), got {tuple(scores.shape)}")
    logits = temperature * scores
    return logits * logits.softmax(0)


def shared_positives(query_clips: Tensor, item_clips: Tensor, query_groups: Tensor, item_groups: Tensor) -> Tensor:
    """Says which candidates are right for which query: those of the same clip, shared by equal inputs.

    A query is right with a candidate when some clip holds an input equal to the query and an input equal to the
    candidate. So two clips with the same caption are both right for it, and two copies of one sound are both right for
    either's caption.

    Args:
        query_clips: (Q,) int64, clip of each query.
        item_clips: (M,) int64, clip of each candidate.
        query_groups: (Q,) int64, equal for equal queries.
        item_groups: (M,) int64, equal for equal candidates.

    Returns:
        (Q, M) bool.

    >>> clips = torch.tensor([0, 1, 2])
    >>> shared_positives(clips, clips, torch.tensor([7, 7, 8]), clips).int().tolist()  # clips 0 and 1 share a caption
    [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    """
    if query_clips.shape != query_groups.shape or item_clips.shape != item_groups.shape:
        raise ValueError("each query and each candidate needs one clip and one group")
    query_ids, query_inverse = query_groups.unique(return_inverse=True)
    item_ids, item_inverse = item_groups.unique(return_inverse=True)
    together = torch.zeros(len(query_ids), len(item_ids), dtype=torch.bool)
    if not together.numel():
        return torch.zeros(len(query_clips), len(item_clips), dtype=torch.bool)
    # The candidates of a clip are a run of the sorted candidates. Step through the runs side by side: as many steps as
    # the longest run (one for media, the number of captions for captions), never a product over all clips.
    order = item_clips.argsort()
    sorted_clips = item_clips[order]
    start = torch.searchsorted(sorted_clips, query_clips)
    length = torch.searchsorted(sorted_clips, query_clips, right=True) - start
    for step in range(int(length.max())):
        rows = torch.nonzero(length > step).flatten()
        together[query_inverse[rows], item_inverse[order[start[rows] + step]]] = True
    return together[query_inverse][:, item_inverse]


def ranks(scores: Tensor, positives: Tensor) -> Tensor:
    """Returns the rank of each query's best positive, counted from 1; 0 for a query without positives.

    Ties count against the model: a negative with the same score as the best positive stands before it. So constant
    scores find nothing, rather than everything.

    Args:
        scores: (Q, M) float.
        positives: (Q, M) bool.

    Returns:
        (Q,) int64.

    Raises:
        ValueError: if the shapes differ or a score is NaN.

    >>> ranks(torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.3, 0.3]]), torch.tensor([[0, 0, 1], [1, 0, 0]]).bool()).tolist()
    [2, 3]
    """
    if scores.ndim != 2 or scores.shape != positives.shape or positives.dtype != torch.bool:
        got = f"{tuple(scores.shape)} and {positives.dtype} {tuple(positives.shape)}"
        raise ValueError(f"expected scores (queries, candidates) and bool positives of the same shape, got {got}")
    if bool(scores.isnan().any()):
        raise ValueError("scores hold NaN: they cannot be ranked")
    if not scores.numel():
        return torch.zeros(len(scores), dtype=torch.int64)
    best = scores.masked_fill(~positives, -math.inf).amax(1, keepdim=True)
    before = ((scores >= best) & ~positives).sum(1)
    return torch.where(positives.any(1), before + 1, 0)


def recall_at_k(rank: Tensor, k: int) -> float:
    """Returns the share of queries whose best positive is in the top k; queries of rank 0 (no positive) do not count.

    Args:
        rank: (Q,) int64, from `ranks`.
        k: at least 1.

    Raises:
        ValueError: if no query has a positive, or k < 1.

    >>> recall_at_k(torch.tensor([1, 3, 0, 7]), 5)
    0.6666666666666666
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return int((_counted(rank) <= k).sum()) / len(_counted(rank))


def median_rank(rank: Tensor) -> float:
    """Returns the median of the ranks above 0; the mean of the middle two for an even count.

    >>> median_rank(torch.tensor([4, 1, 0, 2, 9]))
    3.0
    """
    ordered = _counted(rank).sort().values
    half = len(ordered) // 2
    return float(ordered[half]) if len(ordered) % 2 else (float(ordered[half - 1]) + float(ordered[half])) / 2


def chance_recall(num_positives: Tensor, num_candidates: int, k: int) -> float:
    """Returns R@k of a random order, exactly: the mean over queries of `1 - C(M - p, k) / C(M, k)`.

    Args:
        num_positives: (Q,) int64, p of each query; queries with p = 0 are left out.
        num_candidates: M.
        k: at least 1.

    >>> round(chance_recall(torch.tensor([1, 2]), 10, 1), 6)
    0.15
    """
    counts = _counted(num_positives).double()
    missed = torch.ones_like(counts)
    for drawn in range(min(k, num_candidates)):
        missed *= (num_candidates - counts - drawn) / (num_candidates - drawn)  # passes through 0, and stays there
    return float((1 - missed).mean())


def chance_interval(probability: float, num_queries: int, level: float = 0.95) -> tuple[float, float]:
    """Returns the central interval of the share of hits among independent queries that each hit with `probability`.

    The quantiles of the binomial distribution, exactly, divided by the number of queries.

    Args:
        probability: in [0, 1], for instance chance R@1.
        num_queries: number of independent queries.
        level: probability that the interval holds at least.

    >>> chance_interval(0.5, 10)
    (0.2, 0.8)
    """
    if not 0 <= probability <= 1 or num_queries < 1 or not 0 < level < 1:
        raise ValueError(f"no binomial interval for {probability=}, {num_queries=}, {level=}")
    if probability in (0, 1):
        return float(probability), float(probability)
    hits = torch.arange(num_queries + 1, dtype=torch.float64)
    n = torch.tensor(float(num_queries), dtype=torch.float64)
    log_choose = torch.lgamma(n + 1) - torch.lgamma(hits + 1) - torch.lgamma(n - hits + 1)
    log_mass = log_choose + hits * math.log(probability) + (n - hits) * math.log1p(-probability)
    cumulative = log_mass.exp().cumsum(0)
    tail = (1 - level) / 2
    low = int((cumulative < tail).sum())
    high = min(int((cumulative < 1 - tail).sum()), num_queries)
    return low / num_queries, high / num_queries


def retrieval_metrics(scores: Tensor, positives: Tensor, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Computes everything reported about one direction of retrieval.

    Args:
        scores: (Q, M) float.
        positives: (Q, M) bool.
        ks: the k of R@k.

    Returns:
        `R@k` and `chance_R@k` for each k (shares in [0, 1]), `median_rank`, `num_queries` (those that count),
        `num_candidates`, and `num_without_positive` (queries left out).

    Raises:
        ValueError: if no query has a positive, the shapes differ or a score is NaN.
    """
    rank = ranks(scores, positives)
    num_positives = positives.sum(1)
    result = {f"R@{k}": recall_at_k(rank, k) for k in ks}
    result["median_rank"] = median_rank(rank)
    result |= {f"chance_R@{k}": chance_recall(num_positives, scores.shape[1], k) for k in ks}
    result["num_queries"] = int((rank > 0).sum())
    result["num_candidates"] = scores.shape[1]
    result["num_without_positive"] = int((rank == 0).sum())
    return result


def _counted(values: Tensor) -> Tensor:
    counted = values[values > 0]
    if not len(counted):
        raise ValueError("no query has a positive candidate: nothing to measure")
    return counted
