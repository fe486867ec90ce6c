"""The inhabitants of the synthetic world: what sounds, how it looks, how it moves, and what stands by in silence.

Nothing is rendered here. A source ties one canonical event phrase to one look, which comes in two usual colours, and to one kind of motion;
size and place are free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DOMAINS = ("speech", "music", "effects")

#: What each colour name looks like, (red, green, blue).
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 44, 46),
    "orange": (246, 138, 30),
    "yellow": (248, 216, 48),
    "green": (52, 172, 76),
    "blue": (48, 104, 226),
    "purple": (140, 68, 190),
    "pink": (248, 132, 184),
    "white": (248, 248, 246),
    "turquoise": (36, 200, 196),
    "brown": (134, 84, 42),
    "grey": (136, 138, 146),
    "lime": (168, 226, 36),
}

#: Top and bottom colour of each background.
BACKGROUNDS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "dark navy": ((20, 26, 52), (20, 26, 52)),
    "dark grey": ((44, 44, 50), (44, 44, 50)),
    "dark dusk": ((18, 16, 40), (78, 50, 84)),
    "dark forest": ((12, 36, 36), (36, 66, 54)),
    "bright cream": ((244, 234, 208), (244, 234, 208)),
    "bright grey": ((216, 220, 226), (216, 220, 226)),
    "bright sky": ((170, 206, 238), (228, 240, 246)),
    "bright meadow": ((232, 238, 214), (196, 222, 184)),
}

#: Height of an object as a fraction of the frame's height.
SIZES = {"small": 0.28, "large": 0.42}

_COUNTS = ("once", "twice", "three times")
_SPEEDS = ("slowly", "quickly")
_TUNES = ("a rising melody", "a falling melody", "chords", "one note again and again")


@dataclass(frozen=True)
class Source:
    """One kind of sound and the object that makes it.

    Attributes:
        name: Short name; also names the synthesiser, or the flite voice for speech.
        domain: "speech", "music" or "effects".
        phrase: The canonical event phrase, the same in every clip.
        look: Name of the shape that makes this sound.
        motion: How the shape moves while it sounds.
        manners: The ways in which it can sound, as the audio caption says them; empty where there is only one.
        pitched: Whether it comes in a low and a high register.
    """

    name: str
    domain: str
    phrase: str
    look: str
    motion: str
    manners: tuple[str, ...] = ()
    pitched: bool = True


SOURCES: tuple[Source, ...] = (
    Source("bell", "effects", "a bell ringing", "bell", "swing", _COUNTS),
    Source("siren", "effects", "a siren wailing", "cross", "flash", _SPEEDS),
    Source(
        "engine",
        "effects",
        "an engine running",
        "gear",
        "shake",
        ("steadily", "faster and faster", "slower and slower"),
    ),
    Source("rain", "effects", "rain falling", "drop", "slide", ("lightly", "heavily"), pitched=False),
    Source(
        "knocking",
        "effects",
        "someone knocking",
        "square",
        "bounce",
        ("twice", "three times", "four times"),
        pitched=False,
    ),
    Source("whistle", "effects", "a whistle blowing", "triangle", "stretch", ("up", "down", "steadily")),
    Source("clock", "effects", "a clock ticking", "hourglass", "swing", _SPEEDS, pitched=False),
    Source("dog", "effects", "a dog barking", "bone", "bounce", ("twice", "three times", "four times")),
    Source("alarm", "effects", "an alarm beeping", "diamond", "flash", _SPEEDS),
    Source("horn", "effects", "a horn honking", "arrow", "slide", _COUNTS),
    Source("birds", "effects", "birds chirping", "crescent", "shake", _SPEEDS, pitched=False),
    Source("piano", "music", "a piano playing", "bar chart", "stretch", _TUNES),
    Source("organ", "music", "an organ playing", "hexagon", "pulse", _TUNES),
    Source("flute", "music", "a flute playing", "ring", "pulse", _TUNES[:2] + _TUNES[3:]),
    Source("guitar", "music", "a guitar playing", "star", "spin", _TUNES),
    Source("violin", "music", "a violin playing", "pinwheel", "spin", _TUNES[:2] + _TUNES[3:]),
    Source("marimba", "music", "a marimba playing", "flower", "bounce", _TUNES[:2] + _TUNES[3:]),
    Source("bass", "music", "a bass playing", "heart", "pulse", _TUNES[:2] + _TUNES[3:], pitched=False),
    Source("slt", "speech", "a woman speaking", "face with long hair", "talk", pitched=False),
    Source("rms", "speech", "a man speaking", "face with a hat", "talk", pitched=False),
    Source("awb", "speech", "an old man speaking", "face with a beard", "talk", pitched=False),
    Source("kal", "speech", "a robot speaking", "square face", "talk", pitched=False),
)

BY_NAME: dict[str, Source] = {source.name: source for source in SOURCES}

#: Shapes that never make a sound.
SILENT_LOOKS = ("house", "tree", "cloud", "ball", "cup", "boat", "flag", "key")


def usual_colours(look: str) -> tuple[str, ...]:
    """Returns the colours in which a look comes: two for what sounds, mostly the first, and all for the rest.

    Each colour is shared by three or four sounding looks, so that colour hints at a sound but never gives it away.

    >>> usual_colours("bell"), len(usual_colours("house"))
    (('red', 'orange'), 12)
    """
    colours = tuple(COLOURS)
    for index, source in enumerate(SOURCES):
        if source.look == look:
            # Neighbours for the first twelve, three apart for the others: no two looks have the same two.
            first = 5 * index % len(colours)
            return colours[first], colours[(first + (1 if index < len(colours) else 3)) % len(colours)]
    return colours


def sources_of(domains: Sequence[str]) -> tuple[Source, ...]:
    """Returns the sources of these domains, in the order of `SOURCES`.

    Raises:
        ValueError: If `domains` is empty or names a domain that does not exist.
    """
    unknown = [domain for domain in domains if domain not in DOMAINS]
    if unknown or not domains:
        raise ValueError(f"domains {list(domains)!r}: choose one or more of {', '.join(DOMAINS)}.")
    return tuple(source for source in SOURCES if source.domain in domains)
