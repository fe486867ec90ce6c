"""`PocketSphinx`: English speech recognition that is small and runs on any CPU; weak, and honest about silence."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.engine.stage import Columns, Stage, register_stage
from peav.types import Seconds

_FRAME_SECONDS = 0.01


@register_stage
class PocketSphinx(Stage):
    """Writes down what is said, where a voice gate lets it: recognisers invent words in silence and noise.

    It provides `speech`: `{"text", "segments": [{"text", "start", "end"}], "confidence"}`, {} where nothing is said that passes the gate.

    Args:
        min_level_db: level of a frame that may be voice, dBFS.
        min_voiced_seconds: of such frames, for a clip to be listened to at all.
        min_confidence: geometric mean of the posterior probabilities of the words, below which they are not trusted.
        domains: listen just to clips that an earlier stage found of one of these domains; none for all.
        licence: of the acoustic model, for the provenance.
    """

    reads = ("audio", "duration", "domain?")
    provides = ("speech",)

    def __init__(
        self,
        min_level_db: float = -40.0,
        min_voiced_seconds: Seconds = 0.3,
        min_confidence: float = 0.0,
        domains: list[str] = ("speech",),  # type: ignore[assignment]
        licence: str = "BSD-2-Clause",
    ) -> None:
        try:
            import pocketsphinx  # noqa: PLC0415  an extra
        except ImportError:
            raise ImportError("PocketSphinx needs the package pocketsphinx: pip install pocketsphinx") from None
        self.min_level_db, self.min_voiced_seconds, self.min_confidence = (
            min_level_db,
            min_voiced_seconds,
            min_confidence,
        )
        self.domains = tuple(domains)
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
        domains = batch.get("domain") or [None] * len(batch["id"])
        speech: list[dict[str, Any]] = []
        for samples, duration, domain in zip(batch["audio"], batch["duration"], domains, strict=True):
            listens = "domain" not in batch or not self.domains or domain in self.domains
            speech.append(self._listen(samples, duration) if samples is not None and listens else {})
        return {"id": batch["id"], "speech": speech}

    def _listen(self, samples: NDArray[np.float32], duration: Seconds) -> dict[str, Any]:
        if voiced_seconds(samples, self.sample_rate, self.min_level_db) < self.min_voiced_seconds:
            return {}
        data = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        # What it learned of the level of another clip must not change this one: rows may come in any order.
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        self._decoder.process_raw(data, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        if found is None or not found.hypstr.strip():
            return {}
        logmath = self._decoder.get_logmath()
        words = []
        for one in self._decoder.seg():
            name = one.word.partition("(")[0]
            if name and not name.startswith(("<", "[", "+")):
                words.append((name, one.start_frame, one.end_frame + 1, float(logmath.log_to_ln(one.prob))))
        if not words:
            return {}
        confidence = float(np.exp(np.mean([word[3] for word in words])))
        if confidence < self.min_confidence:
            return {}
        end = min(words[-1][2] * _FRAME_SECONDS, duration)
        text = " ".join(word[0] for word in words)
        segment = {"text": text, "start": round(words[0][1] * _FRAME_SECONDS, 2), "end": round(end, 2)}
        return {"text": text, "segments": [segment], "confidence": round(min(confidence, 1.0), 4)}


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
