"""The typed view of a manifest line: a Lhotse cut as the clip that it stands for.

A manifest is a CutSet JSONL: Lhotse reads, filters and edits it. A cut's recording is the source file (its path as the records
have it), its span is the clip, its supervisions are the events (`text` is the phrase). Custom fields of a supervision are `label` and
`confidence`, where the event has them, and `weak: true` of one without times, which spans the clip that it was given for. So a part
that is cut out of the clip is known by it: what is weak in the whole is unknown there, and what is absent is absent. A clip without
sound has no recording, which Lhotse reads and writes well although it cannot validate it. The rest is custom:

| field | meaning |
|---|---|
| captions | {caption type: [text, or {text, origin, start, end}]}, times in seconds of the packed media |
| transcript | as in the record: text, or [{text, start, end}], times in seconds of the packed media |
| domain, split, licence, dataset | as in the record |
| annotated | whether events are known |
| vocabulary | the closed vocabulary that was annotated, where it has a name, or `open` (`peav.data.manifests.labels`) |
| has_audio, has_video | what the packed clip holds |
| files | {role: path} of the source |
| origins | {role: seconds}, time zero of the packed media on their own clocks |
| video | {num_frames, fps, size: [height, width]} of the packed clip, or null; also `still: true` where it is a still picture |
| store, row, crc32 | the shards that hold the bytes, where they are in them, and their checksum |
| media_start | second of the source at which the packed media begin; a cut that starts later is a part of them |
| media_duration | seconds that the packed media hold |
| audio_group, video_group | identity of the packed bytes, equal for equal media |
| own_fields | {name: {bytes: size} or {value: JSON}}: fields of the user's own kinds, if any; the bytes are in the shards |

Further custom fields are kept as they are; `packed_id` among them is the id in the shards of a clip that `peav data mix` renamed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from peav.data.manifests.fields import (
    RecordError,
    check_names,
    check_tree,
    check_value,
    read_number,
    read_share,
    read_text,
)
from peav.data.manifests.identities import ABSENT, bytes_group
from peav.data.manifests.records import OPEN, SPLITS, Event, Record, parse_line
from peav.data.manifests.texts import (
    Caption,
    during,
    join_segments,
    parse_captions,
    parse_transcript,
    texts_of,
)
from peav.types import Seconds

#: The fields of a cut that a clip can have.
CUT_FIELDS = ("id", "start", "duration", "channel", "supervisions", "recording", "custom", "type", "features")

#: The custom field that keeps the id of the packed media of a renamed clip.
PACKED_ID = "packed_id"

#: The custom field that has the fields of the user's own kinds.
OWN_FIELDS = "own_fields"

#: How far the span of a weak supervision may differ from that of its cut, in seconds: times are rounded.
EDGE_SECONDS = 1e-3

#: The custom fields that are peav's own.
CUSTOM_FIELDS = (
    "captions",
    "transcript",
    "domain",
    "split",
    "licence",
    "dataset",
    "annotated",
    "vocabulary",
    "has_audio",
    "has_video",
    "files",
    "origins",
    "video",
    "store",
    "row",
    "crc32",
    "media_start",
    "media_duration",
    "audio_group",
    "video_group",
)


@dataclass(frozen=True)
class Clip:
    """A clip as its manifest describes it; see `peav.data.manifests.clip` for the fields of the file.

    Attributes:
        id: unique in its manifest.
        duration: seconds.
        start: second of the source at which it begins.
        captions: by caption type, only types that have one.
        transcript: what is said, or None.
        segments: what is said when, where that is known; `transcript` is then their texts.
        events: its sound events; None when it was not annotated.
        vocabulary: the closed vocabulary that was annotated; "" where all is absent that is not among the events, "open" where nothing
            else is known.
        domain: free label; "" when not given.
        split: `train`, `validation` or `test`.
        licence: of the media; "" when not given.
        dataset: where it comes from; "" when not given.
        has_audio: whether the packed media hold sound.
        has_video: whether they hold a picture.
        files: paths of the source by role.
        origins: time zero of the packed media on their own clocks, by role.
        video: num_frames, fps and size of the packed video, and whether it is a still picture, or None.
        store: the shards: a path relative to the folder of the data, an absolute one, or a URL.
        row: where its bytes are in the shards.
        crc32: their checksum.
        media_start: second of the source at which the packed media begin.
        media_duration: seconds that they hold.
        audio_group: identity of the sound; -1 without one.
        video_group: identity of the picture; -1 without one.
        recording: of Lhotse, as JSON, or None.
        extra: custom fields of others.
        own: fields of the user's own kinds by name: {"bytes": size} of what the shards hold, or {"value": JSON}.
    """

    id: str
    duration: Seconds
    start: Seconds = 0.0
    captions: Mapping[str, tuple[Caption, ...]] = field(default_factory=dict)
    transcript: str | None = None
    segments: tuple[Caption, ...] = ()
    events: tuple[Event, ...] | None = None
    vocabulary: str = ""
    domain: str = ""
    split: str = "train"
    licence: str = ""
    dataset: str = ""
    has_audio: bool = False
    has_video: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, Seconds] = field(default_factory=dict)
    video: Mapping[str, Any] | None = None
    store: str = ""
    row: int = 0
    crc32: int = 0
    media_start: Seconds = 0.0
    media_duration: Seconds = 0.0
    audio_group: int = ABSENT
    video_group: int = ABSENT
    recording: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def texts(self) -> dict[str, tuple[str, ...]]:
        """The bare captions by type."""
        return texts_of(self.captions)

    @property
    def offset(self) -> Seconds:
        """Second of the packed media at which the clip begins: above 0 for a part of them."""
        return self.start - self.media_start

    @property
    def packed_id(self) -> str:
        """The id that the packed media go by: another than the clip's own after `peav data mix` renamed it.

        >>> Clip("a", 1.0).packed_id, Clip("talks/a", 1.0, extra={"packed_id": "a"}).packed_id
        ('a', 'a')
        """
        return self.extra.get(PACKED_ID) or self.id

    @property
    def is_part(self) -> bool:
        """Whether the clip is only a part of the packed media."""
        return self.offset > 1e-6 or self.duration < self.media_duration - 1e-6

    @property
    def is_still(self) -> bool:
        """Whether what is seen is a still picture, for as long as the clip lasts."""
        return self.has_video and self.video is not None and self.video.get("still") is True

    @property
    def is_animated(self) -> bool:
        """Whether what is seen has several frames, by which a picture that is an animation is told from a still."""
        return self.video is not None and self.video.get("num_frames") not in (None, 0, 1)

    def origin(self, kind: str) -> Seconds:
        """Returns time zero of the media that hold `audio` or `video`, on their own clock."""
        return self.origins[kind] if kind in self.origins else self.origins.get("media", 0.0)

    def group(self, kind: str) -> int:
        """Returns the identity of what is heard or seen: of the packed bytes, and of the part of them; a still has no parts."""
        group = self.audio_group if kind == "audio" else self.video_group
        if group == ABSENT or not self.is_part or (kind == "video" and self.is_still):
            return group
        return bytes_group(f"{group}/{self.offset:.6f}/{self.duration:.6f}".encode())

    def to_json(self) -> dict[str, Any]:
        """Returns the cut as Lhotse writes it."""
        recording = self.recording
        supervisions = [self._supervision(index, event) for index, event in enumerate(self.events or ())]
        custom: dict[str, Any] = {
            "captions": {
                kind: [self._in_media(item).to_json() for item in items] for kind, items in self.captions.items()
            },
            "transcript": [self._in_media(item).to_json() for item in self.segments] or self.transcript,
            "annotated": self.events is not None,
            # Lhotse takes a dictionary with the keys width and height for one of its images.
            "video": dict(self.video) if self.video is not None else None,
        }
        plain = [name for name in CUSTOM_FIELDS if name not in custom and (name != "vocabulary" or self.vocabulary)]
        custom |= {name: getattr(self, name) for name in plain}
        custom |= {"files": dict(self.files), "origins": dict(self.origins), **self.extra}
        if self.own:
            custom[OWN_FIELDS] = {name: dict(held) for name, held in self.own.items()}
        cut = {
            "id": self.id,
            "start": self.start,
            "duration": self.duration,
            "channel": 0,
            "supervisions": supervisions,
        }
        if recording is not None:
            cut["recording"] = dict(recording)
        return {**cut, "custom": custom, "type": "MonoCut"}

    def _supervision(self, index: int, event: Event) -> dict[str, Any]:
        onset, offset = event.span or (0.0, self.duration)
        custom: dict[str, Any] = {} if event.span else {"weak": True}
        custom |= {"label": event.label} if event.label else {}
        custom |= {"confidence": event.confidence} if event.confidence != 1 else {}
        return {
            "id": f"{self.id}-{index}",
            "recording_id": self.recording["id"] if self.recording else self.id,
            "start": onset,
            "duration": offset - onset,
            "channel": 0,
            "text": event.phrase,
            **({"custom": custom} if custom else {}),
        }

    def _in_media(self, caption: Caption) -> Caption:
        """Returns a caption with the times of the packed media, which the file has."""
        offset = self.offset if self.is_part else 0.0
        if caption.start is None or caption.end is None or not offset:
            return caption
        return replace(caption, start=caption.start + offset, end=caption.end + offset)

    def to_line(self) -> str:
        """Returns the line of the manifest."""
        return json.dumps(self.to_json(), ensure_ascii=False)


def clip_from_line(line: bytes) -> Clip:
    """Reads a line of a manifest.

    Raises:
        RecordError: if it is not a cut that peav can read.
    """
    return clip_from_json(parse_line(line))


def clip_from_json(data: Mapping[str, Any]) -> Clip:
    """Reads a cut as Lhotse writes it. Events are clamped into the clip: `cut.truncate` leaves them as they were.

    Raises:
        RecordError: if a field is unknown, is missing or holds what it cannot.
    """
    if data.get("type", "MonoCut") != "MonoCut":
        raise RecordError(
            f"a clip is a MonoCut of Lhotse's, got {data['type']!r}: one that is padded or mixed has no packed media"
        )
    check_names(data, CUT_FIELDS, "cut field")
    clip_id = read_text(data, "id")
    if not clip_id or not clip_id.strip():
        raise RecordError(f"'id' must be a string that is not empty, got {data.get('id')!r}")
    duration, start = read_number(data, "duration"), read_number(data, "start")
    if not duration:
        raise RecordError(f"'duration' must be above 0 seconds, got {data.get('duration')!r}")
    custom = _object(data, "custom")
    recording = _object(data, "recording") if data.get("recording") is not None else None
    if recording is not None and not read_text(recording, "id"):
        raise RecordError(f"'recording' must have an 'id', got {recording!r}")
    if recording is not None:
        _check_transforms(recording)
        _check_sources(recording)
    split = read_text(custom, "split") or "train"
    if split not in SPLITS:
        raise RecordError(f"'split' must be one of {', '.join(SPLITS)}, got {split!r}")
    files = _object(custom, "files") if "files" in custom else {}
    if not all(isinstance(path, str) for path in files.values()):
        raise RecordError(f"'files' must map roles to paths, got {files!r}")
    origins = _object(custom, "origins") if "origins" in custom else {}
    media_start = read_number(custom, "media_start")
    media_duration = read_number(custom, "media_duration")
    read_text(custom, PACKED_ID)
    begin = start or 0.0
    events, lost = _events(data, custom, duration)
    media_start = begin if media_start is None else media_start
    media_duration = duration if media_duration is None else media_duration
    clip = Clip(
        id=clip_id,
        duration=duration,
        start=begin,
        captions=parse_captions(custom.get("captions"), 1 << 30, []),
        events=events,
        vocabulary=OPEN if lost else read_text(custom, "vocabulary") or "",
        domain=read_text(custom, "domain") or "",
        split=split,
        licence=read_text(custom, "licence") or "",
        dataset=read_text(custom, "dataset") or "",
        has_audio=_flag(custom, "has_audio"),
        has_video=_flag(custom, "has_video"),
        files=files,
        origins={role: read_number(origins, role, minimum=-4e9) or 0.0 for role in origins},
        video=_object(custom, "video") if custom.get("video") is not None else None,
        store=read_text(custom, "store") or f"shards/{split}",
        row=_integer(custom, "row"),
        crc32=_integer(custom, "crc32"),
        media_start=media_start,
        media_duration=media_duration,
        audio_group=_integer(custom, "audio_group", ABSENT),
        video_group=_integer(custom, "video_group", ABSENT),
        recording=recording,
        extra={name: value for name, value in custom.items() if name not in (*CUSTOM_FIELDS, OWN_FIELDS)},
        own=_own(custom),
    )
    for name in ("files", "origins", "video", "recording", "extra"):
        check_tree(getattr(clip, name), name)
    spoken = parse_transcript(custom.get("transcript"), [])
    if any(item.start is not None for item in spoken):
        clip = replace(clip, segments=spoken)
    clip = replace(clip, transcript=join_segments(spoken))
    end = clip.media_start + clip.media_duration
    if clip.offset < -1e-3 or clip.start + clip.duration > end + 1e-3:
        raise RecordError(
            f"the cut spans {clip.start:g} to {clip.start + clip.duration:g} s of its source, but only {clip.media_start:g} to "
            f"{end:g} s were packed"
        )
    if clip.is_part:
        # Captions have the times of the packed media: Lhotse's `truncate` does not know of them.
        captions = {kind: during(items, clip.offset, clip.offset + duration) for kind, items in clip.captions.items()}
        clip = replace(clip, captions={kind: items for kind, items in captions.items() if items})
        # Of a transcript without times nobody knows which part of it is said here.
        said = during(clip.segments, clip.offset, clip.offset + duration)
        clip = replace(clip, segments=said, transcript=join_segments(said))
    return clip


def _check_sources(recording: Mapping[str, Any]) -> None:
    """Refuses recordings that Lhotse would get by running a command."""
    sources = recording.get("sources") or ()
    if not isinstance(sources, list | tuple) or not all(isinstance(source, Mapping) for source in sources):
        raise RecordError(f"'sources' of the recording must be a list of objects, got {sources!r:.100}")
    for source in sources:
        if source.get("type") == "command":
            raise RecordError(
                f"the recording would be read by running {source.get('source')!r:.60}: a manifest must not name commands; give a file"
            )


def _check_transforms(recording: Mapping[str, Any]) -> None:
    """Refuses recordings that Lhotse would change on loading: what is packed is the unchanged media."""
    for transform in recording.get("transforms") or ():
        name = transform.get("name") if isinstance(transform, Mapping) else transform
        if name != "Resample":  # media are decoded at the rate of the data module anyway
            raise RecordError(
                f"the recording has the transform {name!r}, but the packed media are without it: augment by data.audio_augment, or pack "
                "the changed sound"
            )


def clip_from_record(record: Record) -> Clip:
    """Returns what a record alone says of a clip, before anything is packed."""
    return Clip(
        id=record.id,
        duration=record.duration or 0.0,
        start=record.start,
        captions=record.captions,
        transcript=join_segments(record.transcript),
        segments=tuple(segment for segment in record.transcript if segment.start is not None),
        events=record.events,
        vocabulary=record.vocabulary,
        domain=record.domain,
        split=record.split,
        licence=record.licence,
        dataset=record.dataset,
        files=record.files,
        media_start=record.start,
    )


def _events(
    data: Mapping[str, Any], custom: Mapping[str, Any], duration: Seconds
) -> tuple[tuple[Event, ...] | None, bool]:
    """Returns the events of a cut, and whether one was lost that is somewhere in the clip out of which the cut was made."""
    annotated = _flag(custom, "annotated", bool(data.get("supervisions")))
    supervisions = data.get("supervisions") or []
    if not isinstance(supervisions, list) or not all(isinstance(item, dict) for item in supervisions):
        raise RecordError(f"'supervisions' must be a list of objects, got {supervisions!r}")
    if not annotated:
        return None, False
    events, lost = [], False
    for item in supervisions:
        phrase = read_text(item, "text")
        begin, length = read_number(item, "start", minimum=-4e9), read_number(item, "duration")
        if phrase is None or not phrase.strip() or begin is None or length is None:
            raise RecordError(f"an event is a supervision with text, start and duration, got {item!r}")
        own = _object(item, "custom") if item.get("custom") is not None else {}
        label, confidence = read_text(own, "label") or "", read_share(own, "confidence")
        if _flag(own, "weak"):
            # Its span is that of the clip for which it was given.
            within = begin >= -EDGE_SECONDS and begin + length <= duration + EDGE_SECONDS
            around = begin <= EDGE_SECONDS and begin + length >= duration - EDGE_SECONDS
            if around if confidence == 0 else within:
                events.append(Event(phrase, label=label, confidence=confidence))
            else:
                lost = True
            continue
        onset, offset = max(begin, 0.0), min(begin + length, duration)
        if onset < offset:
            events.append(Event(phrase, onset, offset, label, confidence))
    return tuple(events), lost


def _own(custom: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    if OWN_FIELDS not in custom:
        return {}
    own = _object(custom, OWN_FIELDS)
    for name, held in own.items():
        if not isinstance(held, dict) or len(held) != 1 or not set(held) <= {"bytes", "value"}:
            raise RecordError(
                f"{OWN_FIELDS!r} must map names to {{bytes: size}} or {{value: JSON}}, got {name!r}: {held!r}"
            )
        if "bytes" in held:
            _integer(held, "bytes")
        else:
            check_value(held["value"], name)
    return own


def _object(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    if not isinstance(value, dict):
        raise RecordError(f"{name!r} must be an object, got {value!r}")
    return value


def _flag(data: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = data.get(name, default)
    if not isinstance(value, bool):
        raise RecordError(f"{name!r} must be true or false, got {value!r}")
    return value


def _integer(data: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = data.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < 1 << 63:
        raise RecordError(f"{name!r} must be a whole number, got {value!r}")
    return value
