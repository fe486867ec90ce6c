"""`PEAV.detect` and `PEAV.detect_stream`: every clip and every text, whole and bit by bit, and what is refused."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peav.checkpoints import DetectionSettings
from peav.data.media.errors import MediaError
from peav.model import PEAV
from peav.spans import Span, find_spans
from tests.data.conftest import write_float_wav
from tests.inputs.helpers import HOP, RATE, noise

TEXTS = ["a bell", "the red house", "rings"]


def probabilities(
    model: PEAV, wave: np.ndarray, texts: list[str], sample_rate: int = RATE, **options: Any
) -> torch.Tensor:
    embedded = model.embed(audio=wave, text=texts, sample_rate=sample_rate, **options)
    with torch.no_grad():
        logits = model.similarity({"audio_frames": embedded["audio_frames"]}, {"text_event": embedded["text_event"]})
    return logits.sigmoid()


def clear_threshold(p: torch.Tensor) -> float:
    """Between two values that lie apart: rounding must not decide which frames are above."""
    values = p.flatten().sort().values
    middle = values[len(values) // 4 : -len(values) // 4]
    widest = int(middle.diff().argmax())
    return float(middle[widest : widest + 2].mean())


def flat(found: list[list[Span]]) -> list[tuple[int, float, float, float]]:
    return [(k, span.onset, span.offset, span.score) for k, spans in enumerate(found) for span in spans]


def agree(found: list[list[Span]], expected: list[list[Span]], atol: float = 1e-5) -> None:
    """Equal times, and scores to 1e-5."""
    assert [row[:3] for row in flat(found)] == [row[:3] for row in flat(expected)]
    assert [row[3] for row in flat(found)] == pytest.approx([row[3] for row in flat(expected)], abs=atol)


def test_every_clip_and_every_text(framewise: PEAV, tmp_path: Path) -> None:
    """Three clips and two texts give six results, those of `embed`, `similarity` and `find_spans`."""
    waves = [noise(3.11, 1), noise(1.0, 2), noise(0.4, 3)]
    write_float_wav(tmp_path / "a.wav", waves[0])
    texts = TEXTS[:2]
    p = [probabilities(framewise, wave, texts) for wave in waves]
    threshold = clear_threshold(torch.cat(p, -1))
    found = framewise.detect([tmp_path / "a.wav", *waves[1:]], texts, threshold, sample_rate=RATE)
    assert [len(clip) for clip in found] == [2, 2, 2]
    for clip, one, seconds in zip(found, p, (3.11, 1.0, 0.4), strict=True):
        mask = torch.ones(1, one.shape[-1], dtype=torch.bool)
        expected = find_spans(one, mask, threshold, HOP, [seconds])[0]
        assert [row[:3] for row in flat(clip)] == [
            (k, pytest.approx(a), pytest.approx(b)) for k, a, b, _ in flat(expected)
        ]
        assert [row[3] for row in flat(clip)] == pytest.approx([row[3] for row in flat(expected)], abs=1e-5)
    assert sum(len(flat(clip)) for clip in found) > 6
    everything = framewise.detect(waves[0], "a bell", 0.0, sample_rate=RATE, window_seconds=1.2)
    assert [(s.onset, s.offset) for s in everything[0][0]] == [(0.0, pytest.approx(3.11))]
    assert framewise.detect(waves[0], "a bell", 1.0, sample_rate=RATE) == [[[]]]
    longest = framewise.detect(waves[0], "a bell", threshold, merge_seconds=9.0, min_seconds=0.5, sample_rate=RATE)
    assert len(longest[0][0]) == 1


def pieces(wave: np.ndarray, seed: int, most: float) -> Iterator[np.ndarray]:
    """Cuts samples (..., S) at random, among the pieces empty ones."""
    generator = np.random.default_rng(seed)
    begin = 0
    while begin < wave.shape[-1]:
        size = int(generator.choice(np.array([0, 1, generator.integers(1, round(most * RATE))])))
        yield wave[..., begin : begin + size]
        begin += size


@pytest.mark.parametrize("overlap", [0.0, 0.6, 1.1])
@pytest.mark.parametrize("seconds", [0.05, 2.41, 2.4, 6.3, 12.07])
def test_a_stream_finds_what_the_whole_holds(framewise: PEAV, tmp_path: Path, seconds: float, overlap: float) -> None:
    """Of samples in memory to the last bit; of a file of them too."""
    wave = noise(seconds, 5)
    options: dict[str, Any] = {"window_seconds": 2.4, "overlap_seconds": overlap}
    p = probabilities(framewise, wave, TEXTS, **options)
    threshold = clear_threshold(p) if p.numel() > 9 else 0.2
    options |= {"merge_seconds": 0.3, "median_seconds": 0.36, "low_threshold": 0.8 * threshold, "min_seconds": 0.13}
    expected = framewise.detect(wave, TEXTS, threshold, sample_rate=RATE, **options)[0]
    write_float_wav(tmp_path / "a.wav", wave)
    agree(framewise.detect(tmp_path / "a.wav", TEXTS, threshold, **options)[0], expected)
    for seed in range(2):
        found: list[list[Span]] = [[] for _ in TEXTS]
        chunks = pieces(wave, seed, 1.0)
        for spans in framewise.detect_stream(chunks, TEXTS, threshold, sample_rate=RATE, **options):
            assert any(spans)
            for own, others in zip(found, spans, strict=True):
                own += others
        agree(found, expected)
        assert all(span.offset <= seconds for spans in found for span in spans)
    if seconds > 2:
        assert flat(expected)


@pytest.mark.parametrize(("rate", "channels"), [(44100, 1), (RATE, 2), (8000, 2), (48000, 1)])
def test_a_stream_is_resampled_as_the_whole_is(framewise: PEAV, tmp_path: Path, rate: int, channels: int) -> None:
    wave = noise(9.3, 6, rate, channels)
    options: dict[str, Any] = {"window_seconds": 2.4, "overlap_seconds": 0.6}
    threshold = clear_threshold(probabilities(framewise, wave, TEXTS, rate, **options))
    whole = framewise.detect(wave, TEXTS, threshold, sample_rate=rate, **options)[0]
    found: list[list[Span]] = [[] for _ in TEXTS]
    for spans in framewise.detect_stream(pieces(wave, 1, 3.0), TEXTS, threshold, sample_rate=rate, **options):
        for own, others in zip(found, spans, strict=True):
            own += others
    agree(found, whole)
    assert len(flat(whole)) > 3


def test_a_stream_speaks_while_it_runs(framewise: PEAV) -> None:
    """Spans come as soon as they are final: long before the end, and nothing is kept that is over."""
    wave = noise(20.0, 7)
    heard = 0.0
    early = []

    def chunks() -> Iterator[np.ndarray]:
        nonlocal heard
        for begin in range(0, len(wave), RATE // 10):
            heard = (begin + RATE // 10) / RATE
            yield wave[begin : begin + RATE // 10]

    threshold = clear_threshold(probabilities(framewise, wave, TEXTS, window_seconds=2.4))
    for spans in framewise.detect_stream(
        chunks(), TEXTS, threshold, sample_rate=RATE, window_seconds=2.4, overlap_seconds=1.2
    ):
        early += [(heard, span.offset) for own in spans for span in own]
    assert len(early) > 6
    # A window, and what tells that it is not the last.
    assert all(time - offset < 2.4 + 0.5 for time, offset in early)
    assert sum(time < 19.0 for time, _ in early) > len(early) / 2


def test_memory_of_a_stream_does_not_grow(framewise: PEAV, monkeypatch: pytest.MonkeyPatch) -> None:
    from peav.inputs import detection_stream

    kept = []
    real = detection_stream._Samples.drop

    def drop(self: Any, before: float) -> None:
        real(self, before)
        kept.append(0 if self._kept is None else self._kept.shape[1])

    monkeypatch.setattr(detection_stream._Samples, "drop", drop)
    chunk = noise(0.7, 8)
    list(framewise.detect_stream((chunk for _ in range(60)), TEXTS, 0.5, sample_rate=RATE, window_seconds=2.4))
    assert max(kept) < 8 * RATE and len(kept) == 60


def test_the_end_of_a_clip_is_the_end_of_its_spans(framewise: PEAV) -> None:
    for seconds in (0.02, 0.13, 1.0, 5.01):
        for window in (30.0, 1.2):
            (found,) = framewise.detect(noise(seconds), TEXTS, 0.0, sample_rate=RATE, window_seconds=window)
            for spans in found:
                assert spans[-1].offset == pytest.approx(seconds, abs=1e-9) and spans[-1].offset <= seconds
    # Padding beside a longer clip yields no span.
    short, _ = framewise.detect([noise(0.3), noise(3.0)], TEXTS, 0.0, sample_rate=RATE)
    assert all(spans[-1].offset <= 0.3 for spans in short)


def test_thresholds_may_differ_by_text(framewise: PEAV) -> None:
    wave = noise(3.0, 9)
    p = probabilities(framewise, wave, TEXTS)[0]
    own = [float(row.quantile(0.6)) + 1e-4 for row in p]
    given = dict(zip(TEXTS, own, strict=True))
    by_row = framewise.detect(wave, TEXTS, own, sample_rate=RATE)
    assert framewise.detect(wave, TEXTS, given, sample_rate=RATE) == by_row
    assert framewise.detect(wave, TEXTS, {"A bell. ": own[0], **given}, sample_rate=RATE) == by_row
    alone = [framewise.detect(wave, text, value, sample_rate=RATE)[0][0] for text, value in given.items()]
    agree(by_row[0], alone)
    # A text without one gets the model's, which is the default here.
    some = framewise.detect(wave, TEXTS, {TEXTS[1]: own[1]}, sample_rate=RATE)
    agree(some[0], framewise.detect(wave, TEXTS, [0.3, own[1], 0.3], sample_rate=RATE)[0])


def test_what_a_checkpoint_was_tuned_to_is_the_default(
    framewise: PEAV, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is stored, read, said and used; phrases that were not tuned get the default."""
    tuned = DetectionSettings(
        threshold=0.345,
        thresholds={"A Bell.": 0.37},
        low_threshold=0.33,
        median_seconds=0.3,
        merge_seconds=0.2,
        min_seconds=0.13,
        window_seconds=2.4,
        overlap_seconds=0.6,
    )
    model = PEAV.from_pretrained(framewise.save_pretrained(tmp_path / "plain"))
    assert model.detection is None
    model.detection = tuned
    read = PEAV.from_pretrained(model.save_pretrained(tmp_path / "tuned"))
    assert read.detection == tuned
    wave = noise(6.0, 10)
    explicit = framewise.detect(
        wave,
        TEXTS,
        [0.37, 0.345, 0.345],
        sample_rate=RATE,
        low_threshold=0.33,
        median_seconds=0.3,
        merge_seconds=0.2,
        min_seconds=0.13,
        window_seconds=2.4,
        overlap_seconds=0.6,
    )
    with caplog.at_level(logging.INFO):
        agree(read.detect(wave, TEXTS, sample_rate=RATE)[0], explicit[0])
    assert "1 of 3 texts have thresholds of their own, the others 0.345; windows of 2.4 s" in caplog.text
    assert flat(explicit[0]) and flat(explicit[0]) != flat(framewise.detect(wave, TEXTS, sample_rate=RATE)[0])
    # A threshold of the user's goes before, and hysteresis can be turned off.
    agree(
        read.detect(wave, TEXTS, 0.35, sample_rate=RATE, low_threshold=None, window_seconds=None, min_seconds=0.0)[0],
        framewise.detect(wave, TEXTS, 0.35, sample_rate=RATE, median_seconds=0.3, merge_seconds=0.2)[0],
    )


def test_the_same_query_twice_and_a_thousand_queries(framewise: PEAV) -> None:
    wave = noise(2.0, 11)
    texts = ["a bell", "rings", "a bell"]
    (found,) = framewise.detect(wave, texts, 0.5, sample_rate=RATE)
    assert found[0] == found[2]
    many = [f"a bell {index}" for index in range(1000)]
    (found,) = framewise.detect(wave, many, 0.5, sample_rate=RATE, window_seconds=1.2)
    assert len(found) == 1000
    agree([found[7]], framewise.detect(wave, many[7], 0.5, sample_rate=RATE, window_seconds=1.2)[0])


def test_silence_is_heard_as_anything_else_and_gives_numbers(framewise: PEAV) -> None:
    (found,) = framewise.detect(np.zeros(2 * RATE, np.float32), TEXTS, 0.0, sample_rate=RATE)
    assert all(len(spans) == 1 and math.isfinite(spans[0].score) for spans in found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": ""}, "text.*'', which names no sound"),
        ({"text": ["a bell", " .  "]}, r"text\[1\] is ' .  ', which names no sound"),
        ({"text": []}, "text is an empty list"),
        ({"text": None}, "detect needs text"),
        ({"text": [3]}, r"text\[0\] is 3"),
        ({"threshold": math.nan}, r"threshold must lie in \[0, 1\], not nan"),
        ({"threshold": math.inf}, r"threshold must lie in \[0, 1\], not inf"),
        ({"threshold": -0.1}, r"threshold must lie in \[0, 1\], not -0.1"),
        ({"threshold": "high"}, "or 'model', not 'high'"),
        ({"threshold": True}, r"threshold must lie in \[0, 1\], not True"),
        ({"threshold": [0.5, 0.5]}, "threshold has 2 numbers for 1 texts"),
        ({"threshold": {"a horn": 0.5}}, "threshold is given for 'a horn', which is not among the texts: 'a bell'"),
        ({"threshold": {"a bell": math.nan}}, r"threshold must lie in \[0, 1\], not nan"),
        ({"low_threshold": 0.9, "threshold": 0.5}, "low_threshold must not lie above threshold"),
        ({"median_seconds": -1.0}, "median_seconds must be finite"),
        ({"merge_seconds": math.inf}, "merge_seconds must be finite"),
        ({"min_seconds": math.nan}, "min_seconds must be finite"),
        ({"window_seconds": 0.0}, "window_seconds must be positive"),
        ({"window_seconds": "all"}, "window_seconds must be a number, 'model' or None, not 'all'"),
        ({"overlap_seconds": "half"}, "overlap_seconds must be a number or 'model', not 'half'"),
        ({"window_seconds": 1.0, "overlap_seconds": 1.0}, "0 <= overlap_seconds < window_seconds"),
        ({"window_seconds": None, "overlap_seconds": 1.0}, "overlap_seconds=1.0 needs windows"),
        ({"sample_rate": None}, "sample_rate"),
    ],
)
def test_what_is_out_of_range_is_refused_at_the_door(framewise: PEAV, change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"text": "a bell", "sample_rate": RATE} | change
    with pytest.raises(ValueError, match=message):
        framewise.detect(noise(1.0), **arguments)
    with pytest.raises(ValueError, match=message):  # before the first chunk is asked for
        framewise.detect_stream(iter([]), **arguments)


def test_sounds_that_are_none_are_named(framewise: PEAV, clips: Path) -> None:
    bad = noise(1.0)
    bad[99] = np.nan
    with pytest.raises(ValueError, match="audio holds NaN"):
        framewise.detect(bad, "a bell", sample_rate=RATE)
    with pytest.raises(ValueError, match=r"nan\.wav holds NaN"):
        framewise.detect(clips / "nan.wav", "a bell")
    with pytest.raises(MediaError, match="holds no audio"):
        framewise.detect(clips / "silent.mp4", "a bell")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        framewise.detect(clips / "nowhere.wav", "a bell")
    with pytest.raises(ValueError, match="detect needs audio"):
        framewise.detect(None, "a bell")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_seconds must be positive"):
        framewise.detect(noise(1.0), "a bell", sample_rate=RATE, batch_seconds=0.0)

    def stream(*chunks: Any) -> list[Any]:
        return list(framewise.detect_stream(chunks, "a bell", sample_rate=RATE))

    with pytest.raises(ValueError, match="chunk 1 holds NaN"):
        stream(noise(1.0), bad)
    with pytest.raises(ValueError, match="chunk 1 has 2 channels, and those before it had 1"):
        stream(noise(1.0), noise(1.0, channels=2))
    with pytest.raises(ValueError, match=r"chunk 0 is 'a\.wav', of type str: give arrays"):
        stream("a.wav")
    with pytest.raises(ValueError, match="the stream held no sound"):
        stream(noise(0.0))


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": "0.3"},
        {"threshold": math.nan},
        {"thresholds": {"a bell": 2.0}},
        {"thresholds": {"": 0.5}},
        {"thresholds": [["a bell", 0.5]]},
        {"thresholds": {"a" * 3000: 0.5}},
        {"median_seconds": 1e9},
        {"window_seconds": True},
        {"trust": 1.0},
    ],
)
def test_a_strangers_settings_are_numbers_in_their_range(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|at most|no setting|stand by phrases"):
        DetectionSettings.from_dict(change)


@pytest.mark.slow
def test_an_hour_whole_and_streamed_agree_and_memory_is_flat(framewise: PEAV, tmp_path: Path) -> None:
    """Of the file, of chunks of any size, and of ten minutes of it: the peak of the process hardly grows."""
    framewise.save_pretrained(tmp_path / "model")
    wave = np.tile(noise(60.0, 12), 60) * np.repeat(np.random.default_rng(0).uniform(0.3, 1.0, 3600), RATE)
    write_float_wav(tmp_path / "hour.wav", wave.astype(np.float32))
    write_float_wav(tmp_path / "short.wav", wave[: 600 * RATE].astype(np.float32))
    threshold = clear_threshold(probabilities(framewise, wave[: 120 * RATE].astype(np.float32), TEXTS))
    code = (
        "import json, resource, sys; from peav import PEAV; model = PEAV.from_pretrained(sys.argv[1]); "
        "found = model.detect(sys.argv[2], json.loads(sys.argv[3]), float(sys.argv[4])); "
        "print(json.dumps([[[s.onset, s.offset, s.score] for s in own] for own in found[0]])); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks, files = [], []
    for name in ("short", "hour"):
        words = [sys.executable, "-c", code, str(tmp_path / "model"), str(tmp_path / f"{name}.wav")]
        done = subprocess.run([*words, json.dumps(TEXTS), str(threshold)], capture_output=True, text=True, check=True)
        listed, peak = done.stdout.strip().splitlines()
        files.append([[Span(*span) for span in own] for own in json.loads(listed)])
        peaks.append(int(peak) / 1000)
    assert peaks[1] < peaks[0] + 60, peaks  # the samples of the hour alone are 230 MB
    found: list[list[Span]] = [[] for _ in TEXTS]
    for spans in framewise.detect_stream(pieces(wave.astype(np.float32), 3, 40.0), TEXTS, threshold, sample_rate=RATE):
        for own, others in zip(found, spans, strict=True):
            own += others
    agree(found, files[1])
    assert len(flat(found)) > 100 and all(span.offset <= 3600.0 for own in found for span in own)
