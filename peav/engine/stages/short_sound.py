"""A fingerprint of sounds of a few seconds: 32 bits every 8 ms.

A bit says whether the difference between two neighbouring bands has grown (Haitsma and Kalker, "A Highly Robust Audio Fingerprinting
System", ISMIR 2002). Chromaprint averages over 2.6 s and says next to nothing of less. Theirs are frames of 370 ms, for music in noise;
these are 128 ms, for a word or a bark has no more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from peav.types import Seconds

#: Frames, the steps between them, and the time over which a difference must have grown.
_FRAME, _HOP, _GROWTH = Seconds(0.128), Seconds(0.008), Seconds(0.048)

#: The bands, evenly on a logarithmic scale, Hz: what telephones and 8 kHz keep.
_LOWEST, _HIGHEST, _BANDS = 300.0, 3800.0, 33

#: Shorter sounds are repeated up to this length.
_MIN_SECONDS: Seconds = 0.5


def short_words(samples: NDArray[np.float32], rate: int) -> NDArray[np.uint32]:
    """Returns the words (W,) of a sound, 125 a second.

    Args:
        samples: (S,), not empty.
        rate: Hz, 8,000 at least.

    >>> time = np.arange(16000) / 16000
    >>> len(short_words(np.sin(2000 * time**2).astype(np.float32), 16000))
    104
    """
    least = round(_MIN_SECONDS * rate)
    held = np.tile(samples, -(-least // len(samples)))[:least] if len(samples) < least else samples
    size, hop, growth = round(_FRAME * rate), round(_HOP * rate), round(_GROWTH / _HOP)
    frames = np.lib.stride_tricks.sliding_window_view(held, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = np.searchsorted(np.fft.rfftfreq(size, 1 / rate), np.geomspace(_LOWEST, _HIGHEST, _BANDS + 1))
    begins, ends = edges[:-1], np.maximum(edges[1:], edges[:-1] + 1)
    summed = np.pad(np.cumsum(power, axis=1), ((0, 0), (1, 0)))
    levels = np.log((summed[:, ends] - summed[:, begins]) / (ends - begins) + 1e-8)
    steps = levels[:, :-1] - levels[:, 1:]
    bits = steps[growth:] > steps[:-growth]
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(">u4")[:, 0].astype(np.uint32)
