"""Retrieval in the sense of CLIP: ranks, R@k, median rank, what chance would give, and the dual softmax.

`scores` is (Q, M): queries by candidates, higher is more similar. `positives` is (Q, M) bool: which candidates are
right for which query. A query may have several positives and counts as found when any of them is in the top k; a query
without any is left out.

`rank_both_ways` computes the same ranks from embeddings and holds a few rows of the matrices at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Scores that are there at a time: 8 MB in double precision.
_SCORES_AT_ONCE = 2**20


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


class SharedPositives:
    """Which candidates are right for which query: those of the same clip, shared by equal inputs.

    A query is right with a candidate when some clip holds an input equal to the query and an input equal to the
    candidate. So two clips with the same caption are both right for it, and two copies of one sound are both right for
    either's caption. Held as lists, whose memory grows with the clips and not with queries times candidates.

    Args:
        query_clips: (Q,) int64, clip of each query.
        item_clips: (M,) int64, clip of each candidate.
        query_groups: (Q,) int64, equal for equal queries.
        item_groups: (M,) int64, equal for equal candidates.

    Raises:
        ValueError: if clips and groups differ in number.
    """

    def __init__(self, query_clips: Tensor, item_clips: Tensor, query_groups: Tensor, item_groups: Tensor) -> None:
        if query_clips.shape != query_groups.shape or item_clips.shape != item_groups.shape:
            raise ValueError("each query and each candidate needs one clip and one group")
        self.shape = (len(query_clips), len(item_clips))
        query_ids, self._group = query_groups.unique(return_inverse=True)
        item_ids, item_group = item_groups.unique(return_inverse=True)
        # The candidates of a clip are a run of the sorted candidates. Step through the runs side by side: as many steps
        # as the longest run (one for media, the number of captions for captions), never a product over all clips.
        order = item_clips.argsort()
        sorted_clips = item_clips[order]
        start = torch.searchsorted(sorted_clips, query_clips)
        length = torch.searchsorted(sorted_clips, query_clips, right=True) - start
        edges = [torch.zeros(0, dtype=torch.int64)]
        for step in range(int(length.max()) if len(length) else 0):
            rows = torch.nonzero(length > step).flatten()
            edges.append(self._group[rows] * len(item_ids) + item_group[order[start[rows] + step]])
        known = torch.cat(edges).unique()
        size = max(len(item_ids), 1)
        self._groups_of_group = _Lists(known // size, known % size, len(query_ids))
        self._items_of_group = _Lists(item_group, torch.arange(len(item_clips)), len(item_ids))

    def of(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the positives of some queries.

        Args:
            queries: (n,) int64, their numbers.

        Returns:
            (P,) and (P,) int64: the place in `queries`, ascending, and the number of the candidate.
        """
        rows, groups = self._groups_of_group.of(self._group[queries])
        places, items = self._items_of_group.of(groups)
        return rows[places], items


class _Lists:
    """Lists of numbers by key, in two tensors.

    Args:
        keys: (N,) int64, in [0, num_keys).
        values: (N,) int64.
        num_keys: K.
    """

    def __init__(self, keys: Tensor, values: Tensor, num_keys: int) -> None:
        self._values = values[keys.argsort(stable=True)]
        self._length = torch.bincount(keys, minlength=num_keys)
        self._start = self._length.cumsum(0) - self._length

    def of(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the values of (n,) keys one after the other, and before them the place in `keys` of each."""
        length = self._length[keys]
        places = torch.arange(len(keys)).repeat_interleave(length)
        offset = torch.arange(len(places)) - (length.cumsum(0) - length)[places]
        return places, self._values[self._start[keys][places] + offset]


def shared_positives(query_clips: Tensor, item_clips: Tensor, query_groups: Tensor, item_groups: Tensor) -> Tensor:
    """Returns `SharedPositives` as one matrix.

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
    positives = SharedPositives(query_clips, item_clips, query_groups, item_groups)
    matrix = torch.zeros(positives.shape, dtype=torch.bool)
    matrix[positives.of(torch.arange(len(query_clips)))] = True
    return matrix


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
    return metrics_of_ranks(ranks(scores, positives), positives.sum(1), scores.shape[1], ks)


def metrics_of_ranks(
    rank: Tensor, num_positives: Tensor, num_candidates: int, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Computes `retrieval_metrics` of ranks that are known.

    Args:
        rank: (Q,) int64, from `ranks`.
        num_positives: (Q,) int64.
        num_candidates: M.
        ks: the k of R@k.

    Raises:
        ValueError: if no query has a positive.
    """
    result = {f"R@{k}": recall_at_k(rank, k) for k in ks}
    result["median_rank"] = median_rank(rank)
    result |= {f"chance_R@{k}": chance_recall(num_positives, num_candidates, k) for k in ks}
    result["num_queries"] = int((rank > 0).sum())
    result["num_candidates"] = num_candidates
    result["num_without_positive"] = int((rank == 0).sum())
    return result


def similarity(queries: Tensor, items: Tensor) -> Tensor:
    """Returns the dot products (Q, M) of embeddings (Q, D) and (M, D) as float32, rounded from float64.

    The rounding makes equal rows score equally wherever they stand in the matrix product, so that ties are seen as
    ties.
    """
    chunks = [scores for _, scores in _score_rows(queries, items, 4096)]
    return torch.cat(chunks) if chunks else torch.zeros(0, len(items))


def _score_rows(queries: Tensor, items: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields numbers of queries, `size` at a time, and their `similarity` to all items."""
    columns = items.double().T.contiguous()
    for rows in torch.arange(len(queries)).split(size):
        yield rows, (queries[rows].double() @ columns).float()


@dataclass(frozen=True)
class DirectionRanks:
    """Ranks of the queries of one direction, as `ranks` counts them.

    Attributes:
        plain: (Q,) int64, by the scores.
        dual_softmax: (Q,) int64, by the scores after the dual softmax.
        num_positives: (Q,) int64.
    """

    plain: Tensor
    dual_softmax: Tensor
    num_positives: Tensor


def rank_both_ways(
    left: Tensor,
    right: Tensor,
    positives: SharedPositives,
    temperature: float = 10.0,
    scores_at_once: int | None = None,
) -> tuple[DirectionRanks, DirectionRanks]:
    """Ranks what left embeddings find among right ones, and right ones among left, a few rows of scores at a time.

    Equal to `ranks` of the whole matrix of `similarity`, of its transpose, and of the `dual_softmax` of either. The
    scores are computed twice: what a column needs to know of all rows is found in the first pass.

    Args:
        left: (Q, D).
        right: (M, D).
        positives: which belong together, left ones as queries.
        temperature: of the dual softmax.
        scores_at_once: size of the chunks, 2**20 by default; memory grows with it and with Q + M.

    Returns:
        left -> right with Q queries, and right -> left with M.

    Raises:
        ValueError: if the temperature is not positive or a score is NaN.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    num_rows, num_columns = positives.shape
    size = max(1, (scores_at_once or _SCORES_AT_ONCE) // max(num_columns, 1))
    plain_columns, dual_columns = _ColumnRanks(num_columns), _ColumnRanks(num_columns)
    row_plain, row_dual, row_positives = (torch.zeros(num_rows, dtype=torch.int64) for _ in range(3))
    top = torch.full((num_columns,), -math.inf, dtype=torch.float64)
    mass = torch.zeros(num_columns, dtype=torch.float64)
    for rows, scores in _score_rows(left, right, size) if num_columns else ():
        found = positives.of(rows)
        row_plain[rows], row_positives[rows] = _row_ranks(scores, found)
        plain_columns.see(scores, found)
        logits = temperature * scores.double()
        dual_columns.see(_reweighted(logits, logits.softmax(1)), found)
        higher = torch.maximum(top, logits.amax(0))
        mass = mass * (top - higher).exp() + logits.sub_(higher).exp_().sum(0)
        top = higher
    for rows, scores in _score_rows(left, right, size) if num_columns else ():
        found = positives.of(rows)
        plain_columns.count(scores, found)
        logits = temperature * scores.double()
        dual_columns.count(_reweighted(logits, logits.softmax(1)), found)
        row_dual[rows] = _row_ranks(_reweighted(logits, (logits - top).exp_().div_(mass)), found)[0]
    return (
        DirectionRanks(row_plain, row_dual, row_positives),
        DirectionRanks(plain_columns.ranks(), dual_columns.ranks(), plain_columns.num_positives),
    )


def _reweighted(logits: Tensor, share: Tensor) -> Tensor:
    # Rounded from float64, for the reason that `similarity` gives.
    return share.mul_(logits).float()


def _row_ranks(scores: Tensor, found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the rank and the number of positives of each row of some rows of scores."""
    rows, columns = found
    if bool(scores.amax(1).isnan().any()):
        raise ValueError("scores hold NaN: they cannot be ranked")
    right = scores[rows, columns]
    best = torch.full((len(scores),), -math.inf).scatter_reduce_(0, rows, right, "amax")
    num_positives = torch.bincount(rows, minlength=len(scores))
    # A positive that ties with the best one does not stand before it.
    own = torch.bincount(rows[right >= best[rows]], minlength=len(scores))
    before = (scores >= best[:, None]).sum(1) - own
    return torch.where(num_positives > 0, before + 1, 0), num_positives


class _ColumnRanks:
    """Ranks within columns of scores that come a few rows at a time, twice: `see` all of them, then `count` them."""

    def __init__(self, num_columns: int) -> None:
        self.best = torch.full((num_columns,), -math.inf)
        self.num_positives = torch.zeros(num_columns, dtype=torch.int64)
        self.before = torch.zeros(num_columns, dtype=torch.int64)

    def see(self, scores: Tensor, found: tuple[Tensor, Tensor]) -> None:
        rows, columns = found
        self.best.scatter_reduce_(0, columns, scores[rows, columns], "amax")
        self.num_positives += torch.bincount(columns, minlength=len(self.best))

    def count(self, scores: Tensor, found: tuple[Tensor, Tensor]) -> None:
        rows, columns = found
        own = columns[scores[rows, columns] >= self.best[columns]]
        self.before += (scores >= self.best).sum(0) - torch.bincount(own, minlength=len(self.best))

    def ranks(self) -> Tensor:
        return torch.where(self.num_positives > 0, self.before + 1, 0)


def _counted(values: Tensor) -> Tensor:
    counted = values[values > 0]
    if not len(counted):
        raise ValueError("no query has a positive candidate: nothing to measure")
    return counted
