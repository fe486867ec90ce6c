"""Where a run can be gone on with: the ends of optimizer steps, and what a checkpoint has to remember of them.

Between two ends lie the batches that are gathered for one step, and validation. A checkpoint that is asked for there holds the weights
of the last end, which nothing has changed since; so it also gets the place in the data, the counters and the random numbers of that
end, and a run that resumes from it gathers the batches again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import distributed as dist

from peav import distributed
from peav.training.random_state import ProcessRandom


def at_step_end(trainer: Trainer) -> bool:
    """Returns whether nothing is under way that a resumed run would have to begin again."""
    if trainer.state.fn != TrainerFn.FITTING:
        return True
    loop = trainer.fit_loop.epoch_loop
    progress = loop.batch_progress
    batches: Any = progress.current
    if batches.ready != batches.processed:
        return False
    last = progress.is_last_batch or batches.ready == trainer.num_training_batches
    if batches.ready % trainer.accumulate_grad_batches and not last:
        return False
    validated = loop.val_loop.batch_progress
    whole = validated.is_last_batch and validated.current.ready == validated.current.completed
    return whole or not trainer.validating


@dataclass(frozen=True)
class _End:
    loops: dict[str, Any]
    counters: dict[str, Any]
    random: ProcessRandom


class StepEnds:
    """Remembers the last end of a step, and writes it into checkpoints."""

    def __init__(self) -> None:
        self._last: _End | None = None
        self._resumed: ProcessRandom | None = None

    def note(self, trainer: Trainer, counters: Mapping[str, Any], device: torch.device) -> None:
        """Remembers the present, if it is the end of a step.

        Args:
            trainer: that runs.
            counters: to be kept with it; replaced rather than changed by who counts.
            device: of this process.
        """
        if at_step_end(trainer):
            self._last = self._now(trainer, counters, device)

    def write(
        self, trainer: Trainer, checkpoint: dict[str, Any], counters: Mapping[str, Any], device: torch.device
    ) -> None:
        """Puts the last end into a checkpoint of Lightning's, under `loops.fit_loop` and `resume`. Every rank must call it."""
        if at_step_end(trainer) or self._last is None:
            end = self._now(trainer, counters, device)
        else:
            end = self._last
            checkpoint["loops"]["fit_loop"] = copy.deepcopy(end.loops)
        own = end.random.to_plain()
        random: list[Any] = [own]
        if distributed.world_size() > 1:
            random = [None] * distributed.world_size()
            dist.all_gather_object(random, own)
        checkpoint["resume"] = {**end.counters, "random": random}

    def read(self, checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
        """Takes the end that a checkpoint holds for the last one, and returns its counters."""
        found: dict[str, Any] = dict(checkpoint.get("resume", {}))
        random = found.pop("random", [])
        # Another number of ranks goes on with random numbers of its own.
        self._resumed = None
        if len(random) == distributed.world_size():
            self._resumed = ProcessRandom.from_plain(random[distributed.rank()])
            self._last = _End(copy.deepcopy(checkpoint["loops"]["fit_loop"]), found, self._resumed)
        return found

    def restore_random(self, device: torch.device) -> None:
        """Sets the random numbers to those of the checkpoint, once: before the first batch of a resumed run."""
        if self._resumed is not None:
            self._resumed.restore(device)
            self._resumed = None

    def forget(self) -> None:
        """Forgets what was read: a run that begins with loaded weights begins with its own data and random numbers."""
        self._last = self._resumed = None

    @staticmethod
    def _now(trainer: Trainer, counters: Mapping[str, Any], device: torch.device) -> _End:
        loops = copy.deepcopy(trainer.fit_loop.state_dict())
        return _End(loops, dict(counters), ProcessRandom.now(device))
