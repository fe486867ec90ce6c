"""Re-encoding clips so that training decodes little: small square frames with many key frames, and aligned sound of one rate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peav.data.media.checks import TOLERANCE_SECONDS, check_media
from peav.data.media.cutting import check_finite
from peav.data.media.probing import MediaError, MediaInfo, probe
from peav.data.media.spans import AUDIO_BEFORE, NOTHING_SECONDS, held_seconds, run_span, span_input
from peav.types import Seconds

#: How each audio codec is encoded, and what its files are called.
_AUDIO = {
    "flac": ("flac", ["-c:a", "flac", "-sample_fmt", "s16", "-compression_level", "5"]),
    "opus": ("ogg", ["-c:a", "libopus", "-b:a", "128k"]),
}


@dataclass(frozen=True)
class Normalize:
    """What clips are re-encoded to.

    Attributes:
        video_size: height and width of the frames, pixels; an even number.
        video_fps: frames a second, constant.
        gop: frames from one key frame to the next, at most.
        crf: quality of the video, of x264: lower is better and larger.
        audio_codec: `flac`, lossless at 16 bits, or `opus`, 128 kbit/s.
        audio_sample_rate: of flac, Hz; opus has 48000.

    Raises:
        ValueError: if a number or a name cannot be.
    """

    video_size: int = 336
    video_fps: float = 30.0
    gop: int = 16
    crf: int = 20
    audio_codec: Literal["flac", "opus"] = "flac"
    audio_sample_rate: int = 48000

    def __post_init__(self) -> None:
        if self.audio_codec not in _AUDIO:
            raise ValueError(f"audio_codec must be one of {', '.join(_AUDIO)}, got {self.audio_codec!r}")
        if self.video_size < 16 or self.video_size % 2:
            raise ValueError(f"video_size must be an even number of at least 16 pixels, got {self.video_size}")
        if self.video_fps <= 0 or self.gop < 1 or not 0 <= self.crf <= 51:
            raise ValueError(
                f"video_fps must be above 0, gop at least 1 and crf from 0 to 51, got {self.video_fps}, {self.gop}, {self.crf}"
            )
        if self.audio_codec == "opus" and self.audio_sample_rate != 48000:
            raise ValueError(f"opus has 48000 Hz, got audio_sample_rate={self.audio_sample_rate}")


def normalize_span(
    path: Path, info: MediaInfo, kind: str, stem: Path, start: Seconds, duration: Seconds, how: Normalize, name: str
) -> Path | None:
    """Re-encodes the sound or the picture of a span into a file of its own, which begins at the first instant of the span.

    What starts late is preceded by silence, or by its first frame; rotation is carried out; channels beyond two are mixed down.

    Args:
        path: the file.
        info: what it holds.
        kind: `audio` or `video`.
        stem: path of the result, without ending.
        start: seconds from the origin of the file.
        duration: seconds.
        how: the codecs.
        name: how errors call the file.

    Returns:
        The result; None if the stream holds nothing of the span.

    Raises:
        MediaError: if the file is damaged inside the span.
        OSError: if the disk is full.
    """
    if held_seconds(info, kind, start, duration) <= NOTHING_SECONDS[kind]:
        return None
    if kind == "audio":
        check_finite(path, name, info.origin + start, duration)
        ending, encoder = _AUDIO[how.audio_codec]
    else:
        ending, encoder = "mp4", []
    output = stem.with_name(f"{stem.name}-{kind}.{ending}")

    def command(before: Seconds) -> list[str]:
        ahead = before if kind == "video" else AUDIO_BEFORE
        source, filters = span_input(path, info, kind, start, duration, ahead)
        if kind == "video":
            filters += [f"fps=fps={how.video_fps:g}:start_time=0"]
            filters += [f"scale={how.video_size}:{how.video_size}:flags=bilinear", "setsar=1"]
            codec = ["-map", "0:V:0", "-vf", ",".join(filters), "-an"]
            codec += ["-c:v", "libx264", "-preset", "veryfast", "-crf", str(how.crf), "-g", str(how.gop), "-bf", "0"]
            codec += ["-pix_fmt", "yuv420p", "-threads", "1", "-f", "mp4"]
        else:
            channels = min(2, info.audio.num_channels) if info.audio is not None else 1
            filters += [f"aresample={how.audio_sample_rate}:async=1:first_pts=0"]
            codec = ["-map", "0:a:0", "-af", ",".join(filters), "-vn", "-ac", str(channels), *encoder, "-f", ending]
        codec += ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags", "+bitexact", "-y", f"file:{output}"]
        return ["-threads", "1", *source, *codec]

    error = run_span(path, start, command)
    if error:
        raise MediaError(name, f"the {kind} cannot be re-encoded: {error}")
    return output


def check_normalized(path: Path, kind: str, duration: Seconds, how: Normalize, name: str) -> MediaInfo:
    """Decodes a re-encoded file fully, and compares it with what it should hold.

    Args:
        path: the re-encoded file.
        kind: `audio` or `video`.
        duration: of the span, seconds.
        how: the codecs.
        name: how errors call the source.

    Returns:
        What it holds.

    Raises:
        MediaError: if it cannot be decoded, is longer than the span or has another number of frames than its duration says.
    """
    info = check_media(path, (kind,), 0.0, None, name, probe(path, name, origin=0.0))
    if info.duration > duration + TOLERANCE_SECONDS:
        raise MediaError(name, f"its {kind} is re-encoded to {info.duration:.2f} s, the clip has {duration:.2f} s")
    if info.video is not None and abs(info.video.num_frames - info.duration * how.video_fps) > 1:
        raise MediaError(name, f"its video is re-encoded to {info.video.num_frames} frames in {info.duration:.2f} s")
    return info
