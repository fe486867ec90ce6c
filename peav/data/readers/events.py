"""Events that stand one a row: they are gathered by clip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Reject
from peav.data.readers.rows import Row, to_number


@dataclass
class _Annotated:
    line: int
    spoiled: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)


class EventTable:
    """Gathers the events of a table by clip, in the order of the clips' first rows.

    A clip one of whose rows cannot be understood is left out whole: an event that is missing would teach that it is not heard.

    Args:
        clip: column of the name of the clip.
        onset: column of the second at which the event begins; empty where the clip has no event.
        offset: column of the second at which it ends.
        label: column of what is heard.
        confidence: column of how sure it is, from 0 to 1; None where there is none.
        weak: whether an event may be without times; else that is an error.
    """

    def __init__(
        self, clip: str, onset: str, offset: str, label: str, confidence: str | None = None, weak: bool = False
    ) -> None:
        self.clip, self.onset, self.offset, self.label = clip, onset, offset, label
        self.confidence, self.weak = confidence, weak
        self._clips: dict[str, _Annotated] = {}

    def add(self, row: Row, name: Callable[[str], str | tuple[str, str]]) -> Reject | None:
        """Takes a row, or returns its reject.

        Args:
            row: of the table.
            name: turns a label into the phrase of the event, or the phrase and the id of the label; may raise a RecordError.
        """
        clip_id = row.values.get(self.clip) or None
        entry = None if clip_id is None else self._clips.setdefault(clip_id, _Annotated(row.line))
        try:
            row.check()
            if entry is None:
                raise RecordError(f"column {self.clip!r} is empty")
            if not any(row.values.get(column) for column in (self.onset, self.offset, self.label)):
                return None
            entry.events.append(self._event(row, name(row.text(self.label))))
        except RecordError as error:
            if entry is not None:
                entry.spoiled = True
            return row.reject(error, clip_id)
        return None

    def _event(self, row: Row, named: str | tuple[str, str]) -> dict[str, Any]:
        phrase, label = named if isinstance(named, tuple) else (named, "")
        if self.weak and not any(row.values.get(column) for column in (self.onset, self.offset)):
            made: dict[str, Any] = {"phrase": phrase}
        else:
            made = event(row.number(self.onset), row.number(self.offset), phrase)
        made |= {"label": label} if label else {}
        if self.confidence is not None and row.values.get(self.confidence):
            made["confidence"] = to_number(row.text(self.confidence), self.confidence, "a number")
        return made

    def add_clip(self, clip_id: str, line: int) -> None:
        """Takes a clip that was annotated, whether or not it has events."""
        self._clips.setdefault(clip_id, _Annotated(line))

    def clips(self) -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
        """Yields name, first line and events of the clips whose rows were all understood."""
        for clip_id, entry in self._clips.items():
            if not entry.spoiled:
                yield clip_id, entry.line, entry.events


def event(onset: float, offset: float, phrase: str) -> dict[str, Any]:
    """Returns an event as `clips.jsonl` has it.

    Raises:
        RecordError: if it does not end after it begins.
    """
    if not onset < offset:
        raise RecordError(f"event {phrase!r} ends at {offset:g} s, not after it begins at {onset:g} s")
    return {"phrase": phrase, "onset": onset, "offset": offset}


def merged(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns events with those of one phrase that overlap or touch made one, by onset.

    >>> merged([event(0, 2, "siren"), event(1, 3, "siren"), event(1, 2, "drilling")])
    [{'phrase': 'siren', 'onset': 0, 'offset': 3}, {'phrase': 'drilling', 'onset': 1, 'offset': 2}]
    """
    last: dict[str, dict[str, Any]] = {}
    result = []
    for item in sorted(events, key=lambda item: (item["onset"], item["phrase"])):
        before = last.get(item["phrase"])
        if before is not None and item["onset"] <= before["offset"]:
            before["offset"] = max(before["offset"], item["offset"])
        else:
            last[item["phrase"]] = dict(item)
            result.append(last[item["phrase"]])
    return result
