"""Cutting a span out of a longer file, so that what is packed is just the clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from peav.data.media.decoders import audio_decoder
from peav.data.media.errors import MediaError
from peav.data.media.ffmpeg import REPEATABLE, as_url
from peav.data.media.probing import MediaInfo, first_line, probe
from peav.data.media.remake import EVEN_SIZE, H264, KEEP_TIMES
from peav.data.media.spans import AUDIO_BEFORE, run_span, span_input
from peav.types import Seconds


@dataclass(frozen=True)
class Part:
    """The sound or the pictures of a clip as they are read: the file itself, or what was made of it.

    Attributes:
        path: where they are.
        info: what that file holds.
    """

    path: Path
    info: MediaInfo


def cut_span(parts: Mapping[str, Part], output: Path, start: Seconds, duration: Seconds, name: str) -> MediaInfo:
    """Re-encodes a span into an mp4 (H.264 and lossless sound), accurate to the frame and the sample; late streams stay late.

    Sound in floating point stays that, in QuickTime's form of mp4: it may lie beyond full scale. Other sound becomes FLAC, which
    browsers play.

    Args:
        parts: where `audio` and `video` are, by name; a stream that is not there is left out.
        output: the mp4 to write.
        start: seconds from the origin of each file.
        duration: seconds.
        name: how errors call the source.

    Returns:
        What the span holds.

    Raises:
        MediaError: if the file is damaged inside the span.
    """
    kinds = [kind for kind in ("video", "audio") if kind in parts]
    form, codec = _sound_form(parts["audio"].info if "audio" in parts else None)

    def command(before: Seconds) -> list[str]:
        arguments = ["-threads", "1"]
        outputs: list[str] = []
        for number, kind in enumerate(kinds):
            part, ahead = parts[kind], before if kind == "video" else AUDIO_BEFORE
            source, filters = span_input(part.path, part.info, kind, start, duration, ahead)
            arguments += source
            outputs += ["-map", f"{number}:{part.info.index(kind)}"]
            if kind == "video":
                filters += [EVEN_SIZE]
                outputs += [*KEEP_TIMES]
            if filters:
                outputs += [f"-filter:{kind[0]}", ",".join(filters)]
        outputs += [*H264, *codec, "-threads", "1", *REPEATABLE]
        return [*arguments, *outputs, "-f", form, "-y", as_url(output)]

    error = run_span(parts[kinds[0]].path, start, command).error
    if error:
        raise MediaError(name, f"the span of {duration:g} s at {start:g} s cannot be cut out: {error}")
    return probe(output, name, origin=0.0)


def is_float(info: MediaInfo) -> bool:
    """Returns whether the samples of a file are numbers in floating point."""
    return info.audio is not None and info.audio.codec.startswith(("pcm_f32", "pcm_f64"))


def _sound_form(info: MediaInfo | None) -> tuple[str, list[str]]:
    """Returns the container and the codec that keep a sound as it is."""
    if info is None or info.audio is None:
        return "mp4", []
    if is_float(info):
        return "mov", ["-c:a", "pcm_f32le"]
    # FLAC has not every rate above 65,535 Hz.
    if info.audio.sample_rate > 0xFFFF and info.audio.sample_rate % 10:
        return "mp4", ["-c:a", "alac"]
    return "mp4", ["-c:a", "flac", "-strict", "experimental"]


def check_finite(path: str | Path, name: str, begin: Seconds, duration: Seconds) -> float:
    """Refuses NaN and infinite samples of a sound in floating point, which encoding would turn into numbers.

    Args:
        path: the file.
        name: how errors call it.
        begin: of the span, on the clock of the file, seconds.
        duration: seconds.

    Returns:
        The largest magnitude; full scale is 1.

    Raises:
        MediaError: if there are any, or the sound cannot be decoded.
    """
    try:
        samples = audio_decoder(path).get_samples_played_in_range(begin, begin + duration)
    except (RuntimeError, ValueError) as error:
        if "No audio frames" in str(error):
            return 0.0  # the sound starts later or has ended
        raise MediaError(name, f"audio cannot be decoded: {first_line(error)}") from None
    if not bool(torch.isfinite(samples.data).all()):
        raise MediaError(name, "the audio holds NaN or infinite samples")
    return float(samples.data.abs().max())
