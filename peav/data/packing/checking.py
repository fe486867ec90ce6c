"""What a worker of `prepare` does with a record: cut it into clips, decode each fully, and say what it holds or what is wrong."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from peav.data.manifests.records import EVENT_TOLERANCE_SECONDS, Event, Record, RecordError, Reject, fit_events
from peav.data.manifests.texts import fit_captions, missing_media
from peav.data.media.checks import (
    FFMPEG,
    FULL_DISK,
    TOLERANCE_SECONDS,
    check_container,
    check_media,
    check_video_errors,
)
from peav.data.media.cutting import cut_span, remux
from peav.data.media.normalize import Normalize, check_normalized, normalize_span
from peav.data.media.probing import MediaError, MediaInfo, misleads_seek, probe
from peav.data.media.spans import NOTHING_SECONDS
from peav.data.packing.chunking import ChunkCaptions, chunk_record
from peav.data.packing.journal import Outcome
from peav.data.packing.own_fields import KeptFields, OwnFieldError, keep_own, read_own
from peav.fields import Field, Stored
from peav.types import Seconds

#: A span that differs from the whole file by less than this is the whole file, in seconds.
_WHOLE_SECONDS = 0.05

#: A rest of a long recording is a clip from so many seconds on.
_MIN_CHUNK_SECONDS = 1.0

#: How files end that were put into another container, packet by packet.
_REMUXED = ".remuxed.mkv"


@dataclass(frozen=True)
class PackSettings:
    """What is done with every record.

    Attributes:
        min_seconds: shorter clips are rejected.
        check_video: decode video a second time with all errors fatal.
        chunk_seconds: length of the clips that longer recordings are cut into; 0 leaves them whole.
        chunk_captions: what becomes of captions about a whole recording that is cut.
        normalize: what clips are re-encoded to; None keeps their media as they are.
    """

    min_seconds: Seconds = 0.1
    check_video: bool = True
    chunk_seconds: Seconds = 30.0
    chunk_captions: ChunkCaptions = "copy"
    normalize: Normalize | None = None

    def __post_init__(self) -> None:
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
        paths: what to pack, by role.
        infos: what that holds, by role.
        scratch: those of `paths` that are to be deleted afterwards.
        duration: of the clip, seconds.
        source_seconds: duration of its longest source file.
        sources: what the source files hold, by role.
        events: its events, clamped into it; None when not annotated.
        notes: what its author should know.
        own: its fields of one's own kind.
    """

    record: Record
    reject: Reject | None = None
    paths: dict[str, Path] = field(default_factory=dict)
    infos: dict[str, MediaInfo] = field(default_factory=dict)
    scratch: tuple[Path, ...] = ()
    duration: Seconds = 0.0
    source_seconds: Seconds = 0.0
    sources: dict[str, MediaInfo] = field(default_factory=dict)
    events: tuple[Event, ...] | None = None
    notes: tuple[str, ...] = ()
    own: KeptFields = field(default_factory=KeptFields)

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


def rejected(record: Record, file: str | None, reason: str, missing: bool = False) -> CheckedClip:
    """Returns the outcome of a clip that cannot be used."""
    file = file if file is not None else next(iter(record.files.values()), None)
    return CheckedClip(record, reject=Reject(record.id, file, record.line, reason, missing))


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
        if job.settings.check_video and clip.infos[role].video is not None and not _is_encoded(clip, path)
    ]
    for found, error in check_video_errors([path for *_, path in suspects]).items():
        index, number, role, _ = suspects[found]
        clip = outcomes[index][number]
        outcomes[index][number] = _cleaned(clip.scratch, rejected(clip.record, clip.record.files[role], error))
    return outcomes


def _is_encoded(clip: CheckedClip, path: Path) -> bool:
    return path in clip.scratch and not path.name.endswith(_REMUXED)


@dataclass(frozen=True)
class _Source:
    """A source file as it is read, and what it holds."""

    path: Path
    info: MediaInfo


def _check_job(job: Job) -> list[CheckedClip]:
    clips = _check_record(job)
    packed = [index for index, clip in enumerate(clips) if clip.paths]
    for path in job.scratch.glob(f"{job.index}-*{_REMUXED}"):
        whole = next((index for index in packed if path in clips[index].paths.values()), None)
        if whole is None:
            path.unlink()
        else:
            clips[whole] = replace(clips[whole], scratch=(*clips[whole].scratch, path))
    return clips


def _check_record(job: Job) -> list[CheckedClip]:
    record, settings = job.record, job.settings
    file: str | None = None
    try:
        sources: dict[str, _Source] = {}
        for role, file in record.files.items():
            path = job.root / file
            if not path.is_file():
                return [rejected(record, file, "no such file", missing=True)]
            if misleads_seek(path):
                path = remux(path, job.scratch / f"{job.index}-{role}{_REMUXED}", file)
            sources[role] = _Source(path, probe(path, file))
        longest = max(source.info.duration for source in sources.values())
        duration = longest - record.start if record.duration is None else record.duration
        _check_span(record, duration, longest, settings.min_seconds)
        if record.events is not None:
            record = replace(record, events=fit_events(record.events, duration))
        record = _fit_texts(record, duration)
        stored = read_own(job.fields, record, job.root)
    except OwnFieldError as error:
        return [rejected(record, error.file, str(error), missing=error.file is not None)]
    except (MediaError, RecordError) as error:
        return [rejected(record, file, error.reason if isinstance(error, MediaError) else str(error))]
    except Exception as error:  # one bad file must not stop the run, whatever it provokes
        _refuse_full_disk(error, job.scratch)
        return [rejected(record, file, f"unexpected {type(error).__name__}: {error}")]
    shortest = max(settings.min_seconds, _MIN_CHUNK_SECONDS)
    parts = chunk_record(record, duration, settings.chunk_seconds, shortest, settings.chunk_captions)
    spans = [duration if part is record else part.duration or 0.0 for part in parts]
    return [
        _check_clip(job, part, sources, stored, span, longest, number)
        for number, (part, span) in enumerate(zip(parts, spans, strict=True))
    ]


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
        return _cleaned(_scratch(stem), rejected(record, file, error.reason))
    except OwnFieldError as error:
        return _cleaned(_scratch(stem), rejected(record, None, str(error)))
    except Exception as error:  # one bad file must not stop the run, whatever it provokes
        _refuse_full_disk(error, job.scratch)
        return _cleaned(_scratch(stem), rejected(record, None, f"unexpected {type(error).__name__}: {error}"))
    held = {role: source.info for role, source in sources.items()}
    clip = CheckedClip(record, None, paths, infos, _scratch(stem), duration, longest, held, record.events, own=own)
    notes = [
        f"captions of type {kind!r}, but the clip has no {missing}"
        for kind in record.captions
        for missing in missing_media(kind, clip.holds("audio") is not None, clip.holds("video") is not None)
    ]
    return replace(clip, notes=(*record.notes, *notes))


def _keep_or_cut(
    job: Job, record: Record, sources: dict[str, _Source], duration: Seconds, stem: Path
) -> tuple[dict[str, Path], dict[str, MediaInfo]]:
    settings = job.settings
    paths: dict[str, Path] = {}
    infos: dict[str, MediaInfo] = {}
    for role, file in record.files.items():
        needs = () if role == "media" else (role,)
        path, held, video = sources[role].path, sources[role].info.duration, sources[role].info.video
        trimmed = video is not None and video.trimmed
        if record.start > 0 or duration < held - _WHOLE_SECONDS or trimmed:
            output = stem.with_name(f"{stem.name}-{role}.mp4")
            info = cut_span(path, output, record.start, duration, file)
            path, held = output, min(duration, held - record.start)
            infos[role] = _without_traces(check_media(path, needs, settings.min_seconds, held, file, info))
        else:
            decode = not settings.check_video
            infos[role] = check_media(path, needs, settings.min_seconds, None, file, sources[role].info, decode)
        paths[role] = path
    return paths, infos


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
    for role, file in record.files.items():
        path, info = sources[role].path, sources[role].info
        if role != "media" and getattr(info, role) is None:
            raise MediaError(file, f"holds no {role}")
        if record.start > 0 or duration < info.duration - _WHOLE_SECONDS:
            check_container(path, file)
        else:  # the re-encoding decodes all frames; what it cannot know is how much there should be
            check_media(path, (), job.settings.min_seconds, None, file, info, decode_video=False)
        for kind in ("audio", "video") if role == "media" else (role,):
            if getattr(info, kind) is not None:
                output = normalize_span(path, info, kind, stem, record.start, duration, how, file)
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


def _scratch(stem: Path) -> tuple[Path, ...]:
    return tuple(sorted(stem.parent.glob(f"{stem.name}-*")))


def _refuse_full_disk(error: Exception, scratch: Path) -> None:
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        raise error
    if shutil.disk_usage(scratch).free < 1 << 16:
        raise OSError(errno.ENOSPC, "No space left on device") from error


def _check_span(record: Record, duration: Seconds, longest: Seconds, min_seconds: Seconds) -> None:
    file = ", ".join(record.files.values())
    if record.start >= longest:
        raise MediaError(file, f"the clip starts at {record.start:g} s, but the file ends at {longest:.2f} s")
    if record.start + duration > longest + TOLERANCE_SECONDS:
        raise MediaError(
            file, f"the clip reaches to {record.start + duration:g} s, but the file ends at {longest:.2f} s"
        )
    if duration < min_seconds:
        raise MediaError(file, f"too short: {duration:.3f} s, at least {min_seconds:g} s are needed (min_seconds)")


def _cleaned(paths: Sequence[Path], outcome: CheckedClip) -> CheckedClip:
    for path in paths:
        path.unlink(missing_ok=True)
    return outcome
