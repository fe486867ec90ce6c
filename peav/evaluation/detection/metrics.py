"""The metrics of detection as torchmetrics classes: update a batch at a time, exact over any number of ranks."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from peav.devices import accumulator_dtype
from peav.evaluation.detection.calibration import calibration, calibration_sums
from peav.evaluation.detection.clips import LabelEvent, ScoredClip, known_labels
from peav.evaluation.detection.collar import Collar
from peav.evaluation.detection.counts import Matching
from peav.evaluation.detection.f1 import clip_counts, f1_of_counts
from peav.evaluation.detection.false_alarms import absent_counts, false_alarms
from peav.evaluation.detection.psds import PSDS1, PSDSettings, psds
from peav.evaluation.detection.roc import active_frames, frame_roc
from peav.masking import lengths_to_mask, mask_to_lengths
from peav.types import Seconds

Average = Literal["macro", "micro"]


def scored_clips(
    scores: Tensor,
    mask: Tensor,
    events: Sequence[Sequence[LabelEvent]],
    frame_seconds: Seconds,
    known: Tensor | None = None,
    durations: Tensor | None = None,
) -> list[ScoredClip]:
    """Makes clips of a batch.

    Args:
        scores: (A, K, T) float; what is padded may be anything.
        mask: (A, T) bool, True from the first frame of a clip to its last.
        events: of each clip, (label, onset, offset) in seconds.
        frame_seconds: the time between two frames.
        known: (A, K) bool, False for labels about which nothing is known in a clip; all are known by default.
        durations: (A,) seconds; the end of the last frame by default.

    Raises:
        ValueError: if shapes do not fit, the mask has gaps, or a clip is refused (`ScoredClip`).
    """
    if scores.ndim != 3 or mask.shape != (len(scores), scores.shape[-1]) or len(events) != len(scores):
        got = f"{tuple(scores.shape)}, {tuple(mask.shape)} and {len(events)}"
        raise ValueError(f"expected scores (A, K, T), a mask (A, T) and events of A clips, got {got}")
    lengths = mask_to_lengths(mask)
    if not torch.equal(mask, lengths_to_mask(lengths, mask.shape[1])):
        raise ValueError("mask must be True from the first frame of a clip to its last, without gaps")
    values = scores.detach().transpose(1, 2).float().cpu().numpy()
    there = None if known is None else known.cpu().numpy()
    seconds = None if durations is None else durations.tolist()
    return [
        ScoredClip(
            values[a, :length],
            np.arange(length + 1) * frame_seconds,
            clip_events,
            None if there is None else there[a],
            None if seconds is None else seconds[a],
        )
        for a, (length, clip_events) in enumerate(zip(lengths.tolist(), events, strict=True))
    ]


class DetectionMetric(Metric):
    """A metric of detection.

    Args:
        num_labels: K.
        frame_seconds: the time between two frames.
        kwargs: of `torchmetrics.Metric`.
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, num_labels: int, frame_seconds: Seconds, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_labels < 1 or not frame_seconds > 0:
            raise ValueError(f"num_labels and frame_seconds must be positive, got {num_labels} and {frame_seconds}")
        self.num_labels = num_labels
        self.frame_seconds = frame_seconds

    def update(
        self,
        scores: Tensor,
        mask: Tensor,
        events: Sequence[Sequence[LabelEvent]],
        known: Tensor | None = None,
        durations: Tensor | None = None,
    ) -> None:
        """Adds clips; see `scored_clips` for the arguments.

        Raises:
            ValueError: if there are not `num_labels` labels, or a clip is refused.
        """
        if scores.ndim == 3 and scores.shape[1] != self.num_labels:
            raise ValueError(f"expected scores of {self.num_labels} labels, got {tuple(scores.shape)}")
        self._add(scored_clips(scores, mask, events, self.frame_seconds, known, durations))

    @abstractmethod
    def _add(self, clips: Sequence[ScoredClip]) -> None:
        """Adds clips to the state."""

    def _as_tensor(self, value: float | None) -> Tensor:
        return torch.tensor(float("nan") if value is None else value, device=self.device)


class _KeepsClips(DetectionMetric):
    """Keeps scores and events, where sums do not tell enough: 4 bytes a frame and label, on every rank when ranks are joined."""

    scores: list[Tensor]
    sizes: list[Tensor]
    seconds: list[Tensor]
    known: list[Tensor]
    events: list[Tensor]

    def __init__(self, num_labels: int, frame_seconds: Seconds, **kwargs: Any) -> None:
        super().__init__(num_labels, frame_seconds, **kwargs)
        for name in ("scores", "sizes", "seconds", "known", "events"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def _add(self, clips: Sequence[ScoredClip]) -> None:
        wide = accumulator_dtype(torch.device(self.device))

        def put(state: list[Tensor], values: Any, dtype: torch.dtype) -> None:
            state.append(torch.from_numpy(np.asarray(values)).to(self.device, dtype))

        events = [event for clip in clips for event in clip.events]
        put(self.scores, np.concatenate([np.zeros((0, self.num_labels)), *(c.scores for c in clips)]), torch.float32)
        put(self.sizes, [[len(c.scores), len(c.events)] for c in clips] or np.zeros((0, 2)), torch.int64)
        put(self.seconds, [c.seconds for c in clips], wide)
        put(self.known, known_labels(clips) if clips else np.zeros((0, self.num_labels)), torch.uint8)
        put(self.events, np.array(events, dtype=np.float64).reshape(-1, 3), wide)

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        if not self.scores:
            self._add([])  # a rank without clips has tensors of the others' shapes and types, too
        super()._sync_dist(*args, **kwargs)

    def clips(self) -> list[ScoredClip]:
        """Returns all clips that were added, on any rank where ranks are joined."""
        states = (self.scores, self.sizes, self.seconds, self.known, self.events)
        if not len(self.scores):
            return []
        scores, sizes, seconds, known, events = (
            (state if isinstance(state, Tensor) else torch.cat(state)).cpu().numpy() for state in states
        )
        frame, event = (np.concatenate([[0], np.cumsum(column)]) for column in sizes.T)
        return [
            ScoredClip(
                scores[frame[a] : frame[a + 1]],
                np.arange(size + 1) * self.frame_seconds,
                [(int(label), onset, offset) for label, onset, offset in events[event[a] : event[a + 1]].tolist()],
                known[a].astype(np.bool_),
                float(seconds[a]),
            )
            for a, size in enumerate(sizes[:, 0])
        ]

    def _over_clips(self, function: Callable[[list[ScoredClip]], float | None]) -> Tensor:
        clips = self.clips()
        return self._as_tensor(function(clips) if clips else None)


class FrameAUROC(_KeepsClips):
    """Area under the ROC curve over frames, or the partial one; NaN without both classes.

    Args:
        num_labels: K.
        frame_seconds: the time between two frames.
        average: `macro` is the mean over labels with both classes, `micro` pools all (frame, label).
        max_fpr: in (0, 1]; see `peav.evaluation.detection.auroc`.
        kwargs: of `torchmetrics.Metric`.

    >>> metric = FrameAUROC(num_labels=1, frame_seconds=1.0)
    >>> metric.update(torch.tensor([[[0.1, 0.9, 0.8, 0.2]]]), torch.ones(1, 4).bool(), [[(0, 1.0, 3.0)]])
    >>> metric.compute()
    tensor(1.)
    """

    higher_is_better = True

    def __init__(
        self,
        num_labels: int,
        frame_seconds: Seconds,
        average: Average = "macro",
        max_fpr: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_labels, frame_seconds, **kwargs)
        _check_average(average)
        if not 0 < max_fpr <= 1:
            raise ValueError(f"max_fpr must lie in (0, 1], not {max_fpr}")
        self.average = average
        self.max_fpr = max_fpr

    def compute(self) -> Tensor:
        """Returns the area, a scalar."""
        return self._over_clips(lambda clips: getattr(frame_roc(clips, self.max_fpr), self.average))


class PSDScore(_KeepsClips):
    """Polyphonic sound detection score; NaN without events.

    Args:
        num_labels: K.
        frame_seconds: the time between two frames.
        settings: `PSDS1`, `PSDS2` or one's own.
        alpha_st: takes the place of that in `settings`; AudioSet-Strong is by custom scored with 0.
        kwargs: of `torchmetrics.Metric`.

    >>> metric = PSDScore(num_labels=1, frame_seconds=1.0)
    >>> metric.update(torch.tensor([[[0.1, 0.9, 0.8, 0.2]]]), torch.ones(1, 4).bool(), [[(0, 1.0, 3.0)]])
    >>> metric.compute()
    tensor(1.)
    """

    higher_is_better = True

    def __init__(
        self,
        num_labels: int,
        frame_seconds: Seconds,
        settings: PSDSettings = PSDS1,
        alpha_st: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_labels, frame_seconds, **kwargs)
        self.settings = settings if alpha_st is None else dataclasses.replace(settings, alpha_st=alpha_st)

    def compute(self) -> Tensor:
        """Returns the score, a scalar."""
        return self._over_clips(lambda clips: psds(clips, self.settings).value)


class _Sums(DetectionMetric):
    """Keeps sums over clips."""

    sums: Tensor

    def __init__(self, num_labels: int, frame_seconds: Seconds, shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(num_labels, frame_seconds, **kwargs)
        self.add_state("sums", torch.zeros(*shape, dtype=torch.float64), dist_reduce_fx="sum")

    def _add(self, clips: Sequence[ScoredClip]) -> None:
        if clips:
            self.sums += torch.from_numpy(self._of(clips)).to(self.sums)

    @abstractmethod
    def _of(self, clips: Sequence[ScoredClip]) -> np.ndarray:
        """Returns what some clips add to `sums`."""


class DetectionF1(_Sums):
    """F1 of detections at fixed thresholds; NaN without events.

    Args:
        num_labels: K.
        frame_seconds: the time between two frames.
        matching: `Collar()` for the event-based F1, `Segments()` for the segment-based, `Intersection()` for the intersection-based one.
        thresholds: one, or one a label; a frame is active where its score exceeds the threshold.
        average: `macro` is the mean over labels with events, `micro` counts all labels together.
        kwargs: of `torchmetrics.Metric`.

    >>> metric = DetectionF1(num_labels=1, frame_seconds=1.0)
    >>> metric.update(torch.tensor([[[0.1, 0.9, 0.8, 0.2]]]), torch.ones(1, 4).bool(), [[(0, 1.1, 3.0)]])
    >>> metric.compute()
    tensor(1.)
    """

    higher_is_better = True

    def __init__(
        self,
        num_labels: int,
        frame_seconds: Seconds,
        matching: Matching | None = None,
        thresholds: float | Sequence[float] = 0.5,
        average: Average = "macro",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_labels, frame_seconds, (num_labels, 3), **kwargs)
        _check_average(average)
        self.matching = Collar() if matching is None else matching
        self.thresholds = _thresholds(thresholds, num_labels)
        self.average = average

    def _of(self, clips: Sequence[ScoredClip]) -> np.ndarray:
        return clip_counts(clips, self.matching, self.thresholds).sum(0)

    def compute(self) -> Tensor:
        """Returns F1, a scalar."""
        return self._as_tensor(getattr(f1_of_counts(self.sums.cpu().numpy()), self.average))


class FalseAlarmsPerHour(_Sums):
    """Detections an hour of labels that are known to be absent; NaN where none is.

    Args:
        num_labels: K.
        frame_seconds: the time between two frames.
        thresholds: one, or one a label; a frame is active where its score exceeds the threshold.
        kwargs: of `torchmetrics.Metric`.

    >>> metric = FalseAlarmsPerHour(num_labels=1, frame_seconds=9.0)
    >>> metric.update(torch.tensor([[[0.9, 0.1, 0.8, 0.2]]]), torch.ones(1, 4).bool(), [[]])
    >>> metric.compute()
    tensor(200.)
    """

    higher_is_better = False

    def __init__(
        self, num_labels: int, frame_seconds: Seconds, thresholds: float | Sequence[float] = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(num_labels, frame_seconds, (num_labels, 2), **kwargs)
        self.thresholds = _thresholds(thresholds, num_labels)

    def _of(self, clips: Sequence[ScoredClip]) -> np.ndarray:
        return absent_counts(clips, self.thresholds).sum(0)

    def compute(self) -> Tensor:
        """Returns detections per hour, a scalar."""
        return self._as_tensor(false_alarms(self.sums.cpu().numpy()).per_hour)


class _Calibration(_Sums):
    higher_is_better = False

    def __init__(self, num_labels: int, frame_seconds: Seconds, num_bins: int, **kwargs: Any) -> None:
        super().__init__(num_labels, frame_seconds, (4, num_bins), **kwargs)
        self.num_bins = num_bins

    def _of(self, clips: Sequence[ScoredClip]) -> np.ndarray:
        known = [np.broadcast_to(row, clip.scores.shape) for row, clip in zip(known_labels(clips), clips, strict=True)]
        scores = np.concatenate([clip.scores[there] for clip, there in zip(clips, known, strict=True)])
        active = np.concatenate([active_frames(clip)[there] for clip, there in zip(clips, known, strict=True)])
        return calibration_sums(scores, active, self.num_bins)


class FrameCalibrationError(_Calibration):
    """Expected calibration error of the probabilities of frames; NaN without frames.

    Args:
        num_labels: K.
        frame_seconds: the time between two frames.
        num_bins: bins of equal width.
        kwargs: of `torchmetrics.Metric`.

    >>> metric = FrameCalibrationError(num_labels=1, frame_seconds=1.0)
    >>> metric.update(torch.tensor([[[0.0, 0.75, 0.75, 0.0]]]), torch.ones(1, 4).bool(), [[(0, 1.0, 3.0)]])
    >>> metric.compute()
    tensor(0.1250)
    """

    def __init__(self, num_labels: int, frame_seconds: Seconds, num_bins: int = 15, **kwargs: Any) -> None:
        super().__init__(num_labels, frame_seconds, num_bins, **kwargs)

    def compute(self) -> Tensor:
        """Returns the error, a scalar."""
        return self._as_tensor(calibration(self.sums.cpu().numpy()).ece)


class FrameBrierScore(_Calibration):
    """Mean squared distance of the probabilities of frames and the truth; NaN without frames.

    Args:
        num_labels: K.
        frame_seconds: the time between two frames.
        kwargs: of `torchmetrics.Metric`.

    >>> metric = FrameBrierScore(num_labels=1, frame_seconds=1.0)
    >>> metric.update(torch.tensor([[[0.0, 0.5, 0.5, 0.0]]]), torch.ones(1, 4).bool(), [[(0, 1.0, 3.0)]])
    >>> metric.compute()
    tensor(0.1250)
    """

    def __init__(self, num_labels: int, frame_seconds: Seconds, **kwargs: Any) -> None:
        super().__init__(num_labels, frame_seconds, 1, **kwargs)

    def compute(self) -> Tensor:
        """Returns the score, a scalar."""
        return self._as_tensor(calibration(self.sums.cpu().numpy()).brier)


def _check_average(average: str) -> None:
    if average not in ("macro", "micro"):
        raise ValueError(f"average must be 'macro' or 'micro', not {average!r}")


def _thresholds(thresholds: float | Sequence[float], num_labels: int) -> np.ndarray:
    found = np.asarray(thresholds, dtype=np.float64)
    if found.shape not in ((), (num_labels,)) or np.isnan(found).any():
        raise ValueError(f"expected one threshold, or one for each of {num_labels} labels, got {thresholds}")
    return found
