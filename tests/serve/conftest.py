"""An index of media of many kinds, and a server for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from peav.checkpoints import MediaSettings
from peav.cli.main import main
from peav.model import PEAV
from tests.cli.embed.conftest import checkpoint
from tests.cli.embed.helpers import RATE, noise
from tests.data.conftest import ffmpeg, write_wav
from tests.helpers import SMALL_ENCODERS
from tests.serve.serving import Served, served_apart

__all__ = ["checkpoint"]

#: A name and a caption that would run, were they taken for HTML.
HOSTILE = "<img src=x onerror=alert(1)>.wav"
CAPTION = "</p><script>document.title='taken over'</script>"


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Media that browsers play and media that they do not; `clip.mp4` is black for its first second."""
    root = tmp_path_factory.mktemp("served") / "media"
    root.mkdir()
    picture = ["-f", "lavfi", "-i", "testsrc2=s=128x96:r=10:d=6,fade=in:st=0.9:d=0.2"]
    sound = ["-f", "lavfi", "-i", "sine=f=500:d=6:r=16000"]
    x264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "10", "-threads", "1"]
    ffmpeg(*picture, *sound, *x264, "-c:a", "aac", "-movflags", "+faststart", str(root / "clip.mp4"))
    ffmpeg(*picture, *sound, *x264, "-c:a", "alac", str(root / "alac.mp4"))
    ffmpeg(*picture, *sound, "-c:v", "mpeg4", "-c:a", "mp3", "-threads", "1", str(root / "film.avi"))
    write_wav(root / "tone.wav", 0.3 * np.sin(np.arange(5 * 16000) * 0.2))
    write_wav(root / HOSTILE, noise(1.0, 3))
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=200x100:d=1", "-frames:v", "1", str(root / "still.png"))
    record = {"id": "h", "media": HOSTILE, "captions": {"audio": CAPTION}, "domain": "<b>bold</b>"}
    (root / "clips.jsonl").write_text(json.dumps(record))
    return root


def build_index(path: Path, media: Path, checkpoint: Path) -> Path:
    words = ["index", "update", str(path), str(media), f"--model={checkpoint}", "--workers=0"]
    assert main([*words, "--window_seconds=2.0", "--overlap_seconds=0.5"]) == 0
    return path


@pytest.fixture(scope="session")
def index(checkpoint: Path, media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_index(tmp_path_factory.mktemp("served-index") / "index", media, checkpoint)


@pytest.fixture(scope="session")
def server(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served_apart(index, f"--cache={tmp_path_factory.mktemp('cache')}", "--upload_mb=5") as running:
        yield running


@pytest.fixture
def own(checkpoint: Path, media: Path, tmp_path: Path) -> Path:
    """Media and an index of one's own, to change: `media` and `index` in a folder."""
    (tmp_path / "media").mkdir()
    for name in ("clip.mp4", "tone.wav"):
        shutil.copyfile(media / name, tmp_path / "media" / name)
    build_index(tmp_path / "index", tmp_path / "media", checkpoint)
    return tmp_path


@pytest.fixture
def framewise_index(media: Path, tmp_path: Path) -> tuple[Path, Path]:
    """An index of one sound by a model that has frames, and the sound."""
    torch.manual_seed(2)
    encoders = {"audio": SMALL_ENCODERS["DacAudioEncoder"](), "text": SMALL_ENCODERS["TextEncoder"]()}
    settings = MediaSettings(sample_rate=RATE, frame_size=32)
    names = ["audio", "text_audio", "text_event"]
    pairs = [("audio", "text_audio"), ("audio", "text_event")]
    model = PEAV(encoders, names, 8, frames=["audio"], pairs=pairs, media=settings)
    (tmp_path / "sounds").mkdir()
    sound = shutil.copyfile(media / "tone.wav", tmp_path / "sounds/tone.wav")
    folder = model.save_pretrained(tmp_path / "framewise")
    return build_index(tmp_path / "framewise_index", tmp_path / "sounds", folder), sound
