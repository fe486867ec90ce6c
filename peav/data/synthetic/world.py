"""The grammar of scenes: which clip holds what, and which combinations only the validation and test splits may hold.

Everything here is decided by numbers sampled from `(seed, index)`. Nothing is rendered, so a large world is listed in
a moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from peav.data.synthetic.sources import BACKGROUNDS, BY_NAME, SILENT_LOOKS, SOURCES, Source, sources_of, usual_colours
from peav.data.synthetic.speech import sentence

#: Changes whenever the same settings would give another world.
VERSION = 4

_HELD_OUT_PAIRS = 0.4
#: Shares of: one source only (training), overlap, one of two sources off screen, a silent object.
_SINGLE, _OVERLAP, _OFF_SCREEN, _SILENT = 0.12, 0.4, 0.15, 0.3
#: How often a thing comes in the first of its two usual colours.
_FIRST_COLOUR = 0.9
_AUDIO_ONLY, _VIDEO_ONLY = 0.06, 0.06


@dataclass(frozen=True)
class Sounding:
    """One event before it has a time: what sounds, and how."""

    source: Source
    manner: str
    register: str
    level: float
    sentence: str | None = None


@dataclass(frozen=True)
class Thing:
    """One object on screen. `event` is the index of the event that it makes, None for a silent one."""

    look: str
    colour: str
    size: str
    column: str
    row: str
    event: int | None


@dataclass(frozen=True)
class Scene:
    """Everything about a clip but its captions and the exact times of its events.

    Attributes:
        index: Number of the clip in its world.
        seed: Seed of the world.
        split: "train", "validation" or "test".
        media: "audio_video", "audio" or "video": what the file holds.
        mode: "single", "sequence" or "overlap".
        background: Name of the background.
        events: The events in the order in which they start.
        primary: Index of the primary event.
        things: The objects on screen, from left to right.
    """

    index: int
    seed: int
    split: str
    media: str
    mode: str
    background: str
    events: tuple[Sounding, ...]
    primary: int
    things: tuple[Thing, ...]

    @property
    def id(self) -> str:
        """Name of the clip, unique in its world."""
        return f"clip{self.index:06d}"

    def rng(self, stream: int) -> np.random.Generator:
        """Returns the clip's own random numbers: one independent stream for each later step."""
        return np.random.default_rng([self.seed, self.index, stream])


@dataclass(frozen=True)
class HoldOut:
    """What no training clip holds: unordered pairs of sources."""

    pairs: frozenset[tuple[str, str]]


def combination(scene: Scene) -> tuple[str, ...]:
    """Returns the names of the sources that a scene combines, sorted, to be compared with `HoldOut.pairs`."""
    return tuple(sorted(event.source.name for event in scene.events))


def source_pairs(domains: Sequence[str]) -> list[tuple[str, str]]:
    """Returns every pair of sources that may share a clip; two voices do only in a world of nothing but speech."""
    sources = sources_of(domains)
    both_speak = set(domains) == {"speech"}
    return sorted(
        (min(a.name, b.name), max(a.name, b.name))
        for a, b in combinations(sources, 2)
        if both_speak or not a.domain == b.domain == "speech"
    )


def hold_out(domains: Sequence[str]) -> HoldOut:
    """Returns what is held out of training in a world of these domains.

    About 40 % of the pairs, spread so that each source keeps at least half of its partners in training. It depends on
    nothing but the domains.
    """
    pairs = source_pairs(domains)
    partners = {name: sum(name in pair for pair in pairs) for pair in pairs for name in pair}
    held: dict[str, int] = dict.fromkeys(partners, 0)
    chosen: set[tuple[str, str]] = set()
    shuffled = [pairs[k] for k in np.random.default_rng(0).permutation(len(pairs))]
    for a, b in shuffled:
        if len(chosen) >= round(_HELD_OUT_PAIRS * len(pairs)):
            break
        if all(held[name] + 1 <= 0.5 * partners[name] for name in (a, b)):
            chosen.add((a, b))
            held[a] += 1
            held[b] += 1
    return HoldOut(frozenset(chosen))


def split_sizes(clips: int) -> dict[str, int]:
    """Returns how many clips each split has.

    test = max(clips // 10, min(120, clips // 5)) and validation = clips // 25, each at least one; the rest is training.

    >>> split_sizes(1600)
    {'train': 1376, 'validation': 64, 'test': 160}
    """
    test = max(1, clips // 10, min(120, clips // 5))
    validation = max(1, clips // 25)
    return {"train": clips - test - validation, "validation": validation, "test": test}


def sample_world(clips: int, seed: int = 0, domains: Sequence[str] = ("speech", "music", "effects")) -> list[Scene]:
    """Returns the scenes of a world, in the order of their indices.

    Args:
        clips: Number of clips, at least 5.
        seed: Seed of everything random.
        domains: Domains whose sources appear.

    Raises:
        ValueError: If there are too few clips for three splits, or a domain does not exist.
    """
    if clips < 5:
        raise ValueError(f"clips={clips}: a world needs at least 5, so that each split has one.")
    held = hold_out(domains)
    kept = [pair for pair in source_pairs(domains) if pair not in held.pairs]
    rng = np.random.default_rng([seed, clips])
    sizes = split_sizes(clips)
    order = rng.permutation(clips)
    scenes: list[Scene] = []
    start = 0
    for split in ("test", "validation", "train"):
        pairs = kept if split == "train" else sorted(held.pairs)
        turn = rng.permutation(len(pairs))
        for rank, index in enumerate(sorted(int(k) for k in order[start : start + sizes[split]])):
            # Every pair once in a round, and with its two sources in swapped roles in the next.
            pair = pairs[turn[rank % len(pairs)]]
            scenes.append(_scene(seed, index, split, pair if (rank // len(pairs)) % 2 == 0 else pair[::-1]))
        start += sizes[split]
    return sorted(scenes, key=lambda scene: scene.index)


def _scene(seed: int, index: int, split: str, pair: tuple[str, str]) -> Scene:
    rng = np.random.default_rng([seed, index])
    train = split == "train"
    media = "audio_video"
    # A test clip has everything, so that every retrieval task ranks the same clips.
    if split != "test":
        media = str(
            rng.choice(("audio", "video", "audio_video"), p=(_AUDIO_ONLY, _VIDEO_ONLY, 1 - _AUDIO_ONLY - _VIDEO_ONLY))
        )
    names = [pair[0]] if train and rng.random() < _SINGLE else list(pair)
    mode = "single" if len(names) == 1 else ("overlap" if rng.random() < _OVERLAP else "sequence")
    if sum(BY_NAME[name].domain == "speech" for name in names) == 2:
        mode = "sequence"  # two voices at once could not be told apart
    first = int(rng.integers(len(names)))
    names = names if first == 0 else names[::-1]
    events = tuple(_sounding(rng, BY_NAME[name], short=mode == "sequence" and len(names) == 2) for name in names)
    return Scene(
        index=index,
        seed=seed,
        split=split,
        media=media,
        mode=mode,
        background=str(rng.choice(list(BACKGROUNDS))),
        events=events,
        primary=first,
        things=() if media == "audio" else _things(rng, events, first),
    )


def _sounding(rng: np.random.Generator, source: Source, short: bool) -> Sounding:
    manner = str(rng.choice(source.manners)) if source.manners else ""
    register = str(rng.choice(("low", "high"))) if source.pitched else ""
    level = float(0.16 * 10 ** (rng.uniform(-2.5, 2.5) / 20))
    text = sentence(rng, short and bool(rng.random() < 0.5)) if source.domain == "speech" else None
    return Sounding(source, manner, register, level, text)


def _things(rng: np.random.Generator, events: Sequence[Sounding], primary: int) -> tuple[Thing, ...]:
    """Draws the objects on screen and puts them where they do not touch: neighbours in different rows."""
    shown = list(range(len(events)))
    if len(events) == 2 and rng.random() < _OFF_SCREEN:
        shown = [primary if rng.random() < 2 / 3 else 1 - primary]
    shown.sort(key=lambda k: k != primary)
    looks: list[tuple[str, int | None]] = [(events[k].source.look, k) for k in shown]
    if rng.random() < _SILENT:
        taken = {event.source.look for event in events}
        idle = [source.look for source in SOURCES if source.look not in taken]
        looks.append((str(rng.choice(SILENT_LOOKS)) if rng.random() < 0.75 else str(rng.choice(idle)), None))
    spots = _spots(rng, len(looks))
    things = []
    used: set[str] = set()
    for (look, event), (column, row) in zip(looks, spots, strict=True):
        usual = usual_colours(look)
        if look in SILENT_LOOKS:
            colour = str(rng.choice([colour for colour in usual if colour not in used]))
        else:
            first = rng.random() < _FIRST_COLOUR
            colour = usual[0 if first else 1]
        used.add(colour)
        large = rng.random() < 0.5
        if event is not None and events[event].register:
            large = rng.random() < (0.8 if events[event].register == "low" else 0.2)
        things.append(Thing(look, colour, "large" if large else "small", column, row, event))
    return tuple(sorted(things, key=lambda thing: ("left", "middle", "right").index(thing.column)))


def _spots(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    columns = ["left", "middle", "right"]
    if count < 3:
        columns = sorted(str(column) for column in rng.choice(columns, count, replace=False))
    rows = rng.permutation(["top", "bottom"])
    if "middle" in columns:
        # A neighbour of the middle keeps clear of it in the other row.
        spots = [(column, str(rows[int(column == "middle")])) for column in columns]
    else:
        spots = [(column, str(rng.choice(rows))) for column in columns]
    return [spots[k] for k in rng.permutation(count)]


def timeline(scene: Scene, speech_seconds: Mapping[int, float], fps: int) -> tuple[int, list[tuple[float, float]]]:
    """Gives the events of a scene their times.

    Args:
        scene: The scene.
        speech_seconds: Length in seconds of each event that is speech, by its index; the others are free.
        fps: Video frames a second, in which the clip's length is counted.

    Returns:
        The number of frames of the clip (4 to 5 s), and the (onset, offset) of each event in seconds, to the
        millisecond.
    """
    rng = scene.rng(1)
    frames = int(rng.integers(4 * fps, 5 * fps + 1))
    if any(length > 1.8 for length in speech_seconds.values()):
        frames = 5 * fps
    seconds = frames / fps
    lead, tail = rng.uniform(0.12, 0.35), 0.12
    room = seconds - lead - tail

    def length(event: int, low: float, high: float) -> float:
        sampled = rng.uniform(low, max(low, high))
        return speech_seconds.get(event, sampled)

    if scene.mode == "single":
        first = length(0, 1.4, 3.0)
        spans = [(lead + rng.uniform(0, max(0.0, room - first)), first)]
    elif scene.mode == "sequence":
        gap = rng.uniform(0.15, 0.4)
        second_at_least = speech_seconds.get(1, 0.9)
        first = length(0, 0.9, min(2.8, room - gap - second_at_least))
        second = length(1, 0.9, min(2.8, room - gap - first))
        spans = [(lead, first), (lead + first + gap, second)]
    else:
        share = rng.uniform(0.3, 0.6)
        second_at_least = speech_seconds.get(1, 1.2)
        first = length(0, 1.4, min(2.8, (room - second_at_least) / share))
        later = min(lead + share * first, seconds - tail - second_at_least)
        second = length(1, 1.2, min(2.8, seconds - tail - later))
        spans = [(lead, first), (later, second)]
    return frames, [(round(onset, 3), round(min(onset + long, seconds), 3)) for onset, long in spans]
