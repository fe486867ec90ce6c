"""How far a run is: steps of its processes, added up so that no clip counts twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from peav.engine.job import Part

#: Is told how many clips were worked off, and how many tokens models wrote for them.
Tell = Callable[[int, int], None]

#: From the number of clips of a run to what shows how far it is.
Progress = Callable[[int], AbstractContextManager[Tell]]


@dataclass(frozen=True)
class Step:
    """What a process says of its work on a part.

    Attributes:
        part: its name.
        clips: that were worked off since the last step.
        tokens: that models wrote for them.
        whole: whether the part is done, by whomever.
    """

    part: str
    clips: int = 0
    tokens: int = 0
    whole: bool = False


class Tally:
    """Adds up the steps of all processes of a run: each of them says of every part when it is whole.

    Args:
        parts: of the job.
        tell: is told what is new.

    >>> told = []
    >>> tally = Tally([Part("train", 0, 0, 10)], lambda clips, tokens: told.append((clips, tokens)))
    >>> for step in (Step("train-000000", 4, 70), Step("train-000000", whole=True), Step("train-000000", whole=True)):
    ...     tally(step)
    >>> told
    [(4, 70), (6, 0)]
    """

    def __init__(self, parts: Sequence[Part], tell: Tell) -> None:
        self._counts = {part.name: part.count for part in parts}
        self._done: Counter[str] = Counter()
        self._tell = tell

    def __call__(self, step: Step) -> None:
        """Takes a step."""
        left = self._counts[step.part] - self._done[step.part]
        clips = left if step.whole else min(step.clips, left)
        self._done[step.part] += clips
        if clips or step.tokens:
            self._tell(clips, step.tokens)
