"""The events of a batch: its distinct phrases, what each clip says of them, and what is drawn from the phrase bank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from peav.data.loading.decoding import DecodedClip
from peav.data.manifests.identities import ABSENT, distinct_texts, text_group
from peav.data.manifests.labels import Labels, LabelsError
from peav.data.manifests.records import OPEN
from peav.types import EventInput, Seconds, TextInput

#: Texts to what a batch holds of them.
TokenizePhrases = Callable[[Sequence[str]], TextInput]

#: What `EventInput.vocabulary` says of a clip without a closed vocabulary.
ALL_ELSE_ABSENT, ALL_ELSE_UNKNOWN = -1, -2


class PlacedEvent(NamedTuple):
    """An event of a batch: its phrase as it is written, the id of its label, the row of its clip, and times within the clip, seconds."""

    phrase: str
    label: str
    clip: int
    onset: Seconds
    offset: Seconds
    timed: bool
    confidence: float


def place_events(clips: Sequence[DecodedClip]) -> list[PlacedEvent]:
    """Returns the events of B clips; one without times spans its clip, and what lies outside of a clip is left out."""
    found: list[PlacedEvent] = []
    for row, clip in enumerate(clips):
        for event in clip.events:
            onset, offset = event.span or (0.0, clip.duration)
            onset, offset = max(onset, 0.0), min(offset, clip.duration)
            if onset < offset:
                timed = event.span is not None
                found.append(PlacedEvent(event.phrase, event.label, row, onset, offset, timed, event.confidence))
    return found


def collate_events(clips: Sequence[DecodedClip], labels: Labels, tokenize: TokenizePhrases) -> EventInput:
    """Joins the events of B clips, and what the first of them brings from the phrase bank.

    Args:
        clips: the clips.
        labels: vocabularies and ontology of the data set.
        tokenize: texts to a `TextInput`.

    Raises:
        LabelsError: if a clip names a vocabulary that the labels do not have.
    """
    events = place_events(clips)
    texts, places = distinct_texts(event.phrase for event in events)
    own = len(texts)
    ids: list[list[str]] = [[] for _ in texts]
    for place, event in zip(places, events, strict=True):
        if event.label and event.label not in ids[place]:
            ids[place].append(event.label)
    drawn = [item for clip in clips for item in clip.bank]
    texts, among = distinct_texts([*texts, *(phrase for phrase, _ in drawn)])
    ids += [[] for _ in texts[own:]]
    for place, (_, label) in zip(among[own:], drawn, strict=True):
        if label and place >= own and not ids[place]:
            ids[place].append(label)
    return EventInput(
        phrases=tokenize(texts),
        annotated=torch.tensor([bool(clip.annotated) for clip in clips]),
        clip=torch.tensor([event.clip for event in events], dtype=torch.int64),
        phrase=torch.tensor(places, dtype=torch.int64),
        onset=torch.tensor([event.onset for event in events], dtype=torch.float32),
        offset=torch.tensor([event.offset for event in events], dtype=torch.float32),
        confidence=torch.tensor([event.confidence for event in events], dtype=torch.float32),
        timed=torch.tensor([event.timed for event in events], dtype=torch.bool),
        vocabulary=torch.tensor([_vocabulary(clip, labels) for clip in clips], dtype=torch.int64),
        members=_members(texts, labels),
        lineage=_lineage(texts, ids, labels),
        bank=torch.arange(len(texts)) >= own,
    )


def _vocabulary(clip: DecodedClip, labels: Labels) -> int:
    if not clip.annotated or clip.vocabulary == OPEN:
        return ALL_ELSE_UNKNOWN
    if clip.vocabulary == "":
        return ALL_ELSE_ABSENT
    if (why := labels.problem(clip.vocabulary, ())) is not None:
        raise LabelsError(f"clip {clip.id!r}: {why}")
    return list(labels.vocabularies).index(clip.vocabulary)


def _members(texts: Sequence[str], labels: Labels) -> Tensor:
    held = [[labels.holds(name, text) for name in labels.vocabularies] for text in texts]
    return torch.tensor(held, dtype=torch.bool).reshape(len(texts), len(labels.vocabularies))


def _lineage(texts: Sequence[str], ids: Sequence[Sequence[str]], labels: Labels) -> Tensor:
    """Returns (K, A): the key of each text, of its first label id, of its further ones and of all their ancestors, -1 behind them."""
    keys: list[list[int]] = []
    for text, known in zip(texts, ids, strict=True):
        above = dict.fromkeys(key for label in known or [""] for key in labels.lineage(text, label))
        first = text_group(known[0]) if known else ABSENT
        keys.append([text_group(text), first, *map(text_group, known[1:]), *map(text_group, above)])
    width = max((len(row) for row in keys), default=2)
    return torch.tensor([row + [ABSENT] * (width - len(row)) for row in keys], dtype=torch.int64).reshape(-1, width)
