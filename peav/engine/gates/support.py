"""A gate that asks of each thing a caption names whether a tagger heard or saw anything of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peav.engine.gates.base import Gate, Written, register_gate
from peav.engine.gates.words import words_of
from peav.types import CAPTION_TYPES

#: Words that are no part of what a phrase names.
_LITTLE = frozenset(
    words_of(
        "a an the an of and or in on with to by for from at up as is are it its this that some someone something other others"
    )
)

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


#: Words of captions that name nothing, though they look like a name: "a bit" is no bite, and "them" no theme.
_NOTHING_NAMED = frozenset(("bit", "them", "middle"))

#: What a caption says that there is not, or compares with: "no dog", "a whistle like a bird"; "what sounds like a dog" names one.
_NOT_THERE = re.compile(
    r"\b(?:no|not|without|never|neither|nor|nobody|instead of|rather than|unlike|resembling|reminiscent of"
    r"|(?<!sounds )(?<!sound )(?<!looks )(?<!seems )like)\b(?:[ -](?!(?:and|but|then|while|as|with)\b)[\w']+){1,4}",
    re.IGNORECASE,
)

#: What is said is not there to be heard otherwise.
_QUOTED = re.compile(r"""["\u201c\u201e\u00ab][^"\u201c\u201d\u00bb]*["\u201d\u00bb]""")

#: Forms in -ing: "string" and "ring" are none.
_VERB = re.compile(r"\w*[aeiouy]\w*ing")

#: Forms that no ending tells.
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "wolves": "wolf",
    "knives": "knife",
    "leaves": "leaf",
    "geese": "goose",
    "mice": "mouse",
    "feet": "foot",
}


@register_gate
class Support(Gate):
    """Finds things that a caption names and a tagger knows, but found no sign of in the clip.

    A tagger that provides `support` (YAMNetTagger, PEAVTagger) lists the phrases of its vocabulary of which there is any sign in a clip. A
    caption names a phrase, or one of its names between commas, where it has all its words, in any form, but for verbs that end in -ing:
    "a dog" names "a dog barking", and "an electric kettle" not "electric guitar". What it names is unsupported where none of its words
    stands in a phrase of which there is a sign. What the caption says is not there, what it compares with, and what it quotes is not
    looked at. Words that the tagger does not know pass: it says nothing about them. Of captioners that see and hear a third named sounds
    that nobody heard (arXiv 2401.09774); a similarity of the whole caption finds few of them.

    It is as good as its tagger: docs/engine.md has the false alarms of two.

    Args:
        kinds: caption types that are looked at.
        allowed: words that pass all the same.
    """

    version = 2
    reason_name = "support"

    def __init__(self, kinds: Sequence[str] = CAPTION_TYPES, allowed: Sequence[str] = ()) -> None:
        self.kinds = tuple(kinds)
        self._allowed = {stem(word) for word in allowed}
        # By medium, for each word that names something: the sets of words that name a phrase with it.
        self._known: dict[str, dict[str, set[frozenset[str]]]] = {"audio": {}, "video": {}}

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
                for phrase in phrases:
                    for words in naming(phrase):
                        for word in words - _STEMS_WITHOUT_NAMES:
                            self._known[medium].setdefault(word, set()).add(words)

    def check(self, caption: Written) -> str | None:
        """Returns the first thing that it names without support."""
        support = caption.columns.get("support")
        if support is None:  # the tagger did not see this clip
            return None
        media = ("audio", "video") if caption.kind == "audio_video" else (caption.kind,)
        held = {name for own, phrase in support if own in media for name in names_of([phrase])}
        text = _NOT_THERE.sub(" ", _QUOTED.sub(" ", caption.text)).replace("-", " ")
        words = [word for word in words_of(text) if word not in _NOTHING_NAMED]
        said = {stem(word) for word in words}
        for word in words:
            name = stem(word)
            named = [one for medium in media for one in self._known[medium].get(name, ()) if one <= said]
            if named and name not in self._allowed and not any((one - _STEMS_WITHOUT_NAMES) & held for one in named):
                how = {"audio": "heard", "video": "seen"}.get(caption.kind, "heard or seen")
                return f"it names {word!r}, of which nothing was {how}"
        return None


def naming(phrase: str) -> list[frozenset[str]]:
    """Returns the sets of stems of which each names a phrase: one for each of its names.

    Of a phrase with an article the verb that ends in -ing is no part: who names the dog names "a dog barking". Names of classes have none.

    >>> [[sorted(words) for words in naming(phrase)] for phrase in ("Chicken, rooster", "a dog barking", "Sewing machine")]
    [[['chicken'], ['rooster']], [['dog']], [['machin', 'sew']]]
    """
    found = []
    for name in re.split(r"[,()]", phrase.replace("-", " ")):
        words = [word for word in words_of(name) if word not in _LITTLE]
        has_article = phrase.lower().startswith(("a ", "an ", "the ", "some"))
        nouns = [word for word in words if not (has_article and _VERB.fullmatch(word))]
        stems = frozenset(stem(word) for word in (nouns if set(nouns) - _NO_NAMES else words))
        if stems - _STEMS_WITHOUT_NAMES:
            found.append(stems)
    return found


def names_of(phrases: Iterable[str]) -> set[str]:
    """Returns the stems of the words in phrases that name something.

    >>> sorted(names_of(["a dog barking", "Rain, falling"]))
    ['bark', 'dog', 'rain']
    """
    return {stem(word) for phrase in phrases for word in words_of(phrase.replace("-", " ")) if word not in _NO_NAMES}


def stem(word: str) -> str:
    """Returns a word without the endings that English gives it, roughly; what matters is that both sides lose the same.

    >>> [stem(word) for word in ("dogs", "barking", "running", "churches", "engine", "hissed", "flies", "wolves")]
    ['dog', 'bark', 'run', 'church', 'engin', 'hiss', 'fly', 'wolf']
    """
    word = word.removesuffix("'s").replace("'", "")
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    for ending in ("ing", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    word = word.removesuffix("e") if len(word) > 3 else word
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] != "s" else word


_STEMS_WITHOUT_NAMES = frozenset(stem(word) for word in _NO_NAMES)
