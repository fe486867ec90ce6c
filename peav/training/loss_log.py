"""What a run logs of its losses: each of them in training, their means over a split in evaluation, and batches without a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from peav import distributed
from peav.host import to_device, to_host
from peav.training.losses import Losses
from peav.training.means import EvaluationMeans


@dataclass(frozen=True)
class Logged:
    """What there is to log at once.

    Attributes:
        total: the weighted sum of the objectives' losses.
        values: everything else, by its name below `train/` or the stage.
    """

    total: Tensor | float
    values: dict[str, Tensor | float]


class LossLog:
    """Counts and averages what objectives say of their batches; nothing waits for a device but where it is written.

    Args:
        objectives: their names.
    """

    def __init__(self, objectives: Sequence[str]) -> None:
        self._names = tuple(objectives)
        self._empty = torch.zeros(len(self._names), dtype=torch.int64)
        self._means = EvaluationMeans()

    @property
    def empty_batches(self) -> dict[str, int]:
        """By objective, training batches in which no device had a valid pair."""
        return dict(zip(self._names, self._empty.tolist(), strict=True))

    @property
    def empty(self) -> Tensor:
        """The same, (objectives,), where it is counted; replaced by each step, never changed."""
        return self._empty

    def resume(self, empty_batches: Mapping[str, int]) -> None:
        """Goes on counting; objectives that are not named go on from where they are."""
        kept = {**self.empty_batches, **empty_batches}
        self._empty = torch.tensor([kept[name] for name in self._names])

    def train(self, losses: Losses, writes: bool, skipped: int) -> Logged:
        """Returns what a training step logs: losses of the global batch, and what objectives want logged, of this rank.

        Every rank must call it.

        Args:
            losses: of the step.
            writes: whether what is returned will be written. Everything but the losses is there only then: a device that is asked for
                nothing in between runs ahead.
            skipped: steps so far that were left out because a number was not finite.
        """
        if distributed.world_size() > 1:
            # A rank's losses are its share, world_size times; the mean over ranks is the loss of the global batch.
            shares = distributed.sum_over_ranks(torch.stack([losses.total, *losses.losses.values()]))
            total, *means = (shares / distributed.world_size()).unbind()
            losses = replace(losses, total=total, losses=dict(zip(losses.losses, means, strict=True)))
        found = torch.stack([losses.counts[name] for name in losses.losses])
        self._empty = to_device(self._empty, found.device) + (found == 0)
        values: dict[str, Tensor | float] = {f"{name}/loss": loss for name, loss in losses.losses.items()}
        if writes:
            values |= {**self._details(losses), "nonfinite_steps": float(skipped)}
        return Logged(losses.total, values)

    def _details(self, losses: Losses) -> dict[str, Tensor]:
        """Returns what is logged of a training step beside the losses, on the host.

        A mean over an empty set is NaN: the objective had no such pair in this batch, and nothing is logged of it.
        """
        values = {f"{name}/{key}": value for name in losses.losses for key, value in losses.log[name].items()}
        values |= {f"{name}/gradient_norm": norm for name, norm in losses.norms.items()}
        empty, *numbers = to_host(self._empty, *(value.detach() for value in values.values()))
        found = {key: number for key, number in zip(values, numbers, strict=True) if torch.isfinite(number)}
        return found | {f"{name}/empty_batches": n.float() for name, n in zip(losses.losses, empty, strict=True)}

    def begin_evaluation(self) -> None:
        """Begins the means over a split anew."""
        self._means.reset()

    def evaluate(self, losses: Losses) -> None:
        """Takes a batch of an evaluation into the means."""
        self._means.add(losses.losses, losses.counts)

    def end_evaluation(self, weights: Mapping[str, float], device: torch.device) -> Logged:
        """Returns each objective's mean over the batches that hold positives of it, and their weighted sum; the same on all ranks.

        Args:
            weights: of the objectives.
            device: on which ranks exchange.
        """
        means = self._means.compute(device)
        # Zero times infinity is no number.
        total = sum(weights[name] * mean for name, mean in means.items() if weights[name] != 0)
        return Logged(total, {f"{name}/loss": mean for name, mean in means.items()})
