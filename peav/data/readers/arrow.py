"""Tables of Apache Arrow: opening them, and which of their columns hold what. Needs pyarrow, the extra `parquet`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peav.data.manifests.fields import RecordError, hint
from peav.data.manifests.texts import caption_column

#: Rows that are read at once: a row may hold a video.
_ROWS = 16

_CAPTIONS = {f"{kind}_caption{plural}": kind for kind in ("audio", "video", "audio_video") for plural in ("", "s")}
_PLAIN_CAPTIONS = ("caption", "captions", "text", *(f"caption_{number}" for number in range(1, 6)))
_TRANSCRIPTS = ("transcript", "transcription")


def read_errors() -> tuple[type[Exception], ...]:
    """Returns what pyarrow raises for a file that it cannot read.

    Raises:
        ImportError: if pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: PLC0415  an optional extra
    except ImportError as error:
        raise ImportError("parquet and Arrow files are read by pyarrow: pip install peav[parquet]") from error
    return pyarrow.ArrowException, OSError


def open_table(path: Path) -> tuple[Any, Callable[[Sequence[str]], Iterator[Any]]]:
    """Opens a parquet file, or the stream of an Arrow file.

    Returns:
        Its schema, and a function of the names of columns that yields them in batches of rows.

    Raises:
        pyarrow.ArrowException or OSError: if it cannot be read; the batches may raise them too.
    """
    import pyarrow.parquet  # noqa: PLC0415  an optional extra

    if path.suffix.lower() == ".parquet":
        file = pyarrow.parquet.ParquetFile(path)
        return file.schema_arrow, lambda names: file.iter_batches(_ROWS, columns=list(names))
    stream = pyarrow.ipc.open_stream(pyarrow.memory_map(str(path)))
    return stream.schema, lambda names: (batch.select(list(names)) for batch in stream)


def media_cell(cell: Any) -> tuple[memoryview | None, str | None]:
    """Returns the bytes, which are not copied, and the path that a cell holds, each None where there is none.

    Raises:
        RecordError: if it holds something else.
    """
    import pyarrow  # noqa: PLC0415  an optional extra

    if not cell.is_valid:
        return None, None
    kind = cell.type
    if pyarrow.types.is_struct(kind):
        names = [field.name for field in kind]
        data = cell["bytes"].as_buffer() if "bytes" in names else None
        return None if data is None else memoryview(data), cell["path"].as_py() if "path" in names else None
    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        return memoryview(cell.as_buffer()), None
    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        return None, cell.as_py()
    raise RecordError(f"a column of media must hold {{bytes, path}}, bytes or paths, it holds {kind}")


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what they hold; None stands for one that is not there, or is not chosen yet.

    Attributes:
        id: of ids.
        audio: of audio.
        video: of video.
        transcript: of what is said.
        captions: column to caption type.
        own: column to field of one's own kind.
    """

    id: str | None
    audio: str | None
    video: str | None
    transcript: str | None
    captions: Mapping[str, str] | None
    own: Mapping[str, str] = field(default_factory=dict)

    @property
    def media(self) -> dict[str, str]:
        """The columns of media by what they hold, `audio` and `video`."""
        return {kind: name for kind, name in (("audio", self.audio), ("video", self.video)) if name is not None}

    @property
    def names(self) -> list[str]:
        """All of them, each once."""
        single = (self.id, self.audio, self.video, self.transcript)
        return list(
            dict.fromkeys([name for name in single if name is not None] + list(self.captions or {}) + list(self.own))
        )


def choose_columns(schema: Any, chosen: Columns) -> Columns:
    """Returns the columns of a table: those chosen, and for the others those that its types and names suggest.

    Args:
        schema: of the table.
        chosen: by the user.

    Raises:
        RecordError: if a chosen one is not there, or there is none of media.
    """
    there = tuple(schema.names)
    for name in chosen.names:
        if name not in there:
            raise RecordError(f"no column {name!r}{hint(name, there)} The columns are {', '.join(there)}")
    types = _types(schema)
    audio = chosen.audio or _by_type(types, "Audio") or next((name for name in ("audio",) if name in there), None)
    video = chosen.video or _by_type(types, "Video") or next((name for name in ("video",) if name in there), None)
    video = video or _by_type(types, "Image") or next((name for name in ("image",) if name in there), None)
    if audio is None and video is None:
        raise RecordError(
            f"no column of audio, video or pictures: name one of {', '.join(there)} by audio_column or video_column"
        )
    transcript = chosen.transcript or next((name for name in _TRANSCRIPTS if name in there), None)
    captions = chosen.captions
    if captions is None:
        plain = "audio_video" if audio and video else "video" if video else "audio"
        known = _CAPTIONS | dict.fromkeys(_PLAIN_CAPTIONS, plain)
        known |= {name: kind for name in there if (kind := caption_column(name)) is not None}
        captions = {name: known[name] for name in there if name in known and name != transcript}
    return Columns(chosen.id, audio, video, transcript, captions, chosen.own)


def _types(schema: Any) -> dict[str, str]:
    """Returns the types of columns as `datasets` notes them in the schema; empty where it did not write the file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["_type"] for name, feature in features.items() if "_type" in feature}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _by_type(types: Mapping[str, str], kind: str) -> str | None:
    names = [name for name, found in types.items() if found == kind]
    if len(names) > 1:
        by = "audio_column" if kind == "Audio" else "video_column"
        raise RecordError(f"{len(names)} columns of the type {kind}: name one of {', '.join(names)} by {by}")
    return names[0] if names else None
