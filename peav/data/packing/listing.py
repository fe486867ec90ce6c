"""What a run of `prepare` starts from: a digest of its source and settings, which tells a run that goes on from another one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peav.data.manifests.records import check_listing
from peav.fields import fields as own_fields
from peav.opening import lines_of

_FORMAT = 3


@dataclass(frozen=True)
class Listing:
    """What is known of a source before it is read.

    Attributes:
        digest: equal for equal sources and settings.
        records: how many records there are; None where only reading tells.
        spans: whether a record names a part of a file.
        fields: those of the user's own kinds that the records may have.
    """

    digest: str
    records: int | None = None
    spans: bool = True
    fields: tuple[str, ...] = ()


def list_records(source: Path, path: Path, settings: Mapping[str, Any]) -> Listing:
    """Lists a JSONL file of clips: its bytes, and size and time of each file that it names. Links are followed.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    check_listing(path)
    digest = _begin(settings)
    records, spans = 0, False
    registered, own = tuple(own_fields), set[str]()
    with path.open("rb") as stream:
        for line in lines_of(stream):
            digest.update(line)
            if not line.strip():
                continue
            records += 1
            try:
                data = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if not isinstance(data, dict):
                continue
            spans = spans or bool(data.get("start") or data.get("duration"))
            own.update(name for name in registered if name in data)
            for role in ("media", "audio", "video", *registered):
                if isinstance(data.get(role), str):
                    digest.update(_state(source, data[role]))
    return Listing(_end(digest, own), records, spans, tuple(sorted(own)))


def list_reader(source: Path, settings: Mapping[str, Any], exclude: Path) -> Listing:
    """Lists a folder that a reader reads: size and time of every file below it.

    Args:
        source: the folder.
        settings: of the run, those of the reader among them.
        exclude: a folder below it that does not belong to it.
    """
    digest = _begin(settings)
    for path in _walk(str(source), os.path.realpath(exclude), set()):
        digest.update(_state(source, path))
    return Listing(_end(digest, own_fields), fields=tuple(own_fields))


def _begin(settings: Mapping[str, Any]) -> Any:
    return hashlib.sha256(json.dumps([_FORMAT, settings], sort_keys=True).encode())


def _end(digest: Any, own: Iterable[str]) -> str:
    """Returns the digest; which classes read the fields of the user's own kinds is a part of it, where there are any."""
    classes = [own_fields.get(name) for name in sorted(own)]
    if classes:
        digest.update(json.dumps([f"{cls.name} {cls.__module__}.{cls.__qualname__}" for cls in classes]).encode())
    return str(digest.hexdigest())


def _state(source: Path, file: str) -> bytes:
    try:
        stat = os.stat(os.path.join(source, file))
    except (OSError, ValueError):
        return b"missing\0"
    return f"{file!r} {stat.st_size} {stat.st_mtime_ns}\0".encode()


def _walk(folder: str, exclude: str, above: set[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real == exclude or real in above:  # a link to a folder above would never end
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _walk(entry.path, exclude, above | {real})
        else:
            yield os.path.abspath(entry.path)
