"""How FFmpeg reads a span of a file: what lies before it is decoded too, where the codec needs that, and thrown away."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from peav.data.media.decoders import video_decoder
from peav.data.media.ffmpeg import ONE_FILE, STRICT, Ran, as_url, earlier, run_ffmpeg
from peav.data.media.probing import MediaInfo
from peav.types import Seconds

#: What lies between a time stamp and a seek to it, so that rounding loses no picture.
_BEFORE_PICTURE: Seconds = 5e-4

#: What of the sound is decoded before a span: the first frames after a seek into mp3 or opus need those before them.
AUDIO_BEFORE: Seconds = 0.5

#: What of the picture is decoded before a span whose key frames refer to what is before them; groups of pictures are no longer.
VIDEO_BEFORE: Seconds = 15.0

#: A stream that holds no more of a span than this holds nothing of it: sound of the padding of a codec, or less than a picture.
NOTHING_SECONDS: dict[str, Seconds] = {"audio": 0.1, "video": 0.01}


def held_seconds(info: MediaInfo, kind: str, start: Seconds, duration: Seconds) -> Seconds:
    """Returns how much of a span its `audio` or `video` stream holds, seconds; below 0 where it lies beside the span."""
    stream = info.audio if kind == "audio" else info.video
    if stream is None:
        return 0.0
    begin = stream.start - info.origin
    return min(begin + stream.duration, start + duration) - max(begin, start)


def span_input(
    path: Path, info: MediaInfo, kind: str, start: Seconds, duration: Seconds, before: Seconds
) -> tuple[list[str], list[str]]:
    """Returns FFmpeg's arguments that read a span of the `audio` or `video` of a file, and the filters that begin it at 0.

    Args:
        path: the file.
        info: what it holds.
        kind: of stream.
        start: seconds from the origin of the file.
        duration: seconds.
        before: seconds to decode before it and throw away.
    """
    extra = start - _shown_from(path, info, start) if kind == "video" else 0.0
    # The picture that is shown when the span begins may have come before.
    held = [f"setpts='max(PTS-{extra:.6f}/TB,0)'"] if extra else []
    start, duration = start - extra, duration + extra
    before = min(start, before)
    # FFmpeg counts from the first stream, even where encoder delay puts that before 0.
    shift = info.origin - min(stream.start for stream in (info.audio, info.video) if stream is not None)
    letter = "a" if kind == "audio" else ""
    source = [*ONE_FILE, "-i", as_url(path)]
    if start > before or info.origin > 0:
        source = ["-ss", f"{start - before + shift:.6f}", "-t", f"{duration + before:.6f}", *source]
        if not before:
            return source, held
        begin, limit = before, ""
    else:
        # From the beginning on: a seek to it loses the packet that AAC and Opus decode for the sake of the next one.
        begin = before + shift
        limit = f":end={begin + duration:.6f}"
    return source, [f"{letter}trim=start={begin:.6f}{limit}", f"{letter}setpts={earlier(begin)}", *held]


def _shown_from(path: Path, info: MediaInfo, start: Seconds) -> Seconds:
    """Returns a moment just before the time stamp of the picture that is shown at a second; that second where none is yet."""
    if info.video is None or start <= max(0.0, info.video.start - info.origin):
        return start
    decoder = video_decoder(path, num_ffmpeg_threads=1, seek_mode="exact", stream_index=info.video.index)
    time = min(info.origin + start, math.nextafter(info.video.start + info.video.duration, 0.0))
    try:
        # The one for a single time finds the next picture where rates vary.
        shown = float(decoder.get_frames_played_at([time]).pts_seconds[0]) - info.origin
    except (RuntimeError, IndexError, ValueError):
        return start  # FFmpeg says what is wrong
    return max(0.0, min(start, shown - _BEFORE_PICTURE)) if start - shown > _BEFORE_PICTURE else start


def run_span(path: Path, start: Seconds, command: Callable[[Seconds], list[str]]) -> Ran:
    """Re-encodes a span with every error fatal; returns what became of it.

    The pictures after a seek may refer to others that were not decoded (an open group of pictures, or none that ever ends), and sound
    may be entered in mid-frame. FFmpeg says that as it says damage. So where a span fails but the whole file does not, the picture is
    decoded from further ahead, and what goes wrong does not count.

    Args:
        path: the file.
        start: of the span, seconds.
        command: arguments of FFmpeg, given how much of the picture to decode before the span.

    Raises:
        OSError: if the disk is full.
    """
    ran = run_ffmpeg([*STRICT, *command(0.0)])
    if ran.error and start > 0:
        stat = path.stat()
        if not _whole_file_error(path, stat.st_size, stat.st_mtime_ns):
            return run_ffmpeg(command(VIDEO_BEFORE))
    return ran


@lru_cache(maxsize=64)
def _whole_file_error(path: Path, size: int, modified: int) -> str:
    source = [*STRICT, *ONE_FILE, "-threads", "1", "-i", as_url(path)]
    return run_ffmpeg(
        [*source, "-map", "0:V:0?", "-map", "0:a:0?", "-fps_mode", "passthrough", "-f", "null", "-"]
    ).error
