"""What stages that write down speech share: where they listen, in which pieces, and what of it is not to be trusted."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from peav.engine.stage import Columns, Failed, Stage
from peav.types import Seconds

_FRAME_SECONDS = 0.01

#: Frames over whose level the quietest place for a cut is sought.
_QUIET_FRAMES = 10


@dataclass(frozen=True)
class Piece:
    """A piece of a clip that is listened to at once.

    Attributes:
        samples: (S,) float32.
        start: of the piece in its clip.
        end: likewise.
    """

    samples: NDArray[np.float32]
    start: Seconds
    end: Seconds


@dataclass(frozen=True)
class Heard:
    """What a model wrote down of a part of a piece.

    Attributes:
        text: of it.
        start: in the clip.
        end: in the clip.
        tokens: of the text.
        logprob: mean log-probability of its tokens, None where the model does not say it.
        no_speech: probability that nobody speaks in the piece, None likewise.
        language: code of the language, such as `de`; "" where it is unknown.
        cut: whether the text ran on until the limit of tokens.
    """

    text: str
    start: Seconds
    end: Seconds
    tokens: int = 0
    logprob: float | None = None
    no_speech: float | None = None
    language: str = ""
    cut: bool = False


@dataclass(frozen=True)
class Listening:
    """Which pieces of a clip a model is given.

    Attributes:
        window_seconds: the longest piece.
        max_pause_seconds: spans of voice with a longer pause between them are pieces of their own.
        pad_seconds: of the sound around a span of voice that the model is given, too.
        min_level_db: level of a frame of 10 ms that may be voice, dBFS.
        min_voiced_seconds: of such frames, for a piece to be listened to at all.

    Raises:
        ValueError: if pieces would be shorter than a second.
    """

    window_seconds: Seconds = 30.0
    max_pause_seconds: Seconds = 1.0
    pad_seconds: Seconds = 0.3
    min_level_db: float = -40.0
    min_voiced_seconds: Seconds = 0.2

    def __post_init__(self) -> None:
        if self.window_seconds < 1:
            raise ValueError(f"window_seconds must be at least 1, got {self.window_seconds}")


@dataclass(frozen=True)
class Doubts:
    """From which values on a text is not trusted.

    Attributes:
        max_no_speech: probability that nobody speaks.
        min_logprob: mean log-probability of the tokens.
        max_compression: bytes of the text by its bytes when zlib packed it: loops pack well.
    """

    max_no_speech: float = 0.6
    min_logprob: float = -1.0
    max_compression: float = 2.4

    def of(self, heard: Heard) -> tuple[str, str] | None:
        """Returns a word and a sentence why a text is not trusted; None if it is."""
        packed = compression(heard.text)
        if heard.no_speech is not None and heard.no_speech > self.max_no_speech:
            return "no_speech", f"probably nobody speaks ({heard.no_speech:.2f} is more than {self.max_no_speech})"
        if heard.cut:
            return "cut", "the text ran on until the limit of tokens"
        if packed > self.max_compression:
            return (
                "repetition",
                f"it repeats itself: packed it is {packed:.1f} times smaller, more than {self.max_compression}",
            )
        if heard.logprob is not None and heard.logprob < self.min_logprob:
            return "improbable", f"its words are improbable ({heard.logprob:.2f} is less than {self.min_logprob})"
        return None


def compression(text: str) -> float:
    """Returns how many times smaller zlib makes a text.

    >>> round(compression("so it goes " * 20), 1) > 2.4 > round(compression("a quick brown fox jumps over it"), 1)
    True
    """
    data = text.encode("utf-8", "replace")
    return len(data) / len(zlib.compress(data))


class Transcriber(Stage):
    """Base class of stages that have a model write down what is said.

    Where an earlier stage provides `voice`, the model is given those spans alone, joined over short pauses. Otherwise it is given the
    whole clip. What is quieter than a floor is never given to it. A long span is divided where it is quietest, and all of it is heard.

    It provides `speech`: `{"text", "language", "segments": [{"text", "start", "end", "confidence"}], "confidence"}`, the confidence being
    the geometric mean of the probabilities of the tokens, without it where the model does not say them; {} where nothing was said that
    can be trusted. And `verdicts`, one for each reason why something in a piece was refused: they are counted in the report.

    Args:
        listening: which pieces the model is given.
        doubts: what is refused.
    """

    reads = ("audio", "duration", "voice?")
    provides = ("speech", "verdicts")
    unkeyed: ClassVar[tuple[str, ...]] = ("licence",)

    def __init__(self, listening: Listening, doubts: Doubts) -> None:
        self.listening, self.doubts = listening, doubts

    @abstractmethod
    def transcribe(self, pieces: Sequence[Piece]) -> list[list[Heard] | Failed]:
        """Writes down what is said in pieces, which are of any clips; at least one.

        Returns:
            for each piece what was heard in it, in its order.

        Raises:
            EngineStop: if nothing can be transcribed at present.
        """

    def __call__(self, batch: Columns) -> Columns:
        """Listens to a batch."""
        rows = [{name: values[place] for name, values in batch.items()} for place in range(len(batch["id"]))]
        pieces = [self.pieces(row) for row in rows]
        flat = [piece for own in pieces for piece in own]
        heard = iter(self.transcribe(flat) if flat else [])
        speech: list[Any] = []
        verdicts: list[list[dict[str, Any]]] = []
        for own in pieces:
            made = [next(heard) for _ in own]
            failed = next((one for one in made if isinstance(one, Failed)), None)
            told = [self._judged(one) for one in made if not isinstance(one, Failed)]
            speech.append(failed or speech_of([text for trusted, _ in told for text in trusted]))
            verdicts.append([verdict for _, refused in told for verdict in refused])
        return {"id": batch["id"], "speech": speech, "verdicts": verdicts}

    def _judged(self, heard: Sequence[Heard]) -> tuple[list[Heard], list[dict[str, Any]]]:
        """Returns what is trusted of a piece, and the verdicts on the rest, one for each reason."""
        trusted: list[Heard] = []
        refused: dict[str, dict[str, Any]] = {}
        for one in heard:
            text = one.text.strip()
            doubt = self.doubts.of(one) if text else None
            if doubt is None:
                trusted += [one] if text else []
            elif doubt[0] in refused:
                refused[doubt[0]]["text"] = f"{refused[doubt[0]]['text']} {text}"[:500]
            else:
                same = {"kind": "transcript", "outcome": "dropped"}
                refused[doubt[0]] = {"gate": doubt[0], "reason": doubt[1], "text": text[:500], **same}
        return trusted, list(refused.values())

    def pieces(self, row: Mapping[str, Any]) -> list[Piece]:
        """Returns the pieces of a clip that the model is given.

        Args:
            row: the columns of the clip.
        """
        samples, rate, how = row["audio"], self.sample_rate, self.listening
        if samples is None or not len(samples):
            return []
        duration = len(samples) / rate
        spans = [(0.0, duration)]
        if "voice" in row:
            pad = how.pad_seconds
            spans = [(max(start - pad, 0.0), min(end + pad, duration)) for start, end in row["voice"] or ()]
        found = []
        for start, end in windows(spans, samples, rate, how.window_seconds, how.max_pause_seconds):
            own = samples[round(start * rate) : round(end * rate)]
            if voiced_seconds(own, rate, how.min_level_db) >= how.min_voiced_seconds:
                found.append(Piece(own, start, end))
        return found


def speech_of(texts: Sequence[Heard]) -> dict[str, Any]:
    """Returns the column `speech` of a clip.

    >>> speech_of([Heard("Good morning.", 0.5, 1.5, 3, -0.1, 0.0, "en")])["text"]
    'Good morning.'
    """
    if not texts:
        return {}
    segments = []
    for one in texts:
        segment: dict[str, Any] = {"text": one.text.strip(), "start": round(one.start, 2), "end": round(one.end, 2)}
        if one.logprob is not None:
            segment["confidence"] = round(float(np.exp(one.logprob)), 3)
        segments.append(segment)
    speech: dict[str, Any] = {"text": " ".join(segment["text"] for segment in segments), "segments": segments}
    seconds: dict[str, Seconds] = {}
    for one in texts:
        seconds[one.language] = seconds.get(one.language, 0.0) + max(one.end - one.start, 0.01)
    if language := max(seconds, key=lambda name: seconds[name]):
        speech |= {"language": language}
    known = [(one.logprob, max(one.tokens, 1)) for one in texts if one.logprob is not None]
    if known:
        mean = sum(logprob * tokens for logprob, tokens in known) / sum(tokens for _, tokens in known)
        speech["confidence"] = round(float(np.exp(mean)), 3)
    return speech


def windows(
    spans: Sequence[Sequence[Seconds]],
    samples: NDArray[np.float32],
    sample_rate: int,
    longest: Seconds,
    max_pause: Seconds = 0.0,
) -> list[tuple[Seconds, Seconds]]:
    """Joins spans of a sound into windows, and divides those that are too long where the sound is quietest, in the last third of a window.

    Args:
        spans: in their order.
        samples: (S,).
        sample_rate: in Hz.
        longest: that a window may be.
        max_pause: between spans that are joined.

    >>> windows([(0.0, 1.0), (1.5, 2.0), (5.0, 6.0)], np.zeros(96000, np.float32), 16000, 30.0, 1.0)
    [(0.0, 2.0), (5.0, 6.0)]
    """
    found: list[tuple[Seconds, Seconds]] = []
    for start, end in spans:
        if found and start - found[-1][1] <= max_pause and end - found[-1][0] <= longest:
            found[-1] = (found[-1][0], end)
            continue
        start = max(start, found[-1][1]) if found else start  # spans that were padded may overlap
        while end - start > longest:
            cut = _quietest(samples, sample_rate, start + longest * 2 / 3, start + longest)
            found.append((start, cut))
            start = cut
        if start < end:
            found.append((start, end))
    return found


def _quietest(samples: NDArray[np.float32], sample_rate: int, first: Seconds, last: Seconds) -> Seconds:
    size = round(sample_rate * _FRAME_SECONDS)
    own = samples[round(first * sample_rate) : round(last * sample_rate)].astype(np.float64)
    frames = np.square(own[: len(own) // size * size].reshape(-1, size)).mean(axis=1)
    if len(frames) < _QUIET_FRAMES:
        return last
    level = np.convolve(frames, np.ones(_QUIET_FRAMES), "valid")
    return first + (int(level.argmin()) + _QUIET_FRAMES / 2) * _FRAME_SECONDS


def voiced_seconds(samples: NDArray[np.float32], sample_rate: int, min_level_db: float) -> Seconds:
    """Returns how long a sound is loud enough to be voice.

    Args:
        samples: (S,).
        sample_rate: in Hz.
        min_level_db: level of a frame of 10 ms, dBFS.

    >>> voiced_seconds(np.r_[np.zeros(8000), np.full(4000, 0.1)].astype(np.float32), 16000, -40.0)
    0.25
    """
    size = round(sample_rate * _FRAME_SECONDS)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    if not len(frames):
        return 0.0
    power = np.square(frames.astype(np.float64)).mean(axis=1)
    return float((10 * np.log10(np.maximum(power, 1e-12)) >= min_level_db).sum() * _FRAME_SECONDS)
