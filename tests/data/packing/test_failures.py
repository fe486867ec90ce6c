"""Every kind of bad file that is known, and what becomes of it: a reject with a reason, or a clip that is right."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peav.data import Clip, PrepareError, load_audio, load_frames, open_manifest, prepare
from peav.data.stores.reader import ShardReader
from tests.data.conftest import RATE, ffmpeg, write_records

#: File, role and the reason for which it is rejected.
_BAD = [
    ("cut60.mp4", "media", "truncated|cannot be decoded"),
    ("cut5.mp4", "media", "cannot be opened|truncated|cannot be decoded"),
    ("barely.mp4", "media", "truncated|cannot be decoded"),
    ("cut_video.mp4", "media", "truncated|damaged"),
    ("damaged.mp4", "media", "the video is damaged"),
    ("nan.wav", "media", "NaN or infinite"),
    ("inf.wav", "media", "NaN or infinite"),
    ("half.wav", "media", "truncated: the wav header"),
    ("cut.ogg", "media", "truncated: the ogg"),
    ("zero.mp4", "media", "zero bytes"),
    ("nomoov.mp4", "media", "cannot be opened"),
    ("garbage.mp4", "media", "cannot be opened"),
    ("sound.m4a", "video", "holds no video"),
    ("silent.mp4", "audio", "holds no audio"),
    ("short.wav", "media", "too short"),
    ("missing.mp4", "media", "no such file"),
]

_H264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1"]

#: Name of a file, and how FFmpeg makes it of a moving pattern and a sine.
_GOOD = {
    "rotated.mp4": [],
    "odd.mkv": ["-vf", "scale=95:63", "-c:v", "ffv1", "-c:a", "flac"],
    "yuv444.mp4": ["-c:v", "libx264", "-pix_fmt", "yuv444p", "-threads", "1", "-c:a", "aac"],
    "vp9.webm": ["-c:v", "libvpx-vp9", "-threads", "1", "-speed", "8", "-c:a", "libopus"],
    "hevc10.mp4": ["-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none:pools=1", "-an"],
    "frame.mp4": ["-vf", "fps=5", "-frames:v", "1", *_H264, "-an"],
    "matroska.mkv": [*_H264, "-c:a", "aac"],
}


@pytest.fixture(scope="module")
def source(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bad files of `media`, by links, and good ones of unusual kinds."""
    folder = tmp_path_factory.mktemp("failures")
    for file in media.iterdir():
        (folder / file.name).symlink_to(file)
    samples = np.cos(2 * np.pi * 440 * np.arange(RATE) / RATE).astype("<f4")
    samples[99] = np.inf
    ffmpeg_float(folder / "inf.wav", samples)
    inputs = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=12:d=1", "-f", "lavfi", "-i", "sine=440:r=16000:d=1"]
    encoders = subprocess.run(["ffmpeg", "-v", "quiet", "-encoders"], capture_output=True, text=True, check=True).stdout
    for name, options in _GOOD.items():
        codecs = [codec for codec in options if codec.startswith("lib")]
        if options and all(codec in encoders for codec in codecs):
            ffmpeg(*inputs, *options, str(folder / name))
    plain = folder / "plain.mp4"
    ffmpeg(*inputs, *_H264, "-c:a", "aac", str(plain))
    ffmpeg("-i", str(plain), "-c", "copy", "-metadata:s:v:0", "rotate=90", str(folder / "rotated.mp4"))
    return folder


def ffmpeg_float(path: Path, samples: np.ndarray) -> None:
    raw = path.with_suffix(".raw")
    raw.write_bytes(samples.tobytes())
    ffmpeg("-f", "f32le", "-ar", str(RATE), "-ac", "1", "-i", str(raw), "-c:a", "pcm_f32le", str(path))


@pytest.fixture(scope="module")
def outcome(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], dict[str, Clip]]:
    """All of them prepared at once: the folder, reasons by id, clips by id."""
    out = tmp_path_factory.mktemp("prepared") / "data"
    records: list[dict[str, Any]] = [{"id": f"{role}:{file}", role: file} for file, role, _ in _BAD]
    records += [{"id": name, "media": name} for name in (*_GOOD, "vfr.mp4", "late.mp4") if (source / name).exists()]
    # Spans of bad files, which are cut out and not only checked.
    records += [{"id": f"span:{file}", "media": file, "start": 0.1, "duration": 1.5} for file, _, _ in _BAD[:8]]
    write_records(out.parent / "clips.jsonl", records)
    report = prepare(source, out, str(out.parent / "clips.jsonl"), workers=0, progress=False)
    reasons = {str(reject.id): reject.reason for reject in report.rejects}
    return out, reasons, {clip.id: clip for clip in open_manifest(out, "train")}


Outcome = tuple[Path, dict[str, str], dict[str, Clip]]


@pytest.mark.parametrize(("file", "role", "reason"), _BAD)
def test_bad_files_are_rejected_with_the_reason(outcome: Outcome, file: str, role: str, reason: str) -> None:
    _, reasons, clips = outcome
    assert f"{role}:{file}" not in clips
    assert any(part in reasons[f"{role}:{file}"] for part in reason.split("|")), reasons[f"{role}:{file}"]


@pytest.mark.parametrize("file", [file for file, _, _ in _BAD[:8]])
def test_spans_of_bad_files_are_rejected(outcome: Outcome, file: str) -> None:
    _, reasons, clips = outcome
    assert f"span:{file}" in reasons and f"span:{file}" not in clips


def test_only_what_is_not_there_counts_as_missing(outcome: Outcome) -> None:
    lines = [json.loads(line) for line in (outcome[0] / "rejects.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines if line["missing"]] == ["media:missing.mp4"]


@pytest.mark.parametrize("name", _GOOD)
def test_unusual_files_are_packed(outcome: Outcome, source: Path, name: str) -> None:
    out, reasons, clips = outcome
    assert name in clips, reasons.get(name)
    clip = clips[name]
    data = ShardReader(out / "shards" / "train").read(clip.row, name).media
    assert data == (source / name).read_bytes()
    frames, _ = load_frames(data, 4, size=(48, 48), duration=clip.duration, origin=clip.origin("video"))
    assert frames.shape == (4, 3, 48, 48) and frames.float().std() > 20
    if clip.has_audio:
        samples = load_audio(data, RATE, 0.0, clip.duration, origin=clip.origin("audio"))
        assert samples[2000:14000].abs().max() > 0.05
    assert clip.video is not None
    size = {"rotated.mp4": [96, 64], "odd.mkv": [63, 95]}.get(name, [64, 96])
    assert clip.video["size"] == size and clip.video["num_frames"] == (1 if name == "frame.mp4" else 12)


def test_a_rotated_picture_is_turned(outcome: Outcome, source: Path) -> None:
    plain, _ = load_frames(source / "plain.mp4", 2)
    turned, _ = load_frames(source / "rotated.mp4", 2)
    options = [torch.rot90(plain.float(), k, (2, 3)) for k in (1, 3)]
    assert min((turned - option).abs().mean() for option in options) < 3


def test_variable_frame_rates_are_seeked_exactly(outcome: Outcome) -> None:
    out, _, clips = outcome
    clip = clips["vfr.mp4"]
    data = ShardReader(out / "shards" / "train").read(clip.row).media
    # Frames at 0, 0.1, 0.2, 0.3, 1.0 and 1.5 s; the centres of five parts of 2 s are 0.2, 0.6, 1.0, 1.4 and 1.8.
    frames, _ = load_frames(data, 5, duration=2.0, origin=clip.origin("video"))
    levels = frames.float().mean((1, 2, 3))
    assert torch.argsort(levels, stable=True).tolist() == [0, 1, 2, 3, 4]
    assert levels[0] < levels[1] < levels[2] == levels[3] < levels[4]


def test_late_sound_is_aligned(outcome: Outcome) -> None:
    out, _, clips = outcome
    clip = clips["late.mp4"]
    data = ShardReader(out / "shards" / "train").read(clip.row).media
    samples = load_audio(data, RATE, 0.0, clip.duration, origin=clip.origin("audio"))
    assert abs(int((samples.abs() > 0.01).nonzero()[0]) - 0.68 * RATE) <= 2
    assert not samples[int(1.75 * RATE) :].any()


def test_a_path_out_of_the_folder_is_rejected_and_links_are_followed(media: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to(media)
    records = [
        {"id": "link", "audio": "link/mono.wav"},
        {"id": "up", "audio": "../mono.wav"},
        {"id": "absolute", "audio": str(media / "mono.wav")},
        {"id": "sideways", "audio": "link/../../mono.wav"},
    ]
    write_records(tmp_path / "source" / "clips.jsonl", records)
    report = prepare(tmp_path / "source", tmp_path / "out", workers=0, progress=False)
    assert report.clips == {"train": 1} and [reject.id for reject in report.rejects] == ["up", "absolute", "sideways"]
    assert all("inside the source folder" in reject.reason for reject in report.rejects)


def test_strict_stops_with_the_line(source: Path, tmp_path: Path) -> None:
    write_records(tmp_path / "clips.jsonl", [{"id": "a", "audio": "mono.wav"}, {"id": "b", "audio": "inf.wav"}])
    with pytest.raises(PrepareError, match=r"line 2, inf\.wav"):
        prepare(source, tmp_path / "out", str(tmp_path / "clips.jsonl"), 0, strict=True, progress=False)


def test_settings_that_cannot_be_are_refused_at_the_door(media: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any]
    for arguments in ({"chunk_seconds": -1.0}, {"min_seconds": -1.0}, {"chunk_captions": "both"}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            prepare(media, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
