"""Long media in windows: which spans there are, and how what was made of them is joined again. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from peav.types import Seconds

#: A last window shorter than this many seconds, or than this share of a window, is moved back.
_SHORTEST_SECONDS, _SHORTEST_SHARE = 1.0, 0.1

#: What may be longer than a window and still be whole: codecs pad, so that a clip cut at 30 s often holds 30.02 s.
_SLACK_SECONDS, _SLACK_SHARE = 0.1, 0.01


@dataclass(frozen=True)
class Window:
    """A span of a clip.

    Attributes:
        start: seconds from the beginning of the clip.
        seconds: how long it is.
        whole: whether it is all of the clip.
    """

    start: Seconds
    seconds: Seconds
    whole: bool = False


def check_windows(window_seconds: Seconds | None, overlap_seconds: Seconds) -> None:
    """Checks the settings of windows.

    Raises:
        ValueError: unless 0 <= overlap_seconds < window_seconds.
    """
    if window_seconds is not None and not (0 < window_seconds < math.inf):
        raise ValueError(f"window_seconds must be positive, or None for whole media, not {window_seconds}")
    if window_seconds is None and overlap_seconds:
        raise ValueError(f"overlap_seconds={overlap_seconds} needs windows, but window_seconds is None: drop either")
    if window_seconds is not None and not 0 <= overlap_seconds < window_seconds:
        raise ValueError(
            f"overlap_seconds must lie in 0 <= overlap_seconds < window_seconds={window_seconds:g}, not {overlap_seconds}"
        )


def plan_windows(
    seconds: Seconds | None,
    window_seconds: Seconds | None,
    overlap_seconds: Seconds = 0.0,
    grid_seconds: Seconds | None = None,
) -> list[Window]:
    """Splits a clip into windows that cover it.

    Media that exceed a window by no more than codecs pad (0.1 s, and 1 % of a window) stay whole. A last window that is shorter than 1 s
    or than a tenth of a window is moved back, so that it ends at the end.

    Args:
        seconds: duration of the clip; None where nobody knows it, which is one window.
        window_seconds: longest window; None for whole clips.
        overlap_seconds: what neighbours share.
        grid_seconds: where windows may start, in multiples of this; anywhere by default. A window that is moved back is then longer
            by up to as much.

    Raises:
        ValueError: if the settings are out of range, or a window is shorter than the grid.

    >>> [(window.start, window.seconds) for window in plan_windows(70.0, 30.0)]
    [(0.0, 30.0), (30.0, 30.0), (60.0, 10.0)]
    >>> [(window.start, window.seconds) for window in plan_windows(60.5, 30.0)]
    [(0.0, 30.0), (30.0, 30.0), (30.5, 30.0)]
    >>> plan_windows(30.0, 30.0)
    [Window(start=0.0, seconds=30.0, whole=True)]
    """
    check_windows(window_seconds, overlap_seconds)
    if seconds is None or window_seconds is None:
        return [Window(0.0, seconds or 0.0, whole=True)]
    if seconds <= window_seconds + _slack(window_seconds):
        return [Window(0.0, seconds, whole=True)]
    stride = _stride(window_seconds, overlap_seconds, grid_seconds)
    starts = [0.0]
    while starts[-1] + window_seconds < seconds - 1e-9:
        starts.append(len(starts) * stride)
    if seconds - starts[-1] < max(_SHORTEST_SECONDS, _SHORTEST_SHARE * window_seconds):
        moved = seconds - window_seconds
        if grid_seconds is not None:
            moved = math.floor(moved / grid_seconds + 1e-6) * grid_seconds
        starts = [start for start in starts[:-1] if start < moved - 1e-9] + [moved]
    if len(starts) == 1:
        return [Window(0.0, seconds, whole=True)]
    ends = [start + window_seconds for start in starts[:-1]] + [seconds]
    return [Window(start, end - start) for start, end in zip(starts, ends, strict=True)]


class WindowPlan:
    """The windows of a sound whose end is not known yet: those of `plan_windows`, each as soon as no later end could change it.

    Args:
        window_seconds: longest window; None for one window of all there is.
        overlap_seconds: what neighbours share.
        grid_seconds: where windows may start, in multiples of this.

    Raises:
        ValueError: if the settings are out of range.
    """

    def __init__(self, window_seconds: Seconds | None, overlap_seconds: Seconds, grid_seconds: Seconds) -> None:
        self._settings = (window_seconds, overlap_seconds, grid_seconds)
        plan_windows(0.0, *self._settings)
        self.count = 0
        if window_seconds is not None:
            self._window = window_seconds
            self._stride = _stride(window_seconds, overlap_seconds, grid_seconds)
            # A sound that ends by then may be one window, or end in one that was moved back.
            self._ahead = _slack(window_seconds) + grid_seconds
            self._shortest = max(_SHORTEST_SECONDS, _SHORTEST_SHARE * window_seconds)
            self._overlap = window_seconds - self._stride

    def ready(self, seconds: Seconds, ahead: Seconds = 0.0) -> list[Window]:
        """Returns the windows, not returned before, that a sound has which lasts longer than this by `ahead`."""
        found: list[Window] = []
        while self._settings[0] is not None:
            start = self.count * self._stride
            if seconds < start + self._window + max(self._ahead, ahead):
                break
            found.append(Window(start, (start + self._window) - start))
            self.count += 1
        return found

    def next_start(self, seconds: Seconds) -> Seconds | None:
        """Returns where the next window will start; None if that depends on where the sound ends, after so many seconds or later."""
        if self._settings[0] is None:
            return None
        start = self.count * self._stride
        certain = self.count and (self._overlap >= self._shortest or seconds >= start + self._shortest)
        return start if certain else None

    def first_frame(self, start: Seconds) -> int:
        """Returns which frame begins at the start of a window."""
        return round(start / self._settings[2])

    def needed_from(self, seconds: Seconds) -> Seconds:
        """Returns the earliest second that a later window may hold, of a sound that lasts so many seconds or longer."""
        if self._settings[0] is None:
            return 0.0
        return max(0.0, min(self.count * self._stride, seconds - self._window - self._settings[2]))

    def finish(self, seconds: Seconds) -> list[Window]:
        """Returns the windows that are left of a sound that lasts so many seconds."""
        return plan_windows(seconds, *self._settings)[self.count :]


def _slack(window_seconds: Seconds) -> Seconds:
    return min(_SLACK_SECONDS, _SLACK_SHARE * window_seconds)


def _stride(window_seconds: Seconds, overlap_seconds: Seconds, grid_seconds: Seconds | None) -> Seconds:
    stride = window_seconds - overlap_seconds
    if grid_seconds is None:
        return stride
    if window_seconds < grid_seconds:
        raise ValueError(f"window_seconds={window_seconds:g} is shorter than a frame of the model ({grid_seconds:g} s)")
    return max(1, math.floor(stride / grid_seconds + 1e-6)) * grid_seconds


def group_by_length(seconds: Sequence[Seconds], most_seconds: Seconds) -> list[list[int]]:
    """Groups windows of similar length, so that little is padded.

    Args:
        seconds: length of each.
        most_seconds: what a group may hold, padding included; a longer window is a group of its own.

    Returns:
        indices of the windows of each group, each index once.

    >>> group_by_length([4.0, 1.0, 2.0, 9.0, 1.0], 6.0)
    [[1, 4, 2], [0], [3]]
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(seconds)), key=lambda index: seconds[index]):
        # Ascending, so that the newcomer is the longest, to which the others are padded.
        if not groups or (len(groups[-1]) + 1) * seconds[index] > most_seconds:
            groups.append([])
        groups[-1].append(index)
    return groups


def average_windows(vectors: Tensor, seconds: Sequence[Seconds], normalize: bool) -> Tensor:
    """Averages the embeddings of an item's windows, weighted by their durations.

    Args:
        vectors: (W, D).
        seconds: duration of each window.
        normalize: whether the result gets unit length.

    Returns:
        (D,); a single window's embedding comes back as it is.

    >>> average_windows(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), [3.0, 1.0], normalize=False).tolist()
    [0.75, 0.25]
    """
    if len(vectors) == 1:
        return vectors[0]
    weights = torch.tensor(seconds, dtype=torch.float64)
    mean = ((weights / weights.sum())[:, None] * vectors.double()).sum(0)
    return (F.normalize(mean, dim=-1) if normalize else mean).to(vectors.dtype)


def stitch_windows(frames: Sequence[Tensor], starts: Sequence[Seconds], frame_seconds: Sequence[Seconds]) -> Tensor:
    """Joins the frames of an item's windows: what two share comes half from the one and half from the other.

    Each frame is thus taken from the window in whose inside it lies deepest.

    Args:
        frames: (T_w, D) of each window, in the order of time.
        starts: of the windows, multiples of the time between two frames.
        frame_seconds: that time, of each window.

    Returns:
        (T, D), frame t beginning at t * frame_seconds.

    Raises:
        ValueError: if the time between frames differs from window to window, so that there is no common clock.

    >>> early, late = torch.zeros(4, 1), torch.ones(4, 1)
    >>> stitch_windows([early, late], [0.0, 2.0], [1.0, 1.0]).squeeze(1).tolist()
    [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    """
    if len(frames) == 1:
        return frames[0]
    step = frame_seconds[0]
    if not all(math.isclose(other, step, rel_tol=1e-6) for other in frame_seconds):
        raise ValueError(
            f"frames lie {min(frame_seconds):g} s to {max(frame_seconds):g} s apart from window to window, so that they cannot be "
            "joined: embed the media whole with window_seconds=None"
        )
    first = [round(start / step) for start in starts]
    end = [begin + len(some) for begin, some in zip(first, frames, strict=True)]
    # In whole frames, so that none is lost or doubled.
    borders = [first[0], *((a + b) // 2 for a, b in zip(end[:-1], first[1:], strict=True)), end[-1]]
    return torch.cat(
        [
            some[left - begin : right - begin]
            for some, begin, left, right in zip(frames, first, borders[:-1], borders[1:], strict=True)
        ]
    )
