"""Batches decided in the main process from metadata alone: which clips make which batch on which rank.

`peav.data.loading.plan` decides those of training; here are those of evaluation, and how a loader keeps its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from peav.data.loading.plan import DataSettingError, Schedule


class TrainingBatch(list[tuple[int, int, int]]):
    """The (epoch, position, occurrence in the epoch) of the clips of a batch, and its step in the epoch, the same on all ranks.

    Args:
        clips: what the list holds.
        step: from 0.
    """

    def __init__(self, clips: Iterable[tuple[int, int, int]] = (), step: int = 0) -> None:
        super().__init__(clips)
        self.step = step


#: A batch of a plan, or bare positions in evaluation.
Indices = TrainingBatch | list[int]


@dataclass(frozen=True)
class EvaluationPlan:
    """All clips once, in order. On several ranks all take the same number of steps, with batches that differ by one clip at most.

    Attributes:
        rows: clips in the data.
        batch_size: clips a rank, at most.
    """

    rows: int
    batch_size: int

    def num_batches(self, world_size: int = 1) -> int:
        """Returns the steps.

        Raises:
            DataSettingError: if a rank would be left without a clip in some step.
        """
        steps = -(-self.rows // (self.batch_size * world_size))
        if not self.rows or (world_size > 1 and self.rows < steps * world_size):
            raise DataSettingError(
                f"{self.rows} clips cannot be shared among {world_size} ranks in batches of {self.batch_size} with none left "
                "empty; use fewer ranks or another batch_size"
            )
        return steps

    def batches(self, epoch: int = 0, rank: int = 0, world_size: int = 1) -> list[list[int]]:
        """Returns the batches of a rank; the same in every epoch.

        >>> EvaluationPlan(rows=5, batch_size=2).batches()
        [[0, 1], [2, 3], [4]]
        >>> [EvaluationPlan(rows=5, batch_size=2).batches(rank=rank, world_size=2) for rank in (0, 1)]
        [[[0, 1], [3]], [[2], [4]]]
        """
        steps = self.num_batches(world_size)
        if world_size == 1:
            starts = range(0, self.rows, self.batch_size)
            return [list(range(start, min(start + self.batch_size, self.rows))) for start in starts]
        parts = np.array_split(np.arange(self.rows), steps * world_size)
        return [part.tolist() for part in parts[rank::world_size]]


@dataclass
class Position:
    """Where a loader is. Lightning finds it as `loader.batch_sampler.sampler` and names the epoch by `set_epoch`.

    Attributes:
        epoch: the current one.
        batches: batches of it that were handed out, in this process or before a restart.
        begun: whether this process began to hand them out.
    """

    epoch: int = 0
    batches: int = 0
    begun: bool = False

    def set_epoch(self, epoch: int) -> None:
        """Begins an epoch, unless it is the one that a restart goes on with."""
        if self.begun or epoch != self.epoch:
            self.epoch, self.batches, self.begun = epoch, 0, False

    def begin(self, num_batches: int) -> None:
        """Goes on to the next epoch, unless this one was set or a restart goes on with it."""
        if self.begun or self.batches >= num_batches:
            self.epoch, self.batches = self.epoch + 1, 0
        self.begun = True


class PlannedBatches(Sampler[Indices]):
    """Hands a data loader the batches that were put into `batches`; those of a schedule become a `TrainingBatch`, from step `first` on.

    Args:
        sampler: the position that chose them.
    """

    def __init__(self, sampler: Position) -> None:
        self.sampler = sampler
        self.batches: Sequence[Indices] | Schedule = []
        self.first = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Indices]:
        if not isinstance(self.batches, Schedule):
            yield from self.batches
            return
        epoch = self.sampler.epoch
        # Millions of Python numbers at once would take more memory than the plan.
        columns = zip(self.batches.positions, self.batches.occurrences, strict=True)
        for step, (positions, occurrences) in enumerate(columns, self.first):
            pairs = zip(positions.tolist(), occurrences.tolist(), strict=True)
            yield TrainingBatch(((epoch, position, occurrence) for position, occurrence in pairs), step)
