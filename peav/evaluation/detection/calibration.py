"""Whether a probability of 0.7 is right seven times of ten: expected calibration error and Brier score over frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from peav.evaluation.detection.clips import Bools, Floats


@dataclass(frozen=True)
class Calibration:
    """Calibration of probabilities.

    Attributes:
        ece: expected calibration error (Guo et al., ICML 2017): mean over all frames of the distance between their bin's share of active
            frames and its mean probability; None without frames.
        brier: mean squared distance of probability and truth (Brier, 1950); None without frames.
        count: (N,) frames in each bin.
        probability: (N,) their mean probability, NaN in an empty bin.
        active: (N,) their share of active frames, NaN in an empty bin.
    """

    ece: float | None
    brier: float | None
    count: Floats
    probability: Floats
    active: Floats


def calibration_sums(probabilities: Floats, labels: Floats | Bools, num_bins: int = 15) -> Floats:
    """Adds up what calibration needs; sums of parts of the data may be added.

    Args:
        probabilities: any shape, in [0, 1]. Bins are of equal width; 1 belongs to the last.
        labels: the same shape: bool, or soft in [0, 1].
        num_bins: N.

    Returns:
        (4, N): frames, their probabilities, labels and squared distances.

    Raises:
        ValueError: if a probability lies outside [0, 1] or shapes differ.
    """
    p, y = np.asarray(probabilities, dtype=np.float64).ravel(), np.asarray(labels, dtype=np.float64).ravel()
    if p.shape != y.shape:
        raise ValueError(f"expected a label for each probability, got {np.shape(labels)} for {np.shape(probabilities)}")
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, not {num_bins}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]; logits become so by a sigmoid")
    place = np.minimum((p * num_bins).astype(np.int64), num_bins - 1)
    return np.stack([np.bincount(place, value, minlength=num_bins) for value in (np.ones_like(p), p, y, (p - y) ** 2)])


def calibration_sums_by_label(probabilities: Floats, labels: Floats | Bools, num_bins: int = 15) -> Floats:
    """Adds up what the calibration of each label needs.

    Args:
        probabilities: (T, L), in [0, 1].
        labels: the same shape: bool, or soft in [0, 1].
        num_bins: N.

    Returns:
        (L, 4, N), `calibration_sums` of each label.
    """
    return np.stack([calibration_sums(p, y, num_bins) for p, y in zip(probabilities.T, labels.T, strict=True)])


def calibration(sums: Floats) -> Calibration:
    """Computes calibration from `calibration_sums`.

    >>> found = calibration(calibration_sums(np.array([0.9, 0.9, 0.1, 0.1]), np.array([1, 1, 0, 1]), num_bins=10))
    >>> round(found.ece, 6), round(found.brier, 6)
    (0.25, 0.21)
    """
    count, probability, active, squares = sums
    total = count.sum()
    with np.errstate(invalid="ignore"):
        mean, share = probability / count, active / count
    if not total:
        return Calibration(None, None, count, mean, share)
    ece = float(np.abs(probability - active).sum() / total)
    return Calibration(ece, float(squares.sum() / total), count, mean, share)
