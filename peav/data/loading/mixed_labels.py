"""What is known of a mixture of sounds, from what is known of each: nothing that one of them leaves open is taken for known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from peav.data.manifests.identities import normalize_text
from peav.data.manifests.labels import Labels
from peav.data.manifests.records import OPEN, Event

#: The phrases of a corpus come again and again.
_key = lru_cache(maxsize=8192)(normalize_text)


@dataclass(frozen=True)
class Known:
    """What is known of a sound.

    Attributes:
        events: what is heard, and what is not.
        vocabulary: as of a clip (`peav.data.manifests.records`): "" where all else is absent, `open` where nothing else is known, as of a
            clip that is not annotated.
    """

    events: tuple[Event, ...] = ()
    vocabulary: str = ""

    def of(self, phrase: str, label: str, labels: Labels) -> tuple[Event, ...] | None:
        """Returns the events of a phrase, else those of the kinds of it; None where nobody knows when it is heard.

        A bark is a dog: a dog is heard when the bark is. A dog may be a bark: whether a bark is heard in it, nobody knows.

        Args:
            phrase: what is asked for.
            label: its id, or "".
            labels: vocabularies and ontology.
        """
        key = _key(phrase)
        own = tuple(event for event in self.events if _key(event.phrase) == key)
        if own:
            return None if any(event.is_weak for event in own) else own
        heard = [event for event in self.events if event.confidence > 0]
        above = {_key(name) for name in labels.lineage(phrase, label)}
        if any(_key(event.phrase) in above for event in heard):
            return None
        below = [e for e in heard if key in map(_key, labels.lineage(e.phrase, e.label))]
        if below:
            found = tuple(replace(event, phrase=phrase, label=label) for event in below)
            return None if any(event.is_weak for event in below) else found
        if not self.vocabulary:
            return ()
        return () if self.vocabulary in labels.vocabularies and labels.holds(self.vocabulary, phrase) else None


def mixed_labels(parts: Sequence[Known], labels: Labels) -> Known:
    """Returns what is known of the sum of some sounds.

    A phrase has its times where every sound knows when it holds it, or that it does not. Where one does not know, the phrase is somewhere
    in the mixture, a weak label. It is absent where all know it to be. The vocabulary is the one that was annotated in all, if there is
    such, else `open`.

    Args:
        parts: one a sound; their times count from the start of the mixture.
        labels: vocabularies and ontology.

    >>> dog, rain = Known((Event("dog", 1.0, 2.0),)), Known((Event("rain", 0.0, 4.0),), "open")
    >>> [(event.phrase, event.span) for event in mixed_labels([dog, Known()], Labels()).events]
    [('dog', (1.0, 2.0))]
    >>> mixed = mixed_labels([dog, rain], Labels())  # who knows whether there is another dog in the rain?
    >>> [(event.phrase, event.span) for event in mixed.events], mixed.vocabulary
    ([('dog', None), ('rain', (0.0, 4.0))], 'open')
    """
    named: dict[str, list[Event]] = {}
    for event in (event for part in parts for event in part.events):
        named.setdefault(_key(event.phrase), []).append(event)
    events: list[Event] = []
    for held in named.values():
        phrase, label = held[0].phrase, next((event.label for event in held if event.label), "")
        found = [part.of(phrase, label, labels) for part in parts]
        known = [one for one in found if one is not None]
        heard = [event for one in known for event in one if event.confidence > 0]
        weak = [event for event in held if event.is_weak]
        if len(known) < len(found):
            if heard or weak:
                sure = max(event.confidence for event in (*heard, *weak))
                events.append(Event(phrase, label=label, confidence=sure))
        elif heard:
            # A span that one sound leaves free may be filled by another.
            alone = sum(bool(one) for one in known) == 1
            events += [event for one in known for event in one if event.confidence > 0 or alone]
        else:
            events += [event for one in known for event in one]
    vocabularies = {part.vocabulary for part in parts} - {""}
    return Known(tuple(events), vocabularies.pop() if len(vocabularies) == 1 else OPEN if vocabularies else "")
