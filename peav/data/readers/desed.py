"""DESED: sounds of homes, annotated in time, by class only, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from peav.data.manifests.fields import RecordError
from peav.data.manifests.labels import Labels
from peav.data.manifests.records import Record, Reject
from peav.data.media.folders import walk
from peav.data.readers.base import Reader
from peav.data.readers.clips import Clips
from peav.data.readers.events import EventTable
from peav.data.readers.labels import TEMPLATE, check_template, label_captions, spaced
from peav.data.readers.rows import Rows
from peav.data.readers.splits import split_by_folder

#: The classes of DESED.
CLASSES = (
    "Alarm_bell_ringing",
    "Blender",
    "Cat",
    "Dishes",
    "Dog",
    "Electric_shaver_toothbrush",
    "Frying",
    "Running_water",
    "Speech",
    "Vacuum_cleaner",
)

_DURATIONS = "_durations.tsv"


class DESED(Reader):
    """DESED (Turpault et al., DCASE 2019; https://project.inria.fr/desed): clips of 10 s with ten classes of domestic sounds.

    Reads the tables metadata/**/*.tsv, whose columns say what they hold: `filename, onset, offset, event_label` gives events, with
    an empty onset where a clip has none; `filename, event_labels` the classes alone, separated by commas: events without times, of which
    a template makes an `audio` caption too, marked as synthetic; `filename` alone nothing. The ten classes are the vocabulary `desed`,
    for clips of which the events or the classes are known.

    A clip that only NAME_durations.tsv beside NAME.tsv lists is annotated and free of events. A clip with a row that cannot be
    understood is left out whole.

    The audio of metadata/A/B.tsv lies in audio/A/B/, that of metadata/train/audioset_strong.tsv in
    audio/train/strong_label_real/. Ids are the paths below audio/. Words in labels are separated by spaces.

    Args:
        tables: table to folder of audio, both relative to the data set, in place of all tables.
        template: caption with `{label}` in it; an empty one makes no captions.
        domain: label of the clips.

    Raises:
        ValueError: if the template does not say where the label goes.
    """

    def __init__(
        self, tables: Mapping[str, str] | None = None, template: str = TEMPLATE, domain: str = "effects"
    ) -> None:
        self.tables, self.template, self.domain = tables, check_template(template), domain

    def labels(self, source: Path) -> Labels:
        """Returns the ten classes; see `Reader.labels`."""
        return Labels({"desed": tuple(map(spaced, CLASSES))}).merged(super().labels(source))

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips, table by table, in the order of their first rows; see `Reader.read`.

        Raises:
            FileNotFoundError: if there is no table, or one that was named is not there.
            RecordError: if a table lacks the column `filename`.
        """
        clips = Clips(source, "DESED", self.domain)
        tables = self.tables if self.tables is not None else _find_tables(source)
        for table, folder in tables.items():
            rows = Rows(source, table, "the column filename", ("filename",), "\t", quoted=False, pad=True)
            if not (source / folder).is_dir():
                reason = f"no folder {folder!r} with the audio of this table: name it by `tables`"
                yield Reject(None, table, 0, reason, missing=True)
            elif "onset" in rows.header:
                yield from self._strong(source, rows, folder, clips)
            else:
                yield from self._weak(rows, folder, clips)

    def _strong(self, source: Path, rows: Rows, folder: str, clips: Clips) -> Iterator[Record | Reject]:
        events = EventTable("filename", "onset", "offset", "event_label")
        for row in rows:
            if (bad := events.add(row, spaced)) is not None:
                yield bad if bad.id is None else replace(bad, id=_id(f"{folder}/{bad.id}"))
        durations = rows.table.removesuffix(".tsv") + _DURATIONS
        if (source / durations).is_file():
            for row in Rows(source, durations, "the column filename", ("filename",), "\t", quoted=False):
                if row.problem:
                    yield row.reject(row.problem)
                else:
                    events.add_clip(row.values["filename"], row.line)
        for name, line, annotated in events.clips():
            known = {"events": annotated, "vocabulary": "desed"}
            yield self._make(clips, rows.table, line, f"{folder}/{name}", **known)

    def _weak(self, rows: Rows, folder: str, clips: Clips) -> Iterator[Record | Reject]:
        for row in rows:
            try:
                row.check()
                path = f"{folder}/{row.text('filename')}"
            except RecordError as error:
                yield row.reject(error)
                continue
            labels = [spaced(label) for label in row.values.get("event_labels", "").split(",") if label.strip()]
            known = {"events": [{"phrase": label} for label in labels], "vocabulary": "desed"} if labels else {}
            captions = label_captions(self.template, labels)
            yield self._make(clips, rows.table, row.line, path, captions=captions, **known)

    def _make(self, clips: Clips, table: str, line: int, path: str, **fields: Any) -> Record | Reject:
        split = split_by_folder(table) or "train"
        return clips.make(_id(path), line, table, audio=path, split=split, **fields)


def _id(path: str) -> str:
    return path.removeprefix("audio/")


def _find_tables(source: Path) -> dict[str, str]:
    names = [name for name in walk(source / "metadata", (".tsv",)) if not name.endswith(_DURATIONS)]
    if not names:
        raise FileNotFoundError(f"no file metadata/**/*.tsv in {source}: they should hold the annotations")
    special = {"train/audioset_strong.tsv": "train/strong_label_real"}
    folders = {name: special.get(name, os.fspath(PurePosixPath(name).with_suffix(""))) for name in names}
    return {f"metadata/{name}": f"audio/{folder}" for name, folder in folders.items()}
