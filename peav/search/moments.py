"""From windows that were found to moments that are worth showing: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from peav.types import Seconds

#: A moment is at most so long, unless a window is longer.
LONGEST_SECONDS = 12.0


def merge_overlaps(
    starts: Sequence[Seconds], seconds: Sequence[Seconds], most_seconds: Seconds = LONGEST_SECONDS
) -> list[tuple[int, Seconds, Seconds]]:
    """Joins windows of one file that overlap directly, the best first; what overlaps only by way of others stays apart.

    The best window takes in those that it overlaps: they are no moments of their own, and it reaches into them until it is as long as
    allowed, early and late alike. Then the best of the rest, and so on.

    Args:
        starts: of the windows, by falling score.
        seconds: their durations.
        most_seconds: a longer moment is cut to this, but never within the best window.

    Returns:
        of each moment the number of its best window, its start and its duration, by falling score.

    >>> merge_overlaps([8.0, 0.0, 16.0, 24.0], [10.0, 10.0, 10.0, 10.0])
    [(0, 7.0, 12.0), (3, 24.0, 10.0)]
    """
    taken: set[int] = set()
    moments = []
    for best, (start, duration) in enumerate(zip(starts, seconds, strict=True)):
        if best in taken:
            continue
        end = start + duration
        first, last = start, end
        for other in range(best + 1, len(starts)):
            begin, finish = starts[other], starts[other] + seconds[other]
            if other not in taken and begin < end and start < finish:
                taken.add(other)
                first, last = min(first, begin), max(last, finish)
        room = max(0.0, most_seconds - duration)
        before, after = start - first, last - end
        if before + after > room:
            # Half to each side; what one side does not need is the other's.
            before, after = min(before, max(room / 2, room - after)), min(after, max(room / 2, room - before))
        moments.append((best, start - before, duration + before + after))
    return moments


def near_duplicate(
    vectors: Mapping[str, np.ndarray], shown: Sequence[Mapping[str, np.ndarray]], bound: float
) -> int | None:
    """Returns which of the windows shown one is nearly the same as; None if it is of none.

    Two are, if they have the same embeddings, and in each their product is at least `bound` of the greater of their products with
    themselves: alike in direction and in length.

    Args:
        vectors: (D,) by embedding.
        shown: likewise, of each window shown.
        bound: at most 1.

    >>> shown = [{"audio": np.array([0.0, 1.0])}, {"audio": np.array([1.0, 0.0])}]
    >>> near_duplicate({"audio": np.array([1.0, 0.01])}, shown, 0.98)
    1
    """
    for number, other in enumerate(shown):
        if vectors.keys() == other.keys() and all(
            _alike(vector, other[name], bound) for name, vector in vectors.items()
        ):
            return number
    return None


def _alike(one: np.ndarray, other: np.ndarray, bound: float) -> bool:
    return float(one @ other) >= bound * max(float(one @ one), float(other @ other))
