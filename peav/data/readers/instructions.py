"""Data sets of instructions about sounds and the answers to them: Dynamic-SUPERB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Record, Reject
from peav.data.manifests.texts import CLASS, decode_entities
from peav.data.media.folders import walk
from peav.data.readers.arrow import open_table, read_errors
from peav.data.readers.classified import Classified
from peav.data.readers.huggingface import HuggingFaceDataset


class DynamicSUPERB(Classified):
    """An instance of Dynamic-SUPERB (Huang et al., arXiv 2309.09510; https://huggingface.co/DynamicSuperb): a task on a data set.

    Reads the parquet files of an instance, data/test-*.parquet, with the columns audio, instruction and label, by
    `HuggingFaceDataset` and the extra `parquet`. The label is the class of the clip; the instruction, which asks for it, is a caption of
    the type `instruction`. The classes are the labels that occur: the files name no others, and what an instruction may list besides is
    not understood. Ids are `<path of the file>/<number of the row>`.

    Instances that compare several sounds, which have a column audio2, are refused: a clip has one. Those of the second phase whose
    labels are free texts are read in the same way; each text is then a class, and the suite should take them as captions instead.
    The columns were taken from programs that publish instances; no published file could be looked at here.

    Args:
        split: of all clips; by default the one that the name of a file means, `test` as a rule.
        domain: label of the clips.

    Raises:
        ValueError: if the split is unknown.
    """

    dataset = "Dynamic-SUPERB"

    def __init__(self, split: str | None = None, domain: str = "speech") -> None:
        self._reader = HuggingFaceDataset(
            audio_column="audio",
            captions={"label": CLASS, "instruction": "instruction"},
            split=split,
            dataset=self.dataset,
            domain=domain,
        )

    def classes(self, source: Path) -> tuple[str, ...]:
        """Returns the labels that occur, in the order of the alphabet; see `Classified.classes`.

        Raises:
            ImportError: if pyarrow is not installed.
            FileNotFoundError: if there is no parquet file.
            RecordError: if the instance is one of several sounds, or a file lacks a column.
        """
        self._check(source)
        found = set[str]()
        for name in _tables(source):
            _, batches = open_table(source / name)
            for batch in batches(["label"]):
                labels = batch.column("label").to_pylist()
                found.update(decode_entities(label) for label in labels if label and label.strip())
        return tuple(sorted(found))

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips by path of the file, in the order of its rows; see `Reader.read`.

        Raises:
            ImportError: if pyarrow is not installed.
            FileNotFoundError: if there is no parquet file.
            RecordError: if the instance is one of several sounds, or a file lacks a column.
            OSError: if the media cannot be unpacked into `scratch`.
        """
        self._check(source)
        yield from self._reader.read(source, scratch, skip)

    def _check(self, source: Path) -> None:
        errors = read_errors()
        for name in _tables(source):
            try:
                columns = open_table(source / name)[0].names
            except errors:  # `read` says so
                continue
            if "audio2" in columns:
                raise RecordError(
                    f"{source / name} has a column 'audio2': an instance that compares sounds has no clips"
                )


def _tables(source: Path) -> list[str]:
    names = list(walk(source, (".parquet",)))
    if not names:
        raise FileNotFoundError(f"no file *.parquet in {source}, at any depth: they should hold the instance")
    return names
