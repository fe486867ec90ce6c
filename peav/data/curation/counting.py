"""Counting what is too much to hold as objects: identities in columns, frequent texts, and labels with their hours."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peav.types import Seconds

#: Where labels beyond the limit are counted.
OTHER_LABELS = "(other)"

_MERGE_AT = 1 << 18


@dataclass(frozen=True)
class Share:
    """What belongs to a label: clips and hours."""

    clips: int
    hours: float


@dataclass(frozen=True)
class Repeats:
    """What occurs more than once.

    Attributes:
        distinct: how many different things do.
        occurrences: how often they do, all together.
    """

    distinct: int
    occurrences: int


class GroupCounts:
    """How often each identity occurred: exact, 16 bytes a distinct one.

    >>> counts = GroupCounts()
    >>> for group in (7, 5, 7, 7, 5, 9):
    ...     counts.add(group)
    >>> counts.distinct, counts.repeats(), counts.top(1)
    (3, Repeats(distinct=2, occurrences=5), [(7, 3)])
    """

    def __init__(self) -> None:
        self._pending = array("q")
        self._groups: NDArray[np.int64] = np.zeros(0, np.int64)
        self._counts: NDArray[np.int64] = np.zeros(0, np.int64)

    def add(self, group: int) -> None:
        """Counts an occurrence."""
        self._pending.append(group)
        if len(self._pending) >= max(_MERGE_AT, len(self._groups) // 2):
            self._merge()

    @property
    def distinct(self) -> int:
        """How many identities occurred."""
        self._merge()
        return len(self._groups)

    def repeats(self) -> Repeats:
        """Returns those that occurred more than once."""
        self._merge()
        repeated = self._counts > 1
        return Repeats(int(repeated.sum()), int(self._counts[repeated].sum()))

    def top(self, number: int, minimum: int = 1) -> list[tuple[int, int]]:
        """Returns the most frequent identities and how often they occurred, at least `minimum` times."""
        self._merge()
        order = np.lexsort((self._groups, -self._counts))[:number]
        found = zip(self._groups[order].tolist(), self._counts[order].tolist(), strict=True)
        return [(group, count) for group, count in found if count >= minimum]

    def _merge(self) -> None:
        if not self._pending:
            return
        new, new_counts = np.unique(np.frombuffer(self._pending, np.int64), return_counts=True)
        groups, place = np.unique(np.concatenate([self._groups, new]), return_inverse=True)
        counts = np.zeros(len(groups), np.int64)
        counts[place[: len(self._groups)]] = self._counts
        counts[place[len(self._groups) :]] += new_counts
        self._groups, self._counts, self._pending = groups, counts, array("q")


class FrequentTexts:
    """Remembers the texts of frequent identities in bounded memory, after Misra and Gries (1982).

    Every identity with more than a share of 2 / `limit` of all occurrences is among them, and all of them while there are no more
    than `limit`. How often they occurred `GroupCounts` knows.

    Args:
        limit: texts that are held.
    """

    def __init__(self, limit: int = 100_000) -> None:
        self.limit = limit
        self._texts: dict[int, str] = {}
        self._weights: dict[int, int] = {}

    def add(self, group: int, text: str) -> None:
        """Counts an occurrence of a text."""
        if group in self._weights:
            self._weights[group] += 1
            return
        self._weights[group], self._texts[group] = 1, text
        if len(self._weights) > self.limit:
            weight = sorted(self._weights.values(), reverse=True)[self.limit // 2]
            self._weights = {key: value - weight for key, value in self._weights.items() if value > weight}
            self._texts = {key: self._texts[key] for key in self._weights}

    def get(self, group: int) -> str | None:
        """Returns the text of an identity as it was first seen, or None when it was too rare to be held."""
        return self._texts.get(group)


class LabelCounts:
    """Clips and hours by label; beyond `limit` labels the rest is counted together."""

    def __init__(self, limit: int = 1000) -> None:
        self.limit = limit
        self._shares: dict[str, list[float]] = {}

    def add(self, label: str, seconds: Seconds) -> None:
        """Counts a clip."""
        if label not in self._shares and len(self._shares) >= self.limit:
            label = OTHER_LABELS
        share = self._shares.setdefault(label, [0, 0.0])
        share[0] += 1
        share[1] += seconds

    def shares(self) -> dict[str, Share]:
        """Returns what belongs to each label, the most hours first."""
        ordered = sorted(self._shares.items(), key=lambda item: (-item[1][1], item[0]))
        return {label: Share(int(clips), seconds / 3600) for label, (clips, seconds) in ordered}
