"""Pictures of every kind and mode, as Pillow and FFmpeg write them, against FFmpeg's own decode and against arithmetic."""

import importlib.util
import io
import struct
import subprocess
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from peav.data import load_frames
from peav.data.media.probing import MediaError
from peav.data.media.stills import check_picture, load_picture, picture_kind, probe_media
from peav.types import Sampling
from tests.data.conftest import ffmpeg

#: How FFmpeg writes each kind, and how far its decode may be from Pillow's, in levels.
_KINDS = {
    "png": ([], 0),
    "bmp": ([], 0),
    "tiff": ([], 0),
    "webp": (["-lossless", "1"], 0),
    "jpg": (["-q:v", "2", "-pix_fmt", "yuvj444p"], 3),
}


@pytest.mark.parametrize("ending", _KINDS)
def test_a_picture_is_a_video_of_one_frame(tmp_path: Path, ending: str) -> None:
    options, levels = _KINDS[ending]
    path = tmp_path / f"picture.{ending}"
    # mandelbrot has every colour and no flat parts.
    ffmpeg("-f", "lavfi", "-i", "mandelbrot=s=62x34", "-frames:v", "1", *options, str(path))
    raw = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    seen = np.frombuffer(subprocess.run(raw, capture_output=True, check=True).stdout, np.uint8).reshape(34, 62, 3)
    video = probe_media(path).video
    assert video is not None and video.still and (video.num_frames, video.height, video.width) == (1, 34, 62)
    for source in (path, path.read_bytes()):
        frames, seconds = load_frames(source, 8, duration=5.0)
        assert frames.shape == (1, 3, 34, 62) and seconds == 5.0
        apart = (frames[0].permute(1, 2, 0).numpy().astype(int) - seen).__abs__()
        assert apart.max() <= levels if levels == 0 else apart.mean() < levels


def test_how_many_frames_a_still_gives(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "red.png")

    def count(num_frames: int | None, fps: float | None, sampling: Sampling) -> int:
        return len(load_frames(tmp_path / "red.png", num_frames, fps, duration=10.0, sampling=sampling)[0])

    assert count(8, None, "time") == count(None, 4.0, "time") == count(None, 4.0, "index") == 1
    assert count(8, None, "index") == 8  # as Meta's rule has it


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _colour(data: bytes) -> tuple[int, ...]:
    return tuple(load_picture(data)[:, 0, 0].tolist())


def test_what_is_transparent_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert _colour(_saved(clear, "PNG")) == (255, 255, 255)
    assert _colour(_saved(half, "PNG")) == (127, 127, 127)
    assert _colour(_saved(half, "WEBP", lossless=True)) == (127, 127, 127)
    assert _colour(_saved(Image.new("LA", (4, 4), (0, 51)), "PNG")) == (204, 204, 204)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([9, 9, 9, 0, 200, 0])
    assert _colour(_saved(palette, "PNG")) == _colour(_saved(palette, "GIF")) == (0, 200, 0)
    assert _colour(_saved(palette, "PNG", transparency=1)) == (255, 255, 255)
    assert _colour(_saved(palette, "GIF", transparency=1)) == (255, 255, 255)
    assert _colour(_saved(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3))) == (255, 255, 255)


def test_modes_of_other_depths_and_inks() -> None:
    grey = Image.fromarray(np.full((4, 4), 40000, np.uint16))
    assert _colour(_saved(grey, "PNG")) == _colour(_saved(grey, "TIFF")) == (156, 156, 156)  # 40000 * 255 / 65535
    assert _colour(_saved(Image.new("1", (4, 4), 1), "PNG")) == (255, 255, 255)
    assert _colour(_saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF")) == (255, 0, 0)
    red = _colour(_saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert red[0] > 250 and max(red[1:]) < 5
    for mode, level in (("I", 70000), ("F", 0.5)):
        with pytest.raises(MediaError, match="no known white: convert it to 8 or 16 bits"):
            load_picture(_saved(Image.new(mode, (4, 4), level), "TIFF"))


#: What each orientation of EXIF makes of rows and columns.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.transpose(a, (1, 0, 2)),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.transpose(np.rot90(a, 2), (1, 0, 2)),
    8: np.rot90,
}


_LOSSLESS: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF"])
def test_a_picture_is_turned_as_its_exif_says(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    options = _LOSSLESS.get(kind, {})
    for orientation, turn in _TURNS.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = _saved(Image.fromarray(pixels), kind, exif=exif, **options)
        right = turn(pixels)
        video = probe_media(data).video
        assert video is not None and (video.height, video.width) == right.shape[:2], (kind, orientation)
        seen = load_picture(data).permute(1, 2, 0).numpy().astype(int)
        assert np.abs(seen - right).max() <= (12 if kind == "AVIF" else 0), (kind, orientation)


def test_damaged_exif_costs_no_picture() -> None:
    data = _saved(Image.new("RGB", (8, 8), "blue"), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert _colour(data)[2] > 250


@pytest.fixture(scope="module")
def animation() -> dict[str, bytes]:
    """Red for 1 s, green for 2 s, blue for 3 s."""
    pictures = [Image.new("RGB", (8, 4), colour) for colour in ("red", "lime", "blue")]
    more = {"save_all": True, "append_images": pictures[1:], "duration": [1000, 2000, 3000]}
    return {kind: _saved(pictures[0], kind, lossless=True, **more) for kind in ("GIF", "PNG", "WEBP")}


def _names(frames: torch.Tensor) -> str:
    return "".join("rgb"[int(frame[:, 1, 1].argmax())] for frame in frames)


def test_an_animation_is_its_first_picture_or_a_video(animation: dict[str, bytes]) -> None:
    for data in animation.values():
        assert _names(load_frames(data, 6, duration=6.0)[0]) == "r"
        video = probe_media(data, animations="all").video
        assert video is not None and video.image and not video.still
        assert video.num_frames == 3 and video.duration == pytest.approx(6.0) and video.fps == pytest.approx(0.5)
        assert _names(load_frames(data, 6, duration=6.0, animated=True)[0]) == "rggbbb"
        assert _names(load_frames(data, fps=1.0, start=2.0, duration=6.0, animated=True)[0]) == "gbbbbb"  # held
        # A part that was packed whole begins at its origin.
        assert _names(load_frames(data, 2, duration=2.0, origin=2.0, animated=True)[0]) == "gb"
        assert _names(load_frames(data, 5, duration=6.0, animated=True, sampling="index")[0]) == "rrggb"


def test_pages_of_a_tiff_are_no_animation() -> None:
    pages = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
    video = probe_media(_saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]), animations="all").video
    assert video is not None and video.still


def test_pictures_that_cannot_be_decoded_say_so_in_a_sentence(animation: dict[str, bytes]) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "AVIF", "BMP"):
        data = _saved(noise, kind)
        for share in (0.1, 0.5, 0.9):
            with pytest.raises(
                MediaError, match=f"photo: (truncated: the {kind} picture|the {kind} picture is damaged)"
            ):
                check_picture(data[: max(20, int(len(data) * share))], "photo")
    with pytest.raises(MediaError, match=r"truncated: the GIF picture|the GIF picture is damaged"):
        check_picture(animation["GIF"][:-40], "photo", "all")


def test_a_huge_picture_is_not_decoded(tmp_path: Path) -> None:
    # A header that announces 400 million pixels.
    head = struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(2501))), (b"IEND", b""))
    chunks = [struct.pack(">I", len(b)) + a + b + struct.pack(">I", zlib.crc32(a + b)) for a, b in parts]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(MediaError, match=r"is a PNG picture of more than 178,956,970 pixels"):
        probe_media(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none of Pillow's reaches the user
        Image.new("1", (10000, 9500)).save(tmp_path / "b.png")
        assert probe_media(tmp_path / "b.png").video is not None


_SVG = b"""<?xml version="1.0"?>
<!-- made by hand -->
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="40mm" height="20mm" viewBox="0 0 4 2">
<rect width="2" height="2" fill="red"/><image x="2" width="2" height="2" xlink:href="file://%s"/></svg>"""


def test_svg_is_drawn_or_says_what_to_install(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "other.png")
    data = _SVG % str(tmp_path / "other.png").encode()
    assert picture_kind(data) == "svg"
    if importlib.util.find_spec("cairosvg") is None:
        with pytest.raises(MediaError, match=r"is a SVG picture, which needs cairosvg: pip install 'peav\[pictures\]'"):
            probe_media(data)
        return
    pixels = load_picture(data)
    assert pixels.shape == (3, 512, 1024)
    assert pixels[:, 256, 256].tolist() == [255, 0, 0]
    assert pixels[:, 256, 768].tolist() == [255, 255, 255], "another file was opened"
    with pytest.raises(MediaError, match="the SVG picture is damaged"):
        probe_media(b"<svg><g></svg>")


def test_heic_is_read_or_says_what_to_install() -> None:
    data = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(64)
    assert picture_kind(data) == "heic"
    needs = r"is a HEIC picture, as some phones take them, which needs pillow-heif: pip install 'peav\[pictures\]'"
    there = importlib.util.find_spec("pillow_heif") is not None
    with pytest.raises(MediaError, match="the HEIC picture is damaged" if there else needs):
        probe_media(data)
    if there:
        importlib.import_module("pillow_heif").register_heif_opener()
        red = _colour(_saved(Image.new("RGB", (64, 64), "red"), "HEIF", quality=100))
        assert red[0] > 240 and max(red[1:]) < 15


def test_what_is_no_picture_is_none(media: Path) -> None:
    for name in ("good.mp4", "mono.wav", "sound.m4a", "sound.ogg", "garbage.mp4", "zero.mp4"):
        assert picture_kind(media / name) is None, name
    assert picture_kind(b"BMW is no bitmap, though it begins so") is None
    assert picture_kind(b"<html><body>404</body></html>") is None
    with pytest.raises(MediaError, match="JPEG XL picture, which Pillow cannot read: convert it to PNG"):
        probe_media(b"\xff\x0a" + bytes(32))
