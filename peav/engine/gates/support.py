"""A gate that asks of each thing a caption names whether a tagger heard or saw anything of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peav.engine.gates.base import Gate, Written, register_gate
from peav.engine.gates.words import words_of
from peav.types import CAPTION_TYPES

#: Words of phrases that name nothing by themselves, or something else in most sentences.
_NO_NAMES = frozenset(
    words_of(
        "a an the of and or in on with to by for from at up as is are it its this that some someone something other others play playing "
        "sound sounds sounding noise noises effect effects recording field single inside outside room small large medium light heavy high "
        "low old young left right hand hands big short long public urban rural natural manmade frequency accelerating revving idling "
        "pass passing go start starting stop close open house home new wild domestic working music musical instrument song speech speaking "
        "vocal synthetic electronic human person people environmental space turn fall falling run running walk"
    )
)


@register_gate
class Support(Gate):
    """Finds things that a caption names and a tagger knows, but found no sign of in the clip.

    A tagger that provides `support` (YAMNetTagger, PEAVTagger) lists the phrases of its vocabulary of which there is any sign in a clip. A
    word of a caption that stands in phrases of the vocabulary, and in none of those, is unsupported. Words that the tagger does not know
    pass: it says nothing about them. Of captioners that see and hear a third named sounds that nobody heard (arXiv 2401.09774); a
    similarity of the whole caption finds few of them.

    Args:
        kinds: caption types that are looked at.
        allowed: words that pass all the same.
    """

    reason_name = "support"

    def __init__(self, kinds: Sequence[str] = CAPTION_TYPES, allowed: Sequence[str] = ()) -> None:
        self.kinds = tuple(kinds)
        self._allowed = {stem(word) for word in allowed}
        self._known: dict[str, set[str]] = {"audio": set(), "video": set()}

    def bind(self, stages: Mapping[str, Any]) -> None:
        """Learns the vocabulary of the taggers.

        Raises:
            ValueError: if no stage before the gates provides `support`.
        """
        vocabularies = [stage.vocabulary for stage in stages.values() if stage.vocabulary]
        if not vocabularies:
            raise ValueError(
                "the gate Support needs a stage before it that knows a vocabulary and provides support, such as YAMNetTagger or PEAVTagger"
            )
        for vocabulary in vocabularies:
            for medium, phrases in vocabulary.items():
                self._known[medium] |= names_of(phrases)

    def check(self, caption: Written) -> str | None:
        """Returns the first thing that it names without support."""
        support = caption.columns.get("support")
        if support is None:  # the tagger did not see this clip
            return None
        media = ("audio", "video") if caption.kind == "audio_video" else (caption.kind,)
        held = {medium: names_of(phrase for own, phrase in support if own == medium) for medium in media}
        for word in words_of(caption.text):
            name = stem(word)
            asked = [medium for medium in media if name in self._known[medium]]
            if asked and name not in self._allowed and not any(name in held[medium] for medium in asked):
                how = {"audio": "heard", "video": "seen"}.get(caption.kind, "heard or seen")
                return f"it names {word!r}, of which nothing was {how}"
        return None


def names_of(phrases: Iterable[str]) -> set[str]:
    """Returns the stems of the words in phrases that name something.

    >>> sorted(names_of(["a dog barking", "Rain, falling"]))
    ['bark', 'dog', 'rain']
    """
    return {stem(word) for phrase in phrases for word in words_of(phrase.replace("-", " ")) if word not in _NO_NAMES}


def stem(word: str) -> str:
    """Returns a word without the endings that English gives it, roughly; what matters is that both sides lose the same.

    >>> [stem(word) for word in ("dogs", "barking", "running", "churches", "engine", "hissed")]
    ['dog', 'bark', 'run', 'church', 'engin', 'his']
    """
    word = word.removesuffix("'s").replace("'", "")
    for ending in ("ing", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    word = word.removesuffix("e") if len(word) > 3 else word
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word
