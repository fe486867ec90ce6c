"""What a media file holds, read without decoding it: its streams, their clocks, and what misleads a seek.

Time zero of a file is its origin: 0, or the start of its earliest stream where every stream starts later (MPEG-TS starts at 1.4
s, say).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from peav.data.media.decoders import audio_decoder, video_decoder
from peav.data.media.errors import MediaError
from peav.data.media.headers import Sound, container
from peav.data.media.playlists import refusal
from peav.data.media.tracks import STILL_CODECS, Pictures, judge_audio, judge_video, moving_track, sound_span
from peav.types import Seconds

if TYPE_CHECKING:
    from torchcodec.decoders import VideoStreamMetadata

Source = str | Path | bytes
_T = TypeVar("_T")

#: Pictures of more pixels are not decoded: one of 16K by 9K has 142 million, and takes half a gigabyte.
MAX_PIXELS = 1 << 28

#: A stream that falls short of its header by no more than this many seconds is complete.
INEXACT_SECONDS = 0.1


@dataclass(frozen=True)
class AudioStream:
    """The audio of a file: rate in Hz, channels, and start and duration in seconds on the clock of the file.

    It is stream `index` of the file. `sound` says how torchcodec does with it (`peav.data.media.headers.Sound`); it is `wide`
    where its samples have more than 16 bits.
    """

    sample_rate: int
    num_channels: int
    start: Seconds
    duration: Seconds
    codec: str
    index: int = 0
    sound: Sound = "exact"
    wide: bool = True


@dataclass(frozen=True)
class VideoStream:
    """The video of a file: frames, mean rate, size in pixels, and start and duration in seconds on the clock of the file.

    It is stream `index` of the file, and `trimmed` where an edit list hides pictures. `pictures` says how torchcodec does with it; it is
    an `image` where Pillow reads it (`peav.data.media.stills`).
    """

    num_frames: int
    fps: float
    height: int
    width: int
    start: Seconds
    duration: Seconds
    codec: str
    trimmed: bool = False
    index: int = 0
    pictures: Pictures = "plain"
    image: bool = False

    @property
    def still(self) -> bool:
        """Whether it is a still picture, which is seen for as long as the clip lasts."""
        return self.image and self.num_frames == 1


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds; a stream that it lacks is None.

    Attributes:
        audio: the audio stream.
        video: the video stream.
        origin: time zero of the file on its own clock, seconds.
        duration: seconds from the origin to the end of the last stream.
    """

    audio: AudioStream | None
    video: VideoStream | None
    origin: Seconds
    duration: Seconds

    def index(self, kind: str) -> int:
        """Returns the index of the `audio` or `video` stream in the file."""
        stream = self.audio if kind == "audio" else self.video
        return 0 if stream is None else stream.index

    @property
    def begin(self) -> Seconds:
        """The first time stamp of the file, from which FFmpeg counts; encoder delay puts that before 0."""
        return min(stream.start for stream in (self.audio, self.video) if stream is not None)


def probe(
    source: Source,
    path: str | None = None,
    origin: Seconds | None = None,
    kinds: Collection[str] = ("audio", "video"),
) -> MediaInfo:
    """Reads what a file holds without decoding it; the packets of the video are counted, and those of sound that its header does not tell.

    Args:
        source: path or bytes.
        path: name for errors; the path itself by default.
        origin: time zero on the clock of the file, where it is known, as it is of a span that we cut; by the rule of this module
            by default.
        kinds: streams to look at, of `audio` and `video`.

    Raises:
        MediaError: if the file is empty, cannot be opened or holds neither audio nor video.
    """
    path = source_name(source, path)
    if not (len(source) if isinstance(source, bytes) else Path(source).stat().st_size):
        raise MediaError(path, "zero bytes")
    video = _probe_video(source, path) if "video" in kinds else None
    audio = _probe_audio(source, path) if "audio" in kinds else None
    if video is not None and video.num_frames <= 1 and video.codec in STILL_CODECS:
        moving = None if isinstance(source, bytes) else moving_track(source)
        if moving is not None:
            video = _probe_video(source, path, moving)
            video = None if video is None else replace(video, pictures="copy")
        elif audio is not None:
            video = None
    streams = [stream for stream in (audio, video) if stream is not None]
    if not streams:
        raise MediaError(path, "holds neither audio nor video" if len(kinds) == 2 else f"holds no {min(kinds)}")
    if origin is None:
        origin = max(0.0, min(stream.start for stream in streams))
    return MediaInfo(audio, video, origin, max(stream.start + stream.duration for stream in streams) - origin)


def misleads_seek(source: Source) -> bool:
    """Returns whether a file is MPEG-TS or MPEG-PS.

    With B-frames torchcodec 0.11 shows wrong pictures of them after a seek, without an error; FFmpeg's command line does not.
    """
    return container(source) == "mpeg"


def is_trimmed(metadata: VideoStreamMetadata) -> bool:
    """Returns whether an edit list hides pictures, as `ffmpeg -ss T -c copy` leaves them.

    Where the hidden ones hold the key frame, torchcodec 0.11 shows the next key frame in place of all pictures before it.
    """
    announced, end = metadata.num_frames_from_header, metadata.duration_seconds_from_header
    if announced is None or end is None or (metadata.num_frames or 0) >= announced:
        return False
    # A file that was cut short lacks pictures too, but at its end.
    end += metadata.begin_stream_seconds_from_header or 0.0
    return (metadata.end_stream_seconds or 0.0) >= end - INEXACT_SECONDS


def first_line(error: Exception) -> str:
    """Returns the first line of torchcodec's message, without the path of its source file; one for its own makers is put in words."""
    text = str(error)
    if "should never happen" in text or "Please report" in text or "please report" in text:
        return "FFmpeg finds neither frames nor samples in it (is it whole? `ffprobe FILE` says what it takes it for)"
    lines = text.strip().splitlines()
    return re.sub(r"^.*\.cpp:\d+, ", "", lines[0]) if lines else type(error).__name__


def source_name(source: Source, path: str | None) -> str:
    """Returns the name of a source for errors: `path` where it is given."""
    return path or ("<bytes>" if isinstance(source, bytes) else str(source))


def open_decoder(decoder: Callable[..., _T], source: Source, path: str, **options: object) -> _T | None:
    """Opens a file with `audio_decoder` or `video_decoder`; None where it holds no such stream.

    Raises:
        MediaError: if it cannot be opened; `path` names it.
    """
    kind = stream_kind(decoder)
    if (reason := refusal(source)) is not None:
        raise MediaError(path, reason)
    try:
        # A relative path such as `http:/x` would be an address to FFmpeg.
        opened = decoder(source if isinstance(source, bytes) else os.path.abspath(source), **options)
    except (ValueError, RuntimeError) as error:
        if f"best {kind} stream is unknown" in str(error) or f"No valid {kind} stream" in str(error):
            return None
        raise MediaError(path, f"cannot be opened: {first_line(error)}") from error
    metadata: Any = getattr(opened, "metadata", None)
    height, width = getattr(metadata, "height", None) or 0, getattr(metadata, "width", None) or 0
    if height * width > MAX_PIXELS:
        raise MediaError(
            path, f"has pictures of {width:,} x {height:,} pixels, more than {MAX_PIXELS:,} are not decoded"
        )
    return opened


def stream_kind(decoder: Callable[..., object]) -> str:
    """Returns what a decoder decodes, `audio` or `video`."""
    return "audio" if decoder is audio_decoder else "video"


def _probe_audio(source: Source, path: str) -> AudioStream | None:
    decoder = open_decoder(audio_decoder, source, path)
    if decoder is None:
        return None
    metadata = decoder.metadata
    start = metadata.begin_stream_seconds_from_header or 0.0
    duration = float(metadata.duration_seconds or 0.0)
    if metadata.duration_seconds_from_header is None:
        # Matroska knows the duration of the file alone, which counts from 0 and not from the stream's start.
        duration = max(0.0, duration - max(0.0, start))
    codec, index = metadata.codec or "", metadata.stream_index or 0
    sound: Sound = "exact"
    if not isinstance(source, bytes):
        sound = judge_audio(source, codec, index, duration)
        if sound == "odd":
            start, duration = sound_span(source, index, start, duration)
    return AudioStream(
        sample_rate=metadata.sample_rate or 0,
        num_channels=metadata.num_channels or 0,
        start=start,
        duration=duration,
        codec=codec,
        index=index,
        sound=sound,
        wide=metadata.sample_format not in ("u8", "u8p", "s16", "s16p"),
    )


def _probe_video(source: Source, path: str, index: int | None = None) -> VideoStream | None:
    decoder = open_decoder(video_decoder, source, path, num_ffmpeg_threads=1, seek_mode="exact", stream_index=index)
    if decoder is None:
        return None
    metadata = decoder.metadata
    start = metadata.begin_stream_seconds or 0.0
    trimmed, codec = is_trimmed(metadata), metadata.codec or ""
    return VideoStream(
        num_frames=metadata.num_frames or 0,
        fps=float(metadata.average_fps or 0.0),
        height=metadata.height or 0,
        width=metadata.width or 0,
        start=start,
        duration=(metadata.end_stream_seconds or 0.0) - start,
        codec=codec,
        trimmed=trimmed,
        index=metadata.stream_index or 0,
        pictures="plain" if isinstance(source, bytes) else judge_video(source, codec, trimmed),
    )
