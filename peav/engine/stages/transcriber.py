"""`ModelTranscriber`: Whisper, and any other model of transformers from speech to text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from peav.engine.digests import ModelFiles
from peav.engine.loading import load_pretrained
from peav.engine.stage import Failed, register_stage
from peav.engine.stages.listening import Doubts, Heard, Listening, Piece, Transcriber
from peav.types import Seconds


@register_stage
class ModelTranscriber(ModelFiles, Transcriber):
    """Writes down speech with a model that `AutoModelForSpeechSeq2Seq` loads and that needs no prompt.

    Whisper and what was distilled from it (openai/whisper-small, distil-whisper/distil-large-v3.5), Moonshine, Speech2Text. Code from the
    repository of a model never runs. Whisper says in which language somebody speaks, for each piece of some 30 s, and where each of its
    segments lies; of other models a segment is a piece. Decoding is greedy and takes nothing over from the piece before, so that one
    mistake does not go on.

    Whisper writes "Thank you." and the like of silence and noise (openai/whisper, discussion 1838): put a stage that provides `voice`
    before it. What passes that and the floor of level is refused, and counted, where the model thinks that nobody speaks, where words
    are improbable, where a text repeats itself, and where it runs on until the limit of tokens. OpenAI's own rule takes silence for
    granted only where both the first two hold; here each is enough, for a transcript that is missing does less harm than one that is
    invented.

    Args:
        model: a folder, or a repository of the hub.
        revision: of the repository.
        licence: of the model, for the provenance.
        language: in which everybody speaks, a code such as `de`; "" lets Whisper find out for each piece.
        task: `transcribe`, or `translate` into English.
        max_tokens: of a piece.
        batch_size: pieces at once. Models without a fixed window are given pieces of one length at once: padding would change them
            (Moonshine normalises over time).
        window_seconds: the longest piece, at most what the model hears at once.
        max_pause_seconds: spans of voice with a longer pause between them are pieces of their own.
        pad_seconds: of the sound around a span of voice that the model is given, too.
        min_level_db: level of a frame of 10 ms that may be voice, dBFS.
        min_voiced_seconds: of such frames, for a piece to be listened to at all.
        max_no_speech: probability that nobody speaks, of Whisper, from which on a piece is refused.
        min_logprob: mean log-probability of the tokens of a segment below which it is refused.
        max_compression: of a segment: how many times smaller zlib may make it.
        dtype: of the weights, such as `float16`.
        device: to compute on.
    """

    unkeyed = ("model", "licence", "batch_size", "device")

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        licence: str = "",
        language: str = "",
        task: str = "transcribe",
        max_tokens: int = 220,
        batch_size: int = 8,
        window_seconds: Seconds = Listening.window_seconds,
        max_pause_seconds: Seconds = Listening.max_pause_seconds,
        pad_seconds: Seconds = Listening.pad_seconds,
        min_level_db: float = Listening.min_level_db,
        min_voiced_seconds: Seconds = Listening.min_voiced_seconds,
        max_no_speech: float = Doubts.max_no_speech,
        min_logprob: float = Doubts.min_logprob,
        max_compression: float = Doubts.max_compression,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        if task not in ("transcribe", "translate"):
            raise ValueError(f"task must be transcribe or translate, got {task!r}")
        if batch_size < 1 or max_tokens < 1:
            raise ValueError(f"batch_size and max_tokens must be at least 1, got {batch_size} and {max_tokens}")
        import torch  # noqa: PLC0415  keeps the start of a run without it short
        from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor  # noqa: PLC0415

        options: dict[str, Any] = {"revision": revision} if revision else {}
        loaded: Any = load_pretrained(AutoModelForSpeechSeq2Seq, model, dtype=getattr(torch, dtype), **options)
        processor: Any = load_pretrained(AutoProcessor, model, **options)
        self._torch, self.batch_size, self.device = torch, batch_size, device
        self.model = loaded.to(device).eval()
        self._extractor, self._tokenizer = processor.feature_extractor, processor.tokenizer
        self._window: Seconds | None = getattr(self._extractor, "chunk_length", None)
        longest = min(window_seconds, self._window or window_seconds)
        super().__init__(
            Listening(longest, max_pause_seconds, pad_seconds, min_level_db, min_voiced_seconds),
            Doubts(max_no_speech, min_logprob, max_compression),
        )
        self.sample_rate = self._extractor.sampling_rate
        settings = self.model.generation_config
        self._no_timestamps: int | None = getattr(settings, "no_timestamps_token_id", None)
        # Whisper adds its own prompt to it; of others the first token counts.
        settings.max_length, settings.max_new_tokens = max_tokens + (self._no_timestamps is None), None
        held = getattr(settings, "lang_to_id", None) if getattr(settings, "is_multilingual", False) else None
        self._languages: dict[int, str] = {token: name.strip("<|>") for name, token in (held or {}).items()}
        self._prompt = 3 if self._languages else 1  # tokens before a text: the start, and of Whisper language and task
        most = getattr(self.model.config, "max_target_positions", None)
        if most is not None and max_tokens + self._prompt > most:
            raise ValueError(f"max_tokens must be at most {most - self._prompt} for this model, got {max_tokens}")
        self._special = {*self._tokenizer.all_special_ids, *self._ends()}
        self.language, self.task = self._checked(language, task), task

    def _checked(self, language: str, task: str) -> str:
        known = sorted(self._languages.values())
        if self._languages and language and language not in known:
            raise ValueError(f"the model knows no language {language!r}; it knows {', '.join(known)}")
        if not self._languages and (language or task != "transcribe"):
            raise ValueError("the model knows one language and one task: leave language and task out")
        return language

    def _ends(self) -> set[int]:
        ends = self.model.generation_config.eos_token_id
        return {token for token in (ends if isinstance(ends, list) else [ends]) if token is not None}

    def transcribe(self, pieces: Sequence[Piece]) -> list[list[Heard] | Failed]:
        """Transcribes pieces in batches."""
        groups: dict[int, list[int]] = {}
        for place, piece in enumerate(pieces):
            groups.setdefault(0 if self._window else len(piece.samples), []).append(place)
        found: dict[int, list[Heard] | Failed] = {}
        for places in groups.values():
            for first in range(0, len(places), self.batch_size):
                some = places[first : first + self.batch_size]
                found |= dict(zip(some, self._run([pieces[place] for place in some]), strict=True))
        return [found[place] for place in range(len(pieces))]

    def _run(self, pieces: Sequence[Piece]) -> list[list[Heard]]:
        torch, model = self._torch, self.model
        sounds = [piece.samples for piece in pieces]
        given = self._extractor(sounds, sampling_rate=self.sample_rate, return_tensors="pt")[model.main_input_name]
        with torch.inference_mode():
            encoded = model.get_encoder()(given.to(self.device, model.dtype))
            languages, no_speech = self._first_step(encoded, len(pieces))
            made = model.generate(encoder_outputs=encoded, **self._how(languages))
            logits = model(encoder_outputs=encoded, decoder_input_ids=made[:, :-1]).logits
            picked = made[:, 1:, None]
            # Row by row: as float32 a batch of a large vocabulary is gigabytes.
            rows = [
                row.float().log_softmax(-1).gather(-1, own).squeeze(-1).tolist()
                for row, own in zip(logits, picked, strict=True)
            ]
        found = []
        for place, (piece, ids, logprobs) in enumerate(zip(pieces, made[:, 1:].tolist(), rows, strict=True)):
            end = next((at for at, token in enumerate(ids) if token in self._ends()), None)
            self.tokens_out += (len(ids) if end is None else end + 1) - (self._prompt - 1)
            whole = list(zip(ids[:end], logprobs[:end], strict=True))[self._prompt - 1 :]
            same: dict[str, Any] = {"no_speech": no_speech[place], "language": languages[place], "cut": end is None}
            found.append([Heard(*part, **same) for part in self._parts(piece, whole)])
        return found

    def _how(self, languages: Sequence[str]) -> dict[str, Any]:
        """Returns how texts are generated, in the languages of the pieces."""
        how: dict[str, Any] = {"do_sample": False, "num_beams": 1}
        if self._no_timestamps is not None:
            # One call for a piece: its batches say then where the text ended, and nothing is decoded twice.
            how |= {"return_timestamps": True, "force_unique_generate_call": True}
        return how | ({"language": list(languages), "task": self.task} if self._languages else {})

    def _first_step(self, encoded: Any, number: int) -> tuple[list[str], list[float | None]]:
        """Returns the languages of pieces, and the probabilities that nobody speaks in them: Whisper says both with its first token."""
        if self._no_timestamps is None:
            return [""] * number, [None] * number
        torch, settings = self._torch, self.model.generation_config
        start = torch.full((number, 1), settings.decoder_start_token_id, device=self.device)
        logits = self.model(encoder_outputs=encoded, decoder_input_ids=start).logits[:, 0].float()
        # The token of silence stands before that of no timestamps in every Whisper.
        silent: list[float | None] = logits.softmax(-1)[:, self._no_timestamps - 1].tolist()
        if not self._languages:
            return ["en"] * number, silent
        if self.language:
            return [self.language] * number, silent
        tokens = list(self._languages)
        return [self._languages[tokens[best]] for best in logits[:, tokens].argmax(-1).tolist()], silent

    def _parts(
        self, piece: Piece, tokens: Sequence[tuple[int, float]]
    ) -> Iterator[tuple[str, Seconds, Seconds, int, float | None]]:
        """Yields text, start, end, number of tokens and mean log-probability of the segments of a piece, divided at the timestamps."""
        start, own = piece.start, list[tuple[int, float]]()
        for token, logprob in [*tokens, (-1, 0.0)]:
            time = self._time(token)
            at_end = token == -1
            if time is None and not at_end:
                own += [(token, logprob)] if token not in self._special else []
                continue
            at = piece.end if time is None else min(piece.start + time, piece.end)
            if own:
                end = at if at > start else piece.end
                text = self._tokenizer.decode([one for one, _ in own], skip_special_tokens=True).strip()
                yield text, start, end, len(own), sum(value for _, value in own) / len(own)
                own = []
            start = at

    def _time(self, token: int) -> Seconds | None:
        """Returns the time in the piece that a token of Whisper says; None of one that says none."""
        if self._no_timestamps is None or token <= self._no_timestamps or self._window is None:
            return None
        step: float = self._window / self.model.config.max_source_positions
        return (token - self._no_timestamps - 1) * step
