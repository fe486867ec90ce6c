"""Loading a state into a model, all of it and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from peav.checkpoints.keymap import listing
from peav.checkpoints.spec import CheckpointError


def load_exactly(model: nn.Module, state: Mapping[str, Tensor], source: object) -> None:
    """Loads a state into a model, all of it and nothing else.

    Raises:
        CheckpointError: if tensors are missing, unexpected or of another shape; the message lists them.
    """
    expected = model.state_dict()
    missing, unexpected = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    shapes = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    problems = [
        listing(found, what)
        for found, what in ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
        if found
    ]
    if problems:
        raise CheckpointError(f"{source}: {'; '.join(problems)}")
    model.load_state_dict(dict(state))
