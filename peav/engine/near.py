"""Near duplicates: clips whose fingerprints nearly agree, found through what they share exactly, and then compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.engine.near_pairs import picture_pairs, word_pairs

#: Words of a sound that two clips must share before they are compared, different ones.
MIN_WORDS = 3

#: Likewise of words of `peav.engine.stages.short_sound`, of which an encoding at a low rate leaves few as they were.
MIN_SHORT_WORDS = 2

#: Share of bits in which two sounds may differ where they lie best over each other; words of different sounds differ in half of them.
MAX_SOUND_DISTANCE = 0.25

#: Bits of 64 in which two pictures may differ; and the share of a clip's frames that must be among the other's.
MAX_PICTURE_BITS, MIN_FRAMES = 10, 0.6

#: Bits in which a picture that stands still, without sound, may differ: it is all there is, and slides of one design differ in few.
MAX_STILL_BITS = 4


@dataclass(frozen=True)
class Near:
    """A clip that is nearly another one.

    Attributes:
        first: id of the other one.
        distance: share of bits in which they differ, of the medium in which they differ most.
    """

    first: str
    distance: float


class NearDuplicates:
    """Collects fingerprints clip by clip, and finds those that nearly agree.

    It holds 4 bytes a word of sound and 8 a picture, and some eight times that while it sorts.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._kept: set[int] = set()
        self._sounds: list[NDArray[np.uint32]] = []
        self._shorts: list[NDArray[np.uint32]] = []
        self._pictures: list[NDArray[np.uint64]] = []

    def add(self, clip: str, prints: Mapping[str, Any], stays: bool = False) -> None:
        """Takes what the stage `Fingerprint` said of a clip; of two that are not said to stay the first one does.

        Args:
            clip: its id.
            prints: what was said.
            stays: whether others are held against it whatever it is like itself.
        """
        if stays:
            self._kept.add(len(self._ids))
        self._ids.append(clip)
        self._sounds.append(np.asarray(prints.get("sound", ()), np.uint32))
        self._shorts.append(np.asarray(prints.get("short", ()), np.uint32))
        self._pictures.append(np.asarray(prints.get("pictures", ()), np.uint64))

    def find(self) -> dict[str, Near]:
        """Returns the clips that are nearly an earlier one that stays: in sound and in picture, as far as they have them."""
        asked = [
            word_pairs(self._sounds, MIN_WORDS, self._kept),
            word_pairs(self._shorts, MIN_SHORT_WORDS, self._kept),
            picture_pairs(self._pictures, MAX_PICTURE_BITS, self._kept),
        ]
        by_later: dict[int, list[int]] = defaultdict(list)
        for one, other in np.unique(np.concatenate(asked), axis=0).tolist():
            first, later = (other, one) if other in self._kept and one not in self._kept else (one, other)
            by_later[later].append(first)
        found: dict[str, Near] = {}
        for later in sorted(by_later.keys() - self._kept):
            for first in sorted(by_later[later], key=lambda one: (one not in self._kept, one)):
                if self._ids[first] in found:
                    continue
                distance = self._distance(first, later)
                if distance is not None:
                    found[self._ids[later]] = Near(self._ids[first], round(distance, 3))
                    break
        return found

    def _distance(self, first: int, later: int) -> float | None:
        """Returns how far apart two clips are; None if they are no near duplicates."""
        distances: list[float] = []

        def sound(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float | None:
            # A listed clip is looked for in longer ones, too; but who is left out in favour of a jingle is no more than that.
            whole = min(len(one), len(other)) if first in self._kept else len(other)
            return sound_distance(one, other, max(whole // 2, 1))

        def picture(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float | None:
            alone = not distances and min(len(one), len(other)) == 1
            return picture_distance(one, other, MAX_STILL_BITS if alone else MAX_PICTURE_BITS)

        sounds, pictures = (self._shorts, self._sounds), (self._pictures,)
        for kinds, compare in ((sounds, sound), (pictures, picture)):
            both = next((held for held in kinds if len(held[first]) and len(held[later])), None)
            if both is None:
                if any(len(held[one]) for held in kinds for one in (first, later)):
                    return None
                continue
            distance = compare(both[first], both[later])  # type: ignore[arg-type]
            if distance is None:
                return None
            distances.append(distance)
        return max(distances, default=None)


def sound_distance(left: NDArray[np.uint32], right: NDArray[np.uint32], least: int = 0) -> float | None:
    """Returns the share of bits in which two sounds differ where they lie best over each other.

    Args:
        left: (W,) words.
        right: (V,) words.
        least: so many words must lie over each other, 1 at least; 0 for half of the shorter one.

    Returns:
        None where that is more than `MAX_SOUND_DISTANCE`, or fewer words lie over each other.

    >>> words = np.arange(40, dtype=np.uint32) * 2654435761
    >>> sound_distance(words, words[5:]), sound_distance(words, ~words)
    (0.0, None)
    """
    if len(left) > len(right):
        left, right = right, left
    least = least or max(len(left) // 2, 1)
    best = 1.0
    if least > len(left):
        return None
    for shift in range(least - len(left), len(right) - least + 1):
        own = left[max(-shift, 0) : len(right) - shift]
        other = right[max(shift, 0) : max(shift, 0) + len(own)]
        own = own[: len(other)]
        best = min(best, float(np.bitwise_count(own ^ other).mean()) / 32)
    return best if best <= MAX_SOUND_DISTANCE else None


def picture_distance(left: NDArray[np.uint64], right: NDArray[np.uint64], most: int = MAX_PICTURE_BITS) -> float | None:
    """Returns the mean share of bits in which the frames of a clip differ from the most alike of the other.

    Args:
        left: (F,) hashes.
        right: (G,) hashes.
        most: bits in which two hashes of one picture may differ.

    Returns:
        None where fewer than `MIN_FRAMES` of either are among the other's, within `most`.

    >>> frames = np.array([3, 2**40], np.uint64)
    >>> picture_distance(frames, frames ^ np.uint64(1)), picture_distance(frames, ~frames)
    (0.015625, None)
    """
    bits = np.bitwise_count(left[:, None] ^ right[None])
    for nearest in (bits.min(axis=1), bits.min(axis=0)):
        if float((nearest <= most).mean()) < MIN_FRAMES:
            return None
    return float(bits.min(axis=1).mean()) / 64
