"""What cannot be embedded is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peav.data.media.probing import MediaError
from peav.encoders import TextEncoder
from peav.model import PEAV
from tests.helpers import SMALL_ENCODERS
from tests.inputs.helpers import RATE, make_model


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
        model.detect(clips / "mono.wav", "a bell")
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
