import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from peav.data import ClipDataset, ClipLoader, Population, PrepareReport, ShardError, TrainingPlan
from peav.data.loading.collate import collate
from peav.data.loading.features import (
    FeatureInfo,
    FeatureRow,
    feature_store,
    finished_segments,
    join_segments,
    write_segment,
)
from peav.data.stores.reader import SampleError, ShardReader
from peav.types import AudioInput, CachedFeatures, VideoInput

Prepared = tuple[Path, PrepareReport]
MEDIA = {
    "audio": {"sample_rate": 16000, "downmix": "meta"},
    "video": {"num_frames": 8, "fps": None, "frame_size": [64, 64], "sampling": "time"},
}


def values(kind: str, row: int, dim: int) -> torch.Tensor:
    frames = 4 + row if kind == "audio" else 8
    return torch.randn(frames, dim, generator=torch.Generator().manual_seed(row)).half()


def write_features(data: Path, kind: str, name: str, dim: int = 6, **changes: Any) -> None:
    """Features that tell their row, for all clips of the training split that have the medium."""
    folder = data / "features" / name
    manifest = ClipDataset(data, "train", fields=[]).manifest
    rows = []
    for clip in manifest:
        has = clip.has_audio if kind == "audio" else clip.has_video
        made = values(kind, clip.row, dim) if has else torch.zeros(0, dim)
        rows.append(FeatureRow(clip.id, made, 0.04 if kind == "audio" else clip.duration / 8, clip.crc32))
    for segment in range(0, len(rows), 4):
        write_segment(folder / "train", segment // 4, rows[segment : segment + 4])
    count = join_segments(folder / "train", -(-len(rows) // 4))
    info = {"name": name, "kind": kind, "dim": dim, "encoder": "E", "frontend": "0", "media": MEDIA[kind]}
    FeatureInfo(**{**info, "rows": {"train": count}, **changes}).write(folder)


@pytest.fixture
def data(prepared: Prepared, tmp_path: Path) -> Path:
    shutil.copytree(prepared[0], tmp_path / "data")
    write_features(tmp_path / "data", "audio", "dac")
    write_features(tmp_path / "data", "video", "pe", dim=5)
    return tmp_path / "data"


def test_features_stand_in_place_of_the_media(data: Path, prepared: Prepared) -> None:
    features = {"audio": "dac", "video": "pe"}
    dataset = ClipDataset(data, "train", fields=["audio", "video"], features=features)
    plain = ClipDataset(prepared[0], "train", fields=["audio", "video"])
    batch = collate([dataset[row] for row in range(len(dataset))])
    media = collate([plain[row] for row in range(len(plain))])
    assert isinstance(batch.audio, CachedFeatures) and isinstance(batch.video, CachedFeatures)
    assert isinstance(media.audio, AudioInput) and isinstance(media.video, VideoInput)
    for kind, dim, made, whole in (("audio", 6, batch.audio, media.audio), ("video", 5, batch.video, media.video)):
        assert torch.equal(made.present, whole.present) and torch.equal(made.group, whole.group)
        assert torch.equal(made.mask.any(1), whole.present) and made.values.dtype == torch.float32
        for row in range(len(dataset)):
            want = values(kind, row, dim).float() if made.present[row] else torch.zeros(0, dim)
            assert torch.equal(made.values[row][made.mask[row]], want) and not made.values[row][~made.mask[row]].any()
    assert isinstance(batch.video.frame_seconds, torch.Tensor)
    assert torch.allclose(
        batch.video.frame_seconds[media.video.present], media.video.frame_seconds[media.video.present]
    )
    # One medium may come from features, the other from the files.
    half = collate([ClipDataset(data, "train", fields=["audio", "video"], features={"audio": "dac"})[0]])
    assert isinstance(half.audio, CachedFeatures) and isinstance(half.video, VideoInput)


def test_the_loader_reads_features(data: Path) -> None:
    dataset = ClipDataset(data, "train", fields=["audio"], features={"audio": "dac"}, modality_dropout={"audio": 0.9})
    loaded = [
        [(batch.ids, batch.audio.values.sum().item()) for batch in epoch]  # type: ignore[union-attr]
        for workers in (0, 2)
        for epoch in [ClipLoader(dataset, TrainingPlan(Population.of(dataset.manifest.index), 2), num_workers=workers)]
    ]
    assert loaded[0] == loaded[1] and len(loaded[0]) == 5


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": {"audio": "none"}}, ShardError, "there are no features 'none' .*there are dac, pe"),
        ({"features": {"audio": "pe"}}, ShardError, "were made of video, not of audio"),
        ({"features": {"text": "dac"}}, ValueError, "audio or video, not for 'text'"),
        ({"features": {"audio": "dac"}, "sample_rate": 8000}, ValueError, "sample_rate=16000, but .* sample_rate=8000"),
        ({"features": {"video": "pe"}, "num_frames": 4}, ValueError, "num_frames=8, but .* num_frames=4"),
        (
            {"features": {"video": "pe"}, "video_augment": [torch.nn.Identity()]},
            ValueError,
            "video_augment changes video",
        ),
    ],
)
def test_features_that_do_not_fit_are_named(data: Path, change: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        ClipDataset(data, "train", **{"fields": ["audio", "video"], **change})[0]


def test_features_of_other_media_and_damaged_ones_are_noticed(data: Path) -> None:
    dataset = ClipDataset(data, "train", fields=["audio"], features={"audio": "dac"})
    clip = dataset.clip(0)
    object.__setattr__(clip, "crc32", clip.crc32 + 1)
    with pytest.raises(ShardError, match="made of other media"):
        dataset.features["audio"].read(clip)
    chunk = data / "features" / "dac" / "train" / "chunk-0-0.bin"
    held = bytearray(chunk.read_bytes())
    held[held.index(values("audio", 0, 6).numpy().tobytes()) + 3] ^= 1
    chunk.write_bytes(held)
    with pytest.raises(SampleError, match="do not match their checksum"):
        ClipDataset(data, "train", fields=["audio"], features={"audio": "dac"})[0]


def test_segments_are_joined_only_when_all_are_there(tmp_path: Path) -> None:
    rows = [FeatureRow(f"clip-{i}", torch.full((3, 2), float(i)), 0.04, i) for i in range(6)]
    write_segment(tmp_path, 1, rows[3:])
    with pytest.raises(ShardError, match="lacks segment 0 of 2"):
        join_segments(tmp_path, 2)
    write_segment(tmp_path, 0, rows[:3])
    assert finished_segments(tmp_path) == {0, 1} and join_segments(tmp_path, 2) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chunk-0-0.bin", "chunk-0-1.bin", "index.json"]
    reader = ShardReader(tmp_path)
    assert [reader.read_fields(row, "")[0] for row in range(6)] == [row.id for row in rows]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = tmp_path / "again"
    for segment in (0, 1):
        write_segment(other, segment, rows[3 * segment : 3 * segment + 3])
    join_segments(other, 2)
    assert {path.name: path.read_bytes() for path in other.iterdir()} == before
    with pytest.raises(ShardError, match="not finite in fp16"):
        write_segment(other, 2, [FeatureRow("loud", torch.full((1, 2), 1e6), 0.04, 0)])


def test_addresses_and_the_description(tmp_path: Path) -> None:
    assert feature_store("/a/shards/train", "dac") == "/a/features/dac/train"
    (tmp_path / "features.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(ShardError, match=r"features.json cannot be read .* again"):
        FeatureInfo.read(tmp_path / "features.json")
