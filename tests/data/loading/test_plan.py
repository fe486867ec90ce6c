import itertools
from itertools import pairwise

import numpy as np
import pytest

from peav.data.loading.plan import MIN_BUCKET_BATCHES, Population, TrainingPlan, substitutes


def population(clips: int = 4000, seed: int = 0, chunk: int | None = None) -> Population:
    rng = np.random.default_rng(seed)
    domain = rng.choice(3, clips, p=[0.7, 0.25, 0.05]).astype(np.uint32)
    return Population(
        duration=rng.uniform(1, 30, clips),
        domain=domain,
        origin=rng.choice(4, clips, p=[0.1, 0.5, 0.3, 0.1]).astype(np.uint8),
        domains=("speech", "music", "effects"),
        chunk=None if chunk is None else (np.arange(clips) // chunk).astype(np.int32),
        digest=str(seed),
    )


DOMAINS = {"speech": 1.0, "music": 2.0, "effects": 1.0}
ORIGINS = {"real": 1.0, "synthetic": 10.0}
SETTINGS = [
    {},
    {"num_buckets": 4},
    {"domain_weights": DOMAINS},
    {"domain_weights": DOMAINS, "origin_weights": ORIGINS, "num_buckets": 3},
    {"num_buckets": 3, "window_chunks": 4},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_have_equal_steps_and_sizes_and_share_a_global_batch(settings: dict, world: int) -> None:
    clips = population(chunk=50)
    plan = TrainingPlan(clips, 4, 1, **settings)
    ranks = [plan.batches(3, rank, world) for rank in range(world)]
    assert {part.shape for part in ranks} == {(plan.num_batches(world), 4)}
    # A global batch holds the same clips on any number of ranks that divide it.
    whole = TrainingPlan(clips, 4 * world, 1, **settings)
    assert whole.digest() == plan.digest(world)
    assert np.array_equal(np.concatenate(ranks, 1), whole.batches(3))
    assert not np.array_equal(whole.batches(3), whole.batches(4))
    assert np.array_equal(whole.batches(3), TrainingPlan(clips, 4 * world, 1, **settings).batches(3))


@pytest.mark.parametrize(
    "settings",
    [*SETTINGS, {"domain_weights": DOMAINS, "origin_weights": ORIGINS, "num_buckets": 2, "window_chunks": 4}],
)
def test_the_occurrences_of_a_clip_are_counted_over_all_ranks(settings: dict) -> None:
    plan = TrainingPlan(population(chunk=50), 4, 1, **settings)
    ranks = [plan.schedule(3, rank, 3) for rank in range(3)]
    assert all(np.array_equal(part.positions, plan.batches(3, rank, 3)) for rank, part in enumerate(ranks))
    whole = TrainingPlan(population(chunk=50), 12, 1, **settings).schedule(3)
    assert np.array_equal(np.concatenate([part.occurrences for part in ranks], 1), whole.occurrences)
    assert np.array_equal(whole.after(7).occurrences, whole.occurrences[7:]) and len(whole.after(7)) == len(whole) - 7
    pairs = sorted(zip(whole.positions.ravel().tolist(), whole.occurrences.ravel().tolist(), strict=True))
    counts = np.bincount(whole.positions.ravel())
    assert pairs == [(position, turn) for position, count in enumerate(counts.tolist()) for turn in range(count)]
    assert ("domain_weights" in settings) == bool(whole.occurrences.max() > 1)


@pytest.mark.parametrize("settings", [{}, {"num_buckets": 4}, {"num_buckets": 3, "window_chunks": 4}])
def test_without_weights_no_clip_comes_twice_in_an_epoch(settings: dict) -> None:
    plan = TrainingPlan(population(4003, chunk=50), 8, **settings)
    counts = np.sum([np.bincount(plan.batches(epoch).ravel(), minlength=4003) for epoch in range(40)], axis=0)
    assert plan.num_batches() == 500
    for epoch in range(10):
        assert np.bincount(plan.batches(epoch).ravel()).max() == 1
        assert len(np.unique([plan.batches(epoch, rank, 4) for rank in range(4)])) == 125 * 32
    # Over the epochs each clip is sampled as often as any other.
    assert abs(counts.mean() - 40 * 4000 / 4003) < 1e-9 and counts.min() >= 36 and counts.max() <= 43


def test_shares_follow_the_weights_within_two_percent() -> None:
    clips = population(20_000)
    plan = TrainingPlan(clips, 32, domain_weights=DOMAINS, origin_weights=ORIGINS, num_buckets=4)
    sampled = plan.batches(0).ravel()
    shares = np.bincount(clips.domain[sampled], minlength=3) / len(sampled)
    assert np.abs(shares - [0.25, 0.5, 0.25]).max() < 0.02
    origins = np.bincount(clips.origin[sampled], minlength=4)
    assert abs(origins[2] / origins[1] - 10) < 0.2
    # Clips with both kinds of caption, and with none, keep their share.
    assert np.abs(origins[[0, 3]] / len(sampled) - 0.1).max() < 0.02
    unweighted = TrainingPlan(clips, 32, num_buckets=4).batches(0).ravel()
    natural = np.bincount(clips.domain, minlength=3) / len(clips)
    assert np.abs(np.bincount(clips.domain[unweighted], minlength=3) / len(unweighted) - natural).max() < 0.02


def test_a_weight_of_zero_leaves_a_domain_out() -> None:
    clips = population()
    plan = TrainingPlan(clips, 8, domain_weights={**DOMAINS, "speech": 0.0})
    assert 0 not in clips.domain[plan.batches(0)] and plan.num_batches() == (clips.domain != 0).sum() // 8
    assert (plan.peers()[clips.domain == 0] == -1).all() and (plan.peers()[clips.domain != 0] >= 0).all()


def test_domains_may_be_many() -> None:
    """More groups than a number of 16 bits counts."""
    names = tuple(f"channel {number}" for number in range(20_001))
    domain = np.arange(2 * len(names), dtype=np.uint32) % len(names)
    clips = Population(np.ones(len(domain)), domain, np.ones(len(domain), np.uint8), names)
    weights = dict.fromkeys(names, 0.0) | {names[7]: 1.0, names[16_391]: 1.0, names[20_000]: 1.0}
    plan = TrainingPlan(clips, 3, domain_weights=weights)
    assert sorted(set(clips.domain[plan.batches(0)].ravel().tolist())) == [7, 16_391, 20_000]
    assert plan.num_batches() == 2


@pytest.mark.parametrize("buckets", [1, 3])
def test_a_clip_that_comes_often_does_not_meet_itself(buckets: int) -> None:
    clips = population(2000)
    plan = TrainingPlan(clips, 16, domain_weights={"speech": 0.2, "music": 1.0, "effects": 0.5}, num_buckets=buckets)
    steps = [step for epoch in range(10) for step in plan.batches(epoch, 0, 2)]
    assert len(steps) == 10 * 62 and all(len(np.unique(step)) == len(step) for step in steps)


def test_a_step_has_one_bucket_of_durations_on_all_ranks() -> None:
    clips = population()
    plan = TrainingPlan(clips, 8, num_buckets=4)
    durations = clips.duration[np.concatenate([plan.batches(0, rank, 2) for rank in (0, 1)], 1)]
    bucket_of = plan.peers(2) // len(clips.domains)
    buckets = bucket_of[np.concatenate([plan.batches(0, rank, 2) for rank in (0, 1)], 1)]
    assert (buckets == buckets[:, :1]).all() and set(buckets[:, 0].tolist()) == {0, 1, 2, 3}
    held = [clips.duration[bucket_of == bucket] for bucket in range(4)]
    assert all(low.max() <= high.min() for low, high in pairwise(held))
    assert min(map(len, held)) > 0.9 * len(clips) / 4
    padding = 1 - durations.mean(1) / durations.max(1)
    mixed = clips.duration[TrainingPlan(clips, 16).batches(0)]
    assert padding.mean() < 0.5 * (1 - mixed.mean(1) / mixed.max(1)).mean()
    # The buckets do not follow each other by length.
    assert abs(np.corrcoef(np.arange(len(buckets)), buckets[:, 0])[0, 1]) < 0.2


def test_small_buckets_join_their_neighbours() -> None:
    clips = population(300)
    plan = TrainingPlan(clips, 16, num_buckets=10)
    buckets = np.searchsorted(np.unique(plan.peers() // 3), plan.peers() // 3)
    assert np.bincount(buckets).min() >= MIN_BUCKET_BATCHES * 16
    alike = Population.alike(1000)
    assert len(np.unique(TrainingPlan(alike, 2, num_buckets=10).peers())) == 1


def test_windows_keep_the_chunks_together() -> None:
    clips = population(4000, chunk=50)
    plan = TrainingPlan(clips, 10, num_buckets=2, window_chunks=4)
    assert clips.chunk is not None
    chunks = clips.chunk[plan.batches(0)]
    # 80 chunks, a window of 4 holds 20 batches: at no time are more than a few windows open.
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for step, row in enumerate(chunks.tolist()):
        for chunk in row:
            first.setdefault(chunk, step)
            last[chunk] = step
    spans = [last[chunk] - first[chunk] for chunk in first]
    assert len(first) == 80 and max(spans) < 60 and np.mean(spans) < 30
    # Inside a window clips of different chunks meet, and the order of chunks changes with the epoch.
    assert np.mean([len(set(row)) for row in chunks.tolist()]) > 2.5
    assert not np.array_equal(chunks[:, 0], clips.chunk[plan.batches(1)][:, 0])
    with pytest.raises(ValueError, match="needs to know the chunk"):
        TrainingPlan(population(), 4, window_chunks=4)


@pytest.mark.parametrize(("window_chunks", "chunks"), [(4, 80), (3, 80), (1, 20), (80, 80), (7, 16)])
def test_clips_are_shuffled_among_the_chunks_of_their_window_alone(window_chunks: int, chunks: int) -> None:
    clips = population(50 * chunks, chunk=50)
    plan = TrainingPlan(clips, 10, window_chunks=window_chunks)
    assert clips.chunk is not None
    orders = []
    for epoch in (0, 1):
        order = clips.chunk[plan.batches(epoch).ravel()]
        windows = [order[begin : begin + 50 * window_chunks] for begin in range(0, len(order), 50 * window_chunks)]
        held = [sorted(set(window.tolist())) for window in windows]
        # Window after window, each with all clips of its chunks; the last one may have fewer chunks.
        assert [len(window) for window in held] == [
            min(window_chunks, chunks - begin) for begin in range(0, chunks, window_chunks)
        ]
        assert sorted(chunk for window in held for chunk in window) == list(range(chunks))
        if window_chunks > 1:
            assert all(len(set(window[:50].tolist())) > 1 for window in windows if len(window) > 50)
        orders.append(held)
    assert (orders[0] != orders[1]) == (window_chunks < chunks)


@pytest.mark.parametrize(("short", "long", "buckets"), [(8, 8, 2), (8, 7, 1), (7, 8, 1), (16, 16, 2)])
def test_a_bucket_of_just_enough_clips_is_one(short: int, long: int, buckets: int) -> None:
    assert MIN_BUCKET_BATCHES == 4
    duration = np.concatenate([np.linspace(1, 1.2, short), np.linspace(8, 9, long)])
    clips = Population(duration, np.zeros(len(duration), np.uint32), np.ones(len(duration), np.uint8))
    plan = TrainingPlan(clips, 2, num_buckets=2)
    assert len(np.unique(plan.peers())) == buckets
    if buckets == 2:
        assert all(np.ptp(clips.duration[batch]) < 2 for epoch in range(5) for batch in plan.batches(epoch))


def test_substitutes_are_of_the_same_bucket_and_domain_and_go_round() -> None:
    clips = population(500)
    plan = TrainingPlan(clips, 8, num_buckets=2)
    peers = plan.peers()
    found = list(substitutes(peers, 250))
    assert found and 250 not in found and len(set(found)) == len(found)
    assert {int(clips.domain[row]) for row in found} == {int(clips.domain[250])}
    assert found[0] == min(row for row in found if row > 250)
    assert sorted([*found, 250]) == np.flatnonzero(peers == peers[250]).tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"domain_weights": {"speech": 1.0}}, "'effects' has none"),
        ({"domain_weights": {**DOMAINS, "musik": 1.0}}, "'musik', but the domains are"),
        ({"domain_weights": {**DOMAINS, "music": -1.0}}, "from 0 on"),
        ({"domain_weights": dict.fromkeys(DOMAINS, 0.0)}, "not all of them 0"),
        ({"origin_weights": {"real": 1.0}}, "'synthetic' has none"),
        ({"num_buckets": 0}, "num_buckets must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingPlan(population(), **{"batch_size": 4, **settings})


def test_too_few_clips_are_an_error() -> None:
    with pytest.raises(ValueError, match="too few for a batch of 64"):
        TrainingPlan(Population.alike(50), 64).num_batches()


def test_the_digest_names_everything_that_the_sequence_depends_on() -> None:
    clips = population()
    variants = [
        TrainingPlan(clips, 4),
        TrainingPlan(clips, 8),
        TrainingPlan(clips, 4, seed=1),
        TrainingPlan(clips, 4, domain_weights=DOMAINS),
        TrainingPlan(clips, 4, origin_weights=ORIGINS),
        TrainingPlan(clips, 4, num_buckets=2),
        TrainingPlan(population(seed=1), 4),
    ]
    digests = [plan.digest() for plan in variants]
    assert len(set(digests)) == len(digests)
    for a, b in itertools.pairwise(digests):
        assert a != b


@pytest.mark.parametrize("settings", [{}, {"num_buckets": 4}, {"num_buckets": 3, "window_chunks": 4}])
def test_with_fixed_ranks_a_rank_meets_its_clips_again(settings: dict) -> None:
    """What a rank of eight remembers of its clips serves in the next epochs; without it, an eighth would by chance."""
    plan = TrainingPlan(population(chunk=50), 4, 1, fixed_ranks=True, **settings)
    epochs = [[plan.batches(epoch, rank, 8) for rank in range(8)] for epoch in range(3)]
    for ranks in epochs:
        assert {part.shape for part in ranks} == {(plan.num_batches(8), 4)}
        rows = np.concatenate(ranks, 1).ravel()
        assert len(np.unique(rows)) == len(rows)
    for first, second in pairwise(epochs):
        hits = [np.isin(after, before).mean() for before, after in zip(first, second, strict=True)]
        assert min(hits) > 0.9
    known = [np.unique(np.concatenate([ranks[rank].ravel() for ranks in epochs])) for rank in range(8)]
    assert max(map(len, known)) < 1.15 * len(plan.population) / 8
    one = TrainingPlan(population(chunk=50), 4, 1, **settings)
    assert np.array_equal(plan.batches(0), one.batches(0)) and plan.digest(8) != one.digest(8)
