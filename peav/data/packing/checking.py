"""What a worker of `prepare` does with a record: cut it into clips, decode each fully, and say what it holds or what is wrong."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from peav.data.manifests.records import EVENT_TOLERANCE_SECONDS, Event, Note, Record, RecordError, Reject, fit_events
from peav.data.manifests.texts import fit_captions, missing_media
from peav.data.media.checks import (
    CHANGED,
    TOLERANCE_SECONDS,
    check_container,
    check_media,
    check_video_errors,
)
from peav.data.media.cutting import Part, cut_span
from peav.data.media.errors import MediaError
from peav.data.media.ffmpeg import FFMPEG, FULL_DISK
from peav.data.media.normalize import Normalize, check_normalized, normalize_span
from peav.data.media.probing import MediaInfo, probe
from peav.data.media.remake import make_pictures, make_sound, shift_of
from peav.data.media.spans import NOTHING_SECONDS
from peav.data.media.stills import (
    Animations,
    check_picture,
    cover_art,
    is_animation,
    picture_kind,
    shrink_picture,
    write_animation,
)
from peav.data.media.tracks import announced_end
from peav.data.packing.chunking import ChunkCaptions, chunk_record
from peav.data.packing.journal import Outcome
from peav.data.packing.own_fields import KeptFields, OwnFieldError, keep_own, read_own
from peav.fields import Field, Stored
from peav.types import Seconds

#: A span that differs from the whole file by less than this is the whole file, in seconds.
_WHOLE_SECONDS = 0.05

#: A rest of a long recording is a clip from so many seconds on.
_MIN_CHUNK_SECONDS = 1.0

#: How files end that were made anew of a whole source, and pictures that were taken out of a file of sound.
_SOUND, _COPIED, _ENCODED, _COVER = ".sound.flac", ".copied.mkv", ".encoded.mp4", ".cover"

#: What becomes of a clip one of whose media cannot be read: it is kept without it, or left out.
Partial = Literal["keep", "reject"]


@dataclass(frozen=True)
class PackSettings:
    """What is done with every record.

    Attributes:
        min_seconds: shorter clips are rejected.
        check_video: decode video a second time with all errors fatal.
        chunk_seconds: length of the clips that longer recordings are cut into; 0 leaves them whole.
        chunk_captions: what becomes of captions about a whole recording that is cut.
        normalize: what clips are re-encoded to; None keeps their media as they are.
        still_seconds: duration of a clip that is nothing but a still picture.
        animations: whether the `first` picture of an animation is taken, or `all` as a video.
        cover_art: take the cover of a file of sound as its picture.
        partial: what becomes of a clip of which a medium cannot be read, and another can.
    """

    min_seconds: Seconds = 0.1
    check_video: bool = True
    chunk_seconds: Seconds = 30.0
    chunk_captions: ChunkCaptions = "copy"
    normalize: Normalize | None = None
    still_seconds: Seconds = 1.0
    animations: Animations = "first"
    cover_art: bool = False
    partial: Partial = "reject"

    def __post_init__(self) -> None:
        for name, choices in (("animations", ("first", "all")), ("partial", ("keep", "reject"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, got {getattr(self, name)!r}")
        if self.still_seconds <= 0:
            raise ValueError(f"still_seconds must be above 0, got {self.still_seconds}")
        for name in ("min_seconds", "chunk_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.chunk_captions not in ("copy", "drop"):
            raise ValueError(f"chunk_captions must be 'copy' or 'drop', got {self.chunk_captions!r}")


@dataclass(frozen=True)
class Settled:
    """A record whose outcome is known; it goes through the workers so that the order is kept."""

    outcome: Outcome


@dataclass(frozen=True)
class Job:
    """A record to check.

    Attributes:
        index: position in the order of the records; names its scratch files.
        record: the clip, or long recording.
        root: folder that its paths start from.
        scratch: folder for what is cut out.
        settings: what is done with it.
        fields: of one's own kind, by name.
    """

    index: int
    record: Record
    root: Path
    scratch: Path
    settings: PackSettings
    fields: dict[str, Field] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckedClip:
    """A clip after its check: `reject` is set, or all the rest.

    Attributes:
        record: the clip.
        reject: why it cannot be used.
        unreadable: whether that is because a medium of it cannot be read.
        paths: what to pack, by role.
        infos: what that holds, by role.
        scratch: those of `paths` that are to be deleted afterwards.
        duration: of the clip, seconds.
        source_seconds: duration of its longest source file.
        sources: what the source files hold, by role.
        events: its events, clamped into it; None when not annotated.
        notes: what its author should know.
        lost: media that could not be read, and why; the clip is without them.
        own: its fields of one's own kind.
    """

    record: Record
    reject: Reject | None = None
    unreadable: bool = False
    paths: dict[str, Path] = field(default_factory=dict)
    infos: dict[str, MediaInfo] = field(default_factory=dict)
    scratch: tuple[Path, ...] = ()
    duration: Seconds = 0.0
    source_seconds: Seconds = 0.0
    sources: dict[str, MediaInfo] = field(default_factory=dict)
    events: tuple[Event, ...] | None = None
    notes: tuple[str, ...] = ()
    lost: dict[str, str] = field(default_factory=dict)
    own: KeptFields = field(default_factory=KeptFields)

    @property
    def all_notes(self) -> list[Note]:
        """What is written down of it."""
        lost = [
            Note(self.record.id, self.record.line, f"kept without its {kind}, which cannot be read: {reason}", kind)
            for kind, reason in self.lost.items()
        ]
        return [*lost, *(Note(self.record.id, self.record.line, note) for note in self.notes)]

    def holds(self, kind: str) -> str | None:
        """Returns the role whose file holds `audio` or `video`, None where none does."""
        other = "video" if kind == "audio" else "audio"
        roles = (role for role, info in self.infos.items() if getattr(info, kind) is not None and role != other)
        return next(roles, None)


@dataclass(frozen=True)
class CheckedRecord:
    """A record after its check, and its clips, rejected ones included."""

    record: Record
    clips: list[CheckedClip]


def rejected(
    record: Record, file: str | None, reason: str, missing: bool = False, unreadable: bool = False
) -> CheckedClip:
    """Returns the outcome of a clip that cannot be used."""
    file = file if file is not None else next(iter(record.files.values()), None)
    return CheckedClip(record, Reject(record.id, file, record.line, reason, missing), unreadable)


def crashed(item: Job | Settled) -> CheckedRecord | Settled:
    """Returns the outcome of a record whose check killed its process."""
    if isinstance(item, Settled):
        return item
    reason = "the process that decoded it died: FFmpeg crashed on it, or the memory ran out"
    return CheckedRecord(item.record, [rejected(item.record, None, reason)])


def check_records(items: Sequence[Job | Settled]) -> list[CheckedRecord | Settled]:
    """Cuts records into clips and checks the media of each; a bad record never stops the others. Picklable.

    Raises:
        OSError: if the disk is full.
        MediaError: if there is no `ffmpeg` command, and one is needed.
    """
    torch.set_num_threads(1)  # the processes are the parallelism
    clips = iter(_check_records([item for item in items if isinstance(item, Job)]))
    return [item if isinstance(item, Settled) else CheckedRecord(item.record, next(clips)) for item in items]


def _check_records(jobs: Sequence[Job]) -> list[list[CheckedClip]]:
    outcomes = [_check_job(job) for job in jobs]
    # What was re-encoded went through FFmpeg with all errors fatal already.
    suspects = [
        (index, number, role, path)
        for index, (job, clips) in enumerate(zip(jobs, outcomes, strict=True))
        for number, clip in enumerate(clips)
        for role, path in clip.paths.items()
        if job.settings.check_video and _is_film(clip.infos[role]) and not _is_encoded(clip, path)
    ]
    indices = [outcomes[index][number].infos[role].index("video") for index, number, role, _ in suspects]
    for found, error in check_video_errors([path for *_, path in suspects], indices).items():
        index, number, role, _ = suspects[found]
        job, clip = jobs[index], outcomes[index][number]
        if error == CHANGED:
            clip = _of_one_size(job, clip, role)
        else:
            bad = rejected(clip.record, _file_of(clip.record, role), error, unreadable=True)
            clip = _cleaned(clip.scratch, bad)
        alone = len(outcomes[index]) == 1
        outcomes[index][number : number + 1] = _without(job, clip, alone, ("video",)) or [clip]
        outcomes[index] = _with_shared(job, outcomes[index])
    return outcomes


def _is_film(info: MediaInfo) -> bool:
    return info.video is not None and not info.video.image


def _is_encoded(clip: CheckedClip, path: Path) -> bool:
    return path in clip.scratch and not path.name.endswith(_COPIED)


def _file_of(record: Record, role: str) -> str | None:
    return record.files.get(role, record.files.get("media"))


def _of_one_size(job: Job, clip: CheckedClip, role: str) -> CheckedClip:
    """Encodes pictures whose size changes anew; the sound beside them stays where it is."""
    file, info, path = _file_of(clip.record, role) or "", clip.infos[role], clip.paths[role]
    output = job.scratch / f"{job.index}-{role}{_ENCODED}"
    try:
        make_pictures(path, output, info.index("video"), file, "encode", shift_of(info.begin, info.origin))
        made = check_media(output, ("video",), 0.0, None, file, probe(output, file, origin=0.0))
    except MediaError as error:
        return _cleaned((*clip.scratch, output), rejected(clip.record, file, error.reason, unreadable=True))
    paths, infos = {**clip.paths, "video": output}, {**clip.infos, "video": made}
    if role == "media":
        del paths["media"], infos["media"]
        if info.audio is not None:
            paths["audio"], infos["audio"] = path, info
    return replace(clip, paths=paths, infos=infos, scratch=(*clip.scratch, output))


@dataclass(frozen=True)
class _Source:
    """A source file, and what its sound and its pictures are read from, by name: the file itself, or what was made of it.

    Errors call it `file`.
    """

    path: Path
    info: MediaInfo
    parts: dict[str, Part]
    file: str

    @property
    def is_whole(self) -> bool:
        """Whether the file itself holds all of it."""
        return all(part.path == self.path for part in self.parts.values())


def _check_job(job: Job) -> list[CheckedClip]:
    clips = _check_record(job)
    alone = len(clips) == 1
    kept = [_without(job, clip, alone, ("video", "audio")) for clip in clips]
    return _with_shared(job, [one for clip, some in zip(clips, kept, strict=True) for one in some or [clip]])


def _without(job: Job, bad: CheckedClip, alone: bool, kinds: Sequence[str]) -> list[CheckedClip]:
    """Checks a clip again, without the medium that is at fault.

    Args:
        job: the record.
        bad: its clip that cannot be used.
        alone: whether it is all of the record, which may be cut into other clips without that medium.
        kinds: what may be at fault, of `audio` and `video`.

    Returns:
        What is kept; nothing if that is not wanted, or no medium is left.
    """
    if job.settings.partial == "reject" or bad.reject is None or not bad.unreadable:
        return []
    for kind in kinds:
        found = _check_record(job, kind, None if alone else bad.record.id)
        if any(clip.reject is None for clip in found):
            reason = bad.reject.reason
            return [clip if clip.reject else replace(clip, lost={kind: reason}) for clip in found]
    return []


def _with_shared(job: Job, clips: list[CheckedClip]) -> list[CheckedClip]:
    """Gives files that several clips may be packed of to the first of them, to be deleted with it, and deletes the others."""
    packed = [index for index, clip in enumerate(clips) if clip.paths]
    for ending in (_SOUND, _COPIED, _ENCODED, _COVER):
        for path in job.scratch.glob(f"{job.index}-*{ending}"):
            whole = next((index for index in packed if path in clips[index].paths.values()), None)
            if whole is None:
                path.unlink()
            elif path not in clips[whole].scratch:
                clips[whole] = replace(clips[whole], scratch=(*clips[whole].scratch, path))
    return clips


def _read_source(job: Job, role: str, path: Path, info: MediaInfo, file: str, exact: bool, end: Seconds) -> _Source:
    """Has FFmpeg make anew what torchcodec would get wrong.

    Args:
        job: the job.
        role: of the file in the record.
        path: the file.
        info: what it holds.
        file: how errors call it.
        exact: whether spans are cut out of it, or it is encoded anew.
        end: second at which the last clip ends.

    Raises:
        MediaError: if it is damaged.
        OSError: if the disk is full.
    """
    parts, shift, stem = {}, shift_of(info.begin, info.origin), job.scratch / f"{job.index}-{role}"
    audio, video = info.audio, info.video
    if audio is not None and role != "video":
        parts["audio"] = Part(path, info)
        if audio.sound == "odd" or (audio.sound == "whole" and exact):
            output = stem.with_name(stem.name + _SOUND)
            try:
                make_sound(
                    path, output, audio.index, file, audio.wide, audio.num_channels, shift, end if exact else None
                )
                parts["audio"] = Part(output, probe(output, file, origin=0.0))
            except MediaError:
                output.unlink(missing_ok=True)
                if audio.sound == "odd":
                    raise
                # Damaged somewhere: each clip is cut out of the file itself, so that the others live.
    if video is not None and role != "audio":
        parts["video"] = Part(path, info)
        if video.pictures != "plain":
            output = stem.with_name(stem.name + (_COPIED if video.pictures == "copy" else _ENCODED))
            make_pictures(path, output, video.index, file, video.pictures, shift)
            parts["video"] = Part(output, probe(output, file, origin=0.0))
    return _Source(path, info, parts, file)


def _check_record(job: Job, without: str | None = None, only: str | None = None) -> list[CheckedClip]:
    """Checks a record; without its `audio` or `video` and only its clip of an id where these are given."""
    record, settings = job.record, job.settings
    file: str | None = None
    try:
        found: dict[str, _Found] = {}
        for role, file in record.files.items():
            path = job.root / file
            if not path.is_file():
                return [rejected(record, file, "no such file", missing=True)]
            if role != without and (info := _probe(job, role, path, file, without)) is not None:
                found[role] = _Found(path, info, file)
        if not found:
            return [rejected(record, None, f"holds nothing but {without}")]
        record = _note_animations(record, settings, found)
        if settings.cover_art and without != "video":
            found, record = _with_cover(job, record, found)
        longest = max(one.info.duration for one in found.values())
        if not longest:  # stills alone
            longest = record.start + (record.duration or settings.still_seconds)
        duration = longest - record.start if record.duration is None else record.duration
        _check_span(record, duration, longest, settings.min_seconds)
        if record.events is not None:
            record = replace(record, events=fit_events(record.events, duration))
        record = _fit_texts(record, duration)
        stored = read_own(job.fields, record, job.root)
        shortest = max(settings.min_seconds, _MIN_CHUNK_SECONDS)
        parts = chunk_record(record, duration, settings.chunk_seconds, shortest, settings.chunk_captions)
        sources: dict[str, _Source] = {}
        for role, one in found.items():
            file = one.file
            part = parts[0] is not record or _is_part(record, duration, one.info)
            exact = part or settings.normalize is not None
            sources[role] = _read_source(job, role, one.path, one.info, file, exact, record.start + duration)
    except OwnFieldError as error:
        return [rejected(record, error.file, str(error), missing=error.file is not None)]
    except MediaError as error:
        if error.path == FFMPEG:  # no fault of the clip
            raise
        return [rejected(record, file, error.reason, unreadable=True)]
    except RecordError as error:
        return [rejected(record, file, str(error))]
    except Exception as error:  # one bad file must not stop the run, whatever it provokes
        _refuse_full_disk(error, job.scratch)
        return [rejected(record, file, f"unexpected {type(error).__name__}: {error}")]
    spans = [duration if part is record else part.duration or 0.0 for part in parts]
    return [
        _check_clip(job, part, sources, stored, span, longest, number)
        for number, (part, span) in enumerate(zip(parts, spans, strict=True))
        if only is None or part.id == only
    ]


@dataclass(frozen=True)
class _Found:
    """A source file, what it holds, and how errors call it."""

    path: Path
    info: MediaInfo
    file: str


def _probe(job: Job, role: str, path: Path, file: str, without: str | None) -> MediaInfo | None:
    """Reads what a file holds, a picture fully; None where that is nothing but what is to be left out."""
    if picture_kind(path) is not None:
        if role == "audio":
            raise MediaError(file, "holds no audio: it is a picture")
        return None if without == "video" else check_picture(path, file, job.settings.animations)
    if without is None:
        return probe(path, file)
    return probe(path, file, kinds=[kind for kind in ("audio", "video") if kind != without])


def _note_animations(record: Record, settings: PackSettings, found: dict[str, _Found]) -> Record:
    videos = [(one, one.info.video) for one in found.values() if one.info.video is not None]
    if settings.animations == "all" or not any(video.still and is_animation(one.path) for one, video in videos):
        return record
    note = "an animation, of which the first picture is taken (--animations all takes them all, as a video)"
    return replace(record, notes=(*record.notes, note))


def _with_cover(job: Job, record: Record, found: dict[str, _Found]) -> tuple[dict[str, _Found], Record]:
    """Adds the cover of a file of sound as the clip's picture, where it has one and no video."""
    sound = next((one for one in found.values() if one.info.audio is not None), None)
    if sound is None or any(one.info.video is not None for one in found.values()):
        return found, record
    cover = cover_art(sound.path)
    if cover is None:
        return found, record
    path = job.scratch / f"{job.index}-video{_COVER}"
    path.write_bytes(cover)
    try:
        info = check_picture(path, sound.file)
    except MediaError as error:
        return found, replace(record, notes=(*record.notes, f"its cover art is left out: {error.reason}"))
    return {**found, "video": _Found(path, info, sound.file)}, record


def _fit_texts(record: Record, duration: Seconds) -> Record:
    notes = list(record.notes)
    captions = {
        kind: fit_captions(items, duration, EVENT_TOLERANCE_SECONDS, f"caption of type {kind!r}", notes)
        for kind, items in record.captions.items()
    }
    transcript = fit_captions(record.transcript, duration, EVENT_TOLERANCE_SECONDS, "segment of the transcript", notes)
    kept = {kind: items for kind, items in captions.items() if items}
    return replace(record, captions=kept, transcript=transcript, notes=tuple(notes))


def _check_clip(
    job: Job,
    record: Record,
    sources: dict[str, _Source],
    stored: dict[str, Stored],
    duration: Seconds,
    longest: Seconds,
    number: int,
) -> CheckedClip:
    stem = job.scratch / f"{job.index}-{number}"
    whole = record.start == 0 and record.duration is None
    try:
        own = keep_own(job.fields, stored, None if whole else (record.start, duration), stem)
        make = _keep_or_cut if job.settings.normalize is None else _normalize
        paths, infos = make(job, record, sources, duration, stem)
    except MediaError as error:
        if error.path == FFMPEG:  # no fault of the clip
            raise
        file = error.path if error.path in record.files.values() else None
        return _cleaned(_scratch(stem), rejected(record, file, error.reason, unreadable=True))
    except OwnFieldError as error:
        return _cleaned(_scratch(stem), rejected(record, None, str(error)))
    except Exception as error:  # one bad file must not stop the run, whatever it provokes
        _refuse_full_disk(error, job.scratch)
        return _cleaned(_scratch(stem), rejected(record, None, f"unexpected {type(error).__name__}: {error}"))
    held = {role: source.info for role, source in sources.items()}
    clip = CheckedClip(
        record,
        paths=paths,
        infos=infos,
        scratch=_scratch(stem),
        duration=duration,
        source_seconds=longest,
        sources=held,
        events=record.events,
        own=own,
    )
    notes = [
        f"captions of type {kind!r}, but the clip has no {missing}"
        for kind in record.captions
        for missing in missing_media(kind, clip.holds("audio") is not None, clip.holds("video") is not None)
    ]
    return replace(clip, notes=(*record.notes, *notes))


def _is_part(record: Record, duration: Seconds, info: MediaInfo) -> bool:
    return record.start > 0 or duration < info.duration - _WHOLE_SECONDS


def _keep_or_cut(
    job: Job, record: Record, sources: dict[str, _Source], duration: Seconds, stem: Path
) -> tuple[dict[str, Path], dict[str, MediaInfo]]:
    settings = job.settings
    paths: dict[str, Path] = {}
    infos: dict[str, MediaInfo] = {}
    for role, source in sources.items():
        needs, file, video = () if role == "media" else (role,), source.file, source.info.video
        if role != "media" and role not in source.parts:
            raise MediaError(file, f"holds no {role}")
        if (
            video is not None and video.image
        ):  # decoded already, and packed whole: a part of an animation begins later in it
            paths[role] = source.path
            infos[role] = replace(source.info, origin=0.0 if video.still else record.start)
            continue
        check_container(source.path, file)
        if _is_part(record, duration, source.info):
            output = stem.with_name(f"{stem.name}-{role}.mp4")
            info = cut_span(source.parts, output, record.start, duration, file)
            held = min(duration, source.info.duration - record.start)
            paths[role] = output
            infos[role] = _without_traces(check_media(output, needs, settings.min_seconds, held, file, info))
        elif source.is_whole:
            decode = not settings.check_video
            paths[role] = source.path
            infos[role] = check_media(source.path, needs, settings.min_seconds, None, file, source.info, decode)
        else:
            made = _keep_parts(source, settings, file)
            paths |= {kind: part.path for kind, part in made.items()}
            infos |= {kind: part.info for kind, part in made.items()}
    return paths, infos


def _keep_parts(source: _Source, settings: PackSettings, file: str) -> dict[str, Part]:
    """Checks the sound and the pictures of a file of which FFmpeg made one or both anew; each is packed for itself."""
    made = {}
    for kind, part in source.parts.items():
        decode = kind == "video" and not settings.check_video
        checked = check_media(part.path, (kind,), settings.min_seconds, None, file, part.info, decode)
        made[kind] = Part(part.path, checked)
    _refuse_truncated(source, max(part.info.duration for part in made.values()), file)
    return made


def _refuse_truncated(source: _Source, held: Seconds, file: str) -> None:
    end = announced_end(source.path)
    if end is not None and held < end - source.info.origin - TOLERANCE_SECONDS:
        raise MediaError(file, f"truncated: its streams end at {held:.2f} s of {end - source.info.origin:.2f} s")


def _without_traces(info: MediaInfo) -> MediaInfo:
    """Leaves out sound of which a cut holds no more than the padding of a codec, where there is a picture."""
    audio, video = info.audio, info.video
    nothing = audio is not None and video is not None and audio.duration <= NOTHING_SECONDS["audio"]
    return replace(info, audio=None) if nothing else info


def _normalize(
    job: Job, record: Record, sources: dict[str, _Source], duration: Seconds, stem: Path
) -> tuple[dict[str, Path], dict[str, MediaInfo]]:
    how = job.settings.normalize or Normalize()
    made: dict[str, Path] = {}
    infos: dict[str, MediaInfo] = {}
    for role, source in sources.items():
        path, info, file = source.path, source.info, source.file
        if role != "media" and role not in source.parts:
            raise MediaError(file, f"holds no {role}")
        if info.video is not None and info.video.image:
            made["video"], infos["video"] = _normalize_picture(source, stem, record.start, duration, how)
            continue
        check_container(path, file)
        if not _is_part(record, duration, info):
            # The re-encoding decodes all frames; what it cannot know is how much there should be.
            if source.is_whole:
                check_media(path, (), job.settings.min_seconds, None, file, info, decode_video=False)
            else:
                _refuse_truncated(source, max(part.info.duration for part in source.parts.values()), file)
        for kind, part in source.parts.items():
            output = normalize_span(part, kind, stem, record.start, duration, how, file)
            if output is not None:
                made[kind] = output
                infos[kind] = check_normalized(output, kind, duration, how, file)
        # Headers do not tell when each stream ends (Matroska gives all the end of the file), so the longest one counts.
        held = max((infos[kind].duration for kind in infos), default=0.0)
        expected = min(duration, info.duration - record.start)
        short = held < expected - TOLERANCE_SECONDS if role == "media" else role not in made
        if short:
            raise MediaError(file, f"truncated: its streams are re-encoded to {held:.2f} s of {expected:.2f} s")
    return made, infos


def _normalize_picture(
    source: _Source, stem: Path, start: Seconds, duration: Seconds, how: Normalize
) -> tuple[Path, MediaInfo]:
    video = source.info.video
    if video is None or video.still:
        output = stem.with_name(f"{stem.name}-video.jpg")
        return output, shrink_picture(source.path, output, how.video_size, source.file)
    output = stem.with_name(f"{stem.name}-video.mp4")
    shown = min(duration, source.info.duration - start)
    write_animation(source.path, output, start, shown, how.video_size, how.video_fps, how.crf, how.gop, source.file)
    return output, check_normalized(output, "video", shown, how, source.file)


def _scratch(stem: Path) -> tuple[Path, ...]:
    return tuple(sorted(stem.parent.glob(f"{stem.name}-*")))


def _refuse_full_disk(error: Exception, scratch: Path) -> None:
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        raise error
    if shutil.disk_usage(scratch).free < 1 << 16:
        raise OSError(errno.ENOSPC, "No space left on device") from error


def _check_span(record: Record, duration: Seconds, longest: Seconds, min_seconds: Seconds) -> None:
    if record.start >= longest:
        raise RecordError(f"the clip starts at {record.start:g} s, but the file ends at {longest:.2f} s")
    if record.start + duration > longest + TOLERANCE_SECONDS:
        raise RecordError(f"the clip reaches to {record.start + duration:g} s, but the file ends at {longest:.2f} s")
    if duration < min_seconds:
        raise RecordError(f"too short: {duration:.3f} s, at least {min_seconds:g} s are needed (min_seconds)")


def _cleaned(paths: Sequence[Path], outcome: CheckedClip) -> CheckedClip:
    for path in paths:
        path.unlink(missing_ok=True)
    return outcome
