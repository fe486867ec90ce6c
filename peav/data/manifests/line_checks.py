"""What can be wrong with a line of a manifest that reading it forgives: it clamps events, and drops captions without words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peav.data.manifests.clip import CUSTOM_FIELDS, PACKED_ID, Clip
from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import EVENT_TOLERANCE_SECONDS, check_contradictions
from peav.data.manifests.texts import missing_media


def unknown_fields(clip: Clip) -> list[str]:
    """Returns the custom fields of a clip that are none of peav's."""
    return [name for name in clip.extra if name not in (*CUSTOM_FIELDS, PACKED_ID)]


def line_problems(data: Mapping[str, Any], clip: Clip, split: str) -> Iterator[tuple[str, str, str]]:
    """Compares a line with the clip that it was read as.

    Args:
        data: the cut, as JSON.
        clip: what `clip_from_json` made of it.
        split: whose manifest it stands in.

    Yields:
        `error` or `note`, the kind of problem, and a sentence.
    """
    if clip.split != split:
        yield "error", "split", f"the clip says split {clip.split!r}, but it stands in the manifest of {split!r}"
    yield from _event_problems(data, clip)
    yield from _caption_problems(data, clip)
    for kind in clip.captions:
        for missing in missing_media(kind, clip.has_audio, clip.has_video):
            yield "note", "medium", f"captions of type {kind!r}, but the clip has no {missing}"


def _event_problems(data: Mapping[str, Any], clip: Clip) -> Iterator[tuple[str, str, str]]:
    supervisions = data.get("supervisions") or []
    if clip.events is None:
        if supervisions:
            yield "error", "events", f"{len(supervisions)} supervisions are not read, because 'annotated' is false"
        return
    try:
        check_contradictions(clip.events)
    except RecordError as error:
        yield "error", "events", str(error)
    for item in supervisions:
        if (item.get("custom") or {}).get("weak"):  # it spans what it was given for, which Lhotse may have cut
            continue
        begin, end = item["start"], item["start"] + item["duration"]
        if begin < -EVENT_TOLERANCE_SECONDS or end > clip.duration + EVENT_TOLERANCE_SECONDS:
            yield _outside(f"event {item['text']!r}", begin, end, clip)
        elif end <= begin:
            yield "error", "events", f"event {item['text']!r} at {begin:g} s has no duration"


def _caption_problems(data: Mapping[str, Any], clip: Clip) -> Iterator[tuple[str, str, str]]:
    for kind, items in (data["custom"].get("captions") or {}).items():
        items = [] if items is None else items if isinstance(items, list) else [items]
        texts = [item if isinstance(item, str) else item["text"] for item in items]
        if empty := sum(not text.strip() for text in texts):
            yield "error", "captions", f"{empty} of {len(texts)} captions of type {kind!r} have no words"
        for item in items:
            end = None if isinstance(item, str) else item.get("end")
            if end is not None and end > clip.media_duration + EVENT_TOLERANCE_SECONDS:
                yield _outside(f"a caption of type {kind!r}", item["start"], end, clip)


def _outside(what: str, begin: float, end: float, clip: Clip) -> tuple[str, str, str]:
    # Lhotse's `cut.truncate` leaves the events of the whole; reading clamps them.
    level = "note" if clip.is_part and what.startswith("event") else "error"
    return level, "events", f"{what} at {begin:g} to {end:g} s lies outside its clip of {clip.duration:.3f} s"
