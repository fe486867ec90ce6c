"""`SileroVoice`: when somebody speaks or sings, by a small network; what listens to words afterwards need not guess in noise."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from peav.engine.stage import Columns, Stage, register_stage
from peav.types import Seconds


@register_stage
class SileroVoice(Stage):
    """Finds voices with Silero VAD (github.com/snakers4/silero-vad, 2 MB, in the package).

    It provides `voice`: spans `[start, end]` in seconds, [] where nobody speaks.

    Args:
        threshold: probability of voice in a window of 32 ms from which on it counts.
        min_seconds: of a span.
        min_pause_seconds: shorter pauses do not divide a span.
        pad_seconds: added at both ends of a span.
        licence: of the network, for the provenance.
    """

    reads = ("audio", "duration")
    provides = ("voice",)
    unkeyed = ("licence",)

    def __init__(
        self,
        threshold: float = 0.5,
        min_seconds: Seconds = 0.25,
        min_pause_seconds: Seconds = 0.3,
        pad_seconds: Seconds = 0.1,
        licence: str = "MIT",
    ) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
        import torch  # noqa: PLC0415  keeps the start of a run without it short

        _version()
        threads = torch.get_num_threads()
        import silero_vad  # noqa: PLC0415  an extra

        torch.set_num_threads(threads)  # the package sets one thread for the whole process when it is imported
        self._torch, self._find = torch, silero_vad.get_speech_timestamps
        self._model = silero_vad.load_silero_vad(onnx=True)
        self.pad_seconds = pad_seconds
        self._options = {
            "threshold": threshold,
            "min_speech_duration_ms": round(1000 * min_seconds),
            "min_silence_duration_ms": round(1000 * min_pause_seconds),
            "speech_pad_ms": round(1000 * pad_seconds),
        }

    @classmethod
    def identity(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the version of the package, which holds the network.

        Raises:
            ImportError: if it is not installed.
        """
        return {"silero-vad": _version()}

    @classmethod
    def models(cls, init_args: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns the network."""
        return {"Silero VAD": init_args["licence"]}

    def __call__(self, batch: Columns) -> Columns:
        """Listens to a batch."""
        found: list[list[list[float]]] = []
        for samples, duration in zip(batch["audio"], batch["duration"], strict=True):
            if samples is None or not len(samples):
                found.append([])
                continue
            spans = self._find(
                self._torch.from_numpy(samples.copy()), self._model, sampling_rate=self.sample_rate, **self._options
            )
            seconds = [[round(float(span[end]) / self.sample_rate, 2) for end in ("start", "end")] for span in spans]
            found.append([[start, min(end, duration)] for start, end in seconds if start < min(end, duration)])
        return {"id": batch["id"], "voice": found}


def _version() -> str:
    """Returns the version of the package.

    Raises:
        ImportError: if it, or the runtime that it needs, is not installed.
    """
    try:
        importlib.metadata.version("onnxruntime")
        return importlib.metadata.version("silero-vad")
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError(
            f"SileroVoice needs the package {error.name}: pip install 'peav[engine-small]', or silero-vad onnxruntime"
        ) from None
