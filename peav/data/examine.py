"""What a worker of `prepare` does with a clip: cut it out where needed, decode it fully, and say what it holds or what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from peav.data.checks import TOLERANCE_SECONDS, check_media, check_video_errors
from peav.data.cutting import cut_span
from peav.data.media import MediaError, MediaInfo, probe
from peav.data.records import Event, Record, RecordError, Reject, fit_events
from peav.types import Seconds

#: A span that differs from the whole file by less than this is the whole file, in seconds.
_WHOLE_SECONDS = 0.05


@dataclass(frozen=True)
class Job:
    """A clip to examine.

    Attributes:
        index: position in the order of the records; names its scratch files.
        record: the clip.
        root: folder that its paths start from.
        scratch: folder for what is cut out.
        min_seconds: shorter clips are rejected.
        check_video: decode video a second time with all errors fatal.
    """

    index: int
    record: Record
    root: Path
    scratch: Path
    min_seconds: Seconds
    check_video: bool


@dataclass(frozen=True)
class Examined:
    """A clip that was examined: `reject` is set, or all the rest.

    Attributes:
        record: the clip.
        reject: why it cannot be used.
        paths: what to pack, by role.
        infos: what that holds, by role.
        scratch: those of `paths` that are to be deleted afterwards.
        duration: of the clip, seconds.
        source_seconds: duration of its longest source file.
        events: its events, clamped into it; None when not annotated.
        notes: what its author should know.
    """

    record: Record
    reject: Reject | None = None
    paths: dict[str, Path] = field(default_factory=dict)
    infos: dict[str, MediaInfo] = field(default_factory=dict)
    scratch: tuple[Path, ...] = ()
    duration: Seconds = 0.0
    source_seconds: Seconds = 0.0
    events: tuple[Event, ...] | None = None
    notes: tuple[str, ...] = ()


def rejected(record: Record, file: str | None, reason: str) -> Examined:
    """Returns the outcome of a clip that cannot be used."""
    file = file if file is not None else next(iter(record.files.values()), None)
    return Examined(record, reject=Reject(record.id, file, record.line, reason))


def crashed(job: Job) -> Examined:
    """Returns the outcome of a clip whose examination killed its process."""
    return rejected(job.record, None, "the process that decoded it died: FFmpeg crashed on it, or the memory ran out")


def examine(jobs: Sequence[Job]) -> list[Examined]:
    """Examines clips; a bad one never stops the others. Picklable."""
    torch.set_num_threads(1)  # the processes are the parallelism
    outcomes = [_examine(job) for job in jobs]
    # Spans were re-encoded with all errors fatal already.
    suspects = [
        (index, role, path)
        for index, (job, outcome) in enumerate(zip(jobs, outcomes, strict=True))
        for role, path in outcome.paths.items()
        if job.check_video and outcome.infos[role].video is not None and path not in outcome.scratch
    ]
    for found, error in check_video_errors([path for _, _, path in suspects]).items():
        index, role, _ = suspects[found]
        record = jobs[index].record
        for path in outcomes[index].scratch:
            path.unlink(missing_ok=True)
        outcomes[index] = rejected(record, record.files[role], error)
    return outcomes


def _examine(job: Job) -> Examined:
    record = job.record
    cut: list[Path] = []
    file: str | None = None
    try:
        sources: dict[str, MediaInfo] = {}
        for role, file in record.files.items():
            path = job.root / file
            if not path.is_file():
                raise MediaError(file, "no such file")
            sources[role] = probe(path, file)
        longest = max(info.duration for info in sources.values())
        duration = longest - record.start if record.duration is None else record.duration
        _check_span(record, duration, longest, job.min_seconds)
        paths: dict[str, Path] = {}
        infos: dict[str, MediaInfo] = {}
        for role, file in record.files.items():
            needs = () if role == "media" else (role,)
            path = job.root / file
            held = sources[role].duration
            if record.start > 0 or duration < held - _WHOLE_SECONDS:
                output = job.scratch / f"{job.index}-{role}.mp4"
                cut.append(output)
                info = cut_span(path, output, record.start, duration, file)
                path, held = output, min(duration, held - record.start)
                infos[role] = check_media(path, needs, job.min_seconds, held, file, info)
            else:
                infos[role] = check_media(path, needs, job.min_seconds, None, file, sources[role], not job.check_video)
            paths[role] = path
        events = None if record.events is None else fit_events(record.events, duration)
    except (MediaError, RecordError) as error:
        return _cleaned(cut, rejected(record, file, error.reason if isinstance(error, MediaError) else str(error)))
    except Exception as error:  # one bad file must not stop the run, whatever it provokes
        return _cleaned(cut, rejected(record, file, f"unexpected {type(error).__name__}: {error}"))
    has = {
        "audio": any(info.audio is not None for role, info in infos.items() if role != "video"),
        "video": any(info.video is not None for role, info in infos.items() if role != "audio"),
    }
    notes = [
        f"captions of type {kind!r}, but the clip has no {missing}"
        for kind in record.captions
        for missing in kind.split("_")
        if not has[missing]
    ]
    return Examined(record, None, paths, infos, tuple(cut), duration, longest, events, tuple(notes))


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


def _cleaned(paths: Sequence[Path], outcome: Examined) -> Examined:
    for path in paths:
        path.unlink(missing_ok=True)
    return outcome
