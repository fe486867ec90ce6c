"""What stages made of clips, on disk: a file for each stage and part, written whole, and a marker that says so.

A line is a clip: `{"id", "media", "out": {...}}`, or in place of `out` `failed` (a reason) and `attempts`, or `blocked` (the stage that
it waits for). `media` says which bytes and which span of them it was made of: a line of other media does not count. While a part is
computed its lines go to a journal beside the file; a run that was killed reads them. The file takes its place in one step, and only
the marker that follows says that it is there: who computes a part twice replaces a file by an equal one.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peav.atomic import replacing
from peav.data.manifests.clip import Clip

#: The custom field of a clip that says what of it the engine wrote.
OWN_MARK = "engine"

#: One of them is in each line: what came of the clip.
_RESULTS = {"out", "failed", "blocked"}

#: Lines of one stage by clip id.
Rows = dict[str, dict[str, Any]]


def media_key(clip: Clip, with_texts: bool = False) -> str:
    """Returns what tells the media of a clip, and the part of them that it is, from others.

    Args:
        clip: the clip.
        with_texts: whether the captions that people wrote tell it, too.

    >>> media_key(Clip("a", 2.0, crc32=5)), media_key(Clip("a", 2.0, start=1.0, crc32=5))
    ('00000005/0/2', '00000005/1/2')
    """
    key = f"{clip.crc32:08x}/{round(clip.offset, 6):g}/{round(clip.duration, 6):g}"
    if with_texts:
        texts = json.dumps([real_captions(clip), real_transcript(clip)], sort_keys=True, ensure_ascii=False)
        key += f"/{zlib.crc32(texts.encode('utf-8', 'surrogatepass')):08x}"
    return key


def real_captions(clip: Clip) -> dict[str, list[str]]:
    """Returns the captions of a clip that people wrote, by type."""
    held = {kind: [c.text for c in items if c.origin == "real"] for kind, items in clip.captions.items()}
    return {kind: texts for kind, texts in held.items() if texts}


def owned(clip: Clip) -> list[str]:
    """Returns which of `transcript`, `domain` and `events` of a clip the engine wrote."""
    said = clip.extra.get(OWN_MARK)
    return list(said.get("wrote", ())) if isinstance(said, dict) else []


def real_transcript(clip: Clip) -> str | None:
    """Returns what is said in a clip, unless the engine itself wrote that into the manifest."""
    return None if "transcript" in owned(clip) else clip.transcript


@dataclass(frozen=True)
class Marker:
    """What is said of a file of a part once it is whole.

    Attributes:
        rows: clips in it.
        failed: of them.
        blocked: of them.
        seconds: that the stage took for them, in this and earlier runs.
        decode_seconds: that reading and decoding media for it took.
        digest: of the clips of the part and their media.
        stamp: when it was written, by the clock of the file system.
        tokens_in: of the prompts that the stage gave to models, where it knows them.
        tokens_out: of their answers.
        size: of the file, bytes; -1 where an earlier version did not say.
    """

    rows: int
    failed: int
    blocked: int
    seconds: float
    decode_seconds: float
    digest: str
    stamp: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    size: int = -1


class PartFile:
    """The file of a part of one stage.

    Args:
        folder: of the stage.
        number: of the part.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.path = folder / f"{number:06d}.jsonl"
        self.marker_path = folder / f"{number:06d}.done"
        self.journal_path = folder / f"{number:06d}.journal"

    def marker(self) -> Marker | None:
        """Returns what the marker says; None where the file is not whole, or was damaged since."""
        try:
            with self.marker_path.open(encoding="utf-8") as stream:
                data, stamp = json.load(stream), os.fstat(stream.fileno()).st_mtime
            marker, size = Marker(**data, stamp=stamp), self.path.stat().st_size
        except (OSError, ValueError, TypeError):
            return None
        whole = size == marker.size if marker.size >= 0 else bool(size) or not marker.rows
        return marker if whole else None

    def load(self) -> Rows:
        """Returns the lines of the file, and of the journal; a clip that succeeded in either succeeded."""
        rows: Rows = {}
        for path in (self.path, self.journal_path):
            for row in read_lines(path):
                if not (isinstance(row.get("id"), str) and "media" in row and _RESULTS & row.keys()):
                    continue  # what another program wrote there
                before = rows.get(row["id"])
                if before is None or "out" in row or "out" not in before or before["media"] != row["media"]:
                    rows[row["id"]] = row
        return rows

    def note(self, rows: Iterable[dict[str, Any]]) -> None:
        """Appends lines to the journal, in one write.

        Raises:
            OSError: if the disk is full.
        """
        self.journal_path.parent.mkdir(parents=True, exist_ok=True)
        data = memoryview("".join(_line(row) for row in rows).encode("utf-8", "backslashreplace"))
        if not data:
            return
        descriptor = os.open(self.journal_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)

    def write(self, rows: Iterable[dict[str, Any]], marker: Marker) -> None:
        """Writes the file and then its marker, each in one step, and removes the journal.

        Raises:
            OSError: if the disk is full.
        """
        replace_file(self.path, (_line(row) for row in rows))
        said = {name: value for name, value in vars(marker).items() if name != "stamp"}
        said["size"] = self.path.stat().st_size
        replace_file(self.marker_path, [json.dumps(said)])
        self.journal_path.unlink(missing_ok=True)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the lines of a file; nothing of one that is not there, and of a line that was cut short."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    with stream:
        for line in stream:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue  # cut off when its process was killed; another one may have written on behind it
            if isinstance(row, dict):
                yield row


def read_json_file(path: Path) -> dict[str, Any]:
    """Reads a small JSON file; {} of one that is still being written, or holds something else.

    Raises:
        FileNotFoundError: if it is not there.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def replace_file(path: Path, lines: Iterable[str]) -> None:
    """Writes a file, all of it or nothing, and waits until it is on the disk.

    Raises:
        OSError: if the disk is full; what was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(path, durable=True, shared=True) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        stream.writelines(lines)
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError:  # a file system that does not open folders
        return
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
