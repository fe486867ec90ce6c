"""Where a sound is loud: an energy gate that finds onset and offset of what a label without times holds for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from peav.types import Seconds

#: Length of the frames whose level is measured, in seconds.
FRAME_SECONDS = 0.01


def active_spans(
    samples: NDArray[np.float32], sample_rate: int, gate_db: float = 40.0, gap_seconds: Seconds = 0.25
) -> list[tuple[int, int]]:
    """Returns the spans in which a sound is at most `gate_db` below its loudest 10 ms.

    Args:
        samples: (S,) waveform.
        sample_rate: in Hz.
        gate_db: how far below the loudest frame a frame is still heard, dB.
        gap_seconds: spans that are nearer to each other are one.

    Returns:
        begin and end of each in samples, in order; none of silence.

    >>> sound = np.zeros(1000, np.float32)
    >>> sound[200:300], sound[700:800] = 1.0, 0.1
    >>> active_spans(sound, 1000), active_spans(sound, 1000, gate_db=10), active_spans(sound, 1000, gap_seconds=0.5)
    ([(200, 300), (700, 800)], [(200, 300)], [(200, 800)])
    """
    size = max(1, round(FRAME_SECONDS * sample_rate))
    count = -(-len(samples) // size)
    padded = np.zeros(count * size, np.float32)
    padded[: len(samples)] = samples
    power = np.square(padded).reshape(count, size).mean(1) if count else np.zeros(0, np.float32)
    if not power.any():
        return []
    active = power >= power.max() * 10 ** (-gate_db / 10)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    spans: list[tuple[int, int]] = []
    for begin, end in zip((edges[::2] * size).tolist(), (edges[1::2] * size).tolist(), strict=True):
        if spans and begin - spans[-1][1] < gap_seconds * sample_rate:
            spans[-1] = spans[-1][0], min(end, len(samples))
        else:
            spans.append((begin, min(end, len(samples))))
    return spans
