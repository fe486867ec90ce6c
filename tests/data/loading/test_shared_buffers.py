import gc
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from peav.data import ClipDataset, ClipLoader, Population, TrainingPlan
from peav.data.loading import shared_buffers
from peav.data.loading.shared_buffers import SMALL_BYTES, BufferPool
from peav.types import AudioInput
from tests.data.world import RATE, make_data

LARGE = SMALL_BYTES // 4 + 1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of 1 to 5 s: a batch of four takes 128 to 640 KB."""
    return make_data(tmp_path_factory.mktemp("buffers") / "data", clips=40, seconds=1.0)


def loader(data: Path, workers: int) -> ClipLoader:
    dataset = ClipDataset(data, "train", fields=["audio"], sample_rate=RATE * 4)
    return ClipLoader(dataset, TrainingPlan(Population.of(dataset.manifest.index), 4), num_workers=workers)


def samples(batch: object) -> torch.Tensor:
    audio = batch.audio  # type: ignore[attr-defined]
    assert isinstance(audio, AudioInput)
    return audio.samples


def test_what_is_held_is_never_written_again(data: Path) -> None:
    """Batches, views of them and arrays on them are kept for a random time, while the workers go on."""
    want = {}
    for epoch in range(6):
        alone = loader(data, 0)
        alone.load_state_dict({"digest": None, "epoch": epoch, "batches": 0})
        want[epoch] = [samples(batch) for batch in alone]
    rng = np.random.default_rng(0)
    held: list[tuple[object, torch.Tensor]] = []
    shared = loader(data, 2)
    for epoch in range(6):
        for batch, expected in zip(shared, want[epoch], strict=True):
            assert torch.equal(samples(batch), expected)
            form = rng.integers(4)
            if form == 0:
                held.append((batch, expected))
            elif form == 1:
                held.append((samples(batch)[2:, 5:], expected[2:, 5:]))
            elif form == 2:
                held.append((samples(batch).numpy()[1], expected[1]))
            del batch
            held = [held[i] for i in range(len(held)) if rng.random() < 0.8]
            for thing, content in held:
                now = samples(thing) if hasattr(thing, "audio") else torch.as_tensor(thing)
                assert torch.equal(now, content)


def test_buffers_are_used_again(data: Path) -> None:
    shared = loader(data, 2)
    sizes, mapped = [], []
    for _ in range(10):
        for batch in shared:
            sizes.append(samples(batch).nbytes + samples(batch).numel())
            mapped.append(shared_buffers.known_bytes())
    # Two workers with at most two batches ahead and one in use each; sizes differ, so some buffers wait for their like.
    assert max(mapped) < 10 * max(sizes) < sum(sizes) / 8


def test_a_fork_does_not_free_the_buffers_of_its_parent(data: Path) -> None:
    shared = loader(data, 1)
    batches = iter(shared)
    batch = next(batches)
    kept = samples(batch).clone()
    child = os.fork()
    if not child:
        del batch
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    rest = list(map(lambda other: samples(other).sum(), batches))
    assert len(rest) == 9 and torch.equal(samples(batch), kept)


def test_a_fork_may_look_at_a_batch_for_as_long_as_it_likes(data: Path) -> None:
    """Buffers that are in use during a fork are abandoned, and the workers take new ones."""
    context = multiprocessing.get_context("fork")
    done, answers = context.Event(), context.Queue()

    def watch(batch: object, number: int) -> None:
        before = samples(batch).clone()
        done.wait(60)
        answers.put((number, torch.equal(samples(batch), before)))

    shared, children = loader(data, 2), []
    for step, batch in enumerate(shared):
        if step < 4:
            children.append(context.Process(target=watch, args=(batch, step)))
            children[-1].start()
    del batch
    for _ in range(3):
        assert len(list(shared)) == 10
    done.set()
    assert sorted(answers.get(timeout=60) for _ in children) == [(number, True) for number in range(4)]
    for child in children:
        child.join()


def test_a_part_of_a_buffer_is_sent_as_a_copy() -> None:
    pool = BufferPool()
    whole = pool.zeros([2, LARGE], torch.float32)
    whole.fill_(1)
    sent = [pool.share(whole[:1]), pool.share(whole[1:])]
    pool.begin()
    pool.zeros([2, LARGE], torch.float32).fill_(9)
    assert all((part == 1).all() for part in sent)


def test_workers_that_decoded_much_are_replaced(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peav.data.loading.loader._WORKER_CLIPS", 60)
    others = set(multiprocessing.active_children())
    shared = loader(data, 1)
    pids = []
    for _ in range(4):  # of 40 clips each
        assert len(list(shared)) == 10
        pids += [worker.pid for worker in set(multiprocessing.active_children()) - others]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_memory_of_workers_that_ended_is_let_go(data: Path) -> None:
    gc.collect()
    shared_buffers.tidy()
    before = shared_buffers.known_bytes()
    shared = loader(data, 1)
    kept = samples(next(iter(shared)))
    content = kept.clone()
    assert shared_buffers.known_bytes() > before
    del shared
    gc.collect()
    shared_buffers.tidy()
    assert shared_buffers.known_bytes() == before and torch.equal(kept, content)


def receive(sent: object) -> torch.Tensor:
    assert isinstance(sent, shared_buffers.SentTensor)
    function, arguments = sent.__reduce__()
    return function(*arguments)


def test_a_pool_gives_zeros_and_takes_back_what_was_not_sent() -> None:
    pool = BufferPool()
    first = pool.zeros([LARGE], torch.float32)
    first.fill_(7)
    pool.begin()
    again = pool.zeros([LARGE], torch.float32)
    assert again.data_ptr() == first.data_ptr() and not again.any()
    other = pool.zeros([LARGE], torch.float32)
    assert other.data_ptr() != again.data_ptr()
    again.fill_(3)
    received = receive(pool.share(again))
    pool.begin()
    assert pool.zeros([LARGE], torch.float32).data_ptr() == other.data_ptr()
    assert pool.zeros([LARGE], torch.float32).data_ptr() not in (again.data_ptr(), other.data_ptr())
    assert (received == 3).all() and received.data_ptr() == again.data_ptr()
    part = received[10:]
    del received
    assert (part == 3).all() and pool.zeros([LARGE], torch.float32).data_ptr() != again.data_ptr()
    del part
    assert pool.zeros([LARGE], torch.float32).data_ptr() == again.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8, torch.int64, torch.float16])
def test_types_and_shapes_arrive(dtype: torch.dtype) -> None:
    pool = BufferPool()
    tensor = pool.zeros([3, 5, 4099], dtype)
    tensor[1, 2] = 1
    content = tensor.clone()
    got = receive(pool.share(tensor))
    assert got.dtype == dtype and torch.equal(got, content)


def test_other_tensors_and_small_ones_are_sent_as_they_are() -> None:
    pool = BufferPool()
    small, foreign = pool.zeros([2], torch.float32), torch.ones(LARGE)
    assert pool.share(small) is small and pool.share(foreign) is foreign and not pool.num_bytes


def test_growing_batches_do_not_pile_up_memory() -> None:
    pool = BufferPool()
    for length in range(LARGE, 40 * LARGE, LARGE // 2):
        pool.begin()
        tensors = [pool.zeros([length], torch.float32) for _ in range(2)]
        received = [receive(pool.share(tensor)) for tensor in tensors]
        assert all(not tensor.any() for tensor in received)
        del received
    assert pool.num_bytes < 2.5 * 1.2 * 4 * length
    for _ in range(200):  # and what is much too large is given back in the end
        pool.begin()
        receive(pool.share(pool.zeros([LARGE], torch.float32)))
        if pool.num_bytes < 8 * LARGE:
            break
    else:
        raise AssertionError(f"{pool.num_bytes:,} bytes are kept for batches of {4 * LARGE:,}")
