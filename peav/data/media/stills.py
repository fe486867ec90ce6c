"""Pictures: a still is a video of one frame, whatever lasts beside it; GIF, APNG and animated WebP may also be a video of all theirs.

A file is known as a picture by its first bytes, never by its name, and goes to Pillow's reader of that format alone; FFmpeg does not
see it. SVG is drawn by `cairosvg`, HEIC is read by `pillow-heif`: both are the extra `pictures`. What comes out is 8-bit RGB, turned
as its EXIF says and laid over white where it is transparent; colour profiles are left aside.
"""

from __future__ import annotations

import importlib
import io
import re
import struct
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from peav.data.media.errors import MediaError
from peav.data.media.ffmpeg import ONE_FILE, REPEATABLE, as_url, find_ffmpeg, h264
from peav.data.media.probing import MediaInfo, Source, VideoStream, probe, source_name
from peav.data.media.resizing import resize_frames
from peav.data.workers import end_with_parent
from peav.opening import is_regular
from peav.types import Sampling, Seconds

#: What is taken of a file that holds several pictures with times: the first one, or all of them as a video.
Animations = Literal["first", "all"]

#: Pillow's names of the formats that are read, by what they are called here.
_READERS = {
    "png": "PNG",
    "jpeg": "JPEG",
    "gif": "GIF",
    "webp": "WEBP",
    "tiff": "TIFF",
    "bmp": "BMP",
    "avif": "AVIF",
    "jpeg2000": "JPEG2000",
    "heic": "HEIF",
}

#: Formats whose pictures have times; the pages of a TIFF have none.
_ANIMATED = ("png", "gif", "webp", "avif")

#: What the brand of an ISO file says.
_BRANDS = {b"avif": "avif", b"avis": "avif"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "heic"
)

#: Sizes that a header of BMP can have.
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)

#: Bytes that tell a picture: an SVG may begin with comments.
_HEAD_BYTES = 4096

#: Longest side of a drawn SVG, pixels: lines have no size of their own.
_SVG_PIXELS = 1024

#: Browsers show a picture of an animation that asks for no more than 10 ms for this long.
_DEFAULT_MILLISECONDS = 100.0

_EXTRA = "pip install 'peav[pictures]'"


def picture_kind(source: Source) -> str | None:
    r"""Returns the format of a picture, such as `png`, None where the bytes are not those of one.

    >>> picture_kind(b"GIF89a"), picture_kind(b"RIFF\0\0\0\0WEBPVP8 "), picture_kind(b"RIFF\0\0\0\0WAVEfmt ")
    ('gif', 'webp', None)
    """
    if isinstance(source, bytes):
        head = source[:_HEAD_BYTES]
    else:
        if not is_regular(Path(source)):
            return None
        with open(source, "rb") as stream:
            head = stream.read(_HEAD_BYTES)
    begins = {
        b"\x89PNG\r\n\x1a\n": "png",
        b"\xff\xd8\xff": "jpeg",
        b"GIF87a": "gif",
        b"GIF89a": "gif",
        b"II*\0": "tiff",
        b"MM\0*": "tiff",
        b"II+\0": "tiff",
        b"MM\0+": "tiff",
        b"\0\0\0\x0cjP  \r\n\x87\n": "jpeg2000",
        b"\xff\x4f\xff\x51": "jpeg2000",
        b"\0\0\0\x0cJXL \r\n\x87\n": "jpeg xl",
        b"\xff\x0a": "jpeg xl",
    }
    for begin, kind in begins.items():
        if head.startswith(begin):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        size = struct.unpack(">I", head[:4])[0]
        brands = {head[place : place + 4] for place in (8, *range(16, min(size, len(head)), 4))}
        return "avif" if b"avif" in brands else _BRANDS[head[8:12]]
    if head[:2] == b"BM" and len(head) >= 18 and struct.unpack("<I", head[14:18])[0] in _BMP_HEADERS:
        return "bmp"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and re.search(rb"<(svg:)?svg[\s>]", head):
        return "svg"
    return None


def probe_media(source: Source, path: str | None = None, animations: Animations = "first") -> MediaInfo:
    """Reads what a file holds, a picture or anything else; see `probe`.

    Raises:
        MediaError: if it cannot be opened or holds neither audio nor video.
    """
    if picture_kind(source) is None:
        return probe(source, path)
    return probe_picture(source, path, animations)


def probe_picture(source: Source, path: str | None = None, animations: Animations = "first") -> MediaInfo:
    """Reads what a picture says of itself; an animation of which all is taken is walked through.

    Args:
        source: path or bytes.
        path: name for errors.
        animations: `first` takes the first picture, `all` all that have times.

    Returns:
        A video of one frame that lasts 0 s, or of all.

    Raises:
        MediaError: if it cannot be opened, or is larger than is decoded.
    """
    path = source_name(source, path)
    with _opened(source, path) as (image, kind):
        # Pillow turns the pages of a TIFF by itself.
        turned = kind != "tiff" and _orientation(image) >= 5
        width, height = reversed(image.size) if turned else image.size
        count, seconds = 1, 0.0
        if animations == "all" and kind in _ANIMATED and getattr(image, "is_animated", False):
            times = [length for _, length in _pictures(image)]
            count, seconds = len(times), sum(times)
    return _info(count, seconds if count > 1 else 0.0, height, width, kind)


def check_picture(source: Source, path: str | None = None, animations: Animations = "first") -> MediaInfo:
    """Decodes a picture, or all that are taken of an animation; see `probe_picture`.

    Raises:
        MediaError: if it cannot be decoded.
    """
    path = source_name(source, path)
    info = probe_picture(source, path, animations)
    video = info.video
    if video is not None and not video.still:
        load_animation(source, [info.duration], (16, 16), path)  # up to its end
        return info
    height, width = load_picture(source, None, path).shape[-2:]
    return _info(1, 0.0, height, width, video.codec if video is not None else "")


def load_picture(source: Source, size: tuple[int, int] | None = None, path: str | None = None) -> Tensor:
    """Decodes a picture, of an animation the first one.

    Args:
        source: path or bytes.
        size: (H, W) to which it is squashed (bilinear, antialiased); as it is by default.
        path: name for errors.

    Returns:
        (3, H, W) uint8 RGB.

    Raises:
        MediaError: if it cannot be decoded.
    """
    with _opened(source, source_name(source, path)) as (image, _):
        return _squashed(_upright_rgb(image), size)


def load_animation(
    source: Source,
    places: Sequence[float],
    size: tuple[int, int] | None = None,
    path: str | None = None,
    sampling: Sampling = "time",
) -> Tensor:
    """Decodes the pictures of an animation at some places; after its end the last one is held.

    Args:
        source: path or bytes.
        places: of F frames, ascending, in seconds.
        size: (H, W) to which they are squashed; as they are by default.
        path: name for errors.
        sampling: with `index` each picture takes up 1 in place of its seconds: picture i is the one at i + 0.5.

    Returns:
        (F, 3, H, W) uint8 RGB.

    Raises:
        MediaError: if they cannot be decoded.
    """
    frames: list[Tensor] = []
    with _opened(source, source_name(source, path)) as (image, _):
        end = 0.0
        for picture, length in _pictures(image):
            end += 1.0 if sampling == "index" else length
            wanted = sum(place < end for place in places[len(frames) :])
            if wanted:
                frames += [_squashed(_upright_rgb(picture), size)] * wanted
            elif len(frames) == len(places):
                break
        if len(frames) < len(places):
            frames += [_squashed(_upright_rgb(image), size)] * (len(places) - len(frames))
    return torch.stack(frames)


def is_animation(source: Source) -> bool:
    """Returns whether a picture that can be opened is one of several that have times.

    Raises:
        MediaError: if it cannot be opened.
    """
    with _opened(source, source_name(source, None)) as (image, kind):
        return kind in _ANIMATED and bool(getattr(image, "is_animated", False))


def count_still_frames(num_frames: int | None, sampling: Sampling) -> int:
    """Returns how many frames a still gives: one, whatever its duration.

    By index, which is Meta's rule, it gives `num_frames` that are all the same, for the released models have never seen fewer.

    >>> count_still_frames(8, "time"), count_still_frames(8, "index"), count_still_frames(None, "index")
    (1, 8, 1)
    """
    return num_frames if sampling == "index" and num_frames is not None else 1


def cover_art(path: str | Path) -> bytes | None:
    """Returns the picture that a file of sound has as its cover, None where there is none. The file must hold no video.

    Raises:
        MediaError: if there is no `ffmpeg` command.
    """
    command = [find_ffmpeg(), "-nostdin", "-v", "error", *ONE_FILE, "-i", as_url(path)]
    command += ["-map", "0:v:0?", "-frames:v", "1", "-c", "copy", "-f", "image2pipe", "pipe:1"]
    result = subprocess.run(command, capture_output=True, check=False, preexec_fn=end_with_parent)
    return result.stdout if result.returncode == 0 and result.stdout else None


def shrink_picture(source: Source, output: Path, size: int, name: str) -> MediaInfo:
    """Writes a picture anew as a square JPEG, squashed as `load_picture` does it.

    Args:
        source: path or bytes.
        output: the file to write.
        size: height and width, pixels.
        name: how errors call the picture.

    Returns:
        What the file holds.

    Raises:
        MediaError: if it cannot be decoded.
    """
    pixels = load_picture(source, (size, size), name)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(output, "JPEG", quality=95, subsampling=0)
    return probe_picture(output, name)


def write_animation(
    source: Source,
    output: Path,
    start: Seconds,
    duration: Seconds,
    size: int,
    fps: float,
    crf: int,
    gop: int,
    name: str,
) -> None:
    """Writes a span of an animation as H.264 of a constant rate, with square frames.

    Args:
        source: path or bytes.
        output: the mp4 to write.
        start: of the span, seconds.
        duration: of it, seconds.
        size: height and width, pixels.
        fps: frames a second.
        crf: quality, of x264.
        gop: frames from one key frame to the next, at most.
        name: how errors call the animation.

    Raises:
        MediaError: if it cannot be decoded, or FFmpeg fails.
    """
    count = max(1, round(duration * fps))
    frames = load_animation(source, [start + index / fps for index in range(count)], (size, size), name)
    command = [find_ffmpeg(), "-nostdin", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-video_size", f"{size}x{size}", "-framerate", f"{fps:g}", "-i", "pipe:0", *h264(crf, gop)]
    command += ["-threads", "1", *REPEATABLE, "-f", "mp4", "-y", as_url(output)]
    pixels = frames.permute(0, 2, 3, 1).contiguous().numpy().tobytes()
    result = subprocess.run(command, input=pixels, capture_output=True, check=False, preexec_fn=end_with_parent)
    if result.returncode:
        reason = result.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise MediaError(name, f"the animation cannot be re-encoded: {reason[0]}")


def _info(count: int, seconds: Seconds, height: int, width: int, kind: str) -> MediaInfo:
    fps = count / seconds if seconds else 0.0
    video = VideoStream(count, fps, height, width, 0.0, seconds, kind, image=True)
    return MediaInfo(None, video, 0.0, seconds)


@contextmanager
def _opened(source: Source, path: str) -> Iterator[tuple[Image.Image, str]]:
    """Opens a picture; whatever its bytes provoke, here or while it is decoded, becomes one sentence.

    Raises:
        MediaError: if it is none, or cannot be decoded.
    """
    kind = picture_kind(source)
    if kind is None:
        raise MediaError(path, "is no picture of a kind that is read")
    called = kind.upper()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of sizes that are decoded all the same
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
            with Image.open(
                io.BytesIO(_drawn(data, path) if kind == "svg" else data), formats=_formats(kind, path)
            ) as image:
                yield image, kind
    except MediaError:
        raise
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise MediaError(
            path, f"is a {called} picture of more than {most:,} pixels, which are not decoded: make it smaller"
        ) from None
    except Exception as error:  # Pillow's readers raise what they like
        said = str(error)
        if "truncated" in said.lower() or isinstance(error, EOFError):
            raise MediaError(path, f"truncated: the {called} picture ends early") from None
        reason = "" if not said or "0x" in said or "<" in said else f" ({said.splitlines()[0]})"
        raise MediaError(
            path, f"the {called} picture is damaged, or of a kind that Pillow cannot read{reason}"
        ) from None


def _formats(kind: str, path: str) -> tuple[str, ...]:
    """Returns Pillow's reader of a format, that no other one gets to see the bytes."""
    if kind == "svg":
        return ("PNG",)
    if kind == "heic":
        _extra(
            "pillow_heif", path, "HEIC picture, as some phones take them", "or convert it to JPEG"
        ).register_heif_opener()
    if kind not in _READERS:
        raise MediaError(path, f"is a {kind.upper()} picture, which Pillow cannot read: convert it to PNG")
    return (_READERS[kind],)


def _extra(module: str, path: str, what: str, otherwise: str) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError):  # cairosvg looks for the system's cairo when it is imported
        needs = module.replace("_", "-")
        raise MediaError(path, f"is a {what}, which needs {needs}: {_EXTRA}, {otherwise}") from None


def _drawn(data: bytes, path: str) -> bytes:
    """Draws an SVG; returns a PNG. Nothing that it refers to is opened: cairosvg fetches only for those who call it unsafe."""
    cairosvg = _extra("cairosvg", path, "SVG picture", "with the system's cairo library, or convert it to PNG")
    root = importlib.import_module("defusedxml.ElementTree").fromstring(data)
    sides: list[float | None] = [_number(root.get(name)) for name in ("width", "height")]
    box = [float(word) for word in re.split(r"[\s,]+", (root.get("viewBox") or "").strip()) if word]
    if None in sides and len(box) == 4:
        sides = [*box[2:]]
    width, height = (side if side and side > 0 else 1.0 for side in sides)
    scale = _SVG_PIXELS / max(width, height)
    size = {"output_width": max(1, round(width * scale)), "output_height": max(1, round(height * scale))}
    return bytes(cairosvg.svg2png(bytestring=data, unsafe=False, **size))


def _number(text: str | None) -> float | None:
    """Returns a length of SVG without its unit; None for a share of what is around."""
    found = re.fullmatch(r"\s*([0-9.]+(?:[eE][-+]?\d+)?)\s*[a-zA-Z]*\s*", text or "")
    return float(found[1]) if found else None


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8; that of damaged EXIF is 1, as viewers have it."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a picture is not lost for its metadata
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _pictures(image: Image.Image) -> Iterator[tuple[Image.Image, Seconds]]:
    """Yields the pictures of an animation, each until the next is asked for, and how long each is shown, seconds."""
    # The default picture of an APNG, for viewers that know no animations, is not part of it.
    for index in range(int(bool(getattr(image, "default_image", False))), getattr(image, "n_frames", 1)):
        image.seek(index)
        image.load()
        length = float(image.info.get("duration") or 0.0)
        yield image, (length if length > 10 else _DEFAULT_MILLISECONDS) / 1000


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    """Turns a picture of any mode into 8-bit RGB over white.

    Raises:
        ValueError: if nobody knows what its white is.
    """
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 0xFFFF:
            raise ValueError("its 32-bit levels have no known white: convert it to 8 or 16 bits")
        image = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("its floating point levels have no known white: convert it to 8 or 16 bits")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.new("RGBA", over.size, "white")
        image.alpha_composite(over)
    return image.convert("RGB")


def _squashed(image: Image.Image, size: tuple[int, int] | None) -> Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    return pixels if size is None else resize_frames(pixels, size)
