"""Which of several names was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(name: str, choices: Iterable[str]) -> str:
    """Returns the choices as a sentence, with a "did you mean" when one of them is close.

    >>> suggest("SegmentPear", ["SegmentPair", "CaptionPair"])
    "Did you mean 'SegmentPair'? Choices: CaptionPair, SegmentPair."
    >>> suggest("x", [])
    'There are no choices.'
    """
    known = sorted(choices)
    if not known:
        return "There are no choices."
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Choices: {', '.join(known)}."
