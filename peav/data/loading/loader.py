"""A data loader that follows a plan and resumes in the middle of an epoch."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from peav.data.loading import shared_buffers
from peav.data.loading.collate import Collate, Tokenize, unpack_small
from peav.data.loading.dataset import ClipDataset
from peav.data.loading.decoding import Replacement
from peav.data.loading.plan import DataSettingError, Schedule, TrainingPlan
from peav.data.loading.sampler import EvaluationPlan, PlannedBatches, Position
from peav.data.stores.reader import Prefetcher, ShardReader
from peav.distributed import rank, world_size
from peav.types import Batch

_log = logging.getLogger(__name__)

#: So many clips of a run may be replaced before `max_bad_share` is looked at.
_MIN_BAD = 10

#: Batches by which chunks of object stores are fetched ahead.
_AHEAD_BATCHES = 16

#: Workers that decoded more clips are replaced at the end of an epoch: torchcodec 0.11 keeps about 0.6 KB of every audio decoder.
_WORKER_CLIPS = 100_000

#: Why a run cannot be gone on with.
OTHER_SEQUENCE = (
    "had another sequence of batches: the clips, batch_size times ranks, seed, weights, buckets or windows have changed. Resume with the "
    "same ones, or start a new run from the weights (model.init_from)"
)

#: Replacements that are logged one by one.
_LOGGED = 20


class TooManyBadClips(RuntimeError):  # noqa: N818  the name says what happened
    """More clips could not be read than `max_bad_share` allows."""


class ClipLoader:
    """Batches of clips, epoch after epoch; each pass is the next epoch.

    It wraps a `DataLoader` rather than being one, so that Lightning leaves its sampler alone: the plan knows the ranks. Lightning
    saves `state_dict()` with its own state and hands it back.

    Attributes:
        replaced: training clips that could not be read, and what came in their place, in this process.

    Args:
        dataset: the clips.
        plan: which clips when.
        tokenize: texts to ids, needed when the data set reads texts.
        num_workers: processes that decode; 0 decodes in this one.
        prefetch_factor: batches that each worker makes ahead.
        pin_memory: put batches into page-locked memory, from which a GPU copies while it computes.
        max_bad_share: share of the training clips that may be replaced because they cannot be read; beyond it the run stops.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        plan: TrainingPlan | EvaluationPlan,
        tokenize: Tokenize | None = None,
        num_workers: int = 0,
        prefetch_factor: int = 2,
        pin_memory: bool = False,
        max_bad_share: float = 0.01,
    ) -> None:
        if num_workers < 0 or prefetch_factor < 1 or not 0 <= max_bad_share <= 1:
            raise ValueError(
                f"num_workers={num_workers}, prefetch_factor={prefetch_factor}, max_bad_share={max_bad_share}: the first must be "
                "at least 0, the second at least 1, the third from 0 to 1"
            )
        self.dataset = dataset
        self.plan = plan
        self.max_bad_share = max_bad_share
        self.replaced: list[Replacement] = []
        self._delivered = self._bad = 0
        self._digest: str | None = None
        # No reference back to the loader: in a cycle its workers would outlive it.
        self.position = Position()
        self.batch_sampler = PlannedBatches(self.position)
        self._options: dict[str, Any] = {
            "batch_sampler": self.batch_sampler,
            "num_workers": num_workers,
            "collate_fn": Collate(tokenize, dataset.own_fields, dataset.labels),
            "persistent_workers": num_workers > 0,
            "prefetch_factor": prefetch_factor if num_workers else None,
            "pin_memory": pin_memory,
            "worker_init_fn": init_worker,
            # Of its own: each epoch draws a seed for the workers, which must not move the random numbers of training.
            "generator": torch.Generator(),
        }
        self._loader: DataLoader[Any] = DataLoader(dataset, **self._options)
        self._decoded = 0

    def __len__(self) -> int:
        """Returns the steps of a whole epoch."""
        return self.plan.num_batches(world_size())

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so that the first batch decides and not the call: Lightning asks for more iterators than it uses.
        position = self.position
        self._check_digest()
        position.begin(len(self))
        if isinstance(self.plan, TrainingPlan) and self.dataset.peers is None:
            self.dataset.peers = self.plan.peers(world_size())
        schedule: Schedule | None = None
        if isinstance(self.plan, TrainingPlan):
            schedule = self.plan.schedule(position.epoch, rank(), world_size()).after(position.batches)
            self.batch_sampler.batches, self.batch_sampler.first = schedule, position.batches
        else:
            self.batch_sampler.batches = self.plan.batches(position.epoch, rank(), world_size())[position.batches :]
        if self._decoded >= _WORKER_CLIPS * max(1, self._loader.num_workers):
            self.close()
        # The workers are forked here, before there is a thread beside this one.
        with shared_buffers.starting_workers():
            collated = iter(self._loader)
        prefetcher = None if schedule is None else self._prefetch(schedule.positions)
        try:
            for batch, replaced in collated:
                batch = unpack_small(batch)
                # Before the yield: who takes the last batch may never ask for another.
                position.batches += 1
                if prefetcher is not None:
                    prefetcher.advance()
                self._count(len(batch), replaced)
                yield batch
        finally:
            if prefetcher is not None:
                prefetcher.close()
            shared_buffers.tidy()

    def close(self) -> None:
        """Ends the workers; a later iteration starts new ones.

        Where it is left to Python's collector, and an error or Lightning's trainer keeps the iterator in a cycle, the queues go first,
        and torch waits five seconds for each worker.
        """
        iterator = self._loader._iterator
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()  # as Lightning does with loaders that are torch's own
        self._loader, self._decoded = DataLoader(self.dataset, **self._options), 0

    def state_dict(self) -> dict[str, Any]:
        """Returns the digest of the plan, the epoch, and the batches of it that were handed out."""
        return {
            "digest": self._digest or self._own_digest(),
            "epoch": self.position.epoch,
            "batches": self.position.batches,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to where `state_dict()` was taken: the next iteration gives the rest of that epoch.

        Other data or another plan are noticed then, when the ranks are known.

        Raises:
            ValueError: if `state` is not what `state_dict()` gives.
        """
        if not all(isinstance(state.get(name), int) and state[name] >= 0 for name in ("epoch", "batches")):
            raise ValueError(f"a loader's state holds its epoch and batches, integers from 0 on, got {state}")
        self.position.epoch, self.position.batches, self.position.begun = state["epoch"], state["batches"], False
        self._digest = state.get("digest")

    def _own_digest(self) -> str | None:
        return self.plan.digest(world_size()) if isinstance(self.plan, TrainingPlan) else None

    def _check_digest(self) -> None:
        if self._digest is not None and self._digest != self._own_digest():
            raise DataSettingError(
                f"the run was interrupted in epoch {self.position.epoch} after {self.position.batches} batches and {OTHER_SEQUENCE}"
            )
        self._digest = None

    def _count(self, clips: int, replaced: tuple[Replacement, ...]) -> None:
        self._delivered += clips
        self._decoded += clips
        for item in replaced:
            if len(self.replaced) < _LOGGED:
                _log.warning("clip %r cannot be read, clip %r takes its place: %s", item.clip, item.by, item.reason)
            self.replaced.append(item)
        self._bad += len({item.by for item in replaced})
        bad = self._bad
        allowed = max(_MIN_BAD, self.max_bad_share * self._delivered) if self.max_bad_share else 0
        if replaced and bad > allowed:
            raise TooManyBadClips(
                f"{bad} of {self._delivered} clips could not be read, more than max_bad_share={self.max_bad_share:g} allows; the last: "
                f"{replaced[-1].reason}. `peav data validate` reads them all"
            )

    def _prefetch(self, batches: NDArray[np.int64]) -> Prefetcher | None:
        """Starts to fetch the chunks of object stores in the order of the batches."""
        index, reader = self.dataset.manifest.index, self.dataset.reader
        stores = [reader.store(name) for name in index.stores]
        if not any(store.cache is not None for store in stores):
            return None

        def needs() -> Iterator[list[tuple[ShardReader, int]]]:
            seen: set[tuple[int, int]] = set()
            for batch in batches:
                pairs = []
                for store, row in zip(index.store[batch].tolist(), index.row[batch].tolist(), strict=True):
                    chunk = int(np.searchsorted(stores[store].first_rows, row, side="right")) - 1
                    if (store, chunk) not in seen and stores[store].cache is not None:
                        seen.add((store, chunk))
                        pairs.append((stores[store], chunk))
                yield pairs

        return Prefetcher(needs(), ahead=_AHEAD_BATCHES)


def init_worker(worker: int) -> None:
    """Begins a worker: one thread, and an end when the process that wants its batches ends, however that ended."""
    torch.set_num_threads(1)  # the workers are the parallelism
    shared_buffers.forget()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone: torch's worker would wait for ever to hand over what nobody reads any more."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
