"""Spans of media as files that other programs read: JSON, TSV, RTTM, WebVTT and label tracks of Audacity."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from peav.atomic import replacing
from peav.spans import Span
from peav.types import Seconds


@dataclass(frozen=True)
class FileSpans:
    """What was found in a file.

    Attributes:
        file: its path.
        seconds: how long its sound is.
        spans: of each text, in the order of time.
    """

    file: str
    seconds: Seconds
    spans: Sequence[Sequence[Span]]

    def in_time(self, texts: Sequence[str]) -> list[tuple[str, Span]]:
        """Returns texts and their spans by onset."""
        found = [(text, span) for text, spans in zip(texts, self.spans, strict=True) for span in spans]
        return sorted(found, key=lambda pair: (pair[1].onset, pair[1].offset))


def to_json(texts: Sequence[str], files: Sequence[FileSpans], settings: Mapping[str, Any]) -> str:
    """Writes an object with the settings, the texts and, of each file, its events by onset. Times in seconds."""
    listed = [
        {
            "file": file.file,
            "seconds": file.seconds,
            "events": [
                {"text": text, "onset": span.onset, "offset": span.offset, "score": span.score}
                for text, span in file.in_time(texts)
            ],
        }
        for file in files
    ]
    return json.dumps({**settings, "texts": list(texts), "files": listed}, indent=1, ensure_ascii=False) + "\n"


def to_tsv(texts: Sequence[str], files: Sequence[FileSpans]) -> str:
    """Writes a table with the columns of DCASE, `filename onset offset event_label`, and `score`; quoted as CSV quotes."""
    stream = io.StringIO()
    writer = csv.writer(stream, "excel-tab", lineterminator="\n")
    writer.writerow(["filename", "onset", "offset", "event_label", "score"])
    for file in files:
        for text, span in file.in_time(texts):
            writer.writerow([file.file, f"{span.onset:.6f}", f"{span.offset:.6f}", text, f"{span.score:.6f}"])
    return stream.getvalue()


def to_rttm(texts: Sequence[str], files: Sequence[FileSpans]) -> str:
    """Writes NIST's Rich Transcription Time Marked: ten fields a line, parted by spaces, the text where the speaker's name stands.

    Fields hold no spaces: see `escape_field`.
    """
    lines = [
        f"SPEAKER {escape_field(file.file)} 1 {span.onset:.6f} {span.offset - span.onset:.6f} <NA> <NA> {escape_field(text)} "
        f"{span.score:.6f} <NA>\n"
        for file in files
        for text, span in file.in_time(texts)
    ]
    return "".join(lines)


def to_vtt(texts: Sequence[str], file: FileSpans) -> str:
    """Writes WebVTT (W3C): a cue a span."""
    cues = [
        f"\n{_clock(span.onset)} --> {_clock(max(span.offset, span.onset + 0.001))}\n{html.escape(_one_line(text), quote=False)}\n"
        for text, span in file.in_time(texts)
    ]
    return "WEBVTT\n" + "".join(cues)


def to_audacity(texts: Sequence[str], file: FileSpans) -> str:
    """Writes a label track: onset, offset and text, parted by tabs."""
    lines = [f"{span.onset:.6f}\t{span.offset:.6f}\t{_one_line(text)}\n" for text, span in file.in_time(texts)]
    return "".join(lines)


#: What one file holds of all media, and what holds one medium.
_TOGETHER: dict[str, Callable[[Sequence[str], Sequence[FileSpans]], str]] = {".tsv": to_tsv, ".rttm": to_rttm}
_APART: dict[str, Callable[[Sequence[str], FileSpans], str]] = {".vtt": to_vtt, ".txt": to_audacity}
SUFFIXES = (".json", *_TOGETHER, *_APART)


def write_spans(out: Path, texts: Sequence[str], files: Sequence[FileSpans], settings: Mapping[str, Any]) -> list[Path]:
    """Writes spans in the format that a name's end says.

    Args:
        out: a path that ends in .json, .tsv, .rttm, .vtt (WebVTT) or .txt (Audacity). The last two hold one medium: of several, each
            gets a file of its own in the folder OUT without its suffix.
        texts: K.
        files: with K lists of spans each.
        settings: for JSON.

    Returns:
        the files written.

    Raises:
        ValueError: if the name ends otherwise.
    """
    if out.suffix not in SUFFIXES:
        raise ValueError(f"--out must end in one of {', '.join(SUFFIXES)}, not {out.name!r}")
    if out.suffix == ".json":
        return [_write(out, to_json(texts, files, settings))]
    if out.suffix in _TOGETHER:
        return [_write(out, _TOGETHER[out.suffix](texts, files))]
    places = places_of(out, [file.file for file in files])
    return [_write(place, _APART[out.suffix](texts, file)) for place, file in zip(places, files, strict=True)]


def places_of(out: Path, media: Sequence[str]) -> list[Path]:
    """Returns where what belongs to each of some media is written: at `out` if it is one, else each by its name in a folder.

    >>> [str(path) for path in places_of(Path("x.vtt"), ["a/b/1.wav", "a/1.wav"])]
    ['x/b/1.wav.vtt', 'x/1.wav.vtt']
    """
    if len(media) == 1:
        return [out]
    paths = [Path(name).absolute() for name in media]
    # Their nearest common folder; several drives have none.
    shared = [parent for parent in paths[0].parents if all(parent in path.parents for path in paths)] if paths else []
    names = [path.relative_to(shared[0]) if shared else Path(*path.parts[1:]) for path in paths]
    return [out.with_suffix("") / name.with_name(name.name + out.suffix) for name in names]


def escape_field(text: str) -> str:
    r"""Writes a text as one field of RTTM: spaces become `_`; `_`, `%` and other white space are percent-encoded.

    >>> escape_field("dog barking"), escape_field("50 %\tof_it")
    ('dog_barking', '50_%25%09of%5Fit')
    """
    spaced = re.sub(r"[%_\s<>;]", lambda found: " " if found[0] == " " else _encoded(found[0]), text)
    return spaced.replace(" ", "_") or "<NA>"


def unescape_field(field: str) -> str:
    """The inverse of `escape_field`."""
    return "" if field == "<NA>" else unquote(field.replace("_", " "))


def _encoded(character: str) -> str:
    return "%5F" if character == "_" else quote(character, safe="")


def _write(path: Path, text: str) -> Path:
    """Writes a file whole or not at all. A name that is no UTF-8 is written with its bytes escaped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    return path


def _one_line(text: str) -> str:
    """Joins lines: tabs and ends of lines part fields and cues."""
    return " ".join(text.split())


def _clock(seconds: Seconds) -> str:
    """Returns hours, minutes, seconds and milliseconds.

    >>> _clock(3661.5), _clock(0.0004), _clock(59.9996)
    ('01:01:01.500', '00:00:00.000', '00:01:00.000')
    """
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"
