"""The windows with the greatest scores, exactly: a score is an inner product, or a sum of one in each of several embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from peav.search.segment import Segment


@dataclass(frozen=True)
class Ranked:
    """Windows by falling score, those of equal score by rising id.

    Attributes:
        scores: (K,) float32.
        windows: (K,) of `peav.search.segment.WINDOW`.
        places: (K, 2), the number of each window's segment, and its own within it.
    """

    scores: np.ndarray
    windows: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


def rank(
    segments: Sequence[Segment],
    allowed: Sequence[np.ndarray | None],
    queries: Mapping[str, np.ndarray],
    count: int,
) -> Ranked:
    """Finds the windows with the greatest scores among those that have every embedding asked for: what a sort of all would give.

    Args:
        segments: of the index.
        allowed: of each segment (N,) bool, which windows may be found; None for all.
        queries: (D,) by embedding; a window's score is the sum of its products.
        count: how many at most.

    Returns:
        at most so many windows; those that tie with the last are cut by their ids.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    jobs = [(number, segment, allowed[number]) for number, segment in enumerate(segments)]
    jobs = [job for job in jobs if all(name in job[1].vectors for name in queries)]

    def search(job: tuple[int, Segment, np.ndarray | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        number, segment, mask = job
        if len(queries) == 1:
            ((name, query),) = queries.items()
            scores, rows = _best(segment, name, query, count, mask)
        else:
            scores, rows = _best_sums(segment, queries, count, mask)
        return scores, rows, np.full(len(rows), number)

    # One after another: faiss keeps Python's lock while it searches, so that threads bring nothing.
    found = [search(job) for job in jobs]
    if not found:
        return Ranked(
            np.zeros(0, np.float32), segments[0].windows[:0] if segments else np.zeros(0), np.zeros((0, 2), int)
        )
    scores, rows, numbers = (np.concatenate(part) for part in zip(*found, strict=True))
    windows = np.concatenate([segments[job[0]].windows[some[1]] for job, some in zip(jobs, found, strict=True)])
    order = np.lexsort((windows["id"], -scores))[:count]
    return Ranked(scores[order], windows[order], np.stack([numbers[order], rows[order]], 1))


def _best(
    segment: Segment, name: str, query: np.ndarray, count: int, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the greatest scores of a segment, and all that tie with the last."""
    asked = count + 1
    while True:
        scores, rows = segment.search(name, query, asked, mask)
        if len(scores) < asked or scores[-1] < scores[count - 1]:
            return scores, rows
        asked *= 4


def _best_sums(
    segment: Segment, queries: Mapping[str, np.ndarray], count: int, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the greatest sums by the threshold algorithm (Fagin, Lotem, Naor 2003).

    No window beyond the first k of each embedding has a sum above that of the k-th products.
    """
    having = np.ones(len(segment), bool) if mask is None else mask.copy()
    for name in queries:
        having &= segment.has(name)
    total = int(having.sum())
    asked = 4 * count + 16
    while True:
        found = {name: segment.search(name, query, asked, having) for name, query in queries.items()}
        rows = np.unique(np.concatenate([some for _, some in found.values()])) if total else np.zeros(0, np.int64)
        sums = np.zeros(len(rows), np.float32)
        for name, query in queries.items():
            sums += segment.take(name, rows) @ query.astype(np.float32)
        bound = sum(float(scores[-1]) for scores, _ in found.values() if len(scores))
        if asked >= total or (len(sums) >= count and np.partition(sums, -count)[-count] > bound):
            return sums, rows
        asked *= 4
