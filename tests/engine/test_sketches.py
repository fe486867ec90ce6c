"""Counts in bounded memory are what exact ones are, within the bounds that are said."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from peav.engine.calibration import _in_order
from peav.engine.sketches import DistinctCount, FrequentItems


@pytest.mark.parametrize("number", [0, 1, 256, 257, 5_000])
def test_different_texts_are_counted_exactly_up_to_the_bound_and_within_the_error_beyond(number: int) -> None:
    held = DistinctCount(bound=256)
    for _ in range(2):
        for k in range(number):
            held.add(f"word {k}")
    assert held.exact == (number <= 256)
    # Four standard errors of 1 / sqrt(254).
    assert len(held) == number if held.exact else abs(len(held) / number - 1) < 4 / 254**0.5
    assert len(held._least) <= 256 + 64


def test_frequent_texts_are_found_and_no_count_is_off_by_more_than_said() -> None:
    random, held = np.random.default_rng(0), FrequentItems(bound=50)
    texts = [f"{int(rank)}" for rank in random.zipf(1.3, 20_000)]
    texts += [f"once {k}" for k in range(5_000)]
    random.shuffle(texts)
    for text in texts:
        held.add(text)
    exact = Counter(texts)
    assert len(held._counts) < 100 and 0 < held.missed <= len(texts) / 50
    found = dict(held.most_common(100))
    assert all(exact[text] - held.missed <= count <= exact[text] for text, count in found.items())
    assert {text for text, count in exact.items() if count > held.missed} <= found.keys()
    assert [text for text, _ in held.most_common(3)] == [text for text, _ in exact.most_common(3)]


@pytest.mark.parametrize("wanted", [1, 20, 10_000])
def test_a_sample_in_bands_is_that_of_all_numbers_in_order(wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from peav.data.curation.sampling import uniform

    monkeypatch.setattr("peav.engine.calibration.BLOCK", 100)
    ids = np.random.default_rng(0).integers(0, 2**62, 1_037)
    order = np.argsort(uniform(ids, "page", 3), kind="stable")
    assert list(_in_order(ids, "page", 3, wanted)) == order.tolist()
