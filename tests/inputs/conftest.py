"""Small models and small files, good and bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from peav.model import PEAV
from tests.data.conftest import ffmpeg, write_float_wav, write_wav
from tests.inputs.helpers import make_model, noise


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
