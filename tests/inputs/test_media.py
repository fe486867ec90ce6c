"""Sounds and videos in every form, against batches made by hand."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchcodec.decoders import VideoDecoder

from peav.data.media.decode import load_audio
from peav.inputs.audio import wav_bytes
from peav.model import PEAV
from tests.data.conftest import write_float_wav
from tests.inputs.helpers import CLOSE, EXACT, RATE, all_frames, by_hand, make_model, noise, wide_wav


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


def test_samples_become_a_wav_that_says_of_itself_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "samples.wav").write_bytes(wav_bytes(noise(0.5, channels=2), RATE))
    entries = "stream=codec_name,sample_rate,channels,bits_per_sample,duration,bit_rate"
    command = ["ffprobe", "-v", "error", "-show_entries", entries, "-of", "csv=p=0", str(tmp_path / "samples.wav")]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert found == f"pcm_f32le,{RATE},2,32,0.500000,{RATE * 2 * 32}"


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


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "int32"])
def test_samples_of_whole_numbers_are_heard_as_they_are(model: PEAV, kind: str) -> None:
    """PCM of 8 bits is unsigned, with silence at 128; wider samples are signed."""
    wave = noise(0.7, seed=5).clip(-0.9, 0.9)
    scale = {"uint8": 2**7, "int8": 2**7, "int16": 2**15, "int32": 2**31}[kind]
    whole = np.round(wave.astype(np.float64) * scale)
    given = (whole + (128 if kind == "uint8" else 0)).astype(kind)
    expected = model.embed(audio=(whole / scale).astype(np.float32), sample_rate=RATE)["audio"]
    torch.testing.assert_close(model.embed(audio=given, sample_rate=RATE)["audio"], expected, **CLOSE)
    silence = np.full(RATE, 128 if kind == "uint8" else 0, kind)
    quiet = model.embed(audio=np.zeros(RATE, np.float32), sample_rate=RATE)["audio"]
    torch.testing.assert_close(model.embed(audio=silence, sample_rate=RATE)["audio"], quiet, **EXACT)
