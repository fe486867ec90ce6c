"""Re-encoding clips so that training decodes little: small square frames with many key frames, and aligned sound of one rate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peav.data.checks import TOLERANCE_SECONDS, check_media, find_ffmpeg, run_ffmpeg
from peav.data.cutting import check_finite
from peav.data.media import MediaError, MediaInfo, probe
from peav.types import Seconds

#: How each audio codec is encoded, and what its files are called.
_AUDIO = {
    "flac": ("flac", ["-c:a", "flac", "-sample_fmt", "s16", "-compression_level", "5"]),
    "opus": ("ogg", ["-c:a", "libopus", "-b:a", "128k"]),
}

#: What is decoded before a span and thrown away, in seconds.
_BEFORE_SECONDS = 0.5

#: A stream that holds no more of a span than this holds nothing of it, in seconds.
_NOTHING_SECONDS = 0.01


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
    if held_seconds(info, kind, start, duration) <= _NOTHING_SECONDS:
        return None
    # The first frames after a seek into mp3 need those before them.
    before = min(start, _BEFORE_SECONDS) if kind == "audio" else 0.0
    # FFmpeg counts from the first stream, even where encoder delay puts that before 0.
    shift = info.origin - min(stream.start for stream in (info.audio, info.video) if stream is not None)
    arguments = ["-ss", f"{start - before + shift:.6f}", "-t", f"{duration + before:.6f}", "-i", f"file:{path}"]
    if kind == "video":
        output = stem.with_name(f"{stem.name}-video.mp4")
        size = f"scale={how.video_size}:{how.video_size}:flags=bilinear,setsar=1"
        arguments += ["-map", "0:V:0", "-vf", f"fps=fps={how.video_fps:g}:start_time=0,{size}", "-an"]
        arguments += ["-c:v", "libx264", "-preset", "veryfast", "-crf", str(how.crf), "-g", str(how.gop), "-bf", "0"]
        arguments += ["-pix_fmt", "yuv420p", "-threads", "1", "-f", "mp4"]
    else:
        check_finite(path, name, info.origin + start, duration)
        ending, encoder = _AUDIO[how.audio_codec]
        output = stem.with_name(f"{stem.name}-audio.{ending}")
        channels = min(2, info.audio.num_channels) if info.audio is not None else 1
        cut = f"atrim=start={before:.6f},asetpts=PTS-{before:.6f}/TB," if before else ""
        arguments += ["-map", "0:a:0", "-af", f"{cut}aresample={how.audio_sample_rate}:async=1:first_pts=0"]
        arguments += ["-vn", "-ac", str(channels), *encoder, "-f", ending]
    command = [
        find_ffmpeg(),
        "-nostdin",
        "-v",
        "error",
        "-xerror",
        "-err_detect",
        "explode",
        "-threads",
        "1",
        *arguments,
    ]
    command += ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags", "+bitexact", "-y", f"file:{output}"]
    if info.origin > 0 and info.audio is not None and info.video is not None:
        # In MPEG-TS FFmpeg counts from the first stream that is used: here from the same as we do.
        command += ["-map", "0:V:0" if kind == "audio" else "0:a:0", "-c", "copy", "-f", "null", "-"]
    error = run_ffmpeg(command)
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


def held_seconds(info: MediaInfo, kind: str, start: Seconds, duration: Seconds) -> Seconds:
    """Returns how much of a span its `audio` or `video` stream holds, seconds."""
    stream = info.audio if kind == "audio" else info.video
    if stream is None:
        return 0.0
    begin = stream.start - info.origin
    return min(begin + stream.duration, start + duration) - max(begin, start)
