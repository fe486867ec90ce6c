"""What `prepare` gives its workers, and what comes back: records to check, and their clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from peav.data.manifests.records import Event, Note, Record, Reject
from peav.data.media.normalize import Normalize
from peav.data.media.probing import MediaInfo
from peav.data.media.stills import Animations
from peav.data.packing.chunking import ChunkCaptions
from peav.data.packing.journal import Outcome
from peav.data.packing.own_fields import KeptFields
from peav.fields import Field
from peav.types import Seconds

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
