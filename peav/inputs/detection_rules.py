"""How frames become spans, and how sounds are cut: what a checkpoint was tuned to, and what a user wants."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from peav.checkpoints import FRAME_PAIR, DetectionSettings
from peav.data.manifests.identities import normalize_text
from peav.embedding_model import EmbeddingModel
from peav.inputs.embedding import check_texts
from peav.inputs.windows import check_windows
from peav.spans import SpanFinder
from peav.types import Seconds

log = logging.getLogger(__name__)

#: What the checkpoint was tuned to, or the default.
OfModel = Literal["model"]

#: One for all texts, one a text in their order, or by text.
Thresholds = float | Sequence[float] | Mapping[str, float]

#: Neighbouring windows share this part of one, where nothing else is said: their edges are heard without what is beyond.
_OVERLAP_SHARE = 1 / 6


@dataclass(frozen=True)
class DetectionRules:
    """How the frames of K texts become spans, and how sounds are cut: the settings of a checkpoint with those of the user.

    Attributes:
        thresholds: (K,).
        low_thresholds: (K,), or None without hysteresis.
        median_seconds: see `peav.spans.find_spans`, as the next two.
        merge_seconds: likewise.
        min_seconds: likewise.
        window_seconds: longest piece that is heard at once; None for whole sounds.
        overlap_seconds: what neighbouring windows share.
        tuned: how many of the thresholds were tuned for their text and stored with the checkpoint.
    """

    thresholds: tuple[float, ...]
    low_thresholds: tuple[float, ...] | None
    median_seconds: Seconds
    merge_seconds: Seconds
    min_seconds: Seconds
    window_seconds: Seconds | None
    overlap_seconds: Seconds
    tuned: int = 0

    def finder(self, frame_seconds: Seconds) -> SpanFinder:
        """Returns what finds spans by these rules.

        Raises:
            ValueError: if a value is out of range.
        """
        return SpanFinder(
            len(self.thresholds),
            self.thresholds,
            frame_seconds,
            self.min_seconds,
            self.merge_seconds,
            self.low_thresholds,
            self.median_seconds,
        )


def detection_rules(
    model: EmbeddingModel,
    texts: Sequence[str],
    threshold: Thresholds | OfModel = "model",
    low_threshold: Thresholds | OfModel | None = "model",
    median_seconds: Seconds | OfModel = "model",
    merge_seconds: Seconds | OfModel = "model",
    min_seconds: Seconds | OfModel = "model",
    window_seconds: Seconds | OfModel | None = "model",
    overlap_seconds: Seconds | OfModel = "model",
) -> DetectionRules:
    """Joins what a checkpoint was tuned to with what a user wants; see `detect` for the arguments.

    Raises:
        ValueError: if a value is out of range, or a threshold is for a text that nobody asks for.
    """
    stored = model.detection if model.detection is not None else DetectionSettings()
    tuned = [stored.threshold_of(text) for text in texts]
    of_model = [stored.threshold if own is None else own for own in tuned]
    highs = _by_text("threshold", threshold, texts, of_model)
    if low_threshold is None or (low_threshold == "model" and stored.low_threshold is None):
        lows = None
    elif low_threshold == "model":
        # A phrase whose own threshold is lower has no hysteresis.
        lows = tuple(min(stored.low_threshold or 0.0, high) for high in highs)
    else:
        lows = _by_text("low_threshold", low_threshold, texts, highs)
    window, overlap = detection_windows(model, window_seconds, overlap_seconds)
    rules = DetectionRules(
        highs,
        lows,
        stored.median_seconds if median_seconds == "model" else median_seconds,
        stored.merge_seconds if merge_seconds == "model" else merge_seconds,
        stored.min_seconds if min_seconds == "model" else min_seconds,
        window,
        overlap,
        sum(own is not None for own in tuned) if threshold == "model" else 0,
    )
    rules.finder(1.0)  # says now what is out of range
    if model.detection is not None:
        log.info(
            "detection settings of the checkpoint: %d of %d texts have thresholds of their own, the others %g; windows of %s s, "
            "median %g s, gaps closed below %g s, spans of at least %g s",
            rules.tuned,
            len(texts),
            stored.threshold,
            "all" if window is None else f"{window:g}",
            rules.median_seconds,
            rules.merge_seconds,
            rules.min_seconds,
        )
    return rules


def detection_windows(
    model: EmbeddingModel,
    window_seconds: Seconds | OfModel | None = "model",
    overlap_seconds: Seconds | OfModel = "model",
) -> tuple[Seconds | None, Seconds]:
    """Returns the longest piece of a sound that is heard at once, None for whole sounds, and what neighbouring pieces share.

    Raises:
        ValueError: if a value is out of range.
    """
    stored = model.detection if model.detection is not None else DetectionSettings()
    window = window_seconds
    if window == "model":
        window = stored.window_seconds if stored.window_seconds is not None else model.media.window_seconds
    elif isinstance(window, str):
        raise ValueError(f"window_seconds must be a number, 'model' or None, not {window!r}")
    overlap = overlap_seconds
    if overlap == "model":
        overlap = 0.0
        if window is not None:
            known = stored.overlap_seconds if window_seconds == "model" else None
            overlap = known if known is not None else _OVERLAP_SHARE * window
    elif isinstance(overlap, str):
        raise ValueError(f"overlap_seconds must be a number or 'model', not {overlap!r}")
    check_windows(window, overlap)
    return window, overlap


def _by_text(
    name: str, given: Thresholds | OfModel, texts: Sequence[str], otherwise: Sequence[float]
) -> tuple[float, ...]:
    """Returns a number a text."""
    if isinstance(given, str):
        if given != "model":
            raise ValueError(
                f"{name} must be a number, one a text, a mapping from text to number, or 'model', not {given!r}"
            )
        return tuple(otherwise)
    if isinstance(given, Mapping):
        by_text = {normalize_text(text): value for text, value in given.items()}
        asked = {normalize_text(text) for text in texts}
        if unknown := [text for text in given if normalize_text(text) not in asked]:
            raise ValueError(
                f"{name} is given for {unknown[0]!r}, which is not among the texts: {', '.join(map(repr, texts))[:200]}"
            )
        values = [by_text.get(normalize_text(text), own) for text, own in zip(texts, otherwise, strict=True)]
    elif isinstance(given, Sequence | Tensor | np.ndarray):
        values = [float(value) for value in given]
        if len(values) != len(texts):
            raise ValueError(f"{name} has {len(values)} numbers for {len(texts)} texts: give one number, or one a text")
    else:
        values = [given] * len(texts)
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1], not {value!r}")
    return tuple(float(value) for value in values)


def check_detects(model: EmbeddingModel) -> None:
    """Checks that a model can say when something is heard.

    Raises:
        ValueError: if it makes no frames of audio.
        KeyError: if the checkpoint holds no scale and bias for frames and phrases.
    """
    medium, phrase = FRAME_PAIR
    if medium not in model.frame_names or phrase not in model.pooled_names:
        raise ValueError(
            "this model makes no audio frames to be compared with phrases of events, so that it cannot say when; frame-level models "
            f"can, such as facebook/pe-a-frame-base. This one makes {', '.join(model.embedding_names)}"
        )
    model.check_score(FRAME_PAIR)


def check_queries(text: str | Sequence[str]) -> list[str]:
    """Returns the texts to listen for.

    Raises:
        ValueError: if there is none, or one is empty or no string.
    """
    texts = check_texts(text)
    if not texts:
        raise ValueError("detect needs text: the names of the sounds to listen for")
    for row, one in enumerate(texts):
        if not normalize_text(one):
            raise ValueError(f"text[{row}] is {one!r}, which names no sound")
    return texts
