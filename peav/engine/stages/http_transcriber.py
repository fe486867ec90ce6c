"""`HTTPTranscriber`: speech to text by a server in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peav.engine.backends.base import Answer
from peav.engine.backends.http import HTTPBackend, read_object, wav_bytes
from peav.engine.stage import Failed, register_stage
from peav.engine.stages.listening import Doubts, Heard, Listening, Piece, Transcriber
from peav.types import Seconds


@dataclass(frozen=True)
class _Transcript(Answer):
    """What a server wrote down of a piece."""

    language: str = ""
    segments: tuple[Mapping[str, Any], ...] = ()


@register_stage
class HTTPTranscriber(Transcriber):
    """Asks a server at `URL/audio/transcriptions` what is said, as vLLM, faster-whisper's servers and `transformers serve` have it.

    It listens where :class:`ModelTranscriber` does, sends pieces as WAV, and treats mistakes of the server as `HTTPBackend` does. A server
    that answers with segments, their `avg_logprob` and `no_speech_prob` (`response_format: verbose_json`) is doubted by the same
    thresholds; of one that says a text alone, such as `transformers serve`, a segment is a piece, and only what repeats itself is
    refused: put a voice gate before it.

    Args:
        url: of the server, up to and with `/v1`.
        model: as the server calls it.
        revision: of the model, for the key and the provenance: the server does not say it.
        licence: of the model, for the provenance.
        language: in which everybody speaks, a code such as `de`; "" lets the server find out.
        response_format: `verbose_json`, or `json` for servers that know no other.
        window_seconds: the longest piece.
        max_pause_seconds: spans of voice with a longer pause between them are pieces of their own.
        pad_seconds: of the sound around a span of voice that the model is given, too.
        min_level_db: level of a frame of 10 ms that may be voice, dBFS.
        min_voiced_seconds: of such frames, for a piece to be listened to at all.
        max_no_speech: probability that nobody speaks from which on a segment is refused.
        min_logprob: mean log-probability of the tokens of a segment below which it is refused.
        max_compression: of a segment: how many times smaller zlib may make it.
        api_key_env: name of the environment variable that holds the key; "" for none.
        concurrency: requests at once.
        timeout_seconds: of a request.
        retries: of a request.
    """

    unkeyed = ("url", "licence", "api_key_env", "concurrency", "timeout_seconds", "retries")

    def __init__(
        self,
        url: str,
        model: str,
        revision: str = "",
        licence: str = "",
        language: str = "",
        response_format: str = "verbose_json",
        window_seconds: Seconds = Listening.window_seconds,
        max_pause_seconds: Seconds = Listening.max_pause_seconds,
        pad_seconds: Seconds = Listening.pad_seconds,
        min_level_db: float = Listening.min_level_db,
        min_voiced_seconds: Seconds = Listening.min_voiced_seconds,
        max_no_speech: float = Doubts.max_no_speech,
        min_logprob: float = Doubts.min_logprob,
        max_compression: float = Doubts.max_compression,
        api_key_env: str = "",
        concurrency: int = 16,
        timeout_seconds: float = 300.0,
        retries: int = 4,
    ) -> None:
        if response_format not in ("verbose_json", "json"):
            raise ValueError(f"response_format must be verbose_json or json, got {response_format!r}")
        super().__init__(
            Listening(window_seconds, max_pause_seconds, pad_seconds, min_level_db, min_voiced_seconds),
            Doubts(max_no_speech, min_logprob, max_compression),
        )
        self._server = HTTPBackend(
            url,
            model,
            api_key_env=api_key_env,
            concurrency=concurrency,
            timeout_seconds=timeout_seconds,
            retries=retries,
        )
        self._fields = {"model": model, "response_format": response_format, "temperature": "0"}
        self._fields |= {"language": language} if language else {}

    @classmethod
    def models(cls, init_args: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns the model."""
        return HTTPBackend.models(init_args)

    def transcribe(self, pieces: Sequence[Piece]) -> list[list[Heard] | Failed]:
        """Asks the server."""
        bodies = [
            {
                "data": self._fields,
                "files": {"file": ("piece.wav", wav_bytes(piece.samples, self.sample_rate), "audio/wav")},
            }
            for piece in pieces
        ]
        answers = self._server.post("audio/transcriptions", bodies, _read)
        return [_heard(piece, answer) for piece, answer in zip(pieces, answers, strict=True)]

    def close(self) -> None:
        """Closes the connections."""
        self._server.close()


def _read(response: Any) -> Answer:
    data = read_object(response)
    if isinstance(data, Answer):
        return data
    segments = data.get("segments") or ()
    if not isinstance(data.get("text"), str) or not all(isinstance(one, Mapping) for one in segments):
        return Answer(error=f"the answer is no transcript of OpenAI's form: {str(data)[:200]!r}")
    return _Transcript(data["text"], language=_code_of(str(data.get("language") or "")), segments=tuple(segments))


def _heard(piece: Piece, answer: Answer) -> list[Heard] | Failed:
    if not isinstance(answer, _Transcript):
        return Failed(answer.error)
    if not answer.segments:
        return [Heard(answer.text, piece.start, piece.end, language=answer.language)]
    try:
        return [
            Heard(
                str(one["text"]),
                min(piece.start + float(one["start"]), piece.end),
                min(piece.start + float(one["end"]), piece.end),
                len(one.get("tokens") or ()),
                None if one.get("avg_logprob") is None else float(one["avg_logprob"]),
                None if one.get("no_speech_prob") is None else float(one["no_speech_prob"]),
                answer.language,
            )
            for one in answer.segments
        ]
    except (KeyError, TypeError, ValueError) as error:
        return Failed(f"a segment of the answer cannot be read: {type(error).__name__}: {error}")


def _code_of(language: str) -> str:
    """Returns the code of a language: OpenAI's server says `english`, others `en`."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE  # noqa: PLC0415  slow to import

    return TO_LANGUAGE_CODE.get(language.lower(), language.lower())
