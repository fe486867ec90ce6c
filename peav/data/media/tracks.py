"""Which tracks of a file are used, and which of them torchcodec decodes as FFmpeg's command line does.

One rule for all ways: the track is the one that FFmpeg's library calls the best, which is the one marked as default, then the one with
most packets; but no still picture is a video where there are moving ones. torchcodec decodes a track whose header and packets
agree. What it gets wrong, measured in tests/data/media/formats.py, is made anew by FFmpeg's command line (`peav.data.media.remake`).
"""

from __future__ import annotations

import math
import os
import subprocess
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from peav.data.media.ffmpeg import ONE_FILE, as_url, find_command
from peav.data.media.headers import Sound, container, count_videos, judge_sound
from peav.data.workers import end_with_parent
from peav.types import Seconds

#: `plain`: as it is. `copy`: in another container. `encode`: encoded anew.
Pictures = Literal["plain", "copy", "encode"]

#: Codecs of still images: a single such picture beside sound is cover art, not a video.
STILL_CODECS = ("mjpeg", "png", "bmp", "gif", "webp", "tiff")

#: Codecs of sound that torchcodec decodes as FFmpeg does, where the packets leave no gap.
_KNOWN = ("aac", "ac3", "alac", "eac3", "flac", "mp2", "mp3", "opus", "vorbis")

#: Codecs whose pictures each stand alone, so that the order of an AVI is that of its pictures.
_INTRA = ("mjpeg", "rawvideo", "ffv1", "huffyuv", "ffvhuff", "dvvideo", "utvideo", "png", "cinepak", "msvideo1")

#: Containers whose headers know when a file ends, where they say so at all.
_TIMED = ("matroska", "mov", "asf", "flv", "avi")

#: FFmpeg fills a gap of more seconds; less is the rounding of time stamps.
_GAP_SECONDS = 0.05

#: A packet that lasts longer than this, and much longer than others, hides a gap: so mp4 has it.
_LONG_SECONDS = 0.12


@dataclass(frozen=True)
class Track:
    """What the packets of a track say.

    Attributes:
        index: of the stream in the file.
        kind: `audio` or `video`.
        codec: FFmpeg's name.
        cover: whether it is marked as a cover.
        packets: how many there are.
        start: of the first, seconds.
        end: of the last, seconds.
        held: seconds that all of them last together.
        even: whether each begins where the one before ends.
        opened: whether those that the track opens with say how long they last. To torchcodec 0.11 a packet that does not has ended
            when it begins, so that it is left out of what begins then.
        rest: seconds that the last may go on after `end`, where it does not say how long it lasts: no longer than the one before.
    """

    index: int
    kind: str
    codec: str
    cover: bool
    packets: int
    start: Seconds
    end: Seconds
    held: Seconds
    even: bool
    opened: bool = True
    rest: Seconds = 0.0


@dataclass(frozen=True)
class Packets:
    """What `ffprobe` says of a file.

    Attributes:
        tracks: by index.
        form: names of the container.
        announced: second at which the container says that it ends; None where it does not, or only guesses.
    """

    tracks: dict[int, Track] = field(default_factory=dict)
    form: str = ""
    announced: Seconds | None = None


@lru_cache(maxsize=256)
def _read_packets(path: str, size: int, modified: int) -> Packets:
    entries = (
        "format=format_name,start_time,duration:stream=index,codec_type,codec_name,start_time"
        ":stream_disposition=attached_pic:packet=stream_index,pts_time,dts_time,duration_time"
    )
    command = [
        find_command("ffprobe"),
        "-v",
        "error",
        *ONE_FILE,
        "-show_entries",
        entries,
        "-of",
        "compact",
        as_url(path),
    ]
    result = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, preexec_fn=end_with_parent
    )
    clocks: dict[int, _Clock] = {}
    streams: list[dict[str, str]] = []
    form: dict[str, str] = {}
    for line in result.stdout.splitlines():
        section, *pairs = line.split("|")
        values = dict(pair.partition("=")[::2] for pair in pairs)
        if section == "packet" and values.get("stream_index", "").isdigit():
            clocks.setdefault(int(values["stream_index"]), _Clock()).add(values)
        elif section == "stream":
            streams.append(values)
        elif section == "format":
            form = values
    tracks = {}
    for values in streams:
        index, clock = int(values["index"]), clocks.get(int(values["index"]), _Clock())
        cover = values.get("disposition:attached_pic") == "1"
        tracks[index] = clock.track(index, values.get("codec_type", ""), values.get("codec_name", ""), cover)
    announced = _seconds(form.get("duration"))
    name = form.get("format_name", "")
    if announced is not None and any(one in name for one in _TIMED):
        announced += max(0.0, _seconds(form.get("start_time")) or 0.0) if "matroska" not in name else 0.0
    else:
        announced = None
    return Packets(tracks, name, announced)


def read_packets(path: str | Path) -> Packets:
    """Reads the time stamps of all packets of a file, by `ffprobe`; nothing is decoded."""
    stat = os.stat(path)
    return _read_packets(os.path.abspath(path), stat.st_size, stat.st_mtime_ns)


class _Clock:
    """Follows the time stamps of a track."""

    def __init__(self) -> None:
        self.count, self.even, self.opened = 0, True, True
        self.start = self.next = self.end = self.held = self.last = self.begin = self.step = 0.0
        self.shortest = math.inf

    def add(self, values: dict[str, str]) -> None:
        begin, duration = _seconds(values.get("pts_time")), _seconds(values.get("duration_time")) or 0.0
        begin = _seconds(values.get("dts_time")) if begin is None else begin
        if begin is None:
            begin = self.next
        if self.count == 0:
            self.start = self.next = begin
        elif not self.last and 0 < begin - self.next <= _LONG_SECONDS:
            self.held += begin - self.next  # what the packet before did not say of itself
        elif abs(begin - self.next) > _GAP_SECONDS or self.last > max(_LONG_SECONDS, 3 * self.shortest):
            self.even = False
        if not duration and begin <= max(0.0, self.start):
            self.opened = False
        self.step = begin - self.begin if self.count else 0.0
        self.begin = begin
        self.count += 1
        self.held += duration
        self.last, self.shortest = duration, min(self.shortest, duration or self.shortest)
        self.next = begin + duration
        self.end = max(self.end, self.next)

    def track(self, index: int, kind: str, codec: str, cover: bool) -> Track:
        # Matroska and FLV count in thousandths of a second.
        even = self.even and abs(self.end - self.start - self.held) <= _GAP_SECONDS + 1e-3 * self.count
        rest = max(0.0, self.step) if not self.last and self.end == self.next else 0.0
        return Track(index, kind, codec, cover, self.count, self.start, self.end, self.held, even, self.opened, rest)


def _seconds(text: str | None) -> Seconds | None:
    try:
        return float(text) if text else None
    except ValueError:  # N/A
        return None


def judge_audio(path: str | Path, codec: str, index: int, duration: Seconds) -> Sound:
    """Says whether torchcodec decodes the sound of a file as FFmpeg does.

    Args:
        path: the file.
        codec: of the sound.
        index: of its stream.
        duration: seconds that the header gives it.
    """
    kind = container(path)
    verdict = judge_sound(path, kind)
    if verdict == "odd" or kind == "mpeg" or not (codec in _KNOWN or codec.startswith("pcm_")):
        return "odd"
    if verdict is not None:
        return verdict
    packets = read_packets(path)
    track = packets.tracks.get(index)
    # A header that only guesses from the rate of bits is no reason to believe it, even where it is right.
    timed = kind == "ogg" or packets.announced is not None or packets.form in ("aiff", "caf", "w64", "au")
    if (
        track is None
        or not track.even
        or not track.opened
        or not timed
        or duration < track.end - track.start - _GAP_SECONDS
    ):
        return "odd"
    return "whole"


def sound_span(path: str | Path, index: int, start: Seconds, duration: Seconds) -> tuple[Seconds, Seconds]:
    """Returns start and duration of a sound by its packets, those of files one behind the other all counted.

    Args:
        path: the file.
        index: of the stream.
        start: what the header says, seconds: encoder delay that is cut off is known there.
        duration: what the header says, seconds, for a sound without packets.
    """
    packets = read_packets(path)
    track = packets.tracks.get(index)
    if track is None or not track.packets:
        return start, duration
    end = max(track.end, track.start + track.held)
    rest = track.rest if packets.announced is None else max(0.0, min(track.rest, packets.announced - end))
    return start, end + rest - start


def announced_end(path: str | Path) -> Seconds | None:
    """Returns the second at which the header of a container says that a file ends; None where it says nothing, or guesses."""
    return read_packets(path).announced


def moving_track(path: str | Path) -> int | None:
    """Returns the video stream of most packets of a file whose best one is a still picture; None where none moves."""
    kind = container(path)
    if kind in ("mp3", "flac", "wav", "ogg") or (kind == "mp4" and count_videos(path) < 2):
        return None  # covers alone
    tracks = read_packets(path).tracks.values()
    moving = [track for track in tracks if track.kind == "video" and track.packets > 1 and not track.cover]
    return max(moving, key=lambda track: (track.packets, -track.index)).index if moving else None


def judge_video(path: str | Path, codec: str, trimmed: bool) -> Pictures:
    """Says whether torchcodec shows the pictures of a file as FFmpeg does.

    MPEG-TS, MPEG-PS and FLV with B-frames show wrong pictures after a seek, without an error. AVI stores no times, so that pictures that
    refer to later ones are moved. Where an edit list hides the key frame, the next one is shown in place of all pictures before it.
    """
    kind = container(path)
    if kind in ("mpeg", "flv"):
        return "copy"
    return "encode" if trimmed or (kind == "avi" and codec not in _INTRA) else "plain"
