"""Data sets of the Hugging Face hub: tables with the media inside, as parquet or as `save_to_disk` leaves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Record, Reject
from peav.data.manifests.texts import parse_caption_type
from peav.data.media.folders import MEDIA_EXTENSIONS, PICTURE_EXTENSIONS, walk
from peav.data.readers.arrow import Columns, choose_columns, media_cell, open_table, read_errors
from peav.data.readers.base import Reader
from peav.data.readers.clips import Clips
from peav.data.readers.media_folder import as_fields
from peav.data.readers.splits import check_split, split_by_name
from peav.data.readers.unpack import Unpacked
from peav.fields import fields as own_fields
from peav.suggest import suggest


class HuggingFaceDataset(Reader):
    """A data set of the Hugging Face hub, downloaded (https://huggingface.co/docs/hub/datasets-audio), or saved by `save_to_disk`.

    Reads *.parquet and *.arrow at any depth by pyarrow, the extra `parquet`. A column of media holds `{bytes, path}`, bytes, or
    paths relative to the data set; bytes are unpacked a clip at a time. Lines in rejects count the rows of a file.

    Args:
        audio_column: by default the one of the type Audio, else `audio`.
        video_column: of videos or pictures; by default the one of the type Video, else `video`, else the one of the type Image, else
            `image`.
        captions: column to caption type, of yours too, for texts or lists of texts. By default `audio_caption`, `video_caption` and
            `audio_video_caption`, or their plurals; `captions.TYPE` for any type; and `caption`, `captions`, `text` and `caption_1` to
            `caption_5`, which are taken to describe what the clips have: audio, video or both.
        transcript_column: by default `transcript` or `transcription`.
        id_column: by default an id is `<path of the file>/<number of the row>`, without the extension of the file: columns that
            are called id often start anew in each split.
        fields: column to field, for fields of your own kinds: numbers, lists, bytes or texts.
        split: of all clips; by default the one that a word of the name of a file, or of a folder of it, means, else `train`.
        dataset: name of the data set.
        domain: label of the clips.

    Raises:
        ValueError: if the split is unknown, or captions cannot be of a type of that name.
    """

    def __init__(
        self,
        audio_column: str | None = None,
        video_column: str | None = None,
        captions: Mapping[str, str] | None = None,
        transcript_column: str | None = None,
        id_column: str | None = None,
        split: str | None = None,
        dataset: str = "",
        domain: str = "",
        fields: Mapping[str, str] | None = None,
    ) -> None:
        for name in (fields or {}).values():
            if name not in own_fields:
                raise ValueError(
                    f"fields map columns to fields of your own kinds, not to {name!r}. {suggest(name, own_fields)}"
                )
        for kind in (captions or {}).values():
            parse_caption_type(kind)
        self.columns = Columns(id_column, audio_column, video_column, transcript_column, captions, fields or {})
        self.split, self.dataset, self.domain = check_split(split), dataset, domain

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips by path of the file, in the order of its rows; see `Reader.read`.

        Raises:
            ImportError: if pyarrow is not installed.
            FileNotFoundError: if there is no file of either kind.
            RecordError: if the first file that can be opened lacks a column that was named, or has none of media.
            OSError: if the media cannot be unpacked into `scratch`.
        """
        errors = read_errors()
        # What `datasets` itself keeps beside the data.
        names = [
            name for name in walk(source, (".parquet", ".arrow")) if not _stem(name).startswith(("cache-", "indices"))
        ]
        if not names:
            raise FileNotFoundError(
                f"no file *.parquet or *.arrow in {source}, at any depth: they should hold the clips"
            )
        clips = Clips(source, self.dataset, self.domain)
        opened = False
        for name in names:
            try:
                schema, batches = open_table(source / name)
                columns = choose_columns(schema, self.columns)
            except errors as error:
                yield Reject(None, name, 0, f"cannot be read: {error}")
                continue
            except RecordError as error:
                if not opened:
                    raise RecordError(f"{source / name}: {error}") from None
                yield Reject(None, name, 0, str(error))
                continue
            opened = True
            row = 0
            rows = batches(columns.names)
            while True:
                try:
                    batch = next(rows, None)
                except errors as error:
                    yield Reject(None, name, row, f"cannot be read after row {row}: {error}")
                    break
                if batch is None:
                    break
                for index in range(batch.num_rows):
                    row += 1
                    cells = {column: batch.column(column)[index] for column in columns.names}
                    yield self._clip(cells, columns, clips, name, row, scratch, skip)

    def _clip(
        self,
        cells: Mapping[str, Any],
        columns: Columns,
        clips: Clips,
        name: str,
        row: int,
        scratch: Path,
        skip: Callable[[str], bool],
    ) -> Record | Reject:
        clip_id: str | None = None
        try:
            clip_id = _id(cells, columns, f"{PurePosixPath(name).with_suffix('')}/{row}")
            fields = {"split": self.split or split_by_name(name) or "train", **_texts(cells, columns)}
            media = {kind: media_cell(cells[column]) for kind, column in columns.media.items()}
        except RecordError as error:
            return Reject(clip_id, name, row, str(error))
        except ValueError as error:  # such as a string that is not UTF-8
            return Reject(clip_id, name, row, f"the row cannot be read: {error}")
        if not any(data is not None for data, _ in media.values()):
            paths = {kind: path for kind, (_, path) in media.items() if path}
            return clips.make(clip_id, row, name, **fields, **as_fields(paths))
        unpacked = Unpacked.begin(clips, clip_id, name, scratch, skip, row)
        for kind, (data, path) in media.items():
            if data is not None:
                suffix = PurePosixPath(path or "").suffix.lower()
                unpacked.write([data], kind, suffix if suffix in (*MEDIA_EXTENSIONS, *PICTURE_EXTENSIONS) else ".bin")
            elif path:
                unpacked.problem = RecordError(f"column {columns.media[kind]!r} has a path where another has bytes")
        return unpacked.finish(clips, lambda: fields)


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _id(cells: Mapping[str, Any], columns: Columns, default: str) -> str:
    if columns.id is None:
        return default
    value = cells[columns.id].as_py()
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RecordError(f"column {columns.id!r} must hold an id, a text or a whole number, got {value!r}")
    return str(value)


def _texts(cells: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    captions: dict[str, list[Any]] = {}
    for column, kind in (columns.captions or {}).items():
        value = cells[column].as_py()
        if value is not None:
            captions.setdefault(kind, []).extend(value if isinstance(value, list) else [value])
    fields: dict[str, Any] = {"captions": captions}
    if columns.transcript is not None:
        fields["transcript"] = cells[columns.transcript].as_py()
    return fields | {name: cells[column].as_py() for column, name in columns.own.items()}
