"""Gates that look at what a caption may know: not what is said word by word, and nothing of the other medium."""

from __future__ import annotations

import re
from collections.abc import Sequence

from peav.engine.gates.base import Gate, Written, register_gate
from peav.engine.gates.words import longest_common_run, words_of

_COLOURS = "red|orange|yellow|green|blue|purple|pink|brown|black|white|grey|gray|beige|turquoise|golden|silver"
#: Colours are heard, too: white noise, black metal, blue notes.
_NO_COLOUR = r"(?! (?:noise|metal|notes?|jays?|birds?))"
_CLOTHES = "shirts?|t-shirts?|jackets?|hats?|dress(?:es)?|trousers|jeans|suits?|wearing|dressed|uniforms?|glasses"
_SEEN = (
    r"on[- ]screen|on the screen|in the (?:picture|image|frame|background of the (?:picture|image))|(?:can be|is|are) seen|visible|we see|"
    r"visuals?|camera|close-up|zoom\w*|subtitles?|reads? ['\"]|text (?:reads|says)|looks? like|appears? on|background colou?r|in view|"
    r"in the foreground|pictured?|depict\w*|square|circle|triangle|star-shaped"
)
_HEARD = (
    r"hear|heard|hears|hearing|audible|inaudible|sounds?|sounding|noises?|noisy|loud|loudly|listen\w*|melod\w+|off[- ]screen voice|"
    r"echo\w*|rumbl\w+|hum(?:s|ming)|buzz\w*|beep\w*|chirp\w*|soundtrack|voice[- ]?over"
)


@register_gate
class SpeechContent(Gate):
    """Finds words of the transcript in a caption: captions tell the voice and its manner, the transcript holds the words.

    Args:
        max_run: longest run of words that caption and transcript may have in common.
        kinds: caption types that are looked at.
    """

    reason_name = "speech_content"

    def __init__(self, max_run: int = 3, kinds: Sequence[str] = ("audio", "audio_video")) -> None:
        if max_run < 1:
            raise ValueError(f"max_run must be at least 1, got {max_run}")
        self.max_run, self.kinds = max_run, tuple(kinds)

    def check(self, caption: Written) -> str | None:
        """Returns the words that it quotes."""
        run = longest_common_run(words_of(caption.text), words_of(caption.transcript))
        return f"it quotes what is said: {' '.join(run)!r}" if len(run) > self.max_run else None


@register_gate
class OtherMedium(Gate):
    """Finds words for what is only seen in audio captions (colours, clothes, the screen), and for what is only heard in video captions.

    Args:
        seen: further words that no audio caption has.
        heard: further words that no video caption has.
        allowed: words that pass all the same.
    """

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
