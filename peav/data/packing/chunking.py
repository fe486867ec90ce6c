"""Long recordings to clips: equal spans, with what was said about the recording cut along."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from peav.data.manifests.records import OPEN, Event, Record
from peav.data.manifests.texts import during
from peav.types import Seconds

#: What becomes of a caption about the whole recording: every clip gets it, or none.
ChunkCaptions = Literal["copy", "drop"]

#: A recording that is longer than a clip by no more than this stays whole, in seconds.
_SLACK_SECONDS = 0.25


def chunk_record(
    record: Record,
    duration: Seconds,
    chunk_seconds: Seconds,
    min_seconds: Seconds,
    captions: ChunkCaptions = "copy",
) -> list[Record]:
    """Cuts a record into records of `chunk_seconds`; one that is no longer stays as it is.

    Events are clipped to the chunks that they reach into. Of one without times nobody knows in which chunk it is: it goes to none, and
    then nothing is known of a chunk but its own events (vocabulary `open`); what is absent from the recording is absent from each.

    A caption or a segment of a transcript that has times goes to every chunk that holds at least half of it, or of which it covers at
    least half. A transcript without times goes to none: nobody knows where it is said.

    Args:
        record: the recording.
        duration: of its span, seconds.
        chunk_seconds: of a clip; 0 cuts nothing.
        min_seconds: a shorter rest is dropped.
        captions: what becomes of captions without times.

    >>> long = Record("talk", media="talk.mp4", events=(Event("bell", 29.0, 31.0),))
    >>> [(part.id, part.start, part.duration, part.events) for part in chunk_record(long, 45.0, 30.0, 1.0)]
    [('talk#0000', 0.0, 30.0, (Event(phrase='bell', onset=29.0, offset=30.0, label='', confidence=1.0),)), \
('talk#0001', 30.0, 15.0, (Event(phrase='bell', onset=0.0, offset=1.0, label='', confidence=1.0),))]
    """
    if not chunk_seconds or duration <= chunk_seconds + _SLACK_SECONDS:
        return [record]
    parts: list[Record] = []
    begin, number = 0.0, 0
    while begin < duration:
        length = min(chunk_seconds, duration - begin)
        if parts and length < min(min_seconds, chunk_seconds) - 1e-6:
            last = parts[-1]
            parts[-1] = replace(
                last, notes=(*last.notes, f"the last {length:.3f} s of {record.id!r} are too short for a clip")
            )
            break
        parts.append(_part(record, number, begin, length, captions))
        number += 1
        begin = number * chunk_seconds
    notes = list(record.notes)
    if record.transcript and any(segment.start is None for segment in record.transcript):
        notes.append("its transcript has no times: dropped, for the recording was cut into clips")
    if weak := sum(event.is_weak for event in record.events or ()):
        notes.append(f"{weak} events without times dropped, for the recording was cut into {len(parts)} clips")
    untimed = any(caption.start is None for items in record.captions.values() for caption in items)
    if untimed:
        done = "given to each clip" if captions == "copy" else "dropped"
        notes.append(f"captions without times {done}, for the recording was cut into {len(parts)} clips")
    parts[0] = replace(parts[0], notes=(*notes, *parts[0].notes))
    return parts


def _part(record: Record, number: int, begin: Seconds, length: Seconds, captions: ChunkCaptions) -> Record:
    events = None if record.events is None else _cut_events(record.events, begin, begin + length)
    kept = {kind: during(items, begin, begin + length, captions == "copy") for kind, items in record.captions.items()}
    return replace(
        record,
        id=f"{record.id}#{number:04d}",
        start=record.start + begin,
        duration=length,
        events=events,
        vocabulary=OPEN if any(event.is_weak for event in record.events or ()) else record.vocabulary,
        captions={kind: items for kind, items in kept.items() if items},
        transcript=during(record.transcript, begin, begin + length, False),
        notes=(),
    )


def _cut_events(events: Iterable[Event], begin: Seconds, end: Seconds) -> tuple[Event, ...]:
    kept = []
    for event in events:
        if event.span is not None:
            onset, offset = max(event.span[0], begin), min(event.span[1], end)
            if onset < offset:
                kept.append(replace(event, onset=onset - begin, offset=offset - begin))
        elif event.is_absent:
            kept.append(event)
    return tuple(kept)
