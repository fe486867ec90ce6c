"""Near duplicates: clips whose fingerprints nearly agree, found through what they share exactly, and then compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: A key that more clips than this share tells none of them apart: silence, a test picture, a jingle.
MAX_SHARED = 200

#: Words of a sound that two clips must share before they are compared, different ones.
MIN_WORDS = 3

#: Likewise of words of `peav.engine.stages.short_sound`, of which an encoding at a low rate leaves few as they were.
MIN_SHORT_WORDS = 2

#: Share of bits in which two sounds may differ where they lie best over each other; words of different sounds differ in half of them.
MAX_SOUND_DISTANCE = 0.25

#: Pictures up to which quarters of their hashes are keys; 65,536 different ones are shared by too many clips beyond.
MAX_QUARTERED = 1_000_000

#: Bits of 64 in which two pictures may differ; and the share of a clip's frames that must be among the other's.
MAX_PICTURE_BITS, MIN_FRAMES = 10, 0.6


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

    It holds 4 bytes a word of sound and 8 a picture, and three times that while it sorts: some 500 bytes for a clip of 10 s in all, and
    3,000 for one of 2 s, whose words are closer.
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._kept: set[int] = set()
        self._sounds: list[NDArray[np.uint32]] = []
        self._shorts: list[NDArray[np.uint32]] = []
        self._pictures: list[NDArray[np.uint64]] = []

    def add(self, clip: str, prints: Mapping[str, Any], stays: bool = False) -> None:
        """Takes what the stage `Fingerprint` said of a clip; those that come first stay.

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
        asked = {
            **self._pairs(_sound_keys(self._sounds), MIN_WORDS),
            **self._pairs(_sound_keys(self._shorts), MIN_SHORT_WORDS),
            **self._pairs(_picture_keys(self._pictures), 1),
        }
        by_later: dict[int, list[int]] = defaultdict(list)
        for first, later in asked:
            by_later[later].append(first)
        found: dict[str, Near] = {}
        for later in sorted(by_later.keys() - self._kept):
            for first in sorted(by_later[later]):
                if self._ids[first] in found:
                    continue
                distance = self._distance(first, later)
                if distance is not None:
                    found[self._ids[later]] = Near(self._ids[first], round(distance, 3))
                    break
        return found

    def _distance(self, first: int, later: int) -> float | None:
        """Returns how far apart two clips are; None if they are no near duplicates."""
        distances = []
        sounds, pictures = (self._shorts, self._sounds), (self._pictures,)
        for kinds, compare in ((sounds, sound_distance), (pictures, picture_distance)):
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

    @staticmethod
    def _pairs(keys: tuple[NDArray[np.uint64], NDArray[np.uint32]], least: int) -> dict[tuple[int, int], int]:
        """Returns the pairs of clips that share at least so many different keys."""
        values, owners = keys
        order = np.lexsort((owners, values))
        values, owners = values[order], owners[order]
        starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else np.zeros(0, int)
        ends = np.r_[starts[1:], len(values)] if len(values) else starts
        counts: Counter[tuple[int, int]] = Counter()
        for start, end in zip(starts, ends, strict=True):
            if end - start < 2:
                continue
            own = np.unique(owners[start:end])
            if 2 <= len(own) <= MAX_SHARED:
                counts.update((int(a), int(b)) for place, a in enumerate(own) for b in own[place + 1 :])
        return {pair: count for pair, count in counts.items() if count >= least}


def _sound_keys(sounds: Iterable[NDArray[np.uint32]]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    return _joined(np.unique(words).astype(np.uint64) for words in sounds)


def _picture_keys(pictures: Sequence[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Returns the pieces of each hash, with their places, as keys: quarters, of which two hashes that differ in three bits share one.

    Of many pictures halves, which share one where they differ in one bit: quarters would be shared by too many that are not alike.
    """
    bits = 16 if sum(map(len, pictures)) <= MAX_QUARTERED else 32
    shifts = np.arange(0, 64, bits, dtype=np.uint64)
    low = np.uint64(2**bits - 1)
    return _joined(np.unique(((held[:, None] >> shifts) & low) | (shifts << np.uint64(56))) for held in pictures)


def _joined(keys: Iterable[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    held = list(keys)
    sizes = [len(own) for own in held]
    owners = np.repeat(np.arange(len(held), dtype=np.uint32), sizes)
    return np.concatenate([np.zeros(0, np.uint64), *held]), owners


def sound_distance(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> float | None:
    """Returns the share of bits in which two sounds differ where they lie best over each other.

    Args:
        left: (W,) words.
        right: (V,) words.

    Returns:
        None where that is more than `MAX_SOUND_DISTANCE`, or less than half of the shorter one lies over the other.

    >>> words = np.arange(40, dtype=np.uint32) * 2654435761
    >>> sound_distance(words, words[5:]), sound_distance(words, ~words)
    (0.0, None)
    """
    if len(left) > len(right):
        left, right = right, left
    least = max(len(left) // 2, 1)
    best = 1.0
    for shift in range(least - len(left), len(right) - least + 1):
        own = left[max(-shift, 0) : len(right) - shift]
        other = right[max(shift, 0) : max(shift, 0) + len(own)]
        own = own[: len(other)]
        best = min(best, float(np.bitwise_count(own ^ other).mean()) / 32)
    return best if best <= MAX_SOUND_DISTANCE else None


def picture_distance(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> float | None:
    """Returns the mean share of bits in which the frames of a clip differ from the most alike of the other.

    Args:
        left: (F,) hashes.
        right: (G,) hashes.

    Returns:
        None where fewer than `MIN_FRAMES` of either are among the other's, within `MAX_PICTURE_BITS`.

    >>> frames = np.array([3, 2**40], np.uint64)
    >>> picture_distance(frames, frames ^ np.uint64(1)), picture_distance(frames, ~frames)
    (0.015625, None)
    """
    bits = np.bitwise_count(left[:, None] ^ right[None])
    for nearest in (bits.min(axis=1), bits.min(axis=0)):
        if float((nearest <= MAX_PICTURE_BITS).mean()) < MIN_FRAMES:
            return None
    return float(bits.min(axis=1).mean()) / 64
