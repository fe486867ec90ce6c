"""A data loader that follows a plan and resumes in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from peav.data.collate import Collate, Tokenize
from peav.data.dataset import ClipDataset
from peav.data.sampler import EvaluationPlan, PlannedBatches, Position, TrainingPlan
from peav.distributed import rank, world_size
from peav.types import Batch


class ClipLoader:
    """Batches of clips, epoch after epoch; each pass is the next epoch.

    It wraps a `DataLoader` rather than being one, so that Lightning leaves its sampler alone: the plan knows the ranks. Lightning
    saves `state_dict()` with its own state and hands it back.

    Args:
        dataset: the clips.
        plan: which clips when.
        tokenize: texts to ids, needed when the data set reads texts.
        num_workers: processes that decode; 0 decodes in this one.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        plan: TrainingPlan | EvaluationPlan,
        tokenize: Tokenize | None = None,
        num_workers: int = 0,
    ) -> None:
        self.dataset = dataset
        self.plan = plan
        # No reference back to the loader: in a cycle its workers would outlive it.
        self.position = Position()
        self.batch_sampler = PlannedBatches(self.position)
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=self.batch_sampler,
            num_workers=num_workers,
            collate_fn=Collate(tokenize),
            persistent_workers=num_workers > 0,
            worker_init_fn=_init_worker,
        )

    def __len__(self) -> int:
        """Returns the steps of a whole epoch."""
        return self.plan.num_batches(world_size())

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so that the first batch decides and not the call: Lightning asks for more iterators than it uses.
        position = self.position
        position.begin(len(self))
        self.batch_sampler.batches = self.plan.batches(position.epoch, rank(), world_size())[position.batches :]
        for batch in self._loader:
            # Before the yield: who takes the last batch may never ask for another.
            position.batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Returns the epoch, and the batches of it that were handed out."""
        return {"epoch": self.position.epoch, "batches": self.position.batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes to where `state_dict()` was taken: the next iteration gives the rest of that epoch."""
        self.position.epoch, self.position.batches, self.position.begun = state["epoch"], state["batches"], False


def _init_worker(worker: int) -> None:
    torch.set_num_threads(1)  # the workers are the parallelism
