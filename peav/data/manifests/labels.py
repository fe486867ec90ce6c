"""The labels of a data set: closed vocabularies, and which phrase is a kind of which other. `labels.json` beside the manifest holds them.

    {"vocabularies": {"desed": ["Speech", "Dog", ...]}, "parents": {"Bark": ["Dog"], "Dog": ["Domestic animals, pets"]}}

A clip that was annotated with a vocabulary says so (`vocabulary` of a record): a phrase of it that is not among the clip's events is
absent, one that is not in it is unknown. Parents decide what is never a negative: where a bark is heard, a dog is. A phrase stands for
all its spellings (`normalize_text`). An id of an ontology may have its phrase as a parent: then events are related by their ids too,
whatever words they have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from peav.data.manifests.fields import check_unicode, hint
from peav.data.manifests.identities import normalize_text
from peav.data.manifests.records import OPEN, Event
from peav.data.stores.remote import ChunkCache, StoreError, StoreOptions, is_remote
from peav.data.stores.shards import write_json
from peav.opening import leads_out, read_json

#: The name of the file, beside `clips.jsonl` and in a prepared folder.
LABELS_FILE = "labels.json"

#: The most phrases that the vocabularies hold together, and that have parents.
MAX_PHRASES = 1_000_000

#: The most ancestors that a phrase may have.
MAX_ANCESTORS = 1000


class LabelsError(ValueError):
    """Labels that cannot be, or that do not fit together. The message names the phrase and the fix."""


@dataclass(frozen=True)
class Labels:
    """Closed vocabularies, and the parents of phrases.

    Attributes:
        vocabularies: by name, the phrases that were listened for.
        parents: by phrase, or by id of an ontology, the phrases of which it is a kind.

    Raises:
        LabelsError: if a name is taken, a phrase is empty or there twice, there are too many, or the parents form a circle.

    >>> labels = Labels({"pets": ("Dog", "Cat")}, {"Bark": ("Dog",), "Dog": ("Animal",), "/m/05tny_": ("Bark",)})
    >>> labels.lineage("bark"), labels.lineage("a dog barking", "/m/05tny_")
    (('Dog', 'Animal'), ('Bark', 'Dog', 'Animal'))
    >>> Labels(parents={"Dog": ("Pet",), "Pet": ("Dog",)})
    Traceback (most recent call last):
    peav.data.manifests.labels.LabelsError: the parents form a circle: 'Dog', 'Pet', 'Dog'
    """

    vocabularies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _members: dict[str, frozenset[str]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _parents: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        held = sum(len(phrases) for phrases in (*self.vocabularies.values(), *self.parents.values()))
        if held > MAX_PHRASES:
            raise LabelsError(f"the labels hold {held:,} phrases; more than {MAX_PHRASES:,} are refused")
        for name, phrases in self.vocabularies.items():
            if name in ("", OPEN) or not name.strip():
                raise LabelsError(
                    f"a vocabulary cannot be called {name!r}: in a record that word has a meaning of its own; give another name"
                )
            self._members[name] = frozenset(_distinct(phrases, f"the vocabulary {name!r}"))
        for phrase, above in self.parents.items():
            key = _key(phrase, "parents")
            if key in self._parents:
                raise LabelsError(f"'parents' has {phrase!r} twice, once in another spelling: join the two")
            _distinct(above, f"the parents of {phrase!r}")
            self._parents[key] = tuple(above)
        self._check_circles()

    def __bool__(self) -> bool:
        return bool(self.vocabularies or self.parents)

    def holds(self, vocabulary: str, phrase: str) -> bool:
        """Returns whether a phrase belongs to a vocabulary, in whatever spelling."""
        return normalize_text(phrase) in self._members[vocabulary]

    def problem(self, vocabulary: str, events: Iterable[Event]) -> str | None:
        """Says what is wrong with the labels of a clip, an unknown vocabulary or an event that is not in it; None if nothing is."""
        if vocabulary in ("", OPEN):
            return None
        if vocabulary not in self._members:
            known = ", ".join(map(repr, self._members)) or "none"
            return (
                f"the vocabulary {vocabulary!r} is unknown{hint(vocabulary, tuple(self._members))} {LABELS_FILE} has {known}; for clips of "
                f"which nothing but their events is known it is {OPEN!r}"
            )
        for event in events:
            if not self.holds(vocabulary, event.phrase):
                return (
                    f"event {event.phrase!r} is not in the vocabulary {vocabulary!r} with which its clip was annotated"
                    f"{hint(event.phrase, self.vocabularies[vocabulary])} Correct it, or add it to the vocabulary in {LABELS_FILE}"
                )
        return None

    def lineage(self, phrase: str, label: str = "") -> tuple[str, ...]:
        """Returns the ancestors of a phrase, and of the id of its label, each once, the nearest first.

        Raises:
            LabelsError: if there are more than `MAX_ANCESTORS`.
        """
        own = {normalize_text(phrase)}
        found: dict[str, str] = {}
        level = [phrase, label] if label else [phrase]
        while level:
            above = [parent for each in level for parent in self._parents.get(normalize_text(each), ())]
            level = []
            for parent in above:
                key = normalize_text(parent)
                if key not in found and key not in own:
                    found[key] = parent
                    level.append(parent)
            if len(found) > MAX_ANCESTORS:
                raise LabelsError(f"{phrase!r} has more than {MAX_ANCESTORS:,} ancestors: the ontology cannot be meant")
        return tuple(found.values())

    def to_json(self) -> dict[str, Any]:
        """Returns what `labels.json` holds."""
        return {
            "vocabularies": {name: list(phrases) for name, phrases in self.vocabularies.items()},
            "parents": {phrase: list(above) for phrase, above in self.parents.items()},
        }

    @property
    def digest(self) -> str:
        """A short string that is equal for equal labels."""
        return hashlib.blake2b(json.dumps(self.to_json(), sort_keys=True).encode(), digest_size=8).hexdigest()

    def clashing(self, other: Labels) -> list[str]:
        """Returns the names of vocabularies that both have, with other phrases."""
        return [name for name in self._members if self._members[name] != other._members.get(name, self._members[name])]

    def renamed(self, names: Mapping[str, str]) -> Labels:
        """Returns the labels with other names of vocabularies, by their names."""
        return Labels({names.get(name, name): phrases for name, phrases in self.vocabularies.items()}, self.parents)

    def merged(self, other: Labels) -> Labels:
        """Returns the vocabularies and parents of both; a phrase has the parents that either gives it.

        Raises:
            LabelsError: if two vocabularies of one name differ, or the parents together form a circle.
        """
        if clash := self.clashing(other):
            raise LabelsError(
                f"two vocabularies are called {clash[0]!r} and hold other phrases: give one of them another name, in {LABELS_FILE} and in "
                "its clips"
            )
        parents = {normalize_text(phrase): (phrase, above) for phrase, above in self.parents.items()}
        for phrase, above in other.parents.items():
            written, before = parents.get(normalize_text(phrase), (phrase, ()))
            known = {normalize_text(parent) for parent in before}
            more = tuple(parent for parent in above if normalize_text(parent) not in known)
            parents[normalize_text(phrase)] = written, (*before, *more)
        return Labels({**other.vocabularies, **self.vocabularies}, dict(parents.values()))

    def _check_circles(self) -> None:
        names = {normalize_text(phrase): phrase for phrase in self.parents}
        order = TopologicalSorter({key: list(map(normalize_text, above)) for key, above in self._parents.items()})
        try:
            order.prepare()
        except CycleError as error:
            circle = [repr(names.get(key, key)) for key in error.args[1]]
            raise LabelsError(
                f"the parents form a circle: {', '.join(circle[:10])}{', ...' if len(circle) > 10 else ''}"
            ) from None


def _key(phrase: str, what: str) -> str:
    try:
        check_unicode(phrase, what)
    except ValueError as error:
        raise LabelsError(str(error)) from None
    if not phrase.strip():
        raise LabelsError(f"{what} hold an empty phrase")
    return normalize_text(phrase)


def _distinct(phrases: Sequence[str], what: str) -> list[str]:
    keys = [_key(phrase, what) for phrase in phrases]
    if len(set(keys)) < len(keys):
        twice = next(phrase for place, phrase in enumerate(phrases) if keys[place] in keys[:place])
        raise LabelsError(f"{what} hold {twice!r} twice, maybe in another spelling")
    return keys


def labels_from_json(data: Any, where: str = LABELS_FILE) -> Labels:
    """Reads what `labels.json` holds.

    Args:
        data: as JSON.
        where: what errors call it.

    Raises:
        LabelsError: if it is something else.
    """
    form = '{"vocabularies": {name: [phrases]}, "parents": {phrase: [phrases]}}'
    if not isinstance(data, dict):
        raise LabelsError(f"{where} must hold {form}, got a {type(data).__name__}")
    for name in data:
        if name not in ("vocabularies", "parents"):
            raise LabelsError(
                f"{where}: unknown field {name!r}{hint(name, ('vocabularies', 'parents'))} It holds {form}"
            )
    parts = []
    for name in ("vocabularies", "parents"):
        part = data.get(name, {})
        lists = isinstance(part, dict) and all(isinstance(phrases, list) for phrases in part.values())
        if not lists or not all(isinstance(phrase, str) for phrases in part.values() for phrase in phrases):
            raise LabelsError(f"{where}: {name!r} must map strings to lists of strings, as in {form}")
        parts.append({key: tuple(phrases) for key, phrases in part.items()})
    try:
        return Labels(*parts)
    except LabelsError as error:
        raise LabelsError(f"{where}: {error}") from None


def read_labels(folder: Path) -> Labels:
    """Reads the labels in a folder of this machine; none where there is no `labels.json`.

    Raises:
        LabelsError: if it cannot be read, or leads out of the folder.
    """
    path = folder / LABELS_FILE
    if not path.exists():
        return Labels()
    if leads_out(path, folder):
        raise LabelsError(f"{path} is a link out of its folder, to {path.resolve()}: put the file itself there")
    try:
        return labels_from_json(read_json(path), str(path))
    except OSError as error:
        raise LabelsError(f"{path} cannot be read: {error}") from None
    except LabelsError:
        raise
    except ValueError as error:
        raise LabelsError(f"{path} is no JSON: {error}") from None


def load_labels(data: str | Path, options: StoreOptions | None = None) -> Labels:
    """Reads the labels of a prepared folder, or of one in an object store, whose prepare.json says whether it has any.

    Raises:
        LabelsError: if they cannot be read.
        StoreError: if the store cannot be reached.
    """
    if not is_remote(data):
        return read_labels(Path(data))
    cache = ChunkCache(str(data), options or StoreOptions())
    try:
        has = "labels" in read_json(cache.refresh("prepare.json")).get("settings", {})
    except (ValueError, AttributeError, TypeError) as error:
        raise StoreError(f"{data}/prepare.json is damaged ({type(error).__name__}: {error})") from None
    return read_labels(cache.refresh(LABELS_FILE).parent) if has else Labels()


def write_labels(folder: Path, labels: Labels) -> None:
    """Writes the labels of a folder; where there are none, no file stays."""
    if labels:
        write_json(folder / LABELS_FILE, labels.to_json())
    else:
        (folder / LABELS_FILE).unlink(missing_ok=True)
