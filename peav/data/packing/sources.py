"""The source files of a record: what they hold, and what is made anew of those that torchcodec would get wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from peav.data.manifests.records import Record
from peav.data.media.cutting import Part
from peav.data.media.errors import MediaError
from peav.data.media.probing import MediaInfo, probe
from peav.data.media.remake import make_pictures, make_sound, shift_of
from peav.data.media.stills import check_picture, cover_art, is_animation, picture_kind
from peav.data.packing.jobs import Job, PackSettings
from peav.types import Seconds

#: How files end that were made anew of a whole source, and pictures that were taken out of a file of sound.
SOUND, COPIED, ENCODED, COVER = ".sound.flac", ".copied.mkv", ".encoded.mp4", ".cover"


@dataclass(frozen=True)
class Found:
    """A source file, what it holds, and how errors call it."""

    path: Path
    info: MediaInfo
    file: str


@dataclass(frozen=True)
class Source:
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


def probe_source(job: Job, role: str, path: Path, file: str, without: str | None) -> MediaInfo | None:
    """Reads what a file holds, a picture fully; None where that is nothing but what is to be left out."""
    if picture_kind(path) is not None:
        if role == "audio":
            raise MediaError(file, "holds no audio: it is a picture")
        return None if without == "video" else check_picture(path, file, job.settings.animations)
    if without is None:
        return probe(path, file)
    return probe(path, file, kinds=[kind for kind in ("audio", "video") if kind != without])


def note_animations(record: Record, settings: PackSettings, found: dict[str, Found]) -> Record:
    """Notes of a record that more could be taken of its animation."""
    videos = [(one, one.info.video) for one in found.values() if one.info.video is not None]
    if settings.animations == "all" or not any(video.still and is_animation(one.path) for one, video in videos):
        return record
    note = "an animation, of which the first picture is taken (--animations all takes them all, as a video)"
    return replace(record, notes=(*record.notes, note))


def with_cover(job: Job, record: Record, found: dict[str, Found]) -> tuple[dict[str, Found], Record]:
    """Adds the cover of a file of sound as the clip's picture, where it has one and no video."""
    sound = next((one for one in found.values() if one.info.audio is not None), None)
    if sound is None or any(one.info.video is not None for one in found.values()):
        return found, record
    cover = cover_art(sound.path)
    if cover is None:
        return found, record
    path = job.scratch / f"{job.index}-video{COVER}"
    path.write_bytes(cover)
    try:
        info = check_picture(path, sound.file)
    except MediaError as error:
        return found, replace(record, notes=(*record.notes, f"its cover art is left out: {error.reason}"))
    return {**found, "video": Found(path, info, sound.file)}, record


def read_source(job: Job, role: str, found: Found, exact: bool, end: Seconds) -> Source:
    """Has FFmpeg make anew what torchcodec would get wrong.

    Args:
        job: the job.
        role: of the file in the record.
        found: the file.
        exact: whether spans are cut out of it, or it is encoded anew.
        end: second at which the last clip ends.

    Raises:
        MediaError: if it is damaged.
        OSError: if the disk is full.
    """
    path, info, file = found.path, found.info, found.file
    parts, shift, stem = {}, shift_of(info.begin, info.origin), job.scratch / f"{job.index}-{role}"
    audio, video = info.audio, info.video
    if audio is not None and role != "video":
        parts["audio"] = Part(path, info)
        if audio.sound == "odd" or (audio.sound == "whole" and exact):
            output = stem.with_name(stem.name + SOUND)
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
            output = stem.with_name(stem.name + (COPIED if video.pictures == "copy" else ENCODED))
            make_pictures(path, output, video.index, file, video.pictures, shift)
            parts["video"] = Part(output, probe(output, file, origin=0.0))
    return Source(path, info, parts, file)
