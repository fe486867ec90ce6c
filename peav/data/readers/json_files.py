"""Annotations that a data set publishes as one JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peav.data.manifests.fields import RecordError, read_text
from peav.data.readers.rows import central_file


def load_json(source: Path, table: str, kind: type, what: str) -> Any:
    """Reads a JSON file.

    Args:
        source: folder of the data set.
        table: path of the file, relative to it.
        kind: what it must hold, `list` or `dict`.
        what: of what, for the error.

    Raises:
        FileNotFoundError: if it is not there.
        RecordError: if it is no JSON, or holds something else.
    """
    path = central_file(source, table, what)
    try:
        data = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, kind):
        raise RecordError(f"{path} must hold a JSON {kind.__name__} of {what}, it holds a {type(data).__name__}")
    return data


def required_text(entry: Any, name: str) -> str:
    """Returns a text of an entry.

    Raises:
        RecordError: if the entry is no object, or has no such text.
    """
    if not isinstance(entry, dict):
        raise RecordError(f"an entry is a JSON object, got {entry!r}")
    if not (value := read_text(entry, name)):
        raise RecordError(f"the entry has no {name!r}")
    return value
