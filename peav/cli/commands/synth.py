"""`peav synth`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from peav.cli.printing import counts

Domain = Literal["speech", "music", "effects"]


def synth(
    out: Path,
    *,
    clips: int = 1600,
    seed: int = 0,
    domains: tuple[Domain, ...] = ("speech", "music", "effects"),
    workers: int | None = None,
    frame_size: int = 96,
    fps: int = 12,
    sample_rate: int = 16000,
) -> None:
    """Make a small synthetic audio-visual world: media, captions, events, splits.

    Args:
        out: folder to write; an interrupted call continues there.
        clips: how many clips, test and validation clips included.
        seed: of everything random.
        domains: kinds of sound to make; speech needs an FFmpeg with flite.
        workers: clips made at once; the CPUs by default.
        frame_size: height and width of the picture, pixels.
        fps: frames a second.
        sample_rate: of the sound, Hz.
    """
    from peav.data.synthetic import synthesize

    report = synthesize(out, clips, seed, domains, workers, frame_size, fps, sample_rate)
    print(f"{report.clips} clips in {report.out}: {counts(report.splits)}; {counts(report.domains)}")
