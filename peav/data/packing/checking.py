"""What a worker of `prepare` does with a record: cut it into clips, decode each fully, and say what it holds or what is wrong."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from peav.data.manifests.records import EVENT_TOLERANCE_SECONDS, Record, RecordError, fit_events
from peav.data.manifests.texts import fit_captions, missing_media
from peav.data.media.checks import (
    CHANGED,
    TOLERANCE_SECONDS,
    check_container,
    check_media,
    check_stream,
    check_video_errors,
    refuse_short,
)
from peav.data.media.cutting import Part, cut_span
from peav.data.media.errors import MediaError
from peav.data.media.ffmpeg import FFMPEG, FULL_DISK
from peav.data.media.normalize import Normalize, check_normalized, normalize_span
from peav.data.media.probing import MediaInfo, probe
from peav.data.media.remake import make_pictures, shift_of
from peav.data.media.spans import NOTHING_SECONDS
from peav.data.media.stills import (
    shrink_picture,
    write_animation,
)
from peav.data.media.tracks import announced_end
from peav.data.packing.chunking import chunk_record
from peav.data.packing.jobs import CheckedClip, CheckedRecord, Job, PackSettings, Settled, rejected
from peav.data.packing.own_fields import OwnFieldError, keep_own, read_own
from peav.data.packing.sources import (
    COPIED,
    COVER,
    ENCODED,
    SOUND,
    Found,
    Source,
    note_animations,
    probe_source,
    read_source,
    with_cover,
)
from peav.fields import Stored
from peav.types import Seconds

#: A span that differs from the whole file by less than this is the whole file, in seconds.
_WHOLE_SECONDS = 0.05

#: A rest of a long recording is a clip from so many seconds on.
_MIN_CHUNK_SECONDS = 1.0


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
    return path in clip.scratch and not path.name.endswith(COPIED)


def _file_of(record: Record, role: str) -> str | None:
    return record.files.get(role, record.files.get("media"))


def _of_one_size(job: Job, clip: CheckedClip, role: str) -> CheckedClip:
    """Encodes pictures whose size changes anew; the sound beside them stays where it is."""
    file, info, path = _file_of(clip.record, role) or "", clip.infos[role], clip.paths[role]
    output = job.scratch / f"{job.index}-{role}{ENCODED}"
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
    for ending in (SOUND, COPIED, ENCODED, COVER):
        for path in job.scratch.glob(f"{job.index}-*{ending}"):
            whole = next((index for index in packed if path in clips[index].paths.values()), None)
            if whole is None:
                path.unlink()
            elif path not in clips[whole].scratch:
                clips[whole] = replace(clips[whole], scratch=(*clips[whole].scratch, path))
    return clips


def _check_record(job: Job, without: str | None = None, only: str | None = None) -> list[CheckedClip]:
    """Checks a record; without its `audio` or `video` and only its clip of an id where these are given."""
    record, settings = job.record, job.settings
    file: str | None = None
    try:
        found: dict[str, Found] = {}
        for role, file in record.files.items():
            path = job.root / file
            if not path.is_file():
                return [rejected(record, file, "no such file", missing=True)]
            if role != without and (info := probe_source(job, role, path, file, without)) is not None:
                found[role] = Found(path, info, file)
        if not found:
            return [rejected(record, None, f"holds nothing but {without}")]
        record = note_animations(record, settings, found)
        if settings.cover_art and without != "video":
            found, record = with_cover(job, record, found)
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
        sources: dict[str, Source] = {}
        for role, one in found.items():
            file = one.file
            part = parts[0] is not record or _is_part(record, duration, one.info)
            exact = part or settings.normalize is not None
            sources[role] = read_source(job, role, one, exact, record.start + duration)
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
    sources: dict[str, Source],
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
    job: Job, record: Record, sources: dict[str, Source], duration: Seconds, stem: Path
) -> tuple[dict[str, Path], dict[str, MediaInfo]]:
    settings = job.settings
    paths: dict[str, Path] = {}
    infos: dict[str, MediaInfo] = {}
    for role, source in sources.items():
        needs, file, video = () if role == "media" else (role,), source.file, source.info.video
        if role != "media" and role not in source.parts:
            raise MediaError(file, f"holds no {role}")
        if video is not None and video.image:
            # Decoded already, and packed whole: a part of an animation begins later in it.
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


def _keep_parts(source: Source, settings: PackSettings, file: str) -> dict[str, Part]:
    """Checks the sound and the pictures of a file of which FFmpeg made one or both anew; each is packed for itself."""
    ends = []
    for kind, part in source.parts.items():
        # Where the file itself holds both, the other stream need not be what torchcodec takes it for.
        decode = kind == "video" and not settings.check_video
        ends.append(check_stream(part.path, kind, file, decode) - part.info.origin)
        refuse_short(part.info.duration, settings.min_seconds, file)
    _refuse_truncated(source, max(ends), file)
    return source.parts


def _refuse_truncated(source: Source, held: Seconds, file: str) -> None:
    """Compares the second at which the streams end with what the container announces."""
    end, video = announced_end(source.path), source.info.video
    # How long the last picture lasts is often left out.
    last = 1 / video.fps if video is not None and video.fps else 0.0
    if end is not None and held < end - source.info.origin - TOLERANCE_SECONDS - last:
        raise MediaError(file, f"truncated: its streams end at {held:.2f} s of {end - source.info.origin:.2f} s")


def _without_traces(info: MediaInfo) -> MediaInfo:
    """Leaves out sound of which a cut holds no more than the padding of a codec, where there is a picture."""
    audio, video = info.audio, info.video
    nothing = audio is not None and video is not None and audio.duration <= NOTHING_SECONDS["audio"]
    return replace(info, audio=None) if nothing else info


def _normalize(
    job: Job, record: Record, sources: dict[str, Source], duration: Seconds, stem: Path
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
    source: Source, stem: Path, start: Seconds, duration: Seconds, how: Normalize
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
