"""What a search finds is what a sort of all scores gives: with ties, filters, deleted windows and sums over embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from peav.search.ranking import rank
from peav.search.segment import WINDOW, Segment, write_segment

DIM = 6


def make_segments(folder: Path, sizes: list[int], spread: int, seed: int, has_video: float = 0.7) -> list[Segment]:
    """Vectors of small whole numbers: products are exact in fp16 and fp32, and tie often."""
    random = np.random.default_rng(seed)
    segments, first = [], 1
    for number, size in enumerate(sizes):
        windows = np.zeros(size, WINDOW)
        windows["id"] = random.permutation(np.arange(first, first + size))
        windows["file"] = random.integers(1, 6, size)
        first += size
        vectors = {"audio": (np.arange(size), random.integers(-spread, spread + 1, (size, DIM)).astype(np.float32))}
        rows = np.flatnonzero(random.random(size) < has_video)
        vectors["video"] = (rows, random.integers(-spread, spread + 1, (len(rows), DIM)).astype(np.float32))
        path = folder / str(number)
        segments.append(Segment(path, write_segment(path, windows, vectors)))
    return segments


def sorted_scores(
    segments: list[Segment], masks: list[np.ndarray | None], queries: dict[str, np.ndarray], count: int
) -> tuple[list[float], list[int]]:
    scores: list[tuple[float, int]] = []
    for segment, mask in zip(segments, masks, strict=True):
        for row in range(len(segment)):
            if (mask is None or mask[row]) and all(row in segment.rows.get(name, []) for name in queries):
                total = sum(float(segment.take(name, np.array([row]))[0] @ query) for name, query in queries.items())
                scores.append((-total, int(segment.windows["id"][row])))
    best = sorted(scores)[:count]
    return [-score for score, _ in best], [number for _, number in best]


@pytest.mark.parametrize("names", [("audio",), ("video",), ("audio", "video")])
@pytest.mark.parametrize("spread", [1, 40])
@pytest.mark.parametrize("filtered", [False, True])
def test_it_is_the_head_of_a_full_sort(tmp_path: Path, names: tuple[str, ...], spread: int, filtered: bool) -> None:
    segments = make_segments(tmp_path, [1, 40, 90], spread, seed=spread)
    random = np.random.default_rng(5)
    for _ in range(4):
        queries = {name: random.integers(-spread, spread + 1, DIM).astype(np.float32) for name in names}
        masks: list[np.ndarray | None] = [random.random(len(s)) < 0.1 if filtered else None for s in segments]
        for count in (1, 7, 60, 500):
            ranked = rank(segments, masks, queries, count)
            scores, ids = sorted_scores(segments, masks, queries, count)
            assert ranked.scores.tolist() == scores
            assert ranked.windows["id"].tolist() == ids
            for (segment, row), number in zip(ranked.places, ids, strict=True):
                assert segments[segment].windows["id"][row] == number


def test_windows_that_all_tie_come_by_their_numbers(tmp_path: Path) -> None:
    windows = np.zeros(300, WINDOW)
    windows["id"] = np.arange(300, 0, -1)
    sizes = write_segment(tmp_path / "same", windows, {"audio": (np.arange(300), np.ones((300, DIM), np.float32))})
    ranked = rank([Segment(tmp_path / "same", sizes)], [None], {"audio": np.ones(DIM, np.float32)}, 5)
    assert ranked.windows["id"].tolist() == [1, 2, 3, 4, 5]


def test_norms_count(tmp_path: Path) -> None:
    """The products are raw: a long vector beats one that points exactly there."""
    windows = np.zeros(2, WINDOW)
    windows["id"] = [1, 2]
    vectors = np.array([[1.0, 0, 0, 0, 0, 0], [3.0, 3.0, 0, 0, 0, 0]], np.float32)
    sizes = write_segment(tmp_path / "two", windows, {"audio": (np.arange(2), vectors)})
    ranked = rank([Segment(tmp_path / "two", sizes)], [None], {"audio": np.eye(DIM, dtype=np.float32)[0]}, 2)
    assert ranked.windows["id"].tolist() == [2, 1] and ranked.scores.tolist() == [3.0, 1.0]


def test_nothing_to_find(tmp_path: Path) -> None:
    assert len(rank([], [], {"audio": np.ones(DIM, np.float32)}, 3)) == 0
    segments = make_segments(tmp_path, [5], 3, seed=1)
    assert len(rank(segments, [np.zeros(5, bool)], {"audio": np.ones(DIM, np.float32)}, 3)) == 0
    assert len(rank(segments, [None], {"smell": np.ones(DIM, np.float32)}, 3)) == 0
    with pytest.raises(ValueError, match="count must be at least 1"):
        rank(segments, [None], {"audio": np.ones(DIM, np.float32)}, 0)
