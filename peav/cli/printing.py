"""How commands say numbers."""

from __future__ import annotations

from collections.abc import Mapping


def counts(numbers: Mapping[str, int]) -> str:
    """Joins numbers and what they count.

    >>> counts({"train": 1280, "test": 160})
    '1280 train, 160 test'
    """
    return ", ".join(f"{number} {name}" for name, number in numbers.items())
