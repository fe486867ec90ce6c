"""Semantic duplicates: of vectors that lie close together one stays (SemDeDup, arXiv 2303.09540).

The vectors are clustered, and compared inside clusters alone: N^2 / K products for K clusters in place of N^2. Three things differ from
the paper. A vector is compared in the `overlap` clusters whose centroids are nearest, so that a pair on a border is not missed. It is
left out only if one that stays is within `eps`, where the paper's test may name one that is left out itself. And vectors are read in
blocks from where they lie: what is held is some tens of bytes a vector.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from peav.atomic import replacing
from peav.lazy import import_extra

_log = logging.getLogger(__name__)

#: Which of a group stays: the one farthest from its centroid, the nearest one, or any.
Keep = Literal["hard", "easy", "random"]

#: The least `eps`: products of equal vectors of length 1 lie about so far from 1 in float32.
LEAST_EPS = 1e-6

#: Up to so many vectors are one cluster: all pairs are compared.
_ONE_CLUSTER = 20_000

#: Vectors a cluster in the sample of k-means, and its rounds.
_SAMPLE, _ROUNDS = 64, 20

#: Vectors that are read, and compared, at once.
_BLOCK = 4096

#: The vectors of a cluster up to this size are held while it is worked on; those of a larger one are read again block by block.
_HELD_BYTES = 1 << 29

#: Seconds between two messages about how far it is.
_REPORT_SECONDS = 60.0


@dataclass(frozen=True)
class SemDedup:
    """How semantic duplicates are found.

    Attributes:
        eps: cosine distance up to which two vectors are duplicates, from 1e-6 on.
        keep: which of a group stays: `hard`, the one farthest from the centroid of its cluster (the paper's choice); `easy`, the nearest
            one; or `random`.
        clusters: K of k-means; 0 for one up to 20,000 vectors, and the root of their number beyond: with it clustering takes about as
            long as comparing.
        overlap: clusters, the nearest ones, in which a vector is compared.
        seed: of the sample, of k-means and of `random`.

    Raises:
        ValueError: if a value is out of range.
    """

    eps: float = 0.01
    keep: Keep = "hard"
    clusters: int = 0
    overlap: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not LEAST_EPS <= self.eps < 1:
            raise ValueError(
                f"eps is a cosine distance from {LEAST_EPS:g}, below which float32 does not tell equal vectors from others, to below 1, "
                f"got {self.eps:g}: 0.01 takes vectors of a similarity of 0.99 for duplicates"
            )
        if self.keep not in get_args(Keep):
            raise ValueError(
                f"keep must be {', '.join(get_args(Keep)[:-1])} or {get_args(Keep)[-1]}, got {self.keep!r}"
            )
        if self.clusters < 0 or self.overlap < 1:
            raise ValueError(
                f"clusters must be 0 or more and overlap at least 1, got {self.clusters} and {self.overlap}"
            )

    def clusters_of(self, count: int) -> int:
        """Returns K for so many vectors."""
        wanted = self.clusters or (1 if count <= _ONE_CLUSTER else round(count**0.5))
        return max(1, min(wanted, count))


class UnitVectors(Protocol):
    """N vectors (D,) of length 1 that need not fit the memory."""

    dim: int

    def __len__(self) -> int:
        """Returns N."""

    def take(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Reads (K, D) by their places (K,)."""


@dataclass(frozen=True)
class Left:
    """Which of N vectors are left out.

    Attributes:
        by: (N,) int64, the place of the one that stays and is within `eps`; -1 for one that stays itself, or that was not asked for.
        similarity: (N,) float32, cosine similarity to it.
    """

    by: NDArray[np.int64]
    similarity: NDArray[np.float32]

    @property
    def count(self) -> int:
        """How many are left out."""
        return int((self.by >= 0).sum())


def import_faiss() -> Any:
    """Returns faiss.

    Raises:
        ImportError: if it is not installed, with what to install.
    """
    return import_extra("faiss", "search", "clustering")


def semantic_duplicates(
    vectors: UnitVectors, settings: SemDedup, folder: Path, stamp: Any, asked: NDArray[np.bool_] | None = None
) -> Left:
    """Finds which vectors are left out. What was computed is kept: another `eps` or `keep` clusters nothing anew, and a killed run goes on.

    Args:
        vectors: N unit vectors.
        settings: how.
        folder: in which results are kept; made where it is missing.
        stamp: JSON data that tell these vectors from others.
        asked: (N,) which of them may stay or be left out; all by default.

    Raises:
        ImportError: if there are several clusters, and faiss is not installed.
        OSError: if the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = len(vectors)
    number = settings.clusters_of(count)
    overlap = min(settings.overlap, number)
    given = {"stamp": stamp, "count": count, "clusters": number, "overlap": overlap, "seed": settings.seed}
    path = folder / f"clusters-{_digest(given)}.npy"
    table = _table(path, count, _placed(overlap))
    _assign(vectors, table, path.with_suffix(".centroids.npy"), number, settings.seed)
    chosen = np.ones(count, bool) if asked is None else asked
    which = {**given, **asdict(settings), "asked": hashlib.blake2b(np.packbits(chosen).tobytes()).hexdigest()}
    state = _table(folder / f"left-{_digest(which)}.npy", count, _DECIDED)
    _Sieve(vectors, settings, table, state, chosen).run(folder / f"left-{_digest(which)}.done")
    by = state["by"] - 2
    return Left(np.where(by >= 0, by, -1), np.array(state["similarity"]))


#: What is known of a vector: 0 for nothing yet, 1 that it stays, and else 2 + the place of the one in whose favour it is left out.
_DECIDED = np.dtype([("by", "<i8"), ("similarity", "<f4")])


def _placed(overlap: int) -> np.dtype[Any]:
    """Returns what is kept of the place of a vector: 1 + its nearest clusters, 0 for not yet, and its similarity to the first centroid."""
    return np.dtype([("clusters", "<i4", (overlap,)), ("similarity", "<f4")])


def _digest(given: Any) -> str:
    return hashlib.blake2b(json.dumps(given, sort_keys=True).encode(), digest_size=8).hexdigest()


def _table(path: Path, count: int, dtype: np.dtype[Any]) -> np.memmap[Any, Any]:
    """Maps a table of `count` rows, which begins as zeros."""
    if not path.exists():
        with replacing(path) as partial:
            np.lib.format.open_memmap(partial, "w+", dtype, (count,)).flush()
    return np.lib.format.open_memmap(path, "r+")


def _blocks(count: int) -> list[NDArray[np.int64]]:
    return [np.arange(begin, min(begin + _BLOCK, count)) for begin in range(0, count, _BLOCK)]


class _Progress:
    """Says now and then how far it is."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._said = what, total, time.monotonic()

    def __call__(self, done: int) -> bool:
        """Returns whether something was said."""
        if time.monotonic() - self._said < _REPORT_SECONDS:
            return False
        self._said = time.monotonic()
        _log.info("%s: %d of %d", self._what, done, self._total)
        return True


def _assign(vectors: UnitVectors, table: NDArray[Any], path: Path, number: int, seed: int) -> None:
    """Fills in the clusters of the vectors that have none yet; the centroids are kept in a file."""
    todo = [block for block in _blocks(len(vectors)) if not (table["clusters"][block] > 0).all()]
    if not todo:
        return
    if not path.exists():
        with replacing(path) as partial, partial.open("wb") as stream:
            np.save(stream, _centroids(vectors, number, seed))
    nearest = _nearest_of(np.load(path))
    tell = _Progress("vectors placed in clusters", len(vectors))
    for block in todo:
        similarity, found = nearest(vectors.take(block), table.dtype["clusters"].shape[0])
        table["similarity"][block] = similarity[:, 0]
        table["clusters"][block] = found + 1
        tell(int(block[-1]))


def _centroids(vectors: UnitVectors, number: int, seed: int) -> NDArray[np.float32]:
    """Returns K centroids (K, D), found on a sample."""
    size = min(len(vectors), max(_SAMPLE * number, _BLOCK))
    chosen = np.random.default_rng(seed).choice(len(vectors), size, replace=False)
    sample = vectors.take(np.sort(chosen))
    if number == 1:
        mean = sample.mean(axis=0, keepdims=True)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)
    kmeans = import_faiss().Kmeans(
        vectors.dim,
        number,
        niter=_ROUNDS,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_SAMPLE,
    )
    kmeans.train(sample)
    return np.asarray(kmeans.centroids)


def _nearest_of(
    centroids: NDArray[np.float32],
) -> Callable[[NDArray[np.float32], int], tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Returns what finds the nearest centroids of vectors, and how similar they are."""
    if len(centroids) == 1:
        return lambda block, _: (block @ centroids.T, np.zeros((len(block), 1), np.int64))
    index = import_faiss().IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    return lambda block, overlap: index.search(block, overlap)


class _Sieve:
    """Goes through the clusters one after another, and decides of each vector whether it stays.

    A vector that stays is left out later, in another cluster that it is in, only if nobody was left out in its favour: so whoever is left
    out names one that stays, at any time. What was decided is written as it comes, and holds after a kill.
    """

    def __init__(
        self,
        vectors: UnitVectors,
        settings: SemDedup,
        table: NDArray[Any],
        state: np.memmap[Any, Any],
        asked: NDArray[np.bool_],
    ) -> None:
        self._vectors, self._settings, self._state = vectors, settings, state
        self._by, self._similarity = state["by"], state["similarity"]
        self._bound = np.float32(1 - settings.eps)
        count = len(vectors)
        if settings.keep == "random":
            self._rank = np.random.default_rng(settings.seed).random(count, np.float32)
        else:
            self._rank = np.array(table["similarity"]) * np.float32(1 if settings.keep == "hard" else -1)
        owners = np.where(asked[:, None], table["clusters"] - 1, -1)
        self._ends = np.cumsum(np.bincount(owners.ravel() + 1))[1:] - int((owners < 0).sum())
        order = np.argsort(owners, axis=None, kind="stable")[
            owners.size - (int(self._ends[-1]) if len(self._ends) else 0) :
        ]
        order //= owners.shape[1]
        self._members = order
        named = self._by[self._by >= 2] - 2
        if (self._by[named] != 1).any():  # the machine stopped before the disk had all of it
            self._by[:], named = 0, named[:0]
        self._named = np.bincount(named, minlength=count).astype(np.int32)

    def run(self, path: Path) -> None:
        """Decides; a file says how many clusters are done."""
        done = int(path.read_text()) if path.exists() and self._named.any() else 0
        tell = _Progress("clusters searched for duplicates", len(self._ends))
        for number in range(done, len(self._ends)):
            members = self._members[self._ends[number - 1] if number else 0 : self._ends[number]]
            self._sift(members[self._by[members] < 2])
            if tell(number):
                self._note(path, number + 1)
        self._note(path, len(self._ends))

    def _note(self, path: Path, done: int) -> None:
        self._state.flush()
        with replacing(path) as partial:
            partial.write_text(str(done))

    def _sift(self, members: NDArray[np.int64]) -> None:
        """Decides of the members of a cluster: those first that stay already, then by their rank."""
        members = members[np.lexsort((members, self._rank[members], self._by[members] == 0))]
        if len(members) < 2:
            self._by[members] = 1
            return
        fits = len(members) * self._vectors.dim * 4 <= _HELD_BYTES
        held = self._vectors.take(members) if fits else None
        stay = np.zeros(0, np.int64)  # positions among the members
        for block in _blocks(len(members)):
            own = held[block] if held is not None else self._vectors.take(members[block])
            nearest, similarity = np.full(len(block), -1), np.full(len(block), -2, np.float32)
            for some in _blocks(len(stay)):
                others = held[stay[some]] if held is not None else self._vectors.take(members[stay[some]])
                products = own @ others.T
                best = products.argmax(axis=1)
                values = products[np.arange(len(block)), best]
                better = values > similarity
                nearest[better], similarity[better] = stay[some][best[better]], values[better]
            stay = np.concatenate([stay, self._decide(members, block, own, nearest, similarity)])

    def _decide(
        self,
        members: NDArray[np.int64],
        block: NDArray[np.int64],
        own: NDArray[np.float32],
        nearest: NDArray[np.int64],
        similarity: NDArray[np.float32],
    ) -> NDArray[np.int64]:
        """Decides of a block, whose nearest among those before it that stay are known; returns its positions that stay."""
        fixed = self._named[members[block]] > 0
        out = (similarity >= self._bound) & ~fixed
        inside = own @ own.T
        close = np.tril(inside >= self._bound, -1)
        close[:, out] = False
        for place in np.flatnonzero(close.any(axis=1) & ~out & ~fixed):
            before = np.flatnonzero(close[place] & ~out)
            if len(before):
                best = before[inside[place, before].argmax()]
                if inside[place, best] > similarity[place]:
                    nearest[place], similarity[place] = block[best], inside[place, best]
                out[place] = True
        gone, names = members[block[out]], members[nearest[out]]
        # Whoever is named stays first, so that at no time a vector is left out in favour of one that is not known to stay.
        self._by[members[block[~out]]] = 1
        self._similarity[gone] = similarity[out]
        self._by[gone] = names + 2
        np.add.at(self._named, names, 1)
        return block[~out]
