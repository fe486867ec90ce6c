"""Data sets of videos by action: Kinetics, UCF101 and HMDB51."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Record, Reject
from peav.data.readers.classified import Classified
from peav.data.readers.clips import Clips
from peav.data.readers.entries import Entry, MediaTree, records_of
from peav.data.readers.labels import check_template, class_captions, spaced, words_of
from peav.data.readers.rows import Row, Rows
from peav.data.readers.splits import check_splits

KINETICS_VERSIONS = (400, 600, 700)

#: What the tables of Kinetics call the splits.
_KINETICS_WORDS = {"train": ("train",), "validation": ("val", "validate"), "test": ("test",)}


class Kinetics(Classified):
    """Kinetics (Kay et al., arXiv 1705.06950; https://github.com/cvdfoundation/kinetics-dataset): spans of 10 s, an action each.

    Reads a table a split with the columns label, youtube_id, time_start and time_end. Its usual names are tried: annotations/SPLIT.csv,
    SPLIT.csv, kineticsN/SPLIT.csv, kinetics_N_SPLIT.csv and kinetics-N_SPLIT.csv, where SPLIT is train, val or validate, or test. The
    class is the label. A video is a file named `<youtube id>_<start>_<end>`, the seconds with six digits or as they are, at any depth, in
    folders of classes or not, or in archives; the one in replacement/ comes before the one that it replaces. Ids are the names with six
    digits.

    Kinetics-700 and Kinetics-700-2020 have the same form. The classes are the labels of the splits that are read. Tests whose labels were
    held out, so that their table has no column `label`, give a reject. Of Kinetics-600 and 700, the names of the files inside the
    published archives could not be looked up here; they are taken to be those of Kinetics-400.

    Args:
        version: 400, 600 or 700.
        splits: those of `train`, `validation` and `test` to read; by default those whose table is there.
        media: sub-folder of the videos, "" for the data set's own.
        template: `video` caption with `{label}` in it, marked as synthetic; none by default.
        domain: label of the clips; none by default.

    Raises:
        ValueError: if the version or a split is unknown, or the template does not say where the label goes.
    """

    def __init__(
        self,
        version: Literal[400, 600, 700] = 400,
        splits: Sequence[str] | None = None,
        media: str = "",
        template: str = "",
        domain: str = "",
    ) -> None:
        if version not in KINETICS_VERSIONS:
            raise ValueError(f"the versions of Kinetics are {', '.join(map(str, KINETICS_VERSIONS))}, got {version!r}")
        self.dataset = f"Kinetics-{version}"
        self.version, self.splits, self.media = version, check_splits(splits), media
        self.template, self.domain = check_template(template), domain

    def classes(self, source: Path) -> tuple[str, ...]:
        """Returns the actions in the order of the alphabet; see `Classified.classes`."""
        found = set[str]()
        for rows in self._tables(source).values():
            found.update(label for row in rows if not row.problem and (label := _label(row.values.get("label", ""))))
        return tuple(sorted(found))

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips, split by split, in the order of the rows; see `Reader.read`.

        Raises:
            FileNotFoundError: if a table or the folder of the media is not there.
            RecordError: if a table lacks a column.
        """
        tables = self._tables(source)
        clips = Clips(source, self.dataset, self.domain)
        yield from records_of(self._entries(tables), MediaTree(source, self.media), clips, scratch, skip)

    def _names(self, split: str) -> list[str]:
        n = self.version
        forms = (
            "annotations/{}.csv",
            "{}.csv",
            f"kinetics{n}/{{}}.csv",
            f"kinetics_{n}_{{}}.csv",
            f"kinetics-{n}_{{}}.csv",
        )
        return [form.format(word) for form in forms for word in _KINETICS_WORDS[split]]

    def _tables(self, source: Path) -> dict[str, Rows]:
        found: dict[str, str] = {}
        for split in self.splits or _KINETICS_WORDS:
            names = self._names(split)
            if (table := next((name for name in names if (source / name).is_file()), None)) is not None:
                found[split] = table
            elif self.splits is not None:
                raise FileNotFoundError(
                    f"none of the files {', '.join(names)} is in {source}: one of them must be there"
                )
        if not found:
            names = [name for split in _KINETICS_WORDS for name in self._names(split)]
            raise FileNotFoundError(f"none of the files {', '.join(names)} is in {source}: one at least must be there")
        tables = {}
        for split, table in found.items():
            columns = ("label", "youtube_id", "time_start", "time_end")
            needed = columns[1:] if split == "test" else columns
            tables[split] = Rows(source, table, f"the columns {', '.join(columns)}", needed)
        return tables

    def _entries(self, tables: dict[str, Rows]) -> Iterator[Entry | Reject]:
        for split, rows in tables.items():
            if "label" not in rows.header:
                yield Reject(
                    None, rows.table, 1, "the table has no column 'label': the labels of this test are held out"
                )
                continue
            for row in rows:
                try:
                    row.check()
                    label = _label(row.text("label"))
                    start, end = row.number("time_start"), row.number("time_end")
                    video = row.text("youtube_id")
                except RecordError as error:
                    yield row.reject(error)
                    continue
                clip_id = f"{video}_{round(start):06d}_{round(end):06d}"
                captions = class_captions([label], self.template, "video")
                names = (clip_id, f"{video}_{start:g}_{end:g}")
                yield Entry(clip_id, names, row.line, rows.table, {"captions": captions, "split": split})


def _label(text: str) -> str:
    return spaced(text.strip('"'))


class FoldedActions(Classified):
    """A data set of videos by action that its authors divide into `train` and `test` in three ways; the arguments are those of UCF101.

    Attributes:
        own_lists: sub-folder in which they published the lists.

    Raises:
        ValueError: if the fold or a split is unknown, or the template does not say where the label goes.
    """

    own_lists: ClassVar[str]

    def __init__(
        self,
        fold: Literal[1, 2, 3] = 1,
        splits: Sequence[str] | None = None,
        lists: str | None = None,
        media: str = "",
        template: str = "",
        domain: str = "",
    ) -> None:
        if fold not in (1, 2, 3):
            raise ValueError(f"the splits of {self.dataset} into train and test are 1, 2 and 3, got {fold!r}")
        self.fold, self.splits = fold, check_splits(splits) or ("train", "test")
        if "validation" in self.splits:
            raise ValueError(f"{self.dataset} has the splits train and test, not validation")
        self.lists = self.own_lists if lists is None else lists
        self.media, self.template, self.domain = media, check_template(template), domain

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips, list by list, in the order of the lines; see `Reader.read`.

        Raises:
            FileNotFoundError: if a list or the folder of the media is not there.
            RecordError: if a list that the others rest on cannot be understood.
        """
        clips = Clips(source, self.dataset, self.domain)
        yield from records_of(self._entries(source), MediaTree(source, self.media), clips, scratch, skip)

    @abstractmethod
    def _entries(self, source: Path) -> Iterator[Entry | Reject]:
        """Yields what the lists say, in their order."""


class UCF101(FoldedActions):
    """UCF101 (Soomro et al., arXiv 1212.0402; https://www.crcv.ucf.edu/data/UCF101.php): clips of 101 actions.

    Reads ucfTrainTestlist/classInd.txt, lines of a number and a class, and trainlist01.txt and testlist01.txt beside it, or those of
    another of the three splits: lines CLASS/NAME.avi, with the number of the class behind it in the first. A video is a file
    CLASS/NAME at any depth, or in archives; RAR archives must be unpacked. The words of a class, such as ApplyEyeMakeup, are put apart.
    Ids are `CLASS/NAME`.

    Args:
        fold: which of the three splits into `train` and `test`: 1, 2 or 3.
        splits: those of `train` and `test` to read; both by default.
        lists: sub-folder of the lists, ucfTrainTestlist by default.
        media: sub-folder of the videos, "" for the data set's own.
        template: `video` caption with `{label}` in it, marked as synthetic; none by default.
        domain: label of the clips; none by default.
    """

    dataset, own_lists = "UCF101", "ucfTrainTestlist"

    def classes(self, source: Path) -> tuple[str, ...]:
        """Returns the actions by their numbers; see `Classified.classes`."""
        return tuple(words_of(name) for name in self._names(source))

    def _rows(self, source: Path, name: str) -> Rows:
        table = os.path.join(self.lists, name)
        return Rows(
            source, table, "the lists of UCF101; name their folder by `lists`", (), "\0", ("line",), quoted=False
        )

    def _names(self, source: Path) -> list[str]:
        rows = self._rows(source, "classInd.txt")
        found: dict[int, str] = {}
        for row in rows:
            number, _, name = row.values.get("line", "").partition(" ")
            if row.problem or not number.isdecimal() or not name.strip():
                raise RecordError(f"{rows.path}, line {row.line}: it must be a number and a class, got {row.values!r}")
            found[int(number)] = name.strip()
        return [found[number] for number in sorted(found)]

    def _entries(self, source: Path) -> Iterator[Entry | Reject]:
        names = self._names(source)
        tables = {split: self._rows(source, f"{split}list{self.fold:02d}.txt") for split in self.splits}
        for split, rows in tables.items():
            for row in rows:
                path = PurePosixPath(re.sub(r"\s+\d+$", "", row.values.get("line", "")))
                name = path.parent.name
                if row.problem or name not in names:
                    why = f"a line must be CLASS/NAME.avi with a class of classInd.txt, got {str(path)!r}"
                    yield row.reject(row.problem or why)
                    continue
                clip_id = f"{name}/{path.stem}"
                captions = class_captions([words_of(name)], self.template, "video")
                yield Entry(clip_id, (clip_id,), row.line, rows.table, {"captions": captions, "split": split})


class HMDB51(FoldedActions):
    """HMDB51 (Kuehne et al., ICCV 2011; https://serre.lab.brown.edu/hmdb51.html): clips of 51 actions.

    Reads testTrainMulti_7030_splits/CLASS_test_split1.txt, or those of another of the three splits: lines of a file name and 1 for
    `train`, 2 for `test`, or 0 for neither. A video is a file CLASS/NAME at any depth, or in archives; RAR archives, as the set is
    published, must be unpacked. The words of a class, such as brush_hair, are put apart. Ids are `CLASS/NAME` without the extension.

    Args:
        fold: which of the three splits into `train` and `test`: 1, 2 or 3.
        splits: those of `train` and `test` to read; both by default.
        lists: sub-folder of the lists, testTrainMulti_7030_splits by default.
        media: sub-folder of the videos, "" for the data set's own.
        template: `video` caption with `{label}` in it, marked as synthetic; none by default.
        domain: label of the clips; none by default.
    """

    dataset, own_lists = "HMDB51", "testTrainMulti_7030_splits"

    def classes(self, source: Path) -> tuple[str, ...]:
        """Returns the actions in the order of the alphabet; see `Classified.classes`."""
        return tuple(spaced(name) for name in self._tables(source))

    def _tables(self, source: Path) -> dict[str, str]:
        """Returns the list of each class."""
        end = f"_test_split{self.fold}.txt"
        folder = source / self.lists
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        tables = {name.removesuffix(end): os.path.join(self.lists, name) for name in names if name.endswith(end)}
        if not tables:
            raise FileNotFoundError(
                f"no file CLASS{end} in {folder}: they should list the clips; name their folder by `lists`"
            )
        return tables

    def _entries(self, source: Path) -> Iterator[Entry | Reject]:
        for name, table in self._tables(source).items():
            captions = class_captions([spaced(name)], self.template, "video")
            for row in Rows(source, table, "the clips of a class", (), "\0", ("line",), quoted=False):
                file, _, tag = row.values.get("line", "").rpartition(" ")
                if row.problem or not file or tag not in ("0", "1", "2"):
                    yield row.reject(row.problem or f"a line must be a file name and 0, 1 or 2, got {_shown(row)}")
                    continue
                split = {"1": "train", "2": "test"}.get(tag)
                if split in self.splits:
                    clip_id = f"{name}/{os.path.splitext(file.strip())[0]}"
                    yield Entry(clip_id, (clip_id,), row.line, table, {"captions": captions, "split": split})


def _shown(row: Row) -> str:
    return repr(row.values.get("line", ""))
