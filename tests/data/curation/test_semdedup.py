"""Semantic duplicates among vectors: what is left out names one that stays and is within eps, and a killed run goes on."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peav.data.curation import semdedup
from peav.data.curation.semdedup import LEAST_EPS, Left, SemDedup, semantic_duplicates


class Held:
    """Vectors in memory, which can break off, as a killed process does."""

    def __init__(self, vectors: np.ndarray, breaks_at: int = -1) -> None:
        self.vectors, self.dim, self.left = vectors, vectors.shape[1], breaks_at

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, places: np.ndarray) -> np.ndarray:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.vectors[places]


def groups(seed: int, number: int = 120, dim: int = 16, spread: float = 0.12) -> np.ndarray:
    """Groups of one to five vectors, and chains, of which only neighbours are close."""
    random = np.random.default_rng(seed)
    held = []
    for center in random.normal(size=(number, dim)):
        center /= np.linalg.norm(center)
        held += [center + spread * random.normal(size=dim) / dim**0.5 for _ in range(random.integers(1, 6))]
    for step in range(12):
        held.append(np.cos(0.1 * step) * np.eye(dim)[0] + np.sin(0.1 * step) * np.eye(dim)[1])
    vectors = np.array(held, np.float32)[random.permutation(len(held))]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def find(vectors: np.ndarray, folder: Path, asked: np.ndarray | None = None, **settings: Any) -> Left:
    return semantic_duplicates(Held(vectors), SemDedup(**settings), folder, "v", asked)


def greedy(vectors: np.ndarray, eps: float, keep: str) -> np.ndarray:
    """One after another, each held against those that stay: which of them is nearest, or -1."""
    mean = vectors.mean(axis=0)
    similarity = vectors @ (mean / np.linalg.norm(mean))
    by, stay = np.full(len(vectors), -1), list[int]()
    for one in np.argsort(similarity if keep == "hard" else -similarity, kind="stable"):
        close = [other for other in stay if vectors[one] @ vectors[other] >= 1 - eps]
        if close:
            by[one] = max(close, key=lambda other: vectors[one] @ vectors[other])
        else:
            stay.append(one)
    return by


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semdedup, "_BLOCK", 7)


@pytest.mark.parametrize("keep", ["hard", "easy"])
@pytest.mark.parametrize("held", [0, 1 << 29])
def test_one_cluster_is_what_a_loop_finds(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch, keep: str, held: int
) -> None:
    monkeypatch.setattr(semdedup, "_HELD_BYTES", held)
    vectors = groups(0)
    centroid = vectors.mean(axis=0)
    # k-means of one cluster on all vectors, whose centroid the loop has too.
    monkeypatch.setattr(semdedup, "_centroids", lambda *_: (centroid / np.linalg.norm(centroid))[None])
    left = find(vectors, tmp_path, eps=0.02, keep=keep)
    assert (left.by == greedy(vectors, 0.02, keep)).all() and 50 < left.count < len(vectors) - 50


@pytest.mark.parametrize(
    ("keep", "clusters", "overlap", "eps"),
    list(itertools.product(("hard", "easy", "random"), (1, 9), (1, 2, 3), (0.015, 0.06))),
)
def test_who_is_left_out_names_one_that_stays_and_is_within_eps(
    tmp_path: Path, small_blocks: None, keep: str, clusters: int, overlap: int, eps: float
) -> None:
    vectors = groups(1)
    left = find(vectors, tmp_path, eps=eps, keep=keep, clusters=clusters, overlap=overlap, seed=3)
    gone = np.flatnonzero(left.by >= 0)
    assert len(gone) > 20 and (left.by[left.by[gone]] == -1).all()
    similarity = np.einsum("nd,nd->n", vectors[gone], vectors[left.by[gone]])
    assert (similarity >= 1 - eps - 1e-6).all() and np.allclose(left.similarity[gone], similarity, atol=1e-6)


def test_only_what_is_asked_for_stays_or_is_left_out(tmp_path: Path) -> None:
    vectors = np.tile(groups(2, 10)[:1], (6, 1))
    asked = np.array([False, True, True, False, True, False])
    left = find(vectors, tmp_path, asked)
    assert left.by.tolist() == [-1, -1, 1, -1, 1, -1]


def test_hard_keeps_the_farthest_from_the_centroid_and_easy_the_nearest(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vectors = np.concatenate([np.tile([1.0, 0, 0], (20, 1)), [[0.9, 0.5, 0], [0.9, 0.52, 0], [0.9, 0.54, 0]]])
    vectors = vectors + 1e-4 * random.normal(size=vectors.shape)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    for keep, stays in (("hard", 22), ("easy", 20)):
        left = find(vectors, tmp_path, eps=0.01, keep=keep)
        assert {int(one) for one in left.by[20:] if one >= 0} == {stays} and left.by[stays] == -1


def test_pairs_on_borders_are_found_in_the_second_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semdedup, "_BLOCK", 500)
    monkeypatch.setattr(
        semdedup, "_SAMPLE", 8
    )  # of few vectors, all of them would be the sample, and their centroids made for them
    random = np.random.default_rng(0)
    vectors = random.normal(size=(4000, 32)).astype(np.float32)
    vectors[2000:] = vectors[:2000] + 0.12 * random.normal(size=(2000, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    close = np.einsum("nd,nd->n", vectors[:2000], vectors[2000:]) >= 0.98
    found = {}
    for overlap in (1, 2):
        by = find(vectors, tmp_path, eps=0.02, clusters=60, overlap=overlap).by
        found[overlap] = float(((by[:2000] >= 0) | (by[2000:] >= 0))[close].mean())
    assert close.sum() > 1900 and found[1] < 0.9 and found[2] > 0.97


def test_what_breaks_off_goes_on_and_ends_alike(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(semdedup, "_REPORT_SECONDS", 0.0)
    vectors, settings = groups(4), SemDedup(eps=0.03, clusters=6)
    whole = semantic_duplicates(Held(vectors), settings, tmp_path / "whole", "v")
    breaks = 0
    while True:
        try:
            again = semantic_duplicates(Held(vectors, breaks_at=9), settings, tmp_path / "broken", "v")
            break
        except KeyboardInterrupt:
            breaks += 1
    assert breaks > 5 and (again.by == whole.by).all() and (again.similarity == whole.similarity).all()


def test_what_is_kept_is_not_computed_again(tmp_path: Path, small_blocks: None) -> None:
    vectors = groups(5)
    first = semantic_duplicates(Held(vectors), SemDedup(eps=0.02, clusters=6), tmp_path, "v")
    same = semantic_duplicates(Held(vectors, breaks_at=0), SemDedup(eps=0.02, clusters=6), tmp_path, "v")
    assert (first.by == same.by).all() and first.count
    centroids = list(tmp_path.glob("*.centroids.npy"))
    wider = semantic_duplicates(Held(vectors), SemDedup(eps=0.05, clusters=6), tmp_path, "v")
    assert wider.count > first.count and list(tmp_path.glob("*.centroids.npy")) == centroids
    other = semantic_duplicates(Held(vectors[::-1]), SemDedup(eps=0.02, clusters=6), tmp_path, "other vectors")
    assert other.count and len(list(tmp_path.glob("*.centroids.npy"))) == 2


def test_a_state_that_a_lost_disk_left_halved_is_decided_anew(tmp_path: Path) -> None:
    vectors = groups(6)
    whole = find(vectors, tmp_path, eps=0.02)
    state = np.load(next(tmp_path.glob("left-*.npy")), mmap_mode="r+")
    named = int(whole.by[whole.by >= 0][0])
    state["by"][named] = 0
    state.flush()
    assert (find(vectors, tmp_path, eps=0.02).by == whole.by).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"eps": 0.0}, "from 1e-06"),
        ({"eps": 1.0}, "to below 1"),
        ({"eps": 1e-7}, "does not tell equal vectors"),
        ({"eps": float("nan")}, "to below 1"),
        ({"keep": "harder"}, "hard, easy or random"),
        ({"clusters": -1}, "clusters must be 0 or more"),
        ({"overlap": 0}, "overlap at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SemDedup(**given)


def test_clusters_follow_the_number_of_vectors() -> None:
    assert [SemDedup().clusters_of(n) for n in (1, 20_000, 10**6, 10**8)] == [1, 1, 1000, 10_000]
    assert SemDedup(clusters=50).clusters_of(10) == 10


@pytest.mark.parametrize("dim", [3, 64, 1024, 4096])
def test_the_least_eps_finds_equal_vectors(tmp_path: Path, dim: int) -> None:
    vectors = np.repeat(np.random.default_rng(dim).normal(size=(4, dim)).astype(np.float32), 8, axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert find(vectors, tmp_path, eps=LEAST_EPS).count == 28
