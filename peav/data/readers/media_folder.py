"""Finding the media of a data set: a folder is listed once, and files are found in it by their names without the extension."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from peav.data.manifests.fields import RecordError
from peav.data.media.folders import AUDIO_EXTENSIONS, MEDIA_EXTENSIONS, walk
from peav.types import Seconds


class MissingError(RecordError):
    """A clip whose file is not there; carries the path, or the pattern, that was looked for."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(reason)
        self.file = file


def seen_only(caption_type: str) -> str:
    """Returns the type of captions of a picture: what is heard, or heard and seen, is `video` where there is no sound.

    >>> seen_only("audio"), seen_only("audio_video"), seen_only("title")
    ('video', 'video', 'title')
    """
    return "video" if caption_type in ("audio", "audio_video") else caption_type


def holds(path: str) -> str:
    """Returns `audio` for a file of sound and `video` for one with a picture, moving or still, by its extension."""
    return "audio" if PurePosixPath(path).suffix.lower() in AUDIO_EXTENSIONS else "video"


def as_fields(files: Mapping[str, str]) -> dict[str, str]:
    """Returns the files of a clip as fields of its record: a single one may hold both sound and picture, and is its `media`.

    Args:
        files: paths by what they hold, `audio` or `video`.
    """
    return dict(files) if len(files) != 1 else dict.fromkeys(["media"], *files.values())


def by_role(paths: Iterable[str]) -> dict[str, str]:
    """Returns the files of one clip as fields of its record.

    Of several files of sound, or with a picture, the one whose extension is listed first is taken.

    >>> by_role(["a.mp4"]), by_role(["a.mp4", "a.mp3", "a.wav"])
    ({'media': 'a.mp4'}, {'audio': 'a.wav', 'video': 'a.mp4'})
    """
    files: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: (MEDIA_EXTENSIONS.index(PurePosixPath(path).suffix.lower()), path)):
        files.setdefault(holds(path), path)
    return as_fields(files)


@dataclass(frozen=True)
class Span:
    """A span of a YouTube video, times in seconds."""

    youtube_id: str
    start: Seconds
    duration: Seconds

    @property
    def id(self) -> str:
        """Id of the clip as AudioSet has it: the id of the video and the start in milliseconds.

        >>> Span("-0Gj8-vB1q4", 30, 10).id
        '-0Gj8-vB1q4_30000'
        """
        return f"{self.youtube_id}_{round(self.start * 1000)}"

    def stems(self) -> list[str]:
        """Returns the names that downloaders give to a cut clip."""
        start, end = self.start, self.start + self.duration
        times = [
            f"{start:g}_{end:g}",
            f"{start:.3f}_{end:.3f}",
            f"{start * 1000:.0f}_{end * 1000:.0f}",
            f"{start:g}",
            f"{start * 1000:.0f}",
        ]
        if start == int(start):
            times.append(f"{int(start):06d}")
        return [f"{self.youtube_id}_{time}" for time in times]


class MediaFolder:
    """The media in a sub-folder of a data set, at any depth.

    Args:
        source: folder of the data set.
        folder: the sub-folder.

    Raises:
        FileNotFoundError: if there is no such folder.
    """

    def __init__(self, source: Path, folder: str) -> None:
        if not (source / folder).is_dir():
            raise FileNotFoundError(
                f"no folder {folder!r} in {source}: it should hold the media; name another by `media`"
            )
        self.folder = folder
        self._by_stem: dict[str, list[str]] = {}
        for path in walk(source / folder, MEDIA_EXTENSIONS):
            self._by_stem.setdefault(PurePosixPath(path).stem, []).append(os.path.join(folder, path))
        self._owners: dict[str, str] = {}

    def find(self, stem: str) -> dict[str, str]:
        """Returns the files of that name by role, see `by_role`.

        Raises:
            MissingError: if there is none.
        """
        if stem not in self._by_stem:
            raise MissingError(f"{self.folder}/{stem}.*", f"no media file {stem}.* in {self.folder!r}")
        return by_role(self._by_stem[stem])

    def find_span(self, span: Span, whole_videos: bool) -> dict[str, Any]:
        """Returns the files of a span of a YouTube video by role, and its start and duration in them where they are whole videos.

        The names tried are those of `Span.stems`, then the id alone; each also after a "Y", as some downloaders have it.

        Args:
            span: what to look for.
            whole_videos: whether a file named by the id alone is the whole video; else it is the clip, already cut.

        Raises:
            MissingError: if there is none.
            RecordError: if the file was taken as another cut clip already.
        """
        for stem in span.stems():
            for name in (stem, f"Y{stem}"):
                if name in self._by_stem:
                    return dict(self.find(name))
        whole = next((name for name in (span.youtube_id, f"Y{span.youtube_id}") if name in self._by_stem), None)
        if whole is None:
            pattern = f"{self.folder}/{span.youtube_id}.*"
            tried = ", ".join(f"{name}.*" for name in (span.youtube_id, *span.stems()))
            raise MissingError(pattern, f"no media file in {self.folder!r} by any of the names {tried}")
        if whole_videos:
            return {**self.find(whole), "start": span.start, "duration": span.duration}
        if (owner := self._owners.setdefault(whole, span.id)) != span.id:
            raise RecordError(
                f"{whole}.* in {self.folder!r} was taken as clip {owner!r} already: if it is the whole video, set whole_videos"
            )
        return dict(self.find(whole))
