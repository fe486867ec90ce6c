"""What evaluation asks of a model, and how peav's own models answer; those of other families do in `peav.evaluation.adapters`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from peav.checkpoints import FRAME_PAIR, DetectionSettings, MediaSettings, Pair
from peav.data.loading.collate import collate
from peav.data.loading.decoding import DecodedClip, DecodeSettings
from peav.digest import model_digest
from peav.embedding_model import EmbeddingModel
from peav.fields import build_fields
from peav.inputs.detection_rules import detection_windows
from peav.inputs.running import Precision, computes_in_half, evaluating
from peav.types import Batch, Embedding, EventInput, Seconds

#: Transcripts stand in for audio captions (recipe.md, section 5): what the table calls those that the `text_audio` head embeds, and
#: what it calls them where the model has an embedding of its own under the first name, unless that one reads transcripts too.
TRANSCRIPTS = ("text_transcript", "text_audio_of_transcript")


@dataclass(frozen=True)
class FrameScale:
    """Which frames are compared with which phrases, and how that becomes a logit.

    Attributes:
        frames: name of the embedding whose frames are compared.
        phrases: name of the embedding of the phrases.
        scale: the learned scale (not its log); None where none is declared.
        bias: the learned bias, likewise.
        by_phrase: what makes the scale and bias (K,) of phrases (K, D), in place of both.
    """

    frames: str
    phrases: str
    scale: float | None = None
    bias: float | None = None
    by_phrase: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    @torch.no_grad()
    def of(self, phrases: Tensor) -> tuple[float | list[float] | None, float | list[float] | None]:
        """Returns the scale and the bias, one for all phrases (K, D) or one a phrase."""
        if self.by_phrase is None:
            return self.scale, self.bias
        scale, bias = self.by_phrase(phrases)
        return scale.tolist(), bias.tolist()


@dataclass(frozen=True)
class ClipOutput:
    """What a model makes of a clip, on the CPU.

    Attributes:
        pooled: (D,) by the name of the embedding; only those that the clip's media and texts allow.
        groups: identity of what each of them was made of, by name.
        frames: (T, D) without padding, by name.
        frame_seconds: the time between two frames, by name.
        problem: why the clip could not be decoded; "" where it could.
    """

    pooled: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    frames: dict[str, Tensor] = field(default_factory=dict)
    frame_seconds: dict[str, Seconds] = field(default_factory=dict)
    problem: str = ""


class EvaluatedModel(ABC):
    """A model as evaluation sees it: what it embeds, what a clip must look like, and the embeddings.

    Attributes:
        name: what reports call it.
        kind: `peav`, or the adapter's name.
        digest: of everything that its embeddings depend on: what it is, and its weights.
        dim: D of its space.
        normalize: whether its embeddings have unit length; the mean over the windows of a long clip then gets it, too.
        settings: how clips are decoded for it.
        precision: `fp32` or `bf16`.
        media_names: embeddings that a clip has one of: those made of media, and those of a medium and a text.
        text_fields: embeddings made of texts alone, with the field of a batch that they read: `captions.TYPE` or `events`.
        fields: fields of a batch that are decoded for `media_names`.
        pairs: embeddings that it was trained to make agree.
        frame_scale: how its frames are compared with phrases; None where it makes none.
        detection: how it finds sounds by name, where that was tuned.
        frame_windows: longer clips are heard frame by frame in windows of so many seconds, which share so many; None for whole clips.
        started_from: file, folder or repository from which its training went on, where it says so.
    """

    name: str
    kind: str
    digest: str
    dim: int
    normalize: bool
    settings: DecodeSettings
    precision: Precision
    media_names: tuple[str, ...]
    text_fields: Mapping[str, str]
    fields: frozenset[str]
    pairs: tuple[Pair, ...] = ()
    frame_scale: FrameScale | None = None
    detection: DetectionSettings | None = None
    frame_windows: tuple[Seconds | None, Seconds] = (None, 0.0)
    started_from: str | None = None
    field_options: Mapping[str, Mapping[str, Any]] | None = None

    @abstractmethod
    def embed_clips(self, clips: Sequence[DecodedClip]) -> list[ClipOutput]:
        """Embeds decoded clips, or windows of them."""

    @abstractmethod
    def embed_texts(self, name: str, texts: Sequence[str]) -> Tensor:
        """Embeds N texts by the head called `name`: (N, D) float32 on the CPU."""

    def embed_frames(self, clips: Sequence[DecodedClip]) -> list[ClipOutput]:
        """Embeds the frames of the windows of long clips, of which the sound alone is decoded; asked where there are `frame_windows`."""
        return self.embed_clips(clips)

    def frame_hop(self) -> Seconds:
        """Returns the time between two frames, on which windows must start."""
        silence = torch.zeros(self.settings.sample_rate)
        clip = DecodedClip("silence", 1.0, self.settings.sample_rate, silence, None, True, 0)
        return max(self.embed_frames([clip])[0].frame_seconds.values())

    @property
    def said_name(self) -> str | None:
        """What transcripts are called that the `text_audio` head embeds; None where it has none, or a head of its own reads them."""
        said = "captions.transcript"
        if "text_audio" not in self.text_fields or self.text_fields.get(TRANSCRIPTS[0]) == said:
            return None
        return next(name for name in TRANSCRIPTS if name not in self.text_fields)

    def describe(self) -> dict[str, Any]:
        """Returns what a result says of the model."""
        return {"name": self.name, "kind": self.kind, "digest": self.digest, "normalize": self.normalize}


class PeavModel(EvaluatedModel):
    """A model of peav's, in any of its formats.

    Args:
        model: it.
        name: what reports call it.
        pairs: that it was trained on; those whose scale and bias it holds by default.
        frame_scale: how frames are compared with phrases; by default as a frame-level model of PE-A-Frame's kind holds it.
        settings: how clips are decoded; the model's own `media` by default.
        field_options: arguments of fields of the user's own kinds.
        precision: `auto`, `fp32` or `bf16`.

    Raises:
        ValueError: if frames are to be compared with what is not made of texts alone, or the model does not say which frames it takes.
    """

    kind = "peav"

    def __init__(
        self,
        model: EmbeddingModel,
        name: str = "model",
        pairs: Collection[Pair] | None = None,
        frame_scale: FrameScale | None = None,
        settings: DecodeSettings | None = None,
        field_options: Mapping[str, Mapping[str, Any]] | None = None,
        precision: Precision = "auto",
    ) -> None:
        self.model, self.name = model.eval(), name
        self.dim, self.normalize = model.embedding_dim, model.normalize
        self.settings = settings if settings is not None else decode_settings(model.media)
        device = next(model.parameters()).device
        self.precision: Precision = "bf16" if computes_in_half(device, precision) else "fp32"
        sources = {name: text_field(model, name) for name in model.embedding_names}
        self.text_fields = {name: source for name, source in sources.items() if source is not None}
        self.tokenizers = model.tokenizers()
        if not self.tokenizers:
            self.text_fields = {}
        self.media_names = tuple(name for name, source in sources.items() if source is None)
        self.field_options = field_options
        # What embeddings of media read; a model without a tokenizer makes nothing of a medium and a text.
        if not self.tokenizers:
            self.media_names = tuple(n for n in self.media_names if not any(map(_is_words, model.fields_for([n]))))
        self.fields = model.fields_for(self.media_names) if self.media_names else frozenset()
        self.own_fields = build_fields(self.fields, field_options)
        self.pairs = tuple(pairs) if pairs is not None else tuple(pair for pair in model.pairs if pair != FRAME_PAIR)
        self.frame_scale = frame_scale if frame_scale is not None or pairs is not None else _published_frames(model)
        if self.frame_scale is not None and self.tokenizers:
            frames, phrases = self.frame_scale.frames, self.frame_scale.phrases
            if frames not in self.media_names or phrases not in self.text_fields:
                raise ValueError(
                    f"frames of {frames!r} are compared with {phrases!r}: the first must be an embedding made of media, the second one "
                    "made of texts alone (`Objective.frame_pair`)"
                )
        self.detection = model.detection
        if self.frame_scale is not None and model.fields_for([self.frame_scale.frames]) == {"audio"}:
            self.frame_windows = detection_windows(model)
        self.digest = model_digest(model)

    def embed_clips(self, clips: Sequence[DecodedClip]) -> list[ClipOutput]:
        """Embeds decoded clips."""
        batch = collate(clips, self.tokenizers or None, self.own_fields)
        medium = [self.frame_scale.frames] if self.frame_scale is not None else []
        outputs = [ClipOutput() for _ in clips]
        with evaluating(self.model, self.precision) as device:
            found = self.model.embed_batch(batch.to(device), self.media_names, medium)
        for name, embedding in found.items():
            pooled, groups = embedding.pooled.float().cpu(), embedding.group.tolist()
            for row, present in enumerate(embedding.present.tolist()):
                if present:
                    outputs[row].pooled[name], outputs[row].groups[name] = pooled[row].clone(), groups[row]
        for name in medium:
            _take_frames(outputs, name, found[name])
        return outputs

    def embed_frames(self, clips: Sequence[DecodedClip]) -> list[ClipOutput]:
        """Embeds the frames of clips of which the sound alone is decoded."""
        if self.frame_scale is None:
            raise ValueError("this model makes no frames that are compared with phrases")
        name = self.frame_scale.frames
        outputs = [ClipOutput() for _ in clips]
        with evaluating(self.model, self.precision) as device:
            found = self.model.embed_batch(collate(clips, None).to(device), [name], [name])
        _take_frames(outputs, name, found[name])
        return outputs

    def embed_texts(self, name: str, texts: Sequence[str]) -> Tensor:
        """Embeds texts by a head."""
        source = self.text_fields[name]
        text = self.tokenizers.tokenize(source, tuple(texts))
        if source == "events":
            nothing, index = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
            events = EventInput(text, torch.zeros(0, dtype=torch.bool), index, index, nothing, nothing)
            batch = Batch(ids=(), events=events)
        else:
            batch = Batch(ids=tuple(texts), captions={source.removeprefix("captions."): text})
        with evaluating(self.model, self.precision) as device:
            return self.model.embed_batch(batch.to(device), [name])[name].pooled.float().cpu().clone()


def _take_frames(outputs: Sequence[ClipOutput], name: str, embedding: Embedding) -> None:
    """Gives clips their frames, without padding."""
    if embedding.frames is None or embedding.mask is None:
        return
    if embedding.frame_seconds is None:
        raise ValueError("the frames say no frame_seconds")
    frames, mask = embedding.frames.float().cpu(), embedding.mask.cpu()
    hops = torch.as_tensor(embedding.frame_seconds).float().flatten().cpu().expand(len(outputs)).tolist()
    for row, present in enumerate(embedding.present.tolist()):
        if present:
            outputs[row].frames[name], outputs[row].frame_seconds[name] = frames[row][mask[row]], hops[row]


def decode_settings(media: MediaSettings) -> DecodeSettings:
    """Returns how clips are decoded for a model; one that takes every frame of a video gets 30 a second, as it was trained.

    >>> decode_settings(MediaSettings(num_frames=16)).num_frames, decode_settings(MediaSettings()).fps
    (16, 30.0)
    """
    fps = 30.0 if media.num_frames is None and media.fps is None else media.fps
    return DecodeSettings(
        media.sample_rate,
        None if fps is not None else media.num_frames,
        fps,
        (media.frame_size, media.frame_size),
        media.downmix,
        media.sampling,
    )


def text_field(model: EmbeddingModel, name: str) -> str | None:
    """Returns the one field of a batch that an embedding is made of, where that is texts alone: captions of a type, or the phrases."""
    fields = model.fields_for([name])
    source = next(iter(fields), "")
    return source if len(fields) == 1 and _is_words(source) else None


def _is_words(source: str) -> bool:
    return source.startswith("captions.") or source == "events"


def _published_frames(model: EmbeddingModel) -> FrameScale | None:
    if FRAME_PAIR[0] not in model.frame_names or FRAME_PAIR[1] not in model.pooled_names:
        return None
    if FRAME_PAIR not in model.pairs:
        return FrameScale(*FRAME_PAIR)
    if FRAME_PAIR in model.text_pairs:
        return FrameScale(*FRAME_PAIR, by_phrase=lambda phrases: model.score(FRAME_PAIR, phrases))
    scale, bias = model.score(FRAME_PAIR)
    return FrameScale(*FRAME_PAIR, float(scale), float(bias))
