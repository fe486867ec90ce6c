"""What is made of files for a browser: a span encoded anew, a thumbnail that is not black, and the outline of a waveform."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from peav.data.media.errors import MediaError
from peav.data.media.ffmpeg import FULL_DISK, ONE_FILE, as_url, find_ffmpeg
from peav.data.media.stills import load_picture
from peav.data.workers import end_with_parent
from peav.serve.apart import TooMuch
from peav.serve.describe import Medium
from peav.types import Seconds

#: Longest side of a rendition and of a picture, pixels.
RENDITION_PIXELS = 1280
#: Size of the pictures that a thumbnail is chosen from.
_THUMB_WIDTH, _THUMB_HEIGHT = 384, 216
#: So many are looked at, and so many places of a file whose span is black.
_CANDIDATES, _PLACES = 16, 8
#: A picture is black if its lightness, of 255, is below this, and spread by less.
_DARK, _FLAT = 24.0, 6.0
#: One that is lighter than this is taken as it is.
_DIM = 64.0
#: Points of a waveform, and the rate at which it is looked at, Hz.
PEAKS = 400
_PEAK_RATE = 8000


def make_rendition(path: str, medium: Medium, start: Seconds, seconds: Seconds, output: Path, limit: Seconds) -> None:
    """Encodes a span as H.264 and AAC in mp4, which every browser plays, from its beginning on.

    Args:
        path: the file.
        medium: what it is.
        start: of the span, seconds from the origin of the file.
        seconds: how long it is.
        output: the mp4 to write.
        limit: time for it, seconds.

    Raises:
        MediaError: if it cannot be decoded.
        TooMuch: if it takes longer.
        OSError: if the disk is full.
    """
    arguments = [*_span(path, medium, start, seconds), "-sn", "-dn", "-map_metadata", "-1", "-map_chapters", "-1"]
    if medium.has_video:
        fit = f"scale='min({RENDITION_PIXELS},iw)':'min({RENDITION_PIXELS},ih)':force_original_aspect_ratio=decrease"
        video = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-maxrate", "6M", "-bufsize", "12M"]
        arguments += ["-vf", f"{fit},scale=trunc(iw/2)*2:trunc(ih/2)*2,format=yuv420p", *video, "-g", "48"]
    else:
        arguments += ["-vn"]
    if medium.has_sound:
        arguments += ["-c:a", "aac", "-b:a", "160k", "-ac", "2"]
    arguments += ["-t", f"{seconds:.3f}", "-movflags", "+faststart", "-f", "mp4", "-y", as_url(output)]
    _run(path, arguments, limit)
    if not output.stat().st_size:
        raise MediaError(path, f"nothing of it can be played at {start:g} s")


def make_thumbnail(
    path: str, medium: Medium, start: Seconds, seconds: Seconds, whole: Seconds, output: Path, limit: Seconds
) -> None:
    """Writes a picture of a span as WebP: not the first, which is often black, but one that shows something.

    Where all of the span is black, the whole file is looked at; where that is, too, what little there is is made light.

    Args:
        path: the file.
        medium: what it is; with moving pictures.
        start: of the span, seconds from the origin of the file.
        seconds: how long it is.
        whole: how long the file is.
        output: the file to write.
        limit: time for it, seconds.

    Raises:
        MediaError: if no picture can be decoded, or all have one colour.
        TooMuch: if it takes longer, and no picture was had.
    """
    chosen = None
    try:
        for number, pictures in enumerate(_candidates(path, medium, start, seconds, whole, limit)):
            found = choose_picture(pictures)
            chosen = chosen if found is None else found
            # Of key frames a dim one may stand in the middle of a fade: all pictures tell.
            if chosen is not None and not is_black(chosen) and (number or lightness(chosen).mean() >= _DIM):
                break
    except TooMuch:
        if chosen is None:
            raise
    if chosen is None:
        raise MediaError(path, f"has no picture at {start:g} s")
    image = Image.fromarray(chosen)
    if is_black(chosen):
        if not float(chosen.std()) >= 1.0:
            raise MediaError(path, "its pictures are all of one colour")
        image = ImageOps.autocontrast(image)
    _save(image, output)


def make_picture(path: str, side: int) -> bytes:
    """Returns a still picture as WebP, of a bounded size; whatever else the file holds, no script among it, is left behind.

    Raises:
        MediaError: if it cannot be decoded.
    """
    image = Image.fromarray(load_picture(path).permute(1, 2, 0).numpy())
    image.thumbnail((side, side))
    held = io.BytesIO()
    image.save(held, "WEBP", quality=82)
    return held.getvalue()


def make_peaks(path: str, medium: Medium, start: Seconds, seconds: Seconds, output: Path, limit: Seconds) -> None:
    """Writes the outline of a span's sound as JSON: PEAKS numbers from 0 to 1, the greatest magnitude of each part.

    Raises:
        MediaError: if it cannot be decoded.
        TooMuch: if it takes longer.
    """
    pipe = ["-vn", "-sn", "-dn", "-ac", "1", "-ar", str(_PEAK_RATE), "-t", f"{seconds:.3f}", "-f", "f32le", "pipe:1"]
    samples = np.frombuffer(_run(path, [*_span(path, medium, start, seconds), *pipe], limit), "<f4")
    output.write_text(json.dumps({"start": start, "seconds": seconds, "peaks": outline(samples, seconds)}))


def outline(samples: np.ndarray, seconds: Seconds, count: int = PEAKS) -> list[float]:
    """Returns the greatest magnitude in each of equal parts of a span; 0 where the sound has ended.

    Args:
        samples: (S,) at 8 kHz.
        seconds: of the span.
        count: of parts.

    >>> outline(np.array([0.5] * 8000 + [-1.0] * 8000), 4.0, 4)
    [0.5, 1.0, 0.0, 0.0]
    """
    edges = np.linspace(0, max(seconds * _PEAK_RATE, 1), count + 1).astype(int)
    loud = np.nan_to_num(np.abs(samples), nan=0.0, posinf=1.0)
    return [
        round(min(1.0, float(loud[begin : max(end, begin + 1)].max(initial=0.0))), 3)
        for begin, end in itertools.pairwise(edges)
    ]


def choose_picture(pictures: np.ndarray) -> np.ndarray | None:
    """Returns of pictures (N, H, W, 3) uint8 the one that is most like the others, among those that are not black; None of none.

    Where all are black, the lightest.
    """
    if not len(pictures):
        return None
    bright = [number for number in range(len(pictures)) if not is_black(pictures[number])]
    if not bright:
        return np.asarray(pictures[int(np.argmax([one.std() for one in pictures]))])
    small = pictures[bright][:, ::8, ::8].reshape(len(bright), -1).astype(np.float32)
    distance = np.abs(small - np.median(small, 0)).mean(1)
    return np.asarray(pictures[bright[int(np.argmin(distance))]])


def is_black(picture: np.ndarray) -> bool:
    """Returns whether a picture (H, W, 3) uint8 shows nothing that can be seen.

    >>> is_black(np.full((4, 4, 3), 16, np.uint8)), is_black(np.full((4, 4, 3), 128, np.uint8))
    (True, False)
    """
    light = lightness(picture)
    return bool(light.mean() < _DARK and light.std() < _FLAT)


def lightness(picture: np.ndarray) -> np.ndarray:
    """Returns how light (H, W) each point of a picture (H, W, 3) uint8 is, of 255."""
    return np.asarray(picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))


def _candidates(
    path: str, medium: Medium, start: Seconds, seconds: Seconds, whole: Seconds, limit: Seconds
) -> Iterator[np.ndarray]:
    """Yields pictures that a thumbnail may be chosen from, cheap ones first: key frames of the span, all of it, places of the file.

    All of them together take no longer than the limit.
    """
    ends = time.monotonic() + limit
    spans: list[tuple[Seconds, Seconds, list[str]]] = [(start, seconds, ["-skip_frame", "nokey"]), (start, seconds, [])]
    # A second each, for a seek may lead between two pictures.
    spans += [(whole * (part + 0.5) / _PLACES, 1.0, []) for part in range(_PLACES)]
    for begin, length, decoder in spans:
        left = ends - time.monotonic()
        if left <= 0:
            raise TooMuch(f"{Path(path).name} took longer than {limit:g} s to decode")
        yield _pictures(path, medium, begin, length, left, decoder)


def _pictures(
    path: str, medium: Medium, start: Seconds, seconds: Seconds, limit: Seconds, decoder: Sequence[str] = ()
) -> np.ndarray:
    rate = _CANDIDATES / max(seconds, 0.1)
    # The shape of what is shown, whatever that of its points.
    square = "scale='iw*max(sar,1)':'ih*max(1/sar,1)',setsar=1"
    fit = f"scale={_THUMB_WIDTH}:{_THUMB_HEIGHT}:force_original_aspect_ratio=decrease"
    filters = f"fps={rate:.6f}:round=up,{square},{fit},format=rgb24"
    pipe = ["-an", "-sn", "-dn", "-vf", filters, "-frames:v", str(_CANDIDATES)]
    pipe += ["-f", "image2pipe", "-c:v", "ppm", "pipe:1"]
    return _read_ppm(_run(path, [*decoder, *_span(path, medium, start, seconds), *pipe], limit))


def _read_ppm(data: bytes) -> np.ndarray:
    """Returns the pictures (N, H, W, 3) of a stream of PPM, all of one size."""
    header = re.match(rb"P6\n(\d+) (\d+)\n255\n", data)
    if header is None:
        return np.zeros((0, 1, 1, 3), np.uint8)
    width, height = int(header[1]), int(header[2])
    size = len(header[0]) + width * height * 3
    count = len(data) // size
    rows = np.frombuffer(data[: count * size], np.uint8).reshape(count, size)
    return rows[:, len(header[0]) :].reshape(count, height, width, 3)


def _span(path: str, medium: Medium, start: Seconds, seconds: Seconds) -> list[str]:
    """Returns the input of a span; FFmpeg counts from the first time stamp, which encoder delay puts before 0."""
    begin = start + max(0.0, -medium.start)
    return ["-ss", f"{begin:.3f}", "-t", f"{seconds:.3f}", *ONE_FILE, "-i", as_url(path)]


def _run(path: str, arguments: list[str], limit: Seconds) -> bytes:
    command = [find_ffmpeg(), "-nostdin", "-nostats", "-v", "error", "-threads", "2", *arguments]
    try:
        result = subprocess.run(command, capture_output=True, check=False, timeout=limit, preexec_fn=end_with_parent)
    except subprocess.TimeoutExpired:
        raise TooMuch(f"{Path(path).name} took longer than {limit:g} s to decode") from None
    said = result.stderr.decode(errors="replace")
    # FFmpeg says so, and may end as if nothing had been.
    if any(os.strerror(number) in said for number in FULL_DISK):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if result.returncode:
        raise MediaError(path, f"cannot be decoded: {(said.strip().splitlines() or ['FFmpeg ended'])[-1][:300]}")
    return result.stdout


def _save(image: Image.Image, output: Path) -> None:
    image.save(output, "WEBP", quality=80)
