"""Sentences from a small grammar, and the voices of flite that say them, through FFmpeg."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peav.data.synthetic.ffmpeg import run_ffmpeg

# fmt: off
SUBJECTS = (
    "farmer", "teacher", "doctor", "sailor", "baker", "painter", "driver", "singer", "gardener", "student",
    "neighbour", "captain", "lawyer", "dancer", "hunter", "soldier", "writer", "queen", "tailor", "pilot", "miner",
    "nurse", "judge", "fisherman",
)
VERBS = (
    "sold", "bought", "found", "lost", "carried", "painted", "counted", "broke", "cleaned", "borrowed", "hid",
    "wanted", "dropped", "collected", "repaired", "stole",
)
NUMBERS = (
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty", "many",
)
OBJECTS = (
    "lamps", "apples", "books", "boxes", "chairs", "candles", "letters", "bottles", "baskets", "coins", "carpets",
    "mirrors", "hammers", "blankets", "pictures", "windows", "tickets", "ladders", "pillows", "spoons",
)
PLACES = (
    "near the river", "in the garden", "at the market", "by the harbour", "in the kitchen", "on the mountain",
    "behind the church", "under the bridge", "in the village", "at the station", "beside the lake", "on the island",
)
# fmt: on


def sentence(rng: np.random.Generator, short: bool = False) -> str:
    """Returns a sentence, such as "the farmer sold seven lamps near the river"; a short one names no place."""
    subject, verb, number, thing, place = (
        str(rng.choice(words)) for words in (SUBJECTS, VERBS, NUMBERS, OBJECTS, PLACES)
    )
    return f"the {subject} {verb} {number} {thing}" + ("" if short else f" {place}")


def say(lines: Sequence[tuple[str, str]], sample_rate: int) -> list[NDArray[np.float64]]:
    """Returns the waveform of every (voice, sentence), without the silence before and after, at any level.

    One FFmpeg process says all of them, since starting it costs as much as a sentence. Three of the voices draw from
    one random generator of that process: a waveform is repeated only with the same lines before it.

    Raises:
        RuntimeError: If FFmpeg fails.
    """
    if not lines:
        return []
    with tempfile.TemporaryDirectory(prefix="peav-say-") as name:
        folder = Path(name)
        inputs: list[str] = []
        outputs: list[str] = []
        for k, (voice, text) in enumerate(lines):
            (folder / f"{k}.txt").write_text(text + ".\n")
            inputs += ["-f", "lavfi", "-i", f"flite=textfile={k}.txt:voice={voice}"]
            outputs += ["-map", f"{k}:a", "-f", "s16le", "-ac", "1", "-ar", str(sample_rate), f"{k}.pcm"]
        run_ffmpeg([*inputs, *outputs], cwd=folder)
        return [_trimmed(np.fromfile(folder / f"{k}.pcm", "<i2") / 32768.0, sample_rate) for k in range(len(lines))]


def _trimmed(wave: NDArray[np.float64], sample_rate: int) -> NDArray[np.float64]:
    loud = np.flatnonzero(np.abs(wave) > 0.03 * np.abs(wave).max())
    pad = round(0.015 * sample_rate)
    return wave[max(0, loud[0] - pad) : loud[-1] + pad]
