"""Checks manifests against themselves and against their shards, and says all that is wrong rather than the first of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Group
from rich.table import Table
from rich.text import Text

from peav.data.curation.clip_table import ClipTable
from peav.data.curation.duplicates import CrossSplitDuplicates, duplicate_ids, duplicate_rows
from peav.data.curation.shard_checks import check_rows
from peav.data.manifests.clip import CUSTOM_FIELDS, clip_from_json
from peav.data.manifests.fields import RecordError, hint
from peav.data.manifests.labels import Labels, LabelsError, load_labels
from peav.data.manifests.line_checks import line_problems, unknown_fields
from peav.data.manifests.manifest import find_manifest, has_split
from peav.data.manifests.records import SPLITS, parse_line
from peav.data.progress import tracked
from peav.data.stores.outside import open_address
from peav.data.stores.reader import ShardReader
from peav.data.stores.remote import StoreError, StoreOptions
from peav.data.stores.samples import ShardError
from peav.fields import misspelt_caption_type
from peav.opening import lines_of

#: All splits that a folder has.
ALL_SPLITS = "all"

#: Problems of a kind that a report holds; a file of problems holds all.
REPORTED = 20


@dataclass(frozen=True)
class Problem:
    """Something wrong.

    Attributes:
        level: `error`, or `note` for what may well be meant.
        kind: one word: `line`, `id`, `split`, `events`, `labels`, `captions`, `medium`, `field`, `store`, `row`, `bytes`, `unnamed`,
            `leak`.
        split: of the manifest; None where it concerns no single one.
        line: in it, from 1; None where it concerns no single one.
        id: of the clip, where it has one.
        message: a sentence.
    """

    level: str
    kind: str
    split: str | None
    line: int | None
    id: str | None
    message: str

    def __str__(self) -> str:
        place = ", ".join(
            [
                *([str(self.split)] if self.split else []),
                *([f"line {self.line}"] if self.line else []),
                *([f"clip {self.id!r}"] if self.id is not None else []),
            ]
        )
        return f"{place}: {self.message}" if place else self.message


@dataclass
class ValidationReport:
    """What a check found.

    Attributes:
        data: the folder.
        clips: clips that could be read, by split.
        counts: problems by (level, kind).
        problems: the first of each kind.
    """

    data: str
    clips: dict[str, int] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """How many problems are errors."""
        return sum(count for (level, _), count in self.counts.items() if level == "error")

    @property
    def notes(self) -> int:
        """How many are notes."""
        return self.counts.total() - self.errors

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON can hold it."""
        counts = [{"level": level, "kind": kind, "count": count} for (level, kind), count in self.counts.items()]
        return {
            "data": self.data,
            "clips": self.clips,
            "counts": counts,
            "problems": [asdict(p) for p in self.problems],
        }

    def to_rich(self) -> Group:
        """Returns the problems for a terminal, errors first."""
        lines: list[Any] = []
        for level in ("error", "note"):
            found = [problem for problem in self.problems if problem.level == level]
            if found:
                table = Table(level, "kind", "what")
                for number, problem in enumerate(found, 1):
                    table.add_row(str(number), problem.kind, Text(str(problem)))
                lines.append(table)
            hidden = sum(count for (at, _), count in self.counts.items() if at == level) - len(found)
            if hidden:
                lines.append(f"... and {hidden:,} more {level}s of these kinds")
        clips = ", ".join(f"{count:,} {split}" for split, count in self.clips.items())
        return Group(*lines, f"{clips} clips: {self.errors:,} errors, {self.notes:,} notes")


def splits_of(data: str | Path, options: StoreOptions | None = None) -> list[str]:
    """Returns the splits that a folder has.

    Raises:
        FileNotFoundError: if it has none.
    """
    found = [split for split in SPLITS if has_split(data, split, options)]
    if not found:
        find_manifest(data, SPLITS[0], options)
    return found


def validate(
    data: str | Path,
    split: str = ALL_SPLITS,
    check_bytes: bool = True,
    problems_file: str | Path | None = None,
    options: StoreOptions | None = None,
    progress: bool = False,
) -> ValidationReport:
    """Checks the manifests of a folder line by line, clip against clip, and clip against shards.

    Args:
        data: folder that `peav prepare` wrote, or its address in an object store.
        split: `train`, `validation`, `test`, or `all` that there are.
        check_bytes: read all the media and compare their ids and checksums; without it only the rows are checked.
        problems_file: where to write every problem, one JSON object a line; nowhere by default.
        options: of object stores.
        progress: show how far the reading of the media is.

    Returns:
        Counts of all problems, and the first of each kind.

    Raises:
        FileNotFoundError: if the folder was not prepared, or lacks the split.
    """
    present = splits_of(data, options)
    splits = present if split == ALL_SPLITS else [split]
    paths = {name: find_manifest(data, name, options) for name in splits}
    with ExitStack() as stack:
        stream = stack.enter_context(open(problems_file, "w", encoding="utf-8")) if problems_file else None
        check = _Check(ValidationReport(str(data)), stream, paths)
        check.read_labels(data, options)
        for name in splits:
            check.lines(name)
        check.clips()
        total = len(check.table) if check_bytes else None
        advance = stack.enter_context(tracked("validate", total, progress and check_bytes))
        for name in check.table.stores:
            for position, level, kind, message in _store_problems(
                check.table, name, str(data), check_bytes, options, advance
            ):
                # Which rows nobody names is known only of all splits.
                if kind != "unnamed" or set(splits) == set(present):
                    check.add(level, kind, message, position)
    return check.report


def _store_problems(
    table: ClipTable, name: str, data: str, check_bytes: bool, options: StoreOptions | None, advance: Any
) -> Iterator[tuple[int | None, str, str, str]]:
    number = table.stores[name]
    try:
        yield from check_rows(
            table, number, ShardReader(open_address(data, name, options), options), check_bytes, advance
        )
    except (ShardError, StoreError) as error:
        clips = int((table.column("store") == number).sum())
        yield None, "error", "store", f"{clips} clips lie in {name!r}, which cannot be opened: {error}"


class _Check:
    """Collects problems while the lines are read."""

    def __init__(self, report: ValidationReport, stream: TextIO | None, paths: dict[str, Path]) -> None:
        self.report = report
        self.table = ClipTable()
        self.shared = CrossSplitDuplicates()
        self._stream = stream
        self._paths = paths
        self._labels: Labels | None = Labels()

    def read_labels(self, data: str | Path, options: StoreOptions | None) -> None:
        """Reads the labels of the folder; where they cannot be read the clips are not compared with them."""
        try:
            self._labels = load_labels(data, options)
        except LabelsError as error:
            self._labels = None
            self.note(Problem("error", "labels", None, None, None, str(error)))

    def add(self, level: str, kind: str, message: str, position: int | None = None) -> None:
        """Notes a problem of a clip, or of none in particular."""
        if position is None:
            self.note(Problem(level, kind, None, None, None, message))
            return
        split = self.table.split_of(position)
        line, begin = self.table.line_of(position)
        self.note(Problem(level, kind, split, line, self._id(split, begin), message))

    def note(self, problem: Problem) -> None:
        """Notes a problem."""
        key = problem.level, problem.kind
        self.report.counts[key] += 1
        if self.report.counts[key] <= REPORTED:
            self.report.problems.append(problem)
        if self._stream is not None:
            self._stream.write(json.dumps(asdict(problem), ensure_ascii=False) + "\n")

    def lines(self, split: str) -> None:
        """Reads the lines of a manifest."""
        extra: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        begin, clips = 0, 0
        with self._paths[split].open("rb") as stream:
            for number, line in enumerate(lines_of(stream), start=1):
                if line.strip():
                    name: str | None = None
                    try:
                        data = parse_line(line)
                        name = data["id"] if isinstance(data.get("id"), str) else None
                        clip = clip_from_json(data)
                    except RecordError as error:
                        self.note(Problem("error", "line", split, number, name, str(error)))
                    else:
                        clips += 1
                        for level, kind, message in line_problems(data, clip, split):
                            self.note(Problem(level, kind, split, number, clip.id, message))
                        why = None if self._labels is None else self._labels.problem(clip.vocabulary, clip.events or ())
                        if why is not None:
                            self.note(Problem("error", "labels", split, number, clip.id, why))
                        extra.update(unknown_fields(clip))
                        kinds.update(clip.captions.keys())
                        self.table.add(clip, split, number, begin)
                        self.shared.add(clip, split)
                begin += len(line)
        self.report.clips[split] = clips
        if not clips:
            self.note(Problem("error", "line", split, None, None, "the manifest holds no clip that can be read"))
        for name, count in sorted(extra.items()):
            message = f"{count} clips have the custom field {name!r}, which peav keeps but does not read{hint(name, CUSTOM_FIELDS)}"
            self.note(Problem("note", "field", split, None, None, message))

        for kind, count in sorted(kinds.items()):
            if (meant := misspelt_caption_type(kind)) is not None:
                message = f"{count} clips have captions of the type {kind!r}: did you mean {meant!r}?"
                self.note(Problem("note", "captions", split, None, None, message))

    def clips(self) -> None:
        """Compares the clips with each other."""
        for position, first in duplicate_ids(self.table):
            self.add(
                "error", "id", f"line {self.table.line_of(first)[0]} has the same id; ids must be unique", position
            )
        for position, first, why in duplicate_rows(self.table):
            other = f"line {self.table.line_of(first)[0]} of {self.table.split_of(first)}"
            row, store = self.table.column("row")[position], self.table.column("store")[position]
            name = list(self.table.stores)[store]
            self.add("error", "row", f"row {row} of {name} is used by {other} too, {why}", position)
        for sentence in self.shared.sentences():
            self.add("note", "leak", sentence)

    def _id(self, split: str, begin: int) -> str:
        with self._paths[split].open("rb") as stream:
            stream.seek(begin)
            return str(parse_line(stream.readline())["id"])
