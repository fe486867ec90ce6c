"""Confidence as a word: low, medium or high, by where a score lies among those of a calibration sample.

Raw scores of models that compare media and texts differ by medium and by captioner, so no threshold is right for all (the paper,
arXiv 2512.19687, gives its language model the words, not the numbers; a number in a prompt returns in captions).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: From the least sure to the surest.
WORDS = ("low", "medium", "high")


def edges(scores: Sequence[float]) -> list[float]:
    """Returns the scores at which medium and high begin: those of a third and of two thirds of the sample.

    Args:
        scores: of the sample, at least one.

    >>> edges([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    [2.0, 4.0]
    """
    return [float(edge) for edge in np.quantile(np.asarray(scores, np.float64), [1 / 3, 2 / 3])]


def word_of(score: float, known: Sequence[float]) -> str:
    """Returns the confidence word of a score.

    Args:
        score: of a clip.
        known: what :func:`edges` returned.

    >>> [word_of(score, [2.0, 4.0]) for score in (1.0, 2.0, 4.0)]
    ['low', 'medium', 'high']
    """
    return WORDS[sum(score >= edge for edge in known)]
