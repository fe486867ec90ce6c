"""`PocketSphinx`: English speech recognition that is small and runs on any CPU; weak, and honest about silence."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.engine.stage import Columns, Stage, register_stage
from peav.engine.stages.listening import voiced_seconds
from peav.types import Seconds

_FRAME_SECONDS = 0.01


@register_stage
class PocketSphinx(Stage):
    """Writes down what is said, where a voice gate lets it: recognisers invent words in silence and noise.

    Where an earlier stage provides `voice`, it listens to those spans alone, one after another. Otherwise a clip has to be loud enough
    for long enough, and of one of the `domains` where those are known.

    It provides `speech`: `{"text", "segments": [{"text", "start", "end"}], "confidence"}`, {} where nothing is said that passes the gate
    and can be trusted. The model knows English alone, and makes English words of other languages: their probabilities are low, and
    `min_confidence` is what keeps them out (experiments/LOG.md: at 0.7 none of 45 utterances in three other languages).

    Args:
        min_level_db: level of a frame that may be voice, dBFS.
        min_voiced_seconds: of such frames, for a clip to be listened to at all.
        min_confidence: geometric mean of the posterior probabilities of the words of a segment, below which it is not trusted.
        domains: listen just to clips that an earlier stage found of one of these domains, where no stage provides `voice`; none for all.
        licence: of the acoustic model, for the provenance.
    """

    version = 2
    reads = ("audio", "duration", "domain?", "voice?")
    provides = ("speech",)
    unkeyed = ("licence",)

    def __init__(
        self,
        min_level_db: float = -40.0,
        min_voiced_seconds: Seconds = 0.3,
        min_confidence: float = 0.7,
        domains: Sequence[str] = ("speech",),
        licence: str = "BSD-2-Clause",
    ) -> None:
        try:
            import pocketsphinx  # noqa: PLC0415  an extra
        except ImportError:
            raise ImportError("PocketSphinx needs the package pocketsphinx: pip install pocketsphinx") from None
        if not 0 <= min_confidence <= 1:
            raise ValueError(f"min_confidence must lie between 0 and 1, got {min_confidence}")
        self.min_level_db, self.min_voiced_seconds = min_level_db, min_voiced_seconds
        self.min_confidence, self.domains = min_confidence, tuple(domains)
        self._decoder = pocketsphinx.Decoder(samprate=float(self.sample_rate), loglevel="FATAL")

    @classmethod
    def identity(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the version of the package, which holds the model.

        Raises:
            ImportError: if it is not installed.
        """
        try:
            return {"pocketsphinx": importlib.metadata.version("pocketsphinx")}
        except importlib.metadata.PackageNotFoundError:
            raise ImportError("PocketSphinx needs the package pocketsphinx: pip install pocketsphinx") from None

    @classmethod
    def models(cls, init_args: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns the acoustic model."""
        return {"PocketSphinx en-us": init_args["licence"]}

    def __call__(self, batch: Columns) -> Columns:
        """Listens to a batch."""
        rows = [{name: values[place] for name, values in batch.items()} for place in range(len(batch["id"]))]
        return {"id": batch["id"], "speech": [self._speech(row) if row["audio"] is not None else {} for row in rows]}

    def _speech(self, row: Mapping[str, Any]) -> dict[str, Any]:
        samples, duration = row["audio"], row["duration"]
        if "voice" in row:
            spans = row["voice"] or []
        else:
            listens = "domain" not in row or not self.domains or row["domain"] in self.domains
            voiced = voiced_seconds(samples, self.sample_rate, self.min_level_db) if listens else 0.0
            spans = [[0.0, duration]] if voiced >= self.min_voiced_seconds else []
        segments, probabilities = [], []
        for start, end in spans:
            words = self._words(samples[round(start * self.sample_rate) : round(end * self.sample_rate)])
            confidence = float(np.exp(np.mean(np.log([word[3] for word in words])))) if words else 0.0
            if not words or confidence < self.min_confidence:
                continue
            text = " ".join(word[0] for word in words)
            own = {"text": text, "start": start + words[0][1] * _FRAME_SECONDS}
            own["end"] = min(start + words[-1][2] * _FRAME_SECONDS, duration)
            segments.append({**own, "start": round(own["start"], 2), "end": round(own["end"], 2)})
            probabilities += [word[3] for word in words]
        if not segments:
            return {}
        confidence = float(np.exp(np.mean(np.log(probabilities))))
        return {
            "text": " ".join(str(segment["text"]) for segment in segments),
            "segments": segments,
            "confidence": round(confidence, 4),
        }

    def _words(self, samples: NDArray[np.float32]) -> list[tuple[str, int, int, float]]:
        """Returns the words of a sound: each with its first frame, the one behind its last, and its posterior probability."""
        data = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        # What it learned of the level of another clip must not change this one: rows may come in any order.
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        self._decoder.process_raw(data, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        if found is None or not found.hypstr.strip():
            return []
        words = []
        for one in self._decoder.seg():
            name = one.word.partition("(")[0]
            if name and not name.startswith(("<", "[", "+")):
                words.append((name, one.start_frame, one.end_frame + 1, min(max(float(one.prob), 1e-9), 1.0)))
        return words
