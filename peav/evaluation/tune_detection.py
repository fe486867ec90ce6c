"""Thresholds of phrases, tuned on a validation split by detection as it is used, for the settings stored with a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from peav.checkpoints import DetectionSettings
from peav.data.loading.decoding import ClipReader, DecodeSettings
from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import distinct_texts
from peav.evaluation.collect import Split, clip_texts
from peav.evaluation.detection import ScoredClip, best_thresholds
from peav.evaluation.detection.counts import Matching
from peav.evaluation.known import known_phrases
from peav.inputs import Detector, detect_items, detection_rules, items_of_arrays
from peav.inputs.running import Precision
from peav.model import PEAV
from peav.spans import median_filter
from peav.types import Seconds


@dataclass(frozen=True)
class Tuned:
    """What tuning gave.

    Attributes:
        settings: with the thresholds.
        clips: annotated clips with sound that were heard.
        f1: of each phrase with events, at its threshold, on these same clips.
        untuned: phrases of which nothing was found at any threshold; they keep the default.
    """

    settings: DetectionSettings
    clips: int
    f1: dict[str, float]
    untuned: list[str]


def tune_detection(
    model: PEAV,
    split: Split,
    settings: DetectionSettings,
    matching: Matching,
    precision: Precision = "auto",
    batch_seconds: Seconds = 120.0,
    tracked: Callable[[Iterable[Clip], int], Iterable[Clip]] = lambda clips, count: clips,
) -> Tuned:
    """Finds the threshold of each phrase that gives the highest F1 on a split.

    Every annotated clip is heard as `PEAV.detect` hears it, with the windows and the median filter of `settings`; in a clip in which it is
    not known when a phrase is heard, it is left out (`peav.evaluation.known`). Closed gaps and dropped spans come after, and are not
    tuned.

    Args:
        model: a frame-level model.
        split: of validation; thresholds that were tuned on a test split would flatter it.
        settings: windows, filters, and the default threshold; thresholds that it holds are kept where the split has no event.
        matching: what a true detection is.
        precision: `auto`, `fp32` or `bf16`.
        batch_seconds: sound that goes through the model at once.
        tracked: shows the progress of so many clips.

    Raises:
        ValueError: if no clip is annotated in time, or the model cannot say when.
    """
    wanted = [clip for clip in split if clip.has_audio and clip_texts(clip).events is not None]
    named = [event[0] for clip in wanted for event in clip_texts(clip).events or []]
    if not named:
        raise ValueError(
            f"the split {split.split!r} of {split.data} holds no event with times: there is nothing to tune"
        )
    phrases, _ = distinct_texts(named)
    knowledge = known_phrases(wanted, phrases, split.labels)
    heard = [(clip, known) for clip, known in zip(wanted, knowledge, strict=True) if bool(known.any())]
    model.detection = settings
    detector = Detector(model, phrases, detection_rules(model, phrases, settings.threshold), precision)
    media = model.media
    reader = ClipReader(split.data, DecodeSettings(media.sample_rate, downmix=media.downmix))
    scored: list[ScoredClip] = []
    known_in = {clip.id: known.numpy() for clip, known in heard}
    for clip in tracked([clip for clip, _ in heard], len(heard)):
        samples = reader.samples(clip)
        parts: list[Tensor] = []
        steps: list[Seconds] = []

        def listen(
            _: int, some: Tensor, step: Seconds, parts: list[Tensor] = parts, steps: list[Seconds] = steps
        ) -> None:
            parts.append(some)
            steps.append(step)

        items = items_of_arrays([samples.numpy()], media.sample_rate)
        planned = [detector.plan(0, items[0])]
        list(detect_items(detector, planned, (request.load() for request in planned[0]), batch_seconds, listen))
        scored.append(_scored(clip, phrases, torch.cat(parts, 1), steps[0], settings.median_seconds, known_in[clip.id]))
    thresholds, reached = best_thresholds(scored, matching)
    found = {p: float(t) for p, t, f in zip(phrases, thresholds, reached, strict=True) if f}
    f1 = {p: float(f) for p, f in zip(phrases, reached, strict=True) if f}
    kept = {**settings.thresholds, **{p: min(max(t, 0.0), 1.0) for p, t in found.items()}}
    return Tuned(replace(settings, thresholds=kept), len(scored), f1, [p for p in phrases if p not in found])


def _scored(
    clip: Clip,
    phrases: list[str],
    probabilities: Tensor,
    step: Seconds,
    median_seconds: Seconds,
    known: npt.NDArray[np.bool_],
) -> ScoredClip:
    filtered = median_filter(probabilities.double(), median_seconds, step)
    true = clip_texts(clip).events or []
    _, places = distinct_texts([*phrases, *(event[0] for event in true)])
    labels: Iterator[int] = iter(places[len(phrases) :])
    events = [(label, a, b) for label, (_, a, b) in zip(labels, true, strict=True) if a < b and known[label]]
    return ScoredClip(filtered.T.numpy(), np.arange(filtered.shape[1] + 1) * step, events, known)
