"""Clips that are re-encoded when they are packed: small frames of a constant rate, and sound that is where it was."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from peav.data import Clip, load_audio, load_frames, open_manifest, prepare, probe
from peav.data.media.normalize import Normalize
from peav.data.stores.reader import ShardReader
from peav.data.stores.samples import Sample
from tests.data.conftest import ffmpeg, write_records

_PATTERN = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=12:d=2"]
_LATE = ["-itsoffset", "0.68", "-f", "lavfi", "-i", "anoisesrc=d=1:r=16000:a=0.5:seed=3"]
_H264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1"]

#: Files whose sound starts late, by how their containers tell it.
_LATE_FILES = {"late.mp4": "alac", "late.mov": "pcm_s16le", "late-aac.mp4": "aac"}

Packed = dict[str, tuple[Clip, Sample]]


@pytest.fixture(scope="module")
def source(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("normalize")
    for name in (
        "good.mp4",
        "vfr.mp4",
        "silent.mp4",
        "stereo.wav",
        "mono.wav",
        "damaged.mp4",
        "cut_video.mp4",
        "nan.wav",
    ):
        (folder / name).symlink_to(media / name)
    for name, codec in _LATE_FILES.items():
        ffmpeg(*_PATTERN, *_LATE, *_H264, "-c:a", codec, str(folder / name))
    ffmpeg("-i", str(folder / "good.mp4"), "-c", "copy", "-metadata:s:v:0", "rotate=90", str(folder / "rotated.mp4"))
    ffmpeg("-f", "lavfi", "-i", "anoisesrc=d=2:r=16000:a=0.5:seed=4", "-ac", "6", str(folder / "six.wav"))
    files = ["good.mp4", "vfr.mp4", "silent.mp4", "stereo.wav", "rotated.mp4", "six.wav", *_LATE_FILES]
    records: list[dict[str, Any]] = [{"id": name, "media": name} for name in files]
    records += [
        {"id": f"span-{name}", "media": name, "start": 0.5, "duration": 1.0} for name in ("good.mp4", "late.mp4")
    ]
    records += [
        {"id": "pair", "audio": "mono.wav", "video": "silent.mp4"},
        {"id": "damaged", "media": "damaged.mp4"},
        {"id": "truncated", "media": "cut_video.mp4"},
        {"id": "nan", "audio": "nan.wav"},
        {"id": "no-audio", "audio": "silent.mp4"},
        {"id": "chunks", "media": "good.mp4", "duration": 1.9},
    ]
    write_records(folder / "clips.jsonl", records)
    return folder


def pack(source: Path, out: Path, **options: Any) -> Packed:
    how = Normalize(video_size=64, **options)
    prepare(source, out, workers=0, progress=False, normalize=how)
    reader = ShardReader(out / "shards" / "train")
    return {clip.id: (clip, reader.read(clip.row, clip.id)) for clip in open_manifest(out, "train")}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("normalized") / "data"


@pytest.fixture(scope="module")
def packed(source: Path, out: Path) -> Packed:
    return pack(source, out)


def lag(first: torch.Tensor, second: torch.Tensor) -> tuple[int, float]:
    """Returns by how many samples the second waveform is late, and the correlation there."""
    size = len(first)
    product = torch.fft.irfft(torch.fft.rfft(first, 2 * size).conj() * torch.fft.rfft(second, 2 * size))
    best = int(product.argmax())
    return best if best < size else best - 2 * size, float(product.max() / first.norm() / second.norm())


def test_what_a_clip_becomes(packed: Packed) -> None:
    clip, sample = packed["good.mp4"]
    assert not sample.media and sample.audio[:4] == b"fLaC" and clip.has_audio and clip.has_video
    assert dict(clip.origins) == {"audio": 0.0, "video": 0.0} and dict(clip.files) == {"media": "good.mp4"}
    audio, video = probe(sample.audio), probe(sample.video)
    assert audio.audio is not None and (audio.audio.sample_rate, audio.audio.num_channels) == (48000, 1)
    assert video.audio is None and video.video is not None
    assert (video.video.height, video.video.width, video.video.codec) == (64, 64, "h264")
    assert clip.video == {"num_frames": 60, "fps": 30.0, "size": [64, 64]} and clip.duration == pytest.approx(
        2.0, abs=0.01
    )
    assert packed["silent.mp4"][0].has_audio is False and not packed["silent.mp4"][1].audio
    assert clip.recording is not None and clip.recording["sampling_rate"] == 16000


def test_frames_can_be_sought(packed: Packed, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(packed["good.mp4"][1].video)
    entries = ["-select_streams", "v", "-show_entries", "frame=pict_type,pkt_dts_time:stream=pix_fmt", "-of", "json"]
    result = subprocess.run(["ffprobe", "-v", "error", *entries, str(path)], capture_output=True, check=True)
    data = json.loads(result.stdout)
    kinds = "".join(frame["pict_type"] for frame in data["frames"])
    assert set(kinds) <= set("IP") and max(len(run) for run in kinds.split("I")) < 16
    assert data["streams"][0]["pix_fmt"] == "yuv420p"


@pytest.mark.parametrize("name", _LATE_FILES)
def test_late_sound_is_preceded_by_silence(packed: Packed, source: Path, name: str) -> None:
    _, sample = packed[name]
    before = load_audio(source / name, 48000, 0.0, 1.9)
    after = load_audio(sample.audio, 48000, 0.0, 1.9, origin=0.0)
    shift, correlation = lag(before, after)
    assert abs(shift) <= 1 and correlation > 0.99
    assert not after[: int(0.6 * 48000)].any() and after[int(0.75 * 48000) :].any()


def test_spans_begin_at_their_start(packed: Packed, source: Path) -> None:
    clip, sample = packed["span-late.mp4"]
    assert (clip.start, clip.media_start, clip.duration) == (0.5, 0.5, 1.0)
    shift, correlation = lag(
        load_audio(source / "late.mp4", 48000, 0.5, 1.0), load_audio(sample.audio, 48000, 0.0, 1.0, origin=0.0)
    )
    assert abs(shift) <= 1 and correlation > 0.99
    assert probe(sample.video).duration == pytest.approx(1.0, abs=0.04)


def test_channels_are_kept(packed: Packed, source: Path) -> None:
    channels = {name: probe(packed[name][1].audio).audio for name in ("good.mp4", "stereo.wav", "six.wav")}
    assert [audio.num_channels for audio in channels.values() if audio] == [1, 2, 6]
    before = load_audio(source / "stereo.wav", 48000, 0.0, 2.0)
    after = load_audio(packed["stereo.wav"][1].audio, 48000, 0.0, 2.0)
    torch.testing.assert_close(before[500:-500], after[500:-500], atol=3e-3, rtol=0)


def test_variable_rates_become_constant(packed: Packed) -> None:
    # Frames at 0, 0.1, 0.2, 0.3, 1.0 and 1.5 s, the last for 0.1 s as its container has it, of brightness 20, 60, 100, ...
    clip, sample = packed["vfr.mp4"]
    assert clip.video is not None and clip.video["num_frames"] == round(clip.duration * 30) == 48
    frames, _ = load_frames(sample.video, 16, duration=1.6, origin=0.0)
    shown = [0, 1, 2, *[3] * 7, *[4] * 5, 5]
    levels = frames.float().mean((1, 2, 3))
    steps = torch.tensor([float(levels[shown.index(k)]) for k in range(6)])
    assert (steps.diff() > 25).all()
    torch.testing.assert_close(levels, steps[shown], atol=4.0, rtol=0)


def test_rotation_is_carried_out(packed: Packed) -> None:
    plain, _ = load_frames(packed["good.mp4"][1].video, 3)
    turned, _ = load_frames(packed["rotated.mp4"][1].video, 3)
    assert min((turned.float() - torch.rot90(plain.float(), k, (2, 3))).abs().mean() for k in (1, 3)) < 12
    assert (turned.float() - plain.float()).abs().mean() > 25


def test_frames_look_as_before(packed: Packed, source: Path) -> None:
    before, _ = load_frames(source / "good.mp4", 5, size=(64, 64))
    after, _ = load_frames(packed["good.mp4"][1].video, 5, origin=0.0)
    assert (before.float() - after.float()).abs().mean() < 15  # the pattern has lines that are thinner than a pixel
    assert torch.corrcoef(torch.stack([before.flatten().float(), after.flatten().float()]))[0, 1] > 0.97


def test_bad_files_are_rejected(packed: Packed, out: Path) -> None:
    lines = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    reasons = {line["id"]: line["reason"] for line in lines}
    assert set(reasons) == {"damaged", "truncated", "nan", "no-audio"}
    assert "cannot be re-encoded" in reasons["damaged"] and "NaN" in reasons["nan"]
    assert "holds no audio" in reasons["no-audio"]
    assert packed["pair"][1].audio and packed["pair"][1].video


def test_opus(source: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    (few / "late.mp4").symlink_to(source / "late.mp4")
    write_records(few / "clips.jsonl", [{"id": "late", "media": "late.mp4"}])
    clip, sample = pack(few, tmp_path / "out", audio_codec="opus", video_fps=15.0)["late"]
    assert sample.audio[:4] == b"OggS" and clip.video is not None and clip.video["num_frames"] == 30
    shift, correlation = lag(
        load_audio(source / "late.mp4", 48000, 0.0, 1.9), load_audio(sample.audio, 48000, 0.0, 1.9, origin=0.0)
    )
    assert abs(shift) <= 1 and correlation > 0.95


@pytest.mark.parametrize(
    "options",
    [{"video_size": 63}, {"audio_codec": "mp3"}, {"video_fps": 0}, {"audio_codec": "opus", "audio_sample_rate": 44100}],
)
def test_settings_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(reversed(options)))):
        Normalize(**options)
