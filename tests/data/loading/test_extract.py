import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from peav.cli.main import main
from peav.data import ClipDataset, PrepareReport, ShardError
from peav.data.curation.edit import mix, split_manifest
from peav.data.datamodule import ClipDataModule
from peav.data.loading.collate import collate
from peav.data.loading.features import FeatureInfo
from peav.data.locks import FolderInUse, locked
from peav.data.stores.reader import SampleError
from peav.encoders import DacAudioEncoder, PEVideoEncoder
from peav.model import PEAV
from peav.training import extract
from peav.training.extract import ExtractOptions, extract_features
from peav.types import AudioInput, CachedFeatures, VideoInput
from tests.data.world import make_data
from tests.inputs.helpers import make_model

Prepared = tuple[Path, PrepareReport]
SETTINGS: dict[str, Any] = {"sample_rate": 16000, "num_frames": 4, "frame_size": 32, "sampling": "time"}
BOTH = {"audio": "dac", "video": "pe"}


def quiet_model() -> PEAV:
    """A model whose latents fit in fp16, as those of the released ones do."""
    model = make_model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "audio.frontend" in name:
                parameter.mul_(0.3)
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quiet_model().save_pretrained(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def data(prepared: Prepared, tmp_path: Path) -> Path:
    shutil.copytree(prepared[0], tmp_path / "data")
    return tmp_path / "data"


def options(model: Path, **changes: Any) -> ExtractOptions:
    plain: dict[str, Any] = {
        "features": BOTH,
        "accelerator": "cpu",
        "num_workers": 0,
        "batch_size": 3,
        "sampling": "time",
    }
    return ExtractOptions(**{**plain, "model": str(model), **changes})


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_features_are_what_the_frontends_make_of_the_media(data: Path, model: Path) -> None:
    infos = extract_features(data, options(model), progress=False)
    assert [(info.name, info.kind, info.rows) for info in infos] == [
        ("dac", "audio", {"train": 11, "validation": 3}),
        ("pe", "video", {"train": 11, "validation": 3}),
    ]
    net = PEAV.from_pretrained(model)
    fields = ["audio", "video"]
    media = collate(
        [clip for row in range(11) for clip in [ClipDataset(data, "train", fields=fields, **SETTINGS)[row]]]
    )
    kept = ClipDataset(data, "train", fields=fields, features=BOTH, **SETTINGS)
    cached = collate([kept[row] for row in range(11)])
    assert isinstance(media.audio, AudioInput) and isinstance(media.video, VideoInput)
    assert isinstance(cached.audio, CachedFeatures) and isinstance(cached.video, CachedFeatures)
    audio, video = net.encoders["audio"], net.encoders["video"]
    assert isinstance(audio, DacAudioEncoder) and isinstance(video, PEVideoEncoder)
    with torch.inference_mode():
        for made, want in (
            (cached.audio, audio.frontend_features("audio", media.audio)),
            (cached.video, video.frontend_features("video", media.video)),
        ):
            assert torch.equal(made.mask, want.mask) and torch.equal(made.present, want.present)
            assert torch.allclose(made.values[made.mask], want.values[want.mask].half().float(), atol=2e-3, rtol=2e-3)
            assert torch.allclose(
                torch.as_tensor(made.frame_seconds).expand(11)[want.present],
                torch.as_tensor(want.frame_seconds).expand(11)[want.present],
            )
        # The encoders take them in place of the media, with results equal up to fp16.
        for name in ("audio", "video"):
            encoder = net.encoders[name]
            one, other = (encoder({name: batch.read(name)}, (name,))[name].pooled for batch in (media, cached))
            there = media.read(name).present
            assert torch.allclose(one[there], other[there], atol=5e-3 * float(one[there].abs().max()))
    assert [info.rows for info in extract_features(data, options(model), progress=False)] == [
        info.rows for info in infos
    ]


def test_an_interrupted_run_goes_on_and_devices_change_nothing(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "ROWS_PER_CHUNK", 4)
    calm = tmp_path / "calm"
    shutil.copytree(data, calm)
    extract_features(calm, options(model, features={"audio": "dac"}), progress=False)
    write = extract.write_segment
    written: list[tuple[str, int]] = []

    def failing(folder: Path, segment: int, rows: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append((folder.name, segment))
        write(folder, segment, rows)

    monkeypatch.setattr(extract, "write_segment", failing)
    with pytest.raises(KeyboardInterrupt):
        extract_features(data, options(model, features={"audio": "dac"}), progress=False)
    assert not (data / "features" / "dac" / "train" / "index.json").exists()
    again: list[Any] = []

    def counted(folder: Path, segment: int, rows: Any) -> None:
        again.append((folder.name, segment))
        write(folder, segment, rows)

    monkeypatch.setattr(extract, "write_segment", counted)
    extract_features(data, options(model, features={"audio": "dac"}), progress=False)
    assert not set(again) & set(written) and len(again) + len(written) == 4
    assert files(data / "features") == files(calm / "features")


@pytest.mark.slow
def test_two_devices_give_the_same_features(data: Path, model: Path, tmp_path: Path) -> None:
    calm = tmp_path / "calm"
    shutil.copytree(data, calm)
    extract_features(calm, options(model), progress=False)
    extract_features(data, options(model, devices=2), progress=False)
    assert files(data / "features").keys() == files(calm / "features").keys()
    for split, row in (("train", 0), ("train", 7), ("validation", 2)):
        one, two = (ClipDataset(d, split, ["audio", "video"], features=BOTH, **SETTINGS)[row] for d in (data, calm))
        for a, b in ((one.audio_features, two.audio_features), (one.video_features, two.video_features)):
            assert a is not None and b is not None and torch.allclose(a.float(), b.float(), rtol=2e-3, atol=1e-3)


def test_the_command_makes_them(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", str(data), "--features", "audio=dac", "video=pe", "--model", str(model), "--workers", "0"]
    assert main([*words, "--sampling", "time", "--accelerator", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "audio features in" in said and "11 train, 3 validation clips" in said
    info = json.loads((data / "features" / "pe" / "features.json").read_text())
    assert info["media"] == {"num_frames": 4, "fps": None, "frame_size": [32, 32], "sampling": "time"}
    for bad, message in (
        (
            ["--features", "audio=pe", "--model", str(model)],
            "no frozen frontend audio=pe: it has audio=dac, video=pe",
        ),
        (["--features", "audio=dac"], "--features needs --model"),
        ([], "give OUT"),
    ):
        assert main(["prepare", str(data), *bad]) == 1
        assert message in capsys.readouterr().err


def test_a_frontend_that_is_not_there_or_another_is_an_error(data: Path, model: Path, tmp_path: Path) -> None:
    extract_features(data, options(model, features={"audio": "dac"}), progress=False)
    other = quiet_model()
    with torch.no_grad():
        next(iter(other.encoders["audio"].frontend.parameters())).add_(1)  # type: ignore[union-attr]
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="holds features of another frontend"):
        extract_features(data, options(tmp_path / "other", features={"audio": "dac"}), progress=False)
    with pytest.raises(ValueError, match="otherwise: delete it"):
        FeatureInfo.read(data / "features" / "dac" / "features.json")
        extract_features(data, options(model, features={"audio": "dac"}), progress=False)
        changed = json.loads((data / "features" / "dac" / "features.json").read_text())
        changed["media"]["sample_rate"] = 8000
        (data / "features" / "dac" / "features.json").write_text(json.dumps(changed))
        extract_features(data, options(model, features={"audio": "dac"}), progress=False)
    only_text = PEAV({"text": make_model().encoders["text"]}, ["text_audio"], 8)  # type: ignore[dict-item]
    only_text.save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match=r"the model has no frozen frontend audio=dac: it has none"):
        extract_features(data, options(tmp_path / "text", features={"audio": "dac"}), progress=False)
    with pytest.raises(FileNotFoundError, match="no manifest"):
        extract_features(tmp_path, options(model), progress=False)
    with pytest.raises(ValueError, match=r"no clip of .* has video"):
        silent = make_data(tmp_path / "tones")
        extract_features(silent, options(model), progress=False)
    with pytest.raises(ValueError, match="made on a disk"):
        extract_features("s3://bucket/data", options(model), progress=False)


def test_features_that_are_half_made_or_of_fewer_clips_say_so(
    data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = options(model, features={"audio": "dac"})

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(extract, "write_segment", killed)
        with pytest.raises(KeyboardInterrupt):
            extract_features(data, audio, progress=False)
    (data / "features/dac/train/.segment-0-1").mkdir(parents=True)
    with pytest.raises(ShardError, match=r"not finished: run .* again, it goes on"):
        ClipDataset(data, "train", ["audio"], features={"audio": "dac"}, **SETTINGS)[0]
    with locked(data), pytest.raises(FolderInUse, match="is at work"):
        extract_features(data, audio, progress=False)
    extract_features(data, audio, progress=False)
    assert not list((data / "features").rglob(".segment-*"))
    with pytest.raises(ShardError, match=r"no features 'pe' .*\(there are dac\)"):
        ClipDataset(data, "train", ["video"], features={"video": "pe"}, **SETTINGS)[0]
    info = data / "features/dac/features.json"
    changed = json.loads(info.read_text())
    info.write_text(json.dumps({**changed, "rows": {**changed["rows"], "train": 7}}))
    with pytest.raises(ValueError, match=r"holds features of 7 rows of train, there are 11: delete it"):
        extract_features(data, audio, progress=False)


def test_features_are_made_beside_the_media_and_not_beside_a_manifest_of_them(
    data: Path, model: Path, tmp_path: Path
) -> None:
    split_manifest(data, tmp_path / "split", by="id", validation=0.3, test=0)
    with pytest.raises(ValueError, match=r"the media of .*split/manifest/train.jsonl lie in .*data/shards"):
        extract_features(tmp_path / "split", options(model), progress=False)
    extract_features(data, options(model), progress=False)
    clips = ClipDataset(tmp_path / "split", "train", ["audio", "video"], features=BOTH, **SETTINGS)
    assert all(
        clip.audio_features is not None and clip.video_features is not None
        for clip in map(clips.__getitem__, range(len(clips)))
    )


def test_one_clip_whose_features_overflow_does_not_stop_the_others(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = DacAudioEncoder.frontend_features
    seen = 0

    def overflowing(self: DacAudioEncoder, name: str, audio: AudioInput) -> CachedFeatures:
        nonlocal seen
        made = make(self, name, audio)
        if not seen:
            made.values[1, 0, 0] = 1e6
        seen += 1
        return made

    monkeypatch.setattr(DacAudioEncoder, "frontend_features", overflowing)
    info = extract_features(data, options(model, features={"audio": "dac"}), progress=False)[0]
    assert info.rows == {"train": 11, "validation": 3}
    (reject,) = [json.loads(line) for line in (data / "features/dac/train-rejects-0.jsonl").open()]
    assert reject["reason"] == "its features are not finite in fp16"
    dataset = ClipDataset(data, "train", ["audio"], features={"audio": "dac"}, **SETTINGS)
    readable = 0
    for row in range(11):
        if dataset.clip(row).id == reject["id"]:
            with pytest.raises(SampleError, match="none could be made of its media"):
                dataset[row]
        else:
            readable += dataset[row].audio_features is not None
    assert readable == 10


def test_a_mix_of_features_of_two_frontends_is_refused(data: Path, model: Path, tmp_path: Path) -> None:
    other = shutil.copytree(data, tmp_path / "other")
    for folder in (data, other):
        extract_features(folder, options(model, features={"audio": "dac"}), progress=False)
    mix(tmp_path / "mixed", [str(data), str(other)])
    module = ClipDataModule(str(tmp_path / "mixed"), fields=["audio"], features={"audio": "dac"}, **SETTINGS)
    module.setup("validate")
    assert module.feature_infos["audio"].dim
    path = other / "features" / "dac" / "features.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "frontend": "another"}))
    module = ClipDataModule(str(tmp_path / "mixed"), fields=["audio"], features={"audio": "dac"}, **SETTINGS)
    module.setup("validate")
    with pytest.raises(ValueError, match="made by different frontends"):
        module.feature_infos  # noqa: B018
