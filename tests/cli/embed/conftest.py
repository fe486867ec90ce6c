"""Two small models and a folder of media."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peav.checkpoints import MediaSettings
from peav.model import PEAV
from tests.cli.embed.helpers import RATE, TEXTS, noise
from tests.data.conftest import ffmpeg, write_wav
from tests.helpers import SMALL_ENCODERS


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    names = {
        "audio": "DacAudioEncoder",
        "video": "PEVideoEncoder",
        "audio_video": "FusionEncoder",
        "text": "TextEncoder",
        "plus_text": "PlusTextEncoder",
    }
    media = MediaSettings(sample_rate=RATE, frame_size=32, num_frames=3, window_seconds=2.0)
    model = PEAV({name: SMALL_ENCODERS[kind]() for name, kind in names.items()}, embedding_dim=8, media=media)
    return model.save_pretrained(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="session")
def framewise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    encoders = {"audio": SMALL_ENCODERS["DacAudioEncoder"](), "text": SMALL_ENCODERS["TextEncoder"]()}
    media = MediaSettings(sample_rate=RATE, frame_size=32)
    model = PEAV(encoders, ["text_event"], 8, frames=["audio"], pairs=[("audio", "text_event")], media=media)
    return model.save_pretrained(tmp_path_factory.mktemp("model") / "frames")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six media and two bad ones, in two depths, with a file beside them that is none."""
    root = tmp_path_factory.mktemp("media")
    (root / "deep/er").mkdir(parents=True)
    pattern = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=1.5"]
    tone = ["-f", "lavfi", "-i", "anoisesrc=d=1.5:r=16000:a=0.5:s=1"]
    ffmpeg(*pattern, *tone, "-c:v", "libx264", "-threads", "1", "-c:a", "aac", str(root / "both.MP4"))
    ffmpeg(*pattern, "-c:v", "libx264", "-threads", "1", str(root / "deep/silent.mp4"))
    for index, seconds in enumerate((0.7, 5.0, 1.1, 1.3)):
        write_wav(root / f"deep/er/{index}.wav", noise(seconds, index))
    (root / "bad.mp4").write_bytes((root / "both.MP4").read_bytes()[:2000])
    (root / "bad.wav").write_text("not a sound")
    (root / "notes.txt").write_text("\n".join([TEXTS[0], "", f"  {TEXTS[1]} "]))
    return root
