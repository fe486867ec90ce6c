"""Cached features: what frozen frontends made of the media, in LitData shards beside them, row for row.

    OUT/features/NAME/features.json    what made them, and from what
    OUT/features/NAME/train/           LitData chunks: (id, values, frames, dim, frame_seconds, media_crc32, crc32)

The shards of a split hold as many rows as its media; a clip that lacks the medium has no frames. Values are fp16: ten seconds take
about 100 KB (64 KB of DAC-VAE at 25 Hz, 32 KB of 16 video frames). `media_crc32` ties a row to the bytes it was made of.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from litdata.streaming.writer import BinaryWriter
from torch import Tensor

from peav.atomic import replacing
from peav.data.manifests.clip import Clip
from peav.data.stores.outside import open_address
from peav.data.stores.reader import SampleError, ShardReader
from peav.data.stores.remote import ChunkCache, is_remote
from peav.data.stores.samples import ShardError
from peav.opening import read_json
from peav.types import Seconds

if TYPE_CHECKING:
    from peav.data.loading.decoding import ClipReader, DecodeSettings

_ANEW = "delete their folder and run `peav prepare DATA --features ...` again"

#: Rows of one chunk: about 50 MB.
ROWS_PER_CHUNK = 512


@dataclass(frozen=True)
class FeatureInfo:
    """What cached features are.

    Attributes:
        name: of the folder, such as "dac".
        kind: `audio` or `video`.
        dim: of each feature (C).
        encoder: class of the encoder whose frontend made them.
        frontend: checksum of the frontend's weights.
        media: how the media were decoded for it: sample_rate and downmix, or num_frames, fps, frame_size and sampling.
        rows: rows by split, those that are done.
    """

    name: str
    kind: str
    dim: int
    encoder: str
    frontend: str
    media: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def check(self, settings: DecodeSettings) -> None:
        """Compares how the media were decoded with how they would be now.

        Raises:
            ValueError: names the first setting that differs.
        """
        for name, value in decode_choices(self.kind, settings).items():
            made = self.media.get(name)
            if made != value:
                raise ValueError(
                    f"the features {self.name!r} were made with {name}={made}, but the data module has {name}={value}: set data.{name} "
                    "to that, or make them anew"
                )

    def write(self, folder: Path) -> None:
        """Writes features.json, all of it or nothing."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "features.json") as partial:
            partial.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> FeatureInfo:
        """Reads features.json.

        Raises:
            ShardError: if it is damaged.
        """
        try:
            return cls(**read_json(path))
        except (OSError, ValueError, TypeError) as error:
            raise ShardError(f"{path} cannot be read ({error}); run `peav prepare --features` again") from None


def decode_choices(kind: str, settings: DecodeSettings) -> dict[str, Any]:
    """Returns the settings of decoding that features of `audio` or `video` depend on, as plain data."""
    if kind == "audio":
        return {"sample_rate": settings.sample_rate, "downmix": settings.downmix}
    size = list(settings.frame_size)
    return {"num_frames": settings.num_frames, "fps": settings.fps, "frame_size": size, "sampling": settings.sampling}


def feature_store(store: str, name: str) -> str:
    """Returns where the features lie that belong to a store of media.

    >>> feature_store("s3://bucket/a/shards/train", "dac")
    's3://bucket/a/features/dac/train'
    """
    root, _, split = store.rstrip("/").rpartition("/")
    return f"{root.rpartition('/')[0]}/features/{name}/{split}"


def feature_crc32(values: bytes, media_crc32: int) -> int:
    """Checksum of a row, and of what it was made of."""
    return zlib.crc32(values, zlib.crc32(media_crc32.to_bytes(8, "little")))


class FeatureReader:
    """Reads the cached features of clips.

    Args:
        media: the reader of their media, which knows where stores are.
        kind: `audio` or `video`.
        name: of the features.

    Raises:
        ValueError: if the kind is another.
    """

    def __init__(self, media: ClipReader, kind: str, name: str) -> None:
        if kind not in ("audio", "video"):
            raise ValueError(f"features stand for audio or video, not for {kind!r}")
        self.media = media
        self.kind = kind
        self.name = name
        self._stores: dict[str, tuple[ShardReader, FeatureInfo]] = {}

    def store(self, name: str) -> tuple[ShardReader, FeatureInfo]:
        """Opens the features that belong to a store of media.

        Raises:
            ShardError: if they were not made, or were made of the other medium.
        """
        if name not in self._stores:
            address = feature_store(open_address(self.media.data, name, self.media.options), self.name)
            folder = address.rpartition("/")[0]
            if is_remote(folder):
                path = ChunkCache(folder, self.media.options).refresh("features.json")
            else:
                path = Path(folder) / "features.json"
                if not path.is_file():
                    made = sorted(found.parent.name for found in path.parent.parent.glob("*/features.json"))
                    there = f"there are {', '.join(made)}" if made else "there are none"
                    raise ShardError(
                        f"there are no features {self.name!r} in {folder} ({there}): `peav prepare DATA --features audio=dac video=pe "
                        "--model MODEL` makes some"
                    )
            info = FeatureInfo.read(path)
            if info.kind != self.kind:
                raise ShardError(f"the features {self.name!r} in {folder} were made of {info.kind}, not of {self.kind}")
            info.check(self.media.settings)
            if address.rpartition("/")[2] not in info.rows:
                raise ShardError(
                    f"the features {self.name!r} in {folder} are not finished: run `peav prepare DATA --features ...` again, it goes on"
                )
            self._stores[name] = ShardReader(address, self.media.options), info
        return self._stores[name]

    def read(self, clip: Clip) -> tuple[Tensor, Seconds]:
        """Returns the features (T, C) fp16 of a clip, none if it lacks the medium, and the seconds between two.

        Raises:
            SampleError: if they are damaged.
            ShardError: if they are missing or were made of other media.
            StoreError: if the store cannot be reached.
        """
        reader, info = self.store(clip.store)
        has = clip.has_audio if self.kind == "audio" else clip.has_video
        if not has:
            return torch.zeros(0, info.dim, dtype=torch.float16), 1.0
        name = f"{self.name} features of clip {clip.id!r}, row {clip.row} of {reader.address}"
        if clip.is_part:
            raise ShardError(
                f"{name}: they are of the whole packed clip, but the manifest has a part of it; pack it anew"
            )
        try:
            return _read_row(reader, clip, name)
        except ShardError:
            if not reader.fetch_again(clip.row):
                raise
            return _read_row(reader, clip, name)


def _read_row(reader: ShardReader, clip: Clip, name: str) -> tuple[Tensor, Seconds]:
    fields = reader.read_fields(clip.row, name)
    try:
        _, data, frames, dim, seconds, media, whole = fields
        values = bytes(data)
        if not frames:
            raise SampleError(f"{name}: none could be made of its media, see *-rejects-*.jsonl beside them")
        found = torch.from_numpy(np.frombuffer(values, np.float16).reshape(int(frames), int(dim)).copy())
    except (TypeError, ValueError) as error:
        raise SampleError(f"{name}: cannot be read ({type(error).__name__}: {error})") from None
    if feature_crc32(values, media) != whole:
        raise SampleError(f"{name}: the bytes do not match their checksum; {_ANEW}")
    if media != clip.crc32:
        raise ShardError(f"{name}: they were made of other media; {_ANEW}")
    return found, float(seconds)


@dataclass(frozen=True)
class FeatureRow:
    """The features of one clip, ready to be written.

    Attributes:
        id: of the clip.
        values: (T, C); T is 0 where the clip lacks the medium.
        frame_seconds: between two features.
        media_crc32: of the media that they were made of.
    """

    id: str
    values: Tensor
    frame_seconds: Seconds
    media_crc32: int


def write_segment(folder: Path, segment: int, rows: list[FeatureRow]) -> None:
    """Writes a chunk of features and says that it is done; the same rows give the same bytes.

    Raises:
        ShardError: if values are not finite in fp16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".segment-{segment}-{os.getpid()}"
    writer = BinaryWriter(str(scratch), chunk_size=len(rows), chunk_index=segment)
    for index, row in enumerate(rows):
        values = row.values.to("cpu", torch.float16)
        if not bool(torch.isfinite(values).all()):
            raise ShardError(f"clip {row.id!r}: its features are not finite in fp16")
        data = values.contiguous().numpy().tobytes()
        crc32 = feature_crc32(data, row.media_crc32)
        # A tuple: dictionaries LitData stores in another format where pyarrow happens to be installed.
        writer[index] = (row.id, data, *values.shape, float(row.frame_seconds), row.media_crc32, crc32)
    writer.done()
    done = json.loads((scratch / f"{writer.rank}.index.json").read_text())
    for info in done["chunks"]:
        name = f"chunk-0-{segment}.bin"
        (scratch / info["filename"]).replace(folder / name)
        info["filename"] = name
    partial = scratch / "segment.json"
    partial.write_text(json.dumps(done, sort_keys=True))
    partial.replace(folder / f"segment-{segment}.json")
    for rest in scratch.iterdir():
        rest.unlink()
    scratch.rmdir()


def finished_segments(folder: Path) -> set[int]:
    """Returns the segments that are done."""
    return {int(path.stem.removeprefix("segment-")) for path in folder.glob("segment-*.json")}


def remove_scratch(folder: Path) -> None:
    """Deletes what killed processes left of segments that they were writing."""
    for scratch in folder.glob(".segment-*"):
        shutil.rmtree(scratch, ignore_errors=True)


def join_segments(folder: Path, segments: int) -> int:
    """Makes one data set of all segments; returns its rows.

    Raises:
        ShardError: if one is missing.
    """
    chunks: list[dict[str, Any]] = []
    config: dict[str, Any] | None = None
    for segment in range(segments):
        path = folder / f"segment-{segment}.json"
        if not path.is_file():
            raise ShardError(
                f"{folder} lacks segment {segment} of {segments}: a process ended early; run the command again"
            )
        part = json.loads(path.read_text())
        chunks += part["chunks"]
        config = part["config"]
    with replacing(folder / "index.json") as partial:
        partial.write_text(json.dumps({"chunks": chunks, "config": config}, sort_keys=True))
    for segment in range(segments):
        (folder / f"segment-{segment}.json").unlink()
    return sum(info["chunk_size"] for info in chunks)
