"""Files to the embeddings of their windows, decoded ahead and given back in pieces that are worth writing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.progress import Progress

from peav.cli.decoding import MediaFile, decoding_seconds, map_ahead, split_by_size
from peav.cli.media_files import Rejects, decode
from peav.inputs import Loaded, MediaEmbedder, MediaItem, Output, Request, group_by_length
from peav.types import Seconds

#: A piece is written after so many files, or so much of their media.
_FILES_A_PIECE, _SECONDS_A_PIECE = 64, 3600.0


@dataclass
class Piece:
    """Files that are written together.

    Attributes:
        planned: the windows of each, by row.
        waiting: windows that are not decoded.
        outputs: what the windows gave, by row and start.
        failed: rows of files that could not be decoded.
    """

    planned: dict[int, list[Request]]
    waiting: int
    outputs: dict[tuple[int, Seconds], Output] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)

    def windows(self) -> Iterator[tuple[int, list[tuple[Request, Output]]]]:
        """Yields the row of each file that could be decoded, and its windows with what they gave."""
        for row, requests in self.planned.items():
            if row not in self.failed:
                yield row, [(request, self.outputs[row, request.window.start]) for request in requests]


@dataclass(frozen=True)
class _Work:
    """Windows that a process decodes at once: a part of what goes through the model at once, or all of it."""

    piece: Piece
    requests: list[Request]
    ends_group: bool


def embed_in_pieces(
    embedder: MediaEmbedder,
    files: Sequence[MediaFile],
    rejected: Rejects,
    progress: Progress,
    batch_seconds: Seconds,
    workers: int | None,
) -> Iterator[Piece]:
    """Embeds the windows of files; those that cannot be decoded are noted with their reasons.

    Args:
        embedder: the model and its windows.
        files: whose headers were read.
        rejected: gets the files that cannot be decoded.
        progress: shows how far it is.
        batch_seconds: seconds of media that go through the model at once.
        workers: processes that decode; None for as many as are worth it.

    Yields:
        each piece when all of its windows are embedded.
    """
    task = progress.add_task("embed media", total=len(files), unit="files")
    planned = [embedder.plan(row, file.item) for row, file in enumerate(files)]
    pieces = [
        Piece({row: planned[row] for row in rows}, sum(len(planned[row]) for row in rows))
        for rows in _cut([file.item for file in files])
    ]
    work: list[_Work] = []
    for piece in pieces:
        requests = [request for own in piece.planned.values() for request in own]
        seconds = [request.cost_seconds for request in requests]
        for group in group_by_length(seconds, batch_seconds):
            parts = split_by_size([requests[index] for index in group])
            work += [_Work(piece, part, index == len(parts) - 1) for index, part in enumerate(parts)]
    windows, done = sum(map(len, planned)), 0
    ready: list[tuple[Request, Loaded]] = []
    seconds_to_decode = sum(decoding_seconds(file.item) for file in files)
    loaded = map_ahead(decode, [job.requests for job in work], seconds_to_decode, workers)
    for job, results in zip(work, loaded, strict=True):
        piece = job.piece
        for request, result in zip(job.requests, results, strict=True):
            if isinstance(result, Loaded):
                ready.append((request, result))
            elif request.row not in piece.failed:
                piece.failed.add(request.row)
                rejected.add(files[request.row].path, result)
            piece.waiting -= 1
        if job.ends_group and ready:
            outputs = embedder.run([loaded for _, loaded in ready])
            for (request, _), output in zip(ready, outputs, strict=True):
                piece.outputs[request.row, request.window.start] = output
            ready.clear()
        done += len(job.requests)
        progress.update(task, completed=len(files) * done / windows)
        if not piece.waiting:
            yield piece
            piece.outputs.clear()


def holds_too_little(item: MediaItem) -> str:
    """Returns why a model makes nothing of an item."""
    held = "audio" if item.video is None else "video"
    return f"holds only {held}, of which alone the model makes no embedding"


def _cut(items: Sequence[MediaItem]) -> list[list[int]]:
    """Cuts items into pieces, by number and by duration."""
    pieces: list[list[int]] = []
    seconds = 0.0
    for row, item in enumerate(items):
        if not pieces or len(pieces[-1]) == _FILES_A_PIECE or seconds >= _SECONDS_A_PIECE:
            pieces.append([])
            seconds = 0.0
        pieces[-1].append(row)
        seconds += item.seconds or 0.0
    return pieces
