"""Decoded clips to a padded, masked batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from peav.data.loading.decoding import DecodedClip, Replacement
from peav.data.loading.events import collate_events
from peav.data.loading.shared_buffers import SMALL_BYTES, pool
from peav.data.manifests.identities import ABSENT, text_group
from peav.data.manifests.labels import Labels
from peav.fields import Field
from peav.masking import lengths_to_mask
from peav.tokenizing import OneTokenizer, Tokenizers
from peav.types import (
    AudioInput,
    Batch,
    CachedFeatures,
    TextInput,
    TokenizeTexts,
    VideoInput,
    map_tensors,
)

#: The tokenizers of a model's encoders, or one for all texts.
Tokenize = Tokenizers | TokenizeTexts


def collate(
    clips: Sequence[DecodedClip],
    tokenize: Tokenize | None = None,
    fields: Mapping[str, Field] | None = None,
    labels: Labels | None = None,
) -> Batch:
    """Joins B clips into a batch; the fields that the clips carry are filled.

    What is absent is zero, masked out and not `present`, and its group is -1, also where no clip of the batch has it.

    Args:
        clips: at least one, all decoded for the same fields.
        tokenize: needed when the clips carry captions or events; picklable, for it runs in the workers.
        fields: those of the user's own kinds that the clips carry, by name.
        labels: vocabularies and ontology of the data set; none by default.

    Raises:
        LabelsError: if a clip names a vocabulary that the labels do not have.
        ValueError: if there is no clip, no tokenizer for texts, or a field of the user's own makes no batch of B rows.
    """
    if not clips:
        raise ValueError("a batch needs at least one clip, got none")
    first = clips[0]
    captions = {
        kind: tokenize_texts(f"captions.{kind}", [clip.captions[kind] for clip in clips], tokenize)
        for kind in first.captions
    }

    def phrases(texts: Sequence[str]) -> TextInput:
        return tokenize_texts("events", texts, tokenize)

    return Batch(
        ids=tuple(clip.id for clip in clips),
        audio=_audio(clips),
        video=_video(clips),
        captions=captions,
        events=None if first.annotated is None else collate_events(clips, labels or Labels(), phrases),
        duration=torch.tensor([clip.duration for clip in clips], dtype=torch.float32),
        extra={name: _own(clips, (fields or {})[name]) for name in first.own},
    )


class Collated(NamedTuple):
    """A batch, and the clips in it that stand for others."""

    batch: Batch
    replaced: tuple[Replacement, ...]


@dataclass(frozen=True)
class Collate:
    """`collate` with its tokenizer, fields and labels, picklable: what a data loader calls."""

    tokenize: Tokenize | None = None
    fields: Mapping[str, Field] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)

    def __call__(self, clips: Sequence[DecodedClip]) -> Collated:
        """Joins clips into a batch; a worker sends small tensors as arrays (`unpack_small`), others in a `BufferPool`."""
        if get_worker_info() is None:
            batch = collate(clips, self.tokenize, self.fields, self.labels)
        else:
            pool().begin()
            batch = map_tensors(pack_small(collate(clips, self.tokenize, self.fields, self.labels)), pool().share)
        return Collated(batch, tuple(item for clip in clips for item in clip.replaces))


def pack_small(batch: Batch) -> Batch:
    """Returns the batch with arrays in place of its small tensors: each tensor that leaves a worker costs a file and its mapping."""
    # numpy has no bfloat16, and a gradient would be lost; fields of the user's own may have either.
    return map_tensors(
        batch,
        lambda tensor: (
            tensor.numpy()
            if tensor.nbytes <= SMALL_BYTES and tensor.dtype != torch.bfloat16 and not tensor.requires_grad
            else tensor
        ),
    )


def unpack_small(batch: Batch) -> Batch:
    """Undoes `pack_small`."""
    return map_tensors(batch, torch.from_numpy, np.ndarray)


def tokenize_texts(field: str, texts: Sequence[str | None], tokenize: Tokenize | None) -> TextInput:
    """Tokenizes N texts of a batch field, None where one is absent; texts that are equal once normalised are of one group.

    Raises:
        ValueError: if there is no tokenizer, or it returns something else than ids and mask for each text.
    """
    if tokenize is None:
        raise ValueError("captions and events are read, but there is no tokenizer: give `tokenize`, or read neither")
    groups = [ABSENT if text is None else text_group(text) for text in texts]
    tokenizers = tokenize if isinstance(tokenize, Tokenizers) else OneTokenizer(tokenize)
    return tokenizers.tokenize(field, texts, groups)


def _own(clips: Sequence[DecodedClip], field: Field) -> Any:
    found = [clip.own[field.name] for clip in clips]
    present = torch.tensor([one is not None for one in found])
    group = torch.tensor([ABSENT if one is None else one[1] for one in found], dtype=torch.int64)
    made = field.collate([None if one is None else one[0] for one in found], present, group)
    for name in ("present", "group"):
        value = getattr(made, name, None)
        if not is_dataclass(made) or not isinstance(value, Tensor) or value.shape != (len(clips),):
            raise ValueError(
                f"field {field.name!r}: collate must return a dataclass whose `present` and `group` have {len(clips)} rows, one a clip, "
                f"not {type(made).__name__}"
            )
    return made


def _zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Returns zeros; in a worker they lie in memory that the main process sees, which saves a copy of the batch."""
    return pool().zeros(shape, dtype) if get_worker_info() is not None else torch.zeros(tuple(shape), dtype=dtype)


def _audio(clips: Sequence[DecodedClip]) -> AudioInput | CachedFeatures | None:
    present = torch.tensor([clip.has_audio for clip in clips])
    group = torch.tensor([clip.audio_group if clip.has_audio else ABSENT for clip in clips], dtype=torch.int64)
    made = [clip.audio_features for clip in clips if clip.audio_features is not None]
    if made:
        return _features(made, present, group, [clip.audio_seconds for clip in clips])
    waves = [clip.samples for clip in clips if clip.samples is not None]
    if not waves:
        return None
    lengths = torch.tensor([len(wave) for wave in waves])
    samples = _zeros((len(waves), max(1, int(lengths.max()))), torch.float32)
    mask = _zeros(samples.shape, torch.bool)
    for row, (wave, there) in enumerate(zip(waves, present.tolist(), strict=True)):
        samples[row, : len(wave)] = wave
        mask[row, : len(wave)] = there
    seeds = [clip.seed for clip in clips if clip.seed is not None]
    seed = torch.tensor(seeds, dtype=torch.int64) if len(seeds) == len(clips) else None
    return AudioInput(samples, mask, present, group, clips[0].sample_rate, seed)


def _video(clips: Sequence[DecodedClip]) -> VideoInput | CachedFeatures | None:
    present = torch.tensor([clip.has_video for clip in clips])
    group = torch.tensor([clip.video_group if clip.has_video else ABSENT for clip in clips], dtype=torch.int64)
    seconds = [clip.frame_seconds for clip in clips]
    made = [clip.video_features for clip in clips if clip.video_features is not None]
    if made:
        return _features(made, present, group, seconds)
    videos = [clip.frames for clip in clips if clip.frames is not None]
    if not videos:
        return None
    lengths = torch.tensor([len(video) for video in videos])
    frames = _zeros((len(videos), int(lengths.max()), *videos[0].shape[1:]), torch.uint8)
    for row, video in enumerate(videos):
        frames[row, : len(video)] = video
    mask = lengths_to_mask(torch.where(present, lengths, 0), frames.shape[1])
    return VideoInput(frames, mask, present, group, torch.tensor(seconds, dtype=torch.float32))


def _features(made: Sequence[Tensor], present: Tensor, group: Tensor, seconds: Sequence[float]) -> CachedFeatures:
    lengths = torch.tensor([len(values) for values in made])
    values = _zeros((len(made), max(1, int(lengths.max())), made[0].shape[1]), torch.float32)
    for row, one in enumerate(made):
        values[row, : len(one)] = one
    mask = lengths_to_mask(torch.where(present, lengths, 0), values.shape[1])
    return CachedFeatures(values, mask, present, group, torch.tensor(seconds, dtype=torch.float32))
