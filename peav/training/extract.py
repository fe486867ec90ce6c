"""Running frozen frontends once over a prepared folder: `peav prepare DATA --features audio=dac video=pe --model MODEL`.

What they make is written beside the media (`peav.data.loading.features`), 512 clips a segment. Devices share the segments; a
segment that is done is not made again, so a run that was interrupted goes on where it was. Devices and threads change features by
no more than their rounding.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from peav.data.loading.collate import collate
from peav.data.loading.decoding import ClipReader, DecodedClip, DecodeSettings
from peav.data.loading.features import (
    ROWS_PER_CHUNK,
    FeatureInfo,
    FeatureRow,
    decode_choices,
    finished_segments,
    join_segments,
    remove_scratch,
    write_segment,
)
from peav.data.loading.loader import init_worker
from peav.data.locks import locked
from peav.data.manifests.clip import Clip
from peav.data.manifests.index import HAS_AUDIO, HAS_VIDEO
from peav.data.manifests.manifest import iter_manifest, open_manifest
from peav.data.media.probing import MediaError
from peav.data.progress import tracked
from peav.data.stores.reader import SampleError
from peav.data.stores.remote import is_remote
from peav.encoders import Encoder
from peav.model import PEAV
from peav.training.features import frontend_checksum
from peav.types import Batch, CachedFeatures

_log = logging.getLogger(__name__)

_FLAGS = {"audio": HAS_AUDIO, "video": HAS_VIDEO}

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class ExtractOptions:
    """How features are made.

    Attributes:
        features: frontend by medium: {"audio": "dac", "video": "pe"}.
        model: a model whose frontends run, as `PEAV.from_pretrained` takes it.
        accelerator: of Lightning: `auto`, `cpu`, `cuda`, ...
        devices: how many, or `auto`.
        precision: of the frontends.
        batch_size: clips at once.
        num_workers: processes that decode, on each device.
        num_frames: video frames a clip; the model's own number by default.
        fps: video frames a second, instead.
        sampling: which frames; the model's rule by default.
        trust: see `PEAV.from_pretrained`.
    """

    features: Mapping[str, str]
    model: str
    accelerator: str = "auto"
    devices: int | str = 1
    precision: Precision = "32-true"
    batch_size: int = 8
    num_workers: int = 2
    num_frames: int | None = None
    fps: float | None = None
    sampling: Literal["time", "index"] | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        if not self.features:
            raise ValueError("no features are named: give, for example, audio=dac video=pe")
        for kind, name in self.features.items():
            if kind not in _FLAGS:
                raise ValueError(f"features are made of {' and '.join(_FLAGS)}, not of {kind!r} ({kind}={name})")
        if self.batch_size < 1 or self.num_workers < 0:
            raise ValueError(
                f"batch_size must be at least 1 and num_workers at least 0, got {self.batch_size}, {self.num_workers}"
            )


def extract_features(data: str | Path, options: ExtractOptions, progress: bool = True) -> list[FeatureInfo]:
    """Makes features of all splits of a prepared folder; what is done already is left as it is.

    Args:
        data: folder that `peav prepare` wrote.
        options: which features, and how.
        progress: show how far it is.

    Returns:
        What was made.

    Raises:
        FileNotFoundError: if the folder was not prepared.
        FolderInUse: if another process is at work there.
        ValueError: if the media lie elsewhere, no clip has the medium, the model lacks the frontend, or features of that name were made
            by another one.
    """
    if is_remote(data):
        raise ValueError(
            f"features are made on a disk, beside the media: run this where {data} was prepared, then copy it"
        )
    data = Path(data)
    manifests = sorted((data / "manifest").glob("*.jsonl"))
    if not manifests:
        raise FileNotFoundError(f"no manifest in {data}: run `peav prepare SOURCE {data}` first")
    for path in manifests:
        _check_beside(path)
    for kind in options.features:
        if not any(open_manifest(data, path.stem).index.has(_FLAGS[kind]).any() for path in manifests):
            raise ValueError(
                f"no clip of {data} has {kind}: there is nothing to make {options.features[kind]!r} features of"
            )
    with locked(data):
        return _extract_all(data, manifests, options, progress)


def _extract_all(data: Path, manifests: list[Path], options: ExtractOptions, progress: bool) -> list[FeatureInfo]:
    infos = _infos(data, options)
    total = {path.stem: _rows(path) for path in manifests}
    for info in infos:
        for split, count in total.items():
            remove_scratch(data / "features" / info.name / split)
            if (made_of := info.rows.get(split, count)) != count:
                raise ValueError(
                    f"{data / 'features' / info.name} holds features of {made_of} rows of {split}, there are {count}: delete it to make "
                    "them anew"
                )
    if all(set(info.rows) >= set(total) for info in infos):
        _log.info("the features of %s are made already: nothing to do", data)
        return infos
    devices = options.devices
    strategy = "auto" if devices == 1 else "ddp_spawn"
    fabric = Fabric(accelerator=options.accelerator, devices=devices, strategy=strategy, precision=options.precision)
    if devices == 1:
        _run(fabric, data, options, progress)
    else:
        fabric.launch(partial(_run, data=data, options=options, progress=progress))
    made = []
    for info in infos:
        folder = data / "features" / info.name
        rows = dict(info.rows)
        for split in total:
            if split not in rows:
                rows[split] = join_segments(folder / split, _segments(total[split]))
        made.append(replace(info, rows=rows))
        made[-1].write(folder)
        for rejects in folder.glob("*-rejects-*.jsonl"):  # a segment that was begun twice lists its clips twice
            # Not splitlines: names and reasons may hold U+2028.
            lines = dict.fromkeys(line for line in rejects.read_text(encoding="utf-8").split("\n") if line)
            rejects.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return made


def _check_beside(manifest: Path) -> None:
    stores = open_manifest(manifest.parents[1], manifest.stem).index.stores
    elsewhere = sorted(set(stores) - {f"shards/{manifest.stem}"})
    if elsewhere:
        raise ValueError(
            f"the media of {manifest} lie in {elsewhere[0]}: features are made beside them, so run this on the folder that `peav "
            "prepare` wrote; manifests made of it by `peav data split` and `mix` read them from there"
        )


def find_frontend(model: PEAV, kind: str, name: str) -> Encoder:
    """Returns the encoder of a model that has a frozen frontend of that name for a medium.

    Raises:
        ValueError: if it has none.
    """
    encoders = model.each_encoder().values()
    for encoder in encoders:
        if kind in encoder.frontends and encoder.frontends[kind].name == name:
            return encoder
    known = ", ".join(f"{medium}={f.name}" for e in encoders for medium, f in e.frontends.items()) or "none"
    raise ValueError(
        f"the model has no frozen frontend {kind}={name}: it has {known}. What a trained frontend makes changes, and cannot be kept"
    )


def _settings(model: PEAV, options: ExtractOptions) -> DecodeSettings:
    media = model.media
    num_frames, fps = options.num_frames, options.fps
    if num_frames is None and fps is None:
        num_frames, fps = media.num_frames, media.fps
    if "video" in options.features and num_frames is None and fps is None:
        raise ValueError("the model does not say how many frames it reads: give num_frames or fps")
    return DecodeSettings(
        sample_rate=media.sample_rate,
        num_frames=None if fps is not None else num_frames or 1,
        fps=fps,
        frame_size=(media.frame_size, media.frame_size),
        downmix=media.downmix,
        sampling=options.sampling or media.sampling,
    )


def _infos(data: Path, options: ExtractOptions) -> list[FeatureInfo]:
    model = PEAV.from_pretrained(options.model, trust=options.trust)
    settings = _settings(model, options)
    infos = []
    for kind, name in options.features.items():
        encoder = find_frontend(model, kind, name)
        frontend = encoder.frontends[kind]
        media = decode_choices(kind, settings)
        checksum = frontend_checksum(frontend.module)
        info = FeatureInfo(name, kind, frontend.dim, type(encoder).__name__, checksum, media)
        folder = data / "features" / name
        if (folder / "features.json").is_file():
            found = FeatureInfo.read(folder / "features.json")
            if replace(found, rows={}) != info:
                raise ValueError(
                    f"{folder} holds features of another frontend, or of media that were decoded otherwise: delete it to make them anew"
                )
            info = found
        else:
            info.write(folder)
        infos.append(info)
    return infos


class _Rows(Dataset[tuple[int, Clip | None, DecodedClip | str]]):
    """The packed media of a split by row, whole, whatever parts of them the manifest names."""

    def __init__(self, reader: ClipReader, clips: dict[int, Clip], kind: str) -> None:
        self.reader, self.clips, self.kind = reader, clips, kind

    def __getitem__(self, row: int) -> tuple[int, Clip | None, DecodedClip | str]:
        clip = self.clips.get(row)
        if clip is None:
            return row, None, ""
        has = clip.has_audio if self.kind == "audio" else clip.has_video
        settings = self.reader.settings
        decoded = DecodedClip(clip.id, clip.duration, settings.sample_rate)
        try:
            if has and self.kind == "audio":
                decoded = replace(decoded, samples=self.reader.samples(clip), has_audio=True)
            elif has:
                seconds = clip.duration / settings.frames(clip.duration, clip.is_still)
                decoded = replace(decoded, frames=self.reader.frames(clip), has_video=True, frame_seconds=seconds)
        except (MediaError, SampleError) as error:
            return row, clip, str(error)
        return row, clip, decoded


def _run(fabric: Fabric, data: Path, options: ExtractOptions, progress: bool) -> None:
    model = PEAV.from_pretrained(options.model, trust=options.trust)
    settings = _settings(model, options)
    for kind, name in options.features.items():
        encoder = find_frontend(model, kind, name).to(fabric.device).eval()
        info = FeatureInfo.read(data / "features" / name / "features.json")
        for path in sorted((data / "manifest").glob("*.jsonl")):
            if path.stem not in info.rows:
                _extract(fabric, data, path, kind, encoder, settings, options, info, progress)
    fabric.barrier()


def _extract(
    fabric: Fabric,
    data: Path,
    manifest: Path,
    kind: str,
    encoder: Encoder,
    settings: DecodeSettings,
    options: ExtractOptions,
    info: FeatureInfo,
    progress: bool,
) -> None:
    split = manifest.stem
    folder = data / "features" / info.name / split
    clips = _whole_clips(manifest, split)
    total = max(clips) + 1 if clips else 0
    done = finished_segments(folder)
    mine = [s for s in range(_segments(total)) if s % fabric.world_size == fabric.global_rank and s not in done]
    rows = [
        row for segment in mine for row in range(segment * ROWS_PER_CHUNK, min((segment + 1) * ROWS_PER_CHUNK, total))
    ]
    dataset = _Rows(ClipReader(str(data), settings), clips, kind)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=[rows[start : start + options.batch_size] for start in range(0, len(rows), options.batch_size)],
        num_workers=options.num_workers,
        collate_fn=list,
        worker_init_fn=init_worker,
    )
    kept: dict[int, list[FeatureRow]] = {}
    rejects = folder.with_name(f"{split}-rejects-{fabric.global_rank}.jsonl")
    with tracked(f"{info.name} of {split}", len(rows), progress and fabric.is_global_zero) as advance:
        for items in loader:
            for row, made in _features(items, kind, encoder, fabric, info.dim, rejects):
                segment = row // ROWS_PER_CHUNK
                kept.setdefault(segment, []).append(made)
                if len(kept[segment]) == min(ROWS_PER_CHUNK, total - segment * ROWS_PER_CHUNK):
                    write_segment(folder, segment, kept.pop(segment))
                advance()


def _features(
    items: list[tuple[int, Clip | None, DecodedClip | str]],
    kind: str,
    encoder: Encoder,
    fabric: Fabric,
    dim: int,
    rejects: Path,
) -> Iterator[tuple[int, FeatureRow]]:
    """Runs the frontend on those clips of a batch that have the medium."""
    has = [
        index
        for index, (_, _, decoded) in enumerate(items)
        if isinstance(decoded, DecodedClip) and (decoded.has_audio if kind == "audio" else decoded.has_video)
    ]
    made: dict[int, tuple[Tensor, float]] = {}
    problems = {index: decoded for index, (_, _, decoded) in enumerate(items) if isinstance(decoded, str) and decoded}
    if has:
        batch: Batch = collate([decoded for index in has if isinstance(decoded := items[index][2], DecodedClip)])
        with torch.inference_mode(), fabric.autocast():
            features: CachedFeatures = encoder.frontend_features(kind, fabric.to_device(batch).read(kind))
        seconds = torch.as_tensor(features.frame_seconds).expand(len(has)).tolist()
        for index, values, mask, hop in zip(has, features.values, features.mask, seconds, strict=True):
            if bool(torch.isfinite(values[mask].half()).all()):
                made[index] = values[mask], hop
            else:
                problems[index] = "its features are not finite in fp16"
    for index, (row, clip, _) in enumerate(items):
        values, hop = made.get(index, (torch.zeros(0, dim), 1.0))
        if index in problems and clip is not None:
            with rejects.open("a", encoding="utf-8") as stream:
                reject = {"id": clip.id, "row": row, "reason": problems[index]}
                stream.write(json.dumps(reject, ensure_ascii=False) + "\n")
        yield row, FeatureRow(clip.id if clip else "", values, hop, clip.crc32 if clip else 0)


def _whole_clips(manifest: Path, split: str) -> dict[int, Clip]:
    """Returns the packed media by row, as one clip each."""
    clips: dict[int, Clip] = {}
    for _, clip in iter_manifest(manifest):
        if clip.store == f"shards/{split}" and clip.row not in clips:
            clips[clip.row] = replace(clip, start=clip.media_start, duration=clip.media_duration)
    return clips


def _rows(manifest: Path) -> int:
    return int(open_manifest(manifest.parents[1], manifest.stem).index.row.max(initial=-1)) + 1


def _segments(rows: int) -> int:
    return -(-rows // ROWS_PER_CHUNK)
