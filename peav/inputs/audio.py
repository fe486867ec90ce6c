"""Sounds that a user gives, as files and as arrays: what they hold, and their samples as the model hears them."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from peav.checkpoints import MediaSettings
from peav.data.media.decode import load_audio
from peav.data.media.probing import MediaError, MediaInfo
from peav.inputs.windows import Window
from peav.types import Seconds

#: A path, or samples of shape (S,) or (channels, S).
AudioLike = str | Path | np.ndarray | Tensor

#: Floating point samples beyond this are integers that were cast: no sound is 40 dB above full scale.
_LOUDEST = 100.0

#: Windows of a file are cut out of blocks of this length: for each, torchcodec decodes the sound from its beginning.
_BLOCK_SECONDS = 300

_HOW = "give a path, an array of shape (samples,) or (channels, samples), or a list of these"


@dataclass(frozen=True)
class FileAudio:
    """The audio of a file.

    Attributes:
        name: what messages call it.
        seconds: duration of the file; the sound may end earlier, which shows when it is decoded.
        path: where it is.
        origin: time zero on the clock of the file, seconds.
        sample_rate: of the file, Hz.
    """

    name: str
    seconds: Seconds
    path: str
    origin: Seconds
    sample_rate: int

    def load(self, media: MediaSettings, window: Window) -> Tensor:
        """Decodes a window: (S,) float32 mono at the model's sample rate, shorter where the sound ends before the file does.

        Raises:
            MediaError: if it cannot be decoded.
            ValueError: if a sample is NaN or infinite, or there is none.
        """
        part = _part(self, media, window)
        if window.whole or self.sample_rate == media.sample_rate:
            samples = self._decode(media, media.sample_rate, window.start, part)
        else:
            # A decoder that begins in the middle resamples on a grid of its own: decode as it is, resample as a part of the whole.
            begin, end = with_margin(window.start, part)
            samples = self._decode(media, self.sample_rate, begin, min(end, self.seconds) - begin)
            part = min(part, begin + len(samples) / self.sample_rate - window.start)
            if part <= 0:
                return samples[:0]
            samples = _resampled(samples.numpy()[None], self.sample_rate, media, window.start - begin, part, self.name)
        return _finite(samples, self.name)

    def _decode(self, media: MediaSettings, sample_rate: int, start: Seconds, part: Seconds) -> Tensor:
        if start + part >= self.seconds and not start:
            return self._load(media, sample_rate, start, part)
        global _block
        stat = Path(self.path).stat()
        key = (self, stat.st_mtime_ns, stat.st_size, sample_rate, media.downmix)
        if _block is None or _block.key != key or not _block.begin <= start <= start + part <= _block.end:
            begin = math.floor(start)
            end = max(min(begin + max(_BLOCK_SECONDS, math.ceil(part) + 1), self.seconds), start + part)
            _block = None  # two would not fit where one does
            _block = _Decoded(key, begin, end, self._load(media, sample_rate, begin, end - begin))
        first = round(start * sample_rate) - _block.begin * sample_rate
        return _block.samples[first : first + round(part * sample_rate)].clone()

    def _load(self, media: MediaSettings, sample_rate: int, start: Seconds, part: Seconds) -> Tensor:
        return load_audio(self.path, sample_rate, start, part, media.downmix, self.name, self.origin, pad_end=False)


class _Decoded(NamedTuple):
    """A part of a file, decoded at once for several windows."""

    key: tuple[object, ...]
    begin: int
    end: Seconds
    samples: Tensor


#: The last one that this process decoded.
_block: _Decoded | None = None


@dataclass(frozen=True)
class ArrayAudio:
    """Samples in memory.

    Attributes:
        name: what messages call them.
        seconds: duration.
        samples: (channels, S) float32, one or two channels.
        sample_rate: in Hz.
        first: where the first of `samples` stands in the whole, of which the rest is not at hand.
    """

    name: str
    seconds: Seconds
    samples: np.ndarray
    sample_rate: int
    first: int = 0

    def load(self, media: MediaSettings, window: Window) -> Tensor:
        """Returns a window as `FileAudio.load` would of a file that holds the samples: it is decoded as one."""
        part = _part(self, media, window)
        if len(self.samples) == 1 and self.sample_rate == media.sample_rate:
            begin = round(window.start * self.sample_rate) - self.first
            samples = torch.zeros(round(part * self.sample_rate))
            found = torch.from_numpy(self.samples[0, begin : begin + len(samples)])
            samples[: len(found)] = found
            return samples
        begin, end = with_margin(window.start, part)
        piece = self.samples[:, begin * self.sample_rate - self.first : end * self.sample_rate - self.first]
        return _resampled(piece, self.sample_rate, media, window.start - begin, part, self.name)


Audio = FileAudio | ArrayAudio


def read_audio(
    audio: AudioLike | Sequence[AudioLike], sample_rate: int | None, probe_file: Callable[[str, str], MediaInfo]
) -> list[Audio]:
    """Looks at the sounds that a user gives; files are opened, but not decoded.

    Args:
        audio: a path, an array, or a list of these.
        sample_rate: of the arrays, Hz.
        probe_file: from a path and its name to what the file holds.

    Raises:
        ValueError: if there is no sound, an array is not one, or `sample_rate` is missing or needless.
        FileNotFoundError: if a file is not there.
        MediaError: if a file holds no audio.
    """
    listed = isinstance(audio, list | tuple)
    given: list[AudioLike] = list(audio) if isinstance(audio, list | tuple) else [audio]  # type: ignore[list-item]
    if not given:
        raise ValueError(f"audio is an empty list: {_HOW}")
    if sample_rate is not None and (sample_rate != int(sample_rate) or sample_rate < 1):
        raise ValueError(f"sample_rate must be a positive whole number of Hz, not {sample_rate!r}")
    if sample_rate is not None and all(isinstance(item, str | Path) for item in given):
        raise ValueError(
            f"sample_rate={sample_rate} is the rate of arrays, but audio names files, which say their own: leave it out"
        )
    return [
        _read(item, f"audio[{row}]" if listed else "audio", sample_rate, probe_file) for row, item in enumerate(given)
    ]


def _read(item: AudioLike, name: str, sample_rate: int | None, probe_file: Callable[[str, str], MediaInfo]) -> Audio:
    if isinstance(item, str | Path):
        info = probe_file(str(item), name)
        if info.audio is None:
            raise MediaError(str(item), "holds no audio")
        if not info.duration > 0:
            raise MediaError(str(item), "holds no sound: its header gives it no duration")
        return FileAudio(str(item), info.duration, str(item), info.origin, info.audio.sample_rate)
    if not isinstance(item, np.ndarray | Tensor):
        raise ValueError(f"{name} is {item!r:.80}, of type {type(item).__name__}: {_HOW}")
    samples = read_samples(item, name)
    if sample_rate is None:
        raise ValueError(f"{name} is an array, which does not say its sample rate: give sample_rate, in Hz")
    return ArrayAudio(name, samples.shape[1] / sample_rate, samples, int(sample_rate))


def read_samples(value: np.ndarray | Tensor, name: str) -> np.ndarray:
    """Turns an array into (channels, S) float32, full scale at 1.

    Raises:
        ValueError: if it holds no sound, NaN, or what is out of scale.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    if value.ndim not in (1, 2):
        raise ValueError(f"{name} has shape {value.shape}: {_HOW}")
    data = np.atleast_2d(value)
    if not data.size:
        raise ValueError(f"{name} holds no sound: its shape is {value.shape}")
    if len(data) > 2:
        raise ValueError(
            f"{name} has shape {value.shape}, which reads as {len(data)} channels. An array may have one or two, for it does not say "
            "where the others belong: mix it down, or give a file. Several sounds go into a list; (samples, channels) wants `.T`"
        )
    kind = data.dtype
    if kind == np.uint8:
        samples = (data.astype(np.float32) - 128) / 128
    elif kind in (np.int8, np.int16, np.int32):
        samples = (data / -float(np.iinfo(kind).min)).astype(np.float32)
    elif kind.kind == "f":
        samples = data.astype(np.float32)
    else:
        raise ValueError(f"{name} has samples of type {kind}: give floating point in [-1, 1], or PCM as int16 or int32")
    _finite(torch.from_numpy(samples), name)
    peak = float(np.abs(samples).max())
    if peak > _LOUDEST:
        raise ValueError(
            f"{name} has samples up to {peak:g}, but floating point is meant to lie in [-1, 1]: divide, or give int16"
        )
    return np.ascontiguousarray(samples)


def wav_bytes(samples: np.ndarray, sample_rate: int) -> bytes:
    """Writes samples (channels, S) float32 as a WAV file of floating point samples.

    Raises:
        ValueError: if they exceed what a WAV file holds.
    """
    data = np.ascontiguousarray(samples.T, dtype="<f4").tobytes()
    if len(data) > 0xFFFF0000:
        raise ValueError(
            f"{len(data) / 2**30:.1f} GiB of samples at once: give a file, or embed in windows (window_seconds)"
        )
    channels = len(samples)
    form = struct.pack("<HHIIHH", 3, channels, sample_rate, sample_rate * 4 * channels, 4 * channels, 32)
    chunks = b"".join(kind + struct.pack("<I", len(body)) + body for kind, body in ((b"fmt ", form), (b"data", data)))
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def with_margin(start: Seconds, part: Seconds) -> tuple[int, int]:
    """Returns a longer span: a second more on both sides, for the resampler, and whole seconds, so that it meets the grid of the whole."""
    return max(0, math.floor(start) - 1), math.ceil(start + part) + 1


def _resampled(
    samples: np.ndarray, sample_rate: int, media: MediaSettings, start: Seconds, part: Seconds, name: str
) -> Tensor:
    """Mixes down and resamples (channels, S) as a file that holds them would be, and cuts out a part."""
    wave = load_audio(wav_bytes(samples, sample_rate), media.sample_rate, 0.0, None, media.downmix, name, origin=0.0)
    output = torch.zeros(round(part * media.sample_rate))
    begin = round(start * media.sample_rate)
    found = wave[begin : begin + len(output)]
    output[: len(found)] = found
    return output


def _part(audio: Audio, media: MediaSettings, window: Window) -> Seconds:
    part = min(window.start + window.seconds, audio.seconds) - window.start if not window.whole else audio.seconds
    if round(part * media.sample_rate) < 1:
        raise ValueError(
            f"{audio.name} holds no sound: {part:g} s are less than a sample at the model's {media.sample_rate} Hz"
        )
    return part


def _finite(samples: Tensor, name: str) -> Tensor:
    if not bool(torch.isfinite(samples).all()):
        raise ValueError(f"{name} holds NaN or infinite samples")
    return samples
