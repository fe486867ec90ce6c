"""Data sets of sounds that people described: AudioCaps and Clotho."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Record, Reject
from peav.data.readers.base import Reader
from peav.data.readers.clips import Clips, reject
from peav.data.readers.media_folder import MediaFolder, Span
from peav.data.readers.rows import Rows
from peav.data.readers.splits import check_splits, choose_splits


@dataclass
class _Described:
    """A clip of AudioCaps: the line it first stands on, and what was written of it."""

    line: int
    captions: list[str] = field(default_factory=list)


class AudioCaps(Reader):
    """AudioCaps (Kim et al., NAACL 2019; https://audiocaps.github.io): spans of 10 s of AudioSet with captions of what is heard.

    Reads train.csv, val.csv and test.csv with the columns audiocap_id, youtube_id, start_time and caption. The rows of one
    `(youtube_id, start_time)`, five in val and test, are one clip with as many `audio` captions. Ids are those of AudioSet,
    `<youtube id>_<start in ms>`.

    Args:
        media: sub-folder of the media, searched at any depth; see `peav.data.readers.media_folder` for the names of files.
        splits: those of `train`, `validation` and `test` to read; by default those whose file is there.
        whole_videos: whether a file named by the YouTube id alone is the whole video, out of which the clip is to be cut.
        domain: label of the clips; none by default, since they hold speech, music and effects.

    Raises:
        ValueError: if a split is unknown.
    """

    tables: ClassVar[dict[str, str]] = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}

    def __init__(
        self,
        media: str = "media",
        splits: Sequence[str] | None = None,
        whole_videos: bool = False,
        domain: str = "",
    ) -> None:
        self.media, self.splits, self.whole_videos, self.domain = media, check_splits(splits), whole_videos, domain

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips, split by split, in the order of their first rows; see `Reader.read`.

        Raises:
            FileNotFoundError: if a table or the folder of the media is not there.
            RecordError: if a table lacks a column.
        """
        columns = ("youtube_id", "start_time", "caption")
        tables = {
            split: Rows(source, table, f"the columns audiocap_id, {', '.join(columns)}", columns)
            for split, table in choose_splits(source, self.tables, self.splits).items()
        }
        folder, clips = MediaFolder(source, self.media), Clips(source, "AudioCaps", self.domain)
        for split, rows in tables.items():
            described: dict[Span, _Described] = {}
            for row in rows:
                try:
                    row.check()
                    span = Span(row.text("youtube_id"), row.number("start_time"), 10.0)
                    caption = row.text("caption")
                except RecordError as error:
                    yield row.reject(error)
                    continue
                described.setdefault(span, _Described(row.line)).captions.append(caption)
            for span, clip in described.items():
                try:
                    files = folder.find_span(span, self.whole_videos)
                except RecordError as error:
                    yield reject(error, span.id, clip.line, rows.table)
                    continue
                yield clips.make(
                    span.id, clip.line, rows.table, captions={"audio": clip.captions}, split=split, **files
                )


class Clotho(Reader):
    """Clotho v2 (Drossos et al., ICASSP 2020; https://zenodo.org/records/4783391): sounds of 15 to 30 s, five captions each.

    Reads clotho_captions_development.csv, clotho_captions_validation.csv and clotho_captions_evaluation.csv with the columns
    file_name and caption_1 to caption_5; the media lie in development/, validation/ and evaluation/. Development is the split
    `train`, evaluation `test`. Ids are `<folder>/<file name>`.

    Args:
        splits: those of `train`, `validation` and `test` to read; by default those whose file is there.
        domain: label of the clips.

    Raises:
        ValueError: if a split is unknown.
    """

    folders: ClassVar[dict[str, str]] = {"train": "development", "validation": "validation", "test": "evaluation"}

    def __init__(self, splits: Sequence[str] | None = None, domain: str = "effects") -> None:
        self.splits, self.domain = check_splits(splits), domain

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips, split by split, in the order of the rows; see `Reader.read`.

        Raises:
            FileNotFoundError: if a table is not there.
            RecordError: if a table lacks a column.
        """
        names = [f"caption_{number}" for number in range(1, 6)]
        published = {split: f"clotho_captions_{folder}.csv" for split, folder in self.folders.items()}
        tables = {
            split: Rows(source, table, "the columns file_name and caption_1 to caption_5", ("file_name", *names))
            for split, table in choose_splits(source, published, self.splits).items()
        }
        clips = Clips(source, "Clotho", self.domain)
        for split, rows in tables.items():
            for row in rows:
                try:
                    row.check()
                    path = f"{self.folders[split]}/{row.text('file_name')}"
                except RecordError as error:
                    yield row.reject(error)
                    continue
                captions = {"audio": [row.values[name] for name in names]}
                yield clips.make(path, row.line, rows.table, audio=path, captions=captions, split=split)
