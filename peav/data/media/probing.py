"""What a media file holds, read without decoding it: its streams, their clocks, and what misleads a seek.

Time zero of a file is its origin: 0, or the start of its earliest stream where every stream starts later (MPEG-TS starts at 1.4
s, say).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torchcodec.decoders import AudioDecoder, VideoDecoder, VideoStreamMetadata

from peav.data.media.playlists import refusal
from peav.types import Seconds

Source = str | Path | bytes
_T = TypeVar("_T")

#: Codecs of still images: a single such picture beside sound is cover art, not a video.
_STILL_CODECS = ("mjpeg", "png", "bmp", "gif", "webp", "tiff")

#: Pictures of more pixels are not decoded: one of 16K by 9K has 142 million, and takes half a gigabyte.
MAX_PIXELS = 1 << 28

#: A stream that falls short of its header by no more than this many seconds is complete.
INEXACT_SECONDS = 0.1


class MediaError(RuntimeError):
    """A file that cannot be decoded or does not hold what it says; carries its path and the reason.

    >>> str(MediaError("a.mp4", "zero bytes"))
    'a.mp4: zero bytes'
    """

    def __init__(self, path: str, reason: str = "") -> None:
        super().__init__(f"{path}: {reason}" if reason else path)
        self.path = path
        self.reason = reason


@dataclass(frozen=True)
class AudioStream:
    """The audio of a file: rate in Hz, channels, and start and duration in seconds on the clock of the file."""

    sample_rate: int
    num_channels: int
    start: Seconds
    duration: Seconds
    codec: str


@dataclass(frozen=True)
class VideoStream:
    """The video of a file: frames, mean rate, size in pixels, and start and duration in seconds on the clock of the file.

    It is `trimmed` where an edit list hides pictures.
    """

    num_frames: int
    fps: float
    height: int
    width: int
    start: Seconds
    duration: Seconds
    codec: str
    trimmed: bool = False


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


def probe(source: Source, path: str | None = None, origin: Seconds | None = None) -> MediaInfo:
    """Reads what a file holds without decoding it; the packets of the video are counted.

    Args:
        source: path or bytes.
        path: name for errors; the path itself by default.
        origin: time zero on the clock of the file, where it is known, as it is of a span that we cut; by the rule of this module
            by default.

    Raises:
        MediaError: if the file is empty, cannot be opened or holds neither audio nor video.
    """
    path = source_name(source, path)
    if not (len(source) if isinstance(source, bytes) else Path(source).stat().st_size):
        raise MediaError(path, "zero bytes")
    video = _probe_video(source, path)
    audio = _probe_audio(source, path)
    if audio is not None and video is not None and video.num_frames <= 1 and video.codec in _STILL_CODECS:
        video = None
    streams = [stream for stream in (audio, video) if stream is not None]
    if not streams:
        raise MediaError(path, "holds neither audio nor video")
    if origin is None:
        origin = max(0.0, min(stream.start for stream in streams))
    return MediaInfo(audio, video, origin, max(stream.start + stream.duration for stream in streams) - origin)


def misleads_seek(source: Source) -> bool:
    """Returns whether a file is MPEG-TS or MPEG-PS.

    With B-frames torchcodec 0.11 shows wrong pictures of them after a seek, without an error; FFmpeg's command line does not.
    """
    if isinstance(source, bytes):
        head = source[:400]
    else:
        with open(source, "rb") as stream:
            head = stream.read(400)
    # TS has packets of 188 bytes that begin with 0x47, before each of which Blu-ray and AVCHD put 4 bytes.
    packets = (head[begin : begin + size + 1 : size] for begin, size in ((0, 188), (4, 192)))
    return b"\x47\x47" in packets or head.startswith(b"\x00\x00\x01\xba")


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
    """Returns the first line of torchcodec's message, without the path of its source file."""
    lines = str(error).strip().splitlines()
    return re.sub(r"^.*\.cpp:\d+, ", "", lines[0]) if lines else type(error).__name__


def source_name(source: Source, path: str | None) -> str:
    """Returns the name of a source for errors: `path` where it is given."""
    return path or ("<bytes>" if isinstance(source, bytes) else str(source))


def open_decoder(decoder: Callable[..., _T], source: Source, path: str, **options: object) -> _T | None:
    """Opens a file with torchcodec's `AudioDecoder` or `VideoDecoder`; None where it holds no such stream.

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
    return "audio" if decoder is AudioDecoder else "video"


def _probe_audio(source: Source, path: str) -> AudioStream | None:
    decoder = open_decoder(AudioDecoder, source, path)
    if decoder is None:
        return None
    metadata = decoder.metadata
    start = metadata.begin_stream_seconds_from_header or 0.0
    duration = float(metadata.duration_seconds or 0.0)
    if metadata.duration_seconds_from_header is None:
        # Matroska knows the duration of the file alone, which counts from 0 and not from the stream's start.
        duration = max(0.0, duration - max(0.0, start))
    return AudioStream(
        sample_rate=metadata.sample_rate or 0,
        num_channels=metadata.num_channels or 0,
        start=start,
        duration=duration,
        codec=metadata.codec or "",
    )


def _probe_video(source: Source, path: str) -> VideoStream | None:
    decoder = open_decoder(VideoDecoder, source, path, num_ffmpeg_threads=1, seek_mode="exact")
    if decoder is None:
        return None
    metadata = decoder.metadata
    start = metadata.begin_stream_seconds or 0.0
    return VideoStream(
        num_frames=metadata.num_frames or 0,
        fps=float(metadata.average_fps or 0.0),
        height=metadata.height or 0,
        width=metadata.width or 0,
        start=start,
        duration=(metadata.end_stream_seconds or 0.0) - start,
        codec=metadata.codec or "",
        trimmed=is_trimmed(metadata),
    )
