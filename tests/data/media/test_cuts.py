"""Cuts of files whose codecs need what lies before: they hold what a decode of the whole file shows there."""

import json
from pathlib import Path

import pytest
import torch

from peav.data import load_audio, load_frames, open_manifest, prepare
from peav.data.media.normalize import Normalize
from peav.data.readers import Folder
from peav.data.stores.reader import ShardReader
from tests.data.conftest import ffmpeg

RATE = 48000
SECONDS = 7.0

#: A sweep and a pattern, so that every instant differs from every other.
_SWEEP = f"aevalsrc=0.4*sin(2*PI*(200+150*t)*t):s=48000:d={SECONDS}"
_PATTERN = f"testsrc=s=96x64:r=25:d={SECONDS}"
_H264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1"]

FILES = {
    "mp3.mp3": ["-vn", "-c:a", "libmp3lame", "-b:a", "192k"],
    "opus.opus": ["-vn", "-c:a", "libopus", "-b:a", "192k"],
    "aac.m4a": ["-vn", "-c:a", "aac", "-b:a", "192k"],
    "open.mp4": [*_H264, "-x264-params", "open-gop=1:keyint=20", "-c:a", "aac", "-b:a", "192k"],
    "endless.ts": [*_H264, "-g", "1000", "-c:a", "aac", "-b:a", "192k"],
    "program.mpg": ["-c:v", "mpeg2video", "-bf", "2", "-g", "12", "-q:v", "3", "-c:a", "mp2", "-b:a", "256k"],
    "card.mts": [*_H264, "-g", "50", "-bf", "2", "-c:a", "ac3", "-b:a", "256k", "-mpegts_m2ts_mode", "1"],
    "opus.webm": ["-c:v", "libvpx", "-g", "30", "-deadline", "realtime", "-c:a", "libopus", "-b:a", "192k"],
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cuts") / "source"
    root.mkdir()
    for name, codecs in FILES.items():
        ffmpeg("-f", "lavfi", "-i", _SWEEP, "-f", "lavfi", "-i", _PATTERN, *codecs, str(root / name))
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """All pictures of the pattern, without loss."""
    path = tmp_path_factory.mktemp("pictures") / "all.mp4"
    ffmpeg("-f", "lavfi", "-i", _PATTERN, *_H264, "-qp", "0", str(path))
    return load_frames(path, round(25 * SECONDS), size=(64, 64))[0]


def nearest(frames: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """Returns the number of the picture that each frame shows."""
    return torch.cdist(frames.flatten(1).float(), pictures.flatten(1).float(), p=1).argmin(1)


def apart(want: torch.Tensor, got: torch.Tensor, most: int) -> float:
    """Returns how far two sounds differ, apart from a shift by at most so many samples and from the end, where a cut knows less."""
    inner = slice(most, len(want) - RATE // 20)
    return min(float((want[inner] - got.roll(shift)[inner]).abs().max()) for shift in range(-most, most + 1))


@pytest.mark.parametrize("seconds", [2.0, 0.0], ids=["cut", "whole"])
@pytest.mark.parametrize("normalize", [None, Normalize(video_size=64, video_fps=25.0)], ids=["kept", "normalised"])
def test_cuts_hold_what_the_whole_file_has_there(
    source: Path, pictures: torch.Tensor, tmp_path: Path, normalize: Normalize | None, seconds: float
) -> None:
    out = tmp_path / "out"
    report = prepare(
        source, out, reader=Folder(), chunk_seconds=seconds, workers=0, progress=False, normalize=normalize
    )
    assert report.rejected == 0 and report.clips == {"train": (4 if seconds else 1) * len(FILES)}
    assert not (out / "scratch").exists()
    reader = ShardReader(out / "shards" / "train")
    for clip in open_manifest(out, "train"):
        sample, file = reader.read(clip.row), source / clip.files["media"]
        assert clip.has_video == (file.suffix in (".mp4", ".ts", ".mpg", ".mts", ".webm")) and clip.has_audio
        want = load_audio(file, RATE, clip.start, clip.duration)
        got = load_audio(sample.source("audio"), RATE, 0.0, clip.duration, origin=clip.origin("audio"))
        assert apart(want, got, RATE // 1000 if file.suffix == ".webm" else 0) < 0.02, clip.id
        if clip.has_video:
            size = (64, 64)
            want_frames, _ = load_frames(file, 10, start=clip.start, duration=clip.duration, size=size)
            origin = clip.origin("video")
            got_frames, _ = load_frames(sample.source("video"), 10, duration=clip.duration, size=size, origin=origin)
            # Which of the pictures it is, by the nearest: where a picture begins between two of 25 a second, it may be either.
            want_numbers, got_numbers = nearest(want_frames, pictures), nearest(got_frames, pictures)
            assert int((want_numbers - got_numbers).abs().max()) <= 1, clip.id
            assert float((want_numbers - got_numbers).abs().float().mean()) <= 0.5, clip.id


def test_a_damaged_file_is_no_open_group_of_pictures(source: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "source"
    damaged.mkdir()
    data = bytearray((source / "open.mp4").read_bytes())
    for place in range(len(data) // 2, len(data) // 2 + 4000, 40):
        data[place] ^= 0x5A
    (damaged / "open.mp4").write_bytes(data)
    for normalize in (None, Normalize(video_size=64)):
        report = prepare(
            damaged,
            tmp_path / f"out-{normalize is None}",
            reader=Folder(),
            chunk_seconds=2.0,
            workers=0,
            progress=False,
            normalize=normalize,
        )
        assert report.rejected >= 1


@pytest.mark.parametrize("more", [[], ["-an"]], ids=["sound", "silent"])
def test_a_trimmed_copy_with_an_edit_list_is_whole(pictures: torch.Tensor, tmp_path: Path, more: list[str]) -> None:
    """Its header counts the pictures before the edit list's start, which nobody sees."""
    made, root = tmp_path / "made.mp4", tmp_path / "source"
    root.mkdir()
    ffmpeg("-f", "lavfi", "-i", _SWEEP, "-f", "lavfi", "-i", _PATTERN, *_H264, "-g", "50", "-c:a", "aac", str(made))
    ffmpeg("-ss", "1.33", "-i", str(made), "-t", "3", "-c", "copy", *more, str(root / "trim.mp4"))
    for normalize in (None, Normalize(video_size=64, video_fps=25.0)):
        out = tmp_path / f"out-{normalize is None}"
        report = prepare(root, out, reader=Folder(), workers=0, progress=False, normalize=normalize)
        assert report.rejected == 0
        (clip,) = open_manifest(out, "train")
        assert clip.duration == pytest.approx(3.0, abs=0.2)
        frames, _ = load_frames(ShardReader(out / "shards/train").read(0).source("video"), 6, size=(64, 64))
        want, _ = load_frames(made, 6, start=1.33, duration=clip.duration, size=(64, 64))
        # The trim begins at the next picture.
        assert int((nearest(frames, pictures) - nearest(want, pictures)).abs().max()) <= 1
        direct, _ = load_frames(root / "trim.mp4", 6, size=(64, 64))
        assert int((nearest(direct, pictures) - nearest(frames, pictures)).abs().max()) <= 1


def test_the_tail_of_a_codec_is_no_sound(tmp_path: Path) -> None:
    root = tmp_path / "source"
    root.mkdir()
    sine = "sine=f=440:d=2"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=64x64:r=25:d=5",
        "-f",
        "lavfi",
        "-i",
        sine,
        *_H264,
        "-c:a",
        "aac",
        str(root / "a.mp4"),
    )
    prepare(root, tmp_path / "out", reader=Folder(), chunk_seconds=2.0, workers=0, progress=False)
    clips = list(open_manifest(tmp_path / "out", "train"))
    assert [clip.has_audio for clip in clips] == [True, False, False] and all(clip.has_video for clip in clips)


def test_rejects_are_the_same_in_every_run(source: Path, tmp_path: Path) -> None:
    """FFmpeg puts an address into what it says."""
    damaged = tmp_path / "source"
    damaged.mkdir()
    data = bytearray((source / "open.mp4").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    (damaged / "open.mp4").write_bytes(data)
    texts = []
    for run in ("a", "b"):
        with pytest.raises(Exception, match="none of the 1 clips"):
            prepare(damaged, tmp_path / run, reader=Folder(), chunk_seconds=0, workers=0, progress=False)
        texts.append((tmp_path / run / "rejects.jsonl").read_text())
    assert texts[0] == texts[1] and "0x" not in json.loads(texts[0].splitlines()[0])["reason"]
