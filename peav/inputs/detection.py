"""`PEAV.detect`: from sounds of any length and the names of sounds to when each is heard."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peav.checkpoints import FRAME_PAIR
from peav.embedding_model import EmbeddingModel
from peav.inputs.audio import AudioLike
from peav.inputs.detection_rules import (
    DetectionRules,
    OfModel,
    Thresholds,
    check_detects,
    check_queries,
    detection_rules,
)
from peav.inputs.embedding import BATCH_SECONDS
from peav.inputs.items import Loaded, MediaItem, Request, read_items
from peav.inputs.running import MediaEmbedder, Precision, embed_texts
from peav.inputs.windows import Window, WindowPlan
from peav.released import score_pair
from peav.spans import Span, SpanFinder
from peav.types import Seconds

#: Of each text, its spans in the order of time.
TextSpans = list[list[Span]]


class Detector:
    """A model that listens for K texts: their embeddings, computed once, and how sounds are cut.

    Args:
        model: a frame-level model.
        texts: K names of sounds; the same text twice is embedded once.
        rules: how frames become spans.
        precision: `auto`, `fp32` or `bf16`.

    Raises:
        ValueError: if the model makes no frames of audio, or a text is empty.
        KeyError: if the checkpoint holds no scale and bias for frames and phrases.
    """

    def __init__(
        self, model: EmbeddingModel, texts: Sequence[str], rules: DetectionRules, precision: Precision = "auto"
    ) -> None:
        check_detects(model)
        self.model, self.texts, self.rules = model, list(texts), rules
        self._medium, self._phrase = FRAME_PAIR
        distinct = list(dict.fromkeys(texts))
        place = {text: row for row, text in enumerate(distinct)}
        found = embed_texts(model, distinct, [self._phrase], precision)[self._phrase]
        self._embedded = {self._phrase: found[[place[text] for text in texts]]}
        self._embedder = MediaEmbedder(
            model, [self._medium], model.media, rules.window_seconds, rules.overlap_seconds, precision
        )
        self._embedder.pooled_names = []  # frames alone are compared

    @property
    def text_embeddings(self) -> Tensor:
        """The texts' embeddings (K, D)."""
        return self._embedded[self._phrase]

    def plan(self, row: int, item: MediaItem) -> list[Request]:
        """Returns the windows of an item.

        Raises:
            ValueError: if a window is shorter than a frame.
        """
        return self._embedder.plan(row, item)

    def plan_stream(self) -> WindowPlan:
        """Returns the windows of a sound whose end is not known."""
        grid = self._embedder.frame_grid() or math.nan
        return WindowPlan(self.rules.window_seconds, self.rules.overlap_seconds, grid)

    def run(self, windows: Sequence[tuple[Window, np.ndarray]]) -> list[Heard]:
        """Listens to windows: of each the time from the clip's start, and its samples (S,) at the model's rate."""
        outputs = self._embedder.run([Loaded(samples) for _, samples in windows])
        heard = []
        for (window, samples), output in zip(windows, outputs, strict=True):
            frames, step = output.frames[self._medium], output.frame_seconds[self._medium]
            with torch.inference_mode():
                logits = score_pair(self.model, {f"{self._medium}_frames": frames[None]}, self._embedded, FRAME_PAIR)
            end = window.start + len(samples) / self.model.media.sample_rate
            heard.append(Heard(logits[0].sigmoid().cpu(), round(window.start / step), step, end))
        return heard


@dataclass(frozen=True)
class Heard:
    """What was heard in a window.

    Attributes:
        probabilities: (K, T) of each text in each frame.
        first: number of its first frame in the clip.
        frame_seconds: the time between two frames.
        end: where its sound ends, seconds from the clip's start.
    """

    probabilities: Tensor
    first: int
    frame_seconds: Seconds
    end: Seconds


class ClipDetection:
    """One clip: what its windows gave becomes one sequence of frames, and that spans.

    A frame that two windows share is that of the window in which it lies deeper. What is kept is the last window, and what the rules
    need to look back.

    Args:
        rules: how frames become spans.
        seconds: duration of the clip, if it is known; no span ends later.
        listen: gets the probabilities (K, t) of the clip's frames, bit by bit, and the seconds between two.
    """

    def __init__(
        self,
        rules: DetectionRules,
        seconds: Seconds = math.inf,
        listen: Callable[[Tensor, Seconds], None] | None = None,
    ) -> None:
        self._rules, self._seconds, self._listen = rules, seconds, listen
        self._finder: SpanFinder | None = None
        self._last: Heard | None = None
        self._given = 0

    def add(self, heard: Heard) -> TextSpans:
        """Takes the next window, and returns the spans of each text that are final now."""
        if self._finder is None:
            self._finder = self._rules.finder(heard.frame_seconds)
        found = self.settle(heard.first)
        self._last = heard
        return found

    def settle(self, first: int) -> TextSpans:
        """Takes in that the next window begins with this frame, and returns the spans that are final now."""
        if self._last is None:
            return [[] for _ in self._rules.thresholds]
        after = self._last.first + self._last.probabilities.shape[1]
        if first > after:
            raise RuntimeError(f"windows leave frames {after} to {first} out")
        return self._give((after + first) // 2)

    def finish(self) -> TextSpans:
        """Returns the spans that were not final before the clip ended.

        Raises:
            ValueError: if there was no sound.
        """
        if self._last is None or self._finder is None:
            raise ValueError("holds no sound")
        found = self._give(self._last.first + self._last.probabilities.shape[1])
        self._seconds = min(self._seconds, self._last.end)
        rest = self._finder.finish(self._seconds)
        return [early + late for early, late in zip(found, rest, strict=True)]

    @property
    def seconds(self) -> Seconds:
        """How long the sound was, when it has ended."""
        return self._seconds

    def _give(self, until: int) -> TextSpans:
        """Gives the frames of the last window on, as far as `until`."""
        if self._last is None or self._finder is None or until <= self._given:
            return [[] for _ in self._rules.thresholds]
        some = self._last.probabilities[:, self._given - self._last.first : until - self._last.first]
        self._given = until
        if self._listen is not None:
            self._listen(some, self._last.frame_seconds)
        return self._finder.add(some)


@dataclass(frozen=True)
class ClipSpans:
    """What was found in a clip.

    Attributes:
        spans: of each text.
        seconds: how long the sound was.
    """

    spans: TextSpans
    seconds: Seconds


def detect_items(
    detector: Detector,
    planned: Sequence[Sequence[Request]],
    loaded: Iterable[Loaded | str],
    batch_seconds: Seconds = BATCH_SECONDS,
    listen: Callable[[int, Tensor, Seconds], None] | None = None,
) -> Iterator[ClipSpans | str]:
    """Listens to items window by window, those of short ones together.

    Args:
        detector: the model and the texts.
        planned: the windows of each item.
        loaded: what is decoded of each window, in their order, or why nothing is.
        batch_seconds: sound that goes through the model at once.
        listen: gets the number of an item, the probabilities (K, t) of its next frames, and the seconds between two.

    Yields:
        of each item, in their order, what was found; or why it could not be heard.

    Raises:
        ValueError: if batch_seconds is not positive.
    """
    if not batch_seconds > 0:
        raise ValueError(f"batch_seconds must be positive, not {batch_seconds}")
    decoded = iter(loaded)
    waiting: list[tuple[int, Window, np.ndarray]] = []
    clips: dict[int, ClipDetection] = {}
    found: dict[int, TextSpans] = {}
    failed: dict[int, str] = {}
    following = 0

    def run() -> None:
        usable = [(row, window, samples) for row, window, samples in waiting if row not in failed]
        waiting.clear()
        if usable:
            heard = detector.run([(window, samples) for _, window, samples in usable])
            for (row, _, _), one in zip(usable, heard, strict=True):
                _extend(found[row], clips[row].add(one))

    def ended(until: int) -> Iterator[ClipSpans | str]:
        nonlocal following
        for row in range(following, until):
            clip = clips.pop(row)
            spans = found.pop(row)
            if row not in failed:
                try:
                    _extend(spans, clip.finish())
                except ValueError as error:
                    failed[row] = str(error)
            yield failed.pop(row) if row in failed else ClipSpans(spans, clip.seconds)
        following = until

    for row, requests in enumerate(planned):
        seconds = requests[0].item.seconds if requests else None
        hears = None if listen is None else _listening(listen, row)
        clips[row] = ClipDetection(detector.rules, math.inf if seconds is None else seconds, hears)
        found[row] = [[] for _ in detector.texts]
        over = False
        for request in requests:
            result = next(decoded)
            if isinstance(result, str):
                failed.setdefault(row, result)
            elif result.samples is None:
                over = True  # the sound has ended, though the file has not
            elif not over and row not in failed:
                held = sum(window.seconds for _, window, _ in waiting)
                if waiting and held + request.window.seconds > batch_seconds:
                    run()
                    yield from ended(row)
                waiting.append((row, request.window, result.samples))
    run()
    yield from ended(len(planned))


def _listening(listen: Callable[[int, Tensor, Seconds], None], row: int) -> Callable[[Tensor, Seconds], None]:
    return lambda probabilities, seconds: listen(row, probabilities, seconds)


def _extend(found: TextSpans, more: TextSpans) -> None:
    for own, others in zip(found, more, strict=True):
        own += others


def detect(
    model: EmbeddingModel,
    audio: AudioLike | Sequence[AudioLike],
    text: str | Sequence[str],
    threshold: Thresholds | OfModel = "model",
    *,
    low_threshold: Thresholds | OfModel | None = "model",
    median_seconds: Seconds | OfModel = "model",
    merge_seconds: Seconds | OfModel = "model",
    min_seconds: Seconds | OfModel = "model",
    sample_rate: int | None = None,
    window_seconds: Seconds | OfModel | None = "model",
    overlap_seconds: Seconds | OfModel = "model",
    batch_seconds: Seconds = BATCH_SECONDS,
    precision: Precision = "auto",
) -> list[list[list[Span]]]:
    """Finds when each sound is heard in each clip, by a frame-level model.

    A sound longer than a window is heard in windows that overlap, and each frame comes from the window in whose middle it lies. Files are
    decoded window by window: neither their samples nor their frames are held, so that memory does not grow with their length, but for
    the spans. `model` for a setting is what the checkpoint was tuned to (`model.detection`), or the default where it says nothing.

    Args:
        model: the model.
        audio: A clips, as `embed` takes them.
        text: K sounds to listen for.
        threshold: probability above which a frame holds the sound: one for all, one a text, or by text, where a text without one gets
            the model's. The default is 0.3, that of the released models.
        low_threshold: likewise, no higher than the threshold: a span reaches on over frames above it (hysteresis); None for none,
            the default.
        median_seconds: length of a median filter over the probabilities; 0 by default.
        merge_seconds: shorter gaps within an event are closed; 0 by default.
        min_seconds: shorter events are dropped; 0 by default.
        sample_rate: of arrays, Hz.
        window_seconds: longest piece that is heard at once; None for whole clips. Scores depend on it.
        overlap_seconds: what neighbouring windows share; a sixth of a window by default.
        batch_seconds: sound that goes through the model at once.
        precision: `auto`, `fp32` or `bf16`, as for `embed`.

    Returns:
        for each clip, for each text, its spans in the order of time; a list of a list even for one clip and one text. No span ends after
        its clip.

    Raises:
        ValueError: if the model makes no frames of audio, a text is empty, or a setting is out of range; and as `embed` does.
        KeyError: if the checkpoint holds no scale and bias for frames and phrases.
    """
    check_detects(model)
    texts = check_queries(text)
    rules = detection_rules(
        model,
        texts,
        threshold,
        low_threshold,
        median_seconds,
        merge_seconds,
        min_seconds,
        window_seconds,
        overlap_seconds,
    )
    if audio is None:
        raise ValueError("detect needs audio: a path, an array, or a list of these")
    items = read_items(audio, None, sample_rate)
    detector = Detector(model, texts, rules, precision)
    planned = [detector.plan(row, item) for row, item in enumerate(items)]
    loaded = (request.load() for requests in planned for request in requests)
    found = []
    for item, result in zip(items, detect_items(detector, planned, loaded, batch_seconds), strict=True):
        if isinstance(result, str):
            raise ValueError(f"{item.audio.name if item.audio else 'audio'} {result}")
        found.append(result.spans)
    return found
