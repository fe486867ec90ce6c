"""Gates that look at what a caption may know: not what is said word by word, and nothing of the other medium."""

from __future__ import annotations

import re
from collections.abc import Sequence

from peav.engine.gates.base import Gate, Written, register_gate
from peav.engine.gates.words import longest_common_run, words_of

_COLOURS = (
    "red|orange|yellow|green|blue|purple|pink|brown|black|white|grey|gray|beige|turquoise|golden|silver|crimson|scarlet|maroon|violet|teal|"
    "magenta|cyan|lavender"
)
#: Colours are heard, too: white noise, black metal, blue notes.
_NO_COLOUR = r"(?! (?:noise|metal|notes?|jays?|birds?))"
_CLOTHES = "shirts?|t-shirts?|jackets?|hats?|dress(?:es)?|trousers|jeans|suits?|wearing|dressed|uniforms?|glasses"
_SEEN = (
    r"on[- ]screen|on the screen|in the (?:picture|image|frame|background of the (?:picture|image))|(?:can be|is|are) seen|visible|we see|"
    r"visuals?|camera|close-up|zoom\w*|subtitles?|reads? ['\"]|text (?:reads|says)|looks? like|appears? on|background colou?r|in view|"
    r"in the foreground|pictured?|depict\w*|square(?! (?:wave|lead))|circle|triangle(?! (?:wave|rings|ringing|plays|playing))|star-shaped|"
    r"(?:is|are|as) shown|watermark|logo|sign (?:reads|says)|"
    r"(?:the|this|an?) (?:image|picture|video|frame|scene|footage) (?:shows|of|is|features)|smil(?:es|ing)|bearded|bald|blond\w*|"
    r"(?:long|short|dark|curly) hair(?:ed)?"
)
_HEARD = (
    r"hear|heard|hears|hearing|audible|inaudible|sounds?|sounding|noises?|noisy|loud|loudly|listen\w*|melod\w+|off[- ]screen voice|"
    r"echo\w*|rumbl\w+|hum(?:s|ming)|buzz\w*|beep\w*|chirp\w*|soundtrack|voice[- ]?over|ringing|roar\w*|clatter\w*|crackl\w*|hiss\w*|"
    r"creak\w*|thud\w*|clang\w*|sizzl\w*|audio"
)


#: What stands in quotation marks; apostrophes within it are none.
_MARKED = re.compile(
    r"""["\u201c\u201d\u201e\u00ab]([^"\u201c\u201d\u201e\u00ab\u00bb]+)["\u201c\u201d\u00bb]|(?<!\w)'((?:[^']|\w'\w)+)'(?!\w)"""
)

#: What stands behind a word of saying.
_BEHIND = re.compile(
    r"\b(?:says?|saying|said|shout(?:s|ing)?|yell(?:s|ing)?|asks?|asking|whisper(?:s|ing)?|exclaim(?:s|ing)?|calls? out)"
    r"(?: that| the words?)?[,:]? (.+)",
    re.IGNORECASE,
)


@register_gate
class SpeechContent(Gate):
    """Finds words of the transcript in a caption: captions tell the voice and its manner, the transcript holds the words.

    A quotation, in marks or behind a word of saying, is found however short the transcript is: `a man says "stop"`. Other words that both
    have in common may be chance.

    Args:
        max_run: longest run of words that caption and transcript may have in common.
        kinds: caption types that are looked at.
    """

    version = 2
    reason_name = "speech_content"

    def __init__(self, max_run: int = 3, kinds: Sequence[str] = ("audio", "audio_video")) -> None:
        if max_run < 1:
            raise ValueError(f"max_run must be at least 1, got {max_run}")
        self.max_run, self.kinds = max_run, tuple(kinds)

    def check(self, caption: Written) -> str | None:
        """Returns the words that it quotes."""
        said = words_of(caption.transcript)
        run = longest_common_run(words_of(caption.text), said)
        if len(run) > self.max_run:
            return f"it quotes what is said: {' '.join(run)!r}"
        text = caption.text.replace("\u2019", "'")
        marked = [words_of(found[1] or found[2]) for found in _MARKED.finditer(text)]
        # Behind a word of saying the sentence may go on after the quotation.
        behind = [words_of(found[1])[: len(said)] for found in _BEHIND.finditer(text)]
        quoted = [part for part in marked if part and longest_common_run(part, said) == part]
        quoted += [part for part in behind if part and part == said]
        return f"it quotes what is said: {' '.join(quoted[0])!r}" if quoted else None


@register_gate
class OtherMedium(Gate):
    """Finds words for what is only seen in audio captions (colours, clothes, the screen), and for what is only heard in video captions.

    Args:
        seen: further words that no audio caption has.
        heard: further words that no video caption has.
        allowed: words that pass all the same.
    """

    version = 2
    reason_name = "other_medium"
    kinds = ("audio", "video")

    def __init__(
        self,
        seen: Sequence[str] = (),
        heard: Sequence[str] = (),
        allowed: Sequence[str] = (),
    ) -> None:
        more_seen, more_heard = (_either(words) for words in (seen, heard))
        self._seen = re.compile(
            rf"\b(?:(?:{_COLOURS}){_NO_COLOUR}|{_CLOTHES}|{_SEEN}{more_seen})(?:\b|$)", re.IGNORECASE
        )
        self._heard = re.compile(rf"\b(?:{_HEARD}{more_heard})\b", re.IGNORECASE)
        self._allowed = {word.lower() for word in allowed}

    def check(self, caption: Written) -> str | None:
        """Returns a word that the medium cannot know."""
        pattern = self._seen if caption.kind == "audio" else self._heard
        for found in pattern.finditer(caption.text):
            if found[0].lower() not in self._allowed:
                what = "seen" if caption.kind == "audio" else "heard"
                return f"it says {found[0]!r}, which is only {what}"
        return None


def _either(words: Sequence[str]) -> str:
    return "".join(f"|{re.escape(word)}" for word in words)
