"""Media read and decoded ahead of the model, in processes where that is worth their start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.progress import Progress

from peav.cli.media_files import Rejects, crashed, probe_files
from peav.data.media.stills import Animations
from peav.data.workers import available_cpus, resilient_map
from peav.inputs import MediaItem, Request

#: Three parts a process wait in memory; a window of 30 s of which every frame is taken is 300 MB, and a part of its own.
_BYTES_A_PART = 64 << 20
_MOST_WORKERS = 8
_PROBES_A_GROUP = 16

#: Processes take this many seconds to start: less work than that is done in this one.
_START_SECONDS = 4.0
#: What decoding takes, roughly, in seconds: to look at a file, to open it, and a second of its sound and its pictures.
_PROBING, _OPENING, _SOUND, _PICTURES = 0.03, 0.05, 0.004, 0.06


@dataclass(frozen=True)
class MediaFile:
    """A file that can be read: its path, what tells its state, and what it holds."""

    path: str
    key: str
    item: MediaItem


def check_workers(workers: int | None) -> None:
    """Checks a number of processes.

    Raises:
        ValueError: if it is negative.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers must be 0, to work in this process, or more, not {workers}")


def read_headers(
    keys: Mapping[str, str],
    kinds: Sequence[str],
    workers: int | None,
    rejected: Rejects,
    progress: Progress,
    animations: Animations = "first",
    cover: bool = False,
) -> list[MediaFile]:
    """Reads the headers of files, given with their keys; those that hold nothing to read are noted with their reasons."""
    paths = list(keys)
    task = progress.add_task("read headers", total=len(paths), unit="files")
    files: list[MediaFile] = []
    groups = [paths[begin : begin + _PROBES_A_GROUP] for begin in range(0, len(paths), _PROBES_A_GROUP)]
    probe = partial(probe_files, kinds=tuple(kinds), animations=animations, cover=cover)
    probed = map_ahead(probe, groups, _PROBING * len(paths), workers)
    for group, results in zip(groups, probed, strict=True):
        for path, result in zip(group, results, strict=True):
            if isinstance(result, str):
                rejected.add(path, result)
            else:
                files.append(MediaFile(path, keys[path], result))
        progress.advance(task, len(group))
    return files


def map_ahead(
    function: Any, groups: Sequence[Sequence[Any]], seconds: float, workers: int | None
) -> Iterator[list[Any]]:
    """Maps a function over groups that take so many seconds in all, roughly, in processes where they are worth their start."""
    if workers is None:
        workers = min(available_cpus(), _MOST_WORKERS) if seconds > _START_SECONDS else 0
    # One process for one group would cost seconds to start and save nothing.
    workers = min(workers, len(groups)) if len(groups) > 1 else 0
    return resilient_map(function, groups, workers, crashed, preload=["peav.inputs", "torchcodec"])


def decoding_seconds(item: MediaItem) -> float:
    """Returns how long an item takes to decode, roughly."""
    sound = 0.0 if item.audio is None else _OPENING + _SOUND * (item.audio.seconds or 0.0)
    pictures = 0.0 if item.video is None else _OPENING + _PICTURES * (item.video.seconds or 0.0)
    return sound + pictures


def split_by_size(requests: Sequence[Request]) -> list[list[Request]]:
    """Cuts windows into parts of a size that many of them may wait in memory; at least one part."""
    parts: list[list[Request]] = [[]]
    size = 0
    for request in requests:
        if parts[-1] and size + request.decoded_bytes > _BYTES_A_PART:
            parts.append([])
            size = 0
        parts[-1].append(request)
        size += request.decoded_bytes
    return parts
