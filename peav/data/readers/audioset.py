"""Data sets of labelled YouTube clips: VGGSound and AudioSet-Strong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from peav.data.manifests.fields import RecordError
from peav.data.manifests.identities import distinct_texts
from peav.data.manifests.labels import Labels
from peav.data.manifests.records import Record, Reject
from peav.data.readers.base import Reader
from peav.data.readers.classified import Classified
from peav.data.readers.clips import Clips, reject
from peav.data.readers.events import EventTable
from peav.data.readers.labels import TEMPLATE, check_template, class_captions
from peav.data.readers.media_folder import MediaFolder, Span
from peav.data.readers.ontology import read_ontology, with_ids
from peav.data.readers.rows import Rows
from peav.data.readers.splits import check_splits, choose_splits, split_of_name


class VGGSound(Classified):
    """VGGSound (Chen et al., ICASSP 2020; https://www.robots.ox.ac.uk/~vgg/data/vggsound): spans of 10 s, one label each.

    Reads vggsound.csv, which names no columns: YouTube id, start in seconds, label, split. The label, which is the class of the clip,
    holds for all of it and has no time, so that it is no event; a template makes an `audio` caption of it, marked as synthetic.
    Ids are those of AudioSet, `<youtube id>_<start in ms>`.

    Args:
        media: sub-folder of the media, searched at any depth; see `peav.data.readers.media_folder` for the names of files.
        template: caption with `{label}` in it; an empty one makes no captions.
        whole_videos: whether a file named by the YouTube id alone is the whole video, out of which the clip is to be cut.
        table: path of the CSV file.
        domain: label of the clips; none by default, since they hold speech, music and effects.
        splits: those of `train` and `test` to read; both by default.

    Raises:
        ValueError: if the template does not say where the label goes, or a split is unknown.
    """

    dataset = "VGGSound"

    def __init__(
        self,
        media: str = "media",
        template: str = TEMPLATE,
        whole_videos: bool = False,
        table: str = "vggsound.csv",
        domain: str = "",
        splits: Sequence[str] | None = None,
    ) -> None:
        self.media, self.template, self.whole_videos = media, check_template(template), whole_videos
        self.table, self.domain, self.splits = table, domain, check_splits(splits)

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips in the order of the rows; see `Reader.read`.

        Raises:
            FileNotFoundError: if the table or the folder of the media is not there.
        """
        rows = self._rows(source)
        folder, clips = MediaFolder(source, self.media), Clips(source, self.dataset, self.domain)
        for row in rows:
            clip_id: str | None = None
            try:
                row.check()
                span = Span(row.text("youtube_id"), row.number("start_seconds"), 10.0)
                clip_id, label = span.id, row.text("label")
                if (split := split_of_name(row.text("split"))) is None:
                    raise RecordError(f"column 'split' must be train or test, got {row.text('split')!r}")
                if self.splits is not None and split not in self.splits:
                    continue
                files = folder.find_span(span, self.whole_videos)
            except RecordError as error:
                yield reject(error, clip_id, row.line, rows.table)
                continue
            captions = class_captions([label], self.template)
            yield clips.make(clip_id, row.line, rows.table, captions=captions, split=split, **files)

    def classes(self, source: Path) -> tuple[str, ...]:
        """Returns the labels of both splits in the order of the alphabet; see `Classified.classes`."""
        rows = self._rows(source)
        return tuple(sorted({row.values["label"] for row in rows if not row.problem and row.values["label"]}))

    def _rows(self, source: Path) -> Rows:
        header = ("youtube_id", "start_seconds", "label", "split")
        return Rows(source, self.table, f"{', '.join(header)}, without a line that names them", header=header)


class AudioSetStrong(Reader):
    """AudioSet with strong labels (Hershey et al., ICASSP 2021; https://research.google.com/audioset/download_strong.html).

    Reads audioset_train_strong.tsv and audioset_eval_strong.tsv with the columns segment_id, start_time_seconds, end_time_seconds
    and label, and mid_to_display_name.tsv, which gives the labels their names. Clips last 10 s, events count from their start. An
    id is the segment's, `<youtube id>_<start in ms>`. A clip with a row that cannot be understood is left out whole: without it,
    its annotation would be wrong.

    The annotators chose from a closed set of classes and marked all that they heard, so that the named classes are the vocabulary
    `audioset_strong`. Where ontology.json of https://github.com/audioset/ontology lies in the folder too, its classes are the parents of
    phrases. audioset_eval_strong_framed_posneg.tsv, which has the further column `present`, gives explicit negatives to clips of the
    evaluation set: a label of which a clip has rows NOT_PRESENT alone, and no event, is said to be absent from it. (Its columns are as
    others read them; the file itself could not be fetched where this was written.) Rows of frames that are PRESENT add nothing to the
    events, whose times are finer.

    Args:
        media: sub-folder of the media, searched at any depth; see `peav.data.readers.media_folder` for the names of files.
        splits: those of `train` and `test` to read; by default those whose file is there.
        whole_videos: whether a file named by the YouTube id alone is the whole video, out of which the clip is to be cut.
        domain: label of the clips; none by default, since they hold speech, music and effects.

    Raises:
        ValueError: if a split is unknown.
    """

    tables: ClassVar[dict[str, str]] = {"train": "audioset_train_strong.tsv", "test": "audioset_eval_strong.tsv"}
    negatives: ClassVar[dict[str, str]] = {"test": "audioset_eval_strong_framed_posneg.tsv"}

    def __init__(
        self,
        media: str = "media",
        splits: Sequence[str] | None = None,
        whole_videos: bool = False,
        domain: str = "",
    ) -> None:
        self.media, self.splits, self.whole_videos, self.domain = media, check_splits(splits), whole_videos, domain

    def labels(self, source: Path) -> Labels:
        """Returns the classes, and of what they are a kind where ontology.json is there; see `Reader.labels`."""
        names = {row.values["mid"]: row.values["name"] for row in _mids(source) if not row.problem}
        names = {mid: name for mid, name in names.items() if name}
        path = source / "ontology.json"
        labels = read_ontology(path, names) if path.is_file() else with_ids(names, Labels())
        known, _ = distinct_texts(names.values())
        if known:
            labels = labels.merged(Labels({_VOCABULARY: tuple(known)}))
        return labels.merged(super().labels(source))

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips, split by split, in the order of their first rows; see `Reader.read`.

        Raises:
            FileNotFoundError: if a table or the folder of the media is not there.
            RecordError: if a table lacks a column.
            ValueError: if the data set has no such split.
        """
        columns = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
        tables = {
            split: Rows(source, table, f"the columns {', '.join(columns)}", columns, "\t", quoted=False)
            for split, table in choose_splits(source, self.tables, self.splits).items()
        }
        names: dict[str, str] = {}
        for row in _mids(source):
            if row.problem:
                yield row.reject(row.problem)
            else:
                names[row.values["mid"]] = row.values["name"]
        folder, clips = MediaFolder(source, self.media), Clips(source, "AudioSet-Strong", self.domain)
        for split, rows in tables.items():
            events = EventTable(*columns)
            for row in rows:
                if (bad := events.add(row, lambda mid: (_name_of(mid, names), mid))) is not None:
                    yield bad
            absent, bad_rows = _negatives(source, self.negatives.get(split, ""), names)
            yield from bad_rows
            for segment, line, annotated in events.clips():
                heard = {item["phrase"] for item in annotated}
                annotated += [item for item in absent.get(segment, ()) if item["phrase"] not in heard]
                fields: dict[str, Any] = {"events": annotated, "vocabulary": _VOCABULARY, "split": split}
                try:
                    fields |= folder.find_span(_span_of(segment), self.whole_videos)
                except RecordError as error:
                    yield reject(error, segment, line, rows.table)
                    continue
                yield clips.make(segment, line, rows.table, **fields)


_VOCABULARY = "audioset_strong"


def _mids(source: Path) -> Rows:
    header = ("mid", "name")
    return Rows(source, "mid_to_display_name.tsv", "label and name, by tabs", (), "\t", header, quoted=False)


def _negatives(source: Path, table: str, names: dict[str, str]) -> tuple[dict[str, list[dict[str, Any]]], list[Reject]]:
    """Returns by clip what is nowhere in it, and the rows that cannot be understood, which cost nothing else."""
    if not table or not (source / table).is_file():
        return {}, []
    columns = ("segment_id", "label", "present")
    present: dict[tuple[str, str], bool] = {}
    rejects: list[Reject] = []
    for row in Rows(source, table, f"the columns {', '.join(columns)}", columns, "\t", quoted=False):
        try:
            row.check()
            key, word = (row.text("segment_id"), row.text("label")), row.text("present")
            _name_of(key[1], names)
            if word not in ("PRESENT", "NOT_PRESENT"):
                raise RecordError(f"column 'present' must be PRESENT or NOT_PRESENT, got {word!r}")
            present[key] = present.get(key, False) or word == "PRESENT"
        except RecordError as error:
            rejects.append(row.reject(error, row.values.get("segment_id") or None))
    absent: dict[str, list[dict[str, Any]]] = {}
    for (segment, mid), heard in present.items():
        if not heard:
            absent.setdefault(segment, []).append({"phrase": names[mid], "label": mid, "confidence": 0.0})
    return absent, rejects


def _name_of(mid: str, names: dict[str, str]) -> str:
    if not names.get(mid):
        raise RecordError(f"label {mid!r} has no name in mid_to_display_name.tsv")
    return names[mid]


def _span_of(segment: str) -> Span:
    youtube_id, _, start = segment.rpartition("_")  # ids hold underscores of their own
    if not youtube_id or not (start.isascii() and start.isdigit()):
        raise RecordError(f"'segment_id' must be a YouTube id, an underscore and milliseconds, got {segment!r}")
    return Span(youtube_id, int(start) / 1000, 10.0)
