"""`PEAV.detect_stream`: one sound that comes bit by bit, heard as `PEAV.detect` hears the whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from torch import Tensor

from peav.embedding_model import EmbeddingModel
from peav.inputs.audio import ArrayAudio, read_samples, with_margin
from peav.inputs.detection import ClipDetection, Detector, TextSpans
from peav.inputs.detection_rules import OfModel, Thresholds, check_detects, check_queries, detection_rules
from peav.inputs.running import Precision
from peav.inputs.windows import Window
from peav.types import Seconds


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
