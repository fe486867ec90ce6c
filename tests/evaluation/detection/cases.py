"""Random test sets for the metrics, among them clips without events, labels without detections, equal scores and events that touch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NUM_CASES = 200
#: dtc, gtc, cttc, alpha_ct, alpha_st, e_max
SCORES = {
    "psds1": (0.7, 0.7, None, 0.0, 1.0, 100.0),
    "psds1_no_spread": (0.7, 0.7, None, 0.0, 0.0, 100.0),
    "psds2": (0.1, 0.1, 0.3, 0.5, 1.0, 100.0),
    "psds_strict": (0.5, 0.3, 0.5, 1.0, 0.5, 30.0),
}
THRESHOLD = 0.6
SEGMENT_SECONDS = 1.0
COLLAR = (0.2, 0.2, 0.2)


class CaseClip(NamedTuple):
    scores: np.ndarray  # (T, L)
    times: np.ndarray  # (T + 1,)
    events: list[tuple[int, float, float]]
    seconds: float  # as a part of the test set; the scores cover its beginning


def case(seed: int) -> list[CaseClip]:
    """Returns the clips of a test set in which every label has an event."""
    rng = np.random.default_rng([14, seed])
    num_labels, num_clips = int(rng.integers(2, 5)), int(rng.integers(2, 7))
    hop = float(rng.choice([0.04, 0.1, 0.25]))
    seconds = float(rng.choice([20.0, 300.0, 2000.0]))
    never = int(rng.integers(num_labels)) if seed % 4 == 1 else None
    clips = []
    for number in range(num_clips):
        length = int(rng.integers(8, 60))
        events = [] if number % 3 == 1 else _events(rng, num_labels, length * hop)
        if number == 0:
            held = {label for label, _, _ in events}
            events += [(k, 0.1, round(0.1 + length * hop / 3, 3)) for k in range(num_labels) if k not in held]
        times = np.round(np.arange(length + 1) * hop, 6)
        scores = rng.random((length, num_labels)) * 0.6
        for label, onset, offset in events:
            begin, end = (float(rng.normal(0, hop)) + time for time in (onset, offset))
            scores[(times[1:] > begin) & (times[:-1] < end), label] += 0.4 * rng.random()
        if seed % 3 == 0:  # slow scores, long runs
            scores = np.apply_along_axis(np.convolve, 0, scores, np.ones(5) / 5, mode="same")
        if seed % 5 < 2:
            scores = np.round(scores, 1)
        if never is not None:
            scores[:, never] = -np.inf if number else 0.0  # sed_scores_eval fails on a label that is nowhere detected
        clips.append(CaseClip(scores, times, events, max(seconds, length * hop)))
    return clips


def _events(rng: np.random.Generator, num_labels: int, end: float) -> list[tuple[int, float, float]]:
    events = []
    for label in range(num_labels):
        at = 0.0
        for _ in range(int(rng.integers(0, 4))):
            # A gap of 0 makes events touch.
            onset = round(at + float(rng.choice([0.0, 0.05, 0.3, 1.0])), 3)
            offset = round(onset + float(rng.choice([0.03, 0.2, 0.7, 2.0])), 3)
            if offset <= end:
                events.append((label, onset, offset))
            at = offset
    return events
