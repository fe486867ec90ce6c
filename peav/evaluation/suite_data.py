"""The data sets of a suite, as they lie below ROOT: packed once into a folder beside the results, with what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peav.data.manifests.fields import RecordError
from peav.data.manifests.labels import load_labels
from peav.data.manifests.records import Record, Reject
from peav.data.packing.prepare import PrepareError, prepare
from peav.data.readers import Classified, Reader
from peav.evaluation.suite import SuiteDataset

#: Shorter clips are no clips.
_MIN_SECONDS = 0.1


@dataclass(frozen=True)
class Found:
    """A data set that can be evaluated.

    Attributes:
        dataset: what it is.
        data: the prepared folder.
        coverage: `listed` clips, those that are `missing` or `unusable`, and some `reasons`.
        classes: names of all classes, in the order of the data set; empty where it has none.
    """

    dataset: SuiteDataset
    data: Path
    coverage: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


class Missing(Exception):  # noqa: N818  the name says what happened
    """A data set that is not there, or of which nothing can be used: the message says why."""


def find_data(
    dataset: SuiteDataset, root: Path, prepared: Path, workers: int | None = None, progress: bool = True
) -> Found:
    """Reads a data set below a root: its media are packed once, unless the folder is a prepared one. Nothing is downloaded.

    Args:
        dataset: which.
        root: folder of data sets.
        prepared: folder for what is packed.
        workers: processes that check media.
        progress: show how far it is.

    Raises:
        Missing: if it is not there, or nothing of it can be used.
    """
    source = dataset.find(root)
    if source is None:
        raise Missing(f"no folder {' or '.join(dataset.folders)} in {root}")
    reader = dataset.build_reader()
    if (source / "manifest").is_dir():
        # Packed before: what it lacks was said then.
        classes = _prepared_classes(source, reader)
        return Found(dataset, source, {"prepared": True}, classes)
    out = prepared / f"{dataset.name}-{dataset.digest()}"
    try:
        report = prepare(
            source,
            out,
            reader=OnlySplits(reader, tuple(filter(None, (dataset.split, dataset.train)))),
            workers=workers,
            min_seconds=_MIN_SECONDS,
            chunk_seconds=None,
            # What cannot be decoded is found when it is embedded.
            check_video=False,
            partial="keep",
            progress=progress,
        )
        classes = reader.classes(source) if isinstance(reader, Classified) else ()
    except (PrepareError, RecordError, FileNotFoundError) as error:
        raise Missing(str(error)) from error
    usable = sum(report.clips.values())
    listed = sum(total for _, total in report.coverage.values())
    missing = sum(total - there for there, total in report.coverage.values())
    reasons = sorted(f"{reject.id or reject.file}: {reject.reason}" for reject in report.rejects if not reject.missing)
    coverage = {
        "listed": listed,
        "usable": usable,
        "missing": missing,
        "unusable": listed - missing - usable,
        "reasons": reasons[:5],
    }
    return Found(dataset, out, coverage, classes)


def _prepared_classes(data: Path, reader: Reader) -> tuple[str, ...]:
    if not isinstance(reader, Classified):
        return ()
    return tuple(load_labels(data).vocabularies.get(reader.dataset, ()))


class OnlySplits(Reader):
    """A reader of which only some splits are kept.

    Args:
        reader: it.
        splits: those that are kept.
    """

    def __init__(self, reader: Reader, splits: tuple[str, ...]) -> None:
        self.reader, self.splits = reader, splits

    def labels(self, source: Path) -> Any:
        """Returns what the reader says of labels."""
        return self.reader.labels(source)

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips of these splits; see `Reader.read`."""
        for one in self.reader.read(source, scratch, skip):
            if isinstance(one, Reject) or one.split in self.splits:
                yield one
