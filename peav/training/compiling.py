"""`torch.compile` of the encoders, layer by layer."""

from __future__ import annotations

from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import nn

from peav.embedding_model import EmbeddingModel


def layers_of(model: EmbeddingModel) -> list[nn.Module]:
    """Returns the layers that the encoders name (`Encoder.stacks`).

    Raises:
        ValueError: if there are none.
    """
    layers = [
        layer for encoder in model.each_encoder().values() for stack in encoder.stacks() for layer in stack.layers
    ]
    if not layers:
        raise ValueError("compile_layers: no encoder says which layers it has (`Encoder.stacks`)")
    return layers


def compile_model(model: EmbeddingModel) -> None:
    """Compiles each layer that the encoders name, in place, and sets its attribute `compiled`; once.

    Layers of one kind share their graphs, so that twelve of them are compiled as fast as one, and nothing of the model is renamed: its
    checkpoints are the same. Lengths are data: after the second one that is seen a graph serves all. What lies between the layers,
    which looks at lengths on the host, stays as it is, and so do hooks, those of FSDP2 above all.

    Raises:
        ValueError: if no encoder says which layers it has.
    """
    compiled: dict[Any, Any] = {}
    for layer in layers_of(model):
        if getattr(layer, "compiled", False):
            continue
        kind = type(layer), tuple((name, tuple(p.shape)) for name, p in layer.named_parameters())
        if kind not in compiled:
            compiled[kind] = torch.compile(_forward_of_kind(len(compiled)))
        layer.forward = partial(compiled[kind], layer)
        layer.compiled = True  # type: ignore[assignment]


def _forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return type(layer).forward(layer, *args, **kwargs)


def _forward_of_kind(number: int) -> FunctionType:
    """Returns a `_forward` whose code is its own: PyTorch counts graphs, and takes what differs for dynamic, by the code.

    A narrow layer and a wide one of the same code would be one with dynamic channels.
    """
    code = _forward.__code__.replace(co_name=f"forward_of_kind_{number}")
    return FunctionType(code, _forward.__globals__, code.co_name)
