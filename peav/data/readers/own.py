"""Data of one's own: clips.jsonl, a table, or media files alone."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from peav.data.manifests.fields import RecordError, check_names
from peav.data.manifests.records import RECORD_FIELDS, Record, Reject, iter_records, parse_line
from peav.data.manifests.texts import caption_column, parse_caption_type
from peav.data.media.folders import MEDIA_EXTENSIONS, PICTURE_EXTENSIONS, extension_of, list_folder
from peav.data.readers.base import Reader
from peav.data.readers.clips import Clips, reject
from peav.data.readers.media_folder import seen_only
from peav.data.readers.rows import DELIMITERS, Rows, to_number
from peav.data.readers.splits import check_split, split_by_folder
from peav.fields import fields as own_fields

#: The columns of a table that hold captions, by type.
CAPTION_COLUMNS = {
    "caption": "audio",
    "audio_caption": "audio",
    "video_caption": "video",
    "audio_video_caption": "audio_video",
}

_TABLE_FIELDS = tuple(name for name in RECORD_FIELDS if name not in ("captions", "events"))
_NUMBERS = ("start", "duration")

#: What the JSON file beside a media file may say.
_SIDECAR_FIELDS = ("captions", "transcript", "events", "domain", "split", "licence", "dataset", "start", "duration")


_SIDECARS = (".json", ".txt")

_log = logging.getLogger(__name__)


class JSONLines(Reader):
    """A JSONL file with one clip a line, in the form of `peav.data.manifests.records`: the format of peav itself.

    Args:
        table: path of the file, relative to the data set or absolute.
        max_caption_words: captions with more words are dropped.
    """

    def __init__(self, table: str = "clips.jsonl", max_caption_words: int = 1000) -> None:
        self.table, self.max_caption_words = table, max_caption_words

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips in the order of the lines; see `Reader.read`.

        Raises:
            FileNotFoundError: if the file is not there.
        """
        clips = Clips(source)
        for item in iter_records(source / self.table, self.max_caption_words):
            if isinstance(item, Record):
                try:
                    clips.check_files(item)
                except RecordError as error:
                    item = reject(error, item.id, item.line, None)
            yield item


class Table(Reader):
    """A CSV or TSV file with a line that names the columns, and one clip a row.

    Columns have the names of the fields of a record (`peav.data.manifests.records`): id, media, audio, video, start, duration, transcript,
    domain, split, licence, dataset, and fields of your own kinds; image, which is a video that is a picture; caption or audio_caption,
    video_caption, audio_video_caption; and captions.TYPE for captions of any type. The caption of a row that has a picture and no sound
    is a video_caption. An empty cell is an absent field.

    Args:
        table: path of the file, relative to the data set.
        columns: column to field, for columns with names of their own; a caption type as field (`audio`, `video`, `audio_video` or
            one of yours) is written `captions.TYPE`.
        ignored_columns: columns that are not read. Others that are not known are an error, since they may be misspelt.
        dataset: name of the data set, where no column has it.
        domain: label of the clips, where no column has it.
        delimiter: what stands between two cells; by default tabs in a file that ends in .tsv, commas in any other.

    Raises:
        ValueError: if a field is unknown, or the delimiter is more than one character.
    """

    def __init__(
        self,
        table: str = "clips.csv",
        columns: Mapping[str, str] | None = None,
        ignored_columns: Sequence[str] = (),
        dataset: str = "",
        domain: str = "",
        delimiter: str | None = None,
    ) -> None:
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise ValueError(f"the delimiter of a table is one character, such as ',' or ';', got {delimiter!r}")
        self.delimiter = delimiter or ("\t" if table.lower().endswith(".tsv") else ",")
        given = (columns or {}).values()
        if unknown := [
            field for field in given if field not in (*_TABLE_FIELDS, *own_fields) and caption_column(field) is None
        ]:
            known = ", ".join(_TABLE_FIELDS)
            raise ValueError(f"columns map names to {known} and captions.TYPE, not to {', '.join(unknown)}")
        usual = {name: name for name in (*_TABLE_FIELDS, *own_fields)}
        usual |= {"image": "video"} | {name: f"captions.{kind}" for name, kind in CAPTION_COLUMNS.items()}
        self.columns: dict[str, str] = usual | dict(columns or {})
        self.given = tuple(columns or {})
        self.table, self.ignored, self.dataset, self.domain = table, tuple(ignored_columns), dataset, domain

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips in the order of the rows; see `Reader.read`.

        Raises:
            FileNotFoundError: if the table is not there.
            RecordError: if it has an unknown column, or none of ids.
        """
        rows = Rows(source, self.table, "a line that names the columns, and one clip a row", (), self.delimiter)
        if other := rows.other_delimiter():
            mark = next(mark for mark in DELIMITERS if mark in rows.header[0])
            raise RecordError(f"{rows.path}{other}: add --reader.delimiter {mark!r}")
        read = [name for name in rows.header if name not in self.ignored]
        for name in read:
            if name not in self.columns and (not name or name.startswith("Unnamed: ")):
                raise RecordError(
                    f"{rows.path}: {f'the column {name!r}' if name else 'a column without a name'} is the index that pandas writes, or an "
                    f"empty one: write the table with to_csv(index=False), or add --reader.ignored_columns '[{json.dumps(name)}]'"
                )
        fields = {name: name for name in read if caption_column(name) is not None} | self.columns
        check_names(dict.fromkeys(read), tuple(fields), "column")
        fields = {name: fields[name] for name in read}
        plain = [name for name in read if name == "caption" and name not in self.given]
        if "id" not in fields.values():
            raise RecordError(
                f"{rows.path} has no column 'id': give each clip a unique name, or name the column by `columns`"
            )
        clips = Clips(source, self.dataset, self.domain)
        for row in rows:
            data: dict[str, Any] = {"captions": {}}
            try:
                row.check()
                silent = _is_silent({fields[name]: row.values[name] for name in read})
                for name, field in fields.items():
                    if silent and name in plain:
                        field = "captions.video"
                    if value := row.values[name]:
                        if field.startswith("captions."):
                            data["captions"].setdefault(field.removeprefix("captions."), []).append(value)
                        else:
                            data[field] = to_number(value, name) if field in _NUMBERS else value
                if "id" not in data:
                    raise RecordError("the row has no id; give each clip a unique name")
            except RecordError as error:
                yield row.reject(error, data.get("id"))
                continue
            yield clips.make(data.pop("id"), row.line, row.table, **data)


def _is_silent(row: Mapping[str, str]) -> bool:
    """Returns whether the files of a row are a picture alone."""
    files = [row.get(role, "") for role in ("media", "audio", "video")]
    return not files[1] and any(files) and all(extension_of(file) in PICTURE_EXTENSIONS for file in files if file)


class Folder(Reader):
    """Media files alone, at any depth of a folder. An id is the path of the file, relative to the folder.

    Links to folders are followed, each folder once; hidden files and folders are passed over (`peav.data.media.folders`).

    A caption may lie beside NAME.mp4, say: `text` or `caption`, a string or a list, in NAME.json, or else all of NAME.txt. The JSON may
    also have the fields captions, transcript, events, domain, split, licence, dataset, start and duration of a record
    (`peav.data.manifests.records`), and fields of your own kinds; what else it says is passed over. Files whose names differ only in
    the extension are clips of their own.

    Args:
        caption_type: what the captions describe: `audio`, `video` or `audio_video`; or a type of your own. Those of a picture, which has
            no sound, are never `audio` or `audio_video` but `video`.
        pictures: whether pictures are clips; else they are passed over, covers and thumbnails beside media among them.
        split: of clips whose JSON does not say; by default the one that a folder of the file means, else `train`.
        dataset: name of the data set.
        domain: label of the clips.

    Raises:
        ValueError: if the split is unknown, or captions cannot be of a type of that name.
    """

    def __init__(
        self,
        caption_type: str = "audio",
        split: str | None = None,
        dataset: str = "",
        domain: str = "",
        pictures: bool = True,
    ) -> None:
        self.caption_type, self.split = parse_caption_type(caption_type), check_split(split)
        self.pictures = pictures
        self.dataset, self.domain = dataset, domain

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips by path; see `Reader.read`.

        Raises:
            FileNotFoundError: if there is no media file.
        """
        listing = list_folder(source)
        found: dict[str, list[str]] = {}
        for path in listing.files:
            found.setdefault(extension_of(path), []).append(path)
        read = MEDIA_EXTENSIONS + (PICTURE_EXTENSIONS if self.pictures else ())
        media = sorted(path for extension in read for path in found.get(extension, ()))
        if not media:
            raise FileNotFoundError(f"no media file in {source}, at any depth: looked for {', '.join(read)}")
        if listing.hidden:
            _log.info("passed over %d hidden files and folders of %s", listing.hidden, source)
        for folder in listing.unreadable:
            _log.warning("the folder %s cannot be listed: what is in it is passed over", folder)
        others = {extension: paths for extension, paths in found.items() if extension not in (*read, *_SIDECARS)}
        if others:
            listed = ", ".join(
                f"{len(paths)} {extension or 'without one'}" for extension, paths in sorted(others.items())
            )
            _log.warning("passed over %d files by their extension: %s", sum(map(len, others.values())), listed)
        texts = {path for extension in _SIDECARS for path in found.get(extension, ())}
        clips = Clips(source, self.dataset, self.domain)
        for path in media:
            stem = os.path.splitext(path)[0]
            fields: dict[str, Any] = {"split": self.split or split_by_folder(path) or "train"}
            sidecars = [name for name in (f"{stem}.json", f"{stem}.txt") if name in texts]
            sidecar: str | None = None
            try:
                for sidecar in sidecars:
                    self._describe(source / sidecar, fields, self._caption_type(path))
            except RecordError as error:
                yield reject(error, path, 0, sidecar)
                continue
            yield clips.make(path, 0, path, media=path, **fields)

    def _caption_type(self, path: str) -> str:
        return seen_only(self.caption_type) if extension_of(path) in PICTURE_EXTENSIONS else self.caption_type

    def _describe(self, path: Path, fields: dict[str, Any], caption_type: str) -> None:
        """Adds to the fields what a sidecar says; a text is a caption where the JSON has none of that type."""
        content = path.read_bytes()
        if PurePosixPath(path).suffix == ".txt":
            try:
                text = content.decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                raise RecordError(f"not UTF-8: {error}") from None
            captions = fields.get("captions")
            if captions is None or (isinstance(captions, dict) and caption_type not in captions):
                fields["captions"] = {**(captions or {}), caption_type: text}
            return
        data = parse_line(content)
        said = {name: data[name] for name in (*_SIDECAR_FIELDS, *own_fields) if name in data}
        given = data.get("text", data.get("caption"))
        if given is not None:
            captions = said.setdefault("captions", {})
            if not isinstance(captions, dict) or caption_type in captions:
                raise RecordError(f"give the {caption_type} captions by 'captions' or by 'text', not by both")
            said["captions"] = captions | {caption_type: given}
        if not said:
            raise RecordError(f"none of the fields text, caption, {', '.join(_SIDECAR_FIELDS)} is in it")
        fields |= said
