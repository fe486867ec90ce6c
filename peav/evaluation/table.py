"""What a model made of a split: embeddings on the CPU, the clip each row belongs to, and the true sound events."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from peav.checkpoints.detection import DetectionSettings
from peav.data.manifests.identities import distinct_texts
from peav.types import Seconds

#: (phrase, onset, offset), seconds from the start of the clip.
Event = tuple[str, Seconds, Seconds]


class FramePart(NamedTuple):
    """What a table with frames holds of them; see `EmbeddingTable`."""

    frames: Sequence[Tensor]
    phrases: list[str]
    text_event: Tensor
    events: list[list[Event] | None]
    known: Tensor | None
    frame_seconds: Seconds


@dataclass(frozen=True)
class EmbeddingTable:
    """Embeddings of the M clips of a split. A clip has no row, one row, or (captions) several rows under a name.

    Attributes:
        clip_ids: the M clips' ids, all different.
        embeddings: (N, D) float by name: the model's embedding names, and transcripts; N differs from name to name, D does
            not.
        clips: (N,) int64 by name, the clip each row belongs to.
        groups: (N,) int64 by name, identity of the input: equal for equal captions, equal for equal media.
        texts: the N captions by name, for the names that are made of a text alone.
        pairs: the (left, right) names that the objectives train to agree, beyond those that every evaluation looks at.
        frames: each clip's frames (T, D) in the space of `text_event`, T = 0 for a clip without them; None without
            frame-level model.
        frame_seconds: time between two frames.
        phrases: the K distinct event phrases; distinct as training compares them (`peav.data.manifests.identities`).
        text_event: (K, D) their embeddings.
        events: each clip's events; None for a clip that is not annotated, [] for one that is known to be free of
            events.
        known: (M, K) bool, of which phrases it is known in a clip when they are heard: without an event they are absent, and the others
            are left out there. None: of all, in every clip that is annotated.
        logit_scale: scale of the frame objective, already exponentiated; positive. Or that of each phrase.
        logit_bias: its bias, or that of each phrase. With both, sigmoid(scale * dot + bias) is the probability of an event in a frame.
        detection: the settings that were tuned for the model and are stored with it; None without any.

    Raises:
        ValueError: if names, shapes, clips or events do not fit together, or an embedding is not finite.
    """

    clip_ids: list[str]
    embeddings: dict[str, Tensor]
    clips: dict[str, Tensor]
    groups: dict[str, Tensor]
    texts: dict[str, list[str]] = field(default_factory=dict)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    frames: Sequence[Tensor] | None = None
    frame_seconds: Seconds | None = None
    phrases: list[str] = field(default_factory=list)
    text_event: Tensor | None = None
    events: list[list[Event] | None] | None = None
    known: Tensor | None = None
    logit_scale: float | list[float] | None = None
    logit_bias: float | list[float] | None = None
    detection: DetectionSettings | None = None

    def __post_init__(self) -> None:
        if len(set(self.clip_ids)) != len(self.clip_ids):
            raise ValueError("clip_ids are not all different")
        _check_rows(self)
        if self.frames is not None:
            _check_frames(self)
            if self.known is not None:
                _check_known(self, self.known)

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def has_frames(self) -> bool:
        """Whether frame-level scores can be computed and at least one clip is annotated."""
        return self.frames is not None and any(events is not None for events in self.events or [])

    @property
    def is_calibrated(self) -> bool:
        """Whether scores of frames have a scale and a bias, so that they are logits of probabilities."""
        return self.logit_scale is not None and self.logit_bias is not None

    @property
    def frame_part(self) -> FramePart:
        """What is needed for frame-level scores.

        Raises:
            ValueError: if the table has no frames.
        """
        if self.frames is None:
            raise ValueError("the table has no frame embeddings")
        if self.text_event is None or self.events is None or self.frame_seconds is None:
            raise ValueError("frames need frame_seconds, phrases, text_event and events as well")
        return FramePart(self.frames, self.phrases, self.text_event, self.events, self.known, self.frame_seconds)

    def save(self, path: str | Path) -> None:
        """Writes the table as one safetensors file whose metadata is JSON."""
        tensors = {f"embeddings/{name}": value.contiguous() for name, value in self.embeddings.items()}
        tensors |= {f"clips/{name}": value.contiguous() for name, value in self.clips.items()}
        tensors |= {f"groups/{name}": value.contiguous() for name, value in self.groups.items()}
        if self.frames is not None and self.text_event is not None:
            tensors["frames"] = torch.cat(list(self.frames))
            tensors["frame_lengths"] = torch.tensor([len(frames) for frames in self.frames])
            tensors["text_event"] = self.text_event.contiguous()
        if self.known is not None:
            tensors["known"] = self.known.contiguous()
        meta = {name: getattr(self, name) for name in _JSON_FIELDS}
        meta["detection"] = None if self.detection is None else asdict(self.detection)
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
        meta["pairs"] = [(left, right) for left, right in meta.get("pairs", [])]
        if "frame_mask" in single:  # written before frames were kept without their padding
            mask = single.pop("frame_mask")
            single["frames"] = [frames[valid] for frames, valid in zip(single["frames"], mask, strict=True)]
        elif "frames" in single:
            single["frames"] = single["frames"].split(single.pop("frame_lengths").tolist())
        if meta["events"] is not None:
            meta["events"] = [None if e is None else [(p, on, off) for p, on, off in e] for e in meta["events"]]
        if meta.get("detection") is not None:
            meta["detection"] = DetectionSettings.from_dict(meta["detection"])
        return cls(**parts, **single, **meta)


_JSON_FIELDS = ("clip_ids", "texts", "pairs", "frame_seconds", "phrases", "events", "logit_scale", "logit_bias")


def _check_rows(table: EmbeddingTable) -> None:
    dims = set()
    for name, value in table.embeddings.items():
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
    for pair in table.pairs:
        if unknown := set(pair) - set(table.embeddings):
            raise ValueError(f"pairs name {sorted(unknown)}, which have no embeddings")
    for name, texts in table.texts.items():
        if len(texts) != len(table.embeddings[name]):
            raise ValueError(f"{name}: {len(texts)} texts for {len(table.embeddings[name])} rows")


def _check_frames(table: EmbeddingTable) -> None:
    frames, _, phrases, clip_events, _, frame_seconds = table.frame_part
    num_clips = len(table.clip_ids)
    if len(frames) != num_clips:
        raise ValueError(f"frames of {len(frames)} clips, but there are {num_clips}")
    if phrases.ndim != 2 or len(phrases) != len(table.phrases):
        raise ValueError(f"expected text_event ({len(table.phrases)}, D), got {tuple(phrases.shape)}")
    _check_finite("text_event", phrases)
    for clip, sequence in zip(table.clip_ids, frames, strict=True):
        if sequence.ndim != 2 or sequence.shape[1] != phrases.shape[1]:
            raise ValueError(f"clip {clip!r}: expected frames (T, {phrases.shape[1]}), got {tuple(sequence.shape)}")
        _check_finite("frames", sequence)
    if len(distinct_texts(table.phrases)[0]) != len(table.phrases):
        raise ValueError(
            "phrases are not all different: case, spaces and punctuation at the end do not tell them apart"
        )
    if not frame_seconds > 0:
        raise ValueError(f"frame_seconds must be positive, got {frame_seconds}")
    for name, value in (("logit_scale", table.logit_scale), ("logit_bias", table.logit_bias)):
        if isinstance(value, list) and len(value) != len(table.phrases):
            raise ValueError(
                f"{name} must be one number or one a phrase, got {len(value)} for {len(table.phrases)} phrases"
            )
    scales = table.logit_scale if isinstance(table.logit_scale, list) else [table.logit_scale]
    if any(scale is not None and not scale > 0 for scale in scales):
        raise ValueError(f"logit_scale must be positive (is it still a logarithm?), got {table.logit_scale}")
    if len(clip_events) != num_clips:
        raise ValueError(f"events for {len(clip_events)} clips, but there are {num_clips}")
    known = set(table.phrases)
    for clip, events in zip(table.clip_ids, clip_events, strict=True):
        for phrase, onset, offset in events or []:
            if phrase not in known:
                raise ValueError(f"clip {clip!r} has an event {phrase!r} that is not among the phrases")
            if not (math.isfinite(onset) and math.isfinite(offset) and onset <= offset):
                raise ValueError(f"clip {clip!r}: event {phrase!r} runs from {onset} to {offset} s")


def _check_known(table: EmbeddingTable, known: Tensor) -> None:
    if known.shape != (len(table), len(table.phrases)) or known.dtype != torch.bool:
        got = f"{known.dtype} {tuple(known.shape)}"
        raise ValueError(f"expected known bool ({len(table)}, {len(table.phrases)}), got {got}")
    for clip, events, of_clip in zip(table.clip_ids, table.frame_part.events, known.tolist(), strict=True):
        if events is None:
            continue  # nothing is read of a clip that is not annotated
        unknown = {phrase for phrase, is_known in zip(table.phrases, of_clip, strict=True) if not is_known}
        for phrase, _, _ in events:
            if phrase in unknown:
                raise ValueError(f"clip {clip!r} has an event {phrase!r}, but it is said not to be known there")


def _check_finite(name: str, value: Tensor) -> None:
    if value.device.type != "cpu":
        raise ValueError(f"{name} lies on {value.device}; a table lives on the CPU")
    # A part at a time: the whole may be larger than the memory.
    if not all(bool(torch.isfinite(part).all()) for part in value.split(1 << 16)):
        raise ValueError(f"{name} holds values that are not finite")
