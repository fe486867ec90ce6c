"""Sound and pictures that torchcodec does not decode as FFmpeg does, made anew by FFmpeg's command line.

The sound becomes FLAC, of 24 bits unless its samples have 16, from the origin of the file on: gaps are silent, what starts late is
preceded by silence, and what was joined of files of several rates has the rate of the first. The pictures are copied into Matroska, or
encoded as H.264 with their own times.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import util
from pathlib import Path
from typing import Literal

from peav.data.media.errors import MediaError
from peav.data.media.ffmpeg import ONE_FILE, REPEATABLE, as_url, earlier, h264, run_ffmpeg
from peav.data.media.headers import container, without_tags
from peav.data.media.playlists import refusal
from peav.data.media.tracks import read_packets
from peav.types import Seconds

#: Pictures that are encoded anew although nobody asked for it lose nothing that is seen.
H264 = h264(crf=18, gop=16)

#: What keeps times as they are in an mp4, and sizes as H.264 wants them.
KEEP_TIMES = ("-fps_mode", "vfr", "-enc_time_base:v", "-1", "-video_track_timescale", "90000")
EVEN_SIZE = "scale=trunc(iw/2)*2:trunc(ih/2)*2"

#: FLAC has no more channels.
_MOST_CHANNELS = 8

#: Copies that a process keeps.
_COPIES = 4


def make_sound(
    path: Path,
    output: Path,
    index: int,
    name: str,
    wide: bool = True,
    channels: int = 1,
    shift: Seconds = 0.0,
    until: Seconds | None = None,
) -> None:
    """Decodes a track of sound as FFmpeg's command line does, into a FLAC file that begins at the origin of the file.

    Args:
        path: the file.
        output: the FLAC file to write.
        index: of the stream.
        name: how errors call the file.
        wide: 24 bits; else 16.
        channels: of the sound.
        shift: from the first time stamp of the file to its origin, seconds.
        until: second at which to end; the end of the file by default.

    Raises:
        MediaError: if the sound is damaged, or FLAC cannot hold it.
        OSError: if the disk is full.
    """
    _refuse_playlists(path, name)
    if channels > _MOST_CHANNELS:
        raise MediaError(
            name,
            f"has {channels} channels of sound, more than {_MOST_CHANNELS}: mix it down (ffmpeg -i FILE -ac 2 NEW.wav)",
        )
    moved = f"asetpts={earlier(shift)}," if shift > 0 else ""
    aligned = ["-af", f"{moved}aresample=async=1:first_pts=0"]
    flac = ["-c:a", "flac", "-sample_fmt", "s32" if wide else "s16", "-compression_level", "2"]
    flac += [*(() if until is None else ("-t", f"{until:.6f}")), *REPEATABLE, "-f", "flac", "-y"]
    bare = output.with_name(output.name + ".mp3")
    tagged = container(path) == "mp3" and without_tags(path, bare)
    source = ["-threads", "1", *ONE_FILE, "-i", as_url(bare if tagged else path), "-map", f"0:{index}"]
    try:
        # The end of a wav that does not know its length is to FFmpeg a packet that lacks something.
        strict = () if container(path) == "wav" else ("-xerror",)
        ran = run_ffmpeg([*strict, *source, *aligned, *flac, as_url(output)])
        if not ran.error and ran.changes:
            # Where the rate changes FFmpeg sets up its filters anew, and would put in again all silence before: without its clock, then.
            track = read_packets(bare if tagged else path).tracks.get(index)
            if track is None or not track.even:
                raise MediaError(
                    name,
                    "the rate of its sound changes and there are gaps in it: encode it anew (ffmpeg -i FILE NEW.flac)",
                )
            ran = run_ffmpeg([*source, *flac, as_url(output)])
    finally:
        bare.unlink(missing_ok=True)
    if ran.error:
        raise MediaError(name, f"the sound cannot be decoded: {ran.error}")


def make_pictures(
    path: Path, output: Path, index: int, name: str, how: Literal["copy", "encode"], shift: Seconds = 0.0
) -> None:
    """Puts a track of pictures into a file of its own, which begins at the origin of the file.

    Args:
        path: the file.
        output: the file to write, Matroska for copies and else mp4.
        index: of the stream.
        name: how errors call the file.
        how: `copy` keeps the packets, `encode` the pictures and their times.
        shift: from the first time stamp of the file to its origin, seconds.

    Raises:
        MediaError: if the pictures cannot be read.
        OSError: if the disk is full.
    """
    _refuse_playlists(path, name)
    source = ["-threads", "1", *ONE_FILE, "-fflags", "+genpts", "-i", as_url(path), "-map", f"0:{index}"]
    if how == "copy":
        made = ["-c", "copy", "-output_ts_offset", f"{-shift:.6f}", *REPEATABLE, "-f", "matroska", "-y", as_url(output)]
    else:
        source = ["-xerror", *source]
        made = ["-vf", f"setpts={earlier(shift)},{EVEN_SIZE}", *KEEP_TIMES, *H264, "-threads", "1", *REPEATABLE]
        made += ["-f", "mp4", "-y", as_url(output)]
    error = run_ffmpeg([*source, *made]).error
    if error:
        raise MediaError(name, f"the pictures cannot be decoded: {error}")


def _refuse_playlists(path: Path, name: str) -> None:
    if (reason := refusal(path)) is not None:
        raise MediaError(name, reason)


@dataclass(frozen=True)
class _Key:
    path: str
    size: int
    modified: int
    what: str


class _Copies:
    """The last few copies that a process made, in a folder that goes with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: OrderedDict[_Key, Path] = OrderedDict()
        self._folder: Path | None = None
        self._process = 0
        self._count = 0

    def get(self, path: str | Path, what: str, make: Callable[[Path], None]) -> Path:
        stat = os.stat(path)
        key = _Key(os.path.abspath(path), stat.st_size, stat.st_mtime_ns, what)
        with self._lock:
            if self._process != os.getpid():  # a fork must not delete what is its parent's
                self._process, self._folder = os.getpid(), None
                self._made.clear()
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="peav-media-"))
                util.Finalize(None, shutil.rmtree, (self._folder, True), exitpriority=0)
            self._count += 1
            output = self._folder / str(self._count)
            try:
                make(output)
            except BaseException:
                output.unlink(missing_ok=True)
                raise
            self._made[key] = output
            while len(self._made) > _COPIES:
                self._made.popitem(last=False)[1].unlink(missing_ok=True)
            return output


_copies = _Copies()


def copy_of(path: str | Path, what: str, make: Callable[[Path], None]) -> Path:
    """Returns a copy of a file, made anew where this process did not make it of late; readers open it at once.

    Args:
        path: the file.
        what: which copy.
        make: writes it, given where.
    """
    return _copies.get(path, what, make)


def shift_of(start: Seconds, origin: Seconds) -> Seconds:
    """Returns how far the origin of a file lies behind its first time stamp, from which FFmpeg counts; encoder delay puts that before 0."""
    return 0.0 if math.isclose(start, origin, abs_tol=1e-6) else max(0.0, origin - start)
