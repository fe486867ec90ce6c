"""The words: three captions of a clip, each of which says only what its medium shows.

The audio caption names sources, their order and manner; the video caption names shapes, colours, sizes, motions and
places and never a sound; the audio-video caption ties each sound to its object and tells what is off screen or silent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peav.data.synthetic.sources import BY_NAME
from peav.data.synthetic.world import Scene, Sounding, Thing

_SEQUENCE = (
    "{a}, then {b}",
    "{a} followed by {b}",
    "{a} and then {b}",
    "first {a}, after that {b}",
    "{b} after {a}",
    "{a} before {b}",
    "{a}; later {b}",
)
_OVERLAP = (
    "{a} while {b} joins in",
    "{a} overlapping with {b}",
    "{a} and {b} at the same time",
    "{a} together with {b}",
    "{b} over {a}",
    "{a}, mixed with {b}",
    "{a} with {b} on top",
)
_SINGLE = (
    "{a}",
    "the sound of {a}",
    "only {a}",
    "{a} and nothing else",
    "a recording of {a}",
    "we hear {a}",
)
_REGISTER = {
    "low": ("at a low pitch", "low and deep", "in a low tone"),
    "high": ("at a high pitch", "high and bright", "in a high tone"),
}
_SAID = ("saying", "who says", "with the words")

_MOVES = {
    "swing": ("swings", "rocks from side to side", "tilts left and right"),
    "flash": ("flashes", "lights up", "blinks"),
    "shake": ("shakes", "trembles", "jitters"),
    "bounce": ("bounces", "jumps up", "hops"),
    "spin": ("spins", "turns around", "rotates"),
    "pulse": ("pulses", "swells", "grows and shrinks"),
    "stretch": ("stretches", "gets taller", "grows upward"),
    "slide": ("slides", "moves sideways", "glides to the side"),
    "talk": ("moves its mouth", "opens and closes its mouth", "opens its mouth"),
}
_STILL = ("rests", "stands still", "does not move", "stays in place", "is still")

_SEEN_SEQUENCE = (
    "{a}, then {b}",
    "{a} and then {b}",
    "first {a}, after that {b}",
    "{a}; later {b}",
    "{a} before {b}",
    "{b} after {a}",
)
_SEEN_TOGETHER = (
    "{a} and {b}",
    "{a} while {b}",
    "{a}, and {b}",
    "{b} and {a}",
    "{a} as {b}",
    "{b} while {a}",
)
_SEEN = (
    "{s}",
    "{s}",
    "we see how {s}",
    "in the picture {s}",
    "{s} on a {tone} background",
    "a {tone} scene: {s}",
    "a drawing: {s}",
)

_MAKES = (
    "{x} {verb} with the sound of {s}",
    "{x} {verb} as we hear {s}",
    "the sound of {s} comes from {x} that {verb}",
    "{x} makes the sound of {s}",
    "{s} as {x} {verb}",
    "{x} {verb} to {s}",
)
_UNSEEN = (
    "{s} off screen",
    "we hear {s} off screen",
    "{s} out of sight",
    "the sound of {s} comes from outside the picture",
    "the sound of {s} from something not shown",
    "{s} without a visible source",
)
_SILENT = (
    "{x} is silent",
    "{x} makes no sound",
    "{x} rests in silence",
    "{x} stays quiet",
    "{x} stands still without a sound",
    "{x} does nothing",
)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def heard(rng: np.random.Generator, event: Sounding, detail: float = 0.8, quote: float = 0.5) -> str:
    """Returns an event in words, such as "a bell ringing twice at a low pitch".

    Details and quoted words come with the probabilities `detail` and `quote`.
    """
    words = event.source.phrase
    if event.sentence is not None:
        return f'{words}, {_pick(rng, _SAID)} "{event.sentence}"' if rng.random() < quote else words
    if event.manner and rng.random() < detail:
        words += f" {event.manner}"
    if event.register and rng.random() < detail * 0.7:
        words += f" {_pick(rng, _REGISTER[event.register])}"
    return words


def named(rng: np.random.Generator, thing: Thing, size: float = 0.7, place: float = 0.6) -> str:
    """Returns an object in words, such as "a large red star on the left".

    Its size and place come with the probabilities `size` and `place`.
    """
    words = f"{thing.colour} {thing.look}"
    if rng.random() < size:
        words = f"{thing.size} {words}"
    article = "an" if words[0] in "aeiou" else "a"
    if rng.random() >= place:
        return f"{article} {words}"
    side = "in the middle" if thing.column == "middle" else f"on the {thing.column}"
    corner = f"at the {thing.row}" if thing.column == "middle" else f"at the {thing.row} {thing.column}"
    return f"{article} {words} {_pick(rng, (side, side, corner))}"


def audio_caption(rng: np.random.Generator, scene: Scene) -> str:
    """Returns what is heard."""
    parts = [heard(rng, event) for event in scene.events]
    if len(parts) == 1:
        return _pick(rng, _SINGLE).format(a=parts[0])
    return _pick(rng, _OVERLAP if scene.mode == "overlap" else _SEQUENCE).format(a=parts[0], b=parts[1])


def _moving(scene: Scene) -> list[tuple[Thing, Sounding]]:
    """Returns the objects that sound, with their events, in the order in which they begin."""
    by_event = {thing.event: thing for thing in scene.things}
    return [(by_event[k], event) for k, event in enumerate(scene.events) if k in by_event]


def video_caption(rng: np.random.Generator, scene: Scene) -> str:
    """Returns what is seen, without a word about sound."""
    clauses = []
    for thing, event in _moving(scene):
        clauses.append(f"{named(rng, thing)} {_pick(rng, _MOVES[event.source.motion])}")
    if len(clauses) == 2:
        joins = _SEEN_SEQUENCE if scene.mode == "sequence" else _SEEN_TOGETHER
        seen = _pick(rng, joins).format(a=clauses[0], b=clauses[1])
    else:
        seen = clauses[0]
    for thing in scene.things:
        if thing.event is None:
            still = f"{named(rng, thing)} {_pick(rng, _STILL)}"
            seen = _pick(
                rng,
                (
                    f"{seen}; {still}",
                    f"{seen}, and {still}",
                    f"{still} while {seen}",
                    f"{seen} near {named(rng, thing)}",
                ),
            )
    return _pick(rng, _SEEN).format(s=seen, tone=scene.background.split()[0])


def audio_video_caption(rng: np.random.Generator, scene: Scene) -> str:
    """Returns who makes which sound, what is heard off screen and what is silent."""
    by_event = {thing.event: thing for thing in scene.things if thing.event is not None}
    clauses = []
    for k, event in enumerate(scene.events):
        sound = heard(rng, event, detail=0.4, quote=0.25)
        if k in by_event:
            verb = _pick(rng, _MOVES[event.source.motion])
            clauses.append(_pick(rng, _MAKES).format(x=named(rng, by_event[k], 0.5, 0.35), verb=verb, s=sound))
        else:
            clauses.append(_pick(rng, _UNSEEN).format(s=sound))
    if len(clauses) == 2:
        joins = (
            (", then ", "; after that ", " and then ")
            if scene.mode == "sequence"
            else (" while ", ", and at the same time ", " as ")
        )
        words = _pick(rng, joins).join(clauses)
    else:
        words = clauses[0]
    for thing in scene.things:
        if thing.event is None:
            words += _pick(rng, ("; ", ", and ")) + _pick(rng, _SILENT).format(x=named(rng, thing, 0.5, 0.35))
    return words


def transcript(scene: Scene) -> str | None:
    """Returns what is said in a clip, in order, or None if nobody speaks."""
    said = [event.sentence for event in scene.events if event.sentence is not None]
    return ". ".join(said) if said else None


def captions(scene: Scene) -> dict[str, str]:
    """Returns the captions of a clip by caption type: only those that its media allow."""
    rng = scene.rng(2)
    audio, video, both = audio_caption(rng, scene), "", ""
    if scene.things:
        video, both = video_caption(rng, scene), audio_video_caption(rng, scene)
    if scene.media == "audio":
        return {"audio": audio}
    if scene.media == "video":
        return {"video": video}
    return {"audio": audio, "video": video, "audio_video": both}


def domain_of(scene: Scene) -> str:
    """Returns the domain of the primary event."""
    return BY_NAME[scene.events[scene.primary].source.name].domain
