"""The moving picture: each object moves as its own sound's envelope says, from the frame in which the sound begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from peav.data.synthetic.pictures import LEVELS, background, sprite
from peav.data.synthetic.sources import SIZES
from peav.data.synthetic.world import Scene, Thing

_COLUMNS = {"left": 0.24, "middle": 0.5, "right": 0.76}
_ROWS = {"top": 0.31, "bottom": 0.69}


@dataclass(frozen=True)
class Pose:
    """How an object differs from its rest: moved (in heights), turned (radians), stretched, lit or open-mouthed."""

    dx: float = 0.0
    dy: float = 0.0
    angle: float = 0.0
    wide: float = 1.0
    high: float = 1.0
    level: int = 0


_REST = Pose()


def envelope(wave: NDArray[np.float64], onset: float, frames: int, fps: int, sample_rate: int) -> NDArray[np.float64]:
    """Returns how loud an event is in each frame, (frames,), 0 to 1: its loudest 20 ms while the frame is shown."""
    step = max(1, round(0.02 * sample_rate))
    track = np.zeros(round(frames / fps * sample_rate))
    first = round(onset * sample_rate)
    track[first : first + wave.size] = wave[: track.size - first]
    power = np.sqrt(np.mean(track[: track.size // step * step].reshape(-1, step) ** 2, axis=1))
    at = np.minimum(((np.arange(power.size) + 0.5) * step / sample_rate * fps).astype(int), frames - 1)
    loud = np.zeros(frames)
    np.maximum.at(loud, at, power)
    loud = np.sqrt(loud / max(float(loud.max()), 1e-9))
    return np.where(loud < 0.12, 0.0, loud)


def poses(motion: str, loud: NDArray[np.float64], fps: int) -> list[Pose]:
    """Returns the pose of an object in each frame, for one kind of motion and its sound's envelope, (frames,)."""
    start = int(np.argmax(loud > 0))
    t = (np.arange(loud.size) - start + 1) / fps
    sway: list[float] = (loud * np.sin(2 * np.pi * 2.4 * t)).tolist()
    swell: list[float] = (loud * (0.7 + 0.3 * np.cos(2 * np.pi * 3.0 * t))).tolist()
    turned: list[float] = (np.cumsum(loud) * 2 * np.pi * 0.9 / fps).tolist()
    level: list[float] = loud.tolist()
    made: dict[str, Callable[[int], Pose]] = {
        "swing": lambda k: Pose(angle=0.6 * sway[k]),
        "flash": lambda k: Pose(level=round((LEVELS - 1) * swell[k])),
        "shake": lambda k: Pose(dx=0.16 * level[k] * (1 if k % 2 else -1)),
        "bounce": lambda k: Pose(dy=-0.3 * swell[k], high=1 + 0.12 * swell[k]),
        "spin": lambda k: Pose(angle=turned[k]),
        "pulse": lambda k: Pose(wide=1 + 0.38 * swell[k], high=1 + 0.38 * swell[k]),
        "stretch": lambda k: Pose(high=1 + 0.5 * swell[k], wide=1 - 0.22 * swell[k]),
        "slide": lambda k: Pose(dx=0.3 * sway[k]),
        "talk": lambda k: Pose(level=round((LEVELS - 1) * min(1.0, 1.1 * level[k])), dy=-0.05 * level[k]),
    }
    return [made[motion](k) for k in range(loud.size)]


def _place(frame: Image.Image, thing: Thing, pose: Pose) -> None:
    size = frame.width
    pixels = SIZES[thing.size] * size
    image = sprite(thing.look, thing.colour, round(pixels), pose.level)
    x = (_COLUMNS[thing.column] * size) + pose.dx * pixels
    y = (_ROWS[thing.row] * size) + pose.dy * pixels
    if pose.angle == 0 and pose.wide == 1 and pose.high == 1:
        corner = (round(x - image.width / 2), round(y - image.height / 2))
        frame.paste(image, corner, image)
        return
    # The inverse map, from the frame's pixels back to the sprite's; only the square that the sprite can reach is drawn.
    reach = int(np.ceil(image.width * max(pose.wide, pose.high) * 0.72)) + 1
    left, top = round(x) - reach, round(y) - reach
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    a, b, d, e = cos / pose.wide, sin / pose.wide, -sin / pose.high, cos / pose.high
    u, v = x - left, y - top
    c, f = image.width / 2 - a * u - b * v, image.height / 2 - d * u - e * v
    moved = image.transform(
        (2 * reach, 2 * reach), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR
    )
    frame.paste(moved, (left, top), moved)


def frames_of(scene: Scene, envelopes: Sequence[NDArray[np.float64]], fps: int, frame_size: int) -> NDArray[np.uint8]:
    """Draws the frames of a clip.

    Args:
        scene: The scene.
        envelopes: The envelope of each event, (frames,).
        fps: Frames a second.
        frame_size: Height and width of a frame in pixels.

    Returns:
        The frames, (frames, frame_size, frame_size, 3), RGB.
    """
    count = envelopes[0].size
    still = background(scene.background, frame_size).copy()
    moving: list[tuple[Thing, list[Pose]]] = []
    for thing in scene.things:
        if thing.event is None:
            _place(still, thing, _REST)
        else:
            moving.append((thing, poses(scene.events[thing.event].source.motion, envelopes[thing.event], fps)))
    frames = np.empty((count, frame_size, frame_size, 3), np.uint8)
    last: tuple[Pose, ...] | None = None
    for k in range(count):
        now = tuple(track[k] for _, track in moving)
        if now == last:
            frames[k] = frames[k - 1]
            continue
        frame = still.copy()
        for (thing, _), pose in zip(moving, now, strict=True):
            _place(frame, thing, pose)
        frames[k] = np.asarray(frame)
        last = now
    return frames
