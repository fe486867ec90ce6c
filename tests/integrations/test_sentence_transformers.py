"""A model of peav's in the hands of the real sentence-transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torchcodec.decoders import AudioDecoder, VideoDecoder

from peav.evaluation.adapters import find_adapter
from peav.integrations.sentence_transformers import as_sentence_transformer
from peav.model import PEAV
from tests.cli.test_commands import ROOT
from tests.inputs.helpers import RATE, make_model, noise, wide_wav

TEXTS = ["a dog barks", "rain falls on a roof", "a bell"]


@pytest.fixture(scope="module")
def model() -> PEAV:
    return make_model()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("media")
    wide_wav(folder / "stereo.wav", noise(1.0, rate=44100, channels=2), 44100)
    source = ["-f", "lavfi", "-i", "testsrc2=size=48x48:rate=10:duration=1", "-f", "lavfi", "-i", "sine=440:duration=1"]
    command = ["ffmpeg", "-v", "error", *source, "-pix_fmt", "yuv420p", "-shortest", str(folder / "clip.mp4")]
    subprocess.run(command, check=True)
    return {"wav": folder / "stereo.wav", "mp4": folder / "clip.mp4"}


def close(found: Any, expected: torch.Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(found), expected, rtol=0, atol=1e-5)


def test_texts_go_through_the_head_that_is_asked_for(model: PEAV) -> None:
    wrapped = as_sentence_transformer(model, to="video")
    close(wrapped.encode(TEXTS), model.embed(text=TEXTS, to="video")["text_video"])
    for kind in ("audio", "audio_video"):
        close(wrapped.encode(TEXTS, to=kind, batch_size=2), model.embed(text=TEXTS, to=kind)[f"text_{kind}"])
    assert wrapped.encode(TEXTS[0]).shape == (wrapped.get_embedding_dimension(),) == (8,)
    with pytest.raises(ValueError, match="no head for texts about 'smell'; it has audio, video, audio_video"):
        as_sentence_transformer(model, to="smell")


def test_media_are_embedded_as_by_embed_however_they_are_given(model: PEAV, media: dict[str, Path]) -> None:
    wrapped = as_sentence_transformer(model)
    wav, mp4 = str(media["wav"]), str(media["mp4"])
    expected = model.embed(audio=wav)["audio"][0]
    array = AudioDecoder(wav).get_all_samples().data.numpy()
    given = [{"audio": wav}, {"audio": {"array": array, "sampling_rate": 44100}}, {"audio": AudioDecoder(wav)}]
    for row in wrapped.encode(given):
        close(row, expected)
    frames = VideoDecoder(mp4).get_frames_in_range(0, 10).data
    rows = wrapped.encode([{"video": mp4}, {"video": VideoDecoder(mp4)}, {"video": frames}])
    for row in rows:
        close(row, model.embed(video=mp4)["video"][0])
    both = wrapped.encode([{"video": mp4, "audio": mp4}])
    close(both, model.embed(audio=mp4, video=mp4)["audio_video"])
    query = wrapped.encode([{"audio": wav, "text": TEXTS[0]}])
    close(query, model.embed(audio=wav, text=TEXTS[0])["audio_plus_text"])


@pytest.mark.parametrize(
    "settings",
    [
        {"sampling": "time"},
        {"sampling": "index"},
        {"num_frames": None, "fps": 4.0},
        {"num_frames": None, "fps": 4.0, "sampling": "time"},
        {"num_frames": None},
    ],
)
def test_the_frames_of_a_decoder_are_those_of_its_file(settings: dict[str, Any], media: dict[str, Path]) -> None:
    other, mp4 = make_model(media=settings), str(media["mp4"])
    (found,) = as_sentence_transformer(other).encode([{"video": VideoDecoder(mp4)}])
    close(found, other.embed(video=mp4)["video"][0])


def test_a_long_video_wants_its_path(media: dict[str, Path]) -> None:
    other, mp4 = make_model(media={"window_seconds": 0.5}), str(media["mp4"])
    wrapped = as_sentence_transformer(other)
    close(wrapped.encode([{"video": mp4}])[0], other.embed(video=mp4)["video"][0])
    with pytest.raises(ValueError, match=r"a decoder's video of 1.0 s is longer than the 0.5 s .* give the path"):
        wrapped.encode([{"video": VideoDecoder(mp4)}])


def test_sounds_of_several_rates_are_one_batch(model: PEAV) -> None:
    sounds = [noise(1.0, seed, rate) for seed, rate in enumerate((RATE, 44100, RATE))]
    given = [{"audio": {"array": s, "sampling_rate": r}} for s, r in zip(sounds, (RATE, 44100, RATE), strict=True)]
    found = as_sentence_transformer(model).encode(given)
    for row, sound, rate in zip(found, sounds, (RATE, 44100, RATE), strict=True):
        close(row, model.embed(audio=sound, sample_rate=rate)["audio"][0])


def test_similarity_is_the_dot_product(model: PEAV, media: dict[str, Path]) -> None:
    wrapped = as_sentence_transformer(model)
    texts, sounds = wrapped.encode(TEXTS), wrapped.encode([{"audio": str(media["wav"])}])
    close(wrapped.similarity(texts, sounds), torch.from_numpy(texts @ sounds.T))
    assert isinstance(texts, np.ndarray) and texts.dtype == np.float32


def test_what_it_saves_is_opened_by_it_and_by_peav_in_a_fresh_process(model: PEAV, tmp_path: Path) -> None:
    wrapped = as_sentence_transformer(model, to="video")
    wrapped.save(str(tmp_path / "model"))
    np.save(tmp_path / "expected.npy", wrapped.encode(TEXTS))
    assert find_adapter(str(tmp_path / "model")) is None  # peav's own format comes first
    code = (
        "import numpy as np; from sentence_transformers import SentenceTransformer; from peav import PEAV\n"
        # The module is peav's, not sentence-transformers': its users say that they trust it.
        "model = SentenceTransformer('model', device='cpu', trust_remote_code=True)\n"
        f"texts = {TEXTS!r}; expected = np.load('expected.npy')\n"
        "assert np.abs(model.encode(texts) - expected).max() < 1e-6 and model.similarity_fn_name == 'dot'\n"
        "own = PEAV.from_pretrained('model').embed(text=texts, to='video')['text_video'].numpy()\n"
        "assert np.abs(own - expected).max() < 1e-6; print('the same')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert done.stdout.strip() == "the same", done.stderr
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(tmp_path / "model"), device="cpu")


def test_a_model_of_sound_alone_says_what_it_takes(media: dict[str, Path]) -> None:
    wrapped = as_sentence_transformer(make_model(["audio", "text_audio"]))
    assert wrapped.modalities == ["text", "audio"]
    with pytest.raises(ValueError, match="video"):
        wrapped.encode([{"video": str(media["mp4"])}])
