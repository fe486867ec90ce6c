"""What lies in a folder of media, by one rule for all commands.

Links to folders are followed, each folder once and real ones first, so that circles end and a file goes by its own place; what is
hidden, a name that begins with a dot, is passed over with all that is in it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Extensions of audio files, the best first.
AUDIO_EXTENSIONS = (
    *(".wav", ".w64", ".flac", ".aif", ".aiff", ".caf", ".au", ".wv", ".tta"),
    *(".mp3", ".mp2", ".ogg", ".oga", ".opus", ".spx", ".m4a", ".m4b", ".mka", ".aac", ".ac3", ".eac3", ".dts"),
    *(".wma", ".amr"),
)

#: Extensions of files with a moving picture.
VIDEO_EXTENSIONS = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".flv", ".wmv", ".3gp", ".ogv", ".vob"),
)

#: Extensions of still pictures and animations.
PICTURE_EXTENSIONS = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".tif", ".tiff", ".bmp"),
    *(".avif", ".jp2", ".heic", ".heif", ".svg"),
)

#: Extensions of sound and moving pictures.
MEDIA_EXTENSIONS = AUDIO_EXTENSIONS + VIDEO_EXTENSIONS


@dataclass(frozen=True)
class FolderListing:
    """What a folder holds, at any depth.

    Attributes:
        files: paths relative to it, with forward slashes, sorted; links to files among them, also such as lead nowhere.
        hidden: files and folders that were passed over, for their names begin with a dot.
        unreadable: folders that cannot be listed.
    """

    files: list[str]
    hidden: int
    unreadable: list[str]


def list_folder(folder: str | Path) -> FolderListing:
    """Lists a folder; see `peav.data.media.folders` for the rule."""
    real: deque[str] = deque([str(folder)])
    links: deque[str] = deque()
    seen: set[str] = set()
    files: list[str] = []
    unreadable: list[str] = []
    hidden = 0
    while real or links:
        parent = real.popleft() if real else links.popleft()
        if (place := os.path.realpath(parent)) in seen:
            continue
        seen.add(place)
        try:
            entries = sorted(os.scandir(parent), key=lambda entry: entry.name)
        except OSError:
            unreadable.append(parent)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                hidden += 1
            elif entry.is_dir():
                (links if entry.is_symlink() else real).append(entry.path)
            else:
                files.append(os.path.relpath(entry.path, folder).replace(os.sep, "/"))
    return FolderListing(sorted(files), hidden, unreadable)


def extension_of(path: str) -> str:
    """Returns the extension of a file in lower case.

    >>> extension_of("a/B.JPG"), extension_of("a.b/c")
    ('.jpg', '')
    """
    return os.path.splitext(path)[1].lower()


def walk(folder: Path, extensions: tuple[str, ...] | None) -> Iterator[str]:
    """Yields the files at any depth of a folder by extension, sorted; see `list_folder`.

    Args:
        folder: where to look.
        extensions: in lower case, with their dots; the case of a file's own does not matter. None takes all files.

    Yields:
        Paths relative to `folder`, with forward slashes.
    """
    for path in list_folder(folder).files:
        if extensions is None or extension_of(path) in extensions:
            yield path
