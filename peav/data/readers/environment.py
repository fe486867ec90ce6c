"""Data sets of sounds by class: ESC-50 and UrbanSound8K."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Record, Reject
from peav.data.readers.classified import Classified
from peav.data.readers.clips import Clips
from peav.data.readers.entries import Entry, MediaTree, records_of
from peav.data.readers.labels import check_template, class_captions, spaced
from peav.data.readers.rows import Row, Rows


class _Folded(Classified):
    """A table of sounds with a class and a fold each."""

    num_folds = 0
    columns: tuple[str, ...] = ()  # file name, fold, number of the class, name of the class

    def __init__(self, table: str, test_folds: Sequence[int] | None, template: str, domain: str) -> None:
        for fold in test_folds or ():
            if fold not in range(1, self.num_folds + 1):
                raise ValueError(f"the folds of {self.dataset} are 1 to {self.num_folds}, got {fold!r}")
        self.table, self.test_folds, self.domain = table, test_folds, domain
        self.template = check_template(template)

    def classes(self, source: Path) -> tuple[str, ...]:
        """Returns the names of the classes by their numbers; see `Classified.classes`."""
        _, _, number, name = self.columns
        found: dict[int, str] = {}
        for row in self._rows(source):
            if not row.problem and self._is_read(row) and row.values[number].isdecimal() and row.values[name]:
                found.setdefault(int(row.values[number]), spaced(row.values[name]))
        return tuple(found[key] for key in sorted(found))

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips in the order of the rows; see `Reader.read`.

        Raises:
            FileNotFoundError: if the table is not there.
            RecordError: if it lacks a column.
        """
        rows = self._rows(source)
        clips = Clips(source, self.dataset, self.domain)
        yield from records_of(self._entries(rows), MediaTree(source), clips, scratch, skip)

    def _rows(self, source: Path) -> Rows:
        return Rows(source, self.table, f"the columns {', '.join(self.columns)}", self.columns)

    def _entries(self, rows: Rows) -> Iterator[Entry | Reject]:
        name, fold, number, label = self.columns
        for row in rows:
            try:
                row.check()
                if not self._is_read(row):
                    continue
                if not row.text(fold).isdecimal():
                    raise RecordError(f"column {fold!r} must hold the number of a fold, got {row.text(fold)!r}")
                if not row.text(number).isdecimal():
                    raise RecordError(f"column {number!r} must hold the number of a class, got {row.text(number)!r}")
                clip_id = self._id(PurePosixPath(row.text(name)).stem, row.text(fold))
                captions = class_captions([spaced(row.text(label))], self.template)
            except RecordError as error:
                yield row.reject(error)
                continue
            test = self.test_folds is None or int(row.text(fold)) in self.test_folds
            yield Entry(
                clip_id,
                (clip_id,),
                row.line,
                rows.table,
                {"captions": captions, "split": "test" if test else "train"},
            )

    def _is_read(self, row: Row) -> bool:
        return True

    def _id(self, stem: str, fold: str) -> str:
        return stem


class ESC50(_Folded):
    """ESC-50 (Piczak, ACM MM 2015; https://github.com/karolpiczak/ESC-50): sounds of 5 s in fifty classes and five folds.

    Reads meta/esc50.csv with the columns filename, fold, target, category and esc10; the audio lies in audio/, or anywhere else in
    the folder, or in archives there. The class is the category, its words apart. Ids are the names of the files, which begin with
    the number of the fold.

    Args:
        test_folds: folds whose clips are of the split `test`, the others are `train`; by default all are `test`, as zero-shot
            classification takes them.
        esc10: whether to read ESC-10 alone, the clips of ten of the classes.
        template: `audio` caption with `{label}` in it, marked as synthetic; none by default.
        table: path of the CSV file.
        domain: label of the clips.

    Raises:
        ValueError: if a fold is unknown, or the template does not say where the label goes.
    """

    dataset = "ESC-50"
    num_folds = 5
    columns = ("filename", "fold", "target", "category")

    def __init__(
        self,
        test_folds: Sequence[int] | None = None,
        esc10: bool = False,
        template: str = "",
        table: str = "meta/esc50.csv",
        domain: str = "effects",
    ) -> None:
        super().__init__(table, test_folds, template, domain)
        self.esc10 = esc10

    def _rows(self, source: Path) -> Rows:
        columns = (*self.columns, "esc10") if self.esc10 else self.columns
        return Rows(source, self.table, f"the columns {', '.join(columns)}", columns)

    def _is_read(self, row: Row) -> bool:
        return not self.esc10 or row.values["esc10"].lower() == "true"


class UrbanSound8K(_Folded):
    """UrbanSound8K (Salamon et al., ACM MM 2014; https://urbansounddataset.weebly.com): sounds of up to 4 s in ten classes, ten folds.

    Reads metadata/UrbanSound8K.csv with the columns slice_file_name, fold, classID and class; the audio is audio/foldN/NAME, or
    foldN/NAME anywhere in the folder, or in archives there. The class is spelt with its words apart. Ids are `foldN/NAME` without
    the extension.

    Args:
        test_folds: folds whose clips are of the split `test`, the others are `train`; by default all are `test`, as zero-shot
            classification takes them.
        template: `audio` caption with `{label}` in it, marked as synthetic; none by default.
        table: path of the CSV file.
        domain: label of the clips.

    Raises:
        ValueError: if a fold is unknown, or the template does not say where the label goes.
    """

    dataset = "UrbanSound8K"
    num_folds = 10
    columns = ("slice_file_name", "fold", "classID", "class")

    def __init__(
        self,
        test_folds: Sequence[int] | None = None,
        template: str = "",
        table: str = "metadata/UrbanSound8K.csv",
        domain: str = "effects",
    ) -> None:
        super().__init__(table, test_folds, template, domain)

    def _id(self, stem: str, fold: str) -> str:
        return f"fold{fold}/{stem}"
