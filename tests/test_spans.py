"""Spans: against a slow loop, and the spans of the released code."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from peav.model import PEAV
from peav.spans import Span, SpanFinder, find_spans, median_filter

ASSETS = Path(__file__).parent / "assets/pe_av_tiny"


def loop_spans(
    p: list[float], threshold: float, step: float, end: float, min_frames: int, merge_frames: int
) -> list[tuple[float, float, float]]:
    """One clip, one text, frame by frame; lengths in frames."""
    active = [value > threshold for value in p]
    t = 0
    while t < len(p):  # close inner gaps
        if not active[t]:
            after = next((u for u in range(t, len(p)) if active[u]), None)
            before = any(active[:t])
            if before and after is not None and after - t < merge_frames:
                active[t:after] = [True] * (after - t)
            t = after if after is not None else len(p)
        else:
            t += 1
    spans, t = [], 0
    while t < len(p):
        if active[t]:
            after = next((u for u in range(t, len(p)) if not active[u]), len(p))
            onset, offset = t * step, min(after * step, end)
            if offset > onset and (offset - onset) / step >= min_frames - 1e-6:
                spans.append((onset, offset, sum(p[t:after]) / (after - t)))
            t = after
        else:
            t += 1
    return spans


@pytest.mark.parametrize("min_frames", [0, 2, 3])
@pytest.mark.parametrize("merge_frames", [0, 1, 2, 4])
@pytest.mark.parametrize("clamp", [False, True])
def test_spans_equal_a_loop(min_frames: int, merge_frames: int, clamp: bool) -> None:
    step = 0.04
    p = torch.rand(4, 3, 50, dtype=torch.float64)
    lengths = [50, 33, 1, 0]
    mask = torch.arange(50) < torch.tensor(lengths)[:, None]
    ends = [length * step - 0.03 for length in lengths] if clamp else None
    p[~mask[:, None].expand_as(p)] = math.nan  # what is padded is anything
    found = find_spans(
        p, mask, 0.6, step, [max(end, 0.0) for end in ends] if ends else None, min_frames * step, merge_frames * step
    )
    assert [len(clip) for clip in found] == [3] * 4
    some = 0
    for clip in range(4):
        for text in range(3):
            end = ends[clip] if ends else math.inf
            expected = loop_spans(p[clip, text, : lengths[clip]].tolist(), 0.6, step, end, min_frames, merge_frames)
            assert [(s.onset, s.offset, s.score) for s in found[clip][text]] == [pytest.approx(e) for e in expected]
            some += len(expected)
    assert some > 5


def test_every_clip_meets_every_text() -> None:
    """The released code gives as many lists as there are texts, and fails on two clips and three texts."""
    p = torch.zeros(2, 3, 4)
    p[0, 0], p[1, 2, 1:3] = 1.0, 0.75
    found = find_spans(p, torch.ones(2, 4, dtype=torch.bool), 0.5, 0.5)
    assert found == [[[Span(0.0, 2.0, 1.0)], [], []], [[], [], [Span(0.5, 1.5, 0.75)]]]


def test_a_gap_is_closed_before_short_spans_are_dropped() -> None:
    p = torch.tensor([[[0.9, 0.1, 0.9, 0.1, 0.1, 0.9]]])
    mask = torch.ones(1, 6, dtype=torch.bool)
    spans = find_spans(p, mask, 0.5, 0.1, min_seconds=0.3, merge_seconds=0.2)[0][0]
    assert [(round(s.onset, 6), round(s.offset, 6)) for s in spans] == [(0.0, 0.3)]
    assert spans[0].score == pytest.approx((0.9 + 0.1 + 0.9) / 3)
    assert find_spans(p, mask, 0.5, 0.1, min_seconds=0.3)[0][0] == []
    # A gap of exactly merge_seconds is not shorter; a span of exactly min_seconds is long enough.
    assert len(find_spans(p, mask, 0.5, 0.1, merge_seconds=0.1)[0][0]) == 3
    assert len(find_spans(p, mask, 0.5, 0.1, min_seconds=0.1)[0][0]) == 3


def test_the_threshold_itself_is_not_above_it() -> None:
    p = torch.tensor([[[0.5, 0.75]]])
    assert find_spans(p, torch.ones(1, 2, dtype=torch.bool), 0.5, 1.0) == [[[Span(1.0, 2.0, 0.75)]]]


def test_spans_of_the_released_code() -> None:
    model = PEAV.from_pretrained(ASSETS / "pe_a_frame")
    io = load_file(ASSETS / "io.safetensors")
    inputs = ("input_values", "padding_mask", "input_ids", "attention_mask")
    with torch.inference_mode():
        found = model(**{name: io[name][:1] for name in inputs})
        logits = model.similarity({"audio_frames": found["audio_frames"]}, {"text_event": found["text_event"]})
    golden = json.loads((ASSETS / "frame_spans.json").read_text())
    mask = torch.ones(1, found["audio_frames"].shape[1], dtype=torch.bool)
    spans = find_spans(logits.sigmoid(), mask, golden["threshold"], 1920 / 48000)
    expected = [pytest.approx((onset, offset), abs=1e-6) for onset, offset in golden["spans"][0]]
    assert [(span.onset, span.offset) for span in spans[0][0]] == expected
    assert len(expected) == 5


MASK = torch.ones(1, 4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": torch.zeros(1, 4)}, r"must be \(A, K, T\)"),
        ({"mask": torch.ones(1, 3, dtype=torch.bool)}, r"not of shapes \(1, 2, 4\) and \(1, 3\)"),
        ({"mask": torch.ones(1, 4)}, "mask must be bool"),
        ({"mask": torch.tensor([[True, False, True, True]])}, "without gaps"),
        ({"probabilities": torch.full((1, 2, 4), 1.5)}, r"\.sigmoid\(\)"),
        ({"probabilities": torch.full((1, 2, 4), math.nan)}, r"lie in \[0, 1\]"),
        ({"threshold": 1.2}, r"threshold must lie in \[0, 1\], not 1.2"),
        ({"threshold": [0.5, math.nan]}, r"threshold must lie in \[0, 1\], not \[0.5, nan\]"),
        ({"threshold": [0.5] * 3}, r"threshold must be one number or \(2,\), one a text, not of shape \(3,\)"),
        ({"low_threshold": 0.6}, "low_threshold must not lie above threshold"),
        ({"low_threshold": -0.1}, "low_threshold must lie in"),
        ({"median_seconds": -1.0}, "median_seconds must be finite"),
        ({"frame_seconds": 0.0}, "frame_seconds must be positive"),
        ({"min_seconds": -1.0}, "min_seconds must be finite"),
        ({"merge_seconds": math.nan}, "merge_seconds must be finite"),
        ({"durations": [1.0, 2.0]}, r"durations must be \(1,\)"),
        ({"durations": [math.nan]}, "finite"),
    ],
)
def test_what_is_out_of_range_is_refused(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "probabilities": torch.zeros(1, 2, 4),
        "mask": MASK,
        "threshold": 0.5,
        "frame_seconds": 0.04,
    }
    with pytest.raises(ValueError, match=message):
        find_spans(**(arguments | change))  # type: ignore[arg-type]


def test_the_median_filter_equals_one_frame_by_frame() -> None:
    p = torch.rand(3, 40, dtype=torch.float64)
    for seconds, half in ((0.0, 0), (0.04, 0), (0.08, 1), (0.12, 1), (0.19, 2), (0.2, 2), (9.0, 112)):
        found = median_filter(p, seconds, 0.04)
        for row, filtered in zip(p.tolist(), found.tolist(), strict=True):
            loop = [statistics.median(row[max(t - half, 0) : t + half + 1]) for t in range(40)]
            assert filtered == pytest.approx(loop), seconds


def test_the_median_filter_sees_no_padding_and_leaves_the_scores() -> None:
    p = torch.tensor([[[0.9, 0.2, 0.9, 0.9, math.nan], [0.1, 0.9, 0.1, 0.1, 0.9]]])
    mask = torch.tensor([[True, True, True, True, False]])
    spans = find_spans(p, mask, 0.5, 0.1, median_seconds=0.3)[0]
    assert [(s.onset, s.offset) for s in spans[0]] == [(0.0, pytest.approx(0.4))] and spans[1] == []
    assert spans[0][0].score == pytest.approx((0.9 + 0.2 + 0.9 + 0.9) / 4)


def test_hysteresis_keeps_a_weak_run_only_around_a_strong_frame() -> None:
    p = torch.tensor([[[0.4, 0.6, 0.8, 0.6, 0.2, 0.6, 0.6, 0.3]]])
    mask = torch.ones(1, 8, dtype=torch.bool)
    spans = find_spans(p, mask, 0.7, 1.0, low_threshold=0.5)[0][0]
    assert [(s.onset, s.offset) for s in spans] == [(1.0, 4.0)]
    assert find_spans(p, mask, 0.7, 1.0, low_threshold=0.7) == find_spans(p, mask, 0.7, 1.0)
    # A gap is closed after: the strong span does not take in a weak run across it.
    assert [(s.onset, s.offset) for s in find_spans(p, mask, 0.7, 1.0, None, 0.0, 2.0, 0.5)[0][0]] == [(1.0, 4.0)]


def test_each_text_may_have_its_own_thresholds() -> None:
    p = torch.rand(2, 3, 50)
    mask = torch.ones(2, 50, dtype=torch.bool)
    highs, lows = [0.5, 0.7, 0.9], [0.5, 0.3, 0.2]
    found = find_spans(p, mask, highs, 0.04, low_threshold=torch.tensor(lows, dtype=torch.float64))
    for k, (high, low) in enumerate(zip(highs, lows, strict=True)):
        alone = find_spans(p[:, k : k + 1], mask, high, 0.04, low_threshold=low)
        assert [clip[k] for clip in found] == [clip[0] for clip in alone] and any(alone[0][0])


@pytest.mark.parametrize("seed", range(12))
def test_frames_that_come_bit_by_bit_give_the_spans_of_all(seed: int) -> None:
    """To the last bit, whatever the pieces; and each span as early as it can be."""
    generator = torch.Generator().manual_seed(seed)

    def pick(*choices: float) -> float:
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    step, length, texts = 0.04, 1 + 37 * seed, 3
    p = torch.rand(texts, length, generator=generator)
    p = (p + p.roll(1, 1) + p.roll(2, 1)) / 3  # so that runs are longer than a frame
    end = length * step - pick(0.0, 0.03)
    options = {
        "min_seconds": pick(0.0, 0.08, 0.2),
        "merge_seconds": pick(0.0, 0.08, 0.3),
        "low_threshold": pick(0.3, 0.45, 0.55),
        "median_seconds": pick(0.0, 0.12, 0.5, 99.0),
    }
    mask = torch.ones(1, length, dtype=torch.bool)
    expected = find_spans(p[None], mask, 0.55, step, [end], **options)[0]
    finder = SpanFinder(texts, 0.55, step, **options)
    found: list[list[Span]] = [[] for _ in range(texts)]
    while finder.num_frames < length:
        begin = finder.num_frames
        count = min(int(pick(0, 1, 2, 5, 30)), length - begin)
        for own, spans in zip(found, finder.add(p[:, begin : begin + count]), strict=True):
            own += spans
        if options["median_seconds"] < 1:
            # Nothing is kept back that is over: after half a filter, a gap, and the run that a later frame may still join.
            wait = options["median_seconds"] / 2 + options["merge_seconds"] + 2 * step
            low = find_spans(p[None], mask, options["low_threshold"], step, None, 0.0, *list(options.values())[1:2])[0]
            for own, spans, runs in zip(found, expected, low, strict=True):
                now = finder.num_frames * step
                busy = any(run.onset <= now and run.offset >= now - wait for run in runs)
                if not options["median_seconds"] and not busy:
                    assert len(own) == sum(span.offset < now - wait for span in spans)
    for own, spans in zip(found, finder.finish(end), strict=True):
        own += spans
    assert found == expected
    if seed > 3 and options["median_seconds"] < 1:
        assert sum(map(len, expected)) > 0


def test_a_span_comes_when_nothing_can_change_it() -> None:
    finder = SpanFinder(1, 0.7, 1.0, merge_seconds=2.0, low_threshold=0.5)
    given = [0.1, 0.8, 0.6, 0.2, 0.6, 0.2, 0.2, 0.9, 0.9]
    sizes = [len(finder.add(torch.tensor([[value]]))[0]) for value in given]
    # The weak run at frame 4 might have become strong and, across a gap of one frame, part of the span; at frame 5 it has not.
    assert sizes == [0, 0, 0, 0, 0, 1, 0, 0, 0]
    (last,) = finder.finish(8.5)[0]
    assert (last.onset, last.offset, last.score) == (7.0, 8.5, pytest.approx(0.9))
