"""What a search finds: files as cards, with the moments in them."""

from __future__ import annotations

from dataclasses import dataclass

from peav.search.catalog import FileEntry
from peav.search.terms import Mode
from peav.types import Seconds


@dataclass(frozen=True)
class Moment:
    """A part of a file that fits.

    Attributes:
        window: the number of its best window, by which "more like this" asks.
        start: where it begins, seconds.
        seconds: how long it lasts; 0 of a picture.
        score: of the window.
        begin: where what was asked for begins, as the frames say; None where no frames were asked, or none say so.
        end: where it ends.
        frame_score: mean probability of these frames.
    """

    window: int
    start: Seconds
    seconds: Seconds
    score: float
    begin: Seconds | None = None
    end: Seconds | None = None
    frame_score: float | None = None


@dataclass(frozen=True)
class Card:
    """A file that was found.

    Attributes:
        file: what is known of it.
        score: of its best window: the inner product, or of several terms the weighted sum of their standard scores over the windows
            drawn from the index.
        match: probability that the text fits, as the model was trained with its loss; None where it has no scale and bias for the pair.
            The smallest, of several texts.
        moments: its best first.
        duplicates: files that are nearly the same, which are not shown.
    """

    file: FileEntry
    score: float
    match: float | None
    moments: list[Moment]
    duplicates: list[str]


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        cards: files, the best first.
        fits: whether the best of them fits; None where the model cannot say.
        mode: what was compared.
        searched: windows that the filters left.
        by_sum: whether scores are sums of standard scores, of several terms, and not inner products.
    """

    cards: list[Card]
    fits: bool | None
    mode: Mode
    searched: int
    by_sum: bool
