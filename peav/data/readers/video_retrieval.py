"""Data sets that texts and videos are retrieved by: MSVD, ActivityNet Captions and DiDeMo."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Record, Reject
from peav.data.media.folders import MEDIA_EXTENSIONS
from peav.data.readers.base import Reader
from peav.data.readers.clips import Clips, reject
from peav.data.readers.entries import Entry, MediaTree, records_of
from peav.data.readers.json_files import load_json, required_text
from peav.data.readers.rows import Rows
from peav.data.readers.splits import check_splits, choose_splits


class MSVD(Reader):
    """MSVD (Chen and Dolan, ACL 2011; https://www.cs.utexas.edu/users/ml/clamp/videoDescription): clips with some forty captions each.

    Reads AllVideoDescriptions.txt, lines of a clip and a caption of what is seen, with comments that begin with #; or else the table
    `MSR Video Description Corpus.csv`, or video_corpus.csv, with the columns VideoID, Start, End, Language and Description. The clips of
    each split are lines of train_list.txt, val_list.txt and test_list.txt (1200, 100 and 670;
    https://github.com/albanie/collaborative-experts/tree/master/misc/datasets/msvd). A video is a file `<YouTube id>_<start>_<end>`, as in
    YouTubeClips/, at any depth, or in archives. Ids are these names. Captions pickled for other programs (raw-captions.pkl) are not read:
    a pickle can run anything.

    Args:
        table: path of the file of captions; by default the first of the three that is there.
        language: of the captions, where the table has a column of it.
        splits: those of `train`, `validation` and `test` to read; by default those whose list is there.
        media: sub-folder of the videos, "" for the data set's own.
        domain: label of the clips; none by default.

    Raises:
        ValueError: if a split is unknown.
    """

    tables: ClassVar[tuple[str, ...]] = (
        "AllVideoDescriptions.txt",
        "MSR Video Description Corpus.csv",
        "video_corpus.csv",
    )
    lists: ClassVar[dict[str, str]] = {"train": "train_list.txt", "validation": "val_list.txt", "test": "test_list.txt"}

    def __init__(
        self,
        table: str | None = None,
        language: str = "English",
        splits: Sequence[str] | None = None,
        media: str = "",
        domain: str = "",
    ) -> None:
        self.table, self.language, self.splits = table, language, check_splits(splits)
        self.media, self.domain = media, domain

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips, split by split, in the order of the lists; see `Reader.read`.

        Raises:
            FileNotFoundError: if the captions, a list or the folder of the media are not there.
            RecordError: if the table lacks a column.
        """
        lists = choose_splits(source, self.lists, self.splits)
        table = self.table or next((name for name in self.tables if (source / name).is_file()), None)
        if table is None:
            raise FileNotFoundError(f"none of the files {', '.join(self.tables)} is in {source}: one must be there")
        captions: dict[str, list[str]] = {}
        for item in self._captions(source, table):
            if isinstance(item, Reject):
                yield item
            else:
                captions.setdefault(item[0], []).append(item[1])
        clips = Clips(source, "MSVD", self.domain)
        yield from records_of(_listed(source, lists, captions), MediaTree(source, self.media), clips, scratch, skip)

    def _captions(self, source: Path, table: str) -> Iterator[tuple[str, str] | Reject]:
        if table.lower().endswith(".csv"):
            columns = ("VideoID", "Start", "End", "Language", "Description")
            for row in Rows(source, table, f"the columns {', '.join(columns)}", columns):
                try:
                    row.check()
                    if row.values["Language"] != self.language:
                        continue
                    name = f"{row.text('VideoID')}_{row.text('Start')}_{row.text('End')}"
                    yield name, row.text("Description")
                except RecordError as error:
                    yield row.reject(error)
            return
        for row in Rows(source, table, "a clip and a caption a line", (), "\0", ("line",), quoted=False):
            line = row.values.get("line", "")
            if row.problem or not line.startswith("#"):
                name, _, text = line.partition(" ")
                if row.problem or not text.strip():
                    yield row.reject(row.problem or f"a line must be a clip and a caption of it, got {line!r}")
                else:
                    yield name, text.strip()


def _listed(source: Path, lists: dict[str, str], captions: dict[str, list[str]]) -> Iterator[Entry | Reject]:
    for split, table in lists.items():
        for row in Rows(source, table, "a clip a line", (), "\0", ("clip",), quoted=False):
            if row.problem:
                yield row.reject(row.problem)
                continue
            name = row.values["clip"]
            fields = {"captions": {"video": captions.get(name, [])}, "split": split}
            yield Entry(name, (name,), row.line, table, fields)


class ParagraphVideos(Reader):
    """A data set of videos in a JSON file a split, which a subclass names in its `tables`.

    Attributes:
        dataset: name of the data set, as in its records.
        holds: what such a file holds: its type, and what there is in it, for messages.
    """

    dataset: ClassVar[str]
    holds: ClassVar[tuple[type, str]]
    tables: Mapping[str, str]
    splits: tuple[str, ...] | None
    media: str
    domain: str

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips, split by split, in the order of their first entries; see `Reader.read`.

        Raises:
            FileNotFoundError: if a JSON file or the folder of the media is not there.
            RecordError: if a JSON file holds something else.
        """
        chosen = choose_splits(source, self.tables, self.splits)
        loaded = {split: load_json(source, table, *self.holds) for split, table in chosen.items()}
        clips = Clips(source, self.dataset, self.domain)
        yield from records_of(self._entries(loaded), MediaTree(source, self.media), clips, scratch, skip)

    @abstractmethod
    def _entries(self, loaded: dict[str, Any]) -> Iterator[Entry | Reject]:
        """Yields what the files of the splits say."""


class ActivityNetCaptions(ParagraphVideos):
    """ActivityNet Captions (Krishna et al., ICCV 2017; https://cs.stanford.edu/people/ranjaykrishna/densevid): videos of some two minutes.

    Reads train.json and val_1.json or val_2.json: objects of videos by their names, `{"duration", "timestamps", "sentences"}`. The
    sentences of a video, joined by spaces in their order, are one `video` caption, as in retrieval of videos by paragraphs. Of the two
    annotations of the validation videos, val_1, which has all of them (4,917), is the one that models are compared on. A video is a file by
    its name, `v_<YouTube id>`, or by the YouTube id alone, at any depth, or in archives. Ids are the names. Lines in rejects count entries.

    Args:
        splits: those of `train` and `validation` to read; by default those whose file is there.
        validation: which annotation of the validation videos is read.
        join: whether the sentences are one caption; else each is one of its own, with the times at which it holds.
        annotations: sub-folder of the JSON files, "" for the data set's own.
        media: sub-folder of the videos, "" for the data set's own.
        domain: label of the clips; none by default.

    Raises:
        ValueError: if a split or the annotation is unknown.
    """

    dataset = "ActivityNet Captions"
    holds = (dict, "videos by name")

    def __init__(
        self,
        splits: Sequence[str] | None = None,
        validation: Literal["val_1", "val_2"] = "val_1",
        join: bool = True,
        annotations: str = "",
        media: str = "",
        domain: str = "",
    ) -> None:
        if validation not in ("val_1", "val_2"):
            raise ValueError(f"the annotations of the validation videos are val_1 and val_2, got {validation!r}")
        self.splits, self.join = check_splits(splits), join
        self.tables = {
            "train": os.path.join(annotations, "train.json"),
            "validation": os.path.join(annotations, f"{validation}.json"),
        }
        self.media, self.domain = media, domain

    def _entries(self, loaded: dict[str, Any]) -> Iterator[Entry | Reject]:
        for split, videos in loaded.items():
            table = self.tables[split]
            for number, (name, video) in enumerate(videos.items(), start=1):
                try:
                    captions = {"video": self._captions(video)}
                except RecordError as error:
                    yield reject(error, name, number, table)
                    continue
                names = (name, name.removeprefix("v_"))
                yield Entry(name, names, number, table, {"captions": captions, "split": split})

    def _captions(self, video: Any) -> list[Any]:
        sentences = video.get("sentences") if isinstance(video, dict) else None
        if not isinstance(sentences, list) or not all(isinstance(text, str) for text in sentences):
            raise RecordError(f"'sentences' must be a list of texts, got {sentences!r:.100}")
        if self.join:
            return [_joined(sentences)]
        times = video.get("timestamps")
        pairs = isinstance(times, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in times)
        if not pairs or len(times) != len(sentences):
            raise RecordError(f"'timestamps' must be a list of [start, end], one a sentence, got {times!r:.100}")
        return [{"text": text, "start": pair[0], "end": pair[1]} for text, pair in zip(sentences, times, strict=True)]


class DiDeMo(ParagraphVideos):
    """DiDeMo (Hendricks et al., ICCV 2017; https://github.com/LisaAnne/LocalizingMoments): videos of half a minute, described in parts.

    Reads train_data.json, val_data.json and test_data.json: lists of `{"video", "description", "times", ...}`. The descriptions of a video,
    joined by spaces in their order, are one `video` caption, as in retrieval of videos by paragraphs. A video is a file named by its
    `video`, as it is, with .mp4 behind it (as the script of the authors saves it) or with another extension, at any depth, or in
    archives. Ids are these names. Lines in rejects count entries.

    Some videos are longer than the first 30 s that were described; comparisons mostly take these alone. Whole files are read here: how many
    seconds a model is given is a choice of its evaluation.

    Args:
        splits: those of `train`, `validation` and `test` to read; by default those whose file is there.
        join: whether the descriptions are one caption; else each is one of its own.
        annotations: sub-folder of the JSON files, "" for the data set's own; data in the repository of the authors.
        media: sub-folder of the videos, "" for the data set's own.
        domain: label of the clips; none by default.

    Raises:
        ValueError: if a split is unknown.
    """

    dataset = "DiDeMo"
    holds = (list, "descriptions")

    def __init__(
        self,
        splits: Sequence[str] | None = None,
        join: bool = True,
        annotations: str = "",
        media: str = "",
        domain: str = "",
    ) -> None:
        self.splits, self.join = check_splits(splits), join
        names = {"train": "train_data.json", "validation": "val_data.json", "test": "test_data.json"}
        self.tables = {split: os.path.join(annotations, name) for split, name in names.items()}
        self.media, self.domain = media, domain

    def _entries(self, loaded: dict[str, Any]) -> Iterator[Entry | Reject]:
        for split, described in loaded.items():
            table = self.tables[split]
            lines: dict[str, int] = {}
            texts: dict[str, list[str]] = {}
            for number, item in enumerate(described, start=1):
                try:
                    video, text = required_text(item, "video"), required_text(item, "description")
                except RecordError as error:
                    yield reject(error, None, number, table)
                    continue
                lines.setdefault(video, number)
                texts.setdefault(video, []).append(text)
            for video, number in lines.items():
                stem, extension = os.path.splitext(video)
                # The first is the file `VIDEO.mp4`, the second `VIDEO` itself, or one with another extension in place of its own.
                names = (video, stem) if extension.lower() in MEDIA_EXTENSIONS else (video,)
                captions = {"video": [_joined(texts[video])] if self.join else texts[video]}
                yield Entry(video, names, number, table, {"captions": captions, "split": split})


def _joined(sentences: Sequence[str]) -> str:
    return " ".join(text for sentence in sentences if (text := sentence.strip()))
