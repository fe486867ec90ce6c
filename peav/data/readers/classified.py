"""Data sets whose clips belong to classes."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from peav.data.manifests.identities import distinct_texts
from peav.data.manifests.labels import Labels
from peav.data.readers.base import Reader


class Classified(Reader):
    """A data set whose clips belong to classes, one each or several.

    The names of a clip's classes are its captions of the type `class` (`peav.data.manifests.texts.CLASS`); those of all classes, which
    zero-shot classification chooses among, are `classes`. Both have the same spelling. In `labels.json` of a prepared folder they are
    the vocabulary that is called as the data set.

    Attributes:
        dataset: name of the data set, as in its records.
    """

    dataset: str

    @abstractmethod
    def classes(self, source: Path) -> tuple[str, ...]:
        """Returns the names of all classes, each once, in the order of the data set, also of those without a clip.

        They are read from the data set's own files. Where these list the clips of each split alone, the classes are those of the
        splits that are read.

        Args:
            source: folder of the data set.

        Raises:
            FileNotFoundError: if a file that names them is not there.
            RecordError: if it cannot be understood.
        """

    def labels(self, source: Path) -> Labels:
        """Returns the classes as the vocabulary of the name of the data set, and what `labels.json` in its folder says besides.

        Raises:
            LabelsError: if that cannot be read, or has another vocabulary of that name.
        """
        # Of names that are one to `normalize_text`, as labels of free texts may be, a vocabulary has one.
        names, _ = distinct_texts(self.classes(source))
        return Labels({self.dataset: tuple(names)}).merged(super().labels(source))
