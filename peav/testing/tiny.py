"""Tiny inputs of every kind, and ways to take them apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from peav.masking import lengths_to_mask
from peav.objectives.base import Objective
from peav.types import (
    CAPTION_TYPES,
    TRANSCRIPT,
    AudioInput,
    Batch,
    Embedding,
    EventInput,
    TextInput,
    VideoInput,
)

SAMPLE_RATE = 16000
_NUM_FRAMES = 10  # of tiny embeddings, 40 ms each


def tiny_text(num_rows: int, vocab_size: int = 32, length: int = 7, seed: int = 0) -> TextInput:
    """Makes random token ids for `num_rows` different texts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    mask = lengths_to_mask(torch.arange(num_rows) % (length - 2) + 3, length)
    ids = torch.randint(5, vocab_size, mask.shape, generator=generator) * mask
    present = torch.ones(num_rows, dtype=torch.bool)
    return TextInput(
        ids, mask, present, torch.arange(num_rows) + 100 * seed, tuple(f"text {i}" for i in range(num_rows))
    )


def tiny_events(num_clips: int, num_phrases: int = 3, every_kind: bool = False) -> EventInput:
    """Makes events for `num_clips` clips: clip i holds phrase i mod `num_phrases`, from 0.04 s to 0.2 s; the last clip is unknown.

    Args:
        num_clips: B.
        num_phrases: K, two at least with `every_kind`.
        every_kind: whether events and phrases say all that they may: every third event is weak, every second a soft label, and of every
            fifth it is said that it is absent; clips differ in their vocabularies, the second phrase lies under the first.

    >>> events = tiny_events(4, 2)
    >>> events.clip.tolist(), events.phrase.tolist(), events.annotated.tolist()
    ([0, 1, 2], [0, 1, 0], [True, True, True, False])
    """
    clip = torch.arange(num_clips - 1)
    annotated = torch.ones(num_clips, dtype=torch.bool)
    annotated[-1] = False
    events = EventInput(
        phrases=tiny_text(num_phrases, seed=9),
        annotated=annotated,
        clip=clip,
        phrase=clip % num_phrases,
        onset=torch.full((num_clips - 1,), 0.04),
        offset=torch.full((num_clips - 1,), 0.2),
    )
    if not every_kind:
        return events
    lineage = torch.full((num_phrases, 3), -1)
    lineage[:, 0] = events.phrases.group
    lineage[1, 2] = lineage[0, 0]
    absent = clip % 5 == 4
    return replace(
        events,
        confidence=torch.where(absent, 0.0, torch.where(clip % 2 == 0, 1.0, 0.6)),
        timed=(clip % 3 != 1) & ~absent,
        vocabulary=torch.tensor([-1, 0, -2])[torch.arange(num_clips) % 3],
        members=torch.ones(num_phrases, 1, dtype=torch.bool),
        lineage=lineage,
        bank=torch.zeros(num_phrases, dtype=torch.bool),
    )


def tiny_batch(
    num_clips: int = 4, vocab_size: int = 32, image_size: int = 32, seed: int = 0, sample_rate: int = SAMPLE_RATE
) -> Batch:
    """Makes a batch of random clips of different lengths, 0.375 s and more: audio, frames, three captions, a transcript, events."""
    generator = torch.Generator().manual_seed(seed)
    present = torch.ones(num_clips, dtype=torch.bool)
    samples = (torch.arange(num_clips) * 640 + 6000) * sample_rate // SAMPLE_RATE
    audio_mask = lengths_to_mask(samples)
    video_mask = lengths_to_mask(torch.arange(num_clips) % 3 + 3)
    audio = torch.randn(audio_mask.shape, generator=generator) * 0.1 * audio_mask
    shape = (*video_mask.shape, 3, image_size, image_size)
    frames = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    frames = frames * video_mask[..., None, None, None]
    rows = torch.arange(num_clips)
    return Batch(
        ids=tuple(f"clip-{i}" for i in range(num_clips)),
        audio=AudioInput(audio, audio_mask, present, rows, sample_rate),
        video=VideoInput(frames, video_mask, present, rows, torch.full((num_clips,), 0.5)),
        captions={
            kind: tiny_text(num_clips, vocab_size, seed=index + 1)
            for index, kind in enumerate((*CAPTION_TYPES, TRANSCRIPT))
        },
        events=tiny_events(num_clips),
        duration=samples / sample_rate,
    )


def tiny_embeddings(objective: Objective, num_clips: int = 6, dim: int = 8, seed: int = 0) -> dict[str, Embedding]:
    """Makes random unit embeddings in float64 for what an objective requires; frames of different lengths where it wants them.

    `features.NAME` has inputs of 12 channels, of which about half are hidden.
    """
    generator = torch.Generator().manual_seed(seed)
    embeddings = {}
    for index, name in enumerate(objective.requires):
        num_rows = 3 if name == "text_event" else num_clips
        pooled = torch.randn(num_rows, dim, generator=generator, dtype=torch.float64)
        frames = mask = None
        if name in objective.frames:
            mask = lengths_to_mask(torch.arange(num_rows) % 3 + _NUM_FRAMES - 2, _NUM_FRAMES)
            frames = torch.randn(num_rows, _NUM_FRAMES, dim, generator=generator, dtype=torch.float64)
            frames = torch.nn.functional.normalize(frames, dim=-1) * mask.unsqueeze(-1)
        embeddings[name] = Embedding(
            pooled=torch.nn.functional.normalize(pooled, dim=-1),
            present=torch.ones(num_rows, dtype=torch.bool),
            group=torch.arange(num_rows) + 1000 * index,
            frames=frames,
            mask=mask,
            frame_seconds=0.04 if frames is not None else None,
        )
        if name.startswith("features.") and mask is not None:
            inputs = torch.randn(*mask.shape, 12, generator=generator, dtype=torch.float64)
            hidden = (torch.rand(mask.shape, generator=generator) < 0.5) & mask
            embeddings[name] = replace(embeddings[name], inputs=inputs, hidden=hidden)
    return embeddings


def tiny_targets(objective: Objective, num_clips: int = 6) -> dict[str, Any]:
    """Makes the targets an objective declares, out of a tiny batch."""
    batch = tiny_batch(num_clips)
    return {target: batch.read(target) for target in objective.targets}
