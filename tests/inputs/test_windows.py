"""Long media in windows, and frames joined over them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peav.data.media.decode import load_audio
from peav.inputs import Window, plan_windows
from peav.inputs.windows import WindowPlan
from peav.model import PEAV
from tests.data.conftest import ffmpeg, write_float_wav
from tests.inputs.helpers import CLOSE, EXACT, HOP, RATE, all_frames, by_hand, noise, wide_wav


@pytest.mark.parametrize("normalize", [True, False])
def test_an_item_is_the_mean_of_its_windows(model: PEAV, normalized: PEAV, normalize: bool) -> None:
    some = normalized if normalize else model
    wave = noise(5.3)
    parts = [(0.0, 2.0), (2.0, 4.0), (4.0, 5.3)]
    pieces = torch.cat(
        [some.embed(audio=wave[round(a * RATE) : round(b * RATE)], sample_rate=RATE)["audio"] for a, b in parts]
    )
    mean = (pieces * torch.tensor([2.0, 2.0, 1.3])[:, None]).sum(0, keepdim=True) / 5.3
    expected = torch.nn.functional.normalize(mean, dim=-1) if normalize else mean
    found = some.embed(audio=wave, sample_rate=RATE, window_seconds=2.0)["audio"]
    torch.testing.assert_close(found, expected, **CLOSE)
    whole = some.embed(audio=wave, sample_rate=RATE, window_seconds=None)["audio"]
    torch.testing.assert_close(whole, some.embed(audio=wave, sample_rate=RATE)["audio"], **EXACT)  # 5.3 s < 30 s
    assert not torch.allclose(whole, found, atol=1e-4)


def test_files_and_arrays_are_split_alike(model: PEAV, tmp_path: Path) -> None:
    wave = noise(5.3)
    write_float_wav(tmp_path / "a.wav", wave)
    options: dict[str, Any] = {"window_seconds": 2.0, "overlap_seconds": 0.5}
    found = model.embed(audio=tmp_path / "a.wav", **options)["audio"]
    torch.testing.assert_close(found, model.embed(audio=wave, sample_rate=RATE, **options)["audio"], **CLOSE)
    # Windows of what is resampled are parts of the whole that is resampled.
    wide = noise(5.3, rate=44100)
    write_float_wav(tmp_path / "wide.wav", wide, 44100)
    resampled = load_audio(tmp_path / "wide.wav", RATE)
    expected = model.embed(audio=resampled, sample_rate=RATE, window_seconds=1.7)["audio"]
    for audio, rate in ((wide, 44100), (tmp_path / "wide.wav", None)):
        found = model.embed(audio=audio, sample_rate=rate, window_seconds=1.7)["audio"]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_windows_of_audio_and_video_cover_the_same_times(model: PEAV, clips: Path) -> None:
    wave, frames = noise(6.0), all_frames(clips / "long.mp4")
    assert len(frames) == 60
    # Four frames a window, at the centres of its quarters: 0.375 s, 1.125 s, ... of 10 frames a second.
    parts = []
    for start in (0.0, 3.0):
        chosen = [int((start + 0.75 * (i + 0.5)) * 10) for i in range(4)]
        samples = torch.from_numpy(wave[round(start * RATE) : round((start + 3) * RATE)])
        parts.append(by_hand(model, samples, frames[chosen]))
    for video in (clips / "long.mp4", frames):
        found = model.embed(audio=wave, video=video, sample_rate=RATE, window_seconds=3.0)
        for name in ("audio", "video", "audio_video"):
            torch.testing.assert_close(found[name], (parts[0][name] + parts[1][name]) / 2, **CLOSE)


def test_a_medium_that_ends_early_has_no_part_in_later_windows(model: PEAV, clips: Path) -> None:
    wave = noise(2.5)
    found = model.embed(audio=wave, video=clips / "long.mp4", sample_rate=RATE, window_seconds=2.0)
    alone = model.embed(audio=wave, sample_rate=RATE, window_seconds=2.0)
    a = by_hand(model, torch.from_numpy(wave[: 2 * RATE]))["audio"]
    b = by_hand(model, torch.from_numpy(wave[2 * RATE :]))["audio"]
    torch.testing.assert_close(found["audio"], (2 * a + 0.5 * b) / 2.5, **CLOSE)
    assert not torch.allclose(alone["audio"], found["audio"], atol=1e-4)  # alone, its last window is moved back
    video = model.embed(video=clips / "long.mp4", window_seconds=2.0)["video"]
    torch.testing.assert_close(found["video"], video, **CLOSE)


@pytest.mark.parametrize("sound", [2.5, 6.0])
@pytest.mark.parametrize("window", [None, 2.0])
def test_streams_of_a_file_end_where_they_end(model: PEAV, tmp_path: Path, sound: float, window: float | None) -> None:
    """Matroska gives both streams the duration of the file: the shorter one is neither filled with silence nor held."""
    picture = 8.5 - sound
    wave = wide_wav(tmp_path / "sound.wav", noise(sound)[None], RATE)
    pattern = ["-f", "lavfi", "-i", f"testsrc2=s=96x64:r=10:d={picture}"]
    codecs = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1", "-c:a", "pcm_s16le"]
    ffmpeg(*pattern, "-i", str(tmp_path / "sound.wav"), *codecs, str(tmp_path / "both.mkv"))
    found = model.embed(audio=tmp_path / "both.mkv", video=tmp_path / "both.mkv", window_seconds=window)
    frames = all_frames(tmp_path / "both.mkv")
    assert len(frames) == round(picture * 10)
    apart = model.embed(audio=wave, video=tmp_path / "both.mkv", sample_rate=RATE, window_seconds=window)
    alone = model.embed(audio=tmp_path / "both.mkv", window_seconds=window)
    if window is None:
        chosen = [int(index * (len(frames) - 1) / 3) for index in range(4)]
        expected = by_hand(model, frames=frames[chosen])
        torch.testing.assert_close(found["video"], expected["video"], **CLOSE)
        torch.testing.assert_close(alone["audio"], model.embed(audio=wave, sample_rate=RATE)["audio"], **CLOSE)
    for name in ("audio", "video", "audio_video"):
        torch.testing.assert_close(found[name], apart[name], **CLOSE)
    torch.testing.assert_close(found["audio"], alone["audio"], **CLOSE)


def test_windows_cover_everything() -> None:
    grid = 0.12
    for seconds in np.arange(0.5, 12.0, 0.37):
        for length, overlap in ((1.0, 0.0), (2.0, 0.5), (3.1, 3.0), (0.13, 0.0)):
            for step in (None, grid):
                windows = plan_windows(float(seconds), length, overlap, step)
                assert windows[0].start == 0
                ends = [window.start + window.seconds for window in windows]
                assert ends[-1] == pytest.approx(seconds)
                for window, next_one in pairwise(windows):
                    assert window.start < next_one.start <= window.start + window.seconds + 1e-9
                if len(windows) > 1:
                    assert all(window.seconds <= length + (step or 0) + 1e-9 for window in windows)
                if step:
                    assert all(abs(w.start / grid - round(w.start / grid)) < 1e-6 for w in windows)
    assert plan_windows(30.05, 30.0) == [Window(0.0, 30.05, whole=True)]  # what a codec pads
    assert [w.start for w in plan_windows(61.0, 30.0)] == [0.0, 30.0, 31.0]  # a last second would be too short
    assert [w.start for w in plan_windows(63.5, 30.0)] == [0.0, 30.0, 60.0]


def test_frames_are_padded_and_masked(framewise: PEAV) -> None:
    waves = [noise(0.5), noise(1.3), noise(0.05)]
    found = framewise.embed(audio=waves, text="a bell", sample_rate=RATE)
    assert set(found) == {"audio_frames", "audio_frames_mask", "text_event"}
    assert found["audio_frames"].shape == (3, 11, 8)
    assert found["audio_frames_mask"].sum(1).tolist() == [5, 11, 1]
    for row, wave in enumerate(waves):
        expected = by_hand(framewise, torch.from_numpy(wave))["audio_frames"]
        length = expected.shape[1]
        torch.testing.assert_close(found["audio_frames"][row, :length], expected[0], **CLOSE)
        assert not found["audio_frames"][row, length:].any()
        assert not found["audio_frames_mask"][row, length:].any()


@pytest.mark.parametrize("overlap", [0.0, 0.48, 1.0])
@pytest.mark.parametrize("seconds", [5.0, 6.3, 4.6])
def test_frames_come_from_the_window_whose_centre_is_near(framewise: PEAV, seconds: float, overlap: float) -> None:
    wave = noise(seconds)
    options: dict[str, Any] = {"window_seconds": 2.4, "overlap_seconds": overlap}
    found = framewise.embed(audio=wave, sample_rate=RATE, **options)
    count = -(-len(wave) // 1920)
    assert found["audio_frames"].shape == (1, count, 8)
    windows = plan_windows(seconds, 2.4, overlap, HOP)
    assert len(windows) > 1
    made = []
    for window in windows:
        begin = round(window.start * RATE)
        part = wave[begin : begin + round(window.seconds * RATE)]
        made.append((begin // 1920, by_hand(framewise, torch.from_numpy(part))["audio_frames"][0]))
    for t in range(count):
        depths = {}  # how far a frame is from the edges at which its window meets another
        for index, (first, frames) in enumerate(made):
            if first <= t < first + len(frames):
                left = t - first if index else count
                right = first + len(frames) - 1 - t if index < len(made) - 1 else count
                depths[index] = min(left, right)
        deep = [made[index] for index, depth in depths.items() if depth >= max(depths.values()) - 1]
        errors = [float((frames[t - first] - found["audio_frames"][0, t]).abs().max()) for first, frames in deep]
        assert min(errors) < 1e-4


@pytest.mark.parametrize(("length", "overlap"), [(2.0, 0.5), (2.0, 0.0), (3.1, 3.0), (0.25, 0.1), (12.0, 2.0)])
def test_windows_of_a_stream_are_those_of_the_whole(length: float, overlap: float) -> None:
    grid, fine = 0.12, 0.037
    for end in np.arange(fine, 14.0, 0.19):
        expected = plan_windows(float(end), length, overlap, grid)
        plan, found, seconds = WindowPlan(length, overlap, grid), [], 0.0
        while seconds < end:
            seconds = min(seconds + fine, float(end))
            found += plan.ready(seconds)
            following = plan.next_start(seconds)
            if following is not None:
                assert following == pytest.approx(expected[len(found)].start, abs=1e-9)
            if len(found) < len(expected):
                assert plan.needed_from(seconds) <= expected[len(found)].start + 1e-9
                assert seconds - plan.needed_from(seconds) < 2 * length + 2.0  # what is kept does not grow
        if len(expected) > 4:
            assert len(found) >= len(expected) - 3  # most are heard before the end
        found += plan.finish(seconds)
        assert [(w.start, w.seconds, w.whole) for w in found] == [(w.start, w.seconds, w.whole) for w in expected]
    whole = WindowPlan(None, 0.0, grid)
    assert whole.ready(99.0) == [] and whole.next_start(99.0) is None and whole.needed_from(99.0) == 0.0
    assert whole.finish(99.0) == [Window(0.0, 99.0, whole=True)]
