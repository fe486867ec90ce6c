"""The event metrics of an embedding table: PSDS, F1, calibration and false alarms, a few clips at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import overload

import numpy as np
from torch import Tensor

from peav.evaluation.detection import (
    PSDS1,
    PSDS2,
    Collar,
    Intersection,
    PSDCounts,
    ScoredClip,
    Segments,
    absent_counts,
    active_frames,
    calibration,
    calibration_sums,
    clip_counts,
    f1_of_counts,
    false_alarms,
)
from peav.evaluation.detection.counts import Matching
from peav.evaluation.table import FramePart

#: What is reported, and how a person reads it. F1 and false alarms are at a probability of 0.5.
METRICS = {
    "psds1": "PSDS1",
    "psds1_alpha_st_0": "PSDS1, alpha_st = 0",
    "psds2": "PSDS2",
    "event_f1": "event F1 (collar 0.2 s)",
    "segment_f1": "segment F1 (1 s)",
    "intersection_f1": "intersection F1",
    "ece": "expected calibration error",
    "brier": "Brier score",
    "false_alarms_per_hour": "false alarms per hour of an absent phrase",
}

#: 1 MB of logits at 25 frames a second, 10 s and 40 phrases.
_CLIPS_AT_ONCE = 32


def event_metrics(
    part: FramePart, clips: Sequence[int], logits: Callable[[int], Tensor], calibrated: bool
) -> dict[str, float | None]:
    """Computes the metrics of `METRICS`, F1 as the mean over phrases.

    Args:
        part: of the table.
        clips: numbers of the annotated clips that have frames.
        logits: from a clip's number to (K, T).
        calibrated: whether a logit of 0 is a probability of 0.5. Where it is not, what depends on that is None.

    Returns:
        None for what is not defined.
    """
    scored = _ScoredClips(part, clips, logits)
    if not len(scored) or not part.phrases:
        return dict.fromkeys(METRICS)
    found: dict[str, float | None] = {}
    counts = PSDCounts.of(scored, PSDS1, every_threshold=False)
    found["psds1"] = counts.score().value
    found["psds1_alpha_st_0"] = (
        dataclasses.replace(counts, settings=dataclasses.replace(PSDS1, alpha_st=0.0)).score().value
    )
    found["psds2"] = PSDCounts.of(scored, PSDS2, every_threshold=False).score().value
    if calibrated:
        found |= _at_one_half(scored)
    return {name: found.get(name) for name in METRICS}


def _at_one_half(scored: Sequence[ScoredClip]) -> dict[str, float | None]:
    matchings: dict[str, Matching] = {"event_f1": Collar(), "segment_f1": Segments(), "intersection_f1": Intersection()}
    f1_counts: dict[str, list[np.ndarray]] = {name: [] for name in matchings}
    alarms, bins = [], []
    for begin in range(0, len(scored), _CLIPS_AT_ONCE):
        some = [scored[i] for i in range(begin, min(begin + _CLIPS_AT_ONCE, len(scored)))]
        for name, matching in matchings.items():
            f1_counts[name].append(clip_counts(some, matching, 0.0).sum(0))
        alarms.append(absent_counts(some, 0.0).sum(0))
        for clip in some:
            probabilities = 1 / (1 + np.exp(-clip.scores.astype(np.float64).clip(-700, 700)))
            bins.append(calibration_sums(probabilities, active_frames(clip)))
    calibrated = calibration(np.sum(bins, 0))
    found = {name: f1_of_counts(np.sum(counts, 0)).macro for name, counts in f1_counts.items()}
    per_hour = false_alarms(np.sum(alarms, 0)).per_hour
    return found | {"ece": calibrated.ece, "brier": calibrated.brier, "false_alarms_per_hour": per_hour}


class _ScoredClips(Sequence[ScoredClip]):
    """Clips whose logits are computed when asked for, so that those of all clips are never there at once."""

    def __init__(self, part: FramePart, clips: Sequence[int], logits: Callable[[int], Tensor]) -> None:
        self.part, self.clips, self.logits = part, clips, logits
        self.label = {phrase: k for k, phrase in enumerate(part.phrases)}

    def __len__(self) -> int:
        return len(self.clips)

    @overload
    def __getitem__(self, index: int) -> ScoredClip: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ScoredClip]: ...

    def __getitem__(self, index: int | slice) -> ScoredClip | Sequence[ScoredClip]:
        if isinstance(index, slice):
            return _ScoredClips(self.part, self.clips[index], self.logits)
        clip = self.clips[index]
        scores = self.logits(clip).T.numpy()
        # An event without length is in no frame: there is nothing to find.
        events = [
            (self.label[phrase], onset, offset)
            for phrase, onset, offset in self.part.events[clip] or []
            if onset < offset
        ]
        return ScoredClip(scores, np.arange(len(scores) + 1) * self.part.frame_seconds, events)
