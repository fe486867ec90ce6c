from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torchcodec.decoders import AudioDecoder

from peav.data.media.checks import check_media, check_video_errors
from peav.data.media.cutting import Part, cut_span
from peav.data.media.decode import decode_counts, load_audio, load_frames
from peav.data.media.errors import MediaError
from peav.data.media.probing import probe
from tests.data.conftest import RATE


def tone(seconds: float, start: float = 0.0, frequency: float = 440.0) -> torch.Tensor:
    t = start + np.arange(round(seconds * RATE)) / RATE
    return torch.from_numpy(0.5 * np.cos(2 * np.pi * frequency * t)).float()


def test_probe(media: Path) -> None:
    info = probe(media / "good.mp4")
    assert info.audio is not None and info.video is not None
    assert (info.audio.sample_rate, info.video.num_frames, info.video.width) == (RATE, 24, 96)
    assert info.duration == pytest.approx(2.0, abs=0.01)
    assert probe(media / "silent.mp4").audio is None
    assert probe((media / "sound.m4a").read_bytes()).video is None


def test_audio_is_exact(media: Path) -> None:
    torch.testing.assert_close(load_audio(media / "mono.wav", RATE), tone(2.0), atol=1e-4, rtol=0)
    part = load_audio((media / "mono.wav").read_bytes(), RATE, start=0.7301, duration=0.5)
    torch.testing.assert_close(part, tone(0.5, start=round(0.7301 * RATE) / RATE), atol=1e-4, rtol=0)


def test_audio_is_resampled(media: Path) -> None:
    samples = load_audio(media / "mono.wav", 48000, duration=1.5)
    expected = torch.from_numpy(0.5 * np.cos(2 * np.pi * 440 * np.arange(72000) / 48000)).float()
    assert samples.shape == (72000,)
    torch.testing.assert_close(samples[1000:-1000], expected[1000:-1000], atol=2e-3, rtol=0)


def test_late_audio_is_aligned_and_zero_filled(media: Path) -> None:
    samples = load_audio(media / "late.mp4", RATE)
    assert samples.shape == (2 * RATE,)
    start = int((samples.abs() > 0.01).nonzero()[0])
    assert abs(start - 0.68 * RATE) <= 2
    end = int((samples.abs() > 0.01).nonzero()[-1])
    assert abs(end - 1.68 * RATE) <= 40  # a cosine may end near zero
    assert not samples[: start - 2].any() and not samples[end + 40 :].any()
    assert not load_audio(media / "late.mp4", RATE, 0.0, 0.5).any()
    assert not load_audio(media / "late.mp4", RATE, 1.8, 0.2).any()
    span = load_audio(media / "late.mp4", RATE, 0.5, 0.5)
    torch.testing.assert_close(span, samples[RATE // 2 : RATE], atol=1e-4, rtol=0)


def test_downmix_rules(media: Path) -> None:
    left, right = tone(2.0), torch.from_numpy(0.25 * np.sin(2 * np.pi * 300 * np.arange(2 * RATE) / RATE)).float()
    meta = load_audio(media / "stereo.wav", RATE)
    torch.testing.assert_close(meta, 0.5**0.5 * (left + right), atol=2e-4, rtol=0)
    torch.testing.assert_close(
        load_audio(media / "stereo.wav", RATE, downmix="mean"), (left + right) / 2, atol=2e-4, rtol=0
    )
    with pytest.raises(ValueError, match="'meta' or 'mean', got 'sum'"):
        load_audio(media / "stereo.wav", RATE, downmix="sum")  # type: ignore[arg-type]


def test_variable_frame_rate_is_right_by_time(media: Path) -> None:
    def numbers(frames: torch.Tensor) -> list[int]:
        levels = frames.float().mean((1, 2, 3))
        return [round(float(level - levels0) / step) for level in levels]

    reference, _ = load_frames(media / "vfr.mp4", 6, sampling="index", duration=2.0)
    means = reference.float().mean((1, 2, 3))
    levels0, step = float(means[0]), float(means[5] - means[0]) / 5
    assert numbers(reference) == [0, 1, 2, 3, 4, 5]
    # Centres of ten parts of 2 s: 0.1, 0.3, ..., 1.9 s.
    frames, seconds = load_frames(media / "vfr.mp4", 10, duration=2.0)
    assert numbers(frames) == [1, 3, 3, 3, 3, 4, 4, 5, 5, 5]
    assert seconds == pytest.approx(0.2)
    frames, _ = load_frames(media / "vfr.mp4", 4, start=0.9, duration=0.8)
    assert numbers(frames) == [4, 4, 4, 5] or numbers(frames) == [4, 4, 4, 4]
    frames, _ = load_frames(media / "vfr.mp4", 3, sampling="index", duration=2.0)
    assert numbers(frames) == [0, 2, 5]


def test_frames_are_counted_and_resized(media: Path) -> None:
    frames, seconds = load_frames(media / "good.mp4", fps=5, size=(64, 48))
    assert frames.shape == (10, 3, 64, 48) and frames.dtype == torch.uint8
    assert seconds == pytest.approx(0.2, abs=0.01)
    held, _ = load_frames(media / "good.mp4", 4, duration=4.0)
    assert torch.equal(held[2], held[3]) and not torch.equal(held[0], held[1])
    with pytest.raises(ValueError, match="either num_frames or fps"):
        load_frames(media / "good.mp4", 8, fps=2)


def test_decodes_are_counted(media: Path) -> None:
    before = decode_counts()
    load_audio(media / "good.mp4", RATE)
    load_frames(media / "good.mp4", 2)
    load_frames(media / "good.mp4", 2)
    after = decode_counts()
    assert after["audio"] - before["audio"] == 1
    assert after["video"] - before["video"] == 2


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("zero.mp4", "zero bytes"),
        ("garbage.mp4", "cannot be opened"),
        ("nomoov.mp4", "cannot be opened"),
        ("cut60.mp4", "truncated|cannot be decoded"),
        ("cut5.mp4", "cannot be opened"),
        ("barely.mp4", "truncated|cannot be decoded"),
        ("cut_video.mp4", "truncated|cannot be decoded"),
        ("half.wav", "header announces 64,000 bytes of sound, the file holds 31,"),
        ("cut.ogg", "truncated"),
        ("nan.wav", "NaN"),
        ("short.wav", "too short: 0.020 s"),
        ("missing.wav", "no such file"),
    ],
)
@pytest.mark.parametrize("decode_video", [True, False])
def test_bad_files_are_refused(media: Path, file: str, reason: str, decode_video: bool) -> None:
    with pytest.raises(MediaError, match=reason) as caught:
        check_media(media / file, decode_video=decode_video)
    assert file in str(caught.value)


@pytest.mark.parametrize(
    "file",
    [
        "good.mp4",
        "silent.mp4",
        "front.mp4",
        "sound.m4a",
        "sound.ogg",
        "late.mp4",
        "vfr.mp4",
        "mono.wav",
        "stereo.wav",
        "float.wav",
    ],
)
def test_good_files_pass(media: Path, file: str) -> None:
    assert check_media(media / file).duration > 0.9
    assert check_video_errors([media / file]) == {}


def test_a_wanted_stream_must_be_there(media: Path) -> None:
    with pytest.raises(MediaError, match="holds no audio"):
        check_media(media / "silent.mp4", ["audio"])
    with pytest.raises(MediaError, match="holds no video"):
        load_frames(media / "mono.wav", 2)
    with pytest.raises(MediaError, match="holds no audio"):
        load_audio(media / "silent.mp4", RATE)


def test_damaged_frames_are_found_among_good_files(media: Path) -> None:
    files = ["good.mp4", "damaged.mp4", "mono.wav", "silent.mp4"]
    check_media(media / "damaged.mp4")  # FFmpeg hides it otherwise, which is why there is a second check
    assert list(check_video_errors([media / file for file in files])) == [1]


@pytest.mark.parametrize(("rate", "channels", "bits"), [(16000, 1, 16), (44100, 2, 16), (48000, 2, 24), (88201, 1, 16)])
def test_what_is_cut_is_lossless_and_in_a_codec_that_browsers_play(
    tmp_path: Path, rate: int, channels: int, bits: int
) -> None:
    """Bit by bit, whole and in ranges; FLAC has not every rate above 65,535 Hz."""
    samples = np.random.default_rng(rate).uniform(-1, 1, (2 * rate, channels))
    samples = np.round(samples * 2 ** (bits - 1)).clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) / 2 ** (bits - 1)
    soundfile.write(tmp_path / "source.wav", samples, rate, subtype=f"PCM_{bits}")
    source = Part(tmp_path / "source.wav", probe(tmp_path / "source.wav"))
    info = cut_span({"audio": source}, tmp_path / "cut.mp4", 0.25, 1.5, "source.wav")
    assert info.audio is not None and info.audio.codec == ("alac" if rate == 88201 else "flac")
    begin = round(0.25 * rate)
    whole = AudioDecoder(tmp_path / "cut.mp4").get_all_samples().data.T.double().numpy()
    assert len(whole) == pytest.approx(1.5 * rate, abs=1)
    np.testing.assert_array_equal(whole, samples[begin : begin + len(whole)])
    for start, seconds in [(0.0, 0.3), (0.7, 0.5), (1.1, 0.2)]:
        part = AudioDecoder(tmp_path / "cut.mp4").get_samples_played_in_range(start, start + seconds)
        first = begin + round(part.pts_seconds * rate)
        held = part.data.T.double().numpy()
        assert len(held) == pytest.approx(seconds * rate, abs=1)
        np.testing.assert_array_equal(held, samples[first : first + len(held)])


def test_a_span_is_cut_to_the_sample(media: Path, tmp_path: Path) -> None:
    for file in ("good.mp4", "late.mp4"):
        source = Part(media / file, probe(media / file))
        info = cut_span({"audio": source, "video": source}, tmp_path / "cut.mp4", 0.3, 1.0, file)
        assert info.duration == pytest.approx(1.0, abs=0.05)
        assert info.origin == 0
        got = load_audio(tmp_path / "cut.mp4", RATE, duration=1.0, origin=0.0)
        want = load_audio(media / file, RATE, 0.3, 1.0)
        torch.testing.assert_close(got[:-200], want[:-200], atol=1e-3, rtol=0)
        frames, _ = load_frames(tmp_path / "cut.mp4", 3, duration=1.0, origin=0.0)
        reference, _ = load_frames(media / file, 3, start=0.3, duration=1.0)
        assert (frames.float() - reference.float()).abs().mean() < 6
