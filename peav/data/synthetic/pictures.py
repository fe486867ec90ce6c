"""The looks: every shape as a few polygons and ellipses in [-1, 1] x [-1, 1], y down, with soft edges."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from peav.data.synthetic.sources import BACKGROUNDS, COLOURS

#: Half the width of a sprite in the units of the shapes: a margin for the outline.
MARGIN = 1.15
#: How many steps a flash or a mouth has.
LEVELS = 8

_SUPERSAMPLING = 4
_OUTLINE = (22, 22, 28)

Points = list[tuple[float, float]]
#: A layer is (paint, form, numbers). Paint: "body", "light", "shade", "dark", "hole"; form: "polygon" or "ellipse".
Layer = tuple[str, str, object]


def _polygon(*points: tuple[float, float], paint: str = "body") -> Layer:
    return (paint, "polygon", list(points))


def _ellipse(x: float, y: float, rx: float, ry: float | None = None, paint: str = "body") -> Layer:
    ry = rx if ry is None else ry
    return (paint, "ellipse", (x - rx, y - ry, x + rx, y + ry))


def _box(x0: float, y0: float, x1: float, y1: float, paint: str = "body") -> Layer:
    return _polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1), paint=paint)


def _around(count: int, radii: Iterable[float], start: float = -90.0) -> Points:
    """Returns `count` points around the origin, with the radii in turn."""
    cycle = list(radii)
    angles = np.deg2rad(start + 360.0 * np.arange(count) / count)
    return [
        (float(cycle[k % len(cycle)] * np.cos(a)), float(cycle[k % len(cycle)] * np.sin(a)))
        for k, a in enumerate(angles)
    ]


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 48)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return list(zip((x / 17).tolist(), (-y / 16 - 0.05).tolist(), strict=True))


def _crescent() -> Points:
    outer = np.deg2rad(np.linspace(50, 310, 40))
    inner = np.deg2rad(np.linspace(290, 70, 40))
    x = np.concatenate((np.cos(outer), 0.45 + 0.78 * np.cos(inner)))
    y = np.concatenate((np.sin(outer), 0.78 * np.sin(inner)))
    return list(zip((x + 0.15).tolist(), y.tolist(), strict=True))


def _drop() -> Points:
    t = np.deg2rad(np.linspace(-30, 210, 40))
    return [(0.0, -1.0), *zip((0.66 * np.cos(t)).tolist(), (0.32 + 0.66 * np.sin(t)).tolist(), strict=True)]


def _face(*more: Layer) -> tuple[Layer, ...]:
    eyes = (_ellipse(-0.32, -0.15, 0.13, 0.16, paint="dark"), _ellipse(0.32, -0.15, 0.13, 0.16, paint="dark"))
    return (_ellipse(0, 0.08, 0.84, 0.86), *eyes, *more)


LOOKS: dict[str, tuple[Layer, ...]] = {
    "bell": (
        _ellipse(0, 0.78, 0.2, paint="dark"),
        _ellipse(0, -0.35, 0.52, 0.6),
        _polygon((-0.52, -0.35), (0.52, -0.35), (0.62, 0.35), (0.95, 0.68), (-0.95, 0.68), (-0.62, 0.35)),
        _box(-0.68, 0.3, 0.68, 0.42, paint="dark"),
    ),
    "cross": (_box(-0.3, -0.95, 0.3, 0.95), _box(-0.95, -0.3, 0.95, 0.3)),
    "gear": (("body", "polygon", _around(32, (1.0, 1.0, 0.74, 0.74), -95.0)), _ellipse(0, 0, 0.3, paint="hole")),
    "drop": (("body", "polygon", _drop()), _ellipse(-0.25, 0.4, 0.12, 0.22, paint="light")),
    "square": (_box(-0.82, -0.82, 0.82, 0.82), _box(-0.45, -0.45, 0.45, 0.45, paint="dark")),
    "triangle": (_polygon((0, -0.98), (0.98, 0.8), (-0.98, 0.8)),),
    "hourglass": (_polygon((-0.75, -0.95), (0.75, -0.95), (0.1, 0), (0.75, 0.95), (-0.75, 0.95), (-0.1, 0)),),
    "bone": (
        _box(-0.65, -0.22, 0.65, 0.22),
        *(_ellipse(x, y, 0.32) for x in (-0.66, 0.66) for y in (-0.28, 0.28)),
    ),
    "diamond": (
        _polygon((0, -1.0), (0.7, 0), (0, 1.0), (-0.7, 0)),
        _polygon((0, -0.45), (0.3, 0), (0, 0.45), (-0.3, 0), paint="light"),
    ),
    "arrow": (_polygon((-0.95, -0.3), (0.1, -0.3), (0.1, -0.8), (0.98, 0), (0.1, 0.8), (0.1, 0.3), (-0.95, 0.3)),),
    "crescent": (("body", "polygon", _crescent()),),
    "bar chart": tuple(_box(x - 0.22, top, x + 0.22, 0.95) for x, top in ((-0.7, 0.1), (0.0, -0.9), (0.7, -0.4))),
    "hexagon": (("body", "polygon", _around(6, (0.98,))), ("dark", "polygon", _around(6, (0.45,)))),
    "ring": (_ellipse(0, 0, 0.95), _ellipse(0, 0, 0.5, paint="hole")),
    "star": (("body", "polygon", _around(10, (1.0, 0.42))),),
    "pinwheel": tuple(
        (
            "body" if k % 2 == 0 else "light",
            "polygon",
            [(0.0, 0.0), *_around(1, (0.98,), 90.0 * k), *_around(1, (0.9,), 90.0 * k + 58)],
        )
        for k in (0, 1, 2, 3)
    ),
    "flower": (
        *(_ellipse(0.58 * float(np.cos(a)), 0.58 * float(np.sin(a)), 0.38) for a in np.deg2rad(np.arange(0, 360, 60))),
        _ellipse(0, 0, 0.28, paint="dark"),
    ),
    "heart": (("body", "polygon", _heart()),),
    "face with long hair": (
        _ellipse(0, -0.1, 0.98, 0.92, paint="shade"),
        _box(-0.98, -0.1, 0.98, 1.0, paint="shade"),
        _ellipse(0, 0.14, 0.66, 0.76),
        _ellipse(-0.27, 0.0, 0.12, 0.15, paint="dark"),
        _ellipse(0.27, 0.0, 0.12, 0.15, paint="dark"),
    ),
    "face with a hat": _face(
        _box(-0.98, -0.62, 0.98, -0.42, paint="shade"), _box(-0.55, -1.05, 0.55, -0.5, paint="shade")
    ),
    "face with a beard": _face(
        _polygon(
            (-0.82, 0.15), (-0.42, 0.3), (0.42, 0.3), (0.82, 0.15), (0.6, 0.85), (0, 1.08), (-0.6, 0.85), paint="light"
        ),
    ),
    "square face": (
        _box(-0.05, -1.05, 0.05, -0.6, paint="dark"),
        _ellipse(0, -0.98, 0.14),
        _box(-0.85, -0.7, 0.85, 0.95),
        _box(-0.52, -0.35, -0.2, -0.03, paint="dark"),
        _box(0.2, -0.35, 0.52, -0.03, paint="dark"),
    ),
    "house": (
        _box(-0.7, -0.15, 0.7, 0.95),
        _polygon((-0.98, -0.1), (0, -0.98), (0.98, -0.1)),
        _box(-0.2, 0.35, 0.2, 0.95, paint="dark"),
    ),
    "tree": (
        _box(-0.15, 0.3, 0.15, 1.0, paint="dark"),
        _ellipse(0, -0.3, 0.7),
        _ellipse(-0.4, 0.1, 0.42),
        _ellipse(0.4, 0.1, 0.42),
    ),
    "cloud": (_ellipse(-0.5, 0.2, 0.45), _ellipse(0.5, 0.2, 0.45), _ellipse(0, -0.1, 0.58), _box(-0.5, 0.2, 0.5, 0.65)),
    "ball": (_ellipse(0, 0, 0.92), _box(-0.9, -0.16, 0.9, 0.16, paint="light")),
    "cup": (
        _ellipse(0.62, 0.05, 0.36),
        _ellipse(0.62, 0.05, 0.18, paint="hole"),
        _polygon((-0.8, -0.6), (0.55, -0.6), (0.4, 0.75), (-0.65, 0.75)),
    ),
    "boat": (
        _polygon((-0.98, 0.3), (0.98, 0.3), (0.6, 0.9), (-0.6, 0.9)),
        _polygon((0.05, -0.95), (0.8, 0.15), (0.05, 0.15), paint="light"),
        _box(-0.08, -0.95, 0.05, 0.3, paint="dark"),
    ),
    "flag": (_box(-0.8, -0.95, -0.65, 1.0, paint="dark"), _polygon((-0.65, -0.9), (0.95, -0.45), (-0.65, 0.05))),
    "key": (
        _ellipse(-0.5, 0, 0.45),
        _ellipse(-0.5, 0, 0.2, paint="hole"),
        _box(-0.1, -0.13, 0.98, 0.13),
        _box(0.75, 0.1, 0.95, 0.5),
        _box(0.4, 0.1, 0.58, 0.4),
    ),
}

_MOUTHS = {"face with long hair", "face with a hat", "face with a beard", "square face"}


@lru_cache(maxsize=4096)
def sprite(look: str, colour: str, pixels: int, level: int = 0) -> Image.Image:
    """Returns a shape as RGBA, `pixels` high for [-1, 1], with a margin.

    Args:
        look: Name of the shape, of `LOOKS`.
        colour: Name of its colour, of `COLOURS`.
        pixels: Height of the shape in pixels.
        level: 0 to `LEVELS` - 1: how far the mouth is open, or how brightly a shape without a mouth flashes.
    """
    side = round(pixels * MARGIN)
    scale = pixels / 2 * _SUPERSAMPLING
    middle = side * _SUPERSAMPLING / 2
    big = (side * _SUPERSAMPLING, side * _SUPERSAMPLING)
    share = level / (LEVELS - 1)
    body = np.array(COLOURS[colour], dtype=float)
    layers = LOOKS[look]
    if look in _MOUTHS:
        layers = (*layers, _ellipse(0, 0.48, 0.3, 0.06 + 0.3 * share, paint="dark"))
    else:
        flash = np.array((255, 250, 220) if colour != "white" else (96, 96, 110))
        body = body + 0.8 * share * (flash - body)
    light = body + 0.65 * (255 - body) if body.min() < 200 else body * 0.72
    paints = {"body": body, "light": light, "shade": body * 0.5, "dark": body * 0.28}
    mask = Image.new("L", big, 0)
    image = Image.new("RGB", big, _OUTLINE)
    on_mask, on_image = ImageDraw.Draw(mask), ImageDraw.Draw(image)
    for paint, form, numbers in layers:
        flat = np.asarray(numbers, dtype=float).ravel() * scale + middle
        fill = 0 if paint == "hole" else 255
        shade = _OUTLINE if paint == "hole" else tuple(int(v) for v in paints[paint])
        if form == "polygon":
            on_mask.polygon(flat.tolist(), fill=fill)
            on_image.polygon(flat.tolist(), fill=shade)
        else:
            on_mask.ellipse(flat.tolist(), fill=fill)
            on_image.ellipse(flat.tolist(), fill=shade)
    # The outline keeps a bright shape apart from a bright background.
    mask = mask.filter(ImageFilter.MaxFilter(2 * round(0.35 * _SUPERSAMPLING) + 3))
    image.putalpha(mask)
    return image.resize((side, side), Image.Resampling.BOX)


@lru_cache(maxsize=64)
def background(name: str, frame_size: int) -> Image.Image:
    """Returns a background as RGB, (frame_size, frame_size): a plain tone or a gradient from top to bottom."""
    top, bottom = (np.array(tone, dtype=float) for tone in BACKGROUNDS[name])
    ramp = np.linspace(0, 1, frame_size)[:, None]
    rows = (top + (bottom - top) * ramp).round().astype(np.uint8)
    return Image.fromarray(np.repeat(rows[:, None], frame_size, axis=1))
