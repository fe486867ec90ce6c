"""Reading single fields of JSON objects: each is right, or an error names the value and the fix."""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class RecordError(ValueError):
    """A record, or a field in it, that cannot be used. The message names the value and the fix."""


def check_names(data: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    """Refuses names that are not known.

    Raises:
        RecordError: with the nearest known name.
    """
    for name in data:
        if name not in known:
            raise RecordError(f"unknown {what} {name!r}{hint(name, known)} The {what}s are {', '.join(known)}")


def hint(name: str, known: tuple[str, ...]) -> str:
    """Returns the end of a sentence about an unknown name: the nearest known one, if one is near."""
    close = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {close[0]!r}?" if close else "."


def read_text(data: Mapping[str, Any], name: str) -> str | None:
    """Returns a string, None where it is absent.

    Raises:
        RecordError: if it is something else, or no text can hold it.
    """
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise RecordError(f"{name!r} must be a string, got {value!r}")
    if value is not None:
        check_unicode(value, name)
    return value


def check_unicode(value: str, name: str) -> None:
    r"""Refuses half a surrogate pair: JSON can write it (`"\ud800"`), files and tokenizers cannot hold it.

    Raises:
        RecordError: if there is one.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RecordError(f"{name!r} holds half of a surrogate pair, which is no character: {value!r}") from None


def name_encoding(content: bytes, error: UnicodeDecodeError) -> str:
    r"""Says in what a text is written that is not UTF-8, where it says so itself, or which byte is at fault.

    >>> def tried(content):
    ...     try:
    ...         content.decode()
    ...     except UnicodeDecodeError as error:
    ...         return name_encoding(content, error)
    >>> tried("é".encode("utf-16")), tried(b"caf\xe9")
    ('it is UTF-16, as spreadsheets and Notepad write it; save it as UTF-8', 'byte 0xe9 at position 3')
    """
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "it is UTF-16, as spreadsheets and Notepad write it; save it as UTF-8"
    return f"byte {content[error.start]:#04x} at position {error.start}"


def check_tree(value: Any, name: str, depth: int = 50) -> None:
    """Refuses values that peav keeps without reading them and could not write again: `check_unicode` for every text and name in them.

    Raises:
        RecordError: if a text or a name holds half a surrogate pair, or they are nested more than `depth` deep.
    """
    if isinstance(value, str):
        check_unicode(value, name)
    elif isinstance(value, dict | list | tuple):
        if not depth:
            raise RecordError(f"{name!r} holds lists or objects that are nested too deep")
        for item in value:
            check_tree(item, name, depth - 1)
            if isinstance(value, dict):
                check_tree(value[item], name, depth - 1)


def read_number(data: Mapping[str, Any], name: str, minimum: float = 0.0) -> float | None:
    """Returns a finite number of seconds, None where it is absent.

    Raises:
        RecordError: if it is something else, or below `minimum`.
    """
    value = data.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(f"{name!r} must be a number of seconds, got {value!r}")
    # Beyond a century it is another unit, and int(1e400) has no float.
    if not minimum <= value <= 4e9 or not math.isfinite(value):
        raise RecordError(f"{name!r} must be a finite number of seconds, at least {minimum:g}, got {value!r}")
    return float(value)


def read_share(data: Mapping[str, Any], name: str, default: float = 1.0) -> float:
    """Returns a number from 0 to 1.

    Raises:
        RecordError: if it is something else.
    """
    value = data.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:  # NaN neither
        raise RecordError(f"{name!r} must be a number from 0 to 1, got {value!r}")
    return float(value)


def read_path(data: Mapping[str, Any], name: str) -> str | None:
    """Returns a path inside the source folder, None where it is absent.

    It is judged by its letters: a folder of media may well be a symbolic link to another disk, and links are followed.

    Raises:
        RecordError: if it leads out of the folder.
    """
    value = read_text(data, name)
    if value is None:
        return None
    normal = os.path.normpath(value)
    outside = os.path.isabs(normal) or normal.split(os.sep)[0] == ".."
    if not value.strip() or normal == "." or outside or "\0" in value:
        raise RecordError(f"{name!r} must be a path inside the source folder and relative to it, got {value!r}")
    return normal


def find_file(value: Any, folder: Path) -> Path:
    """Returns the file that a field of one's own kind names, as those of media are found: a path inside the source folder.

    Args:
        value: what the record has.
        folder: that the paths of the record start from.

    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if the value is no path, or one that leads out of the folder.
    """
    name = read_path({"path": value}, "path")
    if name is None:
        raise RecordError("there is no path")
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {name}")
    return path


#: Characters of JSON that the manifest keeps of a field of one's own kind.
MAX_VALUE = 1 << 16


def check_value(value: Any, name: str) -> Any:
    """Returns the value of a field of one's own kind that a manifest keeps.

    Raises:
        RecordError: if JSON cannot hold it, or it is too long for a manifest.
    """
    check_tree(value, name)
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{name!r} must be bytes or what JSON can hold: {error}") from None
    if len(text) > MAX_VALUE:
        raise RecordError(f"{name!r} has {len(text):,} characters, too many for a manifest: `read` should return bytes")
    return json.loads(text)
