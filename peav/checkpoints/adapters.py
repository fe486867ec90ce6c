"""Adapters of a training checkpoint, merged into the weights beside which they were trained (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from peav.checkpoints.spec import CheckpointError

#: peft's names.
_BASE, _A, _B = ".base_layer.", ".lora_A.default.", ".lora_B.default."

#: By which adapters are scaled: lora_alpha / rank, as `peav.training.tuning` sets it.
LORA_SCALE = 2.0


def merge_adapters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state without adapters: `W + 2 B A` in place of W, A and B; a state that has none comes back as it is.

    Raises:
        CheckpointError: if an adapter is of another shape than its weight.
    """
    merged: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if _A in key or _B in key:
            continue
        if _BASE in key and key.endswith(".weight"):
            down, up = state.get(key.replace(_BASE, _A)), state.get(key.replace(_BASE, _B))
            if down is not None and up is not None:
                if tensor.shape != (up.shape[0], down.shape[-1]):
                    raise CheckpointError(
                        f"the adapter of {key} makes {up.shape[0]} x {down.shape[-1]}, not {tuple(tensor.shape)}"
                    )
                tensor = (tensor.double() + LORA_SCALE * up.double() @ down.double()).to(tensor.dtype)
        merged[key.replace(_BASE, ".")] = tensor
    return merged
