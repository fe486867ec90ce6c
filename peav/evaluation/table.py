"""What a model made of a split: embeddings on the CPU, the clip each row belongs to, and the true sound events."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from peav.masking import lengths_to_mask
from peav.types import EMBEDDING_NAMES, Seconds

#: Names a table may hold: the embeddings of a model except the event phrases, and transcripts embedded by the
#: `text_audio` head.
TABLE_NAMES = (*(name for name in EMBEDDING_NAMES if name != "text_event"), "text_transcript")

#: (phrase, onset, offset), seconds from the start of the clip.
Event = tuple[str, Seconds, Seconds]


@dataclass(frozen=True)
class EmbeddingTable:
    """Embeddings of the M clips of a split. A clip has no row, one row, or (captions) several rows under a name.

    Attributes:
        clip_ids: the M clips' ids, all different.
        embeddings: (N, D) float by name, one of `TABLE_NAMES`; N differs from name to name, D does not.
        clips: (N,) int64 by name, the clip each row belongs to.
        groups: (N,) int64 by name, identity of the input: equal for equal captions, equal for equal media.
        texts: the N captions by name, for the `text_*` names.
        frames: (M, T, D) audio frames in the space of `text_event`, or None without frame-level model.
        frame_mask: (M, T) bool, all False for a clip without audio.
        frame_seconds: time between two frames.
        phrases: the K distinct event phrases.
        text_event: (K, D) their embeddings.
        events: each clip's events; None for a clip that is not annotated, [] for one that is known to be free of
            events.
        logit_scale: scale of the frame objective, already exponentiated; positive.
        logit_bias: its bias. With both, sigmoid(scale * dot + bias) is the probability of an event in a frame.

    Raises:
        ValueError: if names, shapes, clips or events do not fit together, or an embedding is not finite.
    """

    clip_ids: list[str]
    embeddings: dict[str, Tensor]
    clips: dict[str, Tensor]
    groups: dict[str, Tensor]
    texts: dict[str, list[str]] = field(default_factory=dict)
    frames: Tensor | None = None
    frame_mask: Tensor | None = None
    frame_seconds: Seconds | None = None
    phrases: list[str] = field(default_factory=list)
    text_event: Tensor | None = None
    events: list[list[Event] | None] | None = None
    logit_scale: float | None = None
    logit_bias: float | None = None

    def __post_init__(self) -> None:
        if len(set(self.clip_ids)) != len(self.clip_ids):
            raise ValueError("clip_ids are not all different")
        _check_rows(self)
        if self.frames is not None:
            _check_frames(self)

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def has_frames(self) -> bool:
        """Whether frame-level scores can be computed and at least one clip is annotated."""
        return self.frames is not None and any(events is not None for events in self.events or [])

    def rows_of(self, name: str, clip: int) -> list[int]:
        """Returns the rows of clip number `clip` under `name`; empty where the clip lacks it."""
        if name not in self.clips:
            return []
        return torch.nonzero(self.clips[name] == clip).flatten().tolist()

    def save(self, path: str | Path) -> None:
        """Writes the table as one safetensors file whose metadata is JSON."""
        tensors = {f"embeddings/{name}": value.contiguous() for name, value in self.embeddings.items()}
        tensors |= {f"clips/{name}": value.contiguous() for name, value in self.clips.items()}
        tensors |= {f"groups/{name}": value.contiguous() for name, value in self.groups.items()}
        for name in ("frames", "frame_mask", "text_event"):
            if (value := getattr(self, name)) is not None:
                tensors[name] = value.contiguous()
        meta = {name: getattr(self, name) for name in _JSON_FIELDS}
        save_file(tensors, str(path), metadata={"table": json.dumps(meta)})

    @classmethod
    def load(cls, path: str | Path) -> EmbeddingTable:
        """Reads what `save` wrote.

        Raises:
            ValueError: if the file is not an embedding table.
        """
        parts: dict[str, Any] = {"embeddings": {}, "clips": {}, "groups": {}}
        single: dict[str, Any] = {}
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if "table" not in metadata:
                raise ValueError(f"{path} is not an embedding table: its metadata holds no 'table'")
            for key in file.keys():  # noqa: SIM118 - a safetensors handle is not a mapping
                part, _, name = key.partition("/")
                if name:
                    parts[part][name] = file.get_tensor(key)
                else:
                    single[part] = file.get_tensor(key)
        meta = json.loads(metadata["table"])
        if meta["events"] is not None:
            meta["events"] = [None if e is None else [(p, on, off) for p, on, off in e] for e in meta["events"]]
        return cls(**parts, **single, **meta)


_JSON_FIELDS = ("clip_ids", "texts", "frame_seconds", "phrases", "events", "logit_scale", "logit_bias")


def pad_frames(frames: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stacks the clips' frames, each (T_i, D), into padded frames (M, T, D) and their mask (M, T).

    >>> frames, mask = pad_frames([torch.ones(2, 4), torch.ones(0, 4)])
    >>> frames.shape, mask.tolist()
    (torch.Size([2, 2, 4]), [[True, True], [False, False]])
    """
    padded = pad_sequence(list(frames), batch_first=True)
    return padded, lengths_to_mask(torch.tensor([len(f) for f in frames]), padded.shape[1])


def _check_rows(table: EmbeddingTable) -> None:
    dims = set()
    for name, value in table.embeddings.items():
        if name not in TABLE_NAMES:
            raise ValueError(f"unknown embedding {name!r}; a table holds {', '.join(TABLE_NAMES)}")
        if value.ndim != 2 or not value.is_floating_point():
            raise ValueError(
                f"{name}: expected floating-point embeddings (N, D), got {value.dtype} {tuple(value.shape)}"
            )
        _check_finite(name, value)
        dims.add(value.shape[1])
        for what, rows in (("clips", table.clips), ("groups", table.groups)):
            if name not in rows:
                raise ValueError(f"{name}: no {what} given")
            if rows[name].shape != value.shape[:1] or rows[name].dtype != torch.int64:
                got = f"{rows[name].dtype} {tuple(rows[name].shape)}"
                raise ValueError(f"{name}: expected {what} int64 ({len(value)},), got {got}")
        clips = table.clips[name]
        if len(clips) and not 0 <= int(clips.min()) <= int(clips.max()) < len(table.clip_ids):
            raise ValueError(f"{name}: clips lie outside 0..{len(table.clip_ids) - 1}")
    if len(dims) > 1:
        raise ValueError(f"embeddings of different dimensions cannot be compared: {sorted(dims)}")
    for what, names in (("clips", table.clips), ("groups", table.groups), ("texts", table.texts)):
        if extra := set(names) - set(table.embeddings):
            raise ValueError(f"{what} given for {sorted(extra)}, which have no embeddings")
    for name, texts in table.texts.items():
        if len(texts) != len(table.embeddings[name]):
            raise ValueError(f"{name}: {len(texts)} texts for {len(table.embeddings[name])} rows")


def _check_frames(table: EmbeddingTable) -> None:
    frames, mask, phrases = table.frames, table.frame_mask, table.text_event
    if frames is None or mask is None or phrases is None or table.frame_seconds is None or table.events is None:
        raise ValueError("frames need frame_mask, frame_seconds, phrases, text_event and events as well")
    num_clips = len(table.clip_ids)
    if frames.ndim != 3 or len(frames) != num_clips or mask.shape != frames.shape[:2] or mask.dtype != torch.bool:
        shapes = f"frames {tuple(frames.shape)}, frame_mask {mask.dtype} {tuple(mask.shape)}"
        raise ValueError(f"expected frames ({num_clips}, T, D) and a bool frame_mask ({num_clips}, T), got {shapes}")
    if phrases.shape != (len(table.phrases), frames.shape[2]):
        expected = (len(table.phrases), frames.shape[2])
        raise ValueError(f"expected text_event {expected}, got {tuple(phrases.shape)}")
    _check_finite("text_event", phrases)
    _check_finite("frames", frames[mask])
    if len(set(table.phrases)) != len(table.phrases):
        raise ValueError("phrases are not all different")
    if not table.frame_seconds > 0:
        raise ValueError(f"frame_seconds must be positive, got {table.frame_seconds}")
    if table.logit_scale is not None and not table.logit_scale > 0:
        raise ValueError(f"logit_scale must be positive (is it still a logarithm?), got {table.logit_scale}")
    if len(table.events) != num_clips:
        raise ValueError(f"events for {len(table.events)} clips, but there are {num_clips}")
    known = set(table.phrases)
    for clip, events in zip(table.clip_ids, table.events, strict=True):
        for phrase, onset, offset in events or []:
            if phrase not in known:
                raise ValueError(f"clip {clip!r} has an event {phrase!r} that is not among the phrases")
            if not (math.isfinite(onset) and math.isfinite(offset) and onset <= offset):
                raise ValueError(f"clip {clip!r}: event {phrase!r} runs from {onset} to {offset} s")


def _check_finite(name: str, value: Tensor) -> None:
    if value.device.type != "cpu":
        raise ValueError(f"{name} lies on {value.device}; a table lives on the CPU")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} holds values that are not finite")
