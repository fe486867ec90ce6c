"""Writing data sets in miniature, and reading them."""

from __future__ import annotations

import io
import json
import tarfile
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peav.data.manifests.records import Record, Reject
from peav.data.manifests.texts import texts_of
from peav.data.readers import Reader


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Writes files by their paths, texts as UTF-8."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def lines(*items: Any) -> str:
    """Returns lines of text, objects as JSON."""
    return "".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in items)


def tabs(*rows: str) -> str:
    """Returns rows whose cells stand apart by `|` as a table with tabs."""
    return lines(*(row.replace("|", "\t") for row in rows))


def wav_bytes(num_samples: int = 80, sample_rate: int = 8000) -> bytes:
    """Returns a WAV file of silence."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(sample_rate)
        stream.writeframes(bytes(2 * num_samples))
    return buffer.getvalue()


def tar_bytes(members: Mapping[str, bytes]) -> bytes:
    """Returns a tar with these members in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def read(
    reader: Reader, source: Path, scratch: Path | None = None, skip: Callable[[str], bool] = lambda _: False
) -> tuple[dict[str, Record], list[Reject]]:
    """Returns the records by id, whose ids must be unique, and the rejects."""
    items = list(reader.read(source, scratch or source.parent / "scratch", skip))
    records = {item.id: item for item in items if isinstance(item, Record)}
    assert len(records) == sum(isinstance(item, Record) for item in items)
    return records, [item for item in items if isinstance(item, Reject)]


def texts(record: Record) -> dict[str, tuple[str, ...]]:
    """Returns the texts of its captions by type."""
    return texts_of(record.captions)


def origins(record: Record) -> set[str]:
    """Returns who wrote its captions."""
    return {caption.origin for captions in record.captions.values() for caption in captions}


def events(record: Record) -> list[tuple[str, float | None, float | None]] | None:
    """Returns its events as tuples."""
    return None if record.events is None else [(item.phrase, item.onset, item.offset) for item in record.events]
