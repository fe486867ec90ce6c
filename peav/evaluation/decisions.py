"""Which frames a model detects: at a probability of 0.5, or by the settings that were tuned and are stored with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peav.checkpoints.detection import DetectionSettings
from peav.spans import find_spans, median_filter
from peav.types import Seconds

#: In frames: a median filter that is shorter is one frame long, and changes nothing.
_SHORTEST = 2 * (1 - 1e-4)


@dataclass(frozen=True)
class Decisions:
    """How probabilities of K phrases become detections.

    Attributes:
        settings: of the model; None for a probability of 0.5 in each frame.
        phrases: the K phrases.
        frame_seconds: time between two frames.
    """

    settings: DetectionSettings | None
    phrases: Sequence[str]
    frame_seconds: Seconds

    @property
    def filters(self) -> bool:
        """Whether a median filter changes the scores."""
        return self.settings is not None and self.settings.median_seconds >= _SHORTEST * self.frame_seconds

    @property
    def thresholds(self) -> list[float]:
        """The threshold of each phrase."""
        if self.settings is None:
            return [0.5] * len(self.phrases)
        own = [self.settings.threshold_of(phrase) for phrase in self.phrases]
        return [self.settings.threshold if threshold is None else threshold for threshold in own]

    def is_tuned(self, phrase: str) -> bool:
        """Whether a phrase has a threshold of its own."""
        return self.settings is not None and self.settings.threshold_of(phrase) is not None

    def filtered(self, probabilities: Tensor) -> Tensor:
        """Returns probabilities (K, T) after the median filter."""
        if self.settings is None:
            return probabilities
        return median_filter(probabilities, self.settings.median_seconds, self.frame_seconds)

    def detected(self, probabilities: Tensor) -> Tensor:
        """Returns (K, T) bool: the frames of the spans that `peav.spans.find_spans` finds in one clip.

        Args:
            probabilities: (K, T) float64, before the median filter.
        """
        limits = torch.tensor(self.thresholds, dtype=torch.float64)
        settings = DetectionSettings() if self.settings is None else self.settings
        return detected_frames(probabilities, limits, settings, self.frame_seconds)

    def __str__(self) -> str:
        """Says in words what is detected."""
        stored = self.settings
        if stored is None:
            return "a probability above 0.5"
        tuned = sum(map(self.is_tuned, self.phrases))
        text = f"the settings stored with the model (tuned thresholds of {tuned} of {len(self.phrases)} phrases"
        text += f", {stored.threshold:g} for the others" if tuned < len(self.phrases) else ""
        if stored.low_threshold is not None:
            text += f", low threshold {stored.low_threshold:g}"
        for seconds, what in (
            (stored.median_seconds, "median filter of {} s"),
            (stored.merge_seconds, "gaps under {} s closed"),
            (stored.min_seconds, "spans under {} s dropped"),
        ):
            text += f", {what.format(f'{seconds:g}')}" if seconds else ""
        return text + ")"


def detected_frames(
    probabilities: Tensor, limits: Tensor, settings: DetectionSettings, frame_seconds: Seconds
) -> Tensor:
    """Returns (K, T) bool: the frames of the spans that `peav.spans.find_spans` finds in one clip.

    Args:
        probabilities: (K, T) float64, before the median filter.
        limits: (K,) float64, the thresholds.
        settings: filter, hysteresis, gaps and shortest spans; their thresholds are not read.
        frame_seconds: time between two frames.
    """
    if not has_span_rules(settings):
        return median_filter(probabilities, settings.median_seconds, frame_seconds) > limits[:, None]
    low = None if settings.low_threshold is None else limits.clamp(max=settings.low_threshold)
    every = torch.ones(1, probabilities.shape[1], dtype=torch.bool)
    options = (settings.min_seconds, settings.merge_seconds, low, settings.median_seconds)
    found = find_spans(probabilities[None], every, limits, frame_seconds, None, *options)[0]
    frames = np.zeros(probabilities.shape, dtype=np.bool_)
    for row, spans in zip(frames, found, strict=True):
        for span in spans:
            row[round(span.onset / frame_seconds) : round(span.offset / frame_seconds)] = True
    return torch.from_numpy(frames)


def has_span_rules(settings: DetectionSettings) -> bool:
    """Returns whether more than a comparison with a threshold makes spans: hysteresis, closed gaps or dropped spans."""
    return settings.low_threshold is not None or settings.merge_seconds > 0 or settings.min_seconds > 0
