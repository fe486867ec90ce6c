"""`PEAV.detect` and `PEAV.detect_stream`: from sounds of any length and the names of sounds to when each is heard."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from peav.checkpoints import FRAME_PAIR, DetectionSettings
from peav.data.manifests.identities import normalize_text
from peav.embedding_model import EmbeddingModel
from peav.inputs.audio import ArrayAudio, AudioLike, read_samples, with_margin
from peav.inputs.embedding import BATCH_SECONDS, check_texts
from peav.inputs.items import Loaded, MediaItem, Request, read_items
from peav.inputs.running import MediaEmbedder, Precision, embed_texts
from peav.inputs.windows import Window, WindowPlan, check_windows
from peav.released import score_pair
from peav.spans import Span, SpanFinder
from peav.types import Seconds

log = logging.getLogger(__name__)

#: What the checkpoint was tuned to, or the default.
OfModel = Literal["model"]

#: One for all texts, one a text in their order, or by text.
Thresholds = float | Sequence[float] | Mapping[str, float]

#: Neighbouring windows share this part of one, where nothing else is said: their edges are heard without what is beyond.
_OVERLAP_SHARE = 1 / 6

#: Of each text, its spans in the order of time.
TextSpans = list[list[Span]]


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


def detect_stream(
    model: EmbeddingModel,
    chunks: Iterable[np.ndarray | Tensor],
    text: str | Sequence[str],
    threshold: Thresholds | OfModel = "model",
    *,
    sample_rate: int,
    low_threshold: Thresholds | OfModel | None = "model",
    median_seconds: Seconds | OfModel = "model",
    merge_seconds: Seconds | OfModel = "model",
    min_seconds: Seconds | OfModel = "model",
    window_seconds: Seconds | OfModel | None = "model",
    overlap_seconds: Seconds | OfModel = "model",
    precision: Precision = "auto",
) -> Iterator[TextSpans]:
    """Finds when each sound is heard in one sound that comes bit by bit.

    A span comes as soon as it is final: a window is heard when it is full and surely not the last, a frame is final when the window that
    owns it is known, and a span when no later frame can change it. All spans together are those that `detect` finds in the whole,
    however it is cut. Memory does not grow.

    Args:
        model: the model.
        chunks: samples (S,) or (channels, S), of any number, also none; all with as many channels.
        text: K sounds to listen for.
        threshold: as for `detect`, and so are the others.
        sample_rate: in Hz.
        low_threshold: for hysteresis.
        median_seconds: length of the median filter.
        merge_seconds: shorter gaps are closed.
        min_seconds: shorter spans are dropped.
        window_seconds: longest piece that is heard at once; with None all is heard at the end, and kept until then.
        overlap_seconds: what neighbouring windows share.
        precision: `auto`, `fp32` or `bf16`.

    Returns:
        an iterator: whenever a span is final, for each text, the spans that have become so. Those of a text come in the order of time.

    Raises:
        ValueError: as `detect`; while it runs, if a chunk is no sound, or there was none at all.
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
    if not isinstance(sample_rate, int) or sample_rate < 1:
        raise ValueError(f"sample_rate must be a positive whole number of Hz, not {sample_rate!r}")
    return _stream(Detector(model, texts, rules, precision), chunks, sample_rate)


def _stream(detector: Detector, chunks: Iterable[np.ndarray | Tensor], sample_rate: int) -> Iterator[TextSpans]:
    plan, clip = detector.plan_stream(), ClipDetection(detector.rules)
    media = detector.model.media
    buffer = _Samples(sample_rate)

    def listen(windows: Sequence[Window]) -> Iterator[TextSpans]:
        for window in windows:
            audio = buffer.audio()
            yield clip.add(detector.run([(window, audio.load(media, window).numpy())])[0])

    def nonempty(found: Iterable[TextSpans]) -> Iterator[TextSpans]:
        return (spans for spans in found if any(spans))

    for chunk in chunks:
        buffer.add(chunk)
        # A resampler sees a margin after the window.
        ahead = 0.0 if buffer.plain(media.sample_rate) else 2.0
        yield from nonempty(listen(plan.ready(buffer.seconds, ahead)))
        following = plan.next_start(buffer.seconds)
        if following is not None:
            yield from nonempty([clip.settle(plan.first_frame(following))])
        buffer.drop(plan.needed_from(buffer.seconds))
    if not buffer.count:
        raise ValueError("the stream held no sound: not one sample")
    *rest, last = plan.finish(buffer.seconds)
    found = list(listen([*rest, last]))
    yield from nonempty(found)
    yield from nonempty([clip.finish()])


class _Samples:
    """The samples of a stream that are still needed."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._kept: np.ndarray | None = None
        self._first = 0
        self._chunks = 0
        self.count = 0

    @property
    def seconds(self) -> Seconds:
        """How long it has lasted."""
        return self.count / self._rate

    def plain(self, sample_rate: int) -> bool:
        """Whether windows are cut out as they are: one channel at this rate."""
        return self._rate == sample_rate and (self._kept is None or len(self._kept) == 1)

    def add(self, chunk: np.ndarray | Tensor) -> None:
        """Takes a chunk.

        Raises:
            ValueError: if it is no sound, or has other channels than those before.
        """
        name = f"chunk {self._chunks}"
        self._chunks += 1
        if not isinstance(chunk, np.ndarray | Tensor):
            raise ValueError(f"{name} is {chunk!r:.80}, of type {type(chunk).__name__}: give arrays of samples")
        if chunk.ndim in (1, 2) and chunk.shape[-1] == 0:
            return
        samples = read_samples(chunk, name)
        if self._kept is None:
            self._kept = samples[:, :0]
        if len(samples) != len(self._kept):
            raise ValueError(f"{name} has {len(samples)} channels, and those before it had {len(self._kept)}")
        self._kept = np.concatenate([self._kept, samples], 1)
        self.count += samples.shape[1]

    def audio(self) -> ArrayAudio:
        """Returns what there is as the part of a sound that it is."""
        kept = np.zeros((1, 0), np.float32) if self._kept is None else self._kept
        return ArrayAudio("the stream", self.seconds, kept, self._rate, self._first)

    def drop(self, before: Seconds) -> None:
        """Forgets what comes before a time and a resampler's margin."""
        first = max(with_margin(before, 0.0)[0] * self._rate, self._first)
        if self._kept is not None and first > self._first:
            self._kept = self._kept[:, first - self._first :].copy()
            self._first = first


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
