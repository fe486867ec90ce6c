import json
import subprocess
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peav.data import PrepareReport, prepare

RATE = 16000

#: A sine that begins at full volume, and a pattern that moves.
_SINE = "aevalsrc=0.5*cos(2*PI*440*t):s=16000:d={seconds}"
_PATTERN = "testsrc2=s=96x96:r=12:d={seconds}"


def ffmpeg(*arguments: str) -> None:
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *arguments], check=True)


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def write_float_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    data = samples.astype("<f4").tobytes()
    head = b"WAVEfmt " + np.array([16], "<u4").tobytes() + np.array([3, 1], "<u2").tobytes()
    head += np.array([rate, rate * 4], "<u4").tobytes() + np.array([4, 32], "<u2").tobytes()
    head += b"data" + np.array([len(data)], "<u4").tobytes() + data
    path.write_bytes(b"RIFF" + np.array([len(head)], "<u4").tobytes() + head)


def cut_bytes(source: Path, target: Path, share: float) -> None:
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])


def write_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small files, good and bad."""
    root = tmp_path_factory.mktemp("media")
    video = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1", "-g", "12"]
    pattern, sine = _PATTERN.format(seconds=2), _SINE.format(seconds=2)
    both = ["-f", "lavfi", "-i", pattern, "-f", "lavfi", "-i", sine]
    ffmpeg(*both, *video, "-c:a", "aac", "-movflags", "+faststart", str(root / "good.mp4"))
    ffmpeg("-f", "lavfi", "-i", pattern, *video, str(root / "silent.mp4"))
    ffmpeg("-f", "lavfi", "-i", sine, "-c:a", "aac", str(root / "sound.m4a"))
    ffmpeg("-f", "lavfi", "-i", "anoisesrc=d=5:r=16000:a=0.5", str(root / "sound.ogg"))
    late = ["-f", "lavfi", "-i", pattern, "-itsoffset", "0.68", "-f", "lavfi", "-i", _SINE.format(seconds=1)]
    ffmpeg(*late, *video, "-c:a", "alac", str(root / "late.mp4"))
    # Frames of brightness 0, 40, 80, ... at 0, 0.1, 0.2, 0.3, 1.0 and 1.5 s, the last for 0.5 s.
    times = "if(lt(N,4),N*0.1,if(eq(N,4),1,1.5))"
    gray = f"color=black:s=64x64:r=10:d=0.6,format=gray,geq=lum='20+40*N',setpts='({times})/TB',settb=1/1000"
    ffmpeg("-f", "lavfi", "-i", gray, "-fps_mode", "passthrough", *video, "-qp", "0", str(root / "vfr.mp4"))
    t = np.arange(2 * RATE) / RATE
    write_wav(root / "mono.wav", 0.5 * np.cos(2 * np.pi * 440 * t))
    write_wav(root / "stereo.wav", np.stack([0.5 * np.cos(2 * np.pi * 440 * t), 0.25 * np.sin(2 * np.pi * 300 * t)], 1))
    write_wav(root / "short.wav", 0.5 * np.ones(RATE // 50))
    cut_bytes(root / "mono.wav", root / "half.wav", 0.5)
    cut_bytes(root / "sound.ogg", root / "cut.ogg", 0.6)
    nan = np.cos(2 * np.pi * 440 * t)
    nan[5000] = np.nan
    write_float_wav(root / "nan.wav", nan)
    write_float_wav(root / "float.wav", np.cos(2 * np.pi * 440 * t))
    cut_bytes(root / "good.mp4", root / "cut60.mp4", 0.6)
    cut_bytes(root / "good.mp4", root / "cut5.mp4", 0.05)
    good = (root / "good.mp4").read_bytes()
    (root / "barely.mp4").write_bytes(good[: good.index(b"mdat") + 4000])
    cut_bytes(root / "silent.mp4", root / "nomoov.mp4", 0.6)
    # A video whose index is whole but whose frames end early: the one that FFmpeg reads without a word.
    ffmpeg("-i", str(root / "silent.mp4"), "-c", "copy", "-movflags", "+faststart", str(root / "front.mp4"))
    cut_bytes(root / "front.mp4", root / "cut_video.mp4", 0.6)
    (root / "zero.mp4").write_bytes(b"")
    (root / "garbage.mp4").write_bytes(bytes(range(256)) * 40)
    damaged = bytearray((root / "silent.mp4").read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 200] = bytes((7 * i + 13) % 256 for i in range(200))
    (root / "damaged.mp4").write_bytes(damaged)
    return root


@pytest.fixture(scope="session")
def prepared(media: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrepareReport]:
    """Eleven training clips and three of validation, of every kind."""
    out = tmp_path_factory.mktemp("prepared") / "data"
    captions = {"audio": ["A tone.", "a sine tone", "a steady beep"], "video": "a test pattern"}
    events = [{"phrase": "Beep", "onset": 0.5, "offset": 1.0}, {"phrase": "beep.", "onset": 1.2, "offset": 2.03}]
    records: list[dict[str, Any]] = [
        {
            "id": "both",
            "media": "good.mp4",
            "captions": captions,
            "events": events,
            "domain": "tones",
            "transcript": "la la",
        },
        {"id": "silent", "media": "silent.mp4", "captions": {"video": "colours"}, "events": []},
        {"id": "sound", "media": "sound.m4a", "captions": {"audio": "a tone"}},
        {"id": "pair", "audio": "mono.wav", "video": "silent.mp4", "captions": {"audio_video": "a tone and a pattern"}},
        {
            "id": "span",
            "media": "good.mp4",
            "start": 0.5,
            "duration": 1.0,
            "events": [{"phrase": "tone", "onset": 0, "offset": 1}],
        },
        {"id": "late", "media": "late.mp4"},
    ]
    records += [{"id": f"more-{i}", "media": "good.mp4", "start": 0.1 * i, "duration": 0.5} for i in range(5)]
    records += [{"id": f"val-{i}", "media": "good.mp4", "captions": captions, "split": "validation"} for i in range(3)]
    listing = tmp_path_factory.mktemp("listing") / "clips.jsonl"
    write_records(listing, records)
    return out, prepare(media, out, captions=str(listing), workers=0, progress=False)


class CountingTokenizer:
    """A letter a token."""

    def __call__(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        length = max((len(text) for text in texts), default=1)
        ids = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor([ord(letter) for letter in text])
        return ids, ids > 0


@pytest.fixture(scope="session")
def tokenize() -> Callable[[Sequence[str]], tuple[torch.Tensor, torch.Tensor]]:
    return CountingTokenizer()
