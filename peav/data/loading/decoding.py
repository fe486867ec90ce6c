"""What a clip of a manifest looks like to a model: waveform and frames, or features that were made of them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import ABSENT, bytes_group
from peav.data.manifests.records import Event
from peav.data.media.decode import Downmix, Sampling, count_frames, load_audio, load_frames
from peav.data.media.probing import MediaError
from peav.data.media.stills import count_still_frames
from peav.data.stores.outside import open_address
from peav.data.stores.reader import SampleError, ShardReader
from peav.data.stores.remote import StoreOptions
from peav.data.stores.samples import Sample
from peav.fields import Field
from peav.types import Seconds

#: What a clip may take when it is decoded: eighteen hours of sound at 16 kHz.
MAX_CLIP_BYTES = 1 << 32


@dataclass(frozen=True)
class DecodeSettings:
    """How media are decoded.

    Attributes:
        sample_rate: of the audio, Hz.
        num_frames: frames a clip; None when `fps` is given.
        fps: frames a second.
        frame_size: (H, W) of the frames, pixels.
        downmix: `meta` or `mean`, see `load_audio`.
        sampling: `time` or `index`, see `load_frames`.
    """

    sample_rate: int = 16000
    num_frames: int | None = 8
    fps: float | None = None
    frame_size: tuple[int, int] = (64, 64)
    downmix: Downmix = "meta"
    sampling: Sampling = "time"

    def num_samples(self, duration: Seconds) -> int:
        """Returns the samples of a clip."""
        return round(duration * self.sample_rate)

    def frames(self, duration: Seconds, still: bool = False) -> int:
        """Returns the frames of a clip; those of a still picture do not depend on its duration."""
        if still:
            return count_still_frames(self.num_frames, self.sampling)
        return count_frames(duration, self.num_frames, self.fps)


@dataclass(frozen=True)
class Replacement:
    """A clip that could not be read in training, what came in its place, and why."""

    clip: str
    by: str
    reason: str


@dataclass(frozen=True)
class DecodedClip:
    """A clip before it joins a batch. A field that nothing reads is None.

    Attributes:
        id: its name.
        duration: seconds.
        sample_rate: of `samples`, Hz.
        samples: (S,) float32, zeros if the clip has no audio.
        audio_features: (T, C) in place of `samples`.
        has_audio: whether it has audio.
        audio_group: identity of its audio; -1 if it has none.
        frames: (F, 3, H, W) uint8, zeros if the clip has no video.
        video_features: (F, C) in place of `frames`.
        has_video: whether it has video.
        video_group: identity of its video; -1 if it has none.
        frame_seconds: time between two frames.
        audio_seconds: time between two audio features.
        captions: one text for each caption type that is read, None where the clip has none.
        events: its events, empty when it has none.
        annotated: whether its events are known; None when nothing reads events.
        vocabulary: the closed vocabulary that was annotated; "" where all else is absent, "open" where nothing else is known.
        bank: phrases, and their label ids, that were drawn from the phrase bank for its batch: the first clip brings them.
        seed: of what a frontend does at random to it; None outside training.
        replaces: clips that could not be read, in whose place it came.
        own: its fields of the user's own kinds that are read: what was decoded and its identity, None where the clip has none.
    """

    id: str
    duration: Seconds
    sample_rate: int = 16000
    samples: Tensor | None = None
    audio_features: Tensor | None = None
    has_audio: bool = False
    audio_group: int = ABSENT
    frames: Tensor | None = None
    video_features: Tensor | None = None
    has_video: bool = False
    video_group: int = ABSENT
    frame_seconds: Seconds = 1.0
    audio_seconds: Seconds = 1.0
    captions: dict[str, str | None] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    annotated: bool | None = None
    vocabulary: str = ""
    bank: tuple[tuple[str, str], ...] = ()
    seed: int | None = None
    replaces: tuple[Replacement, ...] = ()
    own: dict[str, tuple[Any, int] | None] = field(default_factory=dict)


def _check_bytes(name: str, clip: Clip, size: int) -> None:
    """Refuses a clip that its manifest says to last so long that it would fill the memory, whatever its media hold.

    Raises:
        MediaError: if it would take more than `MAX_CLIP_BYTES`.
    """
    if size > MAX_CLIP_BYTES:
        raise MediaError(
            name,
            f"lasts {clip.duration:,.0f} s and would take {size / 1e9:,.1f} GB, more than {MAX_CLIP_BYTES / 1e9:.1f} GB: cut it into "
            "shorter clips (peav prepare --chunk_seconds)",
        )


class ClipReader:
    """Reads the packed media of clips and decodes them. Opened at the first read, so that it can be handed to workers.

    Args:
        data: folder or address that relative stores start from.
        settings: of decoding.
        options: of object stores.
    """

    def __init__(self, data: str, settings: DecodeSettings, options: StoreOptions | None = None) -> None:
        self.data = data
        self.settings = settings
        self.options = options or StoreOptions()
        self.stores: dict[str, ShardReader] = {}
        # Audio and frames of a clip are asked for one after the other.
        self._last: tuple[tuple[str, int], Sample] | None = None

    def store(self, name: str) -> ShardReader:
        """Returns the reader of a store by its name in the manifest.

        Raises:
            OutsideStoreError: if it lies outside the folder of the data, and nobody said that it may be read.
        """
        if name not in self.stores:
            self.stores[name] = ShardReader(open_address(self.data, name, self.options), self.options)
        return self.stores[name]

    def sample(self, clip: Clip) -> Sample:
        """Returns the packed media of a clip.

        Raises:
            ShardError: if they are damaged, or are not those of the manifest.
            StoreError: if the store cannot be reached.
        """
        key = clip.store, clip.row
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        # The checksum knows the id that was packed; the clip's own may be another one.
        sample = self.store(clip.store).read(clip.row, crc32=clip.crc32, name=clip.id)
        self._last = key, sample
        return sample

    def samples(self, clip: Clip) -> Tensor:
        """Returns the waveform (S,) of a clip, zeros if it has none.

        Raises:
            MediaError: if it cannot be decoded, or holds NaN or infinite samples.
        """
        settings = self.settings
        name = f"audio of clip {clip.id!r}"
        _check_bytes(name, clip, 4 * settings.num_samples(clip.duration))
        if not clip.has_audio:
            return torch.zeros(settings.num_samples(clip.duration))
        samples = load_audio(
            self.sample(clip).source("audio"),
            settings.sample_rate,
            max(clip.offset, 0.0),
            clip.duration,
            settings.downmix,
            path=name,
            origin=clip.origin("audio"),
        )
        # The sum is ten times faster to look at; it may overflow where no sample does.
        if not math.isfinite(float(samples.sum())) and not bool(torch.isfinite(samples).all()):
            raise MediaError(name, "holds NaN or infinite samples")
        return samples

    def frames(self, clip: Clip) -> Tensor:
        """Returns the frames (F, 3, H, W) uint8 of a clip, zeros if it has none.

        Raises:
            MediaError: if they cannot be decoded.
        """
        settings = self.settings
        count, name = settings.frames(clip.duration, clip.is_still), f"video of clip {clip.id!r}"
        _check_bytes(name, clip, 3 * count * math.prod(settings.frame_size))
        if not clip.has_video:
            return torch.zeros(count, 3, *settings.frame_size, dtype=torch.uint8)
        return load_frames(
            self.sample(clip).source("video"),
            count,
            start=max(clip.offset, 0.0),
            duration=clip.duration,
            size=settings.frame_size,
            sampling=settings.sampling,
            path=name,
            origin=clip.origin("video"),
            animated=clip.is_animated,
        )[0]

    def own(self, clip: Clip, field: Field) -> tuple[Any, int] | None:
        """Returns what is decoded of a field of one's own kind, and the identity of what is stored; None if the clip has none.

        Raises:
            MediaError: if it cannot be decoded.
            SampleError: if the shards do not hold what the manifest says.
        """
        held = clip.own.get(field.name)
        if held is None:
            return None
        name = f"{field.name} of clip {clip.id!r}"
        if "value" in held:
            stored = held["value"]
        else:
            own = self.sample(clip).own
            if field.name not in own:
                raise SampleError(f"{name}: the shards do not hold it; prepare the data again")
            stored = own[field.name]
        try:
            if clip.is_part:
                stored = field.cut(stored, max(clip.offset, 0.0), clip.duration)
            data = stored if isinstance(stored, bytes) else json.dumps(stored, sort_keys=True).encode()
            return field.decode(stored, clip.duration), bytes_group(data)
        except Exception as error:  # whatever the code of a plugin raises: this clip cannot be read, others may
            raise MediaError(name, f"cannot be decoded: {type(error).__name__}: {error}") from error
