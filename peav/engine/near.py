"""Near duplicates: clips whose fingerprints nearly agree, found through what they share exactly, and then compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Of a key that more clips than this share not all pairs are compared: silence, a test picture, a jingle, a clip that is there 1,000 times.
MAX_SHARED = 200

#: Clips with such a key are compared with the first few that share a sketch of all their keys with them: so many sketches.
_SKETCHES, _FIRST = 8, 4

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
        asked = {
            *self._pairs(_sound_keys(self._sounds), MIN_WORDS),
            *self._pairs(_sound_keys(self._shorts), MIN_SHORT_WORDS),
            *self._pairs(_picture_keys(self._pictures), 1),
        }
        by_later: dict[int, list[int]] = defaultdict(list)
        for one, other in asked:
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

    def _pairs(self, keys: tuple[NDArray[np.uint64], NDArray[np.uint32]], least: int) -> set[tuple[int, int]]:
        """Returns the pairs of clips that share at least so many different keys, and of keys that too many share those of one sketch."""
        values, owners = keys
        order = np.lexsort((owners, values))
        counts: Counter[tuple[int, int]] = Counter()
        crowded = np.zeros(len(self._ids), bool)
        for own in _groups(values[order], owners[order]):
            if len(own) <= MAX_SHARED:
                counts.update((int(a), int(b)) for place, a in enumerate(own) for b in own[place + 1 :])
            else:
                crowded[own] = True
        pairs = {pair for pair, count in counts.items() if count >= least}
        if crowded.any():
            chosen = crowded[owners]
            pairs |= self._sketched(values[chosen], owners[chosen])
        return pairs

    def _sketched(self, values: NDArray[np.uint64], owners: NDArray[np.uint32]) -> set[tuple[int, int]]:
        """Returns pairs of each clip and the first ones, those that stay before others, that share a sketch of its keys.

        A sketch is two least hashes of all keys: of clips that share the part s of theirs, the part s^2 of sketches is the same
        (MinHash: Broder 1997). It is not by one key that many have, such as silence.

        Args:
            values: (K,) keys, of one clip after another.
            owners: (K,) whose they are.
        """
        starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
        clips = owners[starts]
        kept = np.isin(clips, np.fromiter(self._kept, np.int64))
        pairs: set[tuple[int, int]] = set()
        for number in range(_SKETCHES):
            least = (np.minimum.reduceat(_hashed(values, 2 * number + k), starts) for k in (1, 2))
            sketch = _hashed(next(least), 0) ^ next(least)
            order = np.lexsort((clips, ~kept, sketch))
            for own in _groups(sketch[order], clips[order]):
                for place, one in enumerate(own[:_FIRST].tolist()):
                    pairs.update((min(one, other), max(one, other)) for other in own[place + 1 :].tolist())
        return pairs


def _groups(values: NDArray[np.uint64], owners: NDArray[np.uint32]) -> Iterator[NDArray[np.uint32]]:
    """Yields the owners of each value that several have, in their order; values are sorted, and equal ones of one owner lie together."""
    if not len(values):
        return
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    ends = np.r_[starts[1:], len(values)]
    several = np.flatnonzero(ends - starts > 1)
    for start, end in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
        own = owners[start:end]
        own = own[np.r_[True, own[1:] != own[:-1]]]
        if len(own) > 1:
            yield own


def _hashed(values: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Returns numbers that look random, by the finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    held = values + np.uint64(0x9E3779B97F4A7C15 * (seed + 1) % 2**64)
    held = (held ^ (held >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    held = (held ^ (held >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return held ^ (held >> np.uint64(31))


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
