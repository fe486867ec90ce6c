"""`PEAV.embed` and `find_events`: real media in every form, against batches made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torchcodec.decoders import VideoDecoder
from torchvision.transforms.v2 import functional as transforms

from peav.checkpoints import MediaSettings
from peav.data.media import MediaError, decode_counts, load_audio
from peav.encoders import TextEncoder
from peav.inputs import Window, plan_windows
from peav.model import PEAV
from peav.spans import find_spans
from peav.types import AudioInput, Batch, VideoInput
from tests.data.conftest import ffmpeg, write_float_wav, write_wav
from tests.helpers import SMALL_ENCODERS

ASSETS = Path(__file__).parent / "assets/pe_av_tiny"
RATE = 16000
HOP = 1920 / RATE
EXACT: dict[str, Any] = {"rtol": 0, "atol": 0}
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}


def make_model(embeddings: Sequence[str] | None = None, **options: Any) -> PEAV:
    torch.manual_seed(3)
    names = {
        "audio": "DacAudioEncoder",
        "video": "PEVideoEncoder",
        "audio_video": "FusionEncoder",
        "text": "TextEncoder",
        "plus_text": "PlusTextEncoder",
    }
    media = MediaSettings(**{"sample_rate": RATE, "frame_size": 32, "num_frames": 4, **options.pop("media", {})})
    model = PEAV({k: SMALL_ENCODERS[v]() for k, v in names.items()}, embeddings, 8, media=media, **options).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "frontend" in name:  # a DAC at its initial values hardly hears
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def model() -> PEAV:
    return make_model(normalize=False)


@pytest.fixture(scope="module")
def normalized() -> PEAV:
    return make_model(normalize=True)


@pytest.fixture(scope="module")
def framewise() -> PEAV:
    model = make_model(["text_event"], frames=["audio"], normalize=False, pairs=[("audio", "text_event")])
    model.set_score(("audio", "text_event"), torch.tensor([2.0]), torch.tensor([-0.1]))
    return model


def noise(seconds: float, seed: int = 0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    wave = generator.standard_normal((channels, round(seconds * rate))) * np.linspace(0.05, 0.3, round(seconds * rate))
    return wave.astype(np.float32).squeeze(0) if channels == 1 else wave.astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files, good and bad."""
    root = tmp_path_factory.mktemp("clips")
    video = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1", "-g", "12"]
    pattern = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=10:d=2"]
    tone = ["-f", "lavfi", "-i", "aevalsrc=0.5*cos(2*PI*440*t):s=16000:d=2"]
    ffmpeg(*pattern, *tone, *video, "-c:a", "aac", str(root / "both.mp4"))
    ffmpeg(*pattern, *video, str(root / "silent.mp4"))
    tone[3] = tone[3].replace("d=2", "d=1")
    ffmpeg(*pattern, "-itsoffset", "0.68", *tone, *video, "-c:a", "alac", str(root / "late.mp4"))
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=10:d=6", *video, str(root / "long.mp4"))
    write_float_wav(root / "mono.wav", noise(1.5))
    write_wav(root / "pcm.wav", noise(1.5))
    write_float_wav(root / "short.wav", noise(0.005))
    write_float_wav(root / "none.wav", noise(0.0))
    bad = noise(1.0)
    bad[5000] = np.nan
    write_float_wav(root / "nan.wav", bad)
    (root / "zero.wav").write_bytes(b"")
    (root / "text.txt").write_text("a bell rings\n")
    (root / "text.wav").write_text("a bell rings\n")
    (root / "cut.mp4").write_bytes((root / "both.mp4").read_bytes()[:3000])
    return root


def wide_wav(path: Path, samples: np.ndarray, rate: int) -> np.ndarray:
    """Writes 16-bit samples (channels, S) and returns what the file holds."""
    write_wav(path, samples.T, rate)
    return (samples.T * 32767).astype("<i2").T


def by_hand(model: PEAV, samples: Tensor | None = None, frames: Tensor | None = None) -> dict[str, Tensor]:
    """One clip as a batch made by hand."""
    yes, row = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.int64)
    audio = video = None
    if samples is not None:
        mask = torch.ones(1, len(samples), dtype=torch.bool)
        audio = AudioInput(samples[None], mask, yes, row, model.media.sample_rate)
    if frames is not None:
        video = VideoInput(frames[None], torch.ones(1, len(frames), dtype=torch.bool), yes, row, torch.zeros(1))
    with torch.inference_mode():
        return model.allowed(Batch(("clip",), audio=audio, video=video), {1})


def all_frames(path: Path, size: int = 32) -> Tensor:
    frames = VideoDecoder(path)[:]
    return transforms.resize(frames, [size, size], antialias=True)


# Audio


def test_a_file_is_the_array_that_it_holds(model: PEAV, clips: Path) -> None:
    expected = by_hand(model, torch.from_numpy(noise(1.5)))["audio"]
    for audio in (clips / "mono.wav", str(clips / "mono.wav"), [clips / "mono.wav"]):
        found = model.embed(audio=audio)
        assert set(found) == {"audio"}
        torch.testing.assert_close(found["audio"], expected, **EXACT)
    wave = noise(1.5)
    arrays = (wave, torch.from_numpy(wave), wave[None], wave.astype(np.float64), [wave])
    for array in arrays:
        torch.testing.assert_close(model.embed(audio=array, sample_rate=RATE)["audio"], expected, **EXACT)
    pcm = (wave * 32767).astype(np.int16)
    from_file = model.embed(audio=clips / "pcm.wav")["audio"]
    torch.testing.assert_close(model.embed(audio=pcm, sample_rate=RATE)["audio"], from_file, **EXACT)
    torch.testing.assert_close(
        model.embed(audio=pcm.astype(np.int32) * 65536, sample_rate=RATE)["audio"], from_file, **EXACT
    )
    assert not torch.allclose(from_file, expected, rtol=0, atol=1e-7)  # the rounding of 16 bits is heard
    assert not torch.allclose(model.embed(audio=noise(1.5, seed=1), sample_rate=RATE)["audio"], expected, atol=1e-3)


def test_stereo_at_96_khz(model: PEAV, tmp_path: Path) -> None:
    pcm = wide_wav(tmp_path / "wide.wav", noise(1.1, rate=96000, channels=2), 96000)
    from_file = model.embed(audio=tmp_path / "wide.wav")["audio"]
    torch.testing.assert_close(model.embed(audio=pcm, sample_rate=96000)["audio"], from_file, **EXACT)
    # Once more without the code under test: mixed down, then resampled.
    mono = (pcm.astype(np.float32) / 32768).sum(0) * 0.5**0.5
    write_float_wav(tmp_path / "mono.wav", mono, 96000)
    expected = by_hand(model, load_audio(tmp_path / "mono.wav", RATE))["audio"]
    torch.testing.assert_close(from_file, expected, rtol=0, atol=1e-4)
    left = model.embed(audio=pcm[0], sample_rate=96000)["audio"]
    assert not torch.allclose(left, expected, atol=1e-3)


def test_downmix_is_the_models(tmp_path: Path) -> None:
    wave = noise(0.5, channels=2)
    mean = make_model(normalize=False, media={"downmix": "mean"})
    expected = by_hand(mean, torch.from_numpy(wave.mean(0)))["audio"]
    torch.testing.assert_close(mean.embed(audio=wave, sample_rate=RATE)["audio"], expected, **CLOSE)


def test_late_audio_is_aligned(model: PEAV, clips: Path) -> None:
    begin = round(0.68 * RATE)
    wave = np.zeros(begin + RATE, np.float32)  # the file lasts 2 s, its sound ends at 1.68 s
    wave[begin:] = 0.5 * np.cos(2 * np.pi * 440 * np.arange(RATE) / RATE)
    found = model.embed(audio=clips / "late.mp4")["audio"]
    expected = model.embed(audio=wave, sample_rate=RATE)["audio"]
    early = model.embed(audio=wave[begin:], sample_rate=RATE)["audio"]
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)
    assert (found - early).abs().max() > 10 * (found - expected).abs().max()


def test_five_milliseconds_are_embedded(model: PEAV, clips: Path) -> None:
    found = model.embed(audio=[clips / "short.wav", clips / "mono.wav"])["audio"]
    assert found.isfinite().all()
    torch.testing.assert_close(found[:1], by_hand(model, torch.from_numpy(noise(0.005)))["audio"], **CLOSE)


# Video


def test_a_video_is_the_frames_that_it_holds(model: PEAV, clips: Path) -> None:
    frames = all_frames(clips / "silent.mp4")
    chosen = [0, 6, 12, 19]  # int(i * 19 / 3)
    expected = by_hand(model, frames=frames[chosen])["video"]
    raw = VideoDecoder(clips / "silent.mp4").get_frames_in_range(0, 20).data
    pictures = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in raw]
    last = raw.permute(0, 2, 3, 1)
    for video in (clips / "silent.mp4", raw, raw.numpy(), last, last.numpy(), pictures, tuple(pictures), [pictures]):
        found = model.embed(video=video)
        assert set(found) == {"video"}
        torch.testing.assert_close(found["video"], expected, **CLOSE)
    assert not torch.allclose(by_hand(model, frames=frames[[0, 6, 12, 18]])["video"], expected, atol=1e-4)


def test_call_arguments_override_the_models_frames(model: PEAV, clips: Path) -> None:
    frames = all_frames(clips / "silent.mp4")
    eight = [int(i * 19 / 7) for i in range(8)]
    for video in (clips / "silent.mp4", frames):
        found = model.embed(video=video, num_frames=8)["video"]
        torch.testing.assert_close(found, by_hand(model, frames=frames[eight])["video"], **CLOSE)
    ten = [int(i * 19 / 9) for i in range(10)]  # 5 frames of 2 s
    found = model.embed(video=clips / "silent.mp4", fps=5)["video"]
    torch.testing.assert_close(found, by_hand(model, frames=frames[ten])["video"], **CLOSE)
    with_sound = model.embed(video=frames, audio=noise(2.0), sample_rate=RATE, fps=5)["video"]
    torch.testing.assert_close(with_sound, found, **CLOSE)
    # Fewer frames than asked for: they repeat.
    short = model.embed(video=frames[:3], num_frames=5)["video"]
    torch.testing.assert_close(short, by_hand(model, frames=frames[[0, 0, 1, 1, 2]])["video"], **CLOSE)


def test_every_frame_without_a_setting(clips: Path) -> None:
    every = make_model(normalize=False, media={"num_frames": None})
    frames = all_frames(clips / "silent.mp4")
    expected = by_hand(every, frames=frames)["video"]
    for video in (clips / "silent.mp4", frames):
        torch.testing.assert_close(every.embed(video=video)["video"], expected, **CLOSE)
    by_time = make_model(normalize=False, media={"sampling": "time"})
    expected = by_hand(by_time, frames=frames[[2, 7, 12, 17]])["video"]  # centres of four parts of 2 s
    for video in (clips / "silent.mp4", frames):
        torch.testing.assert_close(by_time.embed(video=video)["video"], expected, **CLOSE)


# What comes back


def test_embeddings_are_what_the_inputs_allow(model: PEAV, clips: Path) -> None:
    both, texts = clips / "both.mp4", ["a bell", "the red house"]
    heads = {"text_audio", "text_video", "text_audio_video", "text_event"}
    media = {"audio", "video", "audio_video"}
    before = decode_counts()
    assert set(model.embed(audio=both)) == {"audio"}
    assert decode_counts()["video"] == before["video"]
    pair = model.embed(audio=both, video=both)
    assert set(pair) == media
    assert set(model.embed(text=texts)) == heads
    assert set(model.embed(audio=both, video=both, text=texts)) == media | heads  # one clip, two texts
    everything = model.embed(audio=[both, clips / "mono.wav"], video=[both, clips / "long.mp4"], text=texts)
    assert set(everything) == media | heads | {"audio_plus_text", "video_plus_text"}
    assert {tuple(value.shape) for value in everything.values()} == {(2, 8)}
    assert all(value.dtype == torch.float32 and not value.requires_grad for value in everything.values())
    for name in media:
        torch.testing.assert_close(everything[name][:1], pair[name], **CLOSE)
    # The queries, by hand.
    audio = by_hand(model, load_audio(both, RATE))
    torch.testing.assert_close(pair["audio"], audio["audio"], **CLOSE)
    tokens = model.encoders["text"].tokenize(texts)  # type: ignore[operator]
    with torch.inference_mode():
        expected = model(
            input_values=torch.stack([load_audio(both, RATE)[: 12 * 1920]] * 2),
            input_ids=tokens[0],
            attention_mask=tokens[1],
        )
        found = model.embed(audio=[load_audio(both, RATE)[: 12 * 1920]] * 2, text=texts, sample_rate=RATE)
    assert set(found) == set(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **CLOSE)


def test_to_picks_a_head(model: PEAV, clips: Path) -> None:
    texts = ["a bell", "the red house", "bell bell bell bell bell"]
    heads = model.embed(text=texts)
    for to in ("audio", "video", "audio_video", "event"):
        found = model.embed(text=texts, to=to)
        assert set(found) == {f"text_{to}"}
        torch.testing.assert_close(found[f"text_{to}"], heads[f"text_{to}"], **EXACT)
        torch.testing.assert_close(model.embed(text=texts[1], to=to)[f"text_{to}"], found[f"text_{to}"][1:2], **CLOSE)
    assert not torch.allclose(heads["text_audio"], heads["text_video"], atol=1e-2)
    assert set(model.embed(audio=clips / "both.mp4", text="a bell", to="audio")) == {"audio", "text_audio"}


def test_order_and_grouping_change_nothing(normalized: PEAV, clips: Path) -> None:
    files = [clips / name for name in ("long.mp4", "both.mp4", "silent.mp4", "late.mp4")]
    sounds = [noise(seconds, seed) for seed, seconds in enumerate((0.3, 2.9, 1.0, 0.05))]
    texts = ["a", "the red house", "a bell rings", "rings"]

    def embed(rows: Sequence[int], **options: Any) -> dict[str, Tensor]:
        return normalized.embed(
            [sounds[row] for row in rows],
            [files[row] for row in rows],
            [texts[row] for row in rows],
            sample_rate=RATE,
            window_seconds=4.0,  # windows of 4, 2 (three of them) and 2.9 s
            **options,
        )

    whole = embed([0, 1, 2, 3])
    assert len(whole) == 9
    for rows in ([0, 1, 2, 3], [2, 0, 3, 1]):
        for batch_seconds in (0.1, 3.0, 1000.0):
            found = embed(rows, batch_seconds=batch_seconds)
            for name, value in found.items():
                torch.testing.assert_close(value, whole[name][rows], **CLOSE)
    for row in range(4):
        for name, value in embed([row]).items():
            torch.testing.assert_close(value, whole[name][[row]], **CLOSE)


# Windows


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


# Frames


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


def test_find_events_gives_spans_of_every_clip_and_text(framewise: PEAV, tmp_path: Path) -> None:
    waves = [noise(3.11, 1), noise(1.0, 2)]
    write_float_wav(tmp_path / "a.wav", waves[0])
    texts = ["a bell", "the red house", "rings"]
    embedded = framewise.embed(audio=waves, text=texts, sample_rate=RATE)
    with torch.no_grad():
        logits = framewise.similarity(
            {"audio_frames": embedded["audio_frames"]}, {"text_event": embedded["text_event"]}
        )
    p = logits.sigmoid()
    # Between two values that lie apart: rounding must not decide which frames are above.
    values = p[embedded["audio_frames_mask"][:, None].expand_as(p)].sort().values
    middle = values[len(values) // 4 : -len(values) // 4]
    widest = int(middle.diff().argmax())
    threshold = float(middle[widest : widest + 2].mean())
    expected = find_spans(p, embedded["audio_frames_mask"], threshold, HOP, [3.11, 1.0])
    found = framewise.find_events([tmp_path / "a.wav", waves[1]], texts, threshold, sample_rate=RATE)
    assert [[len(spans) for spans in clip] for clip in found] == [[len(spans) for spans in clip] for clip in expected]
    flat = [span for clip in found for spans in clip for span in spans]
    assert len(flat) > 6
    for span, other in zip(flat, (span for clip in expected for spans in clip for span in spans), strict=True):
        assert (span.onset, span.offset, span.score) == pytest.approx(
            (other.onset, other.offset, other.score), abs=1e-5
        )
    everything = framewise.find_events(waves[0], "a bell", 0.0, sample_rate=RATE, window_seconds=1.2)
    assert [(s.onset, s.offset) for s in everything[0][0]] == [(0.0, pytest.approx(3.11))]
    assert framewise.find_events(waves[0], "a bell", 1.0, sample_rate=RATE) == [[[]]]
    longest = framewise.find_events(waves[0], "a bell", threshold, merge_seconds=9.0, min_seconds=0.5, sample_rate=RATE)
    assert len(longest[0][0]) == 1


# The model


def test_the_model_is_as_it_was_and_can_be_trained(clips: Path) -> None:
    model = make_model(normalize=True)
    model.train()
    model.encoders["video"].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    found = model.embed(audio=clips / "both.mp4", video=clips / "both.mp4", text="a bell")
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    with pytest.raises(MediaError):
        model.embed(audio=[clips / "mono.wav", clips / "text.wav"])
    assert {name: module.training for name, module in model.named_modules()} == modes
    # What came out is an ordinary tensor, and nothing in the model remembers inference mode.
    weight = torch.ones(8, requires_grad=True)
    sum((value * weight).sum() for value in found.values()).backward()  # type: ignore[union-attr]
    assert weight.grad is not None
    outputs = by_hand_with_gradient(model)
    sum(value.sum() for value in outputs.values()).backward()  # type: ignore[union-attr]


def by_hand_with_gradient(model: PEAV) -> dict[str, Tensor]:
    ids = torch.tensor([[2, 6, 7, 3]])
    frames = torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8)
    return model(torch.from_numpy(noise(0.5))[None], pixel_values_videos=frames, input_ids=ids)


def test_embedding_is_in_evaluation_mode_and_deterministic(clips: Path) -> None:
    torch.manual_seed(3)
    audio = type(SMALL_ENCODERS["DacAudioEncoder"]())(
        dim=16, num_layers=1, num_heads=2, sample_rate=RATE, codec_hidden_size=2, codec_dim=4, dropout=0.5
    )
    model = PEAV({"audio": audio}, ["audio"], 8, media=MediaSettings(sample_rate=RATE)).train()
    first = model.embed(audio=clips / "mono.wav")["audio"]
    torch.testing.assert_close(model.embed(audio=clips / "mono.wav")["audio"], first, **EXACT)
    torch.testing.assert_close(model.eval().embed(audio=clips / "mono.wav")["audio"], first, **EXACT)


def test_precision(normalized: PEAV, clips: Path) -> None:
    full = normalized.embed(audio=clips / "mono.wav", precision="fp32")["audio"]
    torch.testing.assert_close(normalized.embed(audio=clips / "mono.wav")["audio"], full, **EXACT)  # on a CPU
    half = normalized.embed(audio=clips / "mono.wav", precision="bf16")["audio"]
    assert half.dtype == torch.float32
    assert 0 < float((half - full).abs().max()) < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(normalized.embed(audio=clips / "mono.wav", precision="fp32")["audio"], full, **EXACT)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "nothing to embed: give audio, video or text"),
        ({"audio": []}, ValueError, "audio is an empty list"),
        ({"video": []}, ValueError, "video is an empty list"),
        ({"text": []}, ValueError, "text is an empty list"),
        ({"audio": "nowhere.wav"}, FileNotFoundError, r"no file .*nowhere.wav \(audio\)"),
        ({"audio": ["mono.wav", "nowhere.wav"]}, FileNotFoundError, r"nowhere.wav \(audio\[1\]\)"),
        ({"audio": "."}, MediaError, r"is a folder \(audio\)"),
        ({"video": "text.txt"}, MediaError, "text.txt: cannot be opened"),
        ({"audio": "text.wav"}, MediaError, "text.wav: cannot be opened"),
        ({"audio": "zero.wav"}, MediaError, "zero.wav: zero bytes"),
        ({"audio": "none.wav"}, MediaError, "none.wav: holds no sound"),
        ({"audio": "silent.mp4"}, MediaError, "silent.mp4: holds no audio"),
        ({"video": "mono.wav"}, MediaError, "mono.wav: holds no video"),
        ({"audio": "cut.mp4"}, MediaError, "cut.mp4: "),
        ({"audio": "nan.wav"}, ValueError, "nan.wav holds NaN or infinite"),
        ({"audio": [0.1, 0.2]}, ValueError, r"audio\[0\] is 0.1, of type float"),
        ({"audio": [None]}, ValueError, r"audio\[0\] is None"),
        ({"audio": np.zeros(99)}, ValueError, "does not say its sample rate: give sample_rate"),
        ({"audio": np.zeros(0), "sample_rate": RATE}, ValueError, "audio holds no sound"),
        ({"audio": [np.ones(9), np.zeros((2, 0))], "sample_rate": RATE}, ValueError, r"audio\[1\] holds no sound"),
        ({"audio": np.zeros(1), "sample_rate": 48000}, ValueError, "audio holds no sound: .* less than a sample"),
        ({"audio": np.full(9, np.inf), "sample_rate": RATE}, ValueError, "audio holds NaN or infinite"),
        (
            {"audio": [np.ones(9), torch.full((9,), torch.nan)], "sample_rate": RATE},
            ValueError,
            r"audio\[1\] holds NaN",
        ),
        ({"audio": np.zeros((99, 2)), "sample_rate": RATE}, ValueError, r"99 channels.*wants `\.T`"),
        ({"audio": np.zeros((1, 1, 9)), "sample_rate": RATE}, ValueError, r"audio has shape \(1, 1, 9\)"),
        ({"audio": np.full(9, 3e4), "sample_rate": RATE}, ValueError, "samples up to 30000"),
        ({"audio": np.zeros(9, np.int64), "sample_rate": RATE}, ValueError, "samples of type int64"),
        ({"audio": np.zeros(9), "sample_rate": 0}, ValueError, "sample_rate must be a positive whole number"),
        ({"audio": "mono.wav", "sample_rate": RATE}, ValueError, "leave it out"),
        ({"video": np.zeros((2, 3, 8, 8))}, ValueError, "video has values of type float64: frames are uint8"),
        ({"video": np.zeros((2, 4, 8, 8), np.uint8)}, ValueError, r"video has shape \(2, 4, 8, 8\)"),
        ({"video": np.zeros((0, 3, 8, 8), np.uint8)}, ValueError, r"video has shape \(0, 3, 8, 8\)"),
        ({"video": np.zeros((2, 3, 8, 3), np.uint8)}, ValueError, "either 3 could be the colours"),
        ({"video": [[]]}, ValueError, r"video\[0\] is an empty list"),
        ({"video": 7}, ValueError, "video is 7"),
        ({"video": np.zeros((2, 3, 8, 8), np.uint8), "fps": 2.0}, ValueError, "video is frames without times"),
        ({"audio": "mono.wav", "num_frames": 4}, ValueError, "num_frames=4 .* there is no video"),
        ({"video": "silent.mp4", "num_frames": 4, "fps": 1.0}, ValueError, "num_frames=4 and fps=1.0"),
        ({"video": "silent.mp4", "num_frames": 0}, ValueError, "num_frames must be .* not 0"),
        ({"video": "silent.mp4", "fps": -1.0}, ValueError, "fps must be positive, not -1.0"),
        ({"audio": ["mono.wav"] * 2, "video": ["silent.mp4"] * 3}, ValueError, "2 audios and 3 videos"),
        ({"text": 3}, ValueError, "text is 3, of type int"),
        ({"text": ["a", None]}, ValueError, r"text\[1\] is None"),
        ({"text": "a", "to": "vidoe"}, ValueError, "no head text_vidoe for texts. Did you mean 'video'"),
        ({"audio": "mono.wav", "to": "audio"}, ValueError, "there is no text"),
        ({"audio": "mono.wav", "window_seconds": 0.0}, ValueError, "window_seconds must be positive"),
        ({"audio": "mono.wav", "window_seconds": "all"}, ValueError, "a number, 'model' or None, not 'all'"),
        ({"audio": "mono.wav", "window_seconds": 1.0, "overlap_seconds": 1.0}, ValueError, "0 <= overlap_seconds <"),
        ({"audio": "mono.wav", "window_seconds": None, "overlap_seconds": 1.0}, ValueError, "needs windows"),
        ({"audio": "mono.wav", "batch_seconds": 0.0}, ValueError, "batch_seconds must be positive"),
        ({"audio": "mono.wav", "precision": "fp16"}, ValueError, "precision must be 'auto', 'fp32' or 'bf16'"),
    ],
)
def test_what_cannot_be_embedded_is_named(
    model: PEAV, clips: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    def located(value: Any) -> Any:
        if isinstance(value, list):
            return [located(item) for item in value]
        return clips / value if isinstance(value, str) else value

    given = {name: located(value) if name in ("audio", "video") else value for name, value in arguments.items()}
    with pytest.raises(error, match=message):
        model.embed(**given)


def test_what_a_model_cannot_do_is_named(model: PEAV, framewise: PEAV, clips: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing of video when given video: .*audio needs audio"):
        framewise.embed(video=clips / "silent.mp4")
    with pytest.raises(ValueError, match=r"no head text_audio for texts\. Choices: event"):
        framewise.embed(text="a bell", to="audio")
    with pytest.raises(ValueError, match=r"makes no audio frames.*pe-a-frame"):
        model.find_events(clips / "mono.wav", "a bell")
    with pytest.raises(ValueError, match="shorter than a frame of the model"):
        framewise.embed(audio=clips / "mono.wav", window_seconds=0.05)
    fused = make_model(["audio_video", "text_audio"])
    with pytest.raises(ValueError, match="nothing of audio when given audio: audio_video needs audio and video"):
        fused.embed(audio=clips / "mono.wav")
    deaf = PEAV({"text": SMALL_ENCODERS["TextEncoder"]()}, ["text_audio"], 8)
    with pytest.raises(ValueError, match="nothing of audio"):
        deaf.embed(audio=clips / "mono.wav", text="a")


def test_a_model_without_tokenizer_says_so() -> None:
    options = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    mute = PEAV({"text": TextEncoder(options=options | {"vocab_size": 40, "pad_token_id": 0})}, ["text_audio"], 8)
    with pytest.raises(ValueError, match=r"no tokenizer.*model\(input_ids=...\)"):
        mute.embed(text="a bell")


@pytest.mark.parametrize("token", [-1, 40])
def test_token_ids_of_another_tokenizer_are_named(token: int) -> None:
    options = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = PEAV({"text": TextEncoder(options=options | {"vocab_size": 40, "pad_token_id": 0})}, ["text_audio"], 8)
    ids = torch.tensor([[1, 39, 0]])
    assert model(input_ids=ids)["text_audio"].isfinite().all()
    ids[0, 1] = token
    with pytest.raises(ValueError, match=f"input_ids hold {token}, but the model's vocabulary has 40 tokens"):
        model(input_ids=ids)


def test_embeddings_of_the_released_code() -> None:
    """The longest clip, which no zeros follow in the reference's batch either."""
    io = load_file(ASSETS / "io.safetensors")
    assert io["padding_mask"][0].all()
    model = PEAV.from_pretrained(ASSETS / "pe_av")
    found = model.embed(audio=io["input_values"][0], sample_rate=48000)["audio"]
    torch.testing.assert_close(found, io["out.audio_embeds"][:1], rtol=0, atol=2e-4)
    frames = PEAV.from_pretrained(ASSETS / "pe_a_frame").embed(audio=io["input_values"][0, 0], sample_rate=48000)
    torch.testing.assert_close(frames["audio_frames"], io["frame.audio_embeds"], rtol=0, atol=2e-4)
