"""What FFmpeg's filters say of a clip: silence, loudness, black and frozen pictures, letterbox, cuts."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.data.media.ffmpeg import find_ffmpeg
from peav.data.workers import end_with_parent
from peav.engine.stage import Columns, FrameNeeds, Stage, register_stage
from peav.types import Seconds

_NUMBER = r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)"


@register_stage
class Measure(Stage):
    """Measures sound and picture by FFmpeg's silencedetect, ebur128, blackdetect, freezedetect, cropdetect and scdet.

    It provides `measures`: of a clip with sound `silence` (share of its duration) and `loudness` (LUFS, integrated; None where it is
    too short or too quiet to say); of one with a picture `black` and `frozen` (shares), `letterbox` (share of the picture that is a
    black border) and `cuts` (seconds).

    Args:
        silence_db: sound below this level is silence, dBFS.
        silence_seconds: for at least so long.
        freeze_db: frames that differ by less are frozen, dB.
        freeze_seconds: for at least so long.
        cut_score: of scdet, from 0 to 100, from which a change is a cut.
        fps: frames a second that are looked at.
        frame_size: to which they are squashed, pixels.
    """

    reads = ("duration", "audio", "frames")
    provides = ("measures",)

    def __init__(
        self,
        silence_db: float = -50.0,
        silence_seconds: Seconds = 0.3,
        freeze_db: float = -60.0,
        freeze_seconds: Seconds = 1.0,
        cut_score: float = 12.0,
        fps: float = 8.0,
        frame_size: int = 96,
    ) -> None:
        self.silence_db, self.silence_seconds = silence_db, silence_seconds
        self.freeze_db, self.freeze_seconds, self.cut_score = freeze_db, freeze_seconds, cut_score
        self.frame_needs = FrameNeeds((frame_size, frame_size), None, fps)

    def __call__(self, batch: Columns) -> Columns:
        """Measures a batch."""
        found = []
        for duration, audio, frames in zip(batch["duration"], batch["audio"], batch["frames"], strict=True):
            measures: dict[str, Any] = {}
            if audio is not None:
                measures |= self._sound(audio, duration)
            if frames is not None:
                measures |= self._picture(frames, duration)
            found.append(measures)
        return {"id": batch["id"], "measures": found}

    def _sound(self, samples: NDArray[np.float32], duration: Seconds) -> dict[str, Any]:
        filters = f"silencedetect=noise={self.silence_db:g}dB:d={self.silence_seconds:g},ebur128=framelog=verbose"
        said = _filter(
            ("-f", "f32le", "-ar", str(self.sample_rate), "-ac", "1"), "-af", filters, samples.astype("<f4").tobytes()
        )
        loudness = re.findall(rf"I:\s+{_NUMBER} LUFS", said)
        # -70 is the gate of the standard: nothing was louder.
        loud = float(loudness[-1]) if loudness else -70.0
        silence = _spans(said, "silence_start", "silence_end", duration)
        return {"silence": _share(silence, duration), "loudness": loud if loud > -70 else None}

    def _picture(self, frames: NDArray[np.uint8], duration: Seconds) -> dict[str, Any]:
        count, _, height, width = frames.shape
        if count == 1:  # a still picture has neither cuts nor frozen frames; filters want several
            dark = float((frames.max(axis=1) < 26).mean())
            return {"black": float(dark > 0.98), "frozen": 0.0, "letterbox": 0.0, "cuts": []}
        rate = count / duration
        filters = (
            f"blackdetect=d=0.05,freezedetect=n={self.freeze_db:g}dB:d={self.freeze_seconds:g},scdet=t={self.cut_score:g},"
            "cropdetect=limit=24:round=2:reset=0:skip=0"
        )
        raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{rate:g}")
        said = _filter(raw, "-vf", filters, np.ascontiguousarray(frames.transpose(0, 2, 3, 1)).tobytes())
        crop = re.findall(r"crop=(-?\d+):(-?\d+):", said)
        kept = int(crop[-1][0]) * int(crop[-1][1]) / (width * height) if crop else 1.0
        black = [
            (float(start), float(end)) for start, end in re.findall(rf"black_start:{_NUMBER} black_end:{_NUMBER}", said)
        ]
        frozen = _spans(said, "freeze_start", "freeze_end", duration)
        cuts = re.findall(rf"lavfi\.scd\.score: {_NUMBER}, lavfi\.scd\.time: {_NUMBER}", said)
        return {
            "black": _share(black, duration),
            "frozen": _share(frozen, duration),
            # A picture that is black throughout has no border.
            "letterbox": round(1 - kept, 3) if 0 < kept <= 1 else 0.0,
            "cuts": [round(float(time), 3) for _, time in cuts],
        }


def _filter(source: Sequence[str], option: str, filters: str, data: bytes) -> str:
    """Runs FFmpeg's filters over raw samples or frames, and returns what they say."""
    command = [
        find_ffmpeg(),
        "-nostdin",
        "-nostats",
        "-v",
        "info",
        *source,
        "-protocol_whitelist",
        "pipe",
        "-i",
        "pipe:0",
    ]
    command += [option, filters, "-f", "null", "-"]
    result = subprocess.run(command, input=data, capture_output=True, check=False, preexec_fn=end_with_parent)
    said = result.stderr.decode(errors="replace")
    if result.returncode != 0:
        raise RuntimeError(f"ffmpeg's {option} {filters} ended with status {result.returncode}: {said[-300:]}")
    return said


def _spans(said: str, start: str, end: str, duration: Seconds) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []
    begun: float | None = None
    for name, value in re.findall(rf"({start}|{end}): ?{_NUMBER}", said):
        if name == start:
            begun = float(value)
        elif begun is not None:
            spans.append((begun, float(value)))
            begun = None
    return [*spans, (begun, duration)] if begun is not None else spans


def _share(spans: Sequence[tuple[float, float]], duration: Seconds) -> float:
    held = sum(min(end, duration) - max(start, 0.0) for start, end in spans)
    return round(min(max(held / duration, 0.0), 1.0), 3)
