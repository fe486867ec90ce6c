"""What a file is to a browser: whether it plays it as it is, and by which name of its kind."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from peav.data.media.errors import MediaError
from peav.data.media.ffmpeg import ONE_FILE, as_url, find_command
from peav.data.media.playlists import refusal
from peav.data.media.stills import picture_kind
from peav.data.workers import end_with_parent
from peav.types import Seconds

#: Time for a look at a header.
_SECONDS: Seconds = 20.0

#: A file whose clock starts this much after 0 is shown at other times by browsers than by peav.
_LATE_SECONDS = 0.05


@dataclass(frozen=True)
class Playable:
    """A container that browsers play, by what FFmpeg calls it.

    Attributes:
        video: codecs of pictures.
        audio: codecs of sound.
        video_type: media type where there are pictures.
        audio_type: where there are none.
    """

    video: frozenset[str]
    audio: frozenset[str]
    video_type: str
    audio_type: str


#: What Chromium, Firefox and Safari play; everything else is encoded anew. ALAC plays without sound and HEVC without pictures, both
#: without an error, in most of them.
_PLAYABLE = {
    "mp4": Playable(frozenset({"h264", "av1"}), frozenset({"aac", "mp3", "flac", "opus"}), "video/mp4", "audio/mp4"),
    "webm": Playable(frozenset({"vp8", "vp9", "av1"}), frozenset({"vorbis", "opus"}), "video/webm", "audio/webm"),
    "ogg": Playable(frozenset(), frozenset({"vorbis", "opus", "flac"}), "video/ogg", "audio/ogg"),
    "mp3": Playable(frozenset(), frozenset({"mp3"}), "", "audio/mpeg"),
    "wav": Playable(frozenset(), frozenset({"pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_f32le"}), "", "audio/wav"),
    "flac": Playable(frozenset(), frozenset({"flac"}), "", "audio/flac"),
    "aac": Playable(frozenset(), frozenset({"aac"}), "", "audio/aac"),
}

#: Eight bits and half the colours: what every decoder of a browser knows.
_PIXELS = {"yuv420p", "yuvj420p"}


@dataclass(frozen=True)
class Medium:
    """A file as a browser is given it.

    Attributes:
        kind: `sound`, `video` or `picture`.
        type: media type under which browsers play it as it is; None where they cannot.
        start: the first time stamp of the file, seconds, from which FFmpeg counts.
        has_sound: whether there is any.
        has_video: whether there are moving pictures.
    """

    kind: Literal["sound", "video", "picture"]
    type: str | None
    start: Seconds
    has_sound: bool
    has_video: bool


@lru_cache(maxsize=4096)
def describe(path: str, size: int, modified: int) -> Medium:
    """Says what a file is to a browser, by its header.

    Args:
        path: of the file.
        size: bytes; with the time it tells whether the file is still the one that was looked at.
        modified: when it was written, nanoseconds.

    Raises:
        MediaError: if it is no medium, or one that makes FFmpeg open others.
    """
    if picture_kind(path) is not None:
        return Medium("picture", None, 0.0, False, False)
    if (reason := refusal(path)) is not None:
        raise MediaError(path, reason)
    command = [find_command("ffprobe"), "-v", "error", *ONE_FILE, "-show_format", "-show_streams", "-of", "json"]
    try:
        result = subprocess.run(
            [*command, as_url(path)], capture_output=True, check=False, timeout=_SECONDS, preexec_fn=end_with_parent
        )
        found = json.loads(result.stdout or b"{}")
    except (subprocess.TimeoutExpired, ValueError):
        found = {}
    streams = found.get("streams") or []
    sounds = [one for one in streams if one.get("codec_type") == "audio"]
    covers = {one["index"] for one in streams if one.get("disposition", {}).get("attached_pic")}
    videos = [one for one in streams if one.get("codec_type") == "video" and one["index"] not in covers]
    if not sounds and not videos:
        raise MediaError(path, "cannot be opened any more, or holds neither sound nor pictures")
    start = float(found["format"].get("start_time") or 0.0)
    type_ = _type(_container(path, found["format"]), sounds, videos) if abs(start) < _LATE_SECONDS else None
    return Medium("video" if videos else "sound", type_, start, bool(sounds), bool(videos))


def _container(path: str, form: dict[str, Any]) -> str:
    names = form.get("format_name", "").split(",")
    if "matroska" in names:
        # Browsers play the subset that calls itself webm.
        with Path(path).open("rb") as stream:
            return "webm" if b"webm" in stream.read(64) else "matroska"
    if "mp4" in names:
        return "mp4" if form.get("tags", {}).get("major_brand", "qt").strip() != "qt" else "quicktime"
    return names[0]


def _type(container: str, sounds: list[dict[str, Any]], videos: list[dict[str, Any]]) -> str | None:
    known = _PLAYABLE.get(container)
    # Of several tracks browsers choose otherwise than peav may have.
    if known is None or len(sounds) > 1 or len(videos) > 1:
        return None
    if any(one.get("codec_name") not in known.audio for one in sounds):
        return None
    if any(one.get("codec_name") not in known.video or one.get("pix_fmt") not in _PIXELS for one in videos):
        return None
    return known.video_type if videos else known.audio_type
