"""Cutting a span out of a longer file, so that what is packed is just the clip."""

from __future__ import annotations

from pathlib import Path

import torch
from torchcodec.decoders import AudioDecoder

from peav.data.media.checks import ONE_FILE, check_container, find_ffmpeg, run_ffmpeg
from peav.data.media.playlists import refusal
from peav.data.media.probing import MediaError, MediaInfo, first_line, probe
from peav.data.media.spans import AUDIO_BEFORE, run_span, span_input
from peav.types import Seconds

#: H.264 with a key frame every 16 frames and no B-frames, so that single frames decode fast; lossless audio.
_CODECS = [
    "-c:v",
    "libx264",
    "-preset",
    "veryfast",
    "-crf",
    "18",
    "-g",
    "16",
    "-bf",
    "0",
    "-pix_fmt",
    "yuv420p",
    "-c:a",
    "alac",
]


def cut_span(
    path: str | Path, output: Path, start: Seconds, duration: Seconds | None, name: str | None = None
) -> MediaInfo:
    """Re-encodes a span of a file into an mp4 (H.264, ALAC), accurate to the frame and the sample; late streams stay late.

    Args:
        path: the file.
        output: the mp4 to write.
        start: seconds from the origin of the file.
        duration: seconds; to the end of the file when None.
        name: how errors call the file.

    Returns:
        What the span holds.

    Raises:
        MediaError: if the span is not in the file, or the file is damaged inside it.
    """
    path, name = Path(path), name or str(path)
    check_container(path, name)
    info = probe(path, name)
    if start >= info.duration:
        raise MediaError(name, f"the clip starts at {start:g} s, but the file ends at {info.duration:.2f} s")
    duration = info.duration - start if duration is None else duration
    if info.audio is not None:
        check_finite(path, name, info.origin + start, duration)

    def command(before: Seconds) -> list[str]:
        arguments = ["-threads", "1"]
        outputs: list[str] = []
        for number, kind in enumerate(kinds):
            ahead = before if kind == "video" else AUDIO_BEFORE
            source, filters = span_input(path, info, kind, start, duration, ahead)
            arguments += source
            outputs += ["-map", f"{number}:{'V' if kind == 'video' else 'a'}:0"]
            if kind == "video":
                filters += ["scale=trunc(iw/2)*2:trunc(ih/2)*2"]
                outputs += ["-fps_mode", "vfr", "-enc_time_base:v", "-1"]
            if filters:
                outputs += [f"-filter:{kind[0]}", ",".join(filters)]
        outputs += [*_CODECS, "-threads", "1", "-video_track_timescale", "90000", "-map_metadata", "-1"]
        return [*arguments, *outputs, "-fflags", "+bitexact", "-f", "mp4", "-y", f"file:{output}"]

    kinds = [kind for kind in ("video", "audio") if getattr(info, kind) is not None]
    error = run_span(path, start, command)
    if error:
        raise MediaError(name, f"the span of {duration:g} s at {start:g} s cannot be cut out: {error}")
    return probe(output, name, origin=0.0)


def remux(path: Path, output: Path, name: str) -> Path:
    """Puts the first sound and picture of a file into Matroska as they are, in which torchcodec finds its pictures.

    Args:
        path: the file.
        output: the file to write.
        name: how errors call the file.

    Raises:
        MediaError: if it cannot be read.
    """
    if (reason := refusal(path)) is not None:
        raise MediaError(name, reason)
    command = [find_ffmpeg(), "-nostdin", "-v", "error", *ONE_FILE, "-fflags", "+genpts", "-i", f"file:{path}"]
    command += ["-map", "0:V:0?", "-map", "0:a:0?", "-c", "copy", "-map_metadata", "-1", "-flags", "+bitexact"]
    error = run_ffmpeg([*command, "-fflags", "+bitexact", "-f", "matroska", "-y", f"file:{output}"])
    if error:
        raise MediaError(name, f"cannot be put into another container: {error}")
    return output


def check_finite(path: str | Path, name: str, begin: Seconds, duration: Seconds) -> None:
    """Refuses NaN and infinite samples, which encoding would turn into numbers.

    Args:
        path: the file.
        name: how errors call it.
        begin: of the span, on the clock of the file, seconds.
        duration: seconds.

    Raises:
        MediaError: if there are any, or the sound cannot be decoded.
    """
    try:
        samples = AudioDecoder(path).get_samples_played_in_range(begin, begin + duration)
    except (RuntimeError, ValueError) as error:
        if "No audio frames" in str(error):
            return  # the sound starts later or has ended
        raise MediaError(name, f"audio cannot be decoded: {first_line(error)}") from None
    if not bool(torch.isfinite(samples.data).all()):
        raise MediaError(name, "the audio holds NaN or infinite samples")
