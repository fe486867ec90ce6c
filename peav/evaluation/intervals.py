"""Intervals of shares of queries by resampling clips: captions of one clip, or of one class, are no independent trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Numbers drawn at a time: 32 MB.
_DRAWN_AT_ONCE = 1 << 22

#: How an interval is made unless something else is asked for: how often clips are drawn, what it covers, and the seed of the draws.
RESAMPLES, CONFIDENCE, SEED = 1000, 0.95, 0

#: The same, for results.
HOW = {"resamples": RESAMPLES, "confidence": CONFIDENCE, "seed": SEED, "of": "clips, with replacement"}


@dataclass(frozen=True)
class Queries:
    """What became of the queries of a task.

    Attributes:
        clips: (Q,) int64, the clip of each query.
        ranks: (Q,) int64, of its best right candidate by plain scores, from 1; 0 where there is none.
        dual_ranks: (Q,) int64, likewise after the dual softmax.
    """

    clips: NDArray[np.int64]
    ranks: NDArray[np.int64]
    dual_ranks: NDArray[np.int64]

    def hits(self, k: int, dual_softmax: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns (C,) hits in the top k and (C,) queries that count, of each clip by number."""
        ranks = self.dual_ranks if dual_softmax else self.ranks
        counted = ranks > 0
        size = int(self.clips.max()) + 1 if len(self.clips) else 0
        hits = np.bincount(self.clips[counted & (ranks <= k)], minlength=size)
        return hits.astype(np.float64), np.bincount(self.clips[counted], minlength=size).astype(np.float64)


def share_intervals(
    shares: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    num_resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
) -> dict[str, list[float]]:
    """Finds the percentile intervals of shares, all over the same draws of clips.

    Args:
        shares: by name (C,) hits and (C,) trials of each clip, of which the share is the sum of the ones over that of the others.
        num_resamples: how often.
        confidence: in (0, 1).
        seed: of the draws.

    Returns:
        lower and upper end by name.

    >>> hits, trials = np.array([1.0, 0.0, 1.0, 1.0]), np.ones(4)
    >>> low, high = share_intervals({"R@1": (hits, trials)})["R@1"]
    >>> low < 0.75 <= high
    True
    """
    if not shares:
        return {}
    found = _resampled(shares, num_resamples, seed)
    low, high = np.nanquantile(found, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(shares)}


def paired_interval(
    first: tuple[NDArray[np.float64], NDArray[np.float64]],
    second: tuple[NDArray[np.float64], NDArray[np.float64]],
    num_resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
) -> tuple[float, float, float, float]:
    """Finds the interval of `second` minus `first` on the same clips: each draw takes the same clips for both.

    Returns:
        the difference, the ends of its interval, and the two-sided p-value against none.
    """
    value = second[0].sum() / second[1].sum() - first[0].sum() / first[1].sum()
    found = _resampled({"first": first, "second": second}, num_resamples, seed)
    differences = (found[:, 1] - found[:, 0])[~np.isnan(found).any(1)]
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return float(value), float(low), float(high), min(1.0, 2 * (tail + 1) / (len(differences) + 1))


def _resampled(
    shares: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], num_resamples: int, seed: int
) -> NDArray[np.float64]:
    """Returns (R, S) the shares in each resample; NaN where it holds no trial."""
    size = max(len(hits) for hits, _ in shares.values())
    hits = np.zeros((size, len(shares)))
    trials = np.zeros((size, len(shares)))
    for column, (hit, trial) in enumerate(shares.values()):
        hits[: len(hit), column], trials[: len(trial), column] = hit, trial
    used = trials.any(1)
    hits, trials = hits[used], trials[used]
    rng, rows = np.random.default_rng(seed), []
    step = max(1, _DRAWN_AT_ONCE // max(1, len(hits)))
    even = np.full(len(hits), 1 / max(1, len(hits)))
    for start in range(0, num_resamples, step):
        weights = rng.multinomial(len(hits), even, size=min(step, num_resamples - start)).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            rows.append((weights @ hits) / (weights @ trials))
    return np.concatenate(rows)
