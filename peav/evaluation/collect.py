"""Runs a model over a split and keeps what evaluation needs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from peav.data.manifests.identities import distinct_texts, text_group
from peav.embedding_model import EmbeddingModel
from peav.evaluation.table import EmbeddingTable, Event
from peav.objectives.text_score import TextScore
from peav.tokenizing import OneTokenizer, Tokenizers
from peav.types import TRANSCRIPT, Batch, EventInput, TokenizeTexts

log = logging.getLogger(__name__)

#: Transcripts stand in for audio captions (recipe.md, section 5): what the table calls those that the `text_audio` head embeds, and
#: what it calls them where the model has an embedding of its own under the first name, unless that one reads transcripts too.
TRANSCRIPTS = ("text_transcript", "text_audio_of_transcript")
_TEXTS_AT_ONCE = 256


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

    def texts(self, field: str) -> list[str]:
        """Returns the texts of a field of a batch: captions of a type, or what is said."""
        kind = field.removeprefix("captions.")
        if kind == TRANSCRIPT:
            return [self.transcript] if self.transcript else []
        return self.captions.get(kind, [])


@dataclass(frozen=True)
class FrameScale:
    """Which frames are compared with which phrases, and how that becomes a logit.

    Attributes:
        frames: name of the embedding whose frames are compared.
        phrases: name of the embedding of the phrases.
        scale: the learned scale (not its log); None where none is declared.
        bias: the learned bias, likewise.
        by_phrase: what makes the scale and bias of each phrase, in place of both.
    """

    frames: str
    phrases: str
    scale: float | None = None
    bias: float | None = None
    by_phrase: TextScore | None = None


@torch.no_grad()
def collect(
    model: EmbeddingModel,
    batches: Iterable[Batch],
    clips: Sequence[ClipTexts],
    tokenize: Tokenizers | TokenizeTexts | None,
    frame_scale: FrameScale | None = None,
    device: torch.device | str = "cpu",
    pairs: Sequence[tuple[str, str]] = (),
) -> EmbeddingTable:
    """Embeds a split: media by the batch, every caption, transcript and event phrase once.

    What an embedding is made of says how: of captions of one type alone, it has a row a caption; of anything else, a row a clip.

    Args:
        model: in evaluation mode.
        batches: all clips of the split once, in any order.
        clips: their texts.
        tokenize: from texts to ids and mask; None for a model without text.
        frame_scale: of the frame objective; without it no frame-level part.
        device: where the model is.
        pairs: the pairs of embeddings that the objectives train.

    Raises:
        ValueError: if the batches and `clips` do not hold the same clips.
    """
    text_fields = {name: _text_field(model, name) for name in model.embedding_names}
    names = [name for name, source in text_fields.items() if source is None]
    medium = frame_scale.frames if frame_scale is not None else None
    if frame_scale is not None and (medium not in names or text_fields.get(frame_scale.phrases) is None):
        raise ValueError(
            f"frames of {frame_scale.frames!r} are compared with {frame_scale.phrases!r}: the first must be an embedding made of media, "
            "the second one made of texts alone (`Objective.frame_pair`)"
        )
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
                hop = _one_hop(output.frame_seconds, hop)
                valid = output.mask.cpu() & present[:, None]
                for clip, sequence, mask in zip(index.tolist(), output.frames.float().cpu(), valid, strict=True):
                    frames[clip] = sequence[mask]
    if missing := set(place) - seen:
        raise ValueError(
            f"{len(missing)} clips of the manifest were not in the batches, among them {sorted(missing)[:3]}"
        )
    table_embeddings = {name: torch.cat(parts) for name, parts in embeddings.items() if parts}
    table_rows = {name: torch.cat(parts) for name, parts in rows.items() if parts}
    table_groups = {name: torch.cat(parts) for name, parts in groups.items() if parts}
    texts: dict[str, list[str]] = {}
    trained = list(pairs)
    for name, head, written in _texts(text_fields, clips):
        if not tokenize or not written:
            continue
        texts[name] = [text for _, text in written]
        table_embeddings[name] = _embed_texts(model, head, texts[name], tokenize, device)
        table_rows[name] = torch.tensor([clip for clip, _ in written])
        table_groups[name] = torch.tensor([text_group(text) for text in texts[name]])
        if name == TRANSCRIPTS[1]:
            trained.append(("audio", name))
    for left, right in trained:
        if absent := [name for name in (left, right) if name not in table_embeddings]:
            log.warning("%s x %s is not evaluated: no clip of the split has %s", left, right, " or ".join(absent))
    table = EmbeddingTable(
        clip_ids=[clip.id for clip in clips],
        embeddings=table_embeddings,
        clips=table_rows,
        groups=table_groups,
        texts=texts,
        pairs=[pair for pair in trained if set(pair) <= set(table_embeddings)],
    )
    events, phrases = _events(clips)
    if frame_scale is None or not tokenize or hop is None or not phrases:
        return table
    text_event = _embed_texts(model, frame_scale.phrases, phrases, tokenize, device)
    scale: float | list[float] | None = frame_scale.scale
    bias: float | list[float] | None = frame_scale.bias
    if frame_scale.by_phrase is not None:
        scale, bias = (value.tolist() for value in frame_scale.by_phrase(text_event.to(frame_scale.by_phrase.device)))
    return replace(
        table,
        frames=frames,
        frame_seconds=hop,
        phrases=phrases,
        text_event=text_event,
        events=events,
        logit_scale=scale,
        logit_bias=bias,
    )


def _events(clips: Sequence[ClipTexts]) -> tuple[list[list[Event] | None], list[str]]:
    """Returns the clips' events, and their distinct phrases in order, each as it was first written: as in training."""
    written = [phrase for clip in clips for phrase, _, _ in clip.events or []]
    found, places = distinct_texts(written)
    names = iter([found[place] for place in places])
    events = [
        None if clip.events is None else [(next(names), onset, offset) for _, onset, offset in clip.events]
        for clip in clips
    ]
    return events, sorted(found)


def _one_hop(frame_seconds: Tensor | float | None, before: float | None) -> float:
    if frame_seconds is None:
        raise ValueError("the frames say no frame_seconds")
    hops = torch.as_tensor(frame_seconds).float().flatten().cpu().unique().tolist()
    if before is not None:
        hops = sorted({*hops, before})
    if len(hops) != 1:
        raise ValueError(f"frame-level evaluation needs one frame rate for all clips, but the hops are {hops[:5]} s")
    return float(hops[0])


def _text_field(model: EmbeddingModel, name: str) -> str | None:
    """Returns the one field of a batch that an embedding is made of, where that is texts alone: captions of a type, or the phrases."""
    fields = model.fields_for([name])
    source = next(iter(fields), "")
    return source if len(fields) == 1 and (source.startswith("captions.") or source == "events") else None


def _texts(
    text_fields: Mapping[str, str | None], clips: Sequence[ClipTexts]
) -> Iterable[tuple[str, str, list[tuple[int, str]]]]:
    """Yields name in the table, head, and (clip, text) of every caption and transcript."""
    for name, source in text_fields.items():
        if source is not None and source.startswith("captions."):
            yield name, name, [(index, text) for index, clip in enumerate(clips) for text in clip.texts(source)]
    said = f"captions.{TRANSCRIPT}"
    if text_fields.get("text_audio") is not None and text_fields.get(TRANSCRIPTS[0]) != said:
        spoken = [(index, text) for index, clip in enumerate(clips) for text in clip.texts(said)]
        yield next(name for name in TRANSCRIPTS if name not in text_fields), "text_audio", spoken


def _embed_texts(
    model: EmbeddingModel,
    name: str,
    texts: Sequence[str],
    tokenize: Tokenizers | TokenizeTexts,
    device: torch.device | str,
) -> Tensor:
    source = _text_field(model, name)
    if source is None:
        raise ValueError(f"phrases are embedded as {name!r}, which is not made of texts alone")
    parts = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        some = tuple(texts[start : start + _TEXTS_AT_ONCE])
        tokenizers = tokenize if isinstance(tokenize, Tokenizers) else OneTokenizer(tokenize)
        text = tokenizers.tokenize(source, some)
        if source == "events":
            nothing, index = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
            events = EventInput(text, torch.zeros(0, dtype=torch.bool), index, index, nothing, nothing)
            batch = Batch(ids=(), events=events)
        else:
            batch = Batch(ids=some, captions={source.removeprefix("captions."): text})
        parts.append(model.embed_batch(batch.to(device), [name])[name].pooled.float().cpu())
    return torch.cat(parts)
