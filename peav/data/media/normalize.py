"""Re-encoding clips so that training decodes little: small square frames with many key frames, and aligned sound of one rate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peav.data.media.checks import TOLERANCE_SECONDS, check_media
from peav.data.media.cutting import Part, check_finite, cut_span, is_float
from peav.data.media.errors import MediaError
from peav.data.media.ffmpeg import REPEATABLE, as_url, h264
from peav.data.media.probing import MediaInfo, probe
from peav.data.media.spans import AUDIO_BEFORE, NOTHING_SECONDS, held_seconds, run_span, span_input
from peav.types import Seconds

#: How sound in floating point that lies beyond full scale is encoded, which FLAC would clip.
_LOUD = ("wav", ["-c:a", "pcm_f32le"])

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
        audio_codec: `flac`, lossless at 16 bits (sound in floating point beyond full scale stays that, in wav), or `opus`, 128 kbit/s.
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
    part: Part, kind: str, stem: Path, start: Seconds, duration: Seconds, how: Normalize, name: str
) -> Path | None:
    """Re-encodes the sound or the picture of a span into a file of its own, which begins at the first instant of the span.

    What starts late is preceded by silence, or by its first frame; rotation is carried out. Channels stay as they are,
    so that they are mixed down by one rule, when they are read.

    Args:
        part: where it is.
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
    path, info = part.path, part.info
    if held_seconds(info, kind, start, duration) <= NOTHING_SECONDS[kind]:
        return None
    if kind == "audio":
        ending, encoder = _AUDIO[how.audio_codec]
        loud = is_float(info) and check_finite(path, name, info.origin + start, duration) > 1
        if loud and how.audio_codec == "flac":
            ending, encoder = _LOUD
    else:
        ending, encoder = "mp4", []
    output = stem.with_name(f"{stem.name}-{kind}.{ending}")

    def command(before: Seconds) -> list[str]:
        ahead = before if kind == "video" else AUDIO_BEFORE
        source, filters = span_input(path, info, kind, start, duration, ahead)
        if kind == "video":
            filters += [f"fps=fps={how.video_fps:g}:start_time=0"]
            filters += [f"scale={how.video_size}:{how.video_size}:flags=bilinear", "setsar=1"]
            codec = ["-map", f"0:{info.index(kind)}", "-vf", ",".join(filters), "-an"]
            codec += [*h264(how.crf, how.gop), "-threads", "1", "-f", "mp4"]
        else:
            filters += [f"aresample={how.audio_sample_rate}:async=1:first_pts=0"]
            codec = ["-map", f"0:{info.index(kind)}", "-af", ",".join(filters), "-vn", *encoder, "-f", ending]
        return ["-threads", "1", *source, *codec, *REPEATABLE, "-y", as_url(output)]

    ran = run_span(path, start, command)
    if ran.error:
        raise MediaError(name, f"the {kind} cannot be re-encoded: {ran.error}")
    if ran.changes and kind == "video":
        # Where their size changes FFmpeg sets up its filters anew, and the count of frames a second begins again.
        even = stem.with_name(f"{stem.name}-even.mp4")
        cut_span({"video": part}, even, start, duration, name)
        made = normalize_span(Part(even, probe(even, name, origin=0.0)), kind, stem, 0.0, duration, how, name)
        even.unlink()
        return made
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
