"""Which phrases are related: ancestors and descendants in a hierarchy of labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

#: Stands for no key in a lineage.
NO_KEY = -1


def ancestor_pairs(lineage: Indices, place: Indices) -> tuple[Indices, Indices]:
    """Finds all pairs of a phrase and one of its ancestors.

    A phrase is another's ancestor if the key of its own text or label id is in the other's lineage; two that share a key of their own,
    as synonyms do, are each other's. A circle in a hierarchy makes all that are on it each other's, too.

    Args:
        lineage: (K, A) keys; columns 0 and 1 are the phrase's own. -1 where there is none.
        place: (K,) which phrase a row is of; what several rows say is united. -1 for rows that do not count.

    Returns:
        the ancestors and their descendants, in pairs, none twice and no phrase its own.

    >>> ancestor_pairs(np.array([[1, 11, -1], [2, 12, 11], [3, -1, 11]]), np.array([0, 1, 2]))
    (array([0, 0]), array([1, 2]))
    """
    rows, columns = np.nonzero((lineage != NO_KEY) & (place >= 0)[:, None])
    key, phrase = lineage[rows, columns], place[rows]
    own = columns < 2
    order = np.argsort(key[own], kind="stable")
    own_key, own_phrase = key[own][order], phrase[own][order]
    first, last = np.searchsorted(own_key, key, "left"), np.searchsorted(own_key, key, "right")
    ancestor, descendant = own_phrase[spans(first, last)], np.repeat(phrase, last - first)
    other = ancestor != descendant
    pairs = np.unique(np.stack((ancestor[other], descendant[other])), axis=1)
    return pairs[0], pairs[1]


def spans(first: Indices, last: Indices) -> Indices:
    """Returns the whole numbers from each `first` up to its `last`, one span after the other.

    >>> spans(np.array([2, 7, 5]), np.array([4, 7, 6]))
    array([2, 3, 5])
    """
    lengths = last - first
    ends = lengths.cumsum()
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(first - ends + lengths, lengths)
