"""How a model finds sounds by name: settings that are tuned on a validation split and stored with the checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from peav.data.manifests.identities import normalize_text
from peav.types import Seconds

#: The threshold of the released models.
DEFAULT_THRESHOLD = 0.3

#: A file that names more thresholds, or longer phrases, is none that peav wrote.
MAX_THRESHOLDS, _MAX_CHARACTERS = 50_000, 2_000

#: Longer windows, filters and gaps than a day are none.
_MAX_SECONDS = 86_400.0


@dataclass(frozen=True)
class DetectionSettings:
    """How frames become spans, see `peav.spans.find_spans`; and how long audio is cut.

    Attributes:
        threshold: of phrases without one of their own, in [0, 1].
        thresholds: of phrases, by the phrase as `normalize_text` writes it.
        low_threshold: where a span that exceeds its threshold ends (hysteresis), where that is lower; None turns it off.
        median_seconds: length of the median filter.
        merge_seconds: shorter gaps are closed.
        min_seconds: shorter spans are dropped.
        window_seconds: longest piece that is heard at once; None for the model's (`MediaSettings.window_seconds`). Scores depend on it:
            every frame attends to its whole window.
        overlap_seconds: what neighbouring windows share; None for a sixth of the window.

    Raises:
        ValueError: if a value is no number of its range.
    """

    threshold: float = DEFAULT_THRESHOLD
    thresholds: Mapping[str, float] = field(default_factory=dict)
    low_threshold: float | None = None
    median_seconds: Seconds = 0.0
    merge_seconds: Seconds = 0.0
    min_seconds: Seconds = 0.0
    window_seconds: Seconds | None = None
    overlap_seconds: Seconds | None = None

    def __post_init__(self) -> None:
        _check("threshold", self.threshold, 1.0)
        if not isinstance(self.thresholds, Mapping) or len(self.thresholds) > MAX_THRESHOLDS:
            raise ValueError(f"thresholds must be at most {MAX_THRESHOLDS:,} numbers by phrase")
        for phrase, threshold in self.thresholds.items():
            if not isinstance(phrase, str) or not 0 < len(phrase) <= _MAX_CHARACTERS:
                raise ValueError(
                    f"thresholds stand by phrases of 1 to {_MAX_CHARACTERS:,} characters, not {phrase!r:.80}"
                )
            _check(f"the threshold of {phrase!r:.80}", threshold, 1.0)
        if self.low_threshold is not None:
            _check("low_threshold", self.low_threshold, 1.0)
        for name in ("median_seconds", "merge_seconds", "min_seconds"):
            _check(name, getattr(self, name), _MAX_SECONDS)
        for name in ("window_seconds", "overlap_seconds"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), _MAX_SECONDS)
        # As they are compared, whoever wrote them.
        kept = {normalize_text(phrase): float(threshold) for phrase, threshold in self.thresholds.items()}
        object.__setattr__(self, "thresholds", kept)

    def threshold_of(self, phrase: str) -> float | None:
        """Returns the threshold that was tuned for a phrase, None where none was."""
        return self.thresholds.get(normalize_text(phrase))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DetectionSettings:
        """Reads what a configuration holds.

        Raises:
            ValueError: if a field is unknown, or a value is no number of its range.
        """
        known = [each.name for each in fields(cls)]
        if unknown := sorted(set(data) - set(known)):
            raise ValueError(f"detection has no setting {', '.join(unknown)}; it has {', '.join(known)}")
        return cls(**data)


def _check(name: str, value: object, most: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value!r:.80}")
    if not 0 <= value <= most:
        raise ValueError(f"{name} must lie in [0, {most:g}], not {value}")
