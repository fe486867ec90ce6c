"""How sure a share of a few clips is, and how far raters agree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import NormalDist

#: What intervals cover.
CONFIDENCE = 0.95


def wilson(count: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Finds the interval of a share by Wilson's score (Wilson 1927, JASA 22, 209-212); it stays right near 0 and 1 and for few trials.

    Args:
        count: trials that came out so.
        total: trials, at least one.
        confidence: in (0, 1).

    Returns:
        lower and upper end, in [0, 1].

    Raises:
        ValueError: if `count` is not from 0 to `total`, or there is no trial.

    >>> [round(end, 3) for end in wilson(25, 50)]
    [0.366, 0.634]
    """
    if not 0 <= count <= total or total < 1:
        raise ValueError(f"the count must be from 0 to the total, which is at least 1; got {count} of {total}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, weight = count / total, z * z / total
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    # At the ends the formula gives exactly 0 and 1, but for rounding.
    return (0.0 if count == 0 else middle - half, 1.0 if count == total else middle + half)


def equal_pairs(units: Iterable[Sequence[str]]) -> float | None:
    """Returns which share of all pairs of answers to one clip are equal; None where no clip has two answers.

    Args:
        units: the answers to each clip.

    >>> equal_pairs([["A", "A"], ["A", "B"]]), equal_pairs([["A"]])
    (0.5, None)
    """
    pairs = equal = 0
    for unit in units:
        pairs += len(unit) * (len(unit) - 1)
        equal += sum(count * (count - 1) for count in Counter(unit).values())
    return equal / pairs if pairs else None


def krippendorff_alpha(units: Iterable[Sequence[str]]) -> float | None:
    """Computes Krippendorff's alpha of answers without an order: 1 is full agreement, 0 what chance gives.

    Source: Krippendorff 2011, "Computing Krippendorff's alpha-reliability".

    Args:
        units: the answers to each clip; those with fewer than two do not count.

    Returns:
        alpha, at most 1; None where it is not defined: no clip has two answers, or all answers are the same one.

    >>> krippendorff_alpha([["A", "A"], ["B", "B"], ["A", "B"]])
    0.4444444444444444
    """
    held = [unit for unit in units if len(unit) > 1]
    values = Counter(value for unit in held for value in unit)
    total = sum(values.values())
    expected = total * total - sum(count * count for count in values.values())
    if not expected:
        return None
    observed = sum(
        (len(unit) ** 2 - sum(count * count for count in Counter(unit).values())) / (len(unit) - 1) for unit in held
    )
    return 1 - (total - 1) * observed / expected
