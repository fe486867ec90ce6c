"""Losses over all pairs of rows and columns, tile by tile, with the gradient in the forward pass: never an N x M tensor.

A sigmoid loss is a sum over pairs, so that a tile of logits gives its share of the loss and of every gradient at once and is
forgotten: one pass, no recomputation, and memory for the gradients and a few tiles. Which pairs belong together and which do not
count is said by a mask, which is small too and makes its part of a tile when it is asked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from peav.devices import accumulator_dtype, widest
from peav.host import to_device, to_host

#: What to do with a pair of different clips whose inputs are the same on one side: `drop` gives it no weight, `positive` counts it as
#: belonging together, `keep` treats it as any negative.
DuplicatePolicy = Literal["drop", "positive", "keep"]

#: Rows and columns of a tile: 4 MB in fp32, which stays in the cache, and long enough for the matrix products to run at full speed.
TILE = 1024

#: Logits beyond this are their own softplus, to the last bit of float64; exp() of them still fits fp32.
_LINEAR_FROM = 80.0


@dataclass(frozen=True)
class Cells:
    """Single terms of a tile that have a label and a weight of their own; each (n,), and no term twice.

    Attributes:
        row: of the tile.
        column: of the tile.
        label: y in [0, 1]: the loss is `-y log sigmoid(x) - (1 - y) log sigmoid(-x)`.
        weight: 0 for a term that does not count.
        instead: the weight that the term would have if it were no single one.
    """

    row: Tensor
    column: Tensor
    label: Tensor
    weight: Tensor
    instead: Tensor


@dataclass(frozen=True)
class RowWeights:
    """Weights of a tile of which runs of rows have the same.

    Attributes:
        weight: (g, c), 0 for terms that do not count. Logits must be finite there too.
        lengths: rows of each of the g runs.
        count: terms of the tile whose weight is not 0.
    """

    weight: Tensor
    lengths: tuple[int, ...]
    count: int

    def sum(self, values: Tensor, counted: bool = False) -> Tensor:
        """Sums values (r, c) by their weights, or those that count."""
        weight = (self.weight > 0).to(values.dtype) if counted else self.weight
        return (torch.stack([part.sum(0) for part in values.split(self.lengths)]) * weight).sum()

    def weigh_(self, values: Tensor) -> None:
        """Multiplies values (r, c) by their weights, in place."""
        for part, weight in zip(values.split(self.lengths), self.weight, strict=True):
            part.mul_(weight)


@dataclass(frozen=True)
class Tile:
    """What the terms of a tile are: pairs that are not positive are negative, and count 1.

    Attributes:
        own: row and column indices of single positives.
        positive: (r, c) bool, further positives.
        weight: (r, c), 0 for terms that do not count.
        row_weights: weights in place of `weight`; all terms are then negatives.
        cells: single terms for which none of the above is true.
    """

    own: tuple[Tensor, Tensor] | None = None
    positive: Tensor | None = None
    weight: Tensor | None = None
    row_weights: RowWeights | None = None
    cells: Cells | None = None


class TileMask(ABC):
    """Which pairs of N rows and M columns belong together, and which count.

    Attributes:
        rows: (n,) int64, ascending, the rows that count at all; None for all N.
        columns: (m,) int64, ascending, the columns that count at all; None for all M.
    """

    rows: Tensor | None = None
    columns: Tensor | None = None

    @abstractmethod
    def tile(self, rows: slice, columns: slice) -> Tile | None:
        """Returns a tile, by positions among the rows and the columns that count; None where no term of it counts."""


class DenseMask(TileMask):
    """Any mask, given whole.

    Args:
        positive: (N, M) bool, or None for the diagonal.
        weight: (N, M), or None for 1 everywhere.
        shape: (N, M).
    """

    def __init__(self, positive: Tensor | None, weight: Tensor | None, shape: tuple[int, int]) -> None:
        for name, value in (("positive", positive), ("weight", weight)):
            if value is not None and value.shape != shape:
                raise ValueError(f"{name} must be {shape}, not {tuple(value.shape)}")
        self.positive, self.weight, self.shape = positive, weight, shape

    def tile(self, rows: slice, columns: slice) -> Tile:
        """Cuts the tile out."""
        weight = None if self.weight is None else self.weight[rows, columns]
        if self.positive is not None:
            return Tile(positive=self.positive[rows, columns], weight=weight)
        common = range(max(rows.start, columns.start), min(rows.stop, columns.stop))
        device = None if weight is None else weight.device
        diagonal = torch.arange(common.start, max(common.start, common.stop), device=device)
        return Tile(own=(diagonal - rows.start, diagonal - columns.start), weight=weight)


class PairMask(TileMask):
    """Clips against clips: row i's partner is column `offset + i`; absent clips are left out, duplicates follow a policy.

    Two clips are duplicates when their inputs are the same on either side of the pair. All of it is found on the host, which fetches
    in one copy what is not there yet; the device gets indices.

    Args:
        row_present: (N,) bool.
        column_present: (M,) bool.
        row_groups: identities (N,) int64 of the rows' clips, on each of the two sides.
        column_groups: identities (M,) int64 of the columns' clips, likewise.
        offset: where the rows begin among the columns; may be negative, or beyond them, where partners are elsewhere.
        duplicates: the policy.
        device: where the tiles are computed; that of `row_present` by default.
    """

    def __init__(
        self,
        row_present: Tensor,
        column_present: Tensor,
        row_groups: tuple[Tensor, Tensor],
        column_groups: tuple[Tensor, Tensor],
        offset: int = 0,
        duplicates: DuplicatePolicy = "drop",
        device: torch.device | None = None,
    ) -> None:
        if duplicates not in ("drop", "positive", "keep"):
            raise ValueError(f"duplicates must be 'drop', 'positive' or 'keep', not {duplicates!r}")
        self.duplicates = duplicates
        self._device = row_present.device if device is None else device
        host = to_host(row_present, column_present, *row_groups, *column_groups)
        rows_there, columns_there, *groups = (tensor.numpy() for tensor in host)
        num_rows, num_columns = len(rows_there), len(columns_there)
        partner = np.arange(num_rows) + offset
        inside = (partner >= 0) & (partner < num_columns)
        if num_columns:
            partner = partner.clip(0, num_columns - 1)
            inside &= columns_there[partner]
            partner = (columns_there.cumsum() - 1)[partner]
        if not rows_there.all():
            kept = np.flatnonzero(rows_there)
            self.rows = self._upload(kept)
            partner, inside, groups[:2] = partner[kept], inside[kept], [group[kept] for group in groups[:2]]
        if not columns_there.all():
            kept = np.flatnonzero(columns_there)
            self.columns = self._upload(kept)
            groups[2:] = [group[kept] for group in groups[2:]]
        # Both ascend, so that those of a tile are a span.
        self._row_order = np.flatnonzero(inside)
        self._column_order = partner[self._row_order]
        self._own_rows, self._own_columns = self._upload(self._row_order), self._upload(self._column_order)
        self._groups = groups
        self._on_device: list[Tensor] = []
        self._doubled: np.ndarray | None = None
        if duplicates != "keep" and len(inside) and len(groups[2]):
            doubled = np.zeros_like(inside)
            for rows, columns in zip(groups[:2], groups[2:], strict=True):
                doubled |= _occurrences(rows, columns) > inside
            self._doubled = doubled if doubled.any() else None

    def _upload(self, values: np.ndarray) -> Tensor:
        return to_device(torch.from_numpy(values), self._device)

    def tile(self, rows: slice, columns: slice) -> Tile:
        """Makes the tile; its dense part only where a row has a duplicate."""
        first, last = np.searchsorted(self._row_order, (rows.start, rows.stop))
        left, right = first + np.searchsorted(self._column_order[first:last], (columns.start, columns.stop))
        own = (self._own_rows[left:right] - rows.start, self._own_columns[left:right] - columns.start)
        if self._doubled is None or not self._doubled[rows].any():
            return Tile(own)
        self._on_device = self._on_device or [self._upload(group) for group in self._groups]
        left_rows, right_rows, left_columns, right_columns = self._on_device
        same = (left_rows[rows, None] == left_columns[columns]) | (right_rows[rows, None] == right_columns[columns])
        same[own] = False
        return Tile(own, weight=~same) if self.duplicates == "drop" else Tile(own, positive=same)


def _occurrences(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Counts how often each value occurs among others."""
    known, place = np.unique(values, return_inverse=True)
    at = np.searchsorted(known, among).clip(max=len(known) - 1)
    return np.bincount(at[known[at] == among], minlength=len(known))[place]


@dataclass(frozen=True)
class PairSums:
    """Sums over the terms of a loss, without gradient; each a scalar. A term with the label y is y positives and 1 - y negatives.

    Attributes:
        positives: number of positives that count.
        negatives: number of negatives that count.
        positive: sum of the positives' logits.
        negative: sum of the negatives' logits.
    """

    positives: Tensor
    negatives: Tensor
    positive: Tensor
    negative: Tensor

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """The mean logit of the positives and of the negatives; NaN where there are none."""
        return self.positive / self.positives, self.negative / self.negatives


def gradient_wanted(*tensors: Tensor) -> bool:
    """Returns whether a backward pass may come: asked before an autograd function, inside which gradients are disabled."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def sigmoid_sum(
    rows: Tensor, columns: Tensor, logit_scale: Tensor, logit_bias: Tensor, mask: TileMask, tile: int = TILE
) -> tuple[Tensor, PairSums]:
    """Sums `-log sigmoid(z (t <x_i, y_j> + b))` over all pairs that count, z = +1 for positives and -1 for negatives.

    Differentiable in `rows`, `columns`, `logit_scale` and `logit_bias`, once: the gradient, found in the forward pass, is given away
    by the first backward pass; a second one through a retained graph computes it anew.

    Args:
        rows: (N, D) x, in fp32 or float64.
        columns: (M, D) y, likewise.
        logit_scale: (1,) log of t.
        logit_bias: (1,) b, or (M,) of each column.
        mask: which pairs are positive and which count.
        tile: rows and columns of a tile.

    Returns:
        the sum, and sums to log.
    """
    with torch.autocast(rows.device.type, enabled=False):
        wanted = gradient_wanted(rows, columns, logit_scale, logit_bias)
        total, sums = _SigmoidSum.apply(rows, columns, logit_scale, logit_bias, mask, tile, wanted)
    return total, PairSums(*sums.unbind())


class _SigmoidSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        columns: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor,
        mask: TileMask,
        tile: int,
        wanted: bool,
    ) -> tuple[Tensor, Tensor]:
        total, sums, gradients = sigmoid_pass(rows, columns, logit_scale, logit_bias, mask, tile, wanted)
        ctx.mask, ctx.tile, ctx.gradients = mask, tile, gradients
        ctx.save_for_backward(rows, columns, logit_scale, logit_bias)
        ctx.mark_non_differentiable(sums)
        return total, sums

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            rows, columns, logit_scale, logit_bias = ctx.saved_tensors
            gradients = sigmoid_pass(rows, columns, logit_scale, logit_bias, ctx.mask, ctx.tile, True)[2]
        if gradients is None:
            raise RuntimeError("sigmoid_pass gives the gradients it is asked for")
        # In place: these are the only gradients of this size, and nobody else holds them.
        return (*(gradient.mul_(grad_outputs[0]) for gradient in gradients), None, None, None)


def sigmoid_pass(
    rows: Tensor,
    columns: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    mask: TileMask,
    tile: int,
    wanted: bool,
    d_columns: Tensor | None = None,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor, Tensor] | None]:
    """Runs over the tiles.

    Args:
        rows: (N, D).
        columns: (M, D).
        logit_scale: (1,) log of t.
        logit_bias: (1,) b, or (M,) of each column.
        mask: which pairs are positive and which count.
        tile: rows and columns of a tile.
        wanted: whether the gradients are.
        d_columns: (M, D) gradient of the columns so far, to which this one is added in place.

    Returns:
        the sum; positives, negatives, and sums of their logits (4,); and, if wanted, the gradients of the first four arguments.
    """
    dtype = rows.dtype
    scale, bias = logit_scale.detach().to(dtype).exp(), logit_bias.detach().to(dtype)
    wide = accumulator_dtype(rows.device)
    total, sums = rows.new_zeros((), dtype=wide), rows.new_zeros(4, dtype=wide)
    each = bias.ndim == 1 and len(bias) == len(columns) and len(bias) != 1
    d_bias, d_scale = torch.zeros_like(bias, dtype=wide), torch.zeros_like(total)
    d_rows = torch.zeros_like(rows) if wanted else None
    chosen = columns if mask.columns is None else columns[mask.columns]
    if d_columns is None:
        d_chosen = torch.zeros_like(chosen) if wanted else None
    else:
        d_chosen = d_columns if mask.columns is None else torch.zeros_like(chosen)
    biases = bias if not each or mask.columns is None else bias[mask.columns]
    d_biases = d_bias if biases is bias else torch.zeros_like(biases, dtype=wide)
    num_rows = len(rows) if mask.rows is None else len(mask.rows)
    for block in _slices(num_rows, tile):
        where = block if mask.rows is None else mask.rows[block]
        scaled = rows[where] * scale
        d_block = torch.zeros_like(scaled) if wanted else None
        for span in _slices(len(chosen), tile):
            signs = mask.tile(block, span)
            if signs is None:
                continue
            part = chosen[span]
            logits = torch.addmm(biases[span] if each else biases, scaled, part.T)
            singles = None if signs.cells is None else _Singles(logits, signs.cells, sums)
            _flip(logits, signs, sums)
            losses = F.softplus(logits, threshold=_LINEAR_FROM)
            if signs.weight is not None:
                losses = torch.where(signs.weight > 0, losses, 0).mul_(signs.weight)
            if singles is not None:
                losses[singles.where] = 0
                total += singles.losses.sum()
            total += losses.sum() if signs.row_weights is None else signs.row_weights.sum(losses)
            if d_block is None or d_chosen is None:
                continue
            slope = torch.sigmoid(logits, out=losses) if losses.dtype == logits.dtype else torch.sigmoid(logits)
            if signs.weight is not None:
                slope = torch.where(signs.weight > 0, slope, 0).mul_(signs.weight)
            if signs.row_weights is not None:
                signs.row_weights.weigh_(slope)
            if signs.positive is not None:
                slope = torch.where(signs.positive, -slope, slope)
            if signs.own is not None:
                slope[signs.own] = -slope[signs.own]
            if singles is not None:
                slope[singles.where] = singles.slopes
            if not each:
                d_biases += slope.sum()
            elif logit_bias.requires_grad:
                d_biases[span] += slope.sum(0)
            d_block.addmm_(slope, part)
            d_chosen[span].addmm_(slope.T, scaled)
        if d_block is not None and d_rows is not None:
            d_scale += (d_block * scaled).sum()  # d/d log t of t <x, y> is t <x, y>
            d_rows[where] = d_block.mul_(scale)
    if d_rows is None or d_chosen is None:
        return total.to(dtype), sums, None
    if mask.columns is not None:
        d_columns = torch.zeros_like(columns) if d_columns is None else d_columns
        d_columns[mask.columns] += d_chosen
        d_chosen = d_columns
    if d_biases is not d_bias and mask.columns is not None:
        d_bias[mask.columns] = d_biases
    return total.to(dtype), sums, (d_rows, d_chosen, d_scale.to(logit_scale)[None], d_bias.to(logit_bias))


class _Singles:
    """Losses and slopes of the terms that have their own label and weight; they are taken out of the logits, and added to the sums to log.

    Args:
        logits: (r, c) of the tile; 0 afterwards where the terms were.
        cells: the terms.
        sums: positives, negatives, and sums of their logits, to be added to.
    """

    def __init__(self, logits: Tensor, cells: Cells, sums: Tensor) -> None:
        self.where = (cells.row, cells.column)
        picked, label = logits[self.where], cells.label.to(logits.dtype)
        weight = cells.weight.to(logits.dtype)
        both = label * F.softplus(-picked, threshold=_LINEAR_FROM)
        both += (1 - label) * F.softplus(picked, threshold=_LINEAR_FROM)
        there = weight > 0
        self.losses = torch.where(there, both, 0).mul_(weight)
        self.slopes = torch.where(there, torch.sigmoid(picked) - label, 0).mul_(weight)
        logits[self.where] = 0
        # What `_flip` will count of the dense tile in their place: negatives whose logit is 0.
        counted = cells.instead > 0
        yes, no = torch.where(there, label, 0), torch.where(there, 1 - label, 0)
        found = (yes.sum(), no.sum() - counted.sum(), (yes * picked).sum(), (no * picked).sum())
        sums += torch.stack([widest(value) for value in found])


def _flip(logits: Tensor, signs: Tile, sums: Tensor) -> None:
    """Turns the sign of the positives' logits in place, so that every loss is a softplus, and adds the sums to log."""
    weight, runs = signs.weight, signs.row_weights
    counted = logits if weight is None else torch.where(weight > 0, logits, 0)
    everything, own = counted.sum() if runs is None else runs.sum(logits, counted=True), counted.new_zeros(())
    positives = torch.zeros((), dtype=torch.int64, device=logits.device)
    terms = logits.numel() if runs is None else runs.count
    number = positives + terms if weight is None else (weight > 0).sum()
    if signs.positive is not None:
        there = signs.positive if weight is None else signs.positive & (weight > 0)
        own, positives = torch.where(there, logits, 0).sum(), there.sum()
        logits.copy_(torch.where(signs.positive, -logits, logits))
    if signs.own is not None and len(signs.own[0]):
        picked = logits[signs.own]
        there = torch.ones_like(picked, dtype=torch.bool) if weight is None else weight[signs.own] > 0
        own, positives = own + torch.where(there, picked, 0).sum(), positives + there.sum()
        logits[signs.own] = -picked
    sums += torch.stack([widest(value) for value in (positives, number - positives, own, everything - own)])


@torch.no_grad()
def dot_moments(rows: Tensor, columns: Tensor, mask: TileMask, tile: int = TILE) -> Tensor:
    """Computes number, sum and sum of squares of the dot products of positives, and of negatives.

    Returns:
        (2, 3) in the accumulator type of the device: float64 where it has one.
    """
    moments = rows.new_zeros(2, 3, dtype=accumulator_dtype(rows.device))
    chosen = columns if mask.columns is None else columns[mask.columns]
    for block in _slices(len(rows) if mask.rows is None else len(mask.rows), tile):
        some = rows[block if mask.rows is None else mask.rows[block]]
        for span in _slices(len(chosen), tile):
            signs = mask.tile(block, span)
            if signs is None:
                continue
            if signs.cells is not None or signs.row_weights is not None:
                raise ValueError(
                    "the moments of positives and negatives are those of masks without cells and row weights"
                )
            dots = widest(some @ chosen[span].T)
            positive = torch.zeros_like(dots, dtype=torch.bool) if signs.positive is None else signs.positive.clone()
            if signs.own is not None:
                positive[signs.own] = True
            counts = torch.ones_like(positive) if signs.weight is None else signs.weight > 0
            for index, where in enumerate((positive & counts, ~positive & counts)):
                picked = torch.where(where, dots, 0)
                moments[index] += torch.stack((widest(where.sum()), picked.sum(), picked.square().sum()))
    return moments


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(begin, min(begin + size, length)) for begin in range(0, length, size))
