"""Thresholds of phrases, tuned on a validation split by detection as it is used, for the settings stored with a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
from peav.evaluation.decisions import detected_frames, has_span_rules
from peav.evaluation.detection import ScoredClip, active_frames, best_thresholds, clip_counts, f1_of_counts
from peav.evaluation.detection.clips import Floats
from peav.evaluation.detection.counts import Matching
from peav.evaluation.known import known_phrases
from peav.inputs import DetectionRules, Detector, detect_items, detection_windows, items_of_arrays
from peav.inputs.running import Precision
from peav.model import PEAV
from peav.spans import median_filter
from peav.types import Seconds

#: Thresholds of a phrase that are tried where spans are more than the frames above one.
_TRIED = 50


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
    not known when a phrase is heard, it is left out (`peav.evaluation.known`). Without hysteresis, closed gaps and dropped spans the
    threshold is the best of all; with them spans do not grow step by step as it falls, and the best of 50 is taken, quantiles of the
    scores that matter.

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
    rules = DetectionRules((settings.threshold,) * len(phrases), None, 0.0, 0.0, 0.0, *detection_windows(model))
    detector = Detector(model, phrases, rules, precision)
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
    if has_span_rules(settings):
        for k, threshold in enumerate(thresholds):
            if reached[k] is not None:
                thresholds[k], reached[k] = _best_as_used(scored, k, float(threshold), settings, matching)
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


def _best_as_used(
    clips: Sequence[ScoredClip], label: int, threshold: float, settings: DetectionSettings, matching: Matching
) -> tuple[float, float]:
    """Finds the threshold of one phrase with the highest F1 of the spans that detection makes of it, hysteresis, gaps and all.

    Args:
        clips: their scores are probabilities after the median filter.
        label: of the phrase.
        threshold: the best one without these rules, which is tried too.
        settings: the rules.
        matching: what a true detection is.

    Returns:
        the threshold, and the F1 there.
    """
    known = [clip for clip in clips if clip.known is None or clip.known[label]]
    limits = _candidates(known, label, threshold)
    after_filter = replace(settings, median_seconds=0.0)
    counts = np.zeros((len(limits), 3))
    for clip in known:
        scores = torch.from_numpy(np.ascontiguousarray(clip.scores[:, label])).expand(len(limits), -1)
        frames = detected_frames(scores, torch.from_numpy(limits), after_filter, float(clip.times[1] - clip.times[0]))
        spans = [(onset, offset) for at, onset, offset in clip.events if at == label]
        events = [(k, onset, offset) for k in range(len(limits)) for onset, offset in spans]
        decided = ScoredClip(np.where(frames.numpy().T, 1.0, -1.0), clip.times, events, duration=clip.duration)
        counts += clip_counts([decided], matching, 0.0)[0]
    values = np.array(f1_of_counts(counts).per_label, np.float64)
    best = int(values.argmax())
    # Where a higher one does as well, the middle of those.
    after = best + int(np.argmin(np.append(values[best:] == values[best], False)))
    return float(limits[(best + after - 1) // 2]), float(values[best])


def _candidates(clips: Sequence[ScoredClip], label: int, threshold: float) -> Floats:
    """Returns thresholds to try, ascending: quantiles of the scores where the phrase is heard and of the highest of each clip."""
    found = [np.array([threshold])]
    for clip in clips:
        scores = clip.scores[:, label]
        found += [scores[active_frames(clip)[:, label]], scores.max(initial=0.0, keepdims=True)]
    quantiles = np.quantile(np.concatenate(found), np.linspace(0, 1, _TRIED - 1))
    return np.unique(np.append(quantiles, threshold)).clip(0.0, 1.0)
