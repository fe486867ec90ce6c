from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torchvision.transforms import v2

from peav.data import ClipDataset, ClipLoader, Population, PrepareReport, TrainingPlan, save_manifest
from peav.data.datamodule import ClipDataModule
from peav.data.loading.augment import Gain, Noise, augment_frames
from peav.data.loading.collate import collate, pack_small, unpack_small
from peav.data.manifests.manifest import Manifest, open_manifest
from peav.data.manifests.texts import Caption
from peav.data.stores.remote import StoreOptions
from peav.encoders import MelAudioEncoder
from peav.encoders.audio import MelFrontend, SpecAugment
from peav.testing import tiny_batch
from peav.types import AudioInput, map_tensors

Prepared = tuple[Path, PrepareReport]


def power(samples: torch.Tensor) -> float:
    return float(samples.double().square().mean())


def test_gain_is_in_decibels() -> None:
    samples = torch.randn(1000)
    assert torch.allclose(Gain(6.0, 6.0)(samples, 16000, np.random.default_rng(0)), samples * 10 ** (6 / 20))
    ratios = [power(Gain(-3, 3)(samples, 16000, np.random.default_rng(i))) / power(samples) for i in range(50)]
    assert 10**-0.3 <= min(ratios) < 0.7 and 1.5 < max(ratios) <= 10**0.3
    assert Gain(6.0, 6.0, probability=0.0)(samples, 16000, np.random.default_rng(0)) is samples
    with pytest.raises(ValueError, match="min_db must not exceed max_db"):
        Gain(1, 0)


def audible(samples: torch.Tensor, rate: int) -> torch.Tensor:
    """What is left of a waveform without its frequencies below 20 Hz."""
    spectrum = torch.fft.rfft(samples.double())
    spectrum[torch.fft.rfftfreq(len(samples), 1 / rate) < 20] = 0
    return torch.fft.irfft(spectrum, n=len(samples))


@pytest.mark.parametrize("colour", ["white", "pink", "brown"])
@pytest.mark.parametrize(("rate", "seconds"), [(8000, 0.3), (8000, 20.0), (16000, 2.71828), (44100, 0.3), (48000, 2.0)])
def test_noise_has_its_ratio_where_it_is_heard(colour: Any, rate: int, seconds: float) -> None:
    time = torch.arange(round(seconds * rate)) / rate
    tones = sum(torch.sin(2 * torch.pi * pitch * time + pitch) / pitch for pitch in (110, 220, 587, 1760, 3520))
    assert isinstance(tones, torch.Tensor)
    # The offset and the rumble of a cheap microphone, louder than the tones.
    samples = tones + 0.2 + 0.1 * torch.sin(2 * torch.pi * 4 * time)
    for snr in (-5.0, 30.0):
        noise = Noise(snr, snr, colour, probability=1.0)(samples, rate, np.random.default_rng(0)) - samples
        assert abs(float(noise.mean())) < 1e-3 * float(noise.std())
        assert power(noise) == pytest.approx(power(audible(noise, rate)), rel=1e-3)
        assert 10 * np.log10(power(tones) / power(noise)) == pytest.approx(snr, abs=0.4)


@pytest.mark.parametrize("colour", ["white", "pink", "brown"])
def test_noise_has_its_colour(colour: Any) -> None:
    samples = torch.randn(16000, generator=torch.Generator().manual_seed(0))
    noise = Noise(10.0, 10.0, colour, probability=1.0)(samples, 16000, np.random.default_rng(0)) - samples
    spectrum = torch.fft.rfft(noise).abs().square()
    slope = np.polyfit(np.log(np.arange(100, 8000)), np.log(spectrum[100:8000].numpy()), 1)[0]
    assert abs(slope - {"white": 0, "pink": -1, "brown": -2}[colour]) < 0.15


@pytest.mark.parametrize("colour", ["white", "brown"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 100])
def test_short_clips_get_noise_if_they_can_hold_any(colour: Any, size: int) -> None:
    samples = torch.linspace(-1, 1, size) ** 3
    noisy = Noise(10.0, 10.0, colour, probability=1.0)(samples, 16000, np.random.default_rng(0))
    assert noisy.shape == samples.shape and bool(noisy.isfinite().all())
    assert torch.equal(noisy, samples) == (size < 2)


def test_what_cannot_be_heard_gets_no_noise() -> None:
    for silence in (torch.zeros(1000), torch.full((16000,), 0.25)):
        noisy = Noise(0.0, 0.0, probability=1.0)(silence, 16000, np.random.default_rng(0))
        assert torch.allclose(noisy, silence, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="colour must be one of"):
        Noise(colour="blue")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="probability must be from 0 to 1"):
        Noise(probability=2)


def test_frames_of_a_clip_are_changed_alike_and_the_generator_is_left_alone() -> None:
    frames = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    frames[1:] = frames[0]
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    transforms = [v2.RandomResizedCrop(32, antialias=True), v2.RandomHorizontalFlip(), v2.ColorJitter(0.3, 0.3)]
    one, same, other = (augment_frames(frames, transforms, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other) and torch.equal(one[0], one[3])
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(RuntimeError, match="on purpose"):
        augment_frames(frames, [v2.Lambda(fail)], 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(ValueError, match="must keep shape and type"):
        augment_frames(frames, [v2.Resize(16)], 0)


def fail(frames: torch.Tensor) -> torch.Tensor:
    torch.rand(1)
    raise RuntimeError("on purpose")


def test_augmentation_leaves_all_generators_alone(prepared: Prepared) -> None:
    """A seed for a GPU that has not started yet waits in torch's tracker of seeds."""
    dataset = augmented(prepared[0], video_augment=[v2.RandomHorizontalFlip()])

    def states() -> list[Any]:
        waiting = list(torch.cuda._lazy_seed_tracker.get_calls())
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return [state.tolist() for state in (torch.get_rng_state(), *cuda)] + waiting

    before = states()
    assert not torch.equal(dataset[0, 0].samples, dataset[1, 0].samples)  # type: ignore[arg-type]
    assert states() == before


def augmented(data: Path, **options: Any) -> ClipDataset:
    settings: dict[str, Any] = {"audio_augment": [Gain(-6, 6), Noise(probability=1.0)], "fields": ["audio", "video"]}
    return ClipDataset(data, "train", **{**settings, **options})


def test_augmentation_follows_from_seed_epoch_and_clip(prepared: Prepared) -> None:
    video: list[Any] = [v2.RandomHorizontalFlip(0.5), v2.RandomCrop(64, padding=8)]
    dataset = augmented(prepared[0], video_augment=video)
    twice = [dataset[3, 0], augmented(prepared[0], video_augment=video)[3, 0]]
    assert torch.equal(twice[0].samples, twice[1].samples) and torch.equal(twice[0].frames, twice[1].frames)  # type: ignore[arg-type]
    others = [dataset[4, 0], augmented(prepared[0], video_augment=video, seed=1)[3, 0]]
    assert not any(torch.equal(twice[0].samples, clip.samples) for clip in others)  # type: ignore[arg-type]
    # Outside training nothing is changed.
    plain = ClipDataset(prepared[0], "train", fields=["audio", "video"])[0]
    assert torch.equal(dataset[0].samples, plain.samples) and torch.equal(dataset[0].frames, plain.frames)  # type: ignore[arg-type]
    assert dataset[0].seed is None and dataset[3, 0].seed != dataset[4, 0].seed


def test_augmentation_is_not_kept_in_the_cache(prepared: Prepared) -> None:
    cached, plain = augmented(prepared[0], cache_megabytes=64), augmented(prepared[0])
    for epoch in range(2):
        assert torch.equal(cached[epoch, 0].samples, plain[epoch, 0].samples)  # type: ignore[arg-type]


def test_modality_dropout_takes_one_of_two_and_decodes_it_not(prepared: Prepared) -> None:
    share = {"audio": 0.3, "video": 0.2}
    dataset = ClipDataset(prepared[0], "train", fields=["audio", "video"], frame_size=16, modality_dropout=share)
    names = [clip.id for clip in dataset.manifest]
    both, silent = names.index("both"), names.index("silent")
    sampled = [dataset[epoch, both] for epoch in range(200)]
    kinds = [(clip.has_audio, clip.has_video) for clip in sampled]
    assert (False, False) not in kinds
    assert 35 <= kinds.count((False, True)) <= 85 and 20 <= kinds.count((True, False)) <= 60
    dropped = next(clip for clip in sampled if not clip.has_audio)
    assert dropped.audio_group == -1 and dropped.samples is not None and not dropped.samples.any()
    assert all(dataset[epoch, silent].has_video for epoch in range(50))
    with pytest.raises(ValueError, match="knows audio and video"):
        ClipDataset(prepared[0], "train", modality_dropout={"text": 0.1})
    with pytest.raises(ValueError, match="sum of modality_dropout"):
        ClipDataset(prepared[0], "train", modality_dropout={"audio": 0.6, "video": 0.6})


def test_captions_are_chosen_by_their_origin(prepared: Prepared, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "shards").symlink_to(prepared[0] / "shards")
    manifest: Manifest = open_manifest(prepared[0], "train")
    clips = list(manifest)
    texts = (*(Caption(f"real {i}") for i in range(5)), Caption("made", "synthetic"))
    object.__setattr__(clips[0], "captions", {"audio": texts})
    save_manifest(data, "train", clips)

    def share(weights: dict[str, float] | None) -> float:
        options = StoreOptions(trust=True)  # the shards are a link
        dataset = ClipDataset(data, "train", fields=["captions.audio"], origin_weights=weights, store=options)
        return sum(dataset[epoch, 0].captions["audio"] == "made" for epoch in range(400)) / 400

    assert abs(share({"real": 1, "synthetic": 10}) - 10 / 11) < 0.05
    assert abs(share(None) - 1 / 6) < 0.06 and share({"real": 1, "synthetic": 0}) == 0


def test_spec_augment_hides_bands_and_spans_by_seed() -> None:
    levels, mask = torch.randn(3, 100, 40), torch.ones(3, 100, dtype=torch.bool)
    mask[2, 60:] = False
    augment = SpecAugment(2, 10, 1, 0.2)
    seeds = torch.tensor([1, 1, 2])
    hidden = augment(levels, mask, seeds)
    changed = hidden != levels
    assert torch.equal(changed[0], changed[1]) and not torch.equal(changed[0], changed[2])
    assert torch.equal(hidden, augment(levels, mask, seeds)) and not changed[2, 60:].any()
    # What is hidden are whole bands and whole spans.
    bands, spans = changed[0].all(0), changed[0].all(1)
    assert (
        torch.equal(changed[0], bands[None] | spans[:, None]) and 0 < int(bands.sum()) <= 20 and int(spans.sum()) <= 20
    )
    assert torch.allclose(hidden[0][changed[0]], levels[0].mean(), atol=1e-1)
    with pytest.raises(ValueError, match="at least 1 mel"):
        SpecAugment(1, 0, 1, 0.2)


def test_the_mel_encoder_augments_in_training_alone(prepared: Prepared, tokenize: Callable) -> None:
    dataset = ClipDataset(prepared[0], "train", fields=["audio"])
    loader = ClipLoader(dataset, TrainingPlan(Population.of(dataset.manifest.index), 4))
    batch = next(iter(loader))
    torch.manual_seed(0)
    encoder = MelAudioEncoder(dim=32, num_layers=1, num_heads=2, band_masks=2, time_masks=2)
    plain = MelAudioEncoder(dim=32, num_layers=1, num_heads=2)
    plain.load_state_dict(encoder.state_dict())

    def pooled(model: MelAudioEncoder) -> torch.Tensor:
        return model({"audio": batch.audio}, ("audio",))["audio"].pooled

    assert torch.equal(pooled(encoder), pooled(encoder)) and not torch.equal(pooled(encoder), pooled(plain))
    assert torch.equal(pooled(encoder.eval()), pooled(plain.eval()))
    assert isinstance(encoder.frontend, MelFrontend)


def test_the_data_module_takes_everything_from_a_yaml(prepared: Prepared) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ClipDataModule, "data")
    text = f"""
    data:
      data: {prepared[0]}
      batch_size: 2
      num_workers: 0
      fields: [audio, video]
      domain_weights: {{tones: 1, "": 2}}
      origin_weights: {{real: 1, synthetic: 10}}
      num_buckets: 2
      modality_dropout: {{audio: 0.1}}
      max_bad_share: 0.1
      audio_augment:
        - class_path: peav.data.loading.augment.Gain
          init_args: {{min_db: -3}}
        - class_path: Noise
      video_augment:
        - class_path: torchvision.transforms.v2.RandomHorizontalFlip
      store: {{cache_dir: /tmp/chunks, cache_gigabytes: 2}}
    """
    module = parser.instantiate_classes(parser.parse_string(text)).data
    assert [type(item).__name__ for item in (*module.audio_augment, *module.video_augment)] == [
        *("Gain", "Noise", "RandomHorizontalFlip")
    ]
    assert module.store.cache_gigabytes == 2 and module.audio_augment[0].min_db == -3
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert len(batch.ids) == 2 and batch.audio.seed is not None
    # Validation is neither augmented nor thinned out.
    assert module.datasets["validation"].audio_augment == () and not module.datasets["validation"].modality_dropout


def tensors(batch: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    map_tensors(batch, keep)
    return found


def test_every_tensor_of_a_batch_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no accelerator here to pin for: that each tensor is asked is what can be seen."""
    batch = tiny_batch()
    asked: list[int] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        asked.append(id(tensor))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    assert batch.pin_memory().ids == batch.ids
    assert asked == [id(tensor) for tensor in tensors(batch)] and len(asked) > 15


def test_small_tensors_come_from_workers_as_they_were(prepared: Prepared, tokenize: Callable) -> None:
    dataset = ClipDataset(prepared[0], "train", frame_size=32)
    batch = collate([dataset[row] for row in range(4)], tokenize)
    packed = pack_small(batch)
    assert isinstance(packed.duration, np.ndarray) and isinstance(packed.audio, AudioInput)
    assert isinstance(packed.audio.samples, torch.Tensor)
    found, want = tensors(unpack_small(packed)), tensors(batch)
    assert len(found) == len(want)
    for mine, theirs in zip(found, want, strict=True):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
