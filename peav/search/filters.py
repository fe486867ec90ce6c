"""Which files a search may find: conditions that become SQL, and file numbers."""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import dataclass
from typing import Any, get_args

from peav.search.catalog import Kind
from peav.suggest import suggest
from peav.types import Seconds


@dataclass(frozen=True)
class Filters:
    """Which files a search may find; what is None does not matter.

    Attributes:
        folder: in this folder, at any depth.
        kind: `sound`, `video` or `picture`.
        min_seconds: at least so long.
        max_seconds: at most so long.
        after: last written on this day or later, `2026-03-01`, local time.
        before: last written before this day.
        domain: of this domain, as its record says.
        words: whose name, transcript or captions hold all of these words; `"two words"` in quotes stand beside each other.
        name: likewise, of the name alone.
        transcript: likewise, of the transcript alone.

    Raises:
        ValueError: if a value is out of range.
    """

    folder: str | None = None
    kind: Kind | None = None
    min_seconds: Seconds | None = None
    max_seconds: Seconds | None = None
    after: str | None = None
    before: str | None = None
    domain: str | None = None
    words: str | None = None
    name: str | None = None
    transcript: str | None = None

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r}: {suggest(str(self.kind), get_args(Kind))}")
        for name in ("min_seconds", "max_seconds"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must be 0 or more, not {value}")
        for name in ("after", "before"):
            if (value := getattr(self, name)) is not None:
                _midnight(name, value)
        for name in ("words", "name", "transcript"):
            if (value := getattr(self, name)) is not None and not _query(value):
                raise ValueError(f"{name}={value!r} holds no word")

    def __bool__(self) -> bool:
        return self != Filters()

    def to_sql(self) -> tuple[str, list[Any]]:
        """Returns a condition on the table `files`, and its arguments."""
        parts: list[str] = []
        arguments: list[Any] = []

        def add(part: str, *values: Any) -> None:
            parts.append(part)
            arguments.extend(values)

        if self.folder is not None:
            inside = os.path.join(os.path.realpath(self.folder), "")
            add("substr(path, 1, ?) = ?", len(inside), inside)
        if self.kind is not None:
            add("kind = ?", self.kind)
        if self.min_seconds is not None:
            add("seconds >= ?", self.min_seconds)
        if self.max_seconds is not None:
            add("seconds <= ?", self.max_seconds)
        if self.after is not None:
            add("mtime_ns >= ?", _midnight("after", self.after))
        if self.before is not None:
            add("mtime_ns < ?", _midnight("before", self.before))
        if self.domain is not None:
            add("domain = ?", self.domain)
        for column in ("name", "transcript"):
            if (value := getattr(self, column)) is not None:
                add("id IN (SELECT rowid FROM words WHERE words MATCH ?)", f"{column} : ({_query(value)})")
        if self.words is not None:
            add("id IN (SELECT rowid FROM words WHERE words MATCH ?)", _query(self.words))
        return " AND ".join(parts) or "1", arguments


def _query(words: str) -> str:
    """Returns words as a query of FTS5 in which nothing is an operator; "" where there is none.

    >>> _query('dog "good morning" AND-NOT')
    '"dog" AND "good morning" AND "AND-NOT"'
    """
    found = [phrase or word for phrase, word in re.findall(r'"([^"]*)"|([^\s"]+)', words)]
    return " AND ".join(f'"{word}"' for word in found if re.search(r"\w", word))


def _midnight(name: str, day: str) -> int:
    """Returns when a day begins here, in nanoseconds."""
    try:
        begins = datetime.datetime.fromisoformat(day)
    except ValueError:
        raise ValueError(f"{name} must be a day such as 2026-03-01, not {day!r}") from None
    return int(begins.timestamp()) * 1_000_000_000
