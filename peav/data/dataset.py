"""Prepared clips, by row: only the fields that something reads are decoded."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from peav.data.cache import DecodedCache
from peav.data.manifest import cut_events, load_manifest, shards_path
from peav.data.media import Downmix, MediaError, Sampling, count_frames, load_audio, load_frames
from peav.data.records import Event
from peav.data.shards import Sample, ShardError, ShardReader
from peav.types import BATCH_FIELDS, CAPTION_TYPES, Seconds


@dataclass(frozen=True)
class ClipEntry:
    """What the manifest says about a clip; see `peav.data.manifest` for the fields."""

    id: str
    row: int
    duration: Seconds
    captions: dict[str, tuple[str, ...]]
    events: tuple[Event, ...] | None
    has_audio: bool
    has_video: bool
    audio_group: int
    video_group: int
    origins: dict[str, Seconds]
    crc32: int
    transcript: str | None
    domain: str

    def origin(self, kind: str) -> Seconds:
        """Returns time zero of the media that hold `audio` or `video`, on their own clock."""
        return self.origins[kind] if kind in self.origins else self.origins["media"]


@dataclass(frozen=True)
class Clip:
    """A decoded clip, before it joins a batch. A field that nothing reads is None.

    Attributes:
        id: its name.
        duration: seconds.
        sample_rate: of `samples`, Hz.
        samples: (S,) float32, zeros if the clip has no audio.
        has_audio: whether it has.
        audio_group: identity of its audio; -1 if it has none.
        frames: (F, 3, H, W) uint8, zeros if the clip has no video.
        has_video: whether it has.
        video_group: identity of its video; -1 if it has none.
        frame_seconds: time between two frames.
        captions: one text for each caption type that is read, None where the clip has none.
        events: its events, empty when it has none.
        annotated: whether its events are known; None when nothing reads events.
    """

    id: str
    duration: Seconds
    sample_rate: int
    samples: Tensor | None
    has_audio: bool
    audio_group: int
    frames: Tensor | None
    has_video: bool
    video_group: int
    frame_seconds: Seconds
    captions: dict[str, str | None]
    events: tuple[Event, ...]
    annotated: bool | None


def check_fields(fields: Collection[str]) -> frozenset[str]:
    """Returns batch fields as a set.

    Raises:
        ValueError: if one is unknown.
    """
    for name in fields:
        if name not in BATCH_FIELDS:
            close = difflib.get_close_matches(name, BATCH_FIELDS, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ";"
            raise ValueError(f"unknown batch field {name!r}{hint} the fields are {', '.join(BATCH_FIELDS)}")
    return frozenset(fields)


class ClipDataset(Dataset[Clip]):
    """The clips of a split. `dataset[row]` is a clip with its first captions; `dataset[epoch, row]` chooses among its captions.

    The choice is a function of (seed, epoch, row), so it is the same for any number of workers, ranks and restarts.

    Args:
        data: folder that `peav prepare` wrote.
        split: `train`, `validation` or `test`.
        fields: names out of `peav.types.BATCH_FIELDS` to decode.
        sample_rate: of the audio, Hz.
        num_frames: frames a clip, or
        fps: frames a second.
        frame_size: (H, W) of the frames, or one number for both.
        downmix: `meta` or `mean`, see `load_audio`.
        sampling: `time` or `index`, see `load_frames`.
        seed: of captions and pairings.
        shuffle_pairing: a control experiment: each clip keeps its audio and events, but gets the video of another clip and
            the captions of a third.
        cache_megabytes: memory for decoded audio and frames, shared by the workers; 0 for none.

    Raises:
        FileNotFoundError: if the split was not prepared.
        ShardError: if shards and manifest do not have the same number of clips.
    """

    def __init__(
        self,
        data: str | Path,
        split: str,
        fields: Collection[str] = BATCH_FIELDS,
        sample_rate: int = 16000,
        num_frames: int | None = 8,
        fps: float | None = None,
        frame_size: int | tuple[int, int] = 64,
        downmix: Downmix = "meta",
        sampling: Sampling = "time",
        seed: int = 0,
        shuffle_pairing: bool = False,
        cache_megabytes: int = 0,
    ) -> None:
        self.fields = check_fields(fields)
        self.sample_rate = sample_rate
        self.num_frames = num_frames if fps is None else None
        self.fps = fps
        self.frame_size = (frame_size, frame_size) if isinstance(frame_size, int) else frame_size
        self.downmix = downmix
        self.sampling = sampling
        self.seed = seed
        self.entries = read_entries(data, split)
        self.reader = ShardReader(shards_path(Path(data), split))
        self.video_rows, self.caption_rows = pairing(len(self.entries), seed, shuffle_pairing)
        count_frames(1.0, self.num_frames, fps)
        # Audio and frames of a clip are asked for one after the other.
        self._last: tuple[int, Sample] | None = None
        self._audio_cache, self._video_cache = self._caches(cache_megabytes << 20)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int | tuple[int, int]) -> Clip:
        epoch, row = index if isinstance(index, tuple) else (None, index)
        entry = self.entries[row]
        video = self.entries[self.video_rows[row]]
        texts = self.entries[self.caption_rows[row]]
        samples = frames = None
        if "audio" in self.fields:
            samples = self._samples(row)
        if "video" in self.fields:
            # The frames span the clip that they come from, which is another one under shuffle_pairing.
            frames = self._frames(self.video_rows[row])
        return Clip(
            id=entry.id,
            duration=entry.duration,
            sample_rate=self.sample_rate,
            samples=samples,
            has_audio=entry.has_audio,
            audio_group=entry.audio_group,
            frames=frames,
            has_video=video.has_video,
            video_group=video.video_group,
            frame_seconds=video.duration / count_frames(video.duration, self.num_frames, self.fps),
            captions=self._captions(texts, epoch, row),
            events=entry.events or () if "events" in self.fields else (),
            annotated=entry.events is not None if "events" in self.fields else None,
        )

    def _captions(self, entry: ClipEntry, epoch: int | None, row: int) -> dict[str, str | None]:
        # One number a type is drawn whether or not it is read, so that the choice does not depend on the fields.
        draws = (
            np.zeros(len(CAPTION_TYPES))
            if epoch is None
            else np.random.default_rng([self.seed, epoch, row]).random(len(CAPTION_TYPES))
        )
        chosen: dict[str, str | None] = {}
        for kind, draw in zip(CAPTION_TYPES, draws, strict=True):
            if f"captions.{kind}" in self.fields:
                texts = entry.captions.get(kind, ())
                chosen[kind] = texts[int(draw * len(texts))] if texts else None
        return chosen

    def _read(self, row: int) -> Sample:
        if self._last is not None and self._last[0] == row:
            return self._last[1]
        entry = self.entries[row]
        sample = self.reader.read(entry.row, entry.id)
        if sample.crc32 != entry.crc32:
            raise ShardError(
                f"clip {entry.id!r}: shards and manifest have different checksums; they come from different runs of `peav prepare`"
            )
        self._last = (row, sample)
        return sample

    def _samples(self, row: int) -> Tensor:
        entry = self.entries[row]
        if not entry.has_audio:
            return torch.zeros(round(entry.duration * self.sample_rate))

        def decode() -> Tensor:
            source = self._read(row).source("audio")
            name = f"audio of clip {entry.id!r}"
            samples = load_audio(
                source, self.sample_rate, 0.0, entry.duration, self.downmix, path=f"audio of clip {entry.id!r}"
            )
            if not bool(torch.isfinite(samples).all()):
                raise MediaError(name, "holds NaN or infinite samples")
            return samples

        return self._audio_cache.get(row, decode) if self._audio_cache is not None else decode()

    def _frames(self, row: int) -> Tensor:
        entry = self.entries[row]
        count = count_frames(entry.duration, self.num_frames, self.fps)
        if not entry.has_video:
            return torch.zeros(count, 3, *self.frame_size, dtype=torch.uint8)

        def decode() -> Tensor:
            source = self._read(row).source("video")
            name = f"video of clip {entry.id!r}"
            origin = entry.origin("video")
            span = {"start": 0.0, "duration": entry.duration, "origin": origin}
            return load_frames(source, count, size=self.frame_size, sampling=self.sampling, path=name, **span)[0]

        return self._video_cache.get(row, decode) if self._video_cache is not None else decode()

    def _caches(self, max_bytes: int) -> tuple[DecodedCache | None, DecodedCache | None]:
        if not max_bytes:
            return None, None
        audio: list[tuple[int, ...] | None] = [
            (round(entry.duration * self.sample_rate),) if entry.has_audio and "audio" in self.fields else None
            for entry in self.entries
        ]
        video: list[tuple[int, ...] | None] = [
            (count_frames(entry.duration, self.num_frames, self.fps), 3, *self.frame_size)
            if entry.has_video and "video" in self.fields
            else None
            for entry in self.entries
        ]
        # Frames first: a byte of them costs more to decode than a byte of audio.
        frames = DecodedCache(video, torch.uint8, max_bytes)
        return DecodedCache(audio, torch.float32, max_bytes - frames.num_bytes), frames


def read_entries(data: str | Path, split: str) -> list[ClipEntry]:
    """Reads what the manifest of a split says about its clips, in the order of their rows.

    Raises:
        FileNotFoundError: if the split was not prepared.
        ShardError: if two clips claim one row, or a row is missing.
    """
    entries = []
    for cut in load_manifest(data, split):
        custom = cut.custom
        entries.append(
            ClipEntry(
                id=cut.id,
                row=custom["row"],
                duration=cut.duration,
                captions={kind: tuple(texts) for kind, texts in custom["captions"].items()},
                events=cut_events(cut),
                has_audio=custom["has_audio"],
                has_video=custom["has_video"],
                audio_group=custom["audio_group"],
                video_group=custom["video_group"],
                origins=custom["origins"],
                crc32=custom["crc32"],
                transcript=custom["transcript"],
                domain=custom["domain"],
            )
        )
    if len({entry.row for entry in entries}) != len(entries):
        raise ShardError(f"the manifest of split {split!r} in {data} gives one row to two clips")
    return sorted(entries, key=lambda entry: entry.row)


def pairing(rows: int, seed: int, shuffle: bool) -> tuple[list[int], list[int]]:
    """Returns, for each row, the rows that its video and its captions come from: its own, or two others, different from each other.

    >>> pairing(3, 0, shuffle=False)
    ([0, 1, 2], [0, 1, 2])
    >>> videos, captions = pairing(5, 0, shuffle=True)
    >>> all(len({row, videos[row], captions[row]}) == 3 for row in range(5)), sorted(videos) == sorted(captions) == list(range(5))
    (True, True)
    """
    own = list(range(rows))
    if not shuffle:
        return own, list(own)
    if rows < 3:
        raise ValueError(f"shuffle_pairing takes audio, video and captions from three clips, but there are {rows}")
    order = np.random.default_rng([seed, 3]).permutation(rows)
    videos, captions = np.empty(rows, int), np.empty(rows, int)
    # A turn of a random circle has no fixed point.
    videos[order], captions[order] = np.roll(order, 1), np.roll(order, 2)
    return videos.tolist(), captions.tolist()
