"""What the synthetic world is made of, in numbers. `python -m tests.data.synthetic.golden` writes them anew.

How a bell sounds is neither right nor wrong, but the golden losses and all figures in experiments/LOG.md are about these sounds.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peav.data.synthetic import sample_world
from peav.data.synthetic.captions import captions
from peav.data.synthetic.sounds import audible, levelled, sound
from peav.data.synthetic.sources import BACKGROUNDS, COLOURS, SIZES, SOURCES
from peav.data.synthetic.world import timeline

GOLDEN = Path(__file__).with_name("golden.json")
RATE, FPS, CLIPS = 16000, 12, 64


def summary(wave: NDArray[np.float64]) -> list[float]:
    """Returns the root mean square, and three projections on directions at random: another waveform has others."""
    norm = float(np.sqrt(np.sum(wave**2)))
    rng = np.random.default_rng(wave.size)
    return [norm / wave.size**0.5, *(float(rng.standard_normal(wave.size) @ wave) / norm for _ in range(3))]


def sounds() -> dict[str, list[float]]:
    """Returns a summary of each effect and instrument, in each manner and register, and at another sample rate."""
    found = {}
    for source in SOURCES:
        if source.domain == "speech":
            continue
        for manner in source.manners or ("",):
            for register in ("low", "high"):
                for seconds, rate in ((1.3, RATE), (2.1, 12000)):
                    wave = sound(source.name, np.random.default_rng(7), seconds, rate, manner, register)
                    found[f"{source.name}, {manner}, {register}, {rate} Hz"] = summary(wave)
                    levelled_wave = levelled(audible(wave, rate), rate, 0.1)
                    found[f"{source.name}, {manner}, {register}, {rate} Hz, levelled"] = summary(levelled_wave)
    return found


def clips() -> dict[str, dict[str, object]]:
    """Returns the captions, the times and a digest of the scene of some clips."""
    found = {}
    for scene in sample_world(CLIPS, seed=1):
        spoken = {k: (0.9, 2.2)[(k + scene.index) % 2] for k, event in enumerate(scene.events) if event.sentence}
        frames, spans = timeline(scene, spoken, FPS)
        rounded = json.dumps(asdict(scene), default=str, sort_keys=True)
        found[scene.id] = {
            "captions": captions(scene),
            "frames": frames,
            "spans": [list(span) for span in spans],
            "scene": hashlib.blake2b(rounded.encode(), digest_size=8).hexdigest(),
        }
    return found


def sources() -> dict[str, object]:
    """Returns what there is to see and to hear."""
    tables = {
        "colours": COLOURS,
        "backgrounds": BACKGROUNDS,
        "sizes": SIZES,
        "sources": [asdict(item) for item in SOURCES],
    }
    return json.loads(json.dumps(tables))


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({"sounds": sounds(), "clips": clips(), "sources": sources()}, indent=0) + "\n")
    sys.stdout.write(f"{GOLDEN}\n")
