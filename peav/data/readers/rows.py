"""Tables as data sets publish them, CSV or TSV, read a row at a time; a row that cannot be understood says so and costs no other."""

from __future__ import annotations

import csv
import math
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from peav.data.manifests.fields import RecordError, name_encoding
from peav.data.manifests.records import Reject
from peav.opening import MAX_LINE_BYTES

#: What stands between the cells of tables as people have them.
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

#: Lines that one row may span; a quotation mark that is never closed is given up after these.
_MAX_LINES = 50


def central_file(source: Path, name: str, holds: str) -> Path:
    """Returns the path of a file that a whole data set rests on.

    Args:
        source: folder of the data set.
        name: path of the file, relative to it.
        holds: what the file should hold, for the error.

    Raises:
        FileNotFoundError: if it is not there.
    """
    path = source / name
    if not path.is_file():
        raise FileNotFoundError(f"no file {name!r} in {source}: it should hold {holds}")
    return path


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        table: path of the table, relative to the data set.
        line: its first line, from 1.
        values: cells by column, without the white space around them; as far as they could be read where there is a problem.
        problem: why the row cannot be used; "" where it can.
    """

    table: str
    line: int
    values: dict[str, str]
    problem: str = ""

    def check(self) -> None:
        """Raises a RecordError if the row cannot be used."""
        if self.problem:
            raise RecordError(self.problem)

    def text(self, name: str) -> str:
        """Returns a cell.

        Raises:
            RecordError: if it is empty.
        """
        if not (value := self.values.get(name, "")):
            raise RecordError(f"column {name!r} is empty")
        return value

    def number(self, name: str) -> float:
        """Returns a cell that holds a number of seconds.

        Raises:
            RecordError: if it holds something else.
        """
        return to_number(self.text(name), name)

    def reject(self, reason: object, clip_id: str | None = None) -> Reject:
        """Returns the reject of this row."""
        return Reject(clip_id, self.table, self.line, str(reason))


def to_number(text: str, name: str, what: str = "a number of seconds") -> float:
    """Returns the number that a text holds.

    Raises:
        RecordError: if it holds none, or one that is not finite.

    >>> to_number("1.50", "onset")
    1.5
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        point = f": write {text.replace(',', '.')}" if re.fullmatch(r"\d+,\d+", text) else ""
        raise RecordError(f"{name!r} must be {what}, got {text!r}{point}")
    return value


class Rows:
    """The rows of a table. The header is read at once, the rows as they are asked for.

    Args:
        source: folder of the data set.
        table: path of the table, relative to it.
        holds: what the table should hold, for the error.
        required: columns that must be there.
        delimiter: between two cells.
        header: the columns, where the file does not name them in its first line.
        quoted: whether cells may stand in quotation marks, as CSV has it; TSV of annotations has none.
        pad: whether empty cells at the end of a row may be left out.

    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if the first line lacks a required column, without which no row could be read.
    """

    def __init__(
        self,
        source: Path,
        table: str,
        holds: str,
        required: Sequence[str] = (),
        delimiter: str = ",",
        header: Sequence[str] | None = None,
        quoted: bool = True,
        pad: bool = False,
    ) -> None:
        self.path, self.table = central_file(source, table, holds), table
        self.delimiter, self.quoted, self.pad = delimiter, quoted, pad
        self.named = header is None
        self.header = tuple(header) if header is not None else self._read_header()
        lacking = [name for name in required if name not in self.header]
        if lacking:
            raise RecordError(
                f"{self.path}: the first line must name the column(s) {', '.join(map(repr, lacking))}, it names "
                f"{', '.join(map(repr, self.header)) or 'none'}{self.other_delimiter()}"
            )

    def other_delimiter(self) -> str:
        """Says what seems to stand between the cells, where that is not what should; "" elsewhere."""
        found = [mark for mark in DELIMITERS if mark in self.header[0]] if len(self.header) == 1 else []
        if not found:
            return ""
        return f": its cells are separated by {DELIMITERS[found[0]]}, not by {DELIMITERS.get(self.delimiter, repr(self.delimiter))}"

    def _read_header(self) -> tuple[str, ...]:
        with self.path.open("rb") as stream:
            _, cells, problem = next(_split(stream, self.delimiter, self.quoted), (1, [], ""))
        if problem:
            raise RecordError(f"{self.path}: its first line, which should name the columns, is {problem}")
        return tuple(cells)

    def __iter__(self) -> Iterator[Row]:
        """Yields the rows, in the order of the file; empty lines are skipped."""
        with self.path.open("rb") as stream:
            rows = _split(stream, self.delimiter, self.quoted)
            if self.named:
                next(rows, None)
            for line, cells, problem in rows:
                short = len(cells) < len(self.header)
                if not problem and len(cells) != len(self.header) and not (self.pad and short):
                    problem = f"the line has {len(cells)} columns, not {len(self.header)}: {', '.join(self.header)}"
                yield Row(self.table, line, dict(zip(self.header, cells, strict=False)), problem)


def _split(stream: BinaryIO, delimiter: str, quoted: bool) -> Iterator[tuple[int, list[str], str]]:
    """Yields first line, cells and problem of each row.

    A row ends where its quotation marks are closed. Where that gives no proper row, the first line alone is at fault, and reading
    goes on with the second: else one stray mark would swallow the rows up to the next one.
    """
    ahead: deque[bytes] = deque()
    number = 0
    while line := ahead.popleft() if ahead else stream.readline(MAX_LINE_BYTES):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        taken = [line]
        cells, problem = _cells(line, delimiter, quoted)
        while (
            problem == _OPEN
            and len(taken) < _MAX_LINES
            and (more := ahead.popleft() if ahead else stream.readline(MAX_LINE_BYTES))
        ):
            taken.append(more)
            cells, problem = _cells(b"".join(taken), delimiter, quoted)
        if problem and len(taken) > 1:
            ahead.extendleft(reversed(taken[1:]))
            taken = taken[:1]
            cells, problem = _cells(line, delimiter, quoted)
        yield number, cells, problem
        number += len(taken) - 1


_OPEN = "a row whose quotation mark is never closed"


def _cells(line: bytes, delimiter: str, quoted: bool) -> tuple[list[str], str]:
    plain = [cell.strip() for cell in line.decode(errors="replace").rstrip("\r\n").split(delimiter)]
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return plain, f"not UTF-8: {name_encoding(line, error)}"
    if not quoted:
        return plain, ""
    try:
        return [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter, strict=True))], ""
    except csv.Error as error:
        return plain, _OPEN if "unexpected end of data" in str(error) else f"not CSV: {error}"
