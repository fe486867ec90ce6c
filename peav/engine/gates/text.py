"""Gates that look at the text alone: what leaked into it, and whether it is a sentence at all."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from peav.engine.gates.base import Gate, Written, register_gate
from peav.engine.gates.words import words_of

_LEAKS = {
    "a number of a score": re.compile(r"\d\s*%|\b[01]?\.\d+\b|\b\d+/10\b"),
    "brackets or markup": re.compile(r"[\[\]{}<>|`*#]|\\n|https?://"),
    "words about the task": re.compile(
        r"\b(probabilit\w+|confidence|(?:low|medium|high)[- ]confidence|labels?|captions?|tags?|tagged|transcripts?|metadata|"
        r"(?:the|this) (?:audio|video|sound)? ?(?:clip|recording|file|input)s?\b(?= (?:contains|features|shows|includes|is|has|captures))|"
        r"based on the|the provided|as requested|json|output)\b",
        re.IGNORECASE,
    ),
    "words of an assistant": re.compile(
        r"\b(as an ai|language model|i can(?:no|')t|i am unable|i'm (?:unable|sorry)|sorry|here(?: is|'s) (?:a|the|your)|sure[,!]|"
        r"certainly[,!]|of course[,!]|please (?:note|provide)|let me know)|\bAI\b",
        re.IGNORECASE,
    ),
}


@register_gate
class Leak(Gate):
    """Finds what a captioner gave away of its task.

    That is scores, brackets, words about labels and captions, an assistant's manners, pieces of the prompt, another script than the one
    wanted, and control characters.

    A third of the captions of one published set say "creating", 6 % hold raw numbers, 4.6 % "label" (Auto-ACD, issue 4).

    Args:
        fragments: pieces of the prompt that no caption holds, and other words of one's own.
        scripts: that letters may be of, as Unicode's names of letters begin; none for all.
    """

    reason_name = "leak"

    def __init__(self, fragments: Sequence[str] = (), scripts: Sequence[str] = ("LATIN",)) -> None:
        self.fragments, self.scripts = [piece.lower() for piece in fragments], tuple(scripts)

    def check(self, caption: Written) -> str | None:
        """Returns what leaked."""
        text = caption.text
        for character in text:
            if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") or (
                unicodedata.category(character) == "Cf" and character not in "\u200c\u200d"
            ):
                return f"it holds the character U+{ord(character):04X}, which is no text"
        for what, pattern in _LEAKS.items():
            if found := pattern.search(text):
                return f"it holds {what}: {found[0]!r}"
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
    """Finds texts that are none: empty, one character or word again and again, loops, too short or too long, cut by the limit of tokens.

    Args:
        min_words: fewest words of a caption.
        max_words: most.
        max_repeated: share of its runs of three words that may have stood in it before; looked at from eight words on.
    """

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
        if found := re.search(r"(\S)\1{5,}", text):
            return f"it repeats {found[1]!r}"
        if not words:
            return "it has no word"
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
