"""Running FFmpeg's command line: where it is, what it may open, and what it says went wrong."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peav.data.media.errors import MediaError
from peav.data.workers import end_with_parent

#: What a full disk is called: no space, or no more than the quota.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)

#: Path in the error that says that there is no `ffmpeg` command.
FFMPEG = "ffmpeg"

#: Options before an input, so that FFmpeg opens no address that a file names.
ONE_FILE = ("-protocol_whitelist", "file")

#: Options that make every error fatal.
STRICT = ("-xerror", "-err_detect", "explode")

#: Options of an output in which nothing differs from run to run.
REPEATABLE = ("-map_metadata", "-1", "-flags", "+bitexact", "-fflags", "+bitexact")

#: What is known about each way to get FFmpeg, for the error message.
_FFMPEG_HELP = "install it (Debian: apt-get install ffmpeg)"


@dataclass(frozen=True)
class Ran:
    """What became of a run of FFmpeg.

    Attributes:
        error: the first line of what went wrong, "" if nothing did.
        changes: whether the rate of the sound, its channels or the size of the pictures changed on the way.
    """

    error: str = ""
    changes: bool = False


def find_command(name: str) -> str:
    """Returns the path of `ffmpeg` or `ffprobe`.

    Raises:
        MediaError: if there is none.
    """
    path = shutil.which(name)
    if path is None:
        raise MediaError(
            FFMPEG,
            f"the command {name} is not on PATH; {_FFMPEG_HELP}, or prepare with --check_video false and no spans",
        )
    return path


def find_ffmpeg() -> str:
    """Returns the path of the `ffmpeg` command.

    Raises:
        MediaError: if there is none.
    """
    return find_command("ffmpeg")


def h264(crf: int, gop: int) -> tuple[str, ...]:
    """Returns the options of H.264 of which single frames decode fast: no B-frames.

    Args:
        crf: quality, of x264: lower is better and larger.
        gop: frames from one key frame to the next, at most.
    """
    quality = ("-crf", str(crf), "-g", str(gop), "-bf", "0", "-pix_fmt", "yuv420p")
    return ("-c:v", "libx264", "-preset", "veryfast", *quality)


def as_url(path: str | Path) -> str:
    """Returns a path as FFmpeg takes it: else what stands before a colon would be a protocol, and what begins with a dash an option."""
    return f"file:{path}"


def earlier(seconds: float) -> str:
    """Returns the expression by which `setpts` and `asetpts` move time stamps to before, to the nearest tick.

    The filters cut off what is behind the point, so that sound would come a sample early.

    Args:
        seconds: by how much.
    """
    return f"round(PTS-{seconds:.9f}/TB)"


def run_ffmpeg(arguments: Sequence[str | Path]) -> Ran:
    """Runs FFmpeg's command line.

    Args:
        arguments: without the command itself.

    Raises:
        MediaError: if there is no `ffmpeg` command.
        OSError: if the disk is full, which is no fault of the file.
    """
    command = [find_ffmpeg(), "-nostdin", "-nostats", "-v", "level+verbose", *map(str, arguments)]
    result = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, preexec_fn=end_with_parent
    )
    lines = result.stderr.splitlines()
    if result.returncode == 0:
        return Ran("", _changes(lines))
    for number in FULL_DISK:
        if os.strerror(number) in result.stderr:
            raise OSError(number, os.strerror(number))
    said = [line for line in lines if "[error]" in line or "[fatal]" in line or "[panic]" in line]
    # What the muxers say when they close is not what went wrong first.
    first = said[0] if said else f"ffmpeg ended with status {result.returncode}"
    return Ran(_cleaned(first), _changes(lines))


def _cleaned(line: str) -> str:
    line = re.sub(r" @ 0x[0-9a-f]+", "", line)  # an address differs from run to run
    return re.sub(r"\[(error|fatal|panic)\] ?", "", line).strip()


def _changes(lines: Sequence[str]) -> bool:
    """Returns whether a filter graph was set up twice with other sound or pictures at its entrance."""
    seen: dict[str, str] = {}
    for line in lines:
        source = re.match(r"\[(graph[^\]@]*?)(?: @ 0x[0-9a-f]+)?\] \[verbose\] (?=tb:|w:)", line)
        if source is None:
            continue
        what = " ".join(re.findall(r"(?:\bw:\d+|\bh:\d+|samplerate:\d+|chlayout:\S+|channel_layout:\S+)", line))
        if seen.setdefault(source[1], what) != what:
            return True
    return False
