"""From what a reader understood to records: the fields are checked, ids are unique, files are there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Record, Reject, parse_record
from peav.data.manifests.taken_ids import TakenIds
from peav.data.readers.media_folder import MissingError


class Clips:
    """Makes the records of a data set; a clip that cannot be used gives a reject.

    Args:
        source: folder of the data set.
        dataset: name of the data set.
        domain: label of its clips, "" for none.
    """

    def __init__(self, source: Path, dataset: str = "", domain: str = "") -> None:
        self.source, self.dataset, self.domain = source, dataset, domain
        self._ids = TakenIds()

    def reserve_id(self, clip_id: str) -> None:
        """Takes an id.

        Raises:
            RecordError: if another clip has it, it clashes with what chunks are called, or no file can hold it.
        """
        self._ids.take(clip_id)

    def make(self, clip_id: str, line: int, table: str | None, **fields: Any) -> Record | Reject:
        """Returns the record of a clip.

        Args:
            clip_id: id that no clip has yet.
            line: line, or number from 1, of its entry.
            table: file that describes it, relative to the data set, for rejects.
            fields: of the record, as `clips.jsonl` has them (`peav.data.manifests.records`); those that are None are absent.
        """
        try:
            self.reserve_id(clip_id)
            record = self.parse(clip_id, line, fields)
            self.check_files(record)
            return record
        except RecordError as error:
            return reject(error, clip_id, line, table)

    def parse(self, clip_id: str, line: int, fields: Mapping[str, Any]) -> Record:
        """Returns the record of a clip whose id is taken already, without a look at its files.

        Raises:
            RecordError: if a field cannot be used.
        """
        known = {name: value for name, value in fields.items() if value is not None}
        record = parse_record({"id": clip_id, **known}, line)[0]
        return replace(record, dataset=record.dataset or self.dataset, domain=record.domain or self.domain)

    def check_files(self, record: Record) -> None:
        """Looks whether the files of a record are there.

        Raises:
            MissingError: if one is not.
        """
        for path in record.files.values():
            if not os.path.isfile(self.source / path):
                raise MissingError(path, f"no such file: {path} in {self.source}")


def reject(error: RecordError, clip_id: str | None, line: int, file: str | None) -> Reject:
    """Returns the reject of a clip; a MissingError names the file that is not there, else it is the one that describes the clip."""
    missing = isinstance(error, MissingError)
    file = error.file if isinstance(error, MissingError) else file
    return Reject(_printable(clip_id), _printable(file), line, str(error), missing)


def _printable(name: str | None) -> str | None:
    """Returns a name of a file as text: one that is not UTF-8 reaches us as half surrogate pairs, which no report can hold."""
    return None if name is None else name.encode(errors="backslashreplace").decode()
