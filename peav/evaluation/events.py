"""The event metrics of an embedding table: PSDS, F1, calibration and false alarms, a few clips at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import torch
from torch import Tensor

from peav.evaluation.decisions import Decisions
from peav.evaluation.detection import (
    PSDS,
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
    calibration_sums_by_label,
    clip_counts,
    f1_of_counts,
    false_alarms,
)
from peav.evaluation.detection.clips import Floats
from peav.evaluation.detection.counts import Matching
from peav.evaluation.table import FramePart

#: What is reported, and how a person reads it. F1 and false alarms are those of `EventLevel.rule`.
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

#: Metrics that are computed a second time, after the median filter that is stored with a model: there the name ends in `FILTERED`.
SCORED = ("psds1", "psds1_alpha_st_0", "psds2")
FILTERED = "_filtered"

#: Steps of a curve that are kept to be drawn.
_STEPS = 400

#: 1 MB of logits at 25 frames a second, 10 s and 40 phrases.
_CLIPS_AT_ONCE = 32


@dataclass(frozen=True)
class EventLevel:
    """What `event_metrics` finds; plain numbers only.

    Attributes:
        metrics: by the names of `METRICS`, and of `SCORED` with `FILTERED` behind where the model has a median filter; None where one
            is not defined.
        per_phrase: of each of the K phrases `num_events`, `psds1` (and `psds1_filtered`), `event_f1`, `ece`, `threshold`, and `tuned`, 1
            where that is the phrase's own; None where one is not defined.
        curves: of `psds1` and `psds2` (and both `_filtered`): `efpr`, effective false positives an hour where the curve steps, and `etpr`
            from there on; thinned for drawing.
        reliability: of the bins of probability `count`, mean `probability`, and share of `active` frames, None in an empty bin. Empty
            without probabilities.
        rule: in words, what was detected for F1 and false alarms; "" without probabilities.
    """

    metrics: dict[str, float | None]
    per_phrase: list[dict[str, float | None]]
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    reliability: dict[str, list[float | None]] = field(default_factory=dict)
    rule: str = ""


def metric_rows(metrics: Mapping[str, float | None]) -> list[tuple[str, float | None]]:
    """Returns what is measured, in words, and its value.

    >>> metric_rows({"psds1": 0.5, "psds1_filtered": 0.6})
    [('PSDS1 (raw scores)', 0.5), ('PSDS1 (after the median filter)', 0.6)]
    """
    filters = any(name + FILTERED in metrics for name in SCORED)
    rows = []
    for name, label in METRICS.items():
        if name in metrics:
            rows.append((f"{label} (raw scores)" if filters and name in SCORED else label, metrics[name]))
        if name + FILTERED in metrics:
            rows.append((f"{label} (after the median filter)", metrics[name + FILTERED]))
    return rows


def event_metrics(
    part: FramePart, clips: Sequence[int], logits: Callable[[int], Tensor], calibrated: bool, decisions: Decisions
) -> EventLevel:
    """Computes the metrics of `METRICS`, F1 as the mean over phrases. What is not known in a clip is left out there.

    Args:
        part: of the table.
        clips: numbers of the annotated clips that have frames.
        logits: from a clip's number to (K, T).
        calibrated: whether sigmoid(logit) is a probability. Where it is not, what depends on that is None.
        decisions: what is detected; read only if `calibrated`.
    """
    scored = _ScoredClips(part, clips, logits)
    if not len(scored) or not part.phrases:
        return EventLevel(dict.fromkeys(METRICS), [{} for _ in part.phrases])
    found: dict[str, float | None] = {}
    of_phrases: dict[str, Sequence[float | None]] = {}
    curves: dict[str, dict[str, list[float]]] = {}
    scores = {"": scored}
    if calibrated and decisions.filters:
        scores[FILTERED] = _ScoredClips(part, clips, lambda clip: decisions.filtered(_probabilities(logits(clip))))
    for ending, some in scores.items():
        counts = PSDCounts.of(some, PSDS1, every_threshold=False)
        of_phrases.setdefault("num_events", counts.counts.num_true.sum(0).tolist())
        strict = counts.score()
        mild = dataclasses.replace(counts, settings=dataclasses.replace(PSDS1, alpha_st=0.0)).score()
        loose = PSDCounts.of(some, PSDS2, every_threshold=False).score()
        for name, score in zip(SCORED, (strict, mild, loose), strict=True):
            found[name + ending] = score.value
        of_phrases["psds1" + ending] = strict.per_label
        curves["psds1" + ending], curves["psds2" + ending] = _thinned(strict, PSDS1.e_max), _thinned(loose, PSDS2.e_max)
    reliability: dict[str, list[float | None]] = {}
    if calibrated:
        values, rows, reliability = _detections(scored, logits, decisions)
        found, of_phrases = found | values, of_phrases | rows
    names = [name for each in METRICS for name in (each, each + FILTERED) if name in found or name in METRICS]
    return EventLevel(
        metrics={name: found.get(name) for name in names},
        per_phrase=[{name: row[k] for name, row in of_phrases.items()} for k in range(len(part.phrases))],
        curves=curves,
        reliability=reliability,
        rule=str(decisions) if calibrated else "",
    )


def _detections(
    scored: _ScoredClips, logits: Callable[[int], Tensor], decisions: Decisions
) -> tuple[dict[str, float | None], dict[str, Sequence[float | None]], dict[str, list[float | None]]]:
    """Returns the metrics of detections and probabilities, those of phrases, and the reliability."""
    matchings: dict[str, Matching] = {"event_f1": Collar(), "segment_f1": Segments(), "intersection_f1": Intersection()}
    f1_counts: dict[str, list[Floats]] = {name: [] for name in matchings}
    alarms, bins, bins_of_phrases = [], [], []
    for begin in range(0, len(scored), _CLIPS_AT_ONCE):
        some = [scored[i] for i in range(begin, min(begin + _CLIPS_AT_ONCE, len(scored)))]
        decided = some
        if decisions.settings is not None:
            numbers = scored.clips[begin : begin + _CLIPS_AT_ONCE]
            active = [decisions.detected(_probabilities(logits(clip))).T.numpy() for clip in numbers]
            decided = [
                dataclasses.replace(clip, scores=np.where(frames, 1.0, -1.0))
                for clip, frames in zip(some, active, strict=True)
            ]
        # A logit above 0 is a probability above 0.5.
        for name, matching in matchings.items():
            f1_counts[name].append(clip_counts(decided, matching, 0.0).sum(0))
        alarms.append(absent_counts(decided, 0.0).sum(0))
        for clip in some:
            probabilities = 1 / (1 + np.exp(-clip.scores.astype(np.float64).clip(-700, 700)))
            known = np.ones(probabilities.shape[1], np.bool_) if clip.known is None else clip.known
            truth = active_frames(clip)
            bins.append(calibration_sums(probabilities[:, known], truth[:, known]))
            bins_of_phrases.append(calibration_sums_by_label(probabilities, truth) * known[:, None, None])
    calibrated = calibration(np.sum(bins, 0))
    f1 = {name: f1_of_counts(np.sum(counts, 0)) for name, counts in f1_counts.items()}
    found = {name: values.macro for name, values in f1.items()}
    per_hour = false_alarms(np.sum(alarms, 0)).per_hour
    found |= {"ece": calibrated.ece, "brier": calibrated.brier, "false_alarms_per_hour": per_hour}
    rows: dict[str, Sequence[float | None]] = {
        "event_f1": f1["event_f1"].per_label,
        "ece": [calibration(sums).ece for sums in np.sum(bins_of_phrases, 0)],
        "threshold": decisions.thresholds,
        "tuned": [float(decisions.is_tuned(phrase)) for phrase in decisions.phrases],
    }
    reliability: dict[str, list[float | None]] = {
        "count": [float(value) for value in calibrated.count],
        "probability": _or_none(calibrated.probability),
        "active": _or_none(calibrated.active),
    }
    return found, rows, reliability


def _probabilities(logits: Tensor) -> Tensor:
    """Returns float64 probabilities."""
    return torch.sigmoid(logits.double())


def _or_none(values: Floats) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _thinned(score: PSDS, e_max: float) -> dict[str, list[float]]:
    """Returns a curve up to `e_max`, with no more steps than a picture shows."""
    kept = np.flatnonzero(score.efpr <= e_max)
    if len(kept) > _STEPS:
        last = np.searchsorted(score.efpr, np.linspace(0.0, e_max, _STEPS), side="right") - 1
        kept = np.unique(last[last >= 0])
    return {"efpr": score.efpr[kept].tolist(), "etpr": score.etpr[kept].tolist()}


class _ScoredClips(Sequence[ScoredClip]):
    """Clips whose scores (K, T) are computed when asked for, so that those of all clips are never there at once."""

    def __init__(self, part: FramePart, clips: Sequence[int], scores: Callable[[int], Tensor]) -> None:
        self.part, self.clips, self.scores = part, clips, scores
        self.label = {phrase: k for k, phrase in enumerate(part.phrases)}

    def __len__(self) -> int:
        return len(self.clips)

    @overload
    def __getitem__(self, index: int) -> ScoredClip: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[ScoredClip]: ...

    def __getitem__(self, index: int | slice) -> ScoredClip | Sequence[ScoredClip]:
        if isinstance(index, slice):
            return _ScoredClips(self.part, self.clips[index], self.scores)
        clip = self.clips[index]
        scores = self.scores(clip).T.numpy()
        # An event without length is in no frame: there is nothing to find.
        events = [
            (self.label[phrase], onset, offset)
            for phrase, onset, offset in self.part.events[clip] or []
            if onset < offset
        ]
        times = np.arange(len(scores) + 1) * self.part.frame_seconds
        known = None if self.part.known is None else self.part.known[clip].numpy()
        return ScoredClip(scores, times, events, known)
