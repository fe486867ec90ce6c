"""PSDS: the polyphonic sound detection score (Bilen et al., ICASSP 2020), over all thresholds (Ebbers et al., ICASSP 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peav.evaluation.detection.clips import Floats, ScoredClip, Truth, known_seconds
from peav.evaluation.detection.counts import Changes, Counts, totals
from peav.evaluation.detection.intersection import Intersection

_HOUR = 3600.0


@dataclass(frozen=True)
class PSDSettings:
    """What a PSDS asks for.

    Attributes:
        dtc: share of a detection that events of its label must cover.
        gtc: share of an event that true detections must cover.
        cttc: share of a false detection that another label's events must cover to make it a cross trigger; None without `alpha_ct`.
        alpha_ct: weight of cross triggers.
        alpha_st: weight of the spread over labels. Never compare scores across it.
        e_max: false positives an hour, up to which the curve counts.

    Raises:
        ValueError: if a value is out of range, or only one of `cttc` and `alpha_ct` is given.
    """

    dtc: float
    gtc: float
    cttc: float | None = None
    alpha_ct: float = 0.0
    alpha_st: float = 1.0
    e_max: float = 100.0

    def __post_init__(self) -> None:
        Intersection(self.dtc, self.gtc, self.cttc)
        if not (0 <= self.alpha_ct < math.inf and 0 <= self.alpha_st < math.inf):
            raise ValueError(f"alpha_ct and alpha_st must not be negative, got {self.alpha_ct} and {self.alpha_st}")
        if (self.cttc is None) != (self.alpha_ct == 0):
            raise ValueError(f"cttc and alpha_ct go together, got {self.cttc} and {self.alpha_ct}")
        if not 0 < self.e_max < math.inf:
            raise ValueError(f"e_max must be positive, not {self.e_max}")


#: DCASE's two scenarios: react in time, and do not confuse.
PSDS1 = PSDSettings(dtc=0.7, gtc=0.7)
PSDS2 = PSDSettings(dtc=0.1, gtc=0.1, cttc=0.3, alpha_ct=0.5)


@dataclass(frozen=True)
class PSDS:
    """A polyphonic sound detection score.

    Attributes:
        value: in [0, 1]; None where no label has an event.
        per_label: the area under each label's own curve; None for a label without events, which is left out.
        efpr: (S,) effective false positives an hour at which the curve steps, ascending from 0.
        etpr: (S,) effective true positive rate from there on.
    """

    value: float | None
    per_label: list[float | None]
    efpr: Floats
    etpr: Floats


def psds(clips: Sequence[ScoredClip], settings: PSDSettings = PSDS1) -> PSDS:
    """Computes PSDS over all thresholds, exactly.

    Thresholds at which the event-free clips alone give more than `e_max` false positives cannot count, and are not looked at: most
    frames of a large test set need no sorting. Clips are read twice, one after another, so `clips` may load them when asked.

    Args:
        clips: all clips of the test set, those without events too.
        settings: `PSDS1`, `PSDS2`, or one's own.

    Raises:
        ValueError: if there is no clip, or their numbers of labels differ.

    >>> times = np.arange(5) * 1.0
    >>> good = ScoredClip(np.array([[0.1], [0.9], [0.8], [0.2]]), times, [(0, 1.0, 3.0)])
    >>> psds([good], PSDS1).value
    1.0
    """
    return PSDCounts.of(clips, settings, every_threshold=False).score()


@dataclass(frozen=True)
class PSDCounts:
    """What a PSDS is computed from; with weights of clips, also the PSDS of a resampled test set.

    Attributes:
        settings: of the score.
        counts: changes of true and false positives and cross triggers.
        clip_seconds: (A, L) seconds of the clips in which a label is known.
        event_seconds: (A, L) seconds of events.
    """

    settings: PSDSettings
    counts: Counts
    clip_seconds: Floats
    event_seconds: Floats

    @classmethod
    def of(cls, clips: Sequence[ScoredClip], settings: PSDSettings, every_threshold: bool = True) -> PSDCounts:
        """Counts.

        Args:
            clips: of the test set.
            settings: of the score.
            every_threshold: False leaves out thresholds that cannot matter while every clip has weight 1.
        """
        rows = [_survey(clip) for clip in clips]
        if len({row[0].shape for row in rows}) != 1:
            raise ValueError(
                f"expected clips with one number of labels, got {len(rows)} clips with {sorted({len(row[0]) for row in rows})}"
            )
        clip_seconds, event_seconds, highest = (np.stack([row[i] for row in rows]) for i in range(3))
        floor = _floor(highest, clip_seconds.sum(0), settings.e_max)
        if every_threshold:
            floor = np.full(len(floor), -np.inf)
        counts = Intersection(settings.dtc, settings.gtc, settings.cttc).count(clips, floor)
        return cls(settings, counts, clip_seconds, event_seconds)

    def score(self, weights: Floats | None = None) -> PSDS:
        """Computes the score.

        Args:
            weights: (A,) how often each clip counts; once by default.
        """
        w = np.ones(len(self.clip_seconds)) if weights is None else np.asarray(weights, dtype=np.float64)
        counts, labels = self.counts, self.clip_seconds.shape[1]
        num_true, event_seconds, hours = w @ counts.num_true, w @ self.event_seconds, w @ self.clip_seconds / _HOUR
        there = np.flatnonzero(num_true > 0)
        kinds = [kind.by_label(labels) for kind in (counts.tp, counts.fp, counts.ct)]
        cross = np.divide(1.0, event_seconds, out=np.zeros(labels), where=event_seconds > 0) / max(len(there) - 1, 1)
        curves = [
            self._curve([kind[k] for kind in kinds], w, num_true[k], float(hours[k]), cross * _HOUR) for k in there
        ]
        areas: list[float | None] = [None] * labels
        for k, (efpr, tpr) in zip(there, curves, strict=True):
            areas[k] = _area(efpr, tpr, self.settings.e_max)
        if not curves:
            return PSDS(None, areas, np.zeros(0), np.zeros(0))
        efpr, etpr = _effective(curves, self.settings.alpha_st)
        return PSDS(_area(efpr, etpr, self.settings.e_max), areas, efpr, etpr)

    def _curve(
        self, kinds: Sequence[Changes], weights: Floats, num_true: float, hours: float, cross: Floats
    ) -> tuple[Floats, Floats]:
        """Returns the steps of one label's curve: effective false positives an hour, and the true positive rate from there on."""
        tp, fp, ct = kinds
        crossed = ct.delta * weights[ct.clip] * (0.0 if ct.other is None else cross[ct.other])
        parts = [(tp.score, tp.delta * weights[tp.clip]), (fp.score, fp.delta * weights[fp.clip]), (ct.score, crossed)]
        _, (found, false, crosses) = totals(parts)
        rate = np.maximum(false / hours + self.settings.alpha_ct * crosses, 0.0)
        counted = rate <= self.settings.e_max
        rate, tpr = rate[counted], found[counted] / num_true
        order = np.lexsort([-tpr, rate])
        rate, tpr = rate[order], tpr[order]
        best = np.maximum.accumulate(np.concatenate([[0.0], tpr]))
        rises = np.diff(best) > 0
        return rate[rises], best[1:][rises]


def _survey(clip: ScoredClip) -> tuple[Floats, Floats, Floats]:
    """Returns (L,) each: seconds with the label known, seconds of its events, its highest score, -inf unless it is known to be absent."""
    clip_seconds, event_seconds = known_seconds([clip])[0], Truth.of([clip]).seconds(1, clip.scores.shape[1])[0]
    highest = clip.scores.max(0, initial=-np.inf)
    return clip_seconds, event_seconds, np.where((clip_seconds > 0) & (event_seconds == 0), highest, -np.inf)


def _floor(highest: Floats, seconds: Floats, e_max: float) -> Floats:
    """Returns (L,): the threshold of each label below which the clips without the label give too many false positives.

    Each such clip gives at least one where its highest score reaches the threshold.

    Args:
        highest: (A, L) scores of the clips without the label, -inf for the others.
        seconds: (L,) of all clips.
        e_max: false positives an hour.
    """
    allowed = np.floor(e_max * seconds / _HOUR * (1 + 1e-9)).astype(np.int64)
    ordered = np.sort(highest, 0)
    places = len(ordered) - 1 - allowed
    return np.where(places >= 0, ordered[np.maximum(places, 0), np.arange(len(places))], -np.inf)


def _effective(curves: Sequence[tuple[Floats, Floats]], alpha_st: float) -> tuple[Floats, Floats]:
    """Joins the labels' curves: mean minus `alpha_st` times the standard deviation of their rates, not below 0."""
    efpr = np.concatenate([rate for rate, _ in curves])
    rises = np.concatenate([np.diff(tpr, prepend=0.0) for _, tpr in curves])
    squares = np.concatenate([np.diff(tpr**2, prepend=0.0) for _, tpr in curves])
    order = np.argsort(efpr, kind="stable")
    efpr = efpr[order]
    mean, square = np.cumsum(rises[order]) / len(curves), np.cumsum(squares[order]) / len(curves)
    effective = np.maximum(mean - alpha_st * np.sqrt(np.maximum(square - mean**2, 0.0)), 0.0)
    last = np.append(np.diff(efpr) > 0, True)[: len(efpr)]
    return efpr[last], effective[last]


def _area(efpr: Floats, tpr: Floats, e_max: float) -> float:
    """Returns the area under a curve of steps, as a share of `e_max`."""
    return float(np.sum(tpr * np.diff(np.append(efpr, e_max))) / e_max)
