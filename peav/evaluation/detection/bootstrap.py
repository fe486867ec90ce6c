"""Intervals of metrics by resampling clips (Efron, 1979), and of the difference of two models on the same clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from peav.evaluation.detection.clips import Floats

#: From how often each clip counts, (A,), to the metric; None where the metric is not defined.
Statistic = Callable[[Floats], float | None]


@dataclass(frozen=True)
class Interval:
    """A value and where it lies.

    Attributes:
        value: on the clips as they are.
        low: lower end of the interval.
        high: upper end.
        p_value: two-sided, against a value of 0; meant for differences.
        num_resamples: with a defined value.
    """

    value: float
    low: float
    high: float
    p_value: float
    num_resamples: int


def bootstrap(
    statistic: Statistic, num_clips: int, num_resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Finds the percentile interval of a metric over clips that are drawn anew, with replacement.

    Args:
        statistic: for example `lambda w: f1_of_counts(np.tensordot(w, counts, 1)).macro` with `clip_counts`, or
            `lambda w: psds_counts.score(w).value` with `PSDCounts.of(clips, PSDS1)`.
        num_clips: A.
        num_resamples: how often; resamples in which the metric is not defined are left out.
        confidence: in (0, 1).
        seed: of the draws.

    Raises:
        ValueError: if a number is out of range or the metric is not defined on the clips as they are.

    >>> values = np.array([1.0, 2.0, 3.0, 4.0])
    >>> found = bootstrap(lambda w: float(w @ values / w.sum()), 4)
    >>> found.value, found.low < 2.0 < 3.0 < found.high
    (2.5, True)
    """
    if num_clips < 1 or num_resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"num_clips and num_resamples must be positive and confidence in (0, 1), "
            f"got {num_clips}, {num_resamples} and {confidence}"
        )
    value = statistic(np.ones(num_clips))
    if value is None:
        raise ValueError("the metric is not defined on these clips: there is no interval")
    rng = np.random.default_rng(seed)
    share = np.full(num_clips, 1 / num_clips)
    drawn = (statistic(rng.multinomial(num_clips, share).astype(np.float64)) for _ in range(num_resamples))
    found = np.array([one for one in drawn if one is not None])
    if not len(found):
        raise ValueError("the metric is defined in no resample: there are too few clips that hold events")
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    below, above = int((found <= 0).sum()), int((found >= 0).sum())
    p_value = min(1.0, 2 * (min(below, above) + 1) / (len(found) + 1))
    return Interval(value, float(low), float(high), p_value, len(found))


def paired_bootstrap(
    first: Statistic,
    second: Statistic,
    num_clips: int,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Finds the interval of `second` minus `first`, two models on the same clips: each resample draws the same clips for both."""

    def difference(weights: Floats) -> float | None:
        before, after = first(weights), second(weights)
        return None if before is None or after is None else after - before

    return bootstrap(difference, num_clips, num_resamples, confidence, seed)
