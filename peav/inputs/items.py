"""Items to embed: the audio and video that belong together, split into windows, and windows joined into batches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from peav.checkpoints import MediaSettings
from peav.data.media.probing import MediaError, MediaInfo
from peav.data.media.stills import Animations, cover_art, probe_media
from peav.inputs.audio import Audio, AudioLike, FileAudio, read_audio
from peav.inputs.video import FilePicture, FileVideo, Video, VideoLike, file_video, read_video
from peav.inputs.windows import Window
from peav.masking import lengths_to_mask
from peav.types import CAPTION_TYPES, AudioInput, Batch, EventInput, Seconds, TextInput, VideoInput

#: A medium that ends within this many seconds of the start of a window has no part in it.
_SHORTEST_PART = 1e-3

#: What a frame without time counts for when windows are grouped, in frames a second.
_NOMINAL_FPS = 25.0


@dataclass(frozen=True)
class MediaItem:
    """Audio and video that belong together, or one of them."""

    audio: Audio | None = None
    video: Video | None = None

    @property
    def seconds(self) -> Seconds | None:
        """The duration of the longer one; None for frames of which nobody knows it."""
        known = [medium.seconds for medium in (self.audio, self.video) if medium is not None]
        return max((seconds for seconds in known if seconds is not None), default=None)


@dataclass(frozen=True)
class Loaded:
    """A decoded window, as arrays that travel cheaply between processes.

    Attributes:
        samples: (S,) float32; None where there is no sound, or it has ended before the window begins.
        frames: (F, 3, H, W) uint8, or None.
        frame_seconds: between two frames; NaN where unknown.
    """

    samples: np.ndarray | None = None
    frames: np.ndarray | None = None
    frame_seconds: Seconds = float("nan")


@dataclass(frozen=True)
class Request:
    """A window of an item, to be decoded here or in another process.

    Attributes:
        row: of the item.
        item: the item.
        window: the span.
        media: what a clip looks like to the model.
    """

    row: int
    item: MediaItem
    window: Window
    media: MediaSettings

    def covered(self, name: str) -> Seconds:
        """Returns how many seconds of the window `audio` or `video` fills; 0 where it is missing or has ended."""
        medium: Audio | Video | None = getattr(self.item, name)
        if medium is None:
            return 0.0
        if self.window.whole or medium.seconds is None:
            return medium.seconds or self._nominal_seconds
        part = min(self.window.start + self.window.seconds, medium.seconds) - self.window.start
        return part if part > _SHORTEST_PART else 0.0

    @property
    def cost_seconds(self) -> Seconds:
        """What the window counts for in a group."""
        return self.window.seconds or self._nominal_seconds

    @property
    def decoded_bytes(self) -> int:
        """About how many bytes the decoded window takes."""
        samples = self.covered("audio") * self.media.sample_rate
        frames = 0.0
        if self.item.video is not None:
            fps = self.media.fps or (self.item.video.fps if isinstance(self.item.video, FileVideo) else _NOMINAL_FPS)
            still = isinstance(self.item.video, FilePicture)
            frames = self.media.num_frames or (1 if still else fps * self.covered("video"))
        return int(4 * samples + 3 * self.media.frame_size**2 * frames)

    @property
    def _nominal_seconds(self) -> Seconds:
        frames = getattr(self.item.video, "frames", (None,))  # a picture is one
        return len(frames) / _NOMINAL_FPS

    def load(self) -> Loaded:
        """Decodes what the window holds.

        Raises:
            MediaError: if a file cannot be decoded.
            ValueError: if it holds NaN, or nothing.
        """
        samples = frames = None
        seconds = float("nan")
        if self.item.audio is not None and self.covered("audio"):
            heard = self.item.audio.load(self.media, self.window)
            samples = heard.numpy() if len(heard) > _SHORTEST_PART * self.media.sample_rate else None
        if self.item.video is not None and self.covered("video"):
            pixels, seconds = self.item.video.load(self.media, self.window)
            frames = pixels.numpy()
        return Loaded(samples, frames, seconds)


def read_items(
    audio: AudioLike | Sequence[AudioLike] | None,
    video: VideoLike | Sequence[VideoLike] | None,
    sample_rate: int | None = None,
) -> list[MediaItem]:
    """Looks at the media that a user gives; files are opened, but not decoded.

    Args:
        audio: a path, an array, or a list of these.
        video: a path, frames, or a list of these.
        sample_rate: of arrays of samples, Hz.

    Returns:
        the items, in order; none if nothing is given.

    Raises:
        ValueError: if something is no medium, or the numbers of sounds and videos differ.
        FileNotFoundError: if a file is not there.
        MediaError: if a file cannot be opened or lacks what it is given for.
    """
    known: dict[str, MediaInfo] = {}

    def probe_once(path: str, name: str) -> MediaInfo:
        if path not in known:
            known[path] = probe_file(path, name)
        return known[path]

    sounds: list[Audio] = []
    if audio is not None:
        sounds = read_audio(audio, sample_rate, probe_once)
    elif sample_rate is not None:
        raise ValueError(f"sample_rate={sample_rate} is the rate of arrays given as audio, but there is no audio")
    videos = read_video(video, probe_once) if video is not None else []
    if audio is None:
        return [MediaItem(None, one) for one in videos]
    if video is None:
        return [MediaItem(one, None) for one in sounds]
    if len(sounds) != len(videos):
        raise ValueError(
            f"{len(sounds)} audios and {len(videos)} videos: they belong together one by one; embed them in two calls if they do not"
        )
    # Frames without times last as long as the sound beside them.
    return [
        MediaItem(sound, one if one.seconds is not None else replace(one, seconds=sound.seconds))
        for sound, one in zip(sounds, videos, strict=True)
    ]


def items_of_arrays(samples: Sequence[np.ndarray], sample_rate: int) -> list[MediaItem]:
    """Returns sounds in memory, (S,) or (channels, S) at a sample rate, as items.

    Raises:
        ValueError: if one is no sound.
    """
    return read_items(list(samples), None, sample_rate)


def probe_file(path: str, name: str | None = None, animations: Animations = "first") -> MediaInfo:
    """Says what a file holds.

    Args:
        path: of the file.
        name: what the user calls it, for the message.
        animations: what is taken of a picture that moves: the `first`, or `all` as a video.

    Raises:
        FileNotFoundError: if it is not there.
        MediaError: if it is a folder, or no medium.
    """
    where = f" ({name})" if name else ""
    if Path(path).is_dir():
        raise MediaError(path, f"is a folder{where}: give a file, or a list of files")
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}{where}")
    return probe_media(path, animations=animations)


def item_of_file(path: str, info: MediaInfo, kinds: Collection[str], cover: bool = False) -> MediaItem:
    """Returns what a file holds of `audio` and `video`, as far as `kinds` asks for it.

    Args:
        path: of the file.
        info: what it holds.
        kinds: what is read, of `audio` and `video`.
        cover: whether the cover of a file of sound is its picture.

    Raises:
        MediaError: if it holds neither.
    """
    video = info.video if info.video is not None and info.video.num_frames else None
    held = [kind for kind, stream in (("audio", info.audio), ("video", video)) if stream is not None]
    audio_item = video_item = None
    still = video is not None and video.still
    if info.duration > 0 or still:
        if info.audio is not None and "audio" in kinds:
            audio_item = FileAudio(path, info.duration, path, info.origin, info.audio.sample_rate)
        if video is not None and "video" in kinds:
            video_item = file_video(path, info, video)
        if cover and video is None and "video" in kinds and cover_art(path) is not None:
            video_item = FilePicture(path, info.duration, path, cover=True)
    if audio_item is None and video_item is None:
        reason = f"holds only {' and '.join(held)}, and the model reads {' and '.join(sorted(kinds)) or 'text alone'}"
        raise MediaError(
            path, reason if held and (info.duration > 0 or still) else "holds nothing that lasts: its duration is 0 s"
        )
    return MediaItem(audio_item, video_item)


def make_batch(
    loaded: Sequence[Loaded], media: MediaSettings, texts: TextInput | None = None, types: Sequence[str] = CAPTION_TYPES
) -> Batch:
    """Joins decoded windows into a padded batch; a medium that no window has is None.

    Args:
        loaded: B windows.
        media: what a clip looks like to the model.
        texts: B texts, as captions of every type.
        types: the types that the model reads.
    """
    group = torch.arange(len(loaded))
    audio = video = None
    waves = [None if one.samples is None else torch.from_numpy(one.samples) for one in loaded]
    if any(wave is not None for wave in waves):
        lengths = torch.tensor([0 if wave is None else len(wave) for wave in waves])
        samples = _padded(waves, lengths, ())
        audio = AudioInput(samples, lengths_to_mask(lengths), lengths > 0, group, media.sample_rate)
    pictures = [None if one.frames is None else torch.from_numpy(one.frames) for one in loaded]
    if any(frames is not None for frames in pictures):
        lengths = torch.tensor([0 if frames is None else len(frames) for frames in pictures])
        frames = _padded(pictures, lengths, (3, media.frame_size, media.frame_size), torch.uint8)
        seconds = torch.tensor([one.frame_seconds for one in loaded], dtype=torch.float32)
        video = VideoInput(frames, lengths_to_mask(lengths), lengths > 0, group, seconds)
    ids = tuple(str(row) for row in range(len(loaded)))
    captions = {} if texts is None else dict.fromkeys(types, texts)
    return Batch(ids, audio, video, captions)


def text_batch(texts: TextInput, types: Sequence[str] = CAPTION_TYPES) -> Batch:
    """Makes a batch of texts alone: captions of these types and event phrases at once."""
    none, index = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    events = EventInput(texts, torch.zeros(0, dtype=torch.bool), index, index, none, none)
    return Batch(tuple(map(str, range(len(texts.present)))), captions=dict.fromkeys(types, texts), events=events)


def _padded(
    values: Sequence[Tensor | None], lengths: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    padded = torch.zeros(len(values), int(lengths.max()), *shape, dtype=dtype)
    for row, value in enumerate(values):
        if value is not None:
            padded[row, : len(value)] = value
    return padded
