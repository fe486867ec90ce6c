"""PSDS where sed_scores_eval has nothing to say, by hand or against a slow loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import overload

import numpy as np
import pytest

from peav.evaluation.detection import PSDS1, PSDS2, PSDCounts, PSDSettings, ScoredClip, psds
from tests.evaluation.detection.cases import case

TIMES = np.arange(5) * 1.0


def clips_of(seed: int) -> list[ScoredClip]:
    return [ScoredClip(c.scores, c.times, c.events, duration=c.seconds) for c in case(seed)]


@pytest.mark.parametrize("settings", [PSDS1, PSDS2])
def test_leaving_out_thresholds_that_cannot_count_changes_nothing(settings: PSDSettings) -> None:
    for seed in range(40):
        fast, whole = psds(clips_of(seed), settings), PSDCounts.of(clips_of(seed), settings).score()
        assert fast.value == pytest.approx(whole.value, abs=1e-12)
        assert fast.per_label == pytest.approx(whole.per_label, abs=1e-12)


@pytest.mark.parametrize("settings", [PSDS1, PSDS2])
def test_a_weight_of_two_is_the_clip_twice(settings: PSDSettings) -> None:
    for seed in range(20):
        clips = clips_of(seed)
        weights = np.random.default_rng(seed).integers(0, 3, len(clips)).astype(float)
        weights[0] = 2  # the clip that holds every label
        repeated = [clip for clip, weight in zip(clips, weights, strict=True) for _ in range(int(weight))]
        found = PSDCounts.of(clips, settings).score(weights)
        expected = psds(repeated, settings)
        assert found.value == pytest.approx(expected.value, abs=1e-9)
        assert found.per_label == pytest.approx(expected.per_label, abs=1e-9)


def test_event_free_clips_show_false_alarms() -> None:
    good = ScoredClip(np.array([[0.1], [0.9], [0.8], [0.2]]), TIMES, [(0, 1.0, 3.0)], duration=60.0)
    empty = ScoredClip(np.array([[0.1], [0.95], [0.1], [0.1]]), TIMES, duration=60.0)
    assert psds([good]).value == 1.0
    # One false alarm in two minutes is 30 an hour: what is found counts from there to 100 only.
    assert psds([good, empty]).value == pytest.approx(0.7)


def test_labels_without_events_and_without_detections() -> None:
    scores = np.array([[0.1, 0.9, -np.inf], [0.9, 0.1, -np.inf], [0.8, 0.1, -np.inf], [0.2, 0.1, -np.inf]])
    found = psds([ScoredClip(scores, TIMES, [(0, 1.0, 3.0), (2, 0.0, 1.0)])], replace(PSDS1, alpha_st=0.0))
    assert found.per_label == [1.0, None, 0.0] and found.value == 0.5
    assert psds([ScoredClip(scores, TIMES)]).value is None


def test_what_is_not_known_neither_counts_nor_harms() -> None:
    good = ScoredClip(np.array([[0.1, 0.3], [0.9, 0.9], [0.8, 0.8], [0.2, 0.1]]), TIMES, [(0, 1.0, 3.0), (1, 1.0, 3.0)])
    noisy = ScoredClip(np.array([[1.0, 0.0]] * 4), TIMES)
    unknown = replace(noisy, known=np.array([False, True]))
    assert psds([good, noisy]).per_label == [0.0, 1.0]
    assert psds([good, unknown]).per_label == [1.0, 1.0]


def test_clips_may_be_loaded_when_asked() -> None:
    class Lazy(Sequence[ScoredClip]):
        def __init__(self) -> None:
            self.clips = clips_of(3)

        def __len__(self) -> int:
            return len(self.clips)

        @overload
        def __getitem__(self, index: int) -> ScoredClip: ...

        @overload
        def __getitem__(self, index: slice) -> Sequence[ScoredClip]: ...

        def __getitem__(self, index: int | slice) -> ScoredClip | Sequence[ScoredClip]:
            return replace(self.clips[index]) if isinstance(index, int) else self.clips[index]

    assert psds(Lazy(), PSDS2).value == psds(clips_of(3), PSDS2).value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtc": 0.0}, r"dtc must lie in \(0, 1\], not 0.0"),
        ({"gtc": 1.5}, r"gtc must lie in \(0, 1\], not 1.5"),
        ({"cttc": 0.3}, "cttc and alpha_ct go together"),
        ({"alpha_ct": 0.5}, "cttc and alpha_ct go together"),
        ({"alpha_st": -1.0}, "must not be negative"),
        ({"e_max": 0.0}, "e_max must be positive"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PSDS1, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": TIMES[:4]}, r"expected scores \(T, L\) and times \(T \+ 1,\)"),
        ({"scores": np.full((4, 1), np.nan)}, "NaN or"),
        ({"scores": np.full((4, 1), np.inf)}, "NaN or"),
        ({"times": TIMES[::-1]}, "ascend"),
        ({"events": [(1, 0.0, 1.0)]}, "label 1, but there are the labels 0 to 0"),
        ({"events": [(0, 1.0, 1.0)]}, "cannot run from 1.0 to 1.0 s"),
        ({"events": [(0, 0.0, 1.0)], "known": np.array([False])}, "not among the labels that are known"),
        ({"known": np.array([1])}, "bool"),
        ({"duration": -1.0}, "duration must be finite"),
    ],
)
def test_clips_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"scores": np.zeros((4, 1)), "times": TIMES}
    with pytest.raises(ValueError, match=message):
        ScoredClip(**(arguments | change))  # type: ignore[arg-type]


def test_no_clip_and_different_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="one number of labels, got 0 clips"):
        psds([])
    with pytest.raises(ValueError, match=r"2 clips with \[1, 2\]"):
        psds([ScoredClip(np.zeros((4, k)), TIMES) for k in (1, 2)])
