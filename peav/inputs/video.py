"""Videos that a user gives, as files, arrays and pictures: what they hold, and their frames as the model sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from peav.checkpoints import MediaSettings
from peav.data.media.decode import count_frames, frame_times, load_frames
from peav.data.media.probing import MediaError, MediaInfo, VideoStream
from peav.data.media.resizing import resize_frames
from peav.data.media.stills import count_still_frames, cover_art, load_picture
from peav.inputs.windows import Window
from peav.types import Seconds

#: A path; uint8 frames of shape (F, 3, H, W) or (F, H, W, 3); or the frames as PIL images.
VideoLike = str | Path | np.ndarray | Tensor | Sequence[Image]

_HOW = (
    "give a path, uint8 frames of shape (frames, 3, height, width) or (frames, height, width, 3), a list of PIL images, which is "
    "one video, or a list of these"
)


@dataclass(frozen=True)
class FileVideo:
    """The video of a file.

    Attributes:
        name: what messages call it.
        seconds: from time zero to the end of the video, which may come before that of the file.
        path: where it is.
        origin: time zero on the clock of the file, seconds.
        num_frames: frames of the file.
        fps: their mean rate.
        animated: whether it is a picture of which all frames are taken.
    """

    name: str
    seconds: Seconds
    path: str
    origin: Seconds
    num_frames: int
    fps: float
    animated: bool = False

    def load(self, media: MediaSettings, window: Window) -> tuple[Tensor, Seconds]:
        """Decodes the frames of a window: (F, 3, H, W) uint8, and the seconds between two.

        A whole file follows the model's way to sample, and gives every frame where the model takes all of them; a window is sampled
        by time.

        Raises:
            MediaError: if it cannot be decoded.
        """
        part = self.seconds if window.whole else min(window.start + window.seconds, self.seconds) - window.start
        sampling = media.sampling if window.whole else "time"
        if media.num_frames is not None or media.fps is not None:
            count = count_frames(part, media.num_frames, None if media.num_frames is not None else media.fps)
        elif window.whole:
            count, sampling = self.num_frames, "index"
        else:
            count = max(1, round(part * self.fps))
        size = (media.frame_size, media.frame_size)
        return load_frames(
            self.path, count, None, window.start, part, size, sampling, self.name, self.origin, animated=self.animated
        )


@dataclass(frozen=True)
class FilePicture:
    """A still picture in a file: seen for as long as the sound beside it lasts.

    Attributes:
        name: what messages call it.
        seconds: duration; None where no sound beside it tells it.
        path: where it is.
        cover: whether it is the cover of a file of sound.
    """

    name: str
    seconds: Seconds | None
    path: str
    cover: bool = False

    def load(self, media: MediaSettings, window: Window) -> tuple[Tensor, Seconds]:
        """Decodes the picture once, or as often as the model's rule for videos with fewer frames says, see `count_still_frames`.

        Raises:
            MediaError: if it cannot be decoded.
        """
        whole = window.whole or self.seconds is None
        count = count_still_frames(media.num_frames, media.sampling)
        source = (cover_art(self.path) or b"") if self.cover else self.path
        frame = load_picture(source, (media.frame_size, media.frame_size), self.name)
        part = float("nan") if self.seconds is None else self.seconds
        if not whole:
            part = min(window.start + window.seconds, part) - window.start
        return frame.expand(count, *frame.shape).clone(), part / count


@dataclass(frozen=True)
class ArrayVideo:
    """Frames in memory, evenly spaced.

    Attributes:
        name: what messages call them.
        seconds: duration; None where no sound beside them tells it.
        frames: (F, 3, H, W) uint8, or F images.
    """

    name: str
    seconds: Seconds | None
    frames: Tensor | Sequence[Image]

    def load(self, media: MediaSettings, window: Window) -> tuple[Tensor, Seconds]:
        """Returns the frames of a window as `FileVideo.load` does, a single one as `FilePicture.load` does.

        The seconds between two are NaN where nobody knows them.

        Raises:
            ValueError: if the model takes frames by the second, and the frames carry no time.
        """
        total, seconds = len(self.frames), self.seconds
        whole = window.whole or seconds is None
        part = 1.0 if seconds is None else seconds
        if not whole:
            part = min(window.start + window.seconds, part) - window.start
        sampling = media.sampling if whole else "time"
        if total == 1:
            count, sampling = count_still_frames(media.num_frames, media.sampling), "index"
        elif media.num_frames is not None:
            count = count_frames(part, media.num_frames)
        elif media.fps is not None:
            if seconds is None:
                raise ValueError(
                    f"{self.name} is frames without times, but {media.fps:g} frames a second are wanted: give a path, the audio that "
                    f"belongs to them, or num_frames (num_frames={total} takes all)"
                )
            count = count_frames(part, fps=media.fps)
        elif whole:
            count, sampling = total, "index"
        else:
            count = max(1, round(part / (seconds or 1.0) * total))
        if sampling == "index":
            chosen = [int(index * (total - 1) / max(count - 1, 1)) for index in range(count)]
        else:
            times = frame_times(count, part, window.start)
            chosen = [min(int(time / (seconds or 1.0) * total), total - 1) for time in times]
        if isinstance(self.frames, Tensor):
            frames = _squashed(self.frames[chosen], media.frame_size)
        else:
            pictures = [
                torch.from_numpy(np.array(self.frames[index].convert("RGB"))).permute(2, 0, 1) for index in chosen
            ]
            frames = torch.stack([_squashed(picture, media.frame_size) for picture in pictures])
        return frames, part / count if seconds is not None else float("nan")


Video = FileVideo | FilePicture | ArrayVideo


def file_video(path: str, info: MediaInfo, stream: VideoStream) -> FileVideo | FilePicture:
    """Returns the video of a file, as long as its frames last: their end is known exactly, for the packets were counted."""
    if stream.still:
        return FilePicture(path, None, path)
    seconds = min(info.duration, stream.start + stream.duration - info.origin)
    return FileVideo(path, seconds, path, info.origin, stream.num_frames, stream.fps, stream.image)


def read_video(video: VideoLike | Sequence[VideoLike], probe_file: Callable[[str, str], MediaInfo]) -> list[Video]:
    """Looks at the videos that a user gives; files are opened, but not decoded.

    Args:
        video: a path, frames, or a list of these; a list of PIL images is one video.
        probe_file: from a path and its name to what the file holds.

    Raises:
        ValueError: if there is no video, or something else is given.
        FileNotFoundError: if a file is not there.
        MediaError: if a file holds no video.
    """
    if not isinstance(video, list | tuple) or _are_images(video):
        return [_read(video, "video", probe_file)]  # type: ignore[arg-type]
    if not video:
        raise ValueError(f"video is an empty list: {_HOW}")
    return [_read(item, f"video[{row}]", probe_file) for row, item in enumerate(video)]


def _are_images(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, Image) for item in value)


def _read(item: VideoLike, name: str, probe_file: Callable[[str, str], MediaInfo]) -> Video:
    if isinstance(item, str | Path):
        info = probe_file(str(item), name)
        if info.video is None:
            raise MediaError(str(item), "holds no video")
        if not info.video.num_frames or not (info.duration > 0 or info.video.still):
            raise MediaError(str(item), "the video holds no frame")
        return file_video(str(item), info, info.video)
    if isinstance(item, list | tuple) and _are_images(item):
        return ArrayVideo(name, None, list(item))
    if not isinstance(item, np.ndarray | Tensor):
        what = "an empty list" if isinstance(item, list | tuple) and not item else f"{item!r:.80}"
        raise ValueError(f"{name} is {what}, of type {type(item).__name__}: {_HOW}")
    frames = item.detach().cpu() if isinstance(item, Tensor) else torch.from_numpy(np.ascontiguousarray(item))
    shape = tuple(frames.shape)
    if frames.dtype != torch.uint8:
        raise ValueError(
            f"{name} has values of type {item.dtype}: frames are uint8, 0 to 255; scale what lies in [0, 1] by 255 and convert it"
        )
    if frames.ndim != 4 or not frames.numel() or 3 not in (shape[1], shape[3]):
        raise ValueError(f"{name} has shape {shape}: {_HOW}")
    if shape[1] == shape[3]:
        raise ValueError(f"{name} has shape {shape}, in which either 3 could be the colours: {_HOW}")
    return ArrayVideo(name, None, frames if shape[1] == 3 else frames.permute(0, 3, 1, 2))


def _squashed(frames: Tensor, size: int) -> Tensor:
    """Resizes frames (..., 3, H, W) to a square, as `load_frames` does."""
    return resize_frames(frames, (size, size))
