"""The plan of a training epoch: which clips make which batch on which rank, from metadata alone.

It depends on (seed, epoch, global batch size) and the columns of the manifest, and on nothing else: so it is the same for any number
of workers, any split of the global batch over ranks, and after any restart. Every step has one bucket of durations on all ranks and
the same batch size; the number of steps is the same in every epoch.

Clips are sampled group by group, a group being the clips of one bucket and, where weights are given, of one domain and one origin of
captions. A group whose share of the epoch is smaller than the group gives a random part of it; one whose share is larger gives all
its clips as often as that takes, and the plan counts how often: what is random about a clip follows from that number too. In an
object store the order follows the chunks: they are permuted, and clips are shuffled inside
a window of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.data.manifests.index import REAL_CAPTIONS, SYNTHETIC_CAPTIONS, ManifestIndex
from peav.data.manifests.texts import CAPTION_ORIGINS

_log = logging.getLogger(__name__)

#: A bucket has at least so many global batches of clips, or it joins its neighbour.
MIN_BUCKET_BATCHES = 4

#: Neighbouring buckets whose edges differ by less than this factor are one.
MIN_BUCKET_RATIO = 1.25


class DataSettingError(ValueError):
    """A setting that does not fit the data, or an earlier run. The message says which, and what to do."""


@dataclass(frozen=True, eq=False)
class Population:
    """What a plan knows of N clips.

    Attributes:
        duration: (N,) seconds.
        domain: (N,) position in `domains`.
        origin: (N,) bit 1 for real captions, bit 2 for synthetic ones.
        domains: names.
        chunk: (N,) the chunk that holds each clip, numbered over all stores; None where the order need not follow chunks.
        digest: which clips these are.
    """

    duration: NDArray[np.float64]
    domain: NDArray[np.uint32]
    origin: NDArray[np.uint8]
    domains: tuple[str, ...] = ("",)
    chunk: NDArray[np.int32] | None = None
    digest: str = ""

    def __len__(self) -> int:
        return len(self.duration)

    @classmethod
    def alike(cls, clips: int) -> Population:
        """Returns clips that differ in nothing."""
        return cls(np.ones(clips), np.zeros(clips, np.uint32), np.ones(clips, np.uint8), digest=str(clips))

    @classmethod
    def of(cls, index: ManifestIndex, chunk: NDArray[np.int32] | None = None) -> Population:
        """Returns the clips of a manifest."""
        origin = (index.has(REAL_CAPTIONS) + np.uint8(2) * index.has(SYNTHETIC_CAPTIONS)).astype(np.uint8)
        return cls(index.duration, index.domain, origin, index.domains, chunk, index.digest)


@dataclass(frozen=True, eq=False)
class Schedule:
    """The clips of a rank in an epoch, step by step.

    Attributes:
        positions: (steps, batch_size) of the clips in the manifest.
        occurrences: (steps, batch_size) 0 the first time that the epoch has a clip, on whatever rank; 1 the second time, and so on.
    """

    positions: NDArray[np.int64]
    occurrences: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions)

    def after(self, steps: int) -> Schedule:
        """Returns what is left after so many steps."""
        return Schedule(self.positions[steps:], self.occurrences[steps:])


class TrainingPlan:
    """Shuffled batches of one size, as many on each rank and in each epoch.

    Args:
        population: the clips.
        batch_size: clips a rank and step.
        seed: of everything random.
        domain_weights: share of the clips of an epoch by domain, up to a common factor; as in the data by default.
        origin_weights: share of clips with `real` and with `synthetic` captions, up to a common factor; clips with both, and clips
            with none, keep the share that they have in the data.
        num_buckets: buckets of durations, at most; each has as many clips.
        window_chunks: chunks that are shuffled among each other; all by default. Needs `population.chunk`.
        fixed_ranks: let a clip go to the same rank in every epoch, but for the few that keep batches of one size; a rank that remembers
            its clips then meets them again. Which clips make a global batch depends on the number of ranks then.

    Raises:
        ValueError: if a weight is negative or names what is not there, or a number is below 1.
    """

    def __init__(
        self,
        population: Population,
        batch_size: int,
        seed: int = 0,
        domain_weights: Mapping[str, float] | None = None,
        origin_weights: Mapping[str, float] | None = None,
        num_buckets: int = 1,
        window_chunks: int | None = None,
        fixed_ranks: bool = False,
    ) -> None:
        for name, value in {
            "batch_size": batch_size,
            "num_buckets": num_buckets,
            "window_chunks": window_chunks,
        }.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if window_chunks is not None and population.chunk is None:
            raise ValueError("window_chunks needs to know the chunk of each clip, but the population has none")
        self.population = population
        self.batch_size = batch_size
        self.seed = seed
        self.domain_weights = _check_weights(domain_weights, population.domains, "domain")
        self.origin_weights = _check_weights(origin_weights, CAPTION_ORIGINS, "origin")
        self.num_buckets = num_buckets
        self.window_chunks = window_chunks
        self.fixed_ranks = fixed_ranks
        self._shaped: tuple[int, _Groups] | None = None

    def digest(self, world_size: int = 1) -> str:
        """Returns what the sequence of batches depends on, as a short string."""
        settings: list[Any] = [self.population.digest, len(self.population), self.batch_size * world_size, self.seed]
        settings += [self.domain_weights, self.origin_weights, self.num_buckets, self.window_chunks]
        if self.fixed_ranks:
            settings += [world_size]
        return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()

    def num_batches(self, world_size: int = 1) -> int:
        """Returns the steps of an epoch.

        Raises:
            DataSettingError: if the clips do not fill one global batch.
        """
        groups = self._groups(world_size)
        steps = groups.clips // (self.batch_size * world_size)
        if not steps:
            raise DataSettingError(
                f"the training split has {groups.clips} clips, too few for a batch of {self.batch_size} on each of "
                f"{world_size} ranks; lower batch_size or prepare more clips"
            )
        return steps

    def batches(self, epoch: int, rank: int = 0, world_size: int = 1) -> NDArray[np.int64]:
        """Returns the batches of a rank, (steps, batch_size) positions.

        >>> plan = TrainingPlan(Population.alike(10), batch_size=2)
        >>> [plan.batches(0, rank, world_size=2).tolist() for rank in (0, 1)]
        [[[1, 6], [5, 0]], [[2, 8], [9, 4]]]
        """
        return self.schedule(epoch, rank, world_size).positions

    def schedule(self, epoch: int, rank: int = 0, world_size: int = 1) -> Schedule:
        """Returns the batches of a rank, and for each clip how often the epoch had it before."""
        groups, steps = self._groups(world_size), self.num_batches(world_size)
        size = self.batch_size * world_size
        rng = np.random.default_rng([self.seed, epoch])
        window = self._windows(rng)
        parts: list[NDArray[np.int64]] = []
        turns: list[NDArray[np.int64]] = []
        places: list[NDArray[np.float64]] = []
        shares = groups.shares / groups.shares.sum()
        buckets = np.unique(groups.bucket)
        weight = np.array([shares[groups.bucket == bucket].sum() for bucket in buckets])
        for bucket, count in zip(buckets, _whole(weight * steps, rng), strict=True):
            if not count:
                continue
            members = np.flatnonzero(groups.bucket == bucket).tolist()
            exact = shares[members] / shares[members].sum() * count * size
            sampled = [
                _sample(groups.rows(group), quota, window, rng)
                for group, quota in zip(members, _whole(exact, rng), strict=True)
            ]
            rows, turn, keys = (np.concatenate(column) for column in zip(*sampled, strict=True))
            order = np.argsort(keys, kind="stable")
            own = order.reshape(count, world_size, self.batch_size)[:, rank]
            if self.fixed_ranks and world_size > 1:
                own = _own(order, self._owners(world_size)[rows[order]], rank, world_size).reshape(
                    count, self.batch_size
                )
            parts.append(rows[own])
            turns.append(turn[own])
            # In a window the steps of all buckets keep the order of the chunks.
            places.append((np.arange(count) + rng.random(count)) / count if window is not None else rng.random(count))
        order = np.argsort(np.concatenate(places), kind="stable")
        return Schedule(np.concatenate(parts)[order], np.concatenate(turns)[order])

    def peers(self, world_size: int = 1) -> NDArray[np.int64]:
        """Returns (N,) a number that is equal for clips of one bucket and domain, and -1 for clips that are never sampled."""
        groups = self._groups(world_size)
        peers = np.full(len(self.population), -1, np.int64)
        peers[groups.order] = groups.bucket_of[groups.order] * len(self.population.domains)
        peers[groups.order] += self.population.domain[groups.order]
        return peers

    def describe(self) -> str:
        """Says in a line how the clips are sampled."""
        groups = self._groups(1)
        text = f"{groups.clips:,} clips in {len(np.unique(groups.bucket))} buckets of durations"
        if self.domain_weights or self.origin_weights:
            sizes = np.array([len(groups.rows(group)) for group in range(len(groups.shares))])
            times = groups.shares / groups.shares.sum() * groups.clips / sizes
            text += f", each sampled {times.min():.2g} to {times.max():.2g} times an epoch"
        return text

    def _owners(self, world_size: int) -> NDArray[np.int64]:
        """Returns the rank (N,) that each clip belongs to, as many of each bucket to each."""
        bucket = self._groups(world_size).bucket_of
        order = np.lexsort((np.random.default_rng([self.seed, world_size]).random(len(bucket)), bucket))
        owners = np.empty(len(bucket), np.int64)
        owners[order] = np.arange(len(bucket)) % world_size
        return owners

    def _groups(self, world_size: int) -> _Groups:
        size = self.batch_size * world_size
        if self._shaped is None or self._shaped[0] != size:
            self._shaped = size, _group(self, size)
        return self._shaped[1]

    def _windows(self, rng: np.random.Generator) -> NDArray[np.int64] | None:
        """Returns the window (N,) of each clip, from 0 on in the order of the epoch; None where all clips are shuffled."""
        chunk = self.population.chunk
        if self.window_chunks is None or chunk is None:
            return None
        chunks = int(chunk.max(initial=0)) + 1
        return (rng.permutation(chunks) // self.window_chunks)[chunk]


def _own(order: NDArray[np.int64], owners: NDArray[np.int64], rank: int, world_size: int) -> NDArray[np.int64]:
    """Returns what of `order` a rank gets, as many as any other: what it owns, and of others' surplus what it lacks.

    Args:
        order: (n,), a multiple of `world_size`.
        owners: (n,) the rank that each belongs to.
        rank: whose share is wanted.
        world_size: number of ranks.

    >>> _own(np.arange(6), np.array([0, 0, 0, 1, 0, 1]), 1, 2).tolist()
    [3, 4, 5]
    """
    share = len(order) // world_size
    place = np.empty(len(order), np.int64)
    surplus = np.zeros(len(order), bool)
    for owner in range(world_size):
        held = np.flatnonzero(owners == owner)
        place[held] = owner
        surplus[held[share:]] = True
    spare = np.flatnonzero(surplus)
    lacking = np.repeat(
        np.arange(world_size), [share - int(((place == r) & ~surplus).sum()) for r in range(world_size)]
    )
    place[spare] = lacking
    return order[place == rank]


def substitutes(peers: NDArray[np.int64], position: int) -> Iterator[int]:
    """Yields what may stand in for a clip that is bad: the other clips of its bucket and domain, from the next one on.

    >>> list(substitutes(np.array([0, 1, 0, 0]), 2))
    [3, 0]
    """
    same = np.flatnonzero(peers == peers[position])
    start = int(np.searchsorted(same, position))
    for step in range(1, len(same)):
        yield int(same[(start + step) % len(same)])


@dataclass(frozen=True, eq=False)
class _Groups:
    """Groups of clips, and what they get of an epoch.

    Attributes:
        order: positions, group after group.
        starts: (groups + 1,) where each group begins in `order`.
        bucket: (groups,) of durations.
        shares: (groups,) of the clips of an epoch, up to a common factor.
        bucket_of: (N,) of each clip.
        clips: that have a share.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    bucket: NDArray[np.int64]
    shares: NDArray[np.float64]
    bucket_of: NDArray[np.int64]
    clips: int

    def rows(self, group: int) -> NDArray[np.int64]:
        """Returns the positions of a group."""
        return self.order[self.starts[group] : self.starts[group + 1]]


def _group(plan: TrainingPlan, size: int) -> _Groups:
    population = plan.population
    bucket_of = _buckets(population.duration, plan.num_buckets, size)
    domain = population.domain.astype(np.int64) if plan.domain_weights else np.zeros(len(population), np.int64)
    origin = population.origin.astype(np.int64) if plan.origin_weights else np.zeros(len(population), np.int64)
    code = (bucket_of * len(population.domains) + domain) * 4 + origin
    codes, counts = np.unique(code, return_counts=True)
    order = np.argsort(code.astype(np.uint16) if codes.max(initial=0) < 1 << 16 else code, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)])
    domains, origins, buckets = codes // 4 % len(population.domains), codes % 4, codes // 4 // len(population.domains)
    shares = counts.astype(np.float64)
    if not plan.domain_weights and not plan.origin_weights and len(counts) > 1:
        shares = shares // size * size  # whole batches of each bucket, so that no clip is sampled twice
    if plan.origin_weights:
        for value in np.unique(domains):
            shares[domains == value] *= _origin_factors(
                origins[domains == value], counts[domains == value], plan.origin_weights
            )
    if plan.domain_weights:
        for value, name in enumerate(population.domains):
            held = domains == value
            total = shares[held].sum()
            if total:
                shares[held] *= plan.domain_weights[name] / total
            elif plan.domain_weights[name] and held.any():
                raise ValueError(f"origin_weights leave no clip of the domain {name!r}; give the domain the weight 0")
    kept = shares > 0
    if len(population) and not kept.any():
        raise ValueError(
            "the weights leave no clip to train on: none has captions of an origin, or a domain, with a weight above 0"
        )
    keep_rows = np.repeat(kept, counts)
    starts = np.concatenate([[0], np.cumsum(counts[kept])])
    return _Groups(order[keep_rows], starts, buckets[kept], shares[kept], bucket_of, int(counts[kept].sum()))


def _origin_factors(
    origins: NDArray[np.int64], counts: NDArray[np.int64], weights: Mapping[str, float]
) -> NDArray[np.float64]:
    """Returns by how much clips of each origin are sampled more often than they are there."""
    factors = np.ones(len(origins))
    total = np.array([counts[origins == value].sum() for value in (1, 2)], dtype=np.float64)
    wanted = np.array([weights[name] for name in CAPTION_ORIGINS])
    wanted = np.where(total > 0, wanted, 0.0)
    if wanted.sum():
        goal = wanted / wanted.sum() * total.sum()
        for value in (1, 2):
            factors[origins == value] = goal[value - 1] / total[value - 1] if total[value - 1] else 0.0
    else:
        factors[(origins == 1) | (origins == 2)] = 0.0
    return factors


def _buckets(duration: NDArray[np.float64], num_buckets: int, size: int) -> NDArray[np.int64]:
    """Returns the bucket (N,) of each clip: about as many clips in each, durations that differ, and whole batches in all but the last.

    Args:
        duration: (N,) seconds.
        num_buckets: at most.
        size: of a global batch; a bucket has at least `MIN_BUCKET_BATCHES` of them.
    """
    min_clips = MIN_BUCKET_BATCHES * size
    count = min(num_buckets, len(duration) // max(1, min_clips))
    if count < 2:
        return np.zeros(len(duration), np.int64)
    edges = np.quantile(duration, np.arange(1, count) / count)
    order = np.argsort(duration, kind="stable")
    ends: list[int] = []
    last = float(duration.min())
    for edge in edges:
        # Clips of one duration may fall to both sides: what counts is that batches are whole.
        end = round(int(np.searchsorted(duration, edge, side="right", sorter=order)) / size) * size
        whole = end - (ends[-1] if ends else 0) >= min_clips and len(duration) - end >= min_clips
        if edge > last * MIN_BUCKET_RATIO and whole:
            ends.append(end)
            last = float(edge)
    bucket = np.empty(len(duration), np.int64)
    bucket[order] = np.searchsorted(ends, np.arange(len(duration)), side="right")
    return bucket


def _sample(
    rows: NDArray[np.int64], quota: int, window: NDArray[np.int64] | None, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Samples `quota` clips of a group, each as often as another, or once more.

    Returns:
        Three arrays (quota,): the clips, how often each was sampled before, and numbers in whose order they come.
    """
    times, rest = divmod(quota, len(rows))
    parts, keys = [], []
    noise = rng.random(len(rows))
    turns = times + (rest > 0)
    for turn in range(turns):
        some = slice(None) if turn < times else np.argpartition(noise, rest - 1)[:rest]
        chosen = rows[some]
        parts.append(chosen)
        if window is not None:
            keys.append(window[chosen] + rng.random(len(chosen)))
        elif turns > 1:
            # From turn to turn the order changes a little, so that a clip does not meet itself in a step.
            keys.append((turn + noise[some] + 0.25 * rng.random(len(chosen))) * len(rows) / quota)
        else:
            keys.append(noise if times else rng.random(len(chosen)))
    if not parts:
        return rows[:0], np.zeros(0, np.int64), np.zeros(0)
    before = np.repeat(np.arange(turns), [len(part) for part in parts])
    return np.concatenate(parts), before, np.concatenate(keys)


def _whole(exact: NDArray[np.float64], rng: np.random.Generator) -> list[int]:
    """Rounds numbers up or down so that their sum is kept, and each is right on average (systematic sampling)."""
    edges = np.concatenate([[0.0], np.cumsum(exact)])
    edges[-1] = round(edges[-1])
    return np.diff(np.floor(edges + rng.random() * (1 - 1e-9))).astype(int).tolist()


def _check_weights(weights: Mapping[str, float] | None, known: tuple[str, ...], what: str) -> dict[str, float] | None:
    if weights is None:
        return None
    unknown, missing = sorted(set(weights) - set(known)), sorted(set(known) - set(weights))
    names = ", ".join(repr(name) for name in sorted(known))
    if unknown:
        raise ValueError(f"{what}_weights names {unknown[0]!r}, but the {what}s are {names}")
    if missing:
        raise ValueError(f"{what}_weights must give each {what} a weight, 0 to leave it out; {missing[0]!r} has none")
    if not all(np.isfinite(value) and value >= 0 for value in weights.values()) or not sum(weights.values()):
        raise ValueError(f"{what}_weights must be numbers from 0 on, not all of them 0, got {dict(weights)}")
    return {name: float(weights[name]) for name in sorted(weights)}
