"""Equal to sed_scores_eval 0.0.4 on random cases; its values lie in tests/assets, written by tests/evaluation/detection/golden.py."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from peav.evaluation.detection import (
    Collar,
    Intersection,
    PSDSettings,
    ScoredClip,
    Segments,
    best_thresholds,
    f1_score,
    psds,
)
from peav.evaluation.detection.counts import Matching
from tests.evaluation.detection.cases import COLLAR, NUM_CASES, SCORES, SEGMENT_SECONDS, THRESHOLD, case
from tests.evaluation.detection.golden import GOLDEN

MATCHINGS: dict[str, Matching] = {
    "collar": Collar(*COLLAR),
    "intersection": Intersection(0.5, 0.5),
    "segments": Segments(SEGMENT_SECONDS),
}
EXPECTED = json.loads(GOLDEN.read_text())


def clips_of(seed: int) -> list[ScoredClip]:
    return [ScoredClip(c.scores, c.times, c.events, duration=c.seconds) for c in case(seed)]


def test_the_cases_hold_what_is_hard() -> None:
    assert len(EXPECTED) == NUM_CASES == 200
    cases = [case(seed) for seed in range(NUM_CASES)]
    clips = [clip for some in cases for clip in some]
    assert sum(not clip.events for clip in clips) > 200
    assert sum(bool(np.isneginf(clip.scores).any()) for clip in clips) > 100
    assert sum(len(np.unique(clip.scores[:, 0])) < len(clip.scores) / 2 for clip in clips) > 100
    touching = [
        one[2] == other[1]
        for clip in clips
        for one, other in zip(sorted(clip.events), sorted(clip.events)[1:], strict=False)
        if one[0] == other[0]
    ]
    assert sum(touching) > 100
    for name in (*SCORES, *MATCHINGS):
        values = [expected[name][0] for expected in EXPECTED]
        assert sum(0.01 < value < 0.99 for value in values) > 50, name


@pytest.mark.parametrize("name", SCORES)
def test_psds(name: str) -> None:
    for seed in range(NUM_CASES):
        found = psds(clips_of(seed), PSDSettings(*SCORES[name]))
        assert [found.value, *found.per_label] == pytest.approx(EXPECTED[seed][name], abs=1e-6), seed


@pytest.mark.parametrize("name", MATCHINGS)
def test_f1(name: str) -> None:
    for seed in range(NUM_CASES):
        clips = [replace(clip, duration=None) for clip in clips_of(seed)]
        if name == "segments":  # see golden.py
            clips = [replace(clip, scores=clip.scores.clip(min=-1.0)) for clip in clips]
        found = f1_score(clips, MATCHINGS[name], THRESHOLD)
        assert [found.macro, found.micro, *found.per_label] == pytest.approx(EXPECTED[seed][name], abs=1e-6), seed
        thresholds, best = best_thresholds(clips, MATCHINGS[name])
        assert best == pytest.approx(EXPECTED[seed][f"best_{name}"], abs=1e-6), seed
        assert f1_score(clips, MATCHINGS[name], thresholds).per_label == pytest.approx(best, abs=1e-9), seed
