"""A folder of sounds, and a table of what is heard in them when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from peav.data.manifests.fields import RecordError
from peav.data.manifests.labels import Labels
from peav.data.manifests.records import OPEN, Record, Reject
from peav.data.readers.base import Reader
from peav.data.readers.clips import Clips
from peav.data.readers.events import EventTable
from peav.data.readers.labels import sorted_labels, spaced
from peav.data.readers.rows import Rows
from peav.data.readers.splits import check_split, split_by_folder

_COLUMNS = ("filename", "onset", "offset", "event_label")


class LabelTable(Reader):
    """A TSV file with a line that names the columns, and one event a row: filename, onset, offset, event_label, and confidence if any.

    It is the form of DCASE's tables. Times are in seconds. Without onset and offset the label holds somewhere in the file, or with a
    confidence of 0 nowhere in it. A row of a file name alone says that the file was listened to, and nothing of it was heard. Only files
    that the table names are read; one of them with a row that cannot be understood is left out whole. Ids are the file names; words in
    labels are separated by spaces. Cells may stand in quotation marks, as CSV has it; so do those that `peav detect --out X.tsv` writes.

    Args:
        table: path of the file, relative to the folder.
        media: sub-folder that the file names start from, "" for the folder itself.
        complete: whether every file was listened to for every label of the table, which are then the vocabulary `labels`: those that it
            does not have are absent from it. Else nothing is known of a file but its own rows.
        split: of all files; by default what their folders say (`train/a.wav`), else `train`.
        dataset: name of the data set.
        domain: label of the clips.
        delimiter: what stands between two cells.

    Raises:
        ValueError: if the split is unknown.
    """

    def __init__(
        self,
        table: str = "labels.tsv",
        media: str = "",
        complete: bool = True,
        split: str | None = None,
        dataset: str = "",
        domain: str = "",
        delimiter: str = "\t",
    ) -> None:
        self.table, self.media, self.complete, self.split = table, media, complete, check_split(split)
        self.dataset, self.domain, self.delimiter = dataset, domain, delimiter

    def labels(self, source: Path) -> Labels:
        """Returns the labels of the table, and what `labels.json` of the folder has; see `Reader.labels`."""
        given = super().labels(source)
        if not self.complete:
            return given
        found = sorted_labels(self._rows(source), "event_label")
        return Labels({"labels": found} if found else {}).merged(given)

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the files in the order of their first rows; see `Reader.read`.

        Raises:
            FileNotFoundError: if the table is not there.
            RecordError: if it lacks a column.
        """
        rows = self._rows(source)
        confidence = "confidence" if "confidence" in rows.header else None
        events = EventTable(*_COLUMNS, confidence, weak=True)
        for row in rows:
            if (bad := events.add(row, spaced)) is not None:
                yield bad
        clips = Clips(source, self.dataset, self.domain)
        known = self.complete and bool(self.labels(source).vocabularies)
        for name, line, annotated in events.clips():
            fields = {"events": annotated, "vocabulary": ("labels" if known else None) if self.complete else OPEN}
            path = f"{self.media}/{name}" if self.media else name
            yield clips.make(
                name, line, self.table, media=path, split=self.split or split_by_folder(name) or "train", **fields
            )

    def _rows(self, source: Path) -> Rows:
        rows = Rows(source, self.table, f"the columns {', '.join(_COLUMNS)}", (), self.delimiter, pad=True)
        if lacking := [name for name in _COLUMNS if name not in rows.header]:
            raise RecordError(
                f"{rows.path}: the first line must name the columns {', '.join(_COLUMNS)}, and may name confidence; it lacks "
                f"{', '.join(lacking)}{rows.other_delimiter()}"
            )
        return rows
