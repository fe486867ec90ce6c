"""What a clip sounds and looks like is what Meta's processor makes of it (../shared/reference: downmix, reflection, frames by index)."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchcodec.decoders import AudioDecoder, VideoDecoder

from peav.data import ClipDataset, PrepareError, load_audio, load_frames, prepare, probe
from peav.encoders.dac import reflect_to_hop
from tests.data.conftest import ffmpeg, write_records, write_wav

HOP = 1920


def stereo(samples: int) -> np.ndarray:
    time = np.arange(samples) / 48000
    return np.stack([0.5 * np.cos(2 * np.pi * 441 * time), 0.3 * np.sin(2 * np.pi * 997 * time + 1)], 1)


@pytest.mark.parametrize("samples", [1, 48, 960, 1919, 1920, 1921, 48000])
def test_audio_of_any_length_is_metas(tmp_path: Path, samples: int) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, stereo(samples), 48000)
    meta = AudioDecoder(path, sample_rate=48000, num_channels=1).get_all_samples().data[0]
    ours = load_audio(path, 48000)
    assert torch.equal(ours, meta) and len(ours) == samples
    left, right = AudioDecoder(path).get_all_samples().data
    assert torch.allclose(ours, (left + right) / 2**0.5, atol=2e-6)
    assert torch.allclose(load_audio(path, 48000, downmix="mean"), (left + right) / 2, atol=1e-7)


def test_audio_of_no_length_is_empty_and_is_not_packed(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", stereo(0), 48000)
    assert load_audio(tmp_path / "a.wav", 48000).shape == (0,)
    write_records(tmp_path / "clips.jsonl", [{"id": "a", "audio": "a.wav"}])
    with pytest.raises(PrepareError, match="none of the 1 clips"):
        prepare(tmp_path, tmp_path / "out", workers=0, min_seconds=0.0, progress=False)


@pytest.mark.parametrize("samples", [1, 48, 960, 961, 1919, 1920, 1921, 5000])
def test_the_end_is_reflected_as_the_processor_does(samples: int) -> None:
    wave = torch.from_numpy(stereo(samples)[:, 0]).float()
    padded = torch.zeros(1, samples + 777)
    padded[0, :samples] = wave
    ours = reflect_to_hop(padded, torch.tensor([samples]), HOP)[0]
    missing = -samples % HOP
    if missing < samples:  # the processor's own rule, which raises beyond
        want = F.pad(wave[None], (0, missing), "reflect")[0]
    else:  # reflected back and forth
        want = torch.from_numpy(np.pad(wave.numpy(), (0, missing), "reflect"))
    assert torch.equal(ours[: samples + missing], want)


def test_packed_clips_sound_as_their_files(tmp_path: Path) -> None:
    lengths = [48, 960, 1919, 1920, 1921, 4800]
    for samples in lengths:
        write_wav(tmp_path / f"{samples}.wav", stereo(samples), 48000)
    write_records(tmp_path / "clips.jsonl", [{"id": str(n), "audio": f"{n}.wav"} for n in lengths])
    prepare(tmp_path, tmp_path / "out", workers=0, min_seconds=0.0, progress=False)
    dataset = ClipDataset(tmp_path / "out", "train", fields=["audio"], sample_rate=48000)
    for row, samples in enumerate(lengths):
        meta = AudioDecoder(tmp_path / f"{samples}.wav", sample_rate=48000, num_channels=1).get_all_samples().data[0]
        assert torch.equal(dataset[row].samples, meta)  # type: ignore[arg-type]


def test_frames_by_index_are_metas(media: Path) -> None:
    for name in ("good.mp4", "vfr.mp4"):
        decoder = VideoDecoder(media / name, seek_mode="exact")
        total = len(decoder)
        for count in (1, 4, 16):
            meta = [int(i * (total - 1) / (count - 1)) if count > 1 else 0 for i in range(count)]
            frames, _ = load_frames(media / name, count, sampling="index")
            assert torch.equal(frames, decoder.get_frames_at(meta).data)


def test_frames_by_time_are_those_shown_then_on_variable_rates_too(media: Path) -> None:
    # Brightness steps at 0, 0.1, 0.2, 0.3, 1.0 and 1.5 s, to 2 s.
    frames, _ = load_frames(media / "vfr.mp4", 20)
    shown = frames.float().mean((1, 2, 3))
    times = (np.arange(20) + 0.5) * probe(media / "vfr.mp4").duration / 20
    index = np.searchsorted([0, 0.1, 0.2, 0.3, 1.0, 1.5], times, side="right") - 1
    levels = [shown[index == step].mean().item() for step in range(6)]
    assert all(b - a > 20 for a, b in itertools.pairwise(levels))
    for step in range(6):
        assert float(shown[index == step].std(correction=0)) < 2
    by_index, _ = load_frames(media / "vfr.mp4", 20, sampling="index")
    assert not torch.equal(by_index, frames)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_late_audio_is_aligned_within_one_sample(tmp_path: Path, container: str) -> None:
    late = tmp_path / f"late.{container}"
    picture, sound = "testsrc2=s=96x96:r=25:d=2", "aevalsrc=0.5*cos(2*PI*440*t):s=48000:d=1"
    ffmpeg(
        *("-f", "lavfi", "-i", picture, "-itsoffset", "0.68", "-f", "lavfi", "-i", sound),
        *("-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "alac" if container == "mp4" else "flac", str(late)),
    )
    write_records(tmp_path / "clips.jsonl", [{"id": "late", "media": late.name}])
    report = prepare(tmp_path, tmp_path / "out", workers=0, progress=False)
    assert report.clips == {"train": 1} and abs(report.hours * 3600 - 2) < 0.05
    packed = ClipDataset(tmp_path / "out", "train", fields=["audio"], sample_rate=48000)[0].samples
    for heard in (load_audio(late, 48000), packed):
        assert heard is not None
        first = int(heard.abs().gt(0.1).nonzero()[0])
        # Matroska rounds time stamps to milliseconds.
        assert (
            abs(first - round(0.68 * 48000)) <= (1 if container == "mp4" else 48)
            and not heard[: first - 1].abs().gt(1e-3).any()
        )
