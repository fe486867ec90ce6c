"""Runs a model over a split and keeps what evaluation needs: every clip, caption, transcript and event phrase is embedded once.

What was embedded lies in a store (`peav.evaluation.store`) by its content, so that a pass that was interrupted goes on where it was,
and several ranks share one.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from peav.data.loading.loader import init_worker
from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import distinct_texts, text_group
from peav.data.manifests.labels import Labels, load_labels
from peav.data.manifests.manifest import Manifest, open_manifest
from peav.data.progress import tracked
from peav.data.stores.outside import check_stores
from peav.evaluation.clip_windows import WindowedClips, embed_windows, first_text
from peav.evaluation.known import TRUE_CONFIDENCE, known_phrases
from peav.evaluation.models import ClipOutput, EvaluatedModel
from peav.evaluation.store import EmbeddingStore, Kept
from peav.evaluation.table import EmbeddingTable, Event
from peav.inputs.windows import check_windows
from peav.types import TRANSCRIPT, Seconds

log = logging.getLogger(__name__)

_TEXTS_AT_ONCE = 256

#: What a clip of a batch may last on average: longer ones come in smaller batches.
_SECONDS_A_CLIP = 30.0


@dataclass(frozen=True)
class ClipTexts:
    """All that was written about a clip.

    Attributes:
        id: the clip's id.
        captions: every caption by caption type.
        transcript: what is said, or None.
        events: (phrase, onset, offset) in seconds, those with times, or None when the clip is not annotated. What the clip says of
            other phrases, `peav.evaluation.known.known_phrases` knows.
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


def clip_texts(clip: Clip) -> ClipTexts:
    """Returns everything that was written about a clip, of its events those that are true and have times."""
    events = None
    if clip.events is not None:
        heard = [event for event in clip.events if event.confidence >= TRUE_CONFIDENCE]
        events = [(event.phrase, *event.span) for event in heard if event.span is not None]
    captions = {kind: list(texts) for kind, texts in clip.texts.items()}
    return ClipTexts(clip.id, captions, clip.transcript, events)


@dataclass(frozen=True)
class PassOptions:
    """How a split is embedded; nothing here but `window_seconds` and `kept` changes an embedding beyond its rounding.

    Attributes:
        window_seconds: longer clips are embedded in windows and averaged; None for whole clips. Frames are heard in windows of their own,
            those of `EvaluatedModel.frame_windows`.
        overlap_seconds: what neighbouring windows share.
        batch_size: clips, or windows of them, that go through the model at once.
        num_workers: processes that decode.
        kept: the numbers in which embeddings are kept.
        progress: show how far it is.
    """

    window_seconds: Seconds | None = None
    overlap_seconds: Seconds = 0.0
    batch_size: int = 64
    num_workers: int = 2
    kept: Kept = "fp32"
    progress: bool = True

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.num_workers < 0:
            raise ValueError(
                f"batch_size must be at least 1 and num_workers at least 0, got {self.batch_size}, {self.num_workers}"
            )
        check_windows(self.window_seconds, self.overlap_seconds)


class Split:
    """The clips of a prepared split, as a model sees them.

    Args:
        data: folder that `peav prepare` wrote, or its address.
        split: `train`, `validation` or `test`.
        ids: the clips wanted; all by default.

    Raises:
        FileNotFoundError: if it was not prepared.
        ValueError: if it holds no clip.
    """

    def __init__(self, data: str | Path, split: str, ids: Collection[str] | None = None) -> None:
        self.data, self.split = str(data), split
        self.manifest: Manifest = open_manifest(data, split)
        self.labels: Labels = load_labels(data)
        check_stores(data, self.manifest.index.stores, None)
        self.rows = [row for row in range(len(self.manifest)) if ids is None or self.manifest[row].id in ids]
        if not self.rows:
            raise ValueError(f"the split {split!r} of {data} holds no clip: there is nothing to evaluate")

    def __len__(self) -> int:
        return len(self.rows)

    def clip(self, place: int) -> Clip:
        """Returns a clip by its place in the split."""
        return self.manifest[self.rows[place]]

    def __iter__(self) -> Iterator[Clip]:
        return (self.clip(place) for place in range(len(self)))

    def fingerprint(self) -> str:
        """Returns a digest of all that is evaluated: the packed media, spans, and every text."""
        digest = hashlib.sha256()
        for clip in self:
            said = [clip.id, clip.crc32, clip.offset, clip.duration, asdict(clip_texts(clip))]
            if untimed := [(event.phrase, event.confidence) for event in clip.events or () if event.span is None]:
                said.append(untimed)
            if clip.vocabulary:
                said.append(clip.vocabulary)
            digest.update(json.dumps(said, sort_keys=True).encode())
        if self.labels:
            digest.update(self.labels.digest.encode())
        return digest.hexdigest()[:16]


@dataclass
class Work:
    """What a pass did: clips and texts that were embedded now, and those that were there."""

    clips: int = 0
    known_clips: int = 0
    texts: int = 0
    known_texts: int = 0

    def __str__(self) -> str:
        return (
            f"embedded {self.clips} clips and {self.texts} texts; {self.known_clips} clips and {self.known_texts} texts were "
            "embedded before"
        )


def open_store(folder: Path, model: EvaluatedModel, options: PassOptions) -> EmbeddingStore:
    """Opens the store of a model under a folder that may hold those of many."""
    settings: dict[str, Any] = {
        "model": model.digest,
        "kind": model.kind,
        "media": asdict(model.settings),
        "precision": model.precision,
        "window_seconds": options.window_seconds,
        "overlap_seconds": options.overlap_seconds,
        "kept": options.kept,
    }
    if model.frame_windows[0] is not None:
        settings["frame_windows"] = list(model.frame_windows)
    text = json.dumps(settings, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    return EmbeddingStore(folder / name, json.loads(text), options.kept)


def embed_split(
    model: EvaluatedModel,
    split: Split,
    store: EmbeddingStore,
    options: PassOptions,
    extra_texts: Mapping[str, Sequence[str]] | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Work:
    """Embeds this rank's share of what the store lacks: clips in batches of like length, and texts.

    A clip that cannot be decoded is kept as one without any medium, and listed in the log.

    Args:
        model: it.
        split: its clips.
        store: where embeddings go.
        options: how.
        extra_texts: further texts, such as prompts, by the head that reads them.
        rank: of this process.
        world_size: how many processes share the work.

    Returns:
        what was done.
    """
    work = Work()
    keys = [clip_key(model, clip) for clip in split]
    seconds = [clip.duration for clip in split]
    batches = plan_batches(seconds, options)[rank::world_size]
    wanted = [[place for place in batch if keys[place] not in store] for batch in batches]
    work.known_clips = sum(map(len, batches)) - sum(map(len, wanted))
    wanted = [batch for batch in wanted if batch]
    windows = (options.window_seconds, options.overlap_seconds)
    dataset = WindowedClips(model, split.clip, max(seconds, default=0.0), split.data, *windows)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=wanted,
        num_workers=options.num_workers if len(wanted) > 1 else 0,
        collate_fn=list,
        worker_init_fn=init_worker,
    )
    with tracked(f"embedding {split.split}", sum(map(len, wanted)), options.progress and rank == 0) as advance:
        for batch, decoded in zip(wanted, loader, strict=True):
            store.add([keys[place] for place in batch], embed_windows(model, decoded, options.batch_size))
            work.clips += len(batch)
            for _ in batch:
                advance()
    for name, texts in _distinct(model, split, extra_texts or {}).items():
        chunks = [texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE)]
        for chunk in chunks[rank::world_size]:
            new = [text for text in chunk if text_key(name, text) not in store]
            work.known_texts += len(chunk) - len(new)
            if new:
                rows = model.embed_texts(name, new)
                outputs = [
                    ClipOutput({name: row}, {name: text_group(text)}) for row, text in zip(rows, new, strict=True)
                ]
                store.add([text_key(name, text) for text in new], outputs)
                work.texts += len(new)
    return work


def build_table(
    model: EvaluatedModel, split: Split, store: EmbeddingStore, every_pair: bool = True
) -> tuple[EmbeddingTable, dict[str, str]]:
    """Makes the table of a split of which everything was embedded.

    Args:
        model: that embedded it.
        split: its clips.
        store: where the embeddings are.
        every_pair: whether the pairs that the model was trained on are all to be evaluated: those that cannot be are then logged.

    Returns:
        the table, and the clips that could not be decoded with the reason.

    Raises:
        ValueError: if frames have more than one rate.
    """
    store.refresh()
    clips = list(split)
    keys = [clip_key(model, clip) for clip in clips]
    texts = [clip_texts(clip) for clip in clips]
    embeddings, rows, groups = {}, {}, {}
    for name in model.media_names:
        values, places, identity = store.matrix(name, keys)
        if places:
            embeddings[name], rows[name], groups[name] = values, torch.tensor(places), identity
    written: dict[str, list[str]] = {}
    trained = list(model.pairs)
    for name, head, found in caption_rows(model, texts):
        if not found:
            continue
        written[name] = [text for _, text in found]
        embeddings[name] = text_matrix(store, head, written[name])
        rows[name] = torch.tensor([clip for clip, _ in found])
        groups[name] = torch.tensor([text_group(text) for text in written[name]])
        if name == model.said_name and name != "text_transcript":
            trained.append(("audio", name))
    for left, right in trained if every_pair else ():
        if absent := [name for name in (left, right) if name not in embeddings]:
            log.warning("%s x %s is not evaluated: no clip of the split has %s", left, right, " or ".join(absent))
    table = EmbeddingTable(
        clip_ids=[clip.id for clip in clips],
        embeddings=embeddings,
        clips=rows,
        groups=groups,
        texts=written,
        pairs=[pair for pair in trained if set(pair) <= set(embeddings)],
    )
    undecodable = {clip.id: reason for clip, key in zip(clips, keys, strict=True) if (reason := store.problem(key))}
    return _with_frames(table, model, store, keys, clips, split.labels), undecodable


def _with_frames(
    table: EmbeddingTable,
    model: EvaluatedModel,
    store: EmbeddingStore,
    keys: Sequence[str],
    clips: Sequence[Clip],
    labels: Labels,
) -> EmbeddingTable:
    scale = model.frame_scale
    events, phrases = _events([clip_texts(clip) for clip in clips])
    if scale is None or scale.phrases not in model.text_fields or not phrases:
        return table
    hops = store.frame_seconds(scale.frames, keys)
    if not hops:
        return table
    if len(hops) != 1:
        raise ValueError(
            f"frame-level evaluation needs one frame rate for all clips, but the hops are {sorted(hops)[:5]} s"
        )
    text_event = text_matrix(store, scale.phrases, phrases).float()
    logit_scale, logit_bias = scale.of(text_event)
    known = known_phrases(clips, phrases, labels)
    told = [_of_known(some, phrases, row) for some, row in zip(events, known.tolist(), strict=True)]
    annotated = torch.tensor([some is not None for some in told])
    return replace(
        table,
        frames=store.frames(scale.frames, keys),
        frame_seconds=hops.pop(),
        phrases=phrases,
        text_event=text_event,
        events=told,
        known=None if bool(known[annotated].all()) else known,
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        detection=model.detection,
    )


def _of_known(events: list[Event] | None, phrases: Sequence[str], known: Sequence[bool]) -> list[Event] | None:
    """Returns the events of the phrases that are known in a clip; None where none is, as in a clip that is not annotated."""
    held = {phrase for phrase, is_known in zip(phrases, known, strict=True) if is_known}
    return None if events is None or not held else [event for event in events if event[0] in held]


def plan_batches(seconds: Sequence[Seconds], options: PassOptions) -> list[list[int]]:
    """Groups clips of like length, so that little is padded: the same groups whatever was embedded before.

    Args:
        seconds: the durations of the clips.
        options: `batch_size` clips of up to 30 s go together, fewer of longer ones.

    >>> plan_batches([4.0, 1.0, 90.0, 2.0, 1.5], PassOptions(batch_size=2))
    [[1, 4], [3, 0], [2]]
    """
    batches: list[list[int]] = []
    for place in sorted(range(len(seconds)), key=lambda place: seconds[place]):
        longest = seconds[place]  # ascending: the newcomer is the longest, to which the others are padded
        size = len(batches[-1]) + 1 if batches else 0
        if not batches or size > options.batch_size or size * longest > options.batch_size * _SECONDS_A_CLIP:
            batches.append([])
        batches[-1].append(place)
    return batches


def clip_key(model: EvaluatedModel, clip: Clip) -> str:
    """Returns what tells the input of a model from any other: media, span, the texts that are read beside them, own fields."""
    read = sorted(name for name in model.fields if name.startswith("captions."))
    said: list[Any] = [clip.crc32, clip.has_audio, clip.has_video, clip.group("audio"), clip.group("video")]
    said += [clip.offset, clip.duration, clip.is_still]
    said += [(name, first_text(clip, name.removeprefix("captions."))) for name in read]
    said += [(name, dict(held)) for name, held in sorted(clip.own.items()) if name in model.fields]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def text_key(name: str, text: str) -> str:
    """Returns what tells a text and the head that reads it from any other."""
    return f"{name}:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def text_matrix(store: EmbeddingStore, name: str, texts: Sequence[str]) -> torch.Tensor:
    """Returns the embeddings (N, D) of texts that were embedded."""
    return store.matrix(name, [text_key(name, text) for text in texts])[0]


def caption_rows(model: EvaluatedModel, clips: Sequence[ClipTexts]) -> Iterator[tuple[str, str, list[tuple[int, str]]]]:
    """Yields name in the table, head, and (clip, text) of every caption and transcript."""
    for name, source in model.text_fields.items():
        if source.startswith("captions."):
            yield name, name, [(index, text) for index, clip in enumerate(clips) for text in clip.texts(source)]
    if model.said_name is not None:
        said = f"captions.{TRANSCRIPT}"
        spoken = [(index, text) for index, clip in enumerate(clips) for text in clip.texts(said)]
        yield model.said_name, "text_audio", spoken


def _distinct(model: EvaluatedModel, split: Split, extra: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Returns the texts to embed by the head that reads them, each once."""
    found: dict[str, dict[str, None]] = {}
    clips = [clip_texts(clip) for clip in split]
    for _, head, rows in caption_rows(model, clips):
        found.setdefault(head, {}).update(dict.fromkeys(text for _, text in rows))
    if model.frame_scale is not None and model.frame_scale.phrases in model.text_fields:
        found.setdefault(model.frame_scale.phrases, {}).update(dict.fromkeys(_events(clips)[1]))
    for head, texts in extra.items():
        found.setdefault(head, {}).update(dict.fromkeys(texts))
    return {head: list(texts) for head, texts in found.items()}


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
