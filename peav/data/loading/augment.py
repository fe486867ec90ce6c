"""Augmentation of waveforms and frames, in the workers; what is random follows from (seed, epoch, clip, occurrence) alone.

SpecAugment belongs to the mel frontend (`peav.encoders.MelAudioEncoder`), which knows the bands; the data give it a seed a clip.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.functional import gain

Colour = Literal["white", "pink", "brown"]

#: Power of the frequency by which the amplitude of noise falls.
_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}

#: Below it nobody hears anything; noise has nothing there, and signal-to-noise ratios leave it out. In Hz.
LOWEST_AUDIBLE = 20.0


class AudioAugmentation(ABC):
    """Changes a waveform at random. Subclasses take their ranges as constructor arguments."""

    @abstractmethod
    def __call__(self, samples: Tensor, sample_rate: int, rng: np.random.Generator) -> Tensor:
        """Returns the changed waveform.

        Args:
            samples: (S,) float32.
            sample_rate: in Hz.
            rng: the only source of randomness.

        Returns:
            (S,) float32.
        """


class Gain(AudioAugmentation):
    """Makes a clip louder or softer (`torchaudio.functional.gain`).

    Args:
        min_db: the least gain, dB.
        max_db: the largest gain, dB.
        probability: of being applied.

    Raises:
        ValueError: if the range is empty or the probability is none.
    """

    def __init__(self, min_db: float = -6.0, max_db: float = 6.0, probability: float = 1.0) -> None:
        self.min_db, self.max_db = _check_range("db", min_db, max_db)
        self.probability = check_probability("probability", probability)

    def __call__(self, samples: Tensor, sample_rate: int, rng: np.random.Generator) -> Tensor:
        """Returns the waveform, louder or softer."""
        applied, db = rng.random() < self.probability, rng.uniform(self.min_db, self.max_db)
        return gain(samples, float(db)) if applied else samples


class Noise(AudioAugmentation):
    """Adds coloured noise at a signal-to-noise ratio; silence stays silent.

    The noise begins at 20 Hz, and the ratio is that of the powers from there on: a constant offset, rumble and what else is below
    count neither as signal nor as noise. Otherwise most of the power of brown noise would be where nobody hears it.

    Args:
        min_snr_db: the noisiest, dB.
        max_snr_db: the cleanest, dB.
        colour: `white`, `pink` (power falls with the frequency) or `brown` (with its square).
        probability: of being applied.

    Raises:
        ValueError: if the range is empty, the colour unknown or the probability none.
    """

    def __init__(
        self, min_snr_db: float = 5.0, max_snr_db: float = 30.0, colour: Colour = "pink", probability: float = 0.5
    ) -> None:
        self.min_snr_db, self.max_snr_db = _check_range("snr_db", min_snr_db, max_snr_db)
        self.probability = check_probability("probability", probability)
        if colour not in _SLOPES:
            raise ValueError(f"colour must be one of {', '.join(_SLOPES)}, got {colour!r}")
        self.colour = colour

    def __call__(self, samples: Tensor, sample_rate: int, rng: np.random.Generator) -> Tensor:
        """Returns the waveform with noise."""
        applied, snr, seed = (
            rng.random() < self.probability,
            rng.uniform(self.min_snr_db, self.max_snr_db),
            rng.integers(1 << 62),
        )
        if not applied:
            return samples
        return samples + _noise(samples, sample_rate, _SLOPES[self.colour], float(snr), int(seed))


def augment_frames(frames: Tensor, transforms: Sequence[nn.Module], seed: int) -> Tensor:
    """Applies transforms of torchvision v2 to the frames of a clip, the same to each.

    Args:
        frames: (F, 3, H, W) uint8.
        transforms: applied in order.
        seed: of torch's generator for the CPU while they run, from which transforms take their numbers; afterwards it is as it was.
            Generators of other devices are left alone.

    Raises:
        ValueError: if the result has another shape or type than the frames.
    """
    output = frames
    with _seeded_cpu(seed):
        for transform in transforms:
            output = transform(output)
    if output.shape != frames.shape or output.dtype != frames.dtype:
        raise ValueError(
            f"video_augment made {tuple(output.shape)} {output.dtype} of frames {tuple(frames.shape)} {frames.dtype}; "
            "transforms must keep shape and type (the encoder scales the frames)"
        )
    return output


@contextmanager
def _seeded_cpu(seed: int) -> Iterator[None]:
    """Seeds torch's generator for the CPU within the block. `torch.manual_seed` would seed those of all devices, and leave them so."""
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


def check_probability(name: str, value: float) -> float:
    """Returns a probability.

    Raises:
        ValueError: if it is none.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1, got {value}")
    return value


def _check_range(name: str, low: float, high: float) -> tuple[float, float]:
    if not low <= high or not np.isfinite([low, high]).all():
        raise ValueError(f"min_{name} must not exceed max_{name}, got {low} and {high}")
    return low, high


def _noise(samples: Tensor, sample_rate: int, slope: float, snr_db: float, seed: int) -> Tensor:
    """Returns noise for a waveform; zeros where nothing of the waveform can be heard, for then there is no ratio.

    Args:
        samples: (S,) float32.
        sample_rate: in Hz.
        slope: power of the frequency by which the amplitude of the noise falls.
        snr_db: power of the waveform over that of the noise, from `LOWEST_AUDIBLE` on, dB.
        seed: of the noise.

    Returns:
        (S,) float32.
    """
    size = samples.numel()
    heard = _frequencies(size, sample_rate) >= LOWEST_AUDIBLE
    if not bool(heard.any()) or not bool(samples.any()):
        return torch.zeros_like(samples)
    white = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    fall = _frequencies(size, sample_rate).clamp(min=LOWEST_AUDIBLE) ** slope
    noise = torch.fft.irfft(torch.fft.rfft(white) * heard / fall, n=size)
    ratio = _audible_power(samples, sample_rate) / float(noise.double().square().mean())
    return noise * math.sqrt(ratio / 10 ** (snr_db / 10))


def _audible_power(samples: Tensor, sample_rate: int) -> float:
    """Returns the mean square of what can be heard of a waveform (S,)."""
    # Forth and back: a jump from the end to the beginning, which slow rumble makes, would count as sound of all frequencies.
    # In float32 a large offset would round the rest.
    samples = samples - samples.mean()
    spectrum = torch.fft.rfft(torch.cat([samples, samples.flip(0)]))
    size = 2 * samples.numel()
    squares = torch.view_as_real(spectrum).double().square().sum(1)
    squares = squares * (_frequencies(size, sample_rate) >= LOWEST_AUDIBLE)
    # All bins but the last one stand for two frequencies, the negative one too.
    return float(2 * squares.sum() - squares[-1]) / size**2


def _frequencies(size: int, sample_rate: int) -> Tensor:
    """Returns the frequencies (size // 2 + 1,) of the bins of a spectrum, Hz."""
    return torch.fft.rfftfreq(size, 1 / sample_rate) if size else torch.zeros(1)
