"""Copies of a prepared synthetic world with less in them: fewer clips, fewer captions, or those of a weak captioner."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from peav.data.manifests.clip import Clip
from peav.data.manifests.manifest import iter_manifest, manifest_path, save_manifest
from peav.data.manifests.texts import Caption
from peav.data.synthetic.sources import COLOURS, SILENT_LOOKS, SIZES, SOURCES

#: What the weak captioner does to each thing that a caption names: leave it out, or take it for another of its kind.
OMITS, CONFUSES = 0.3, 0.2

#: The share of the clips that have captions written by people.
REAL_SHARE = 0.1

#: What can be left out or taken for another, by kind: sounds, shapes, and the words that describe them.
_SOUNDS = tuple(source.phrase for source in SOURCES)
_LOOKS = (*dict.fromkeys(source.look for source in SOURCES), *SILENT_LOOKS)
_MANNERS = tuple(dict.fromkeys(manner for source in SOURCES for manner in source.manners))
_KINDS = (_SOUNDS, _LOOKS, tuple(COLOURS), tuple(SIZES), _MANNERS)

#: What stands for a sound or a shape of which nothing was said; an adjective or adverb leaves nothing behind.
_VAGUE = {_SOUNDS: "a sound", _LOOKS: "thing"}

#: What a caption is where the captioner heard or saw nothing at all.
_NOTHING = {"audio": "a sound", "video": "a picture", "audio_video": "a sound and a picture"}


@cache
def _pattern() -> re.Pattern[str]:
    words = sorted((word for kind in _KINDS for word in kind), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b")


def weaken(text: str, rng: np.random.Generator, omits: float = OMITS, confuses: float = CONFUSES) -> str:
    """Returns a caption as a weak captioner would write it: each thing it names is omitted or confused with a probability.

    Quoted speech is left out: such captioners do not transcribe.

    Args:
        text: caption of the synthetic world.
        rng: of the choices.
        omits: probability that a sound, shape, colour, size or manner is left out.
        confuses: probability that it is taken for another of its kind.

    >>> weaken("a bell ringing twice", np.random.default_rng(0), omits=0.0, confuses=0.0)
    'a bell ringing twice'
    """

    def change(found: re.Match[str]) -> str:
        word = found.group()
        kind = next(kind for kind in _KINDS if word in kind)
        chance = rng.random()
        if chance < omits:
            return _VAGUE.get(kind, "")
        if chance < omits + confuses:
            others = [other for other in kind if other != word]
            return others[int(rng.integers(len(others)))]
        return word

    unquoted = re.sub(r',? (?:saying|who says|with the words) "[^"]*"', "", text)
    return " ".join(_pattern().sub(change, unquoted).split())


def synthetic_captions(clip: Clip, seed: int = 0) -> dict[str, tuple[Caption, ...]]:
    """Returns the weak captioner's caption of each type that a clip has one of."""
    found: dict[str, tuple[Caption, ...]] = {}
    for kind, captions in clip.captions.items():
        rng = np.random.default_rng([seed, int.from_bytes(f"{clip.id}/{kind}".encode()) % (1 << 63)])
        found[kind] = (Caption(weaken(captions[0].text, rng) or _NOTHING.get(kind, "something"), "synthetic"),)
    return found


def chosen(clips: Iterable[Clip], share: float, seed: int = 0) -> list[Clip]:
    """Returns a share of clips, chosen at random; a smaller share is part of a larger one."""
    every = list(clips)
    order = np.random.default_rng(seed).permutation(len(every))
    kept = set(order[: max(1, round(share * len(every)))].tolist())
    return [clip for place, clip in enumerate(every) if place in kept]


def write_world(data: Path, out: Path, change: Callable[[list[Clip]], list[Clip]]) -> Path:
    """Writes a copy of a prepared folder with other training clips; it appears when it is whole. Shards are links where they can be.

    Args:
        data: the prepared folder.
        out: of the copy; kept if it is there.
        change: from the training clips to those of the copy.
    """
    if out.is_dir():
        return out
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(data, partial, copy_function=_link, ignore=shutil.ignore_patterns("manifest"))
    for split in ("train", "validation", "test"):
        clips = [clip for _, clip in iter_manifest(manifest_path(data, split))]
        save_manifest(partial, split, change(clips) if split == "train" else clips)
    partial.rename(out)
    return out


def part(share: float) -> Callable[[list[Clip]], list[Clip]]:
    """Returns what keeps a share of the clips."""
    return lambda clips: chosen(clips, share)


def captioned(real: bool, synthetic: bool) -> Callable[[list[Clip]], list[Clip]]:
    """Returns what gives clips captions of some sources: a tenth of them real ones, the others the weak captioner's.

    Where real ones are alone, the tenth is all that is kept; where synthetic ones are, every clip has one. What is said is known of
    clips with real captions alone.
    """

    def change(clips: list[Clip]) -> list[Clip]:
        tenth = {clip.id for clip in chosen(clips, REAL_SHARE)}
        found = []
        for clip in clips:
            if real and clip.id in tenth:
                found.append(clip)
            elif synthetic:
                found.append(replace(clip, captions=synthetic_captions(clip), transcript=None, segments=()))
        return found

    return change


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
    return target
