"""Words of a text, as gates and reports count them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def words_of(text: str) -> list[str]:
    """Returns the words of a text in lower case, without marks.

    >>> words_of("A dog's bark, then -- rain!")
    ['a', "dog's", 'bark', 'then', 'rain']
    """
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def longest_common_run(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """Returns the longest run of words that two texts have in common.

    >>> longest_common_run("he says open the door now".split(), "please open the door".split())
    ['open', 'the', 'door']
    """
    best, end = 0, 0
    lengths = [0] * (len(right) + 1)
    for place, word in enumerate(left, start=1):
        before = 0
        for other, candidate in enumerate(right, start=1):
            before, lengths[other] = lengths[other], before + 1 if word == candidate else 0
            if lengths[other] > best:
                best, end = lengths[other], place
    return list(left[end - best : end])
