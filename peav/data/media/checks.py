"""The full check of a file before it is packed: every frame and every sample is decoded once.

FFmpeg hides much of what is wrong with a file. A truncated mp4 gives the frames that are left, and damaged bytes give damaged
frames, both without an error. So what the streams hold is compared with what the headers say, and video is decoded by FFmpeg's
command line with every error fatal (torchcodec offers no such switch). A process takes 70 ms to start, which `check_video_errors`
shares among the files of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import torch

from peav.data.media.decoders import audio_decoder, video_decoder
from peav.data.media.errors import MediaError
from peav.data.media.ffmpeg import ONE_FILE, STRICT, Ran, as_url, run_ffmpeg
from peav.data.media.headers import UNKNOWN_LENGTH, wav_data
from peav.data.media.probing import MediaInfo, first_line, probe
from peav.types import Seconds

#: How much less than its header says a stream may hold, in seconds: codecs pad, and the last frame's duration is often left out.
TOLERANCE_SECONDS = 0.25

#: Frames decoded at a time, so that long videos do not fill the memory.
_FRAMES_AT_ONCE = 32

#: What `check_video_errors` says of pictures that are whole, but not all of one size.
CHANGED = "the size of its pictures changes"


def check_media(
    path: str | Path,
    needs: Sequence[str] = (),
    min_seconds: Seconds = 0.1,
    duration: Seconds | None = None,
    name: str | None = None,
    info: MediaInfo | None = None,
    decode_video: bool = True,
) -> MediaInfo:
    """Decodes a whole file with torchcodec and compares it with its headers.

    Args:
        path: the file.
        needs: streams that it must have, of `audio` and `video`.
        min_seconds: shorter files are refused.
        duration: seconds that it is meant to hold; what its headers say by default.
        name: how errors call the file; the path by default.
        info: what `probe` said of it, to save the time.
        decode_video: decode all frames; else only the first, because `check_video_errors` does the rest.

    Returns:
        What it holds.

    Raises:
        MediaError: with the reason, if the file cannot be used.
    """
    path, name = Path(path), name or str(path)
    if not path.is_file():
        raise MediaError(name, "no such file")
    info = info or probe(path, name)
    for kind in needs:
        if getattr(info, kind) is None:
            raise MediaError(name, f"holds no {kind}")
    check_container(path, name)
    ends: list[Seconds] = []
    if info.audio is not None:
        ends.append(_check_audio(path, name))
    if info.video is not None:
        ends.append(_check_video(path, name, decode_video))
    expected = _announced_seconds(path, info) - info.origin if duration is None else duration
    held = max(ends) - info.origin
    if held < expected - TOLERANCE_SECONDS - (1 / info.video.fps if info.video and info.video.fps else 0.0):
        raise MediaError(name, f"truncated: its streams end at {held:.2f} s of {expected:.2f} s")
    refuse_short(info.duration, min_seconds, name)
    return info


def check_stream(path: Path, kind: str, name: str, decode_video: bool = True) -> Seconds:
    """Decodes one stream of a file with torchcodec, whatever else the file holds, and compares it with what its own header says.

    Args:
        path: the file.
        kind: `audio` or `video`.
        name: how errors call the file.
        decode_video: decode all frames; else only the first.

    Returns:
        The second at which it ends, on the clock of the file.

    Raises:
        MediaError: with the reason, if it cannot be used.
    """
    return _check_audio(path, name) if kind == "audio" else _check_video(path, name, decode_video)


def refuse_short(duration: Seconds, min_seconds: Seconds, name: str) -> None:
    """Raises a `MediaError` where a file lasts less than `min_seconds`."""
    if duration < min_seconds:
        raise MediaError(name, f"too short: {duration:.3f} s, at least {min_seconds:g} s are needed (min_seconds)")


def check_container(path: Path, name: str) -> None:
    """Compares wav and ogg files with what their containers announce. FFmpeg does not: cut in half, they read as shorter ones.

    Raises:
        MediaError: if bytes are missing.
    """
    with path.open("rb") as stream:
        head = stream.read(12)
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            _check_wav(stream, path.stat().st_size, name)
        elif head[:4] == b"OggS":
            _check_ogg(stream, path.stat().st_size, name)


def _check_wav(stream: BinaryIO, size: int, name: str) -> None:
    found = wav_data(stream)
    if found is None:
        raise MediaError(name, "truncated: the wav has no data chunk")
    _, length, begin = found
    # Writers to a pipe cannot know the length and write 0 or about the largest number.
    if 0 < length < UNKNOWN_LENGTH and size - begin < length:
        raise MediaError(
            name, f"truncated: the wav header announces {length:,} bytes of sound, the file holds {size - begin:,}"
        )


def _check_ogg(stream: BinaryIO, size: int, name: str) -> None:
    stream.seek(max(0, size - (1 << 17)))  # a page has at most 65,307 bytes
    tail = stream.read()
    page = tail.rfind(b"OggS")
    segments = tail[page + 26] if 0 <= page < len(tail) - 26 else 0
    table = tail[page + 27 : page + 27 + segments]
    complete = page >= 0 and len(table) == segments and len(tail) >= page + 27 + segments + sum(table)
    # That the last page is marked as such says nothing: a recorder that was switched off leaves the mark out.
    if not complete:
        raise MediaError(name, "truncated: the ogg ends within a page")


def check_video_errors(paths: Sequence[str | Path], indices: Sequence[int] | None = None) -> dict[int, str]:
    """Decodes the video of several files by FFmpeg's command line, every error fatal.

    Args:
        paths: files; one FFmpeg process reads them all, and only when something is found are they read one by one.
        indices: of their streams; the first video that is no cover by default.

    Returns:
        What is wrong, by index into `paths`, or `CHANGED`; empty when all is well.

    Raises:
        MediaError: if there is no `ffmpeg` command.
    """
    streams: list[str] = ["V:0?"] * len(paths) if indices is None else [str(index) for index in indices]
    if not paths or _decode_errors(paths, streams) == Ran():
        return {}
    found = {}
    for index, (path, stream) in enumerate(zip(paths, streams, strict=True)):
        ran = _decode_errors([path], [stream])
        if ran != Ran():
            found[index] = f"the video is damaged: {ran.error}" if ran.error else CHANGED
    return found


def _decode_errors(paths: Sequence[str | Path], streams: Sequence[str]) -> Ran:
    arguments: list[str] = ["-xerror"]
    for path in paths:
        arguments += [*ONE_FILE, *STRICT[1:], "-threads", "1", "-i", as_url(path)]
    for index, stream in enumerate(streams):
        arguments += ["-map", f"{index}:{stream}", "-fps_mode", "passthrough", "-f", "null", "-"]
    return run_ffmpeg(arguments)


def _check_audio(path: Path, name: str) -> Seconds:
    """Decodes all samples; returns the second at which they end."""
    try:
        decoder = audio_decoder(path)
        metadata = decoder.metadata
        samples = decoder.get_all_samples()
    except (RuntimeError, ValueError) as error:
        raise MediaError(name, f"audio cannot be decoded: {first_line(error)}") from None
    if not samples.data.numel():
        raise MediaError(name, "the audio holds no sample")
    if not bool(torch.isfinite(samples.data).all()):
        raise MediaError(name, "the audio holds NaN or infinite samples")
    end = samples.pts_seconds + samples.duration_seconds
    header = (metadata.begin_stream_seconds_from_header or 0.0) + (metadata.duration_seconds_from_header or 0.0)
    if end < header - TOLERANCE_SECONDS:
        raise MediaError(name, f"truncated: the audio ends at {end:.2f} s, its header says {header:.2f} s")
    return end


def _check_video(path: Path, name: str, decode: bool) -> Seconds:
    """Decodes all frames, or the first; returns the second at which they end."""
    try:
        decoder = video_decoder(path, num_ffmpeg_threads=1, seek_mode="exact")
        metadata = decoder.metadata
        total = metadata.num_frames or 0
        decoded = sum(
            len(decoder.get_frames_in_range(start, min(start + (_FRAMES_AT_ONCE if decode else 1), total)))
            for start in (range(0, total, _FRAMES_AT_ONCE) if decode else (0,))
        )
    except (RuntimeError, ValueError, IndexError) as error:
        raise MediaError(name, f"video cannot be decoded: {first_line(error)}") from None
    if not decoded:
        raise MediaError(name, "the video holds no frame")
    end = float(metadata.end_stream_seconds or 0.0)
    header = (metadata.begin_stream_seconds_from_header or 0.0) + (metadata.duration_seconds_from_header or 0.0)
    if end < header - TOLERANCE_SECONDS - 1 / (metadata.average_fps or 1.0):
        raise MediaError(name, f"truncated: the video ends at {end:.2f} s, its header says {header:.2f} s")
    announced = metadata.num_frames_from_header
    fps = metadata.average_fps_from_header or metadata.average_fps or 1.0
    # Where the header knows how long the stream is, that was compared; frames before an edit list's start it counts as well.
    timed = metadata.duration_seconds_from_header is not None
    if announced is not None and not timed and total < announced - max(1.0, TOLERANCE_SECONDS * fps):
        raise MediaError(name, f"truncated: it holds {total} frames, its header says {announced}")
    return end


def _announced_seconds(path: Path, info: MediaInfo) -> Seconds:
    """Returns the second at which the container says that its last stream ends."""
    if info.audio is not None:
        return info.origin + info.duration
    metadata = video_decoder(path, num_ffmpeg_threads=1, seek_mode="approximate").metadata
    return (metadata.begin_stream_seconds_from_header or 0.0) + (metadata.duration_seconds or 0.0)
