"""Ranks among many embeddings, tile by tile in single precision, equal to those of exact scores.

A tile of scores is one matrix product in fp32. How far its rounding carries a score is known: no farther than lambda sqrt(D) u |x| |y|, for
lambda = 6 but for one score in some 10**7 of those whose error is as large as it may be (Higham and Mary, SIAM J. Sci. Comput. 41(5),
2019, theorem 2.4). So a score is above or below a threshold, or one of the few that are computed again in fp64.

The dual softmax `z exp(z - lse)` is at least t where `z >= W(t exp(lse))`, W being Lambert's function: within a tile, whose lse lie close
together, that is a threshold on z itself, and no exponential of a whole tile is needed for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from peav.evaluation.retrieval import DirectionRanks, SharedPositives

#: Sides of a tile: 16 MB of scores.
_ROWS, _COLUMNS = 1024, 4096

#: Pairs that are computed again at a time: 16 MB of each side at D = 1024.
_PAIRS_AT_ONCE = 2048

#: From this share of a tile on, all of it is computed again.
_DENSE_SHARE = 0.03

#: exp of this is finite in fp32, and so is a sum of a tile's.
_EXP_RANGE = 80.0

_UNIT = 2.0**-24


def rank_in_tiles(
    left: Tensor,
    right: Tensor,
    positives: SharedPositives,
    temperature: float = 10.0,
    dual: bool = True,
    tile: tuple[int, int] = (_ROWS, _COLUMNS),
) -> tuple[DirectionRanks, DirectionRanks]:
    """Ranks what left embeddings find among right ones and the other way round, as `rank_both_ways` does, in fp32 and tile by tile.

    Plain ranks are those of exact scores, ties included. After the dual softmax they are those of sums of exponentials whose rounding is
    that of fp32; equal embeddings tie all the same. Memory grows with Q + M.

    Args:
        left: (Q, D), in any precision; may lie in a mapped file.
        right: (M, D).
        positives: which belong together, left ones as queries.
        temperature: of the dual softmax.
        dual: whether to rank after the dual softmax too, which takes a second pass; ranks are 0 without.
        tile: sides of a tile.

    Raises:
        ValueError: if the temperature is not positive or a score is NaN.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    work = _Work(left, right, temperature, tile)
    if not bool(torch.isfinite(work.left_norm).all() and torch.isfinite(work.right_norm).all()):
        raise ValueError("scores hold NaN: they cannot be ranked")
    best = _Best(work, positives, None)
    plain = _count(work, best, sums=dual)
    softened = _Counts.zero(work)
    if dual:
        best_dual = _Best(work, positives, work.sums())
        softened = _count(work, best_dual, sums=False)
    return (
        DirectionRanks(plain.rows, softened.rows, best.num_rows),
        DirectionRanks(plain.columns, softened.columns, best.num_columns),
    )


@dataclass(frozen=True)
class _Sums:
    """Logarithms of the sums of exponentials: (M,) of each column over the rows, (Q,) of each row over the columns."""

    columns: Tensor
    rows: Tensor


class _Work:
    """The two sides, their norms, and the sums that the first pass finds."""

    def __init__(self, left: Tensor, right: Tensor, temperature: float, tile: tuple[int, int]) -> None:
        self.left, self.right, self.temperature, self.tile = left, right, temperature, tile
        self.left_norm, self.right_norm = _norms(left), _norms(right)
        self.gamma = 6 * math.sqrt(left.shape[1] + 2) * _UNIT
        bound = 2 * temperature * float(_largest(self.left_norm) * _largest(self.right_norm))
        self.shared_shift = bound / 2 if bound < _EXP_RANGE else None
        self.column_top, self.column_sum = _nothing(len(right)), torch.zeros(len(right), dtype=torch.float64)
        self.row_top, self.row_sum = _nothing(len(left)), torch.zeros(len(left), dtype=torch.float64)

    def tiles(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yields rows, columns and scores (n, m) in fp32; the memory of the scores is used again."""
        rows, columns = self.tile
        buffer = torch.empty(rows * columns)
        blocks = [slice(start, min(start + columns, len(self.right))) for start in range(0, len(self.right), columns)]
        for start in range(0, len(self.left), rows):
            row = slice(start, min(start + rows, len(self.left)))
            mine = self.left[row].float()
            for column in blocks:
                theirs = self.right[column].float()
                scores = buffer[: len(mine) * len(theirs)].view(len(mine), len(theirs))
                torch.mm(mine, theirs.T, out=scores)
                yield row, column, scores

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Returns the scores of pairs, rounded from fp64."""
        found = [torch.zeros(0)]
        for start in range(0, len(rows), _PAIRS_AT_ONCE):
            some = slice(start, start + _PAIRS_AT_ONCE)
            found.append((self.left[rows[some]].double() * self.right[columns[some]].double()).sum(1).float())
        return torch.cat(found)

    def exact_tile(self, row: slice, column: slice) -> Tensor:
        """Returns the scores of a tile, rounded from fp64."""
        return (self.left[row].double() @ self.right[column].double().T).float()

    def add_sums(self, row: slice, column: slice, scores: Tensor) -> None:
        """Adds the exponentials of a tile to those of its rows and columns."""
        if self.shared_shift is not None:
            powers = (scores * self.temperature).sub_(self.shared_shift).exp_()
            top = torch.tensor(self.shared_shift, dtype=torch.float64)
            _add(self.row_top[row], self.row_sum[row], top, powers.sum(1))
            _add(self.column_top[column], self.column_sum[column], top, powers.sum(0))
            return
        logits = scores * self.temperature
        for dim, tops, sums in (
            (1, self.row_top[row], self.row_sum[row]),
            (0, self.column_top[column], self.column_sum[column]),
        ):
            top = logits.amax(dim, keepdim=True)
            _add(tops, sums, top.squeeze(dim).double(), (logits - top).exp_().sum(dim))

    def sums(self) -> _Sums:
        """Returns the logarithms of the sums. Equal embeddings get equal ones, whose rounding differs by where they stood in a tile."""
        rows, columns = self.row_top + self.row_sum.log(), self.column_top + self.column_sum.log()
        return _Sums(_shared_by_equals(self.right, columns), _shared_by_equals(self.left, rows))


def _add(top: Tensor, total: Tensor, new_top: Tensor, new: Tensor) -> None:
    higher = torch.maximum(top, new_top)
    total.mul_((top - higher).exp()).add_(new.double() * (new_top - higher).exp())
    top.copy_(higher)


class _Best:
    """The best positive of each row and column, and how many positives have its score.

    Attributes:
        sums: None for plain scores; else the scores are those after the dual softmax.
        rows: (Q,) float32, the best positive's score, infinite where there is none.
        columns: (M,) likewise.
        own_rows: (Q,) positives that have it.
        own_columns: (M,) likewise.
        num_rows: (Q,) positives.
        num_columns: (M,) positives.
    """

    def __init__(self, work: _Work, positives: SharedPositives, sums: _Sums | None) -> None:
        self.sums = sums
        num_rows, num_columns = positives.shape
        self.rows, self.columns = _nothing(num_rows).float(), _nothing(num_columns).float()
        self.own_rows, self.own_columns, self.num_rows, self.num_columns = (
            torch.zeros(n, dtype=torch.int64) for n in (num_rows, num_columns, num_rows, num_columns)
        )
        for rows, columns in self._pairs(positives):
            scores = work.exact(rows, columns)
            self.rows.scatter_reduce_(0, rows, self.by_row(work, scores, columns), "amax")
            self.columns.scatter_reduce_(0, columns, self.by_column(work, scores, rows), "amax")
            self.num_rows += torch.bincount(rows, minlength=num_rows)
            self.num_columns += torch.bincount(columns, minlength=num_columns)
        for rows, columns in self._pairs(positives):
            scores = work.exact(rows, columns)
            first = rows[self.by_row(work, scores, columns) >= self.rows[rows]]
            second = columns[self.by_column(work, scores, rows) >= self.columns[columns]]
            self.own_rows += torch.bincount(first, minlength=num_rows)
            self.own_columns += torch.bincount(second, minlength=num_columns)
        self.rows[self.num_rows == 0] = math.inf
        self.columns[self.num_columns == 0] = math.inf

    @staticmethod
    def _pairs(positives: SharedPositives) -> Iterator[tuple[Tensor, Tensor]]:
        for some in torch.arange(positives.shape[0]).split(4096):
            rows, columns = positives.of(some)
            yield some[rows], columns

    def by_row(self, work: _Work, scores: Tensor, columns: Tensor) -> Tensor:
        """Returns what rows rank by, of scores in these columns."""
        return scores if self.sums is None else _softened(work, scores, self.sums.columns[columns])

    def by_column(self, work: _Work, scores: Tensor, rows: Tensor) -> Tensor:
        """Returns what columns rank by, of scores in these rows."""
        return scores if self.sums is None else _softened(work, scores, self.sums.rows[rows])


def _softened(work: _Work, scores: Tensor, sums: Tensor) -> Tensor:
    logits = work.temperature * scores.double()
    return ((logits - sums).exp() * logits).float()


@dataclass(frozen=True)
class _Counts:
    """Ranks of rows and columns."""

    rows: Tensor
    columns: Tensor

    @classmethod
    def zero(cls, work: _Work) -> _Counts:
        """Returns none."""
        return cls(torch.zeros(len(work.left), dtype=torch.int64), torch.zeros(len(work.right), dtype=torch.int64))


def _count(work: _Work, best: _Best, sums: bool) -> _Counts:
    """Counts, in one pass over all tiles, what stands before the best positives."""
    before = _Counts.zero(work)
    for row, column, scores in work.tiles():
        if sums:
            work.add_sums(row, column, scores)
        reach = work.gamma * work.left_norm[row] * _largest(work.right_norm[column])
        limits = _limits(work, best.rows[row], None if best.sums is None else best.sums.columns[column], reach)
        before.rows[row] += _above(work, best, row, column, scores, limits, 1)
        reach = work.gamma * work.right_norm[column] * _largest(work.left_norm[row])
        limits = _limits(work, best.columns[column], None if best.sums is None else best.sums.rows[row], reach)
        before.columns[column] += _above(work, best, row, column, scores, limits, 0)
    return _Counts(
        torch.where(best.num_rows > 0, before.rows - best.own_rows + 1, 0),
        torch.where(best.num_columns > 0, before.columns - best.own_columns + 1, 0),
    )


@dataclass(frozen=True)
class _Limits:
    """Which scores count for certain: those of at least `high`. Those from `low` on, and those up to `bottom`, are computed again."""

    low: Tensor
    high: Tensor
    bottom: Tensor | None


def _limits(work: _Work, best: Tensor, sums: Tensor | None, reach: Tensor) -> _Limits:
    """Returns the limits (n,) on plain scores from which those count that are at least the best positive's."""
    reach = reach + _UNIT * best.abs().double().clamp(max=1e30)
    if sums is None:
        return _Limits((best.double() - reach).float(), (best.double() + reach).float(), None)
    targets = torch.stack([best.double() * sums.min().exp(), best.double() * sums.max().exp()])
    if not bool(torch.isfinite(sums).all() and torch.isfinite(targets[:, best.isfinite()]).all()):
        everything = torch.full_like(best, -math.inf)
        return _Limits(everything, torch.full_like(best, math.inf), None)
    upper = _lambert(targets, 0)
    # What is rounded in the sums and in exp moves a threshold by about as much as rounding in z does.
    slack = work.temperature * reach + 32 * _UNIT * (1 + upper.abs().amax(0).clamp(max=1e30))
    low, high = (upper.amin(0) - slack) / work.temperature, (upper.amax(0) + slack) / work.temperature
    # z exp(z) is at least a negative target also for very negative z.
    lower = _lambert(targets, -1)
    bottom = torch.where(best < 0, (lower.amax(0) + slack) / work.temperature, -math.inf)
    return _Limits(low.float(), high.float(), bottom.float())


def _above(work: _Work, best: _Best, row: slice, column: slice, scores: Tensor, limits: _Limits, dim: int) -> Tensor:
    """Counts, along `dim`, the scores of a tile that stand at or above their limit."""

    def spread(limit: Tensor) -> Tensor:
        return limit.unsqueeze(dim)

    certain = scores >= spread(limits.high)
    unsure = (scores >= spread(limits.low)).logical_xor_(certain)
    if limits.bottom is not None and float(limits.bottom.max()) > float(scores.min()):
        unsure |= (scores <= spread(limits.bottom)) & ~certain
    count = _sum_of_bools(certain, dim)
    lines = torch.nonzero(_sum_of_bools(unsure, dim)).flatten()
    if not len(lines):
        return count
    where = torch.nonzero(unsure[lines] if dim == 1 else unsure[:, lines])
    thresholds = best.rows[row] if dim == 1 else best.columns[column]
    if len(where) > _DENSE_SHARE * scores.numel():
        exact = work.exact_tile(row, column)
        if best.sums is not None:
            others = best.sums.columns[column] if dim == 1 else best.sums.rows[row]
            exact = _softened(work, exact, others.unsqueeze(1 - dim))
        return (exact >= spread(thresholds)).sum(dim)
    rows, columns = (lines[where[:, 0]], where[:, 1]) if dim == 1 else (where[:, 0], lines[where[:, 1]])
    line = rows if dim == 1 else columns
    if best.sums is not None:
        # Most were unsure for the sums of their tile alone: with their own, the score in fp32 decides.
        mine = scores[rows, columns]
        others = best.sums.columns[columns + column.start] if dim == 1 else best.sums.rows[rows + row.start]
        logits = work.temperature * mine.double()
        share = (logits - others).exp()
        reach = work.gamma * work.left_norm[rows + row.start] * work.right_norm[columns + column.start]
        error = share * (1 + logits.abs()) * (1.1 * work.temperature * reach + 32 * _UNIT)
        distance = share * logits - thresholds[line].double()
        decided = (distance.abs() > error + _UNIT * thresholds[line].abs().double()) & distance.isfinite()
        count = count + torch.bincount(line[decided & (distance > 0)], minlength=len(count))
        rows, columns, line = rows[~decided], columns[~decided], line[~decided]
    exact = work.exact(rows + row.start, columns + column.start)
    exact = (
        best.by_row(work, exact, columns + column.start) if dim == 1 else best.by_column(work, exact, rows + row.start)
    )
    return count + torch.bincount(line[exact >= thresholds[line]], minlength=len(count))


def _sum_of_bools(values: Tensor, dim: int) -> Tensor:
    """Sums (n, m) bool along a dimension; eight at a time where the columns allow it, a byte of a word each."""
    if values.shape[1] % 8 or not values.is_contiguous():
        return values.sum(dim)
    words = values.view(torch.int64)
    if dim == 0:
        # A byte holds up to 255.
        return torch.stack([part.sum(0).view(torch.uint8).long() for part in words.split(255)]).sum(0)
    return torch.stack([part.sum(1).view(torch.uint8).view(-1, 8).long().sum(1) for part in words.split(255, 1)]).sum(0)


def _lambert(targets: Tensor, branch: int) -> Tensor:
    """Solves w exp(w) = t by Halley's iteration (Corless et al., 1996): w >= -1 for branch 0, w <= -1 for branch -1.

    For t below -1/e, where every w exceeds it, branch 0 gives -inf and branch -1 inf.

    >>> [round(float(w), 6) for w in _lambert(torch.tensor([1.0, -0.2, 100.0], dtype=torch.float64), 0)]
    [0.567143, -0.259171, 3.38563]
    """
    least = -math.exp(-1)
    t = targets.double().clamp(min=least)
    root = (2 * (1 + math.e * t)).clamp(min=0).sqrt()
    if branch == 0:
        large = t.clamp(min=3.0).log()
        far = large - large.log().clamp(min=0)
        w = torch.where(t < 1, -1 + root - root.square() / 3, torch.where(t > 3, far, 0.5 * torch.ones_like(t)))
        w = w.clamp(min=-1)
    else:
        t = t.clamp(max=-1e-300)
        small = (-t).log()
        w = torch.where(t < -0.1, -1 - root - root.square() / 3, small - (-small).log())
        w = w.clamp(max=-1)
    finite = torch.isfinite(t)
    for _ in range(12):
        power = w.exp()
        f = w * power - t
        step = f / (power * (w + 1) - (w + 2) * f / (2 * w + 2)).where((w + 1).abs() > 1e-9, torch.ones_like(w))
        step = torch.where(torch.isfinite(step) & ((w + 1).abs() > 1e-9), step, 0)
        w = w - step
        if bool((step.abs() <= 1e-13 * (1 + w.abs()))[finite].all()):
            break
    w = torch.where(finite, w, math.inf)
    return torch.where(targets < least, -math.inf if branch == 0 else math.inf, w)


def _norms(rows: Tensor) -> Tensor:
    parts = [part.double().norm(dim=1) for part in rows.split(4096)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def _largest(norms: Tensor) -> Tensor:
    return norms.max() if len(norms) else torch.zeros((), dtype=torch.float64)


def _nothing(size: int) -> Tensor:
    return torch.full((size,), -math.inf, dtype=torch.float64)


def _shared_by_equals(rows: Tensor, values: Tensor) -> Tensor:
    """Gives equal rows (N, D) one value: the mean of theirs."""
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[rows.element_size()]
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator) | 1
    # int64 wraps around, which is meant; + 0 makes one zero of both.
    hashes = [((part + 0.0).view(kind).long() * factors).sum(1) for part in rows.split(1024)]
    if not hashes:
        return values
    _, place, count = torch.cat(hashes).unique(return_inverse=True, return_counts=True)
    mean = torch.zeros(len(count), dtype=torch.float64).index_add_(0, place, values) / count
    return torch.where(count[place] > 1, mean[place], values)
