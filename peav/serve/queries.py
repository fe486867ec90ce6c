"""From what the page asks to a search, and from what was found to what the page shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from starlette.datastructures import QueryParams

from peav.search.catalog import FileEntry, Kind
from peav.search.filters import Filters
from peav.search.found import Card, Found, Moment
from peav.search.terms import Example, Mode

#: Files on a page, and moments of each, at most.
MOST_CARDS, MOST_MOMENTS = 100, 20
#: Terms of a query at most: words, examples and windows.
_MOST_TERMS = 16

_TEXTS = ("folder", "after", "before", "domain", "name", "transcript")


@dataclass(frozen=True)
class Query:
    """What the page asks.

    Attributes:
        text: words that are sought.
        negative: words for what must not fit.
        examples: names of examples that were uploaded.
        entries: numbers of windows.
        mode: what is compared; None for what fits.
        filters: which files may be found.
        top: files at most.
        moments: of each at most.
        fold: whether what is nearly the same is folded.
    """

    text: Sequence[str]
    negative: Sequence[str]
    examples: Sequence[str]
    entries: Sequence[int]
    mode: Mode | None
    filters: Filters
    top: int
    moments: int
    fold: bool

    @classmethod
    def parse(cls, given: QueryParams, most_characters: int) -> Query:
        """Reads a query from an address.

        Raises:
            ValueError: if something is out of range, with what.
        """
        if sum(len(value) for _, value in given.multi_items()) > most_characters:
            raise ValueError(f"the query is too long: all its words may have {most_characters:,} characters together")
        texts, negative = ([one for one in given.getlist(key) if one.strip()] for key in ("q", "not"))
        entries = [_number("entry", value) for value in given.getlist("entry")]
        examples = given.getlist("like")
        if len(texts) + len(negative) + len(entries) + len(examples) > _MOST_TERMS:
            raise ValueError(f"a query may have {_MOST_TERMS} terms, not more")
        mode = given.get("mode") or None
        filters: dict[str, Any] = {name: given[name] for name in _TEXTS if given.get(name, "").strip()}
        if given.get("kind"):
            filters["kind"] = given["kind"]
        for name in ("min_seconds", "max_seconds"):
            if given.get(name):
                filters[name] = _decimal(name, given[name])
        return cls(
            texts,
            negative,
            examples,
            entries,
            cast(Mode | None, mode),
            Filters(**filters),
            _within("top", given.get("top", "20"), MOST_CARDS),
            _within("moments", given.get("moments", "5"), MOST_MOMENTS),
            given.get("fold", "1") != "0",
        )

    def arguments(self, example: Callable[[str], Example]) -> dict[str, Any]:
        """Returns what `Index.search` takes.

        Args:
            example: returns what was uploaded, by its name.
        """
        return {
            "text": list(self.text),
            "negative": list(self.negative),
            "like": [example(name) for name in self.examples],
            "entry": list(self.entries),
            "mode": self.mode,
            "filters": self.filters,
            "top": self.top,
            "moments": self.moments,
            "fold": self.fold,
        }


def shown(found: Found, full_paths: bool) -> dict[str, Any]:
    """Returns what was found as the page shows it.

    Args:
        found: what was found.
        full_paths: whether it may say where files lie on this machine.
    """
    return {
        "cards": [_card(card, full_paths) for card in found.cards],
        "fits": found.fits,
        "mode": found.mode,
        "searched": found.searched,
        "by_sum": found.by_sum,
    }


def place(path: str, root: str) -> str:
    """Returns where a file lies, from the folder on that was named.

    >>> place("/home/me/films/a/b.mp4", "/home/me/films"), place("/home/me/b.mp4", "/home/me/b.mp4")
    ('films/a/b.mp4', 'b.mp4')
    """
    inside = os.path.relpath(path, root)
    top = os.path.basename(root)
    return top if inside == "." else os.path.join(top, inside) if not inside.startswith("..") else Path(path).name


def _card(card: Card, full: bool) -> dict[str, Any]:
    return {
        "file": shown_file(card.file, full),
        "score": card.score,
        "match": card.match,
        "moments": [_moment(moment) for moment in card.moments],
        "duplicates": [path if full else Path(path).name for path in card.duplicates],
    }


def shown_file(file: FileEntry, full: bool) -> dict[str, Any]:
    """Returns what the page shows of a file."""
    return {
        "id": file.id,
        "name": Path(file.path).name,
        "place": place(file.path, file.root),
        "path": file.path if full else None,
        "kind": file.kind,
        "seconds": file.seconds,
        "domain": file.domain,
        "transcript": file.transcript,
        "captions": file.captions,
    }


def _moment(moment: Moment) -> dict[str, Any]:
    return {
        "window": moment.window,
        "start": moment.start,
        "seconds": moment.seconds,
        "score": moment.score,
        "begin": moment.begin,
        "end": moment.end,
        "frame_score": moment.frame_score,
    }


def kinds() -> list[str]:
    """Returns the kinds of files, for the filter of the page."""
    return list(get_args(Kind))


def _number(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise ValueError(f"{name} must be a whole number, not {value!r:.50}")
    return int(value)


def _within(name: str, value: str, most: int) -> int:
    number = _number(name, value)
    if not 1 <= number <= most:
        raise ValueError(f"{name} must be from 1 to {most}, not {number}")
    return number


def decimal_of(given: QueryParams, name: str, default: float) -> float:
    """Returns a number of an address, or the default where it says none.

    Raises:
        ValueError: if it is no number, or below 0.
    """
    return _decimal(name, given[name]) if name in given else default


def _decimal(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not 0 <= number < 1e9:
        raise ValueError(f"{name} must be a number of at least 0, not {value!r:.50}")
    return number
