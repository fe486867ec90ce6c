"""The full check of a file before it is packed: every frame and every sample is decoded once.

FFmpeg hides much of what is wrong with a file. A truncated mp4 gives the frames that are left, and damaged bytes give damaged
frames, both without an error. So what the streams hold is compared with what the headers say, and video is decoded by FFmpeg's
command line with every error fatal (torchcodec offers no such switch). A process takes 70 ms to start, which `check_video_errors`
shares among the files of a group.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torchcodec.decoders import AudioDecoder, VideoDecoder

from peav.data.media.probing import MediaError, MediaInfo, first_line, probe
from peav.data.workers import end_with_parent
from peav.types import Seconds

#: How much less than its header says a stream may hold, in seconds: codecs pad, and the last frame's duration is often left out.
TOLERANCE_SECONDS = 0.25

#: Frames decoded at a time, so that long videos do not fill the memory.
_FRAMES_AT_ONCE = 32

#: What a full disk is called: no space, or no more than the quota.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)

#: Path in the error that says that there is no `ffmpeg` command.
FFMPEG = "ffmpeg"

#: Options before an input, so that FFmpeg opens no address that a file names.
ONE_FILE = ("-protocol_whitelist", "file")

#: What is known about each way to get FFmpeg, for the error message.
_FFMPEG_HELP = "install it (Debian: apt-get install ffmpeg)"


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
    if info.duration < min_seconds:
        raise MediaError(name, f"too short: {info.duration:.3f} s, at least {min_seconds:g} s are needed (min_seconds)")
    return info


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
    while len(chunk := stream.read(8)) == 8:
        kind, length = struct.unpack("<4sI", chunk)
        if kind == b"data":
            held = size - stream.tell()
            # Writers to a pipe cannot know the length and write 0 or the largest number.
            if length not in (0, 0xFFFFFFFF) and held < length:
                raise MediaError(
                    name, f"truncated: the wav header announces {length:,} bytes of sound, the file holds {held:,}"
                )
            return
        stream.seek(length + length % 2, 1)
    raise MediaError(name, "truncated: the wav has no data chunk")


def _check_ogg(stream: BinaryIO, size: int, name: str) -> None:
    stream.seek(max(0, size - (1 << 17)))  # a page has at most 65,307 bytes
    tail = stream.read()
    page = tail.rfind(b"OggS")
    segments = tail[page + 26] if 0 <= page < len(tail) - 26 else 0
    table = tail[page + 27 : page + 27 + segments]
    complete = page >= 0 and len(table) == segments and len(tail) >= page + 27 + segments + sum(table)
    if not complete or not tail[page + 5] & 4:
        raise MediaError(name, "truncated: the ogg does not end with a page marked as the last")


def check_video_errors(paths: Sequence[str | Path]) -> dict[int, str]:
    """Decodes the video of several files by FFmpeg's command line, every error fatal.

    Args:
        paths: files; one FFmpeg process reads them all, and only when it fails are they read one by one.

    Returns:
        What is wrong, by index into `paths`; empty when all is well.

    Raises:
        MediaError: if there is no `ffmpeg` command.
    """
    if not paths or not _decode_errors(paths):
        return {}
    errors = {index: _decode_errors([path]) for index, path in enumerate(paths)}
    return {index: f"the video is damaged: {error}" for index, error in errors.items() if error}


def find_ffmpeg() -> str:
    """Returns the path of the `ffmpeg` command.

    Raises:
        MediaError: if there is none.
    """
    path = shutil.which("ffmpeg")
    if path is None:
        raise MediaError(
            FFMPEG, f"the command is not on PATH; {_FFMPEG_HELP}, or prepare with --check_video false and no spans"
        )
    return path


def _decode_errors(paths: Sequence[str | Path]) -> str:
    command = [find_ffmpeg(), "-nostdin", "-v", "error", "-xerror"]
    for path in paths:
        command += [*ONE_FILE, "-err_detect", "explode", "-threads", "1", "-i", _as_url(path)]
    for index in range(len(paths)):
        command += ["-map", f"{index}:V:0?", "-fps_mode", "passthrough", "-f", "null", "-"]
    return run_ffmpeg(command)


def run_ffmpeg(command: Sequence[str]) -> str:
    """Runs FFmpeg's command line; returns the first line of what went wrong, "" if nothing did.

    Raises:
        OSError: if the disk is full, which is no fault of the file.
    """
    result = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, preexec_fn=end_with_parent
    )
    if result.returncode == 0:
        return ""
    for number in FULL_DISK:
        if os.strerror(number) in result.stderr:
            raise OSError(number, os.strerror(number))
    lines = result.stderr.strip().splitlines() or [f"ffmpeg ended with status {result.returncode}"]
    return re.sub(r" @ 0x[0-9a-f]+", "", lines[0])  # an address differs from run to run


def _as_url(path: str | Path) -> str:
    # Else FFmpeg takes what stands before a colon for a protocol, and what begins with a dash for an option.
    return f"file:{path}"


def _check_audio(path: Path, name: str) -> Seconds:
    """Decodes all samples; returns the second at which they end."""
    try:
        decoder = AudioDecoder(path)
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
        decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="exact")
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
    metadata = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="approximate").metadata
    return (metadata.begin_stream_seconds_from_header or 0.0) + (metadata.duration_seconds or 0.0)
