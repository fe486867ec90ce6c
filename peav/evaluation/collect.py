"""Runs a model over a split and keeps what evaluation needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from peav.data.manifests.identities import text_group
from peav.embedding_model import EmbeddingModel
from peav.evaluation.table import EmbeddingTable, Event, pad_frames
from peav.types import CAPTION_TYPES, Batch, EventInput, TextInput

#: Embeddings with one row a clip, made from its media (and, for the queries, its first caption).
CLIP_NAMES = ("audio", "video", "audio_video", "audio_plus_text", "video_plus_text")
_TEXTS_AT_ONCE = 256

TokenizeTexts = Callable[[Sequence[str]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ClipTexts:
    """All that was written about a clip.

    Attributes:
        id: the clip's id.
        captions: every caption by caption type.
        transcript: what is said, or None.
        events: (phrase, onset, offset) in seconds, or None when the clip is not annotated.
    """

    id: str
    captions: dict[str, list[str]] = field(default_factory=dict)
    transcript: str | None = None
    events: list[Event] | None = None


@dataclass(frozen=True)
class FrameScale:
    """The learned scale (not its log) and bias by which frame and phrase become a logit."""

    medium: str
    scale: float
    bias: float


@torch.no_grad()
def collect(
    model: EmbeddingModel,
    batches: Iterable[Batch],
    clips: Sequence[ClipTexts],
    tokenize: TokenizeTexts | None,
    frame_scale: FrameScale | None = None,
    device: torch.device | str = "cpu",
) -> EmbeddingTable:
    """Embeds a split: media by the batch, every caption, transcript and event phrase once.

    Args:
        model: in evaluation mode.
        batches: all clips of the split once, in any order.
        clips: their texts.
        tokenize: from texts to ids and mask; None for a model without text.
        frame_scale: of the frame objective; without it no frame-level part.
        device: where the model is.

    Raises:
        ValueError: if the batches and `clips` do not hold the same clips.
    """
    names = [name for name in CLIP_NAMES if name in model.embedding_names]
    medium = frame_scale.medium if frame_scale is not None else None
    place = {clip.id: index for index, clip in enumerate(clips)}
    embeddings: dict[str, list[Tensor]] = {name: [] for name in names}
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    groups: dict[str, list[Tensor]] = {name: [] for name in names}
    frames: list[Tensor] = [torch.zeros(0, model.embedding_dim)] * len(clips)
    hop: float | None = None
    seen: set[str] = set()
    for batch in batches:
        if unknown := set(batch.ids) - set(place):
            raise ValueError(f"clips {sorted(unknown)[:3]} are in the batches, but not in the manifest of the split")
        seen |= set(batch.ids)
        index = torch.tensor([place[clip] for clip in batch.ids])
        for name, output in model.embed_batch(batch.to(device), names, [medium] if medium else []).items():
            present = output.present.cpu()
            embeddings[name].append(output.pooled.float().cpu()[present])
            rows[name].append(index[present])
            groups[name].append(output.group.cpu()[present])
            if name == medium and output.frames is not None and output.mask is not None:
                hop = _one_hop(output.frame_seconds)
                for clip, sequence, mask in zip(
                    index.tolist(), output.frames.float().cpu(), output.mask.cpu(), strict=True
                ):
                    frames[clip] = sequence[mask]
    if missing := set(place) - seen:
        raise ValueError(
            f"{len(missing)} clips of the manifest were not in the batches, among them {sorted(missing)[:3]}"
        )
    table_embeddings = {name: torch.cat(parts) for name, parts in embeddings.items() if parts}
    table_rows = {name: torch.cat(parts) for name, parts in rows.items() if parts}
    table_groups = {name: torch.cat(parts) for name, parts in groups.items() if parts}
    texts: dict[str, list[str]] = {}
    for name, head, written in _texts(model, clips):
        if tokenize is None or not written:
            continue
        texts[name] = [text for _, text in written]
        table_embeddings[name] = _embed_texts(model, head, texts[name], tokenize, device)
        table_rows[name] = torch.tensor([clip for clip, _ in written])
        table_groups[name] = torch.tensor([text_group(text) for text in texts[name]])
    phrases = sorted({phrase for clip in clips for phrase, _, _ in clip.events or []})
    frame_level = frame_scale is not None and tokenize is not None and hop is not None and bool(phrases)
    padded, mask = pad_frames(frames)
    return EmbeddingTable(
        clip_ids=[clip.id for clip in clips],
        embeddings=table_embeddings,
        clips=table_rows,
        groups=table_groups,
        texts=texts,
        frames=padded if frame_level else None,
        frame_mask=mask if frame_level else None,
        frame_seconds=hop if frame_level else None,
        phrases=phrases if frame_level else [],
        text_event=_embed_texts(model, "text_event", phrases, tokenize, device) if frame_level and tokenize else None,
        events=[clip.events for clip in clips] if frame_level else None,
        logit_scale=frame_scale.scale if frame_scale is not None else None,
        logit_bias=frame_scale.bias if frame_scale is not None else None,
    )


def _one_hop(frame_seconds: Tensor | float | None) -> float:
    if frame_seconds is None:
        raise ValueError("the frames say no frame_seconds")
    hops = torch.as_tensor(frame_seconds).float().unique()
    if len(hops) != 1:
        raise ValueError(
            f"frame-level evaluation needs one frame rate for all clips, but the hops are {hops.tolist()[:5]} s"
        )
    return float(hops)


def _texts(model: EmbeddingModel, clips: Sequence[ClipTexts]) -> Iterable[tuple[str, str, list[tuple[int, str]]]]:
    """Yields name in the table, head, and (clip, text) of every caption and transcript."""
    for kind in CAPTION_TYPES:
        if f"text_{kind}" in model.embedding_names:
            written = [(index, text) for index, clip in enumerate(clips) for text in clip.captions.get(kind, [])]
            yield f"text_{kind}", f"text_{kind}", written
    # Transcripts stand in for audio captions (recipe.md, section 5).
    if "text_audio" in model.embedding_names:
        spoken = [(index, clip.transcript) for index, clip in enumerate(clips) if clip.transcript]
        yield "text_transcript", "text_audio", spoken


def _embed_texts(
    model: EmbeddingModel, name: str, texts: Sequence[str], tokenize: TokenizeTexts, device: torch.device | str
) -> Tensor:
    parts = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        some = tuple(texts[start : start + _TEXTS_AT_ONCE])
        ids, mask = tokenize(some)
        rows = torch.arange(len(some))
        text = TextInput(ids, mask, torch.ones(len(some), dtype=torch.bool), rows, some)
        if name == "text_event":
            nothing, index = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
            events = EventInput(text, torch.zeros(0, dtype=torch.bool), index, index, nothing, nothing)
            batch = Batch(ids=(), events=events)
        else:
            batch = Batch(ids=some, captions={name.removeprefix("text_"): text})
        parts.append(model.embed_batch(batch.to(device), [name])[name].pooled.float().cpu())
    return torch.cat(parts)
