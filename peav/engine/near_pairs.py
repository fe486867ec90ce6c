"""Pairs of clips that are worth a comparison, found through keys that they share: the time grows with the clips, not with their pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Of a key that more than this share not all pairs are taken: silence, a test picture, a jingle, a clip that is there 1,000 times.
MAX_SHARED = 200

#: Clips with such a key are compared with the first few that share a sketch of all their keys with them: so many sketches.
_SKETCHES, _FIRST = 8, 4

#: Orders in which the bits of pictures' hashes are cut into keys, and keys of each.
_ORDERS, _CUTS = 4, 4

#: Bits of such a key: 16, so that hashes that differ in three bits share one of four, up to 32 of very many pictures.
_KEY_BITS = (16, 32)


def word_pairs(words: Sequence[NDArray[np.uint32]], least: int, stay: Set[int] = frozenset()) -> NDArray[np.int64]:
    """Finds the clips that share words of their sounds.

    Args:
        words: (W,) of each clip.
        least: different words that two clips must share.
        stay: clips before which others give way, first in sketches.

    Returns:
        (P, 2) places in `words`, the smaller first; each pair once.
    """
    keyed = _keyed(words)
    keyed.sort()  # in its place, by word and clip
    values, owners = (keyed >> np.uint64(32)).astype(np.uint32), keyed.astype(np.uint32)
    del keyed
    packed = [_packed(owners[left], owners[right]) for left, right in _equal(values)]
    pairs, counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *packed]), return_counts=True)
    crowded = _owners_of(owners[_crowded(values)], len(words))
    return _unpacked(np.union1d(pairs[counts >= least], _sketched(values, owners, crowded, stay)))


def picture_pairs(hashes: Sequence[NDArray[np.uint64]], most: int, stay: Set[int] = frozenset()) -> NDArray[np.int64]:
    """Finds the clips of which a picture is nearly one of another's, by sampling bits (Indyk and Motwani 1998).

    Sixteen times some bits of each hash are its key, and those that share one are compared in all bits. Up to 65,535 pictures the keys are
    quarters, in four orders of the bits: whatever differs in up to three bits is found, in six by 97 %. Of more pictures keys are longer by
    the logarithm, so that chance makes as many pairs as there are pictures: of a million, four bits are found by 99 % and six by 82 %, of
    800 million by 72 and 25 (benchmarks/near_duplicates.py). A clip has several pictures, of which one is enough.

    Args:
        hashes: (F,) of the frames of each clip.
        most: bits in which two pictures may differ.
        stay: clips before which others give way, first in sketches.

    Returns:
        (P, 2) places in `hashes`, the smaller first; each pair once.
    """
    held, owners = _joined(hashes)
    crowded = np.zeros(len(hashes), bool)
    found = np.zeros(0, np.uint64)
    for mask in key_masks(len(held)):
        keys = held & mask
        order = np.argsort(keys, kind="stable")
        keys, own, whole = keys[order], owners[order], held[order]
        near = []
        for left, right in _equal(keys):
            alike = (np.bitwise_count(whole[left] ^ whole[right]) <= most) & (own[left] != own[right])
            near.append(_packed(own[left[alike]], own[right[alike]]))
        found = np.unique(np.concatenate([found, *near]))
        crowded |= _owners_of(own[_crowded(keys)], len(hashes))
    values, whose = _joined([_quarters(one) if crowd else one[:0] for one, crowd in zip(hashes, crowded, strict=True)])
    order = np.lexsort((whose, values))
    return _unpacked(np.union1d(found, _sketched(values[order], whose[order], crowded, stay)))


def key_masks(pictures: int) -> Iterator[np.uint64]:
    """Yields which bits of a hash are its key, each time."""
    bits = min(max(pictures.bit_length(), _KEY_BITS[0]), _KEY_BITS[1])
    random = np.random.default_rng(0)
    for _ in range(_ORDERS):
        order = random.permutation(64)
        for cut in range(_CUTS):
            chosen = np.roll(order, -cut * 64 // _CUTS)[:bits]
            yield np.bitwise_or.reduce(np.uint64(1) << chosen.astype(np.uint64))


def _quarters(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns the quarters of hashes, with their places, each once."""
    shifts = np.arange(0, 64, 16, dtype=np.uint64)
    return np.unique(((hashes[:, None] >> shifts) & np.uint64(0xFFFF)) | (shifts << np.uint64(56)))


def _keyed(words: Sequence[NDArray[np.uint32]]) -> NDArray[np.uint64]:
    """Returns the different words of each clip, each in the upper half of a number, with the clip in the lower one."""
    keyed, end = np.empty(sum(map(len, words)), np.uint64), 0
    for clip, own in enumerate(words):
        different = np.unique(own).astype(np.uint64)
        keyed[end : end + len(different)] = (different << np.uint64(32)) | np.uint64(clip)
        end += len(different)
    return keyed[:end]


def _equal(values: NDArray[np.unsignedinteger[Any]]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields the places of all pairs of equal values, of those that not more than `MAX_SHARED` have; values are sorted."""
    begin, size = _runs(values)
    begin, size = begin[size <= MAX_SHARED], size[size <= MAX_SHARED]
    left = _ranges(begin, size - 1)
    last = np.repeat(begin + size - 1, size - 1)
    shift = 1
    while len(left):
        yield left, left + shift
        shift += 1
        held = left + shift <= last
        left, last = left[held], last[held]


def _runs(values: NDArray[np.unsignedinteger[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns where runs of equal values begin, and their sizes, of two and more; values are sorted."""
    same = values[1:] == values[:-1]
    begin = np.flatnonzero(same & ~np.r_[False, same[:-1]])
    last = np.flatnonzero(same & ~np.r_[same[1:], False]) + 1
    return begin, last - begin + 1


def _ranges(begin: NDArray[np.int64], size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the numbers of several ranges, one after another."""
    before = np.repeat(np.cumsum(size) - size, size)
    return np.repeat(begin, size) + np.arange(size.sum()) - before


def _crowded(values: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.int64]:
    """Returns the places of values that more than `MAX_SHARED` have; values are sorted."""
    begin, size = _runs(values)
    return _ranges(begin[size > MAX_SHARED], size[size > MAX_SHARED])


def _owners_of(owners: NDArray[np.uint32], clips: int) -> NDArray[np.bool_]:
    held = np.zeros(clips, bool)
    held[owners] = True
    return held


def _sketched(
    values: NDArray[np.unsignedinteger[Any]], owners: NDArray[np.uint32], crowded: NDArray[np.bool_], stay: Set[int]
) -> NDArray[np.uint64]:
    """Returns packed pairs of each crowded clip and the first ones, those that stay before others, that share a sketch of its keys.

    A sketch is two least hashes of all keys: of clips that share the part s of theirs, the part s^2 of sketches is the same
    (MinHash: Broder 1997). It is not by one key that many have, such as silence.
    """
    chosen = crowded[owners]
    order = np.argsort(owners[chosen], kind="stable")
    values, owners = values[chosen][order].astype(np.uint64), owners[chosen][order]
    if not len(values):
        return np.zeros(0, np.uint64)
    starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
    clips = owners[starts]
    later = ~np.isin(clips, np.fromiter(stay, np.int64))
    pairs = []
    for number in range(_SKETCHES):
        least = (np.minimum.reduceat(_hashed(values, 2 * number + k), starts) for k in (1, 2))
        sketch = _hashed(next(least), 0) ^ next(least)
        place = np.lexsort((clips, later, sketch))
        own, (begin, size) = clips[place], _runs(sketch[place])
        for first in range(_FIRST):
            behind = np.maximum(size - 1 - first, 0)
            pairs.append(
                _packed(
                    np.repeat(own[np.minimum(begin + first, len(own) - 1)], behind),
                    own[_ranges(begin + first + 1, behind)],
                )
            )
    return np.unique(np.concatenate(pairs))


def _hashed(values: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Returns numbers that look random, by the finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    held = values + np.uint64(0x9E3779B97F4A7C15 * (seed + 1) % 2**64)
    held = (held ^ (held >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    held = (held ^ (held >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return held ^ (held >> np.uint64(31))


def _packed(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> NDArray[np.uint64]:
    first, second = np.minimum(one, other).astype(np.uint64), np.maximum(one, other).astype(np.uint64)
    return (first << np.uint64(32)) | second


def _unpacked(pairs: NDArray[np.uint64]) -> NDArray[np.int64]:
    return np.stack([pairs >> np.uint64(32), pairs & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)


def _joined(keys: Sequence[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Returns the keys of all clips, one after another, and whose they are."""
    sizes = [len(own) for own in keys]
    owners = np.repeat(np.arange(len(keys), dtype=np.uint32), sizes)
    return np.concatenate([np.zeros(0, np.uint64), *keys]), owners
