"""Of which phrases it is known in a clip when they are heard: what is not known there counts neither for nor against a model.

The states are those of training (`peav.objectives.frame_mask`), for whole clips: here a phrase is known in a clip, or it is left out there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import distinct_texts, normalize_text, text_group
from peav.data.manifests.labels import Labels, LabelsError
from peav.data.manifests.records import OPEN, Event
from peav.evaluation.detection import merged_events
from peav.objectives.lineage import NO_KEY, ancestor_pairs

#: From this confidence on an event is true in evaluation, as is the custom with soft labels (MAESTRO Real, DCASE 2023 task 4b).
TRUE_CONFIDENCE = 0.5

#: Seconds by which an event may reach over one that covers it.
_TOLERANCE = 1e-6


def known_phrases(clips: Sequence[Clip], phrases: Sequence[str], labels: Labels | None = None) -> Tensor:
    """Says in which clips it is known of which phrases when they are heard, and when not.

    Of a phrase of which a clip has events of its own, they decide: times, or that it is absent, make it known. A weak label makes it
    unknown, for it sounds in some of the frames, and so do times that leave out some of what is heard of a descendant. Any other
    phrase is known to be absent if the clip's vocabulary says so, and no related phrase (an ancestor, a descendant, a synonym) is or
    may be heard.

    Args:
        clips: the M clips of a split; which phrases share the id of a label is read from all of them.
        phrases: the K distinct phrases.
        labels: vocabularies and parents; none by default.

    Returns:
        (M, K) bool, on the CPU; all False for a clip that is not annotated.

    Raises:
        LabelsError: if a clip was annotated with a vocabulary that `labels` does not hold.

    >>> labels = Labels({"pets": ("Dog", "Bark", "Cat")}, {"Bark": ("Dog",)})
    >>> clip = Clip("a", 2.0, events=(Event("Bark", 0.0, 1.0),), vocabulary="pets")
    >>> known_phrases([clip], ["Bark", "Cat", "Dog", "Rain"], labels).tolist()
    [[True, True, False, False]]
    """
    rules = _Rules(clips, phrases, labels or Labels())
    known = [rules.of(clip) for clip in clips]
    return torch.from_numpy(np.array(known, dtype=np.bool_).reshape(len(clips), len(phrases)))


class _Rules:
    """What is known of K phrases, clip by clip."""

    def __init__(self, clips: Sequence[Clip], phrases: Sequence[str], labels: Labels) -> None:
        self.labels, self.phrases = labels, phrases
        events = [event for clip in clips for event in clip.events or ()]
        texts, places = distinct_texts(chain(phrases, (event.phrase for event in events)))
        #: The phrases asked for have the numbers 0 to K - 1.
        self.number = {normalize_text(text): number for number, text in enumerate(texts)}
        named = {(place, event.label) for place, event in zip(places[len(phrases) :], events, strict=True)}
        ancestors, descendants = _related(texts, named, labels)
        self.above, self.below = _grouped(descendants, ancestors), _grouped(ancestors, descendants)
        self.members: dict[str, np.ndarray] = {}

    def of(self, clip: Clip) -> np.ndarray:
        """Returns (K,) bool."""
        if clip.events is None:
            return np.zeros(len(self.phrases), dtype=np.bool_)
        known = self._by_vocabulary(clip).copy()
        own: dict[int, list[Event]] = {}
        for event in clip.events:
            own.setdefault(self.number[normalize_text(event.phrase)], []).append(event)
        for phrase, events in own.items():
            if phrase < len(known):
                known[phrase] = not any(event.is_weak for event in events)
        for phrase, events in own.items():
            if all(event.confidence == 0 for event in events):
                continue
            for other in self.above.get(phrase, ()):
                if other < len(known) and (other not in own or not _cover(own[other], events)):
                    known[other] = False
            for other in self.below.get(phrase, ()):
                if other < len(known) and other not in own:
                    known[other] = False
        return known

    def _by_vocabulary(self, clip: Clip) -> np.ndarray:
        name = clip.vocabulary
        if name not in self.members:
            if (why := self.labels.problem(name, ())) is not None:
                raise LabelsError(f"clip {clip.id!r}: {why}")
            held = [name == "" or (name != OPEN and self.labels.holds(name, phrase)) for phrase in self.phrases]
            self.members[name] = np.array(held, dtype=np.bool_)
        return self.members[name]


def _related(texts: Sequence[str], named: Collection[tuple[int, str]], labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs of an ancestor and a descendant, as numbers of texts; a row for every id that a text is known by."""
    rows, place = [], []
    for number, label in sorted({*((number, "") for number in range(len(texts))), *named}):
        own = [text_group(texts[number]), text_group(label) if label else NO_KEY]
        rows.append(own + [text_group(above) for above in labels.lineage(texts[number], label)])
        place.append(number)
    width = max(map(len, rows), default=2)
    keys = [row + [NO_KEY] * (width - len(row)) for row in rows]
    return ancestor_pairs(np.array(keys, dtype=np.int64).reshape(-1, width), np.array(place, dtype=np.int64))


def _grouped(numbers: Iterable[int], others: Iterable[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for number, other in zip(numbers, others, strict=True):
        found.setdefault(int(number), []).append(int(other))
    return found


def _cover(above: Iterable[Event], below: Iterable[Event]) -> bool:
    """Whether true events of one phrase lie wherever those of another are, or may be, heard."""
    true = [event.span for event in above if event.span is not None and event.confidence >= TRUE_CONFIDENCE]
    held = merged_events([(0, *span) for span in true])
    for event in below:
        if event.confidence == 0:
            continue
        if event.span is None:
            return False
        onset, offset = event.span
        if not any(a <= onset + _TOLERANCE and offset <= b + _TOLERANCE for _, a, b in held):
            return False
    return True
