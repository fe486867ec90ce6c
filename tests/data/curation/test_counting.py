"""What is counted in bounded memory equals what is counted with all of it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peav.data.curation import counting
from peav.data.curation.counting import OTHER_LABELS, FrequentTexts, GroupCounts, LabelCounts, Repeats, Share

GROUPS = st.lists(st.one_of(st.integers(0, 9), st.integers(0, 2**63 - 1)), max_size=200)


@settings(deadline=None)
@given(groups=GROUPS, merge_at=st.integers(1, 20))
def test_group_counts_are_exact_however_often_they_are_merged(groups: list[int], merge_at: int) -> None:
    counts, truth = GroupCounts(), Counter(groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_MERGE_AT", merge_at)
        for group in groups:
            counts.add(group)
    repeated = [count for count in truth.values() if count > 1]
    assert counts.distinct == len(truth)
    assert counts.repeats() == Repeats(len(repeated), sum(repeated))
    assert counts.top(5) == sorted(truth.items(), key=lambda item: (-item[1], item[0]))[:5]
    assert counts.top(5, minimum=2) == [item for item in counts.top(5) if item[1] >= 2]


@settings(deadline=None)
@given(groups=st.lists(st.integers(0, 60), max_size=400), limit=st.integers(2, 20))
def test_no_frequent_text_is_forgotten(groups: list[int], limit: int) -> None:
    texts = FrequentTexts(limit)
    for group in groups:
        texts.add(group, f"text {group}")
    truth = Counter(groups)
    for group, count in truth.items():
        assert texts.get(group) in (f"text {group}", None)
        if len(truth) <= limit or count > 2 * len(groups) / limit:
            assert texts.get(group) == f"text {group}"
    assert len(texts._texts) <= limit


def test_the_spelling_of_a_text_is_the_first() -> None:
    texts = FrequentTexts()
    texts.add(1, "Rain.")
    texts.add(1, "rain")
    assert texts.get(1) == "Rain."


def test_labels_beyond_the_limit_are_counted_together() -> None:
    labels = LabelCounts(limit=2)
    for label, seconds in (("a", 1800), ("b", 3600), ("c", 60), ("a", 1800), ("d", 60)):
        labels.add(label, seconds)
    shares = labels.shares()
    assert list(shares) == ["a", "b", OTHER_LABELS]
    assert shares["a"] == Share(2, 1.0)
    assert shares[OTHER_LABELS].clips == 2
    assert shares[OTHER_LABELS].hours == pytest.approx(2 / 60)
