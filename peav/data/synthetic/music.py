"""The instruments of the synthetic world and the little tunes they play."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float64]

_SCALE = (0, 2, 4, 7, 9, 12, 14, 16, 19)
_CHORDS = ((0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7), (-3, 0, 4))
#: Lowest note of the low and of the high register, as MIDI numbers.
_REGISTERS = {
    "piano": (45, 69),
    "organ": (43, 65),
    "flute": (64, 79),
    "guitar": (45, 62),
    "violin": (56, 74),
    "marimba": (53, 72),
    "bass": (28, 28),
}


def _piano(t: Wave, f: float, rng: np.random.Generator) -> Wave:
    wave = np.zeros_like(t)
    for k in range(1, 9):
        partial = f * k * np.sqrt(1 + 0.0006 * k * k)
        if partial < 7000:
            wave += np.exp(-t * (1.8 + 0.9 * k)) / k**1.1 * np.sin(2 * np.pi * partial * t)
    return wave * np.minimum(t / 0.004, 1.0)


def _organ(t: Wave, f: float, rng: np.random.Generator) -> Wave:
    drawbars = ((0.5, 0.5), (1, 1.0), (2, 0.7), (3, 0.4), (4, 0.5), (6, 0.2), (8, 0.25))
    wave = sum((a * np.sin(2 * np.pi * f * r * t) for r, a in drawbars if f * r < 7000), np.zeros_like(t))
    return wave * (1 + 0.12 * np.sin(2 * np.pi * 6.5 * t)) * np.minimum(t / 0.02, 1.0)


def _flute(t: Wave, f: float, rng: np.random.Generator) -> Wave:
    phase = 2 * np.pi * f * t - 0.25 * np.cos(2 * np.pi * 5 * t)
    breath = np.convolve(rng.standard_normal(t.size), (0.25, 0.5, 0.25), mode="same")
    wave = np.sin(phase) + 0.22 * np.sin(2 * phase) + 0.05 * np.sin(3 * phase) + 0.09 * breath
    return wave * np.minimum(t / 0.05, 1.0)


def _guitar(t: Wave, f: float, rng: np.random.Generator) -> Wave:
    """Karplus and Strong's plucked string (Computer Music Journal, 1983), a whole period at a time."""
    rate = 1 / (t[1] - t[0])
    period = max(2, round(rate / f))
    string = rng.uniform(-1.0, 1.0, period)
    string -= string.mean()
    blocks = np.empty((-(-t.size // period), period))
    for row in blocks:
        row[:] = string
        string = 0.4985 * (string + np.concatenate((string[-1:], string[:-1])))
    return blocks.ravel()[: t.size]


def _violin(t: Wave, f: float, rng: np.random.Generator) -> Wave:
    phase = 2 * np.pi * f * t - 0.6 * np.cos(2 * np.pi * 5.8 * t) * np.minimum(t / 0.2, 1.0)
    wave = np.zeros_like(t)
    for k in range(1, 15):
        if f * k < 7000:
            wave += np.sin(k * phase) / k**0.8
    return wave * np.minimum(t / 0.09, 1.0)


def _marimba(t: Wave, f: float, rng: np.random.Generator) -> Wave:
    partials = ((1.0, 1.0, 9.0), (3.93, 0.45, 22.0), (9.2, 0.2, 45.0))
    return sum(
        (a * np.exp(-t * d) * np.sin(2 * np.pi * f * r * t) for r, a, d in partials if f * r < 7500), np.zeros_like(t)
    )


def _bass(t: Wave, f: float, rng: np.random.Generator) -> Wave:
    index = 1.0 + 3.5 * np.exp(-t * 6)
    wave = np.sin(2 * np.pi * f * t + index * np.sin(2 * np.pi * f * t)) + 0.5 * np.sin(2 * np.pi * 2 * f * t)
    return wave * np.exp(-t * 1.5) * np.minimum(t / 0.01, 1.0)


INSTRUMENTS: dict[str, Callable[[Wave, float, np.random.Generator], Wave]] = {
    "piano": _piano,
    "organ": _organ,
    "flute": _flute,
    "guitar": _guitar,
    "violin": _violin,
    "marimba": _marimba,
    "bass": _bass,
}


def _notes(manner: str, count: int) -> list[tuple[int, ...]]:
    """Returns the chords of a tune, each a tuple of semitones above its lowest note."""
    if manner == "a rising melody":
        return [(_SCALE[k % len(_SCALE)],) for k in range(count)]
    if manner == "a falling melody":
        return [(_SCALE[(count - 1 - k) % len(_SCALE)],) for k in range(count)]
    if manner == "chords":
        return [_CHORDS[k % len(_CHORDS)] for k in range(count)]
    return [(7,)] * count


def melody(name: str, rng: np.random.Generator, seconds: float, sample_rate: int, manner: str, register: str) -> Wave:
    """Returns a tune of one instrument.

    Args:
        name: Name of the instrument, of `INSTRUMENTS`.
        rng: Source of the pitch and the tempo.
        seconds: Length of the tune in seconds.
        sample_rate: Samples a second.
        manner: What it plays, of the source's manners.
        register: "low", "high" or "" for the instrument's only register.

    Returns:
        The waveform, (round(seconds * sample_rate),), at any level.
    """
    samples = round(seconds * sample_rate)
    pace = rng.uniform(2.0, 2.6) if manner == "chords" else rng.uniform(3.2, 4.4)
    count = int(np.clip(round(seconds * pace), 3, len(_SCALE)))
    low, high = _REGISTERS[name]
    base = (high if register == "high" else low) + int(rng.integers(0, 5))
    edges = np.linspace(0, samples, count + 1).astype(int)
    play = INSTRUMENTS[name]
    wave = np.zeros(samples)
    for (first, last), chord in zip(pairwise(edges), _notes(manner, count), strict=True):
        t = np.arange(last - first) / sample_rate
        release = np.minimum(1.0, (t[-1] - t) / 0.03)
        for note in chord:
            wave[first:last] += play(t, 440 * 2 ** ((base + note - 69) / 12), rng) * release
    return wave
