"""Data sets of read speech with transcripts: VCTK and LibriSpeech."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from lhotse.recipes.librispeech import LIBRISPEECH, MINI_LIBRISPEECH, parse_utterance

from peav.data.manifests.fields import RecordError
from peav.data.manifests.records import Record, Reject
from peav.data.media.folders import walk
from peav.data.readers.base import Reader
from peav.data.readers.clips import Clips, reject
from peav.data.readers.media_folder import MissingError


class VCTK(Reader):
    """VCTK (Yamagishi et al.; https://datashare.ed.ac.uk/handle/10283/3443): sentences read by 110 speakers of English.

    Reads txt/SPEAKER/NAME.txt; the audio is SPEAKER/NAME_mic1.flac in wav48_silence_trimmed/ as of version 0.92, SPEAKER/NAME.wav
    in wav48/ before. Ids are the names. VCTK has no splits of its own: speakers are named. Recordings without a text (speaker
    p315) are not read.

    Args:
        microphone: of version 0.92.
        validation_speakers: speakers whose clips are for validation.
        test_speakers: speakers whose clips are for tests.
        domain: label of the clips.

    Raises:
        ValueError: if the microphone is unknown.
    """

    def __init__(
        self,
        microphone: Literal["mic1", "mic2"] = "mic1",
        validation_speakers: Sequence[str] = (),
        test_speakers: Sequence[str] = (),
        domain: str = "speech",
    ) -> None:
        if microphone not in ("mic1", "mic2"):
            raise ValueError(f"the microphones of VCTK are mic1 and mic2, got {microphone!r}")
        self.microphone, self.domain = microphone, domain
        self.splits = {speaker: "validation" for speaker in validation_speakers}
        self.splits |= {speaker: "test" for speaker in test_speakers}

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the clips by speaker and name; see `Reader.read`.

        Raises:
            FileNotFoundError: if the folder of the texts or that of the audio is not there.
        """
        if not (source / "txt").is_dir():
            raise FileNotFoundError(f"no folder 'txt' in {source}: it should hold the texts, SPEAKER/NAME.txt")
        forms = {
            "wav48_silence_trimmed": f"wav48_silence_trimmed/{{}}_{self.microphone}.flac",
            "wav48": "wav48/{}.wav",
        }
        form = next((form for folder, form in forms.items() if (source / folder).is_dir()), None)
        if form is None:
            raise FileNotFoundError(f"no folder {' or '.join(forms)} in {source}: it should hold the audio")
        clips = Clips(source, "VCTK", self.domain)
        for path in walk(source / "txt", (".txt",)):
            parts = PurePosixPath(path)
            split = self.splits.get(parts.parts[0], "train")
            try:
                text = (source / "txt" / path).read_bytes().decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                yield Reject(parts.stem, f"txt/{path}", 0, f"not UTF-8: {error}")
                continue
            audio = form.format(parts.with_suffix(""))
            yield clips.make(parts.stem, 0, f"txt/{path}", audio=audio, transcript=text, split=split)


class LibriSpeech(Reader):
    """LibriSpeech (Panayotov et al., ICASSP 2015; https://www.openslr.org/12), and mini LibriSpeech (https://www.openslr.org/31).

    Reads PART/**/*.trans.txt, a line an utterance, by the recipe of Lhotse (`lhotse.recipes.librispeech`), of which it takes
    `parse_utterance`: `prepare_librispeech` itself stops at the first file that cannot be read, keeps silent about those that are
    not there and goes through the parts in no order. Parts named train-* are the split `train`, dev-* `validation`, test-* `test`.
    Ids are those of the utterances.

    Args:
        parts: such as `dev-clean`; by default those that are there.
        normalize_text: `lower` turns the transcripts, which are in capitals, to lower case; `none` leaves them.
        domain: label of the clips.

    Raises:
        ValueError: if a part or the normalisation is unknown.
    """

    def __init__(
        self,
        parts: Sequence[str] | None = None,
        normalize_text: Literal["none", "lower"] = "none",
        domain: str = "speech",
    ) -> None:
        known = (*LIBRISPEECH, *MINI_LIBRISPEECH)
        if unknown := [part for part in parts or () if part not in known]:
            raise ValueError(f"the parts of LibriSpeech are {', '.join(known)}, not {', '.join(unknown)}")
        if normalize_text not in ("none", "lower"):
            raise ValueError(f"normalize_text must be none or lower, got {normalize_text!r}")
        self.parts = tuple(parts) if parts is not None else None
        self.lower, self.domain = normalize_text == "lower", domain

    def read(self, source: Path, scratch: Path, skip: Callable[[str], bool]) -> Iterator[Record | Reject]:
        """Yields the utterances by part and file, in the order of the lines; see `Reader.read`.

        Raises:
            FileNotFoundError: if a part is not there, or by default none is.
        """
        known = sorted({*LIBRISPEECH, *MINI_LIBRISPEECH})
        parts = self.parts if self.parts is not None else [part for part in known if (source / part).is_dir()]
        if not parts:
            raise FileNotFoundError(f"no part of LibriSpeech in {source}: looked for the folders {', '.join(known)}")
        for part in parts:
            if not (source / part).is_dir():
                raise FileNotFoundError(f"no folder {part!r} in {source}: it should hold that part of LibriSpeech")
        clips = Clips(source, "LibriSpeech", self.domain)
        for part in parts:
            for table in walk(source / part, (".txt",)):
                if table.endswith(".trans.txt"):
                    with (source / part / table).open("rb") as stream:
                        for number, line in enumerate(stream, start=1):
                            if line.strip():
                                yield self._utterance(source, part, f"{part}/{table}", number, line, clips)

    def _utterance(
        self, source: Path, part: str, table: str, number: int, line: bytes, clips: Clips
    ) -> Record | Reject:
        name: str | None = None
        try:
            text = _decode(line)
            name, *rest = text.split(maxsplit=1)
            if not rest:
                raise RecordError("the line has no transcript: it should hold the id of an utterance, then its text")
            audio = f"{os.path.dirname(table)}/{name}.flac"
            if not os.path.isfile(source / audio):
                raise MissingError(audio, f"no such file: {audio} in {source}")
            path, words = _parse(source / part, text)
        except RecordError as error:
            return reject(error, name, number, table)
        split = {"train": "train", "dev": "validation", "test": "test"}[part.split("-")[0]]
        transcript = words.lower() if self.lower else words
        audio = Path(path).relative_to(source).as_posix()
        return clips.make(name, number, table, audio=audio, transcript=transcript, split=split)


def _decode(line: bytes) -> str:
    try:
        return line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8: {error}") from None


def _parse(part: Path, line: str) -> tuple[str, str]:
    """Returns the path of the audio and the text of an utterance, as the recipe finds them."""
    try:
        found = parse_utterance(part, line, {})
    except Exception as error:  # whatever the decoder that Lhotse chose provokes on this file
        raise RecordError(f"Lhotse cannot read it: {type(error).__name__}: {error}") from None
    if found is None:
        raise RecordError("its id does not name the folder that it lies in: it should be SPEAKER-CHAPTER-NUMBER")
    recording, supervision = found
    return recording.sources[0].source, supervision.text
