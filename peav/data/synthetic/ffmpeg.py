"""The one door to the `ffmpeg` command: what it must offer, and how it is called."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


def run_ffmpeg(arguments: Sequence[str], cwd: Path | None = None) -> None:
    """Runs ffmpeg quietly, overwriting what it writes.

    Raises:
        RuntimeError: If it is not installed or fails, with the end of what it said.
    """
    command = ["ffmpeg", "-nostdin", "-y", "-v", "error", *arguments]
    try:
        done = subprocess.run(
            command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
        )
    except FileNotFoundError as error:
        raise RuntimeError(_MISSING) from error
    if done.returncode != 0:
        raise RuntimeError(f"ffmpeg failed with status {done.returncode}: {done.stderr.strip()[-1500:]}")


_MISSING = (
    "the `ffmpeg` command is not on the PATH, and the synthetic world is written with it. Install it with "
    "`apt-get install ffmpeg` (Debian, Ubuntu), `brew install ffmpeg` (macOS) or `conda install -c conda-forge ffmpeg`."
)


def check_ffmpeg(speech: bool) -> None:
    """Makes sure that ffmpeg is there with what a world needs: libx264, AAC and, for speech, the flite voices.

    Raises:
        RuntimeError: If something is missing, with what to do.
    """
    if shutil.which("ffmpeg") is None:
        raise RuntimeError(_MISSING)
    if "libx264" not in _listing("-encoders"):
        raise RuntimeError(
            "this ffmpeg cannot encode H.264 (no libx264 in `ffmpeg -encoders`). "
            "Install Debian's or conda-forge's build."
        )
    if speech and " flite " not in _listing("-filters"):
        raise RuntimeError(
            "this ffmpeg was built without flite, which says the sentences of the domain 'speech'. "
            "Debian's and Ubuntu's ffmpeg have it. "
            "`--domains music effects` works without it."
        )


def _listing(what: str) -> str:
    return subprocess.run(["ffmpeg", "-hide_banner", what], capture_output=True, text=True, errors="replace").stdout
