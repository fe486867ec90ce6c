"""What the answers of raters say: shares with their intervals, agreement, and the clips that lost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from peav.engine.ab.files import Answers, Key, Pair
from peav.engine.ab.statistics import CONFIDENCE, equal_pairs, krippendorff_alpha, wilson

#: What can be said of the new caption of a clip; `divided` where no answer has more than half of the raters.
VERDICTS = ("better", "same", "worse", "divided")

#: The name of the row of all raters together.
MAJORITY = "majority"


@dataclass(frozen=True)
class Tally:
    """Verdicts on the clips, of a rater or of the majority.

    Attributes:
        verdicts: of each clip, one of `VERDICTS`.
    """

    verdicts: tuple[str, ...]

    def count(self, verdict: str) -> int:
        """Returns how many clips have a verdict."""
        return self.verdicts.count(verdict)

    @property
    def preferred(self) -> tuple[int, int]:
        """How many clips the new caption won, and of how many one caption won."""
        return self.count("better"), self.count("better") + self.count("worse")

    def to_json(self) -> dict[str, Any]:
        """Returns numbers, shares and intervals."""
        total = len(self.verdicts)
        shown = [verdict for verdict in VERDICTS if verdict != "divided" or self.count(verdict)]
        data: dict[str, Any] = {verdict: _share(self.count(verdict), total) for verdict in shown}
        won, decided = self.preferred
        data["better_of_decided"] = _share(won, decided) if decided else None
        return data


@dataclass(frozen=True)
class Score:
    """The outcome of a test.

    Attributes:
        key: of its page.
        raters: verdicts by the name of the rater.
        majority: what more than half of the raters say of each clip; with one rater, what that one says.
        agreement: the share of equal pairs of answers, None for one rater.
        alpha: Krippendorff's, None for one rater or where it is not defined.
        left: how often the text that stood first was preferred, and of how many preferences.
    """

    key: Key
    raters: dict[str, Tally]
    majority: Tally
    agreement: float | None
    alpha: float | None
    left: tuple[int, int]

    @property
    def tallies(self) -> list[tuple[str, Tally]]:
        """The rows of the table: of raters, one of whom may be called as the last row is, and of the majority of several."""
        rows = list(self.raters.items())
        return rows if len(rows) == 1 else [*rows, (MAJORITY, self.majority)]

    def lost(self) -> Iterator[tuple[Pair, dict[str, str]]]:
        """Yields the clips whose new caption is worse to the majority, and what each rater said."""
        for place, (pair, verdict) in enumerate(zip(self.key.pairs, self.majority.verdicts, strict=True)):
            if verdict == "worse":
                yield pair, {name: tally.verdicts[place] for name, tally in self.raters.items()}

    def to_json(self) -> dict[str, Any]:
        """Returns the outcome as JSON data."""
        return {
            "old": self.key.old,
            "new": self.key.new,
            "type": self.key.kind,
            "split": self.key.split,
            "seed": self.key.seed,
            "page": self.key.page,
            "clips": len(self.key.pairs),
            "asked": self.key.asked,
            "left_out": dict(self.key.left_out),
            "interval": {
                "method": "Wilson",
                "confidence": CONFIDENCE,
                "half_width_at_one_half": half_width(len(self.key.pairs)),
            },
            "raters": {name: tally.to_json() for name, tally in self.raters.items()},
            MAJORITY: self.majority.to_json(),
            "agreement": {"equal_pairs": self.agreement, "krippendorff_alpha": self.alpha},
            "first_text_preferred": {"count": self.left[0], "of": self.left[1]},
            "lost": [
                {"clip": pair.clip, "old": pair.old, "new": pair.new, "verdicts": said} for pair, said in self.lost()
            ],
        }


def score(key: Key, answers: Sequence[Answers]) -> Score:
    """Counts what raters answered.

    Args:
        key: of the page.
        answers: of at least one rater.

    Raises:
        ValueError: if there are no answers.
    """
    if not answers:
        raise ValueError("give the answers of a rater or several: peav ab score KEY ANSWERS...")
    raters = {
        one.rater: Tally(tuple(pair.judged(choice) for pair, choice in zip(key.pairs, one.choices, strict=True)))
        for one in answers
    }
    units = list(zip(*(tally.verdicts for tally in raters.values()), strict=True))
    majority = Tally(tuple(majority_of(unit) for unit in units))
    choices = Counter(choice for one in answers for choice in one.choices)
    several = len(raters) > 1
    return Score(
        key,
        raters,
        majority,
        equal_pairs(units) if several else None,
        krippendorff_alpha(units) if several else None,
        (choices["A"], choices["A"] + choices["B"]),
    )


def majority_of(verdicts: Sequence[str]) -> str:
    """Returns the verdict of more than half of the raters, or `divided`.

    >>> majority_of(["better", "better", "worse"]), majority_of(["better", "worse"])
    ('better', 'divided')
    """
    verdict, count = Counter(verdicts).most_common(1)[0]
    return verdict if 2 * count > len(verdicts) else "divided"


def half_width(clips: int) -> float:
    """Returns how far the interval of a share of one half reaches to either side.

    >>> round(half_width(1), 3), round(half_width(50), 3), round(half_width(400), 3)
    (0.445, 0.134, 0.049)
    """
    # Wilson's formula at one half.
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    return z / (2 * math.sqrt(clips + z * z))


def _share(count: int, total: int) -> dict[str, Any]:
    return {"count": count, "of": total, "share": count / total, "interval": list(wilson(count, total))}
