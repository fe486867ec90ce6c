"""`Fingerprint`: what tells a sound and a picture from others, alike after another encoding, so that near duplicates are found."""

from __future__ import annotations

import subprocess
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.data.media.ffmpeg import find_ffmpeg
from peav.data.workers import end_with_parent
from peav.engine.stage import Columns, FrameNeeds, Stage, register_stage
from peav.engine.stages.short_sound import short_words
from peav.types import Seconds

#: Side of the frames of which hashes are taken, and of the block of their cosine transform.
_SIDE, _BLOCK = 64, 8

#: Chromaprint says nothing of less than some 3 s: shorter sounds are repeated up to this length.
_MIN_SECONDS: Seconds = 6.0

#: Shorter sounds have words of their own besides.
_SHORT_SECONDS: Seconds = 3.5

#: Grey value, of 255, up to which a row or column is part of a black bar, as in FFmpeg's cropdetect.
_BLACK = 24.0

#: Bits in which frames differ that stand still.
_FROZEN_BITS = 2


@register_stage
class Fingerprint(Stage):
    """Takes the acoustic fingerprint of the sound (Chromaprint, by FFmpeg) and a perceptual hash of each frame.

    It provides `prints`, `{"sound": [...], "short": [...], "pictures": [...]}`: 32-bit words of Chromaprint, about eight a second; of
    sounds of less than 3.5 s also words of `peav.engine.stages.short_sound`, 125 a second, by which they are then compared; and 64-bit
    hashes. Silence and frames that are black or of one colour have none: they would pair videos by their fades. Of a picture that stands
    still there is one hash, and black bars are cut off first; a film on a black ground, such as the Earth from space, is cut to what is
    lit, and may not be found again in another brightness. A fingerprint stays much the same under another encoding, level and resolution;
    it does not under another pitch or speed, nor when a picture is cropped or mirrored.

    Args:
        num_frames: evenly over the clip.
        min_level: peak of a sound that is no silence.
        min_contrast: standard deviation of the grey values of a frame, of 255, that is no plain one.
    """

    version = 2
    reads = ("audio", "frames")
    provides = ("prints",)

    def __init__(self, num_frames: int = 8, min_level: float = 0.003, min_contrast: float = 4.0) -> None:
        self.min_level, self.min_contrast = min_level, min_contrast
        self.frame_needs = FrameNeeds((_SIDE, _SIDE), num_frames)
        self._ffmpeg = find_ffmpeg()

    def __call__(self, batch: Columns) -> Columns:
        """Takes those of a batch."""
        made = []
        for audio, frames in zip(batch["audio"], batch["frames"], strict=True):
            prints: dict[str, Any] = {}
            if audio is not None and len(audio) and float(np.abs(audio).max()) >= self.min_level:
                prints["sound"] = self._sound(audio)
                if len(audio) < _SHORT_SECONDS * self.sample_rate:
                    prints["short"] = short_words(audio, self.sample_rate).tolist()
            if frames is not None:
                prints["pictures"] = self._pictures(frames)
            made.append({medium: found for medium, found in prints.items() if found})
        return {"id": batch["id"], "prints": made}

    def _sound(self, samples: NDArray[np.float32]) -> list[int]:
        least = round(_MIN_SECONDS * self.sample_rate)
        held = np.tile(samples, -(-least // len(samples)))[:least] if len(samples) < least else samples
        source = (
            "-f",
            "f32le",
            "-ar",
            str(self.sample_rate),
            "-ac",
            "1",
            "-protocol_whitelist",
            "pipe",
            "-i",
            "pipe:0",
        )
        command = [self._ffmpeg, "-nostdin", "-v", "error", *source, "-f", "chromaprint", "-fp_format", "raw", "pipe:1"]
        data = held.astype("<f4").tobytes()
        done = subprocess.run(command, input=data, capture_output=True, check=False, preexec_fn=end_with_parent)
        if done.returncode:
            raise RuntimeError(
                f"ffmpeg's chromaprint ended with status {done.returncode}: {done.stderr.decode(errors='replace')[-300:]}"
            )
        return [int(word) for word in np.frombuffer(done.stdout, "<u4")]

    def _pictures(self, frames: NDArray[np.uint8]) -> list[int]:
        grey = without_bars(frames.astype(np.float32).mean(axis=1))
        found: list[int] = []
        for one in grey:
            if float(one.std()) < self.min_contrast:
                continue
            held = picture_hash(one)
            if all((held ^ other).bit_count() > _FROZEN_BITS for other in found):
                found.append(held)
        return found


def without_bars(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cuts off the black bars that all frames have at their sides.

    Args:
        grey: (F, H, W).

    Returns:
        (F, h, w); what it was given where all is black, or less than a third of a side would be left.
    """
    brightest = grey.max(axis=0)
    for axis in (0, 1):
        lit = np.flatnonzero(np.percentile(brightest, 95, axis=1 - axis) > _BLACK)
        size = grey.shape[1 + axis]
        if len(lit) and 3 * (lit[-1] + 1 - lit[0]) >= size:
            grey = grey.take(range(lit[0], lit[-1] + 1), axis=1 + axis)
    return grey


def picture_hash(grey: NDArray[np.float32]) -> int:
    """Returns the perceptual hash of a picture: which of its 64 lowest frequencies lie above their median.

    The lowest frequencies of a picture's discrete cosine transform change little under scaling, noise and another encoding (phash.org).

    Args:
        grey: (H, W).
    """
    rows, columns = (_cosines(size) for size in grey.shape)
    low = (rows @ grey.astype(np.float64) @ columns.T).ravel()
    bits = low > np.median(low[1:])  # the first is the brightness
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _cosines(size: int) -> NDArray[np.float64]:
    """Returns the cosines of the lowest frequencies, (8, size)."""
    index = np.arange(size)
    return np.cos(np.pi * (2 * index[None] + 1) * np.arange(_BLOCK)[:, None] / (2 * size)) / size
