"""Augmentation of waveforms and frames, in the workers; what is random follows from (seed, epoch, clip) alone.

SpecAugment belongs to the mel frontend (`peav.encoders.MelAudioEncoder`), which knows the bands; the data give it a seed a clip.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.functional import add_noise, gain

Colour = Literal["white", "pink", "brown"]

#: Power of the frequency by which the amplitude of noise falls.
_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}


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
    """Adds coloured noise at a signal-to-noise ratio (`torchaudio.functional.add_noise`); silence stays silent.

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
        # Of silence there is no ratio: torchaudio would give NaN.
        if not applied or not samples.numel() or not bool(samples.any()):
            return samples
        noise = _coloured(samples.numel(), _SLOPES[self.colour], int(seed))
        return add_noise(samples, noise, torch.tensor(float(snr)))


def augment_frames(frames: Tensor, transforms: Sequence[nn.Module], seed: int) -> Tensor:
    """Applies transforms of torchvision v2 to the frames of a clip, the same to each.

    Args:
        frames: (F, 3, H, W) uint8.
        transforms: applied in order.
        seed: of torch's generator while they run; afterwards it is as it was.

    Raises:
        ValueError: if the result has another shape or type than the frames.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output = frames
        for transform in transforms:
            output = transform(output)
    if output.shape != frames.shape or output.dtype != frames.dtype:
        raise ValueError(
            f"video_augment made {tuple(output.shape)} {output.dtype} of frames {tuple(frames.shape)} {frames.dtype}; "
            "transforms must keep shape and type (the encoder scales the frames)"
        )
    return output


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


def _coloured(size: int, slope: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(size, generator=generator)
    if not slope or size < 3:
        return white
    spectrum = torch.fft.rfft(white)
    frequency = torch.arange(len(spectrum), dtype=torch.float32).clamp(min=1.0)
    return torch.fft.irfft(spectrum / frequency**slope, n=size)
