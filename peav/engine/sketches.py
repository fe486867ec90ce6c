"""Counts of what may take any number of values, in bounded memory: how many there are, and which are the most frequent."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from peav.data.manifests.identities import bytes_group

#: Identities are spread evenly over so many numbers.
_NUMBERS = 2**63


class DistinctCount:
    """Counts different texts: exactly up to a bound, and beyond it by an estimate that the least identities give.

    With k values kept, of n different ones, the k-th least identity lies near k / n of the way; the estimate's relative standard error is
    1 / sqrt(k - 2) (k minimum values: Bar-Yossef et al. 2002; Beyer et al. 2007): 0.4 % for 65,536.

    Args:
        bound: values that are kept.

    >>> held = DistinctCount(bound=4)
    >>> for text in ["a", "dog", "a", "barks"]:
    ...     held.add(text)
    >>> len(held), held.exact
    (3, True)
    """

    def __init__(self, bound: int = 1 << 16) -> None:
        self._bound = bound
        self._least: set[int] = set()
        self._limit = _NUMBERS

    def add(self, text: str) -> None:
        """Counts a text."""
        number = _number(text)
        if number < self._limit:
            self._least.add(number)
            if len(self._least) >= self._bound + self._bound // 4 + 1:
                self._cut()

    def _cut(self) -> None:
        kept = sorted(self._least)[: self._bound]
        self._least, self._limit = set(kept), kept[-1] + 1

    @property
    def exact(self) -> bool:
        """Whether no more values were seen than are kept."""
        return self._limit == _NUMBERS and len(self._least) <= self._bound

    def __len__(self) -> int:
        if self.exact:
            return len(self._least)
        self._cut()
        return round((self._bound - 1) * _NUMBERS / self._limit)


class FrequentItems:
    """Counts texts, of which it keeps the most frequent: no count is too high, and none too low by more than a share of 1 / bound of all.

    It is Misra and Gries' summary (1982) with the reduction of Agarwal et al. (2012): when twice as many texts are held as are kept, the
    count of the first that is not kept is taken off all of them. A text with more than 1 / bound of all counts is always held.

    Args:
        bound: texts that are kept.

    >>> held = FrequentItems(bound=2)
    >>> for text in "abacadaeaf":
    ...     held.add(text)
    >>> held.most_common(1), held.missed
    ([('a', 4)], 1)
    """

    def __init__(self, bound: int = 10_000) -> None:
        self._bound = bound
        self._counts: Counter[str] = Counter()
        #: The most by which a count is too low.
        self.missed = 0

    def add(self, text: str) -> None:
        """Counts a text."""
        self._counts[text] += 1
        if len(self._counts) >= 2 * self._bound:
            less = sorted(self._counts.values(), reverse=True)[self._bound]
            self._counts = Counter({text: count - less for text, count in self._counts.items() if count > less})
            self.missed += less

    def count(self, text: str) -> int:
        """Returns how often a text was counted; 0 of one that is not held."""
        return self._counts[text]

    def most_common(self, number: int) -> list[tuple[str, int]]:
        """Returns the most frequent texts with their counts, the most frequent first."""
        return self._counts.most_common(number)


@lru_cache(maxsize=1 << 16)
def _number(text: str) -> int:
    return bytes_group(text.encode("utf-8", "surrogatepass"))
