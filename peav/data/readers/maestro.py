"""MAESTRO Real: recordings of everyday places, with soft labels by the second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from peav.data.manifests.fields import RecordError
from peav.data.manifests.labels import Labels
from peav.data.manifests.records import Record, Reject
from peav.data.media.folders import walk
from peav.data.readers.base import Reader
from peav.data.readers.clips import Clips
from peav.data.readers.events import event
from peav.data.readers.labels import sorted_labels, spaced
from peav.data.readers.rows import Row, Rows, to_number
from peav.data.readers.splits import check_split

_COLUMNS = ("onset", "offset", "label", "value")

#: A value above 1 by no more than this is 1: they are sums of weights.
_ROUNDING = 1e-3


class MAESTROReal(Reader):
    """MAESTRO Real (Martín-Morató, Harju, Ahokas, Mesaros, ICASSP 2023; https://zenodo.org/records/7244360): soft labels.

    Reads development_annotation/soft_labels_SCENE/NAME.txt: onset, offset, label and the share of annotators who hear it, separated by
    tabs, a line a second and class; the audio is development_audio/SCENE/NAME.wav. A share of 0 is no event, equal ones that touch are
    one event. All labels that occur are the vocabulary `maestro_real`. The recordings last some minutes, so that `peav prepare` cuts
    them into clips. A recording with a line that cannot be understood is left out whole. Ids are the names; words in labels are
    separated by spaces.

    Args:
        split: of all recordings: the data set is divided in folds, not in splits.
        domain: label of the clips.

    Raises:
        ValueError: if the split is unknown.
    """

    def __init__(self, split: str = "train", domain: str = "effects") -> None:
        self.split, self.domain = check_split(split), domain

    def labels(self, source: Path) -> Labels:
        """Returns the classes; see `Reader.labels`."""
        rows = chain.from_iterable(_rows(source, table) for table in _tables(source))
        return Labels({"maestro_real": sorted_labels(rows, "label")}).merged(super().labels(source))

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the recordings by scene and name; see `Reader.read`.

        Raises:
            FileNotFoundError: if there are no annotations.
        """
        clips = Clips(source, "MAESTRO Real", self.domain)
        for table in _tables(source):
            path = PurePosixPath(table)
            line = 0
            found: dict[str, list[dict[str, Any]]] = {}
            try:
                for row in _rows(source, table):
                    line = row.line
                    _add(row, found)
            except RecordError as error:
                yield Reject(path.stem, table, line, str(error))
                continue
            events = sorted((one for of_class in found.values() for one in of_class), key=lambda one: one["onset"])
            audio = f"development_audio/{path.parent.name.removeprefix('soft_labels_')}/{path.stem}.wav"
            fields = {"audio": audio, "events": events, "vocabulary": "maestro_real", "split": self.split}
            yield clips.make(path.stem, 0, table, **fields)


def _tables(source: Path) -> list[str]:
    tables = [f"development_annotation/{name}" for name in walk(source / "development_annotation", (".txt",))]
    if not tables:
        raise FileNotFoundError(
            f"no file development_annotation/soft_labels_SCENE/NAME.txt in {source}: they hold the soft labels"
        )
    return tables


def _rows(source: Path, table: str) -> Rows:
    return Rows(source, table, "onset, offset, label and value", (), "\t", _COLUMNS, quoted=False)


def _add(row: Row, found: dict[str, list[dict[str, Any]]]) -> None:
    row.check()
    made = event(row.number("onset"), row.number("offset"), spaced(row.text("label")))
    value = to_number(row.text("value"), "value", "a number from 0 to 1")
    if not 0 <= value <= 1 + _ROUNDING:
        raise RecordError(f"'value' must be a number from 0 to 1, got {value:g}")
    before = found.setdefault(made["phrase"], [])
    value = min(value, 1.0)
    if before and before[-1]["offset"] == made["onset"] and before[-1]["confidence"] == value:
        before[-1]["offset"] = made["offset"]
    elif value > 0:
        before.append({**made, "confidence": value})
