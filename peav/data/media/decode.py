"""Decoding by torchcodec, but for pictures: exact seek, one FFmpeg thread, aligned by the time stamps of the streams.

A file that torchcodec does not decode as FFmpeg does (`peav.data.media.tracks`) is made anew by FFmpeg's command line first, into a
temporary copy that this process keeps for a while; what was packed needs none.

A stream that starts after the origin of its file (`peav.data.media.probing`) is late: its audio is preceded by zeros, its first frame
is held. Parallelism comes from worker processes: decode in them, with one thread each.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from peav.data.media.decoders import audio_decoder, video_decoder
from peav.data.media.errors import MediaError
from peav.data.media.probing import (
    INEXACT_SECONDS,
    MediaInfo,
    Source,
    first_line,
    is_trimmed,
    misleads_seek,
    open_decoder,
    probe,
    source_name,
    stream_kind,
)
from peav.data.media.remake import copy_of, make_pictures, make_sound, shift_of
from peav.data.media.resizing import resize_frames
from peav.data.media.stills import count_still_frames, load_animation, load_picture, picture_kind, probe_picture
from peav.data.media.tracks import STILL_CODECS, Pictures, judge_audio, judge_video
from peav.types import Downmix, Sampling, Seconds

if TYPE_CHECKING:
    from torchcodec import FrameBatch
    from torchcodec.decoders import VideoStreamMetadata

#: Frames that are held at full size at once: 1080p takes 6 MB each.
_FRAMES_AT_ONCE = 32

_decodes: Counter[str] = Counter()
_T = TypeVar("_T")


def decode_counts() -> dict[str, int]:
    """Returns how many audio and video streams this process has decoded so far, so that a test sees what is decoded."""
    return {"audio": _decodes["audio"], "video": _decodes["video"]}


def load_audio(
    source: Source,
    sample_rate: int,
    start: Seconds = 0.0,
    duration: Seconds | None = None,
    downmix: Downmix = "meta",
    path: str | None = None,
    origin: Seconds | None = None,
    pad_end: bool = True,
) -> Tensor:
    """Decodes audio to mono at `sample_rate`.

    Args:
        source: path or bytes.
        sample_rate: in Hz.
        start: seconds from the origin of the file.
        duration: seconds; to the end of the file by default.
        downmix: `meta` is FFmpeg's rule, 0.7071 (L + R), as Meta's code has it; `mean` is the mean of the channels.
        path: name for errors.
        origin: see `probe`.
        pad_end: whether zeros follow where the stream ends early. Headers often do not tell when it does (Matroska gives every
            stream the duration of the file): without them the length says it.

    Returns:
        (S,) float32 with S = round(duration * sample_rate), zero where the stream starts late or ends early. With `pad_end=False`
        S is less by what is missing, 0 for a span after the end; but not by less than codecs and headers are inexact (0.1 s).

    Raises:
        MediaError: if there is no audio or it cannot be decoded.
    """
    path = source_name(source, path)
    if downmix not in ("meta", "mean"):
        raise ValueError(f"downmix must be 'meta' or 'mean', got {downmix!r}")
    decoder = _open(audio_decoder, source, path, sample_rate=sample_rate, num_channels=1 if downmix == "meta" else None)
    metadata = decoder.metadata
    stream_start = metadata.begin_stream_seconds_from_header or 0.0
    if not isinstance(source, bytes):
        known = metadata.duration_seconds or 0.0
        sound = judge_audio(source, metadata.codec or "", metadata.stream_index or 0, known)
        whole = start == 0 and (duration is None or duration >= stream_start + known - (origin or 0.0))
        if sound == "odd" or (sound == "whole" and not whole):
            info = probe(source, path)
            duration = info.duration - start if duration is None else duration
            copy = _sound_copy(source, path, info)
            return load_audio(copy, sample_rate, start, duration, downmix, path, 0.0, pad_end)
    begin = _origin(source, path, stream_start, origin) + start
    if duration is None:
        duration = probe(source, path, origin).duration - start
    size = round(duration * sample_rate)
    _decodes["audio"] += 1
    if begin + duration <= stream_start:
        return torch.zeros(size)
    if begin >= stream_start + (metadata.duration_seconds or math.inf):
        return torch.zeros(size if pad_end else 0)
    try:
        samples = decoder.get_samples_played_in_range(begin, begin + duration)
    except RuntimeError as error:
        if not pad_end and start > 0 and "No audio frames were decoded" in str(error):
            return torch.zeros(0)
        raise MediaError(path, f"audio cannot be decoded: {first_line(error)}") from error
    data = samples.data.mean(0) if downmix == "mean" else samples.data[0]
    offset = max(0, round((samples.pts_seconds - begin) * sample_rate))
    count = max(0, min(size - offset, data.numel()))
    if count == size:
        return data[:size]
    output = torch.zeros(size)
    output[offset : offset + count] = data[:count]
    missing = size - offset - count
    return output if pad_end or missing <= INEXACT_SECONDS * sample_rate else output[: offset + count]


def frame_times(num_frames: int, duration: Seconds, start: Seconds = 0.0) -> list[Seconds]:
    """Returns the centres of `num_frames` equal parts of a span.

    >>> frame_times(4, 2.0)
    [0.25, 0.75, 1.25, 1.75]
    """
    return [start + (index + 0.5) * duration / num_frames for index in range(num_frames)]


def count_frames(duration: Seconds, num_frames: int | None = None, fps: float | None = None) -> int:
    """Returns how many frames a clip of `duration` seconds gives: `num_frames`, or `fps` a second, at least one.

    >>> count_frames(5.0, num_frames=8), count_frames(5.0, fps=2.5)
    (8, 12)
    """
    if (num_frames is None) == (fps is None):
        raise ValueError(f"give either num_frames or fps, got num_frames={num_frames}, fps={fps}")
    if fps is not None and not 0 < fps < math.inf:
        raise ValueError(f"fps must be positive, got {fps}")
    count = num_frames if num_frames is not None else max(1, round(duration * fps))  # type: ignore[operator]
    if count < 1:
        raise ValueError(f"num_frames must be at least 1, got {count}")
    return count


def load_frames(
    source: Source,
    num_frames: int | None = None,
    fps: float | None = None,
    start: Seconds = 0.0,
    duration: Seconds | None = None,
    size: tuple[int, int] | None = None,
    sampling: Sampling = "time",
    path: str | None = None,
    origin: Seconds | None = None,
    animated: bool = False,
) -> tuple[Tensor, Seconds]:
    """Decodes frames evenly spaced over a span.

    Args:
        source: path or bytes.
        num_frames: how many frames (F), or
        fps: how many a second.
        start: seconds from the origin of the file.
        duration: seconds; to the end of the file by default.
        size: (H, W) to which frames are squashed (bilinear, antialiased); as they are by default.
        sampling: `time` takes the frames shown at the centres of F equal parts of the span, right on variable frame rates too;
            where the video starts late or ends early its first or last frame is held. `index` is Meta's int(i * (N - 1) / (F -
            1)) over the N frames of the whole file.
        path: name for errors.
        origin: see `probe`.
        animated: whether a picture that is an animation is taken as a video; else its first picture is a still.

    Returns:
        (F, 3, H, W) uint8 RGB, and the seconds between two frames. A still picture gives one frame by time or by `fps`, and by index
        `num_frames` that are the same; without a duration the seconds are NaN.

    Raises:
        MediaError: if there is no video or it cannot be decoded.
    """
    path = source_name(source, path)
    if sampling not in ("time", "index"):
        raise ValueError(f"sampling must be 'time' or 'index', got {sampling!r}")
    wanted = _Wanted(num_frames, fps, start, duration, size, sampling)
    if picture_kind(source) is not None:
        _decodes["video"] += 1
        return _picture_frames(source, wanted._replace(start=start + (origin or 0.0)), path, animated)
    decoder = _open(video_decoder, source, path, num_ffmpeg_threads=1, seek_mode="exact")
    metadata = decoder.metadata
    how = _remedy(source, path, metadata)
    if how != "plain":
        if isinstance(source, bytes):
            raise MediaError(
                path, "torchcodec shows wrong pictures of such files: prepare them again by `peav prepare`"
            )
        return _frames_of_copy(source, how, wanted, path)
    first, end, total = (
        metadata.begin_stream_seconds or 0.0,
        metadata.end_stream_seconds or 0.0,
        metadata.num_frames or 0,
    )
    if not total or end <= first:
        raise MediaError(path, "the video holds no frame")
    if duration is None:
        duration = probe(source, path, origin).duration - start
    count = count_frames(duration, num_frames, fps)
    _decodes["video"] += 1
    try:
        if sampling == "index":
            if start:
                raise ValueError(
                    f"sampling='index' counts the frames of a whole file; for a span that starts at {start} s use 'time'"
                )
            indices = [int(i * (total - 1) / max(count - 1, 1)) for i in range(count)]
            frames = _resized(decoder.get_frames_at, indices, size)
        else:
            zero = _origin(source, path, first, origin)
            times = [max(zero + time, first) for time in frame_times(count, duration, start)]
            shown = [time for time in times if time < end]
            parts = [_resized(decoder.get_frames_played_at, shown, size)] if shown else []
            # How long the last frame stays is often left out, so that the video would end where it begins.
            if len(shown) < count:
                last = _resized(decoder.get_frames_at, [total - 1], size)
                parts.append(last.expand(count - len(shown), *last.shape[1:]))
            frames = torch.cat(parts) if len(parts) > 1 else parts[0]
    except (RuntimeError, IndexError) as error:
        if "pre-allocated tensor" in str(error):  # so torchcodec says that the size of the pictures changes
            if not isinstance(source, bytes):
                return _frames_of_copy(source, "encode", wanted, path)
            error = RuntimeError("the size of its pictures changes: prepare it again")
        raise MediaError(path, f"video cannot be decoded: {first_line(error)}") from error
    return frames, duration / count


def _remedy(source: Source, path: str, metadata: VideoStreamMetadata) -> Pictures:
    codec, trimmed = metadata.codec or "", is_trimmed(metadata)
    if isinstance(source, bytes):
        return "encode" if trimmed or misleads_seek(source) else "plain"
    if (metadata.num_frames or 0) <= 1 and codec in STILL_CODECS:
        video = probe(source, path).video
        return "plain" if video is None else video.pictures
    return judge_video(source, codec, trimmed)


class _Wanted(NamedTuple):
    """Which frames are wanted; see `load_frames`."""

    num_frames: int | None
    fps: float | None
    start: Seconds
    duration: Seconds | None
    size: tuple[int, int] | None
    sampling: Sampling


def _frames_of_copy(source: str | Path, how: Pictures, wanted: _Wanted, path: str) -> tuple[Tensor, Seconds]:
    info = probe(source, path)
    if wanted.duration is None:
        wanted = wanted._replace(duration=info.duration - wanted.start)
    return load_frames(_pictures_copy(source, path, info, how), *wanted, path=path, origin=0.0)


def _sound_copy(source: str | Path, path: str, info: MediaInfo) -> Path:
    audio = info.audio
    if audio is None:
        raise MediaError(path, "holds no audio")
    shift = shift_of(info.begin, info.origin)
    return copy_of(
        source,
        "audio",
        lambda output: make_sound(Path(source), output, audio.index, path, audio.wide, audio.num_channels, shift),
    )


def _pictures_copy(source: str | Path, path: str, info: MediaInfo, how: Pictures) -> Path:
    shift = shift_of(info.begin, info.origin)
    kept: Literal["copy", "encode"] = "copy" if how == "copy" else "encode"
    return copy_of(
        source, kept, lambda output: make_pictures(Path(source), output, info.index("video"), path, kept, shift)
    )


def _picture_frames(source: Source, wanted: _Wanted, path: str, animated: bool) -> tuple[Tensor, Seconds]:
    num_frames, fps, start, duration, size, sampling = wanted
    info = probe_picture(source, path, "all" if animated else "first")
    if info.video is None or info.video.still:
        count = count_still_frames(num_frames, sampling)
        frame = load_picture(source, size, path)
        return frame.expand(count, *frame.shape).clone(), math.nan if duration is None else duration / count
    if duration is None:
        duration = info.duration - start
    count = count_frames(duration, num_frames, fps)
    if sampling == "index":
        places = [i * (info.video.num_frames - 1) // max(count - 1, 1) + 0.5 for i in range(count)]
    else:
        places = frame_times(count, duration, start)
    return load_animation(source, places, size, path, sampling), duration / count


def _resized(get: Callable[[list[_T]], FrameBatch], which: list[_T], size: tuple[int, int] | None) -> Tensor:
    """Decodes frames a few at a time, each few resized before the next: at full size a long video would not fit in memory."""
    parts = []
    for begin in range(0, len(which), _FRAMES_AT_ONCE):
        frames = get(which[begin : begin + _FRAMES_AT_ONCE]).data
        parts.append(frames if size is None else resize_frames(frames, size))
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _open(decoder: Callable[..., _T], source: Source, path: str, **options: object) -> _T:
    opened = open_decoder(decoder, source, path, **options)
    if opened is None:
        raise MediaError(path, f"holds no {stream_kind(decoder)}")
    return opened


def _origin(source: Source, path: str, begin: Seconds, origin: Seconds | None) -> Seconds:
    if origin is not None:
        return origin
    # Only a stream that starts late needs to know about the others.
    return probe(source, path).origin if begin > 0 else 0.0
