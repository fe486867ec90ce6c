from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peav.data import ClipDataset, ClipLoader, MediaError, Population, ShardError, TooManyBadClips, TrainingPlan
from peav.types import AudioInput
from tests.data.world import RATE, damage, make_data


def loader(data: Path, workers: int = 0, seed: int = 1, **options: Any) -> ClipLoader:
    dataset = ClipDataset(data, "train", fields=["audio"], sample_rate=RATE)
    plan = TrainingPlan(Population.of(dataset.manifest.index), 6, seed=seed, num_buckets=2)
    return ClipLoader(dataset, plan, num_workers=workers, **options)


def ids(batches: Any) -> list[tuple[str, ...]]:
    return [batch.ids for batch in batches]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data", clips=60)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_clip_is_replaced_by_the_next_of_its_bucket_and_domain(data: Path, workers: int) -> None:
    whole = loader(data)
    want = ids(whole)
    for row in (3, 4, 30):
        damage(data, row)
    damaged = loader(data, workers)
    got = list(damaged)
    assert {len(batch.ids) for batch in got} == {6} and len(got) == len(want) == 10
    bad = {f"train-{row}" for row in (3, 4, 30)}
    changed = 0
    index = whole.dataset.manifest.index
    peers = whole.plan.peers()  # type: ignore[union-attr]
    place = {clip.id: position for position, clip in enumerate(whole.dataset.manifest)}
    for old, new in zip(want, got, strict=True):
        assert not bad & set(new.ids) and len(set(new.ids)) == 6
        for before, after in zip(old, new.ids, strict=True):
            if before != after:
                changed += 1
                assert before in bad and peers[place[before]] == peers[place[after]]
                assert index.domain[place[before]] == index.domain[place[after]]
        assert isinstance(new.audio, AudioInput)
        level = new.audio.samples[:, 0] * 1000
        assert [round(float(x)) - 1 for x in level] == [place[clip] for clip in new.ids]
    assert changed == 3 and {item.clip for item in damaged.replaced} == bad
    assert all("checksum" in item.reason for item in damaged.replaced)
    # The same again, whatever the workers.
    assert ids(loader(data, 2 - workers)) == [batch.ids for batch in got]


def test_too_many_bad_clips_stop_the_run(data: Path) -> None:
    for row in range(0, 40):
        damage(data, row)
    with pytest.raises(TooManyBadClips, match=r"1\d of (12|18) clips could not be read, .*max_bad_share=0.01"):
        list(loader(data))
    patient = loader(data, max_bad_share=1.0)
    assert len(list(patient)) == 10 and len(patient.replaced) >= 30


def test_another_domain_stands_in_where_a_clip_is_alone_in_its_own(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", clips=60, domains=tuple(f"domain {number}" for number in range(60)))
    damage(data, 7)
    patient = loader(data)
    ids = [name for batch in patient for name in batch.ids]
    assert len(ids) == 60 and len(set(ids)) == 59 and "train-7" not in ids
    assert [item.clip for item in patient.replaced] == ["train-7"]


def test_none_may_be_bad_where_none_is_allowed(data: Path) -> None:
    damage(data, 3)
    with pytest.raises(TooManyBadClips, match=r"1 of .* clips could not be read, more than max_bad_share=0 allows"):
        for _ in range(2):
            list(loader(data, max_bad_share=0.0))


def test_evaluation_replaces_nothing_and_other_shards_are_no_bad_clip(data: Path, tmp_path: Path) -> None:
    damage(data, 3)
    dataset = ClipDataset(data, "train", fields=["audio"], sample_rate=RATE)
    with pytest.raises(ShardError, match="clip 'train-3'"):
        dataset.__getitems__([2, 3])
    other = make_data(tmp_path / "other", clips=61, domains=("a",), level=2)
    (other / "manifest" / "train.jsonl").write_bytes((data / "manifest" / "train.jsonl").read_bytes())
    with pytest.raises(ShardError, match="different runs"):
        list(loader(other))


def test_a_whole_domain_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", clips=12, domains=("a",))
    for row in range(12):
        damage(data, row)
    with pytest.raises((ShardError, MediaError), match="checksum"):
        list(loader(data))


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"seed": 2}, {}),
        ({}, {"digest": "another"}),
    ],
)
def test_a_run_does_not_go_on_with_another_sequence(data: Path, change: dict[str, Any], state: dict[str, Any]) -> None:
    first = loader(data)
    next(iter(first))
    held = first.state_dict()
    assert set(held) == {"digest", "epoch", "batches"} and held["batches"] == 1
    other = loader(data, **change)
    other.load_state_dict({**held, **state})
    with pytest.raises(ValueError, match=r"interrupted in epoch 0 after 1 batches and had another sequence"):
        next(iter(other))


def test_rewritten_captions_do_not_stop_a_resumed_run(data: Path, tokenize: Callable) -> None:
    first = loader(data)
    want = ids(first)
    again = loader(data)
    next(iter(again))
    state = again.state_dict()
    path = data / "manifest" / "train.jsonl"
    path.write_bytes(path.read_bytes().replace(b"tone ", b"rewritten tone "))
    resumed = loader(data)
    resumed.load_state_dict(state)
    assert ids(resumed) == want[1:]


@pytest.mark.parametrize(
    "options", [{"workers": -1}, {"prefetch_factor": 0}, {"max_bad_share": 2.0}, {"max_bad_share": -0.1}]
)
def test_numbers_out_of_range_are_refused(data: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be at"):
        loader(data, **options)
