"""Fields of one's own kind in packing: read from the record once, cut to each of its clips, kept as a file or as a value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peav.data.manifests.fields import RecordError, check_value
from peav.data.manifests.records import Record
from peav.fields import Field, Stored
from peav.types import Seconds


class OwnFieldError(RecordError):
    """A field of one's own kind that cannot be used; carries the file that is not there, where one is missing."""

    def __init__(self, reason: str, file: str | None = None) -> None:
        super().__init__(reason)
        self.file = file


@dataclass(frozen=True)
class KeptFields:
    """What is packed of a clip's fields of one's own kind.

    Attributes:
        files: scratch files of those that are bytes, by name.
        values: of those that the manifest holds, by name.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    def read(self) -> dict[str, bytes]:
        """Returns the bytes by name."""
        return {name: path.read_bytes() for name, path in self.files.items()}

    def in_manifest(self) -> dict[str, dict[str, Any]]:
        """Returns what the manifest says of them."""
        sizes = {name: {"bytes": path.stat().st_size} for name, path in self.files.items()}
        return sizes | {name: {"value": value} for name, value in self.values.items()}


def read_own(fields: Mapping[str, Field], record: Record, root: Path) -> dict[str, Stored]:
    """Reads the fields of one's own kind that a record has.

    Raises:
        OwnFieldError: if one cannot be used.
    """
    stored: dict[str, Stored] = {}
    for name, value in record.own.items():
        with _explained(name, value):
            stored[name] = _check_form(name, fields[name].read(value, root))
    return stored


def keep_own(
    fields: Mapping[str, Field], stored: Mapping[str, Stored], span: tuple[Seconds, Seconds] | None, stem: Path
) -> KeptFields:
    """Cuts what was read of a recording to a clip.

    Args:
        fields: by name.
        stored: what was read, by name.
        span: start and duration of the clip in the recording, seconds; None where it is all of it.
        stem: what the names of scratch files begin with.

    Raises:
        OwnFieldError: if a field cannot be cut.
    """
    files: dict[str, Path] = {}
    values: dict[str, Any] = {}
    for name, whole in stored.items():
        part = whole
        if span is not None:
            with _explained(name, None):
                part = _check_form(name, fields[name].cut(whole, *span))
        if isinstance(part, bytes):
            files[name] = stem.with_name(f"{stem.name}-own-{name}.bin")
            files[name].write_bytes(part)
        else:
            values[name] = part
    return KeptFields(files, values)


def _check_form(name: str, stored: Any) -> Stored:
    if isinstance(stored, bytes | bytearray | memoryview):
        return bytes(stored)
    return check_value(stored, name)


@contextmanager
def _explained(name: str, value: Any) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        file = value if isinstance(value, str) else None
        raise OwnFieldError(f"field {name!r}: {_sentence(error)}", file or str(error)) from None
    except ValueError as error:
        raise OwnFieldError(f"field {name!r}: {error}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, PermissionError):
            raise  # the disk, not the field
        raise OwnFieldError(f"field {name!r}: unexpected {type(error).__name__}: {error}") from None


def _sentence(error: FileNotFoundError) -> str:
    return str(error) if error.filename is None else f"no such file: {error.filename}"
