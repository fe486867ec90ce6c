"""The sounds of the effects, made with numpy: every function returns one event before its level is set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.data.synthetic.music import INSTRUMENTS, melody

Wave = NDArray[np.float64]

_COUNT = {"once": 1, "twice": 2, "three times": 3, "four times": 4}


def times(seconds: float, sample_rate: int) -> Wave:
    """Returns the times of the samples of an event, in seconds from its start."""
    return np.arange(round(seconds * sample_rate)) / sample_rate


def noise(rng: np.random.Generator, samples: int, sample_rate: int, low: float, high: float) -> Wave:
    """Returns noise between `low` and `high` Hz, with a root mean square of one."""
    size = 1 << max(samples - 1, 1).bit_length()  # transforms of other lengths can be ten times slower
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequency = np.fft.rfftfreq(size, 1 / sample_rate)
    below, above = np.square(low / np.maximum(frequency, 1.0)), np.square(frequency / high)
    spectrum /= (1 + np.square(np.square(below))) * (1 + np.square(np.square(above)))
    wave = np.fft.irfft(spectrum, size)[:samples]
    return wave / (np.sqrt(np.mean(wave**2)) + 1e-9)


def tone(frequency: Wave, sample_rate: int, partials: tuple[float, ...]) -> Wave:
    """Returns a harmonic tone that follows `frequency` (Hz, one a sample), with these amplitudes of its partials."""
    phase = 2 * np.pi * np.cumsum(frequency) / sample_rate
    # No partial so high that it would fold back.
    top = 0.45 * sample_rate / max(float(frequency.max()), 1.0)
    return sum((a * np.sin((k + 1) * phase) for k, a in enumerate(partials) if k + 1 < top), np.zeros_like(phase))


def strikes(
    starts: NDArray[np.floating[Any]], seconds: float, sample_rate: int, hit: Callable[[Wave, int], Wave]
) -> Wave:
    """Returns the sum of `hit(t, k)` for every start, each of which lasts until the end of the event."""
    wave = np.zeros(round(seconds * sample_rate))
    for k, start in enumerate(starts):
        first = round(start * sample_rate)
        if first < wave.size:
            wave[first:] += hit(np.arange(wave.size - first) / sample_rate, k)
    return wave


def _evenly(rng: np.random.Generator, count: int, seconds: float) -> NDArray[np.floating[Any]]:
    """Returns `count` starts over an event, the last of which has room to ring."""
    step = min(seconds / count, 0.9)
    return np.arange(count) * step * rng.uniform(0.88, 1.0)


def _rate(manner: str, slow: float, fast: float) -> float:
    return fast if manner == "quickly" else slow


def bell(rng: np.random.Generator, seconds: float, sample_rate: int, manner: str, register: str) -> Wave:
    """Inharmonic partials that ring on; one to three strikes."""
    base = rng.uniform(760, 980) if register == "high" else rng.uniform(300, 420)
    partials = (
        (0.5, 0.4, 1.0),
        (1.0, 1.0, 0.7),
        (1.19, 0.5, 0.6),
        (1.56, 0.3, 0.45),
        (2.0, 0.6, 0.4),
        (2.74, 0.4, 0.25),
        (3.76, 0.2, 0.15),
    )

    def hit(t: Wave, _: int) -> Wave:
        return sum(
            (a * np.exp(-t / (d * 0.9)) * np.sin(2 * np.pi * base * r * t) for r, a, d in partials), np.zeros_like(t)
        )

    return strikes(_evenly(rng, _COUNT[manner], seconds), seconds, sample_rate, hit)


def siren(rng: np.random.Generator, seconds: float, sample_rate: int, manner: str, register: str) -> Wave:
    """A tone that wails up and down."""
    t = times(seconds, sample_rate)
    base = rng.uniform(850, 1000) if register == "high" else rng.uniform(420, 520)
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * _rate(manner, rng.uniform(0.8, 1.0), rng.uniform(3.0, 3.8)) * t)
    return tone(base * (1 + 0.75 * sweep), sample_rate, (1.0, 0.15, 0.35, 0.1, 0.15)) * (0.7 + 0.3 * sweep)


def engine(rng: np.random.Generator, seconds: float, sample_rate: int, manner: str, register: str) -> Wave:
    """A rumble with many partials; steady, speeding up or slowing down."""
    t = times(seconds, sample_rate)
    base = rng.uniform(85, 110) if register == "high" else rng.uniform(42, 55)
    bend = {"steadily": 0.0, "faster and faster": 1.0, "slower and slower": -0.5}[manner]
    frequency = base * (1 + bend * t / seconds)
    hum = tone(frequency, sample_rate, tuple(1 / (1 + 0.25 * k) for k in range(14)))
    grit = noise(rng, t.size, sample_rate, 60, 500) * (0.6 + 0.4 * np.sin(np.pi * np.cumsum(frequency) / sample_rate))
    return hum + 0.8 * grit


def rain(rng: np.random.Generator, seconds: float, sample_rate: int, manner: str, register: str) -> Wave:
    """Hiss and drops: a thin bed with single drops, or a dense shower."""
    samples = round(seconds * sample_rate)
    heavy = manner == "heavily"
    bed = noise(rng, samples, sample_rate, 900 if heavy else 2500, 6500)
    drops = np.zeros(samples)
    at = rng.integers(0, samples, int(seconds * (120 if heavy else 22)))
    drops[at] = rng.uniform(0.4, 1.0, at.size) * rng.choice((-1.0, 1.0), at.size)
    t = np.arange(400) / sample_rate
    drops = np.convolve(drops, np.exp(-t * 400) * np.sin(2 * np.pi * rng.uniform(2800, 3600) * t))[:samples]
    return bed * (0.8 if heavy else 0.12) + drops * (1.0 if heavy else 2.0)


def knocking(rng: np.random.Generator, seconds: float, sample_rate: int, manner: str, register: str) -> Wave:
    """Short wooden thumps."""
    base = rng.uniform(170, 240)
    click = noise(rng, round(seconds * sample_rate), sample_rate, 250, 1200)

    def hit(t: Wave, _: int) -> Wave:
        body = np.sin(2 * np.pi * base * t) * np.exp(-t * 28)
        body += 0.6 * np.sin(2 * np.pi * base * 2.3 * t) * np.exp(-t * 45)
        return body + 0.35 * click[: t.size] * np.exp(-t * 90)

    count = _COUNT[manner]
    starts = np.arange(count) * min(0.65, (seconds - 0.15) / count) * rng.uniform(0.9, 1.0)
    return strikes(starts, seconds, sample_rate, hit)


def whistle(rng: np.random.Generator, seconds: float, sample_rate: int, manner: str, register: str) -> Wave:
    """A nearly pure high tone that goes up, down or stays, with breath."""
    t = times(seconds, sample_rate)
    base = rng.uniform(2300, 2700) if register == "high" else rng.uniform(1250, 1500)
    bend = {"up": np.linspace(0.75, 1.3, t.size), "down": np.linspace(1.3, 0.75, t.size), "steadily": np.ones(t.size)}[
        manner
    ]
    wave = tone(base * bend * (1 + 0.01 * np.sin(2 * np.pi * 6 * t)), sample_rate, (1.0, 0.06))
    return wave * (0.85 + 0.15 * np.sin(2 * np.pi * 5 * t)) + 0.06 * noise(rng, t.size, sample_rate, 1500, 5000)


def clock(rng: np.random.Generator, seconds: float, sample_rate: int, manner: str, register: str) -> Wave:
    """Dry clicks, tick and tock in turn."""
    step = 1 / _rate(manner, rng.uniform(2.0, 2.4), rng.uniform(5.0, 6.0))
    click = noise(rng, round(seconds * sample_rate), sample_rate, 1500, 6000)

    def hit(t: Wave, k: int) -> Wave:
        pitch = 4200 if k % 2 == 0 else 3000
        return (np.sin(2 * np.pi * pitch * t) + 0.5 * click[: t.size]) * np.exp(-t * 130)

    return strikes(np.arange(0.0, seconds - 0.04, step), seconds, sample_rate, hit)


def dog(rng: np.random.Generator, seconds: float, sample_rate: int, manner: str, register: str) -> Wave:
    """Rough bursts whose pitch rises and falls quickly."""
    base = rng.uniform(480, 580) if register == "high" else rng.uniform(210, 270)
    rough = noise(rng, round(seconds * sample_rate), sample_rate, 400, 2500)

    def hit(t: Wave, _: int) -> Wave:
        frequency = base * (0.7 + 0.7 * np.sin(np.pi * np.minimum(t / 0.22, 1.0)))
        envelope = np.minimum(t / 0.015, 1.0) * np.exp(-((np.maximum(t - 0.08, 0) / 0.09) ** 2))
        return (tone(frequency, sample_rate, (0.5, 1.0, 0.9, 0.5, 0.4, 0.2)) + 0.5 * rough[: t.size]) * envelope

    return strikes(_evenly(rng, _COUNT[manner], seconds), seconds, sample_rate, hit)


def alarm(rng: np.random.Generator, seconds: float, sample_rate: int, manner: str, register: str) -> Wave:
    """Beeps of a hollow, square-like tone."""
    t = times(seconds, sample_rate)
    base = rng.uniform(1750, 2000) if register == "high" else rng.uniform(850, 1000)
    phase = (t * _rate(manner, rng.uniform(2.0, 2.4), rng.uniform(5.0, 5.8))) % 1.0
    gate = np.clip(np.minimum(phase, 0.55 - phase) / 0.03, 0.0, 1.0)
    return tone(np.full(t.size, base), sample_rate, (1.0, 0.0, 0.45, 0.0, 0.25)) * gate


def horn(rng: np.random.Generator, seconds: float, sample_rate: int, manner: str, register: str) -> Wave:
    """A brassy chord of two tones, held; one to three honks."""
    t = times(seconds, sample_rate)
    base = rng.uniform(400, 470) if register == "high" else rng.uniform(200, 240)
    partials = tuple(1 / (1 + 0.35 * k) for k in range(10))
    chord = tone(np.full(t.size, base), sample_rate, partials) + tone(
        np.full(t.size, base * 1.26), sample_rate, partials
    )
    count = _COUNT[manner]
    phase = (t / seconds * count) % 1.0
    length = 1.0 if count == 1 else 0.68
    return chord * np.clip(np.minimum(phase, length - phase) * seconds / count / 0.03, 0.0, 1.0)


def birds(rng: np.random.Generator, seconds: float, sample_rate: int, manner: str, register: str) -> Wave:
    """Very high chirps, each a quick sweep."""
    step = 1 / _rate(manner, rng.uniform(2.4, 2.8), rng.uniform(6.0, 7.0))
    sweeps = rng.uniform(0.7, 1.3, 64)

    def hit(t: Wave, k: int) -> Wave:
        t = t[: round(0.14 * sample_rate)]
        frequency = 4300 * sweeps[k % 64] ** 0.4 * (1 + 0.35 * np.sin(2 * np.pi * 11 * t))
        chirp = tone(frequency, sample_rate, (1.0, 0.1)) * np.sin(np.pi * np.minimum(t / 0.11, 1.0)) ** 2
        return chirp

    def padded(t: Wave, k: int) -> Wave:
        wave = np.zeros_like(t)
        chirp = hit(t, k)
        wave[: chirp.size] = chirp
        return wave

    return strikes(np.arange(0.0, seconds - 0.08, step), seconds, sample_rate, padded)


EFFECTS: dict[str, Callable[[np.random.Generator, float, int, str, str], Wave]] = {
    "bell": bell,
    "siren": siren,
    "engine": engine,
    "rain": rain,
    "knocking": knocking,
    "whistle": whistle,
    "clock": clock,
    "dog": dog,
    "alarm": alarm,
    "horn": horn,
    "birds": birds,
}


def sound(name: str, rng: np.random.Generator, seconds: float, sample_rate: int, manner: str, register: str) -> Wave:
    """Returns the waveform of an effect or an instrument, (round(seconds * sample_rate),), at any level.

    Raises:
        KeyError: If `name` is neither an effect nor an instrument.
    """
    if name in INSTRUMENTS:
        return melody(name, rng, seconds, sample_rate, manner, register)
    return EFFECTS[name](rng, seconds, sample_rate, manner, register)


def audible(wave: Wave, sample_rate: int) -> Wave:
    """Returns `wave` up to the last 20 ms that are at most 36 dB softer than its loudest: there an event ends."""
    step = round(0.02 * sample_rate)
    blocks = wave[: wave.size // step * step].reshape(-1, step)
    loud = np.sqrt(np.mean(blocks**2, axis=1))
    return wave[: (int(np.flatnonzero(loud > 0.016 * loud.max())[-1]) + 1) * step]


def levelled(wave: Wave, sample_rate: int, level: float) -> Wave:
    """Returns `wave` with short fades, its loudest 50 ms at the root mean square `level`, peaks softly below 0.9."""
    wave = wave.copy()
    fade = min(round(0.008 * sample_rate), wave.size // 4)
    ramp = np.linspace(0.0, 1.0, fade)
    wave[:fade] *= ramp
    out = min(round(0.03 * sample_rate), wave.size // 4)
    wave[-out:] *= np.linspace(1.0, 0.0, out)
    window = min(round(0.05 * sample_rate), wave.size)
    power = np.cumsum(np.concatenate(([0.0], wave**2)))
    loudest = np.sqrt(max(float(np.max(power[window:] - power[:-window])) / window, 1e-12))
    wave *= level / loudest
    return np.tanh(wave / 0.9) * 0.9
