"""What came out of a job as a whole: words, openings and reasons, and what only shows over all clips."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import bytes_group, normalize_text
from peav.engine.gates.words import words_of
from peav.engine.rows import media_key, real_captions
from peav.engine.sketches import DistinctCount, FrequentItems

#: What a reason quotes, as Python's repr does, and its numbers.
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_NUMBER = re.compile(r"\d+(?:\.\d+)?%?")


@dataclass(frozen=True)
class LeftOut:
    """Why a clip gets no caption.

    Attributes:
        what: it is, such as `near duplicate`.
        why: a sentence.
        stays: id of the clip in whose favour it gets none; "" where there is no such clip.
        similarity: cosine similarity of their vectors, where they were compared by that.
    """

    what: str
    why: str
    stays: str = ""
    similarity: float | None = None


@dataclass
class KindSurvey:
    """What captions of a type are like.

    Attributes:
        captions: how many there are.
        words: in all of them.
        vocabulary: how many different words.
        different_openings: how many different first three words.
        openings: which of those are frequent.
    """

    captions: int = 0
    words: int = 0
    vocabulary: DistinctCount = field(default_factory=DistinctCount)
    different_openings: DistinctCount = field(default_factory=DistinctCount)
    openings: FrequentItems = field(default_factory=FrequentItems)

    def add(self, text: str) -> None:
        """Counts a caption."""
        words = words_of(text)
        self.captions += 1
        self.words += len(words)
        for word in words:
            self.vocabulary.add(word)
        opening = " ".join(words[:3])
        self.different_openings.add(opening)
        self.openings.add(opening)

    @property
    def mean_words(self) -> float:
        """Words of a caption, on average."""
        return self.words / self.captions if self.captions else 0.0


@dataclass
class Survey:
    """What a job made.

    Attributes:
        clips: that were asked for.
        with_text: of them, how many have a new caption.
        failed: of them, how many failed at some stage.
        kinds: by caption type, what it wrote.
        before: by caption type, what people wrote of the same clips.
        failures: by stage, how many clips failed there.
        reasons: by stage and reason, likewise; what a reason quotes and counts is left out of it.
        first: by stage and reason, the id of the first clip, and its whole reason.
        verdicts: by gate and outcome, captions.
        refusals: by gate and reason, captions; likewise.
        examples: of what a gate refused, some of each.
    """

    clips: int = 0
    with_text: int = 0
    failed: int = 0
    kinds: dict[str, KindSurvey] = field(default_factory=dict)
    before: dict[str, KindSurvey] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)

    def add(self, clip: Clip, columns: Mapping[str, Any], failed: Mapping[str, str]) -> None:
        """Counts a clip."""
        self.clips += 1
        texts = list(texts_of_column(columns.get("texts")))
        self.with_text += bool(texts)
        self.failed += any(failed.values())
        for kind, text in texts:
            self.kinds.setdefault(kind, KindSurvey()).add(text)
        for kind, written in real_captions(clip).items():
            for text in written:
                self.before.setdefault(kind, KindSurvey()).add(text)
        for stage, reason in failed.items():
            if reason:
                self.failures[stage] += 1
                key = stage, common_reason(reason)
                _count(self.reasons, key)
                if key in self.reasons:
                    self.first.setdefault(key, (clip.id, reason))
        for verdict in columns.get("verdicts") or ():
            self.verdicts[verdict["gate"], verdict["outcome"]] += 1
            _count(self.refusals, (verdict["gate"], common_reason(verdict["reason"])))
            examples = self.examples.setdefault(verdict["gate"], [])
            if len(examples) < 5:
                examples.append({"clip": clip.id, **verdict})

    def common_openings(self, kind: str, number: int = 10) -> list[tuple[str, float]]:
        """Returns the most frequent first three words of captions of a type, with their shares."""
        own = self.kinds[kind]
        return [(opening, count / own.captions) for opening, count in own.openings.most_common(number)]


def _count(counter: Counter[tuple[str, str]], key: tuple[str, str]) -> None:
    """Counts one of at most 1,000 different reasons."""
    if len(counter) < 1000 or key in counter:
        counter[key] += 1


def common_reason(reason: str) -> str:
    r"""Returns a reason without what it quotes and counts, so that equal ones can be counted.

    >>> common_reason("it quotes what is said: 'good morning'"), common_reason("it has 70 words, not 1 to 60")
    ("it quotes what is said: '…'", 'it has … words, not … to …')
    """
    return _NUMBER.sub("…", _QUOTED.sub("'…'", reason))[:120]


def texts_of_column(texts: Mapping[str, Any] | None) -> Iterable[tuple[str, str]]:
    """Yields type and text of each caption in the column `texts`.

    >>> list(texts_of_column({"audio": ["a", "b"], "video": "c"}))
    [('audio', 'a'), ('audio', 'b'), ('video', 'c')]
    """
    for kind, given in (texts or {}).items():
        for text in [given] if isinstance(given, str) else given:
            if text and text.strip():
                yield kind, text.strip()


class MediaGroups:
    """Finds what media several clips have, at 8 bytes a clip: a number that follows from their bytes and span."""

    def __init__(self) -> None:
        self._numbers = array("Q")

    def add(self, clip: Clip) -> None:
        """Takes a clip."""
        self._numbers.append(media_group(clip))

    def repeated(self) -> frozenset[int]:
        """Returns the numbers that more than one clip has."""
        held = np.frombuffer(self._numbers, np.uint64) if self._numbers else np.zeros(0, np.uint64)
        held.sort()  # in its place: no more than a byte a clip comes on top
        return frozenset(held[1:][held[1:] == held[:-1]].tolist())


def media_group(clip: Clip) -> int:
    """Returns a number that tells the media of a clip, and the part of them that it is, from others."""
    # What is compared is the bytes of sound and picture: the checksum of the shards covers the id, too.
    groups = f"{clip.group('audio')}/{clip.group('video')}/{media_key(clip).partition('/')[2]}"
    return bytes_group(groups.encode())


class Duplicates:
    """Finds clips whose media, and captions whose texts, occurred before: exact ones, by checksum and by text.

    Args:
        media: what :class:`MediaGroups` found of the clips of the job: the captions of a clip whose media an earlier one has are left
            out. None keeps them.
        max_copies: captions of one type that may say the same; the first in the order of the manifest stay. 0 for any number.
        excluded: by id, clips that get no caption, and why.
    """

    def __init__(
        self,
        media: frozenset[int] | None = None,
        max_copies: int = 0,
        excluded: Mapping[str, LeftOut] | None = None,
    ) -> None:
        self.excluded = {} if excluded is None else excluded
        self.media, self.max_copies = media, max_copies
        self._clips: dict[int, str] = {}
        self._texts: Counter[int] = Counter()

    def judge(self, clip: Clip, texts: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Returns the captions of a clip that are left out, with reasons; asked for the clips in their order."""
        texts = list(texts)
        if not texts:  # nor can another clip be left out in favour of it
            return {}
        if left := self.excluded.get(clip.id):
            return dict.fromkeys(texts, left.why)
        if self.media and (group := media_group(clip)) in self.media:
            first = self._clips.setdefault(group, clip.id)
            if first != clip.id:
                return {(kind, text): f"the clip has the media of {first!r}" for kind, text in texts}
        lost: dict[tuple[str, str], str] = {}
        for kind, text in texts if self.max_copies else ():
            key = bytes_group(f"{kind}\0{normalize_text(text)}".encode("utf-8", "surrogatepass"))
            self._texts[key] += 1
            if self._texts[key] > self.max_copies:
                lost[kind, text] = f"{self.max_copies} clips before it say the same"
        return lost


def boilerplate(survey: Survey, max_share: float, min_captions: int) -> str | None:
    """Returns which opening stands before too many captions of a type, in a sentence; None if none does.

    Args:
        survey: of the job.
        max_share: of the captions of a type that may begin with the same three words.
        min_captions: of a type, from which on that is looked at.
    """
    for kind, own in survey.kinds.items():
        if own.captions >= min_captions:
            opening, count = own.openings.most_common(1)[0]
            if count / own.captions > max_share:
                share = f"{count / own.captions:.0%} of the {own.captions:,} {kind} captions"
                return f"{share} begin with {opening!r}, more than {max_share:.0%}"
    return None
