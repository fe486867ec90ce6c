"""Gates that look at the text alone: what leaked into it, and whether it is a sentence at all."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from peav.engine.gates.base import Gate, Written, register_gate
from peav.engine.gates.leaks import LEAKS
from peav.engine.gates.words import words_of

#: Sentences that end in one of these break off.
_NO_ENDS = frozenset(
    ("a", "an", "the", "and", "or", "of", "with", "while", "as", "from", "into", "is", "are", "was", "were")
)

#: All that some models answer when they have nothing to say.
_NOTHING = frozenset(("null", "none", "nil", "nan", "n a", "na", "undefined", "unknown", "nothing", "empty"))


@register_gate
class Leak(Gate):
    """Finds what a captioner gave away of its task.

    That is scores in digits or words, brackets, lists and other markup, names of fields, words about labels and captions, an assistant's
    manners, pieces of the prompt, another script than the one wanted, control characters and pictograms.

    A third of the captions of one published set say "creating", 6 % hold raw numbers, 4.6 % "label" (Auto-ACD, issue 4).

    Args:
        fragments: pieces of the prompt that no caption holds, and other words of one's own.
        scripts: that letters may be of, as Unicode's names of letters begin; none for all.
    """

    version = 2
    reason_name = "leak"

    def __init__(self, fragments: Sequence[str] = (), scripts: Sequence[str] = ("LATIN",)) -> None:
        self.fragments, self.scripts = [piece.lower() for piece in fragments], tuple(scripts)

    def check(self, caption: Written) -> str | None:
        """Returns what leaked."""
        text = caption.text
        for character in text:
            if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn", "So") or (
                unicodedata.category(character) == "Cf" and character not in "\u200c\u200d"
            ):
                return f"it holds the character U+{ord(character):04X}, which is no text"
        even = unicodedata.normalize("NFKC", text).replace("\u2019", "'").strip()
        for what, pattern in LEAKS.items():
            if found := pattern.search(even):
                return f"it holds {what}: {found[0].strip()!r}"
        lower = text.lower()
        for piece in self.fragments:
            if piece in lower:
                return f"it holds {piece!r} of the prompt"
        if self.scripts:
            letters = [character for character in text if character.isalpha()]
            other = [c for c in letters if not unicodedata.name(c, "").startswith(self.scripts)]
            if other:
                return f"it holds {other[0]!r}, which is no letter of {', '.join(self.scripts)}"
        return None


@register_gate
class Degenerate(Gate):
    """Finds texts that are none: empty, one character, word or sentence again and again, loops, too short or too long, broken off.

    Args:
        min_words: fewest words of a caption.
        max_words: most.
        max_repeated: share of its runs of three words that may have stood in it before; looked at from eight words on.
    """

    version = 2
    reason_name = "degenerate"

    def __init__(self, min_words: int = 1, max_words: int = 100, max_repeated: float = 0.3) -> None:
        if not 0 < min_words <= max_words:
            raise ValueError(
                f"min_words and max_words must be 1 or more, and in this order, got {min_words} and {max_words}"
            )
        self.min_words, self.max_words, self.max_repeated = min_words, max_words, max_repeated

    def check(self, caption: Written) -> str | None:
        """Returns what is wrong with the text."""
        text, words = caption.text.strip(), words_of(caption.text)
        if not text:
            return "it is empty"
        if caption.finish == "length":
            return "it was cut by the limit of tokens"
        if found := re.search(r"(\S)\1{5,}|(\S{2,8}?)\2{4,}", text):
            return f"it repeats {found[1] or found[2]!r}"
        if not words:
            return "it has no word"
        if " ".join(words) in _NOTHING:
            return f"it says nothing but {text!r}"
        if len(words) > 1 and words[-1] in _NO_ENDS:
            return f"it breaks off after {words[-1]!r}"
        if len(words) > 1 and len(set(words)) == 1:
            return f"it says nothing but {words[0]!r}"
        if again := _said_twice(text):
            return f"it says {again!r} twice"
        if not self.min_words <= len(words) <= self.max_words:
            return f"it has {len(words)} words, not {self.min_words} to {self.max_words}"
        for place in range(len(words) - 2):
            if words[place] == words[place + 1] == words[place + 2]:
                return f"it says {words[place]!r} three times in a row"
        if len(words) >= 8:
            runs = Counter(zip(words, words[1:], words[2:], strict=False))
            repeated = 1 - len(runs) / sum(runs.values())
            if repeated > self.max_repeated:
                return f"it runs in circles: {repeated:.0%} of its runs of three words stood in it before"
        return None


def _said_twice(text: str) -> str:
    """Returns a sentence of three words or more that stands twice in a text; "" if none does.

    >>> _said_twice("A dog barks. Rain falls. A dog barks!")
    'a dog barks'
    """
    sentences = (" ".join(words_of(one)) for one in re.split(r"[.!?;\n]+", text))
    counts = Counter(one for one in sentences if one.count(" ") >= 2)
    return next((one for one, count in counts.items() if count > 1), "")
