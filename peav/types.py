"""The contracts of peav, written once: what flows from the data to the loss.

Legend of dimensions, used in every docstring:

| letter | meaning |
|---|---|
| B | clips in a batch |
| S | audio samples, padded |
| F | video frames, padded |
| T | frames of a feature or embedding sequence, padded |
| L | text tokens, padded |
| N | rows of an embedding: B for the media and captions, K for event phrases |
| K | distinct event phrases in a batch |
| E | annotated events in a batch |
| D | dimension of a feature or embedding |

Masks are boolean and True means valid. A clip may lack any modality: `present` says so, and an absent row is neither a positive
nor a negative. `group` identifies what a row was made from, so that duplicates are compared on inputs, never on embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from peav.devices import copied
from peav.host import RowIdentities, remember

Seconds = float

#: The caption types of PE-AV, by what the caption describes. A manifest may have captions of any further type (`peav.fields`).
CAPTION_TYPES = ("audio", "video", "audio_video")

#: What a batch calls the texts of what is said (`captions.transcript`), which are no captions and embed by the head of audio captions.
TRANSCRIPT = "transcript"

#: The fields of a batch that are no captions.
MEDIA_FIELDS = ("audio", "video", "events")

#: The fields that are decoded where nobody says which: all that PE-AV reads.
DEFAULT_FIELDS = ("audio", "video", *(f"captions.{kind}" for kind in CAPTION_TYPES), "events")

#: The embedding names of PE-AV, and `text_event`: the phrases of frame-level alignment, one row a distinct phrase.
EMBEDDING_NAMES = (
    "audio",
    "video",
    "audio_video",
    "text_audio",
    "text_video",
    "text_audio_video",
    "audio_plus_text",
    "video_plus_text",
    "text_event",
)

#: How channels become one: `meta` is 0.7071 (L + R), `mean` the mean.
Downmix = Literal["meta", "mean"]

#: Which frames of a video: `time`, evenly spaced in time, or `index`, Meta's rule.
Sampling = Literal["time", "index"]

#: Texts to (input_ids (N, L) int64, mask (N, L) bool).
TokenizeTexts = Callable[[Sequence[str]], tuple[Tensor, Tensor]]

_T = TypeVar("_T")


@dataclass(frozen=True)
class ClipFormat:
    """What a clip must look like to an encoder or a model; None where it does not matter to them.

    Attributes:
        sample_rate: of the audio, Hz.
        frame_size: height and width of the frames, pixels.
        num_frames: video frames a clip; a preference, which the user may override.
        fps: video frames a second, instead; a preference too.
        downmix: how channels become one.
        sampling: which frames.
    """

    sample_rate: int | None = None
    frame_size: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    downmix: Downmix | None = None
    sampling: Sampling | None = None

    def of(self, media: Collection[str]) -> ClipFormat:
        """Returns what concerns these media, of `audio` and `video`."""
        concerns = {"audio": ("sample_rate", "downmix"), "video": ("frame_size", "num_frames", "fps", "sampling")}
        names = {name for kind, names in concerns.items() if kind in media for name in names}
        return ClipFormat(**{name: value for name, value in self.settings().items() if name in names})

    def settings(self) -> dict[str, Any]:
        """Returns what matters, by name."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


def merge_formats(formats: Mapping[str, ClipFormat]) -> ClipFormat:
    """Returns what several readers of the same clips want together.

    Args:
        formats: by reader, as messages call it.

    Raises:
        ValueError: if two of them want different things.

    >>> merge_formats({"encoder 'a'": ClipFormat(sample_rate=16000), "encoder 'b'": ClipFormat(frame_size=64)}).settings()
    {'sample_rate': 16000, 'frame_size': 64}
    """
    found: dict[str, tuple[str, Any]] = {}
    for reader, wanted in formats.items():
        for name, value in wanted.settings().items():
            first, other = found.setdefault(name, (reader, value))
            if other != value:
                raise ValueError(f"{first} reads {name}={other}, but {reader} {name}={value}: set both to the same")
    return ClipFormat(**{name: value for name, (_, value) in found.items()})


def map_tensors(value: _T, function: Callable[[Any], Any], kind: type = Tensor) -> _T:
    """Returns `value` with `function` applied to every tensor inside it; understands tensors, dataclasses, mappings, lists and tuples.

    Args:
        value: what to go through.
        function: of a tensor.
        kind: look for objects of this class instead of tensors.
    """
    if isinstance(value, kind):
        return function(value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: map_tensors(getattr(value, f.name), function, kind) for f in fields(value)}
        return replace(value, **changed)
    if isinstance(value, Mapping):
        return {key: map_tensors(item, function, kind) for key, item in value.items()}  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        items = [map_tensors(item, function, kind) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def take_rows(value: _T, rows: Tensor) -> _T:
    """Returns some rows of a batch field: of every tensor that has a first dimension.

    Args:
        value: dataclass of tensors (B, ...).
        rows: (n,) int64.
    """
    return map_tensors(value, lambda tensor: tensor[rows] if tensor.ndim else tensor)


def move(value: _T, device: torch.device | str) -> _T:
    """Returns `value` with every tensor inside it on `device`; understands tensors, dataclasses and mappings.

    What comes to the CPU is there when this returns. The host keeps the masks that it sends in mind (`peav.host`).
    """

    def moved(tensor: Tensor) -> Tensor:
        there = copied(tensor, device)
        if tensor.dtype == torch.bool:
            remember(there, tensor)
        return there

    return map_tensors(value, moved)


def combine_groups(left: Tensor, right: Tensor) -> Tensor:
    """Returns the identity (N,) of rows made from two inputs: equal where both are.

    >>> combine_groups(torch.tensor([1, 1, 2]), torch.tensor([5, 5, 5])).unique().numel()
    2
    """
    # int64 wraps around, which is meant: the multiplier is odd, so that the map of either side alone is one to one.
    return left * 6364136223846793005 + right * 1442695040888963407 + 1


@dataclass(frozen=True)
class AudioInput:
    """Waveforms of a batch.

    Attributes:
        samples: (B, S) float32 mono waveforms, zero where padded or absent.
        mask: (B, S) bool.
        present: (B,) bool.
        group: (B,) int64, equal for clips with the same audio.
        sample_rate: in Hz.
        seed: (B,) int64, for what a frontend does at random to the clip (SpecAugment); None where nothing is random.
    """

    samples: Tensor
    mask: Tensor
    present: Tensor
    group: Tensor
    sample_rate: int
    seed: Tensor | None = None


@dataclass(frozen=True)
class VideoInput:
    """Frames of a batch.

    Attributes:
        frames: (B, F, 3, H, W) RGB: uint8, or floating point scaled to [-1, 1]; zero where padded or absent.
        mask: (B, F) bool.
        present: (B,) bool.
        group: (B,) int64, equal for clips with the same video.
        frame_seconds: (B,) float32, the time between two sampled frames.
    """

    frames: Tensor
    mask: Tensor
    present: Tensor
    group: Tensor
    frame_seconds: Tensor


@dataclass(frozen=True)
class CachedFeatures:
    """What the frozen frontend of an encoder makes of audio or video, in place of the media themselves.

    Attributes:
        values: (B, T, C) features, zero where padded or absent.
        mask: (B, T) bool.
        present: (B,) bool.
        group: (B,) int64, equal for clips with the same media.
        frame_seconds: the time between two features, one number or (B,) float32.
    """

    values: Tensor
    mask: Tensor
    present: Tensor
    group: Tensor
    frame_seconds: Tensor | Seconds


@dataclass(frozen=True)
class Tokens:
    """Token ids of N texts.

    Attributes:
        input_ids: (N, L) int64, zero where padded or absent.
        mask: (N, L) bool.
    """

    input_ids: Tensor
    mask: Tensor


@dataclass(frozen=True)
class TextInput:
    """Tokenized texts: one caption a clip, or one event phrase a row.

    Attributes:
        input_ids: (N, L) int64, zero where padded or absent.
        mask: (N, L) bool.
        present: (N,) bool.
        group: (N,) int64, equal for equal texts after normalisation.
        texts: the N strings as read; "" where absent.
        others: the ids for encoders whose tokenizer is another, by the encoder's name.
    """

    input_ids: Tensor
    mask: Tensor
    present: Tensor
    group: Tensor
    texts: tuple[str, ...] = ()
    others: Mapping[str, Tokens] = field(default_factory=dict)

    def read_by(self, encoder: str) -> TextInput:
        """Returns the texts with the ids that are meant for an encoder."""
        if not self.others:
            return self
        own = self.others.get(encoder, self)
        return replace(self, input_ids=own.input_ids, mask=own.mask, others={})


@dataclass(frozen=True)
class EventInput:
    """Annotated sound events of a batch: K distinct phrases, and E intervals that say which clip holds which phrase when.

    What is None is as the attribute says; `stated` writes it out. `peav.objectives.frame_mask` says what follows for each clip and
    phrase.

    Attributes:
        phrases: the K distinct phrases (N = K rows).
        annotated: (B,) bool; a clip without annotation is unknown for every phrase, not free of it.
        clip: (E,) int64, row of the clip.
        phrase: (E,) int64, row of the phrase.
        onset: (E,) float32, seconds from the start of the clip.
        offset: (E,) float32, seconds from the start of the clip.
        confidence: (E,) float32 in [0, 1], how sure the annotation is; None for 1.
        timed: (E,) bool; False for a weak label: the phrase is heard somewhere in the clip, from 0 to the clip's end, and with a
            confidence of 0 nowhere in it. None for True.
        vocabulary: (B,) int64, which closed vocabulary was annotated in the clip, a column of `members`: of its phrases those that the clip
            does not hold are absent, all others unknown. -1: every phrase that the clip does not hold is absent. -2: every one is
            unknown. None for -1.
        members: (K, V) bool, which vocabularies a phrase belongs to; V is the same on all ranks. None where there are no vocabularies.
        lineage: (K, A) int64, keys of a phrase and its ancestors: first that of its own text, then that of its label id, then those of
            its ancestors in any order; -1 where there is none. Two phrases are related where the text or label id of one is in the
            lineage of the other. None where no phrase has an ancestor.
        bank: (K,) bool, phrases that no clip of this rank holds, drawn as further negatives. None for False.
    """

    phrases: TextInput
    annotated: Tensor
    clip: Tensor
    phrase: Tensor
    onset: Tensor
    offset: Tensor
    confidence: Tensor | None = None
    timed: Tensor | None = None
    vocabulary: Tensor | None = None
    members: Tensor | None = None
    lineage: Tensor | None = None
    bank: Tensor | None = None

    def stated(self) -> EventInput:
        """Returns the events with nothing left to None: V is 0 where there are no vocabularies, A is 2 where there is no lineage."""
        device, (num_phrases,) = self.clip.device, self.phrases.group.shape
        defaults: dict[str, Any] = {
            "confidence": torch.ones_like(self.onset),
            "timed": torch.ones_like(self.clip, dtype=torch.bool),
            "vocabulary": torch.full_like(self.annotated, -1, dtype=torch.int64),
            "members": torch.zeros(num_phrases, 0, dtype=torch.bool, device=device),
            "lineage": torch.stack((self.phrases.group, torch.full_like(self.phrases.group, -1)), 1),
            "bank": torch.zeros(num_phrases, dtype=torch.bool, device=device),
        }
        return replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})

    def of_clips(self, rows: Tensor) -> EventInput:
        """Returns the events of some clips, in their order; every phrase is kept.

        Args:
            rows: (n,) int64 of the clips, on their device.
        """
        place = torch.full_like(self.annotated, -1, dtype=torch.int64)
        place[rows] = torch.arange(len(rows), device=place.device)
        kept = place[self.clip] >= 0
        of_events = ("phrase", "onset", "offset", "confidence", "timed")
        changes: dict[str, Any] = {n: value[kept] for n in of_events if (value := getattr(self, n)) is not None}
        if self.vocabulary is not None:
            changes["vocabulary"] = self.vocabulary[rows]
        return replace(self, annotated=self.annotated[rows], clip=place[self.clip][kept], **changes)

    def read_by(self, encoder: str) -> EventInput:
        """Returns the events, their phrases with the ids that are meant for an encoder."""
        return replace(self, phrases=self.phrases.read_by(encoder)) if self.phrases.others else self


@dataclass(frozen=True)
class FieldInput:
    """A field of one's own kind, as sequences of one sort: what `peav.fields.Field.collate` makes unless it is told otherwise.

    Attributes:
        values: (B, T, ...) zero where padded or absent.
        mask: (B, T) bool.
        present: (B,) bool.
        group: (B,) int64, equal for clips with the same value.
    """

    values: Tensor
    mask: Tensor
    present: Tensor
    group: Tensor


@dataclass(frozen=True)
class Batch:
    """A batch of B clips. Only the fields that the chosen objectives read are filled.

    Attributes:
        ids: the clips' ids.
        audio: waveforms, or what a frontend made of them; None when nothing reads audio.
        video: frames, or what a frontend made of them; None when nothing reads video.
        captions: texts by caption type (`audio`, `video`, `audio_video`, or one of the user's), only the types that are read.
        events: sound events, or None when nothing reads them.
        duration: (B,) float32, seconds.
        extra: fields of the user's own kinds by name (`peav.fields.Field`), only those that are read.
    """

    ids: tuple[str, ...]
    audio: AudioInput | CachedFeatures | None = None
    video: VideoInput | CachedFeatures | None = None
    captions: dict[str, TextInput] = field(default_factory=dict)
    events: EventInput | None = None
    duration: Tensor | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch with its tensors on `device`."""
        return move(self, device)

    def pin_memory(self) -> Batch:
        """Returns the batch with its tensors in page-locked memory; data loaders with `pin_memory` call this."""
        return map_tensors(self, Tensor.pin_memory)

    def read(self, name: str) -> Any:
        """Returns a field by the name that encoders and objectives declare, see `peav.fields`.

        Raises:
            KeyError: if the batch does not carry the field.
        """
        value = self._field(name)
        if value is None:
            raise KeyError(f"the batch carries no {name!r}: the data module was not asked for it")
        return value

    def holds(self, name: str) -> bool:
        """Returns whether the batch carries a field."""
        return self._field(name) is not None

    def with_field(self, name: str, value: Any) -> Batch:
        """Returns the batch with another value of a field that is no caption: what a frontend made of `audio`, for example."""
        if name not in MEDIA_FIELDS:
            return replace(self, extra={**self.extra, name: value})
        return replace(self, **{name: value})

    @property
    def held(self) -> frozenset[str]:
        """The names of the fields that the batch carries."""
        captions = {f"captions.{kind}" for kind in self.captions}
        return frozenset(captions | set(self.extra) | {name for name in MEDIA_FIELDS if self.holds(name)})

    def _field(self, name: str) -> Any:
        if name.startswith("captions."):
            return self.captions.get(name.removeprefix("captions."))
        return getattr(self, name) if name in MEDIA_FIELDS else self.extra.get(name)


def is_text(name: str) -> bool:
    """Returns whether a batch field holds texts.

    >>> [is_text(name) for name in ("audio", "captions.video", "events")]
    [False, True, True]
    """
    return name == "events" or name.startswith("captions.")


@dataclass(frozen=True)
class Features:
    """What an encoder makes of its inputs, before any head.

    Attributes:
        pooled: (N, D).
        present: (N,) bool.
        group: (N,) int64, identity of the inputs.
        frames: (N, T, D) or None.
        mask: (N, T) bool, None when there are no frames.
        frame_seconds: the time between two frames, (N,) float32 or one number; None when there are no frames.
        inputs: (N, T, C) what the frontend gave the encoder, before anything was hidden; None unless spans are hidden.
        hidden: (N, T) bool, which frames the encoder did not see; None unless spans are hidden.
    """

    pooled: Tensor
    present: Tensor
    group: Tensor
    frames: Tensor | None = None
    mask: Tensor | None = None
    frame_seconds: Tensor | Seconds | None = None
    inputs: Tensor | None = None
    hidden: Tensor | None = None


@dataclass(frozen=True)
class World:
    """The rows of an embedding on all ranks, M of them, in the order of the ranks.

    Attributes:
        counts: how many rows each rank holds.
        offset: where this rank's rows begin.
        present: (M,) bool.
        group: (M,) int64, identity of the inputs.
        pooled: (M, D), through which gradients flow to the rank that owns the row; None where no objective asked for them.
        identities: `present` and `group` in the memory of the host; see `distributed.identities_of`.
    """

    counts: tuple[int, ...]
    offset: int
    present: Tensor
    group: Tensor
    pooled: Tensor | None = None
    identities: RowIdentities | None = None


@dataclass(frozen=True)
class Embedding(Features):
    """Features after their head: in the shared space, `pooled` (N, D) and, where asked for, `frames` (N, T, D).

    Attributes:
        world: the rows of all ranks, when objectives get the embedding.
    """

    world: World | None = None


@dataclass(frozen=True)
class ObjectiveOutput:
    """What an objective returns.

    Attributes:
        loss: scalar. On W ranks, the gradients that the strategy averages over ranks are those of the global batch, and so is
            the mean of `loss` over ranks.
        count: valid positives in the global batch; 0 says that the objective found nothing to learn from in this batch.
        log: scalars to log, by name.
    """

    loss: Tensor
    count: Tensor
    log: dict[str, Tensor] = field(default_factory=dict)
