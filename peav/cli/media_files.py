"""What `peav embed` and `peav detect` work on: files, folders and texts; and what happens to them in worker processes."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from peav.data.manifests.fields import name_encoding
from peav.data.media.folders import MEDIA_EXTENSIONS, PICTURE_EXTENSIONS, extension_of, list_folder
from peav.data.media.probing import MediaError
from peav.data.media.stills import Animations
from peav.inputs import Loaded, MediaItem, Request, item_of_file, probe_file

#: What a folder is searched for. A file that is named itself may end as it likes.
SUFFIXES = (*MEDIA_EXTENSIONS, *PICTURE_EXTENSIONS)

_log = logging.getLogger(__name__)


def find_media(names: Sequence[str]) -> list[str]:
    """Returns files as they are named, and the media of folders, sorted, at any depth (`peav.data.media.folders`); each once.

    Raises:
        FileNotFoundError: if a name leads nowhere, or a folder holds no media.
    """
    found: dict[str, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            listing = list_folder(path)
            listed = [str(path / file) for file in listing.files if extension_of(file) in SUFFIXES]
            inside = [file for file in listed if os.path.isfile(file)]
            if len(inside) < len(listed):
                _log.warning("%d links in %s lead to no file: passed over", len(listed) - len(inside), name)
            if listing.hidden:
                _log.info("passed over %d hidden files and folders of %s", listing.hidden, name)
            for folder in listing.unreadable:
                _log.warning("the folder %s cannot be listed: what is in it is passed over", folder)
            if not inside:
                raise FileNotFoundError(f"folder {name} holds no media; looked for {' '.join(SUFFIXES)}")
            found |= dict.fromkeys(inside)
        elif path.is_file():
            found[str(path)] = None
        else:
            raise FileNotFoundError(f"there is no file or folder {name}")
    named: dict[str, str] = {}
    for name in found:
        named.setdefault(os.path.realpath(name), name)  # one file may be named in several ways
    return list(named.values())


def read_texts(path: Path | None, option: str = "--text") -> list[str]:
    """Reads texts, one a line; blank lines, and the mark with which some editors begin a file, are left out.

    A line ends where an editor ends it: separators inside a text, such as U+2028, do not end it.

    Args:
        path: the file; None for no texts.
        option: that names it, for messages.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no UTF-8 text, or empty.
    """
    if path is None:
        return []
    if not path.is_file():
        raise FileNotFoundError(f"{option}: there is no file {path}; give a file with one text a line")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{option}: {path} is not UTF-8 text: {name_encoding(path.read_bytes(), error)}") from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise ValueError(f"{option}: {path} holds no text")
    return texts


def file_key(path: str) -> str:
    """Identifies a file and its state: one that was written anew is another."""
    stat = Path(path).stat()
    return json.dumps(["file", path, stat.st_size, stat.st_mtime_ns])


def text_key(line: int, text: str) -> str:
    """Identifies a text."""
    return json.dumps(["text", line, text])


def probe_files(
    paths: Sequence[str], kinds: Sequence[str], animations: Animations = "first", cover: bool = False
) -> list[MediaItem | str]:
    """Reads headers; a file that is no medium, or lacks what the model reads, gives the reason."""
    _settle()
    return [_or_reason(lambda path=path: _item(path, kinds, animations, cover)) for path in paths]


def _item(path: str, kinds: Sequence[str], animations: Animations, cover: bool) -> MediaItem:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise MediaError(path, "its name is not UTF-8, so that no table could hold it: rename it") from None
    return item_of_file(path, probe_file(path, animations=animations), kinds, cover)


def decode(requests: Sequence[Request]) -> list[Loaded | str]:
    """Decodes windows; one that cannot be decoded gives the reason."""
    _settle()
    return [_or_reason(request.load) for request in requests]


def _settle() -> None:
    """Makes a worker a good neighbour: the processes are the parallelism, and Ctrl-C is the main process's to handle."""
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _or_reason(function: Any) -> Any:
    try:
        return function()
    except MediaError as error:
        return error.reason or str(error)
    except (ValueError, OSError) as error:
        return str(error)
    except Exception as error:  # one bad file must not stop the run, whatever it provokes
        return f"unexpected {type(error).__name__}: {error}"


def crashed(_: Any) -> str:
    """Returns the reason of a file on which a process died."""
    return "the process that decoded it died: FFmpeg crashed on it, or the memory ran out"


class Rejects(Protocol):
    """Takes files that were left out, and why."""

    def add(self, file: str, reason: str) -> None:
        """Notes a file."""


class RejectFile:
    """A JSONL file of files that were left out, and why, written as they come; there is none if there are none.

    Attributes:
        path: of the JSONL file.
        count: files left out.
        first: the first of them, with its reason.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.count, self.first = path, 0, ""
        path.unlink(missing_ok=True)

    def add(self, file: str, reason: str) -> None:
        """Notes a file."""
        if not self.count:
            self.first = f"{file}: {reason}"
        self.count += 1
        # A name that is no UTF-8 is written with its bytes escaped.
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(json.dumps({"file": file, "reason": reason}, ensure_ascii=False) + "\n")
