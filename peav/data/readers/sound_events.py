"""Data sets of annotated events, one entry a clip: URBAN-SED and FineLAP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from peav.data.manifests.fields import RecordError, read_text
from peav.data.manifests.labels import Labels
from peav.data.manifests.records import OPEN, Record, Reject, parse_line
from peav.data.media.folders import walk
from peav.data.readers.base import Reader
from peav.data.readers.clips import Clips
from peav.data.readers.events import event, merged
from peav.data.readers.labels import spaced
from peav.data.readers.rows import Rows, central_file
from peav.data.readers.splits import check_split, split_of_name

#: The classes of URBAN-SED.
URBAN_SOUNDS = (
    "air_conditioner",
    "car_horn",
    "children_playing",
    "dog_bark",
    "drilling",
    "engine_idling",
    "gun_shot",
    "jackhammer",
    "siren",
    "street_music",
)


class URBANSED(Reader):
    """URBAN-SED (Salamon et al., WASPAA 2017; https://zenodo.org/records/1324404): soundscapes of 10 s with ten classes.

    Reads annotations/SPLIT/NAME.txt for the splits train, validate and test: onset, offset and label, separated by tabs, a line an
    event and none in a clip without events; the audio is audio/SPLIT/NAME.wav. Events of one class that overlap are made one. A
    clip with a line that cannot be understood is left out whole. Ids are the names; words in labels are separated by spaces. The ten
    classes are the vocabulary `urban_sed`.

    Args:
        domain: label of the clips.
    """

    def __init__(self, domain: str = "effects") -> None:
        self.domain = domain

    def labels(self, source: Path) -> Labels:
        """Returns the ten classes; see `Reader.labels`."""
        return Labels({"urban_sed": tuple(map(spaced, URBAN_SOUNDS))}).merged(super().labels(source))

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips by split and name; see `Reader.read`.

        Raises:
            FileNotFoundError: if there are no annotations.
        """
        clips = Clips(source, "URBAN-SED", self.domain)
        folders = [name for name in ("train", "validate", "test") if (source / "annotations" / name).is_dir()]
        if not folders:
            raise FileNotFoundError(f"no folder annotations/train, validate or test in {source}: they hold the events")
        for folder in folders:
            for name in walk(source / "annotations" / folder, (".txt",)):
                table, stem = f"annotations/{folder}/{name}", str(PurePosixPath(name).with_suffix(""))
                events: list[dict[str, Any]] = []
                line = 0
                try:
                    for row in Rows(source, table, "events", (), "\t", ("onset", "offset", "label"), quoted=False):
                        line = row.line
                        row.check()
                        phrase = spaced(row.text("label"))
                        events.append(event(row.number("onset"), row.number("offset"), phrase))
                except RecordError as error:
                    yield Reject(stem, table, line, str(error))
                    continue
                split, audio = split_of_name(folder), f"audio/{folder}/{stem}.wav"
                known = {"events": merged(events), "vocabulary": "urban_sed"}
                yield clips.make(stem, 0, table, audio=audio, split=split, **known)


class FineLAP(Reader):
    """FineLAP (arXiv 2604.01155): captions, and phrases of them with the segments in which they are heard.

    Reads a JSONL file whose lines hold `audio_id`, `audio_path`, `caption` and `phrases`, a list of `{"phrase", "segments":
    [[onset, offset], ...]}` in seconds. A clip without phrases has a caption and is not annotated: it is not free of sounds. Of what is
    not among its phrases nothing is known either (vocabulary `open`); a phrase without segments is left out.

    Args:
        table: path of the JSONL file.
        media: folder that the paths of the audio start from, "" for the data set's own.
        origin: who wrote the captions: a model (`synthetic`), as for the clips that FineLAP made, or people (`real`).
        split: of all its clips.
        domain: label of the clips.

    Raises:
        ValueError: if the origin or the split is unknown.
    """

    def __init__(
        self,
        table: str = "train.jsonl",
        media: str = "",
        origin: Literal["real", "synthetic"] = "synthetic",
        split: str = "train",
        domain: str = "",
    ) -> None:
        if origin not in ("real", "synthetic"):
            raise ValueError(f"the origin of captions is real or synthetic, got {origin!r}")
        self.table, self.media, self.origin, self.split, self.domain = table, media, origin, check_split(split), domain

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips in the order of the lines; see `Reader.read`.

        Raises:
            FileNotFoundError: if the JSONL file is not there.
        """
        path = central_file(source, self.table, "a JSON object a line: audio_id, audio_path, caption, phrases")
        clips = Clips(source, "FineLAP", self.domain)
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                clip_id = None
                try:
                    data = parse_line(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
                    clip_id = _text(data, "audio_id")
                    audio, caption = _text(data, "audio_path"), read_text(data, "caption")
                    events = _events(data.get("phrases"))
                except RecordError as error:
                    yield Reject(clip_id, self.table, number, str(error))
                    continue
                captions = {"audio": [{"text": caption, "origin": self.origin}]} if caption else None
                audio = f"{self.media}/{audio}" if self.media else audio
                known = None if events is None else OPEN
                fields = {
                    "audio": audio,
                    "captions": captions,
                    "events": events,
                    "vocabulary": known,
                    "split": self.split,
                }
                yield clips.make(clip_id, number, self.table, **fields)


def _text(data: dict[str, Any], name: str) -> str:
    if not (value := read_text(data, name)):
        raise RecordError(f"the line has no {name!r}")
    return value


def _events(phrases: Any) -> list[dict[str, Any]] | None:
    if not phrases:
        return None
    form = '[{"phrase", "segments": [[onset, offset], ...]}, ...]'
    if not isinstance(phrases, list) or not all(isinstance(item, dict) for item in phrases):
        raise RecordError(f"'phrases' must be {form}, got {phrases!r}")
    events = []
    for item in phrases:
        phrase, segments = _text(item, "phrase"), item.get("segments")
        if not isinstance(segments, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in segments):
            raise RecordError(f"'phrases' must be {form}, got segments {segments!r} of {phrase!r}")
        events += [{"phrase": phrase, "onset": onset, "offset": offset} for onset, offset in segments]
    return events
