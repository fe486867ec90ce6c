"""Models that commands load: what to do where the default one cannot be had from the hub."""

from __future__ import annotations

from peav.checkpoints import CheckpointError
from peav.model import PEAV


def load_model(name: str, trust: bool, is_default: bool, others: str) -> PEAV:
    """Loads a model.

    Args:
        name: a folder, a `.ckpt`, or a repository of the hub.
        trust: see `PEAV.from_pretrained`.
        is_default: whether the user named none.
        others: what `--model` takes instead, for the message.

    Raises:
        CheckpointError: if it cannot be loaded.
        ValueError: likewise, of the default one, with what to do.
    """
    try:
        return PEAV.from_pretrained(name, trust=trust)
    except CheckpointError as error:
        if not is_default:
            raise
        raise ValueError(
            f"the default model {name} could not be had from the hub ({str(error).splitlines()[0]:.300}). Give another with --model: "
            f"{others}"
        ) from error
