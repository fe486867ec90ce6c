"""A table that looks like a trained model's: a factor shared by what belongs together, plus noise. And media to go with it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from peav.evaluation.media_plots import MediaLoader
from peav.evaluation.table import EmbeddingTable, Event

PHRASES = ["dog barking", "church bell", "siren", "rising chirp", "rain", "hammering"]
COLOURS = ["red", "green", "blue", "yellow", "violet", "white"]
SHAPES = ["disc", "square", "bar"]
HOP = 0.04
SECONDS = 8.0


def _unit(value: Tensor) -> Tensor:
    return torch.nn.functional.normalize(value, dim=-1)


def make_events(num_clips: int, seed: int = 0) -> list[list[Event] | None]:
    """Events of each clip; every seventh is not annotated, every fifth is free of events."""
    generator = np.random.default_rng(seed)
    found: list[list[Event] | None] = []
    for clip in range(num_clips):
        if clip % 7 == 6:
            found.append(None)
            continue
        events: list[Event] = []
        for phrase in generator.choice(PHRASES, 0 if clip % 5 == 4 else int(generator.integers(1, 4)), replace=False):
            onset = float(generator.uniform(0, SECONDS - 2))
            events.append((str(phrase), onset, min(onset + float(generator.uniform(0.4, 3.5)), SECONDS)))
        found.append(events)
    return found


def make_table(num_clips: int = 120, dim: int = 32, signal: float = 0.46, seed: int = 0) -> EmbeddingTable:
    """Embeddings = shared factor * signal + noise; `signal` 0 is a model that learned nothing."""
    g = torch.Generator().manual_seed(seed)
    factor = _unit(torch.randn(num_clips, dim, generator=g))

    def view(rows: Tensor, strength: float) -> Tensor:
        noise = _unit(torch.randn(len(rows), dim, generator=g))
        return _unit(signal * strength * factor[rows] + (1 - signal * strength) * noise)

    every = torch.arange(num_clips)
    with_video = every[every % 9 != 8]  # some clips lack video
    twice = every.repeat_interleave(2)
    rows = {
        "audio": (every, 1.0), "video": (with_video, 1.0), "audio_video": (with_video, 1.2), "text_audio": (twice, 0.9),
        "text_video": (with_video, 1.0), "text_audio_video": (every, 1.1), "text_transcript": (every[::4], 1.2),
        "audio_plus_text": (every, 1.2), "video_plus_text": (with_video, 1.2),
    }  # fmt: skip
    caption = [f"a {PHRASES[c % 6]} while a {COLOURS[c % 5]} {SHAPES[c % 3]} moves, take {c}" for c in range(num_clips)]
    events = make_events(num_clips, seed)
    frames, phrases = _frames(events, dim, signal, g)
    return EmbeddingTable(
        clip_ids=[f"clip-{c:03d}" for c in range(num_clips)],
        embeddings={name: view(clips, strength) for name, (clips, strength) in rows.items()},
        clips={name: clips.clone() for name, (clips, _) in rows.items()},
        groups={name: torch.arange(len(clips)) for name, (clips, _) in rows.items()},
        texts={name: [caption[c] for c in rows[name][0].tolist()] for name in rows if name.startswith("text_")},
        frames=list(frames),
        frame_seconds=HOP,
        phrases=PHRASES,
        text_event=phrases,
        events=events,
        logit_scale=10.0,
        logit_bias=-4.0,
    )


def _frames(events: list, dim: int, signal: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
    phrases = torch.linalg.qr(torch.randn(dim, len(PHRASES), generator=g)).Q.T
    steps = int(SECONDS / HOP)
    noise = torch.randn(len(events), steps, dim, generator=g)
    frames = 0.2 * torch.nn.functional.avg_pool1d(noise.mT, 5, 1, 2).mT * 5**0.5  # smooth in time
    for clip, clip_events in enumerate(events):
        for phrase, onset, offset in clip_events or []:
            times = (torch.arange(steps) + 0.5) * HOP
            inside = torch.sigmoid((times - onset) / 0.06) * torch.sigmoid((offset - times) / 0.12)
            frames[clip] += 1.3 * signal * inside[:, None] * phrases[PHRASES.index(phrase)]
    return frames, phrases


def make_media(num_clips: int = 120, seed: int = 0, sample_rate: int = 16000) -> MediaLoader:
    """Returns a loader: shapes on a gradient, and the events of `make_events` as chirps, tones and noise."""
    events = make_events(num_clips, seed)

    def load(clip_id: str) -> tuple[Tensor, Tensor, int]:
        clip = int(clip_id.rpartition("-")[2])
        y, x = np.mgrid[0:120, 0:192] / 120.0
        picture = np.stack([0.25 + 0.2 * x, 0.3 + 0.15 * y, 0.38 + 0.1 * x], -1)
        cx, cy = 0.3 + 0.11 * (clip % 10), 0.25 + 0.07 * (clip % 8)
        inside = [(x - cx) ** 2 + (y - cy) ** 2 < 0.04, (abs(x - cx) < 0.18) & (abs(y - cy) < 0.18), abs(x - cx) < 0.08]
        colour = [(0.85, 0.25, 0.2), (0.3, 0.7, 0.35), (0.25, 0.45, 0.85), (0.9, 0.8, 0.3), (0.6, 0.35, 0.75)][clip % 5]
        picture[inside[clip % 3]] = colour
        time = torch.arange(int(SECONDS * sample_rate)) / sample_rate
        sound = 0.01 * torch.randn(len(time), generator=torch.Generator().manual_seed(clip))
        for phrase, onset, offset in events[clip] or []:
            kind = PHRASES.index(phrase)
            local = time - onset
            gate = ((local > 0) & (time < offset)).float()
            base = [300.0, 700.0, 1200.0, 500.0, 0.0, 2500.0][kind]
            bend = [0.0, 0.0, 300 * math.sin(1.0), 900.0, 0.0, 0.0][kind]
            tone = torch.sin(2 * math.pi * (base * local + bend * local.square() / 2))
            noise = 0.4 * torch.randn(len(time), generator=torch.Generator().manual_seed(kind))
            sound += 0.4 * gate * (noise if kind == 4 else tone + 0.4 * torch.sin(4 * math.pi * base * local))
        return torch.from_numpy((255 * picture).astype(np.uint8)), sound, sample_rate

    return load


def make_history(steps: int = 300) -> dict[str, list[tuple[float, float]]]:
    """A total, three objectives, a validation loss, a learning rate, scales and biases."""
    generator = np.random.default_rng(0)
    history: dict[str, list[tuple[float, float]]] = {}
    names = ["loss", "audio_video/loss", "audio/loss", "video/loss", "frame/loss"]
    for i, name in enumerate(names):
        end = 0.6 + 0.2 * i
        values = end + (4 - end) * np.exp(-np.arange(steps) / 60) + 0.08 * generator.standard_normal(steps)
        history[f"train/{name}"] = [(float(s), float(v)) for s, v in enumerate(values)]
        history[f"validation/{name}"] = [(float(s), float(values[s] + 0.15)) for s in range(0, steps, 50)]
    history["train/lr"] = [(float(s), 1e-3 * min(s / 30, 1)) for s in range(steps)]
    for i, pair in enumerate(("audio_video", "frame")):
        history[f"train/{pair}/scale"] = [(float(s), 10 + 0.01 * s * (i + 1)) for s in range(steps)]
        history[f"train/{pair}/bias"] = [(float(s), -10 + 0.012 * s * (i + 1)) for s in range(steps)]
    return history
