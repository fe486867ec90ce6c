"""Which pairs of clips are compared: what is alike is among them, and chance does not let them grow with the square of the clips."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from peav.engine.near_pairs import MAX_SHARED, picture_pairs, word_pairs


def hashes(random: np.random.Generator, *shape: int) -> NDArray[np.uint64]:
    return random.integers(0, 2**64, shape, dtype=np.uint64)


def flipped(held: NDArray[np.uint64], bits: int, random: np.random.Generator) -> NDArray[np.uint64]:
    """Other bits of each hash, so many."""
    chosen = random.permuted(np.tile(np.arange(64, dtype=np.uint64), (len(held), 1)), axis=1)[:, :bits]
    return held ^ np.bitwise_or.reduce(np.uint64(1) << chosen, axis=1)


def pairs_of(found: NDArray[np.int64]) -> set[tuple[int, int]]:
    assert found.shape[1:] == (2,) and len(np.unique(found, axis=0)) == len(found) and np.all(found[:, 0] < found[:, 1])
    return {(one, other) for one, other in found.tolist()}


@pytest.mark.parametrize("bits", [0, 1, 2, 3])
def test_pictures_that_differ_in_three_bits_are_all_found(bits: int) -> None:
    random = np.random.default_rng(bits)
    held = hashes(random, 2000)
    found = pairs_of(picture_pairs([*held[:, None], *flipped(held, bits, random)[:, None]], 10))
    assert {(k, 2000 + k) for k in range(2000)} <= found


def test_pairs_are_those_within_so_many_bits_and_of_different_clips() -> None:
    random = np.random.default_rng(0)
    base = hashes(random, 40)
    clips = [np.concatenate([flipped(base[k : k + 3], n, random) for n in (0, 2)]) for k in range(0, 36, 1)]
    near = {
        (a, b)
        for a in range(len(clips))
        for b in range(a + 1, len(clips))
        if np.bitwise_count(clips[a][:, None] ^ clips[b][None]).min() <= 4
    }
    assert pairs_of(picture_pairs(clips, 4)) == near and len(near) == 35 + 34


def test_chance_does_not_make_pairs_of_many_pictures() -> None:
    random = np.random.default_rng(1)
    held = hashes(random, 25_000, 8)
    copies = [np.concatenate([flipped(own[:6], 4, random), hashes(random, 2)]) for own in held[:300]]
    found = pairs_of(picture_pairs([*held, *copies], 10))
    assert {(k, 25_000 + k) for k in range(300)} <= found
    assert len(found) < 2000  # of 320 million


def test_words_that_two_share_count_once_and_as_many_as_are_asked_for() -> None:
    random = np.random.default_rng(2)
    clips = [random.integers(0, 200, random.integers(0, 30)).astype(np.uint32) for _ in range(60)]
    shared = Counter(
        {(a, b): len({*clips[a].tolist()} & {*clips[b].tolist()}) for a in range(60) for b in range(a + 1, 60)}
    )
    for least in (1, 3):
        assert pairs_of(word_pairs(clips, least)) == {pair for pair, count in shared.items() if count >= least}


@pytest.mark.parametrize("kind", ["words", "pictures"])
def test_of_what_very_many_share_each_is_paired_with_one_that_comes_first(kind: str) -> None:
    random = np.random.default_rng(3)
    number = 10 * MAX_SHARED
    jingle = hashes(random, 6)
    held = [*([jingle] * number), *hashes(random, 50, 6)]
    if kind == "words":
        found = pairs_of(word_pairs([(own >> np.uint64(32)).astype(np.uint32) for own in held], 3, {number - 1}))
    else:
        found = pairs_of(picture_pairs(held, 10, {number - 1}))
    assert {other for one, other in found if one == 0} >= set(range(1, number))
    assert {one for one, other in found if other == number - 1} == set(range(number - 1))  # the one that stays
    assert len(found) < 10 * number and not any(other >= number for _, other in found)


def test_nothing_gives_no_pairs() -> None:
    none = np.zeros(0, np.uint64)
    for clips in ([], [none], [none, none]):
        assert picture_pairs(clips, 10).shape == word_pairs(clips, 3).shape == (0, 2)  # type: ignore[arg-type]
