"""What a reader of a data set is: its own files in, records out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

from peav.data.manifests.labels import Labels, read_labels
from peav.data.manifests.records import Record, Reject


class Reader(ABC):
    """Turns the files of a data set, as its authors published them, into records.

    A subclass takes its choices as constructor arguments; `peav prepare SOURCE OUT --reader NAME` makes one by its class name, and
    one of your own by its import path.
    """

    @abstractmethod
    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips in an order that is always the same; the paths of a record start from `source`, or from its `root`.

        A clip whose file is not there gives a reject with `missing` set, so that the coverage is reported; a line that cannot be
        understood gives a reject with the reason. Neither stops the reading.

        Args:
            source: folder of the data set.
            scratch: where media that lie inside archives are unpacked; such a record has `root=scratch` and `temporary=True`.
            skip: says of an id whether the clip was packed by an earlier call; its media need not be unpacked, but its record is
                yielded all the same.

        Raises:
            FileNotFoundError: if a file that the whole data set rests on is not there.
        """

    def labels(self, source: Path) -> Labels:
        """Returns the vocabularies and the parents of phrases of the data set; those of `labels.json` in its folder by default.

        Raises:
            LabelsError: if they cannot be read.
        """
        return read_labels(source)
