"""What a run of `prepare` has done so far, on disk, so that a run that was killed goes on where it was.

`outcomes.jsonl` has a line a record, in their order: how many clips came of it, what was rejected and what was noted.
`journal.jsonl` has a line for each chunk of a split that is on disk for good, and says how long the manifest of the split was then.
A record whose clips all lie in such chunks, or of which all was rejected, is settled: it is not read again. Both files are
appended to a whole line at a time; a last line that was cut short does not count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from peav.data.manifests.records import Note, Reject

#: Files of the two logs, inside the output folder, and what is left of the first one by an earlier run.
OUTCOMES, JOURNAL, EARLIER = "outcomes.jsonl", "journal.jsonl", "outcomes.earlier.jsonl"


@dataclass(frozen=True)
class Outcome:
    """What came of a record.

    Attributes:
        id: of the record; "" where it has none.
        split: that its clips went to; "" when all was rejected.
        clips: how many were packed.
        rejects: what was not.
        notes: about what was.
    """

    id: str = ""
    split: str = ""
    clips: int = 0
    rejects: tuple[Reject, ...] = ()
    notes: tuple[Note, ...] = ()

    def to_line(self) -> str:
        """Returns the line of the log."""
        return json.dumps(asdict(self), ensure_ascii=False)


def outcome_from_line(line: bytes) -> Outcome:
    """Reads a line of the log."""
    data = json.loads(line)
    rejects = tuple(Reject(**reject) for reject in data["rejects"])
    return Outcome(data["id"], data["split"], data["clips"], rejects, tuple(Note(**note) for note in data["notes"]))


class LineFile:
    """A file that grows by whole lines, unbuffered: what was appended survives the death of the process.

    Args:
        path: of the file.
        keep: bytes to keep of what is there; all by default.
    """

    def __init__(self, path: Path, keep: int | None = None) -> None:
        self.path = path
        path.touch()
        if keep is not None:
            os.truncate(path, keep)
        self._stream = path.open("ab", buffering=0)
        self.size = path.stat().st_size

    def append(self, line: str) -> None:
        """Appends a line.

        Raises:
            OSError: if the disk is full.
        """
        data = memoryview((line + "\n").encode())
        self.size += len(data)
        while data:
            data = data[self._stream.write(data) or 0 :]

    def sync(self) -> None:
        """Waits until all lines are on the disk."""
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()


class OutcomeLog:
    """The outcomes of all records, in their order: those of an earlier run are read, and all are written anew.

    Args:
        folder: that holds the log.
    """

    def __init__(self, folder: Path) -> None:
        path, earlier = folder / OUTCOMES, folder / EARLIER
        if path.exists():
            done, size = _whole_lines(path)
            log = LineFile(path, size)
            if earlier.exists():  # of a run that was itself the second one: what it did not reach yet follows
                with earlier.open("rb") as stream:
                    for line in islice(stream, done, None):
                        if line.endswith(b"\n"):
                            log.append(line.decode().rstrip("\n"))
            log.sync()
            log.close()
            path.replace(earlier)
        self._earlier = _lines(earlier)
        self._log = LineFile(path)

    def earlier(self) -> Outcome | None:
        """Returns what an earlier run made of the next record, in their order; None if it did not come so far."""
        line = next(self._earlier, None)
        return None if line is None else outcome_from_line(line)

    def add(self, outcome: Outcome) -> None:
        """Appends the outcome of the next record.

        Raises:
            OSError: if the disk is full.
        """
        self._log.append(outcome.to_line())

    def sync(self) -> None:
        """Waits until all lines are on the disk."""
        self._log.sync()

    def close(self) -> None:
        """Closes the log."""
        self._log.close()


@dataclass
class Durable:
    """What of a split is on disk for good.

    Attributes:
        chunks: what LitData's index says of them.
        config: what it says of all.
        manifest_bytes: length of the manifest that describes them.
    """

    chunks: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    manifest_bytes: int = 0

    @property
    def rows(self) -> int:
        """Clips in these chunks."""
        return sum(int(info["chunk_size"]) for info in self.chunks)


class Journal:
    """Which chunks are on disk for good.

    Args:
        folder: that holds the journal.

    Attributes:
        durable: by split, as an earlier run left it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / JOURNAL
        self.durable = read_journal(folder)
        self._log = LineFile(path, _whole_lines(path)[1] if path.exists() else None)

    def add(self, split: str, chunks: list[dict[str, Any]], config: dict[str, Any], manifest_bytes: int) -> None:
        """Says that more chunks of a split are on disk for good.

        Raises:
            OSError: if the disk is full.
        """
        entry = {"split": split, "chunks": chunks, "config": config, "manifest_bytes": manifest_bytes}
        self._log.append(json.dumps(entry))
        self._log.sync()

    def close(self) -> None:
        """Closes the journal."""
        self._log.close()


def read_journal(folder: Path) -> dict[str, Durable]:
    """Returns what an earlier run put on disk for good, by split."""
    durable: dict[str, Durable] = {}
    for line in _lines(folder / JOURNAL):
        entry = json.loads(line)
        split = durable.setdefault(entry["split"], Durable())
        split.chunks += entry["chunks"]
        split.config = entry["config"]
        split.manifest_bytes = entry["manifest_bytes"]
    return durable


def _lines(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as stream:
            yield from (line for line in stream if line.endswith(b"\n"))


def _whole_lines(path: Path) -> tuple[int, int]:
    """Returns how many whole lines a file has, and their bytes."""
    count = size = 0
    for line in _lines(path):
        count += 1
        size += len(line)
    return count, size
