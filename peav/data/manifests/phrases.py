"""The distinct phrases of the events of a manifest, kept beside it, from which a phrase bank is drawn in bounded memory.

They are found once, in one pass, and kept in the folder of the manifest's columns until it changes: one file of text, which is mapped into
memory, and where each phrase begins in it. Their order follows from the phrases alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peav.atomic import replacing
from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import text_group
from peav.data.manifests.manifest import iter_manifest
from peav.opening import read_json

_log = logging.getLogger(__name__)

_FORMAT = 1

#: The most phrases that are kept: a random part of them where there are more.
MAX_PHRASES = 1_000_000

_FILES = ("phrases.bin", "phrases.npy", "phrases.json")


@dataclass(frozen=True)
class Phrases:
    """Distinct phrases, each with the label id that it was first given.

    Attributes:
        text: (bytes,) uint8, JSON lists of phrase and label id, one after the other.
        ends: (P,) where each ends in `text`.
    """

    text: NDArray[np.uint8]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, place: int) -> tuple[str, str]:
        begin = int(self.ends[place - 1]) if place else 0
        phrase, label = json.loads(self.text[begin : int(self.ends[place])].tobytes())
        return phrase, label

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return (self[place] for place in range(len(self)))

    def draw(self, number: int, *seeds: int) -> list[tuple[str, str]]:
        """Returns `number` different phrases at random, or all of them where there are no more; always the same ones for equal seeds.

        >>> from peav.data.manifests.records import Event
        >>> phrases = collect_phrases([Clip("a", 1.0, events=(Event("rain"), Event("Rain."), Event("wind", label="/m/03m9d0z")))])
        >>> sorted(phrases.draw(5, 0)), phrases.draw(1, 7, 3) == phrases.draw(1, 7, 3)
        ([('rain', ''), ('wind', '/m/03m9d0z')], True)
        """
        rng = np.random.default_rng(list(seeds))
        return [self[int(place)] for place in rng.choice(len(self), min(number, len(self)), replace=False)]


def collect_phrases(clips: Iterable[Clip], most: int = MAX_PHRASES) -> Phrases:
    """Finds the distinct phrases of clips, in the order of their identities.

    Where there are more than `most`, those with the smallest identities are kept, which are as good as random and do not depend on the
    order of the clips: what stays in memory is 2 * `most` phrases.
    """
    found: dict[int, tuple[str, str]] = {}
    below = 1 << 63
    for clip in clips:
        for event in clip.events or ():
            group = text_group(event.phrase)
            if group >= below:
                continue
            held = found.get(group)
            if held is None or (event.label and not held[1]):
                found[group] = held[0] if held else event.phrase, event.label
            if len(found) > 2 * most:
                found = _smallest(found, most)
                below = max(found) + 1
    lines = [json.dumps(found[group], ensure_ascii=False).encode() for group in sorted(_smallest(found, most))]
    ends = np.cumsum([len(line) for line in lines], dtype=np.int64)
    return Phrases(np.frombuffer(b"".join(lines), np.uint8), ends)


def _smallest(found: dict[int, tuple[str, str]], most: int) -> dict[int, tuple[str, str]]:
    return {group: found[group] for group in sorted(found)[:most]} if len(found) > most else found


def load_phrases(path: Path) -> Phrases:
    """Returns the phrases of a manifest: those kept beside it if they are as new, else what is found in its lines.

    Args:
        path: the manifest.

    Raises:
        ManifestError: if a line cannot be read.
    """
    stat = path.stat()
    stamp = {"format": _FORMAT, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino}
    folder = path.with_suffix(".index")
    found = _load(folder, stamp)
    if found is None:
        found = collect_phrases(clip for _, clip in iter_manifest(path))
        try:
            _save(folder, stamp, found)
        except OSError as error:
            _log.warning("the phrases of %s cannot be kept beside it (%s): found anew at every start", path, error)
    return found


def _load(folder: Path, stamp: dict[str, int]) -> Phrases | None:
    text, ends, head = (folder / name for name in _FILES)
    try:
        if read_json(head)["stamp"] != stamp:
            return None
        places = np.load(ends, mmap_mode="r", allow_pickle=False)
        size = int(places[-1]) if len(places) else 0
        held = np.memmap(text, np.uint8, "r") if size else np.zeros(0, np.uint8)
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    return Phrases(held, places) if len(held) == size else None


def _save(folder: Path, stamp: dict[str, int], phrases: Phrases) -> None:
    text, ends, head = (folder / name for name in _FILES)
    folder.mkdir(exist_ok=True)
    head.unlink(missing_ok=True)  # written last: its presence says that the rest is whole
    with replacing(text, shared=True) as partial:
        partial.write_bytes(phrases.text.tobytes())
    with replacing(ends, shared=True) as partial, partial.open("wb") as stream:
        np.save(stream, phrases.ends)
    with replacing(head, shared=True) as partial:
        partial.write_text(json.dumps({"stamp": stamp}))
