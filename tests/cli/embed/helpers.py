"""`peav embed`, run in this process, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from peav.cli.main import main

RATE = 16000
TEXTS = ["a bell", "the red house"]


def noise(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * RATE))


GOOD = ["both.MP4", "deep/er/0.wav", "deep/er/1.wav", "deep/er/2.wav", "deep/er/3.wav", "deep/silent.mp4"]


def run(checkpoint: Path, out: Path, *media: Path | str, **options: Any) -> int:
    words = [f"--{name}={'null' if value is None else value}" for name, value in ({"workers": 0} | options).items()]
    return main(["embed", *map(str, media), f"--model={checkpoint}", f"--out={out}", *words])


def read(out: Path) -> dict[str, np.ndarray]:
    with np.load(out) as archive:
        return dict(archive)


def rejects(out: Path) -> dict[str, str]:
    lines = out.with_suffix(".rejects.jsonl").read_text().splitlines()
    return {Path(line["file"]).name: line["reason"] for line in map(json.loads, lines)}
