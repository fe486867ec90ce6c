"""Stages that ask a model: captioners that hear and see, and the writer that merges what is known into three captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peav.engine.backends import Answer, Backend, Request, answers_of, plan_backend
from peav.engine.backends.answers import plain_text, read_captions
from peav.engine.stage import Columns, Failed, FrameNeeds, Stage, register_stage
from peav.types import CAPTION_TYPES


class _Asks(Stage):
    """What stages that ask a model share."""

    backend: Backend

    @classmethod
    def key_arguments(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Takes, of the backend, the model that it runs, and not where and how fast it runs it."""
        backend, arguments = plan_backend(init_args["backend"])
        said = {"class": f"{backend.__module__}.{backend.__qualname__}", "version": backend.version}
        return {**init_args, "backend": {**said, "identity": backend.identity(arguments)}}

    @classmethod
    def models(cls, init_args: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns the models of the backend."""
        backend, arguments = plan_backend(init_args["backend"])
        return backend.models(arguments)

    def _connect(self, config: Mapping[str, Any]) -> None:
        backend, arguments = plan_backend(config)
        self.backend = backend(**arguments)

    def _ask(self, requests: Sequence[Request]) -> list[Answer]:
        """Asks the backend, and counts the tokens."""
        answers = answers_of(self.backend, requests) if requests else []
        self.tokens_in += sum(answer.tokens_in for answer in answers)
        self.tokens_out += sum(answer.tokens_out for answer in answers)
        return answers

    def close(self) -> None:
        """Closes the backend."""
        self.backend.close()


@register_stage
class ModelCaptioner(_Asks):
    """Asks a model for a caption of what it hears or sees.

    It provides `candidates`: `{"kind", "text", "by", "finish"}`. A clip without the media that `media` names has none.

    Args:
        backend: `{"class_path": ..., "init_args": {...}}`.
        prompt: what the model is asked.
        kind: type of the captions.
        media: what the model is given: `audio`, `frames`, or both; by default what the type describes.
        name: `by` of the captions.
        system: the instruction before the prompt.
        max_tokens: of an answer.
        temperature: of sampling; 0 takes the most likely token.
        sample_rate: of the sound, Hz.
        num_frames: frames a clip.
        frame_size: of the frames, pixels.
    """

    provides = ("candidates",)

    def __init__(
        self,
        backend: dict[str, Any],
        prompt: str,
        kind: str = "audio",
        media: list[str] | None = None,
        name: str = "captioner",
        system: str = "",
        max_tokens: int = 96,
        temperature: float = 0.0,
        sample_rate: int = 16000,
        num_frames: int = 8,
        frame_size: int = 336,
    ) -> None:
        if kind not in CAPTION_TYPES:
            raise ValueError(f"kind must be one of {', '.join(CAPTION_TYPES)}, got {kind!r}")
        self.prompt, self.kind, self.media, self.name, self.system = prompt, kind, media_of(kind, media), name, system
        self.max_tokens, self.temperature, self.sample_rate = max_tokens, temperature, sample_rate
        self.frame_needs = FrameNeeds((frame_size, frame_size), num_frames)
        self._connect(backend)

    @classmethod
    def columns(cls, init_args: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Returns the media that it reads."""
        return media_of(init_args["kind"], init_args["media"]), cls.provides

    def __call__(self, batch: Columns) -> Columns:
        """Asks for the clips of a batch that have the media."""
        rows = range(len(batch["id"]))
        there = [row for row in rows if all(batch[column][row] is not None for column in self.media)]
        requests = [
            Request(
                batch["id"][row],
                self.prompt,
                self.system,
                batch["audio"][row] if "audio" in self.media else None,
                self.sample_rate,
                batch["frames"][row] if "frames" in self.media else None,
                self.max_tokens,
                self.temperature,
            )
            for row in there
        ]
        found: list[Any] = [[] for _ in rows]
        for row, answer in zip(there, self._ask(requests), strict=True):
            text = plain_text(answer.text)
            if answer.error or not text:
                found[row] = Failed(answer.error or "the model answered nothing")
            else:
                found[row] = [{"kind": self.kind, "text": text, "by": self.name, "finish": answer.finish}]
        return {"id": batch["id"], "candidates": found}


def media_of(kind: str, media: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the columns of media that a captioner is given.

    Raises:
        ValueError: if one is unknown.
    """
    given = media or {"audio": ["audio"], "video": ["frames"]}.get(kind, ["audio", "frames"])
    for column in given:
        if column not in ("audio", "frames"):
            raise ValueError(f"media must be audio, frames or both, got {column!r}")
    return tuple(given)


#: What the writer asks by default. What changes from clip to clip comes last, so that servers keep the rest in their cache.
WRITER_PROMPT = (
    "You are given notes about a short clip, each with how sure its author was. Write one sentence about what is heard, one about what "
    "is seen, and one about both. Use only what the notes say; leave out what is of low confidence if there is something better. The "
    "first sentence has no colours, clothes or places that only the picture shows; the second no sounds; none quotes what is said. Answer "
    'with JSON alone: {"audio": "...", "video": "...", "audio_video": "..."}; null for what the notes say nothing about.'
)


@register_stage
class ModelWriter(_Asks):
    """Asks a language model to merge tags and captions of others, with their confidence as words, into three captions.

    It provides `texts` by type, and `finish`: why each ended. What is refused by a gate is asked for again, with the reason.

    Args:
        backend: `{"class_path": ..., "init_args": {...}}`.
        prompt: what the model is asked; the notes follow.
        system: the instruction before the prompt.
        kinds: types that are kept; where it is one, the answer may be the caption alone, without JSON.
        max_tokens: of an answer.
        temperature: of sampling; 0 takes the most likely token.
    """

    version = 2
    reads = ("tags?", "candidates?", "speech?", "voice?", "has_audio", "has_video")
    provides = ("texts", "finish")

    def __init__(
        self,
        backend: dict[str, Any],
        prompt: str = WRITER_PROMPT,
        system: str = "",
        kinds: Sequence[str] = CAPTION_TYPES,
        max_tokens: int = 256,
        temperature: float = 0.0,
    ) -> None:
        self.prompt, self.system, self.kinds = prompt, system, tuple(kinds)
        self.max_tokens, self.temperature = max_tokens, temperature
        self._connect(backend)

    def __call__(self, batch: Columns) -> Columns:
        """Writes for a batch; `reasons`, where it is given, say what a gate refused."""
        rows = [{name: values[place] for name, values in batch.items()} for place in range(len(batch["id"]))]
        notes = [notes_of(row) for row in rows]
        asked = [place for place, own in enumerate(notes) if own]
        requests = [
            Request(
                batch["id"][place],
                _question(self.prompt, notes[place], rows[place].get("reasons") or ()),
                self.system,
                max_tokens=self.max_tokens,
                temperature=self.temperature,
            )
            for place in asked
        ]
        texts: list[Any] = [{} for _ in rows]
        finish: list[Any] = [{} for _ in rows]
        for place, answer in zip(asked, self._ask(requests), strict=True):
            texts[place], finish[place] = self._read(answer, rows[place])
        return {"id": batch["id"], "texts": texts, "finish": finish}

    def _read(self, answer: Answer, row: Mapping[str, Any]) -> tuple[Any, Any]:
        if answer.error:
            return Failed(answer.error), {}
        there = {"audio": row["has_audio"], "video": row["has_video"]}
        there["audio_video"] = row["has_audio"] and row["has_video"]
        found = {k: v for k, v in read_captions(answer.text).items() if k in self.kinds and there[k]}
        text = plain_text(answer.text)
        if not found and len(self.kinds) == 1 and there[self.kinds[0]] and text and not text.startswith(("{", "[")):
            found = {self.kinds[0]: text}  # asked for one caption, small models answer with it alone
        if not found:
            return Failed(f"the answer holds no caption: {answer.text[:200]!r}"), {}
        return found, ({kind: "length" for kind in list(found)[-1:]} if answer.finish == "length" else {})


def _question(prompt: str, notes: Sequence[str], reasons: Sequence[str]) -> str:
    again = (
        ["", "An earlier answer was refused. Write it otherwise:", *(f"- {reason}" for reason in reasons)]
        if reasons
        else []
    )
    return "\n".join([prompt, "", "Notes:", *(f"- {note}" for note in notes), *again])


def notes_of(row: Mapping[str, Any]) -> list[str]:
    """Returns what is known of a clip as lines for a model: with words of confidence, never numbers, which would return in captions.

    Args:
        row: the columns of a clip.

    >>> notes_of({"tags": [{"phrase": "rain", "medium": "audio", "score": 0.93, "confidence": "high"}]})
    ['heard: rain (high confidence)']
    """
    notes = []
    for tag in row.get("tags") or ():
        what = "heard" if tag["medium"] == "audio" else "seen"
        notes.append(f"{what}: {tag['phrase']}{_sure(tag)}")
    for item in row.get("candidates") or ():
        what = {"audio": "a listener says", "video": "a viewer says"}.get(
            item["kind"], "someone who heard and saw it says"
        )
        notes.append(f"{what}: {item['text']}{_sure(item)}")
    speech = row.get("speech") or {}
    if speech.get("text") or row.get("voice"):
        language = f" in {_name_of_language(speech['language'])}" if speech.get("language") else ""
        notes.append(f"heard: somebody speaks{language} (what is said must not be quoted)")
    return notes


def _name_of_language(code: str) -> str:
    """Returns the English name of a language; one that is no code of Whisper's is returned as it is."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES  # noqa: PLC0415  slow to import

    return LANGUAGES[code].title() if code in LANGUAGES else code


def _sure(item: Mapping[str, Any]) -> str:
    return f" ({item['confidence']} confidence)" if item.get("confidence") else ""
