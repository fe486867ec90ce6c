"""Sharded models (FSDP2, Lightning's ModelParallelStrategy): what is sharded, and when gradients travel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from peav.embedding_model import EmbeddingModel


def shard_model(model: EmbeddingModel, mesh: DeviceMesh) -> None:
    """Shards a model's parameters, gradients and optimizer states over the devices of a mesh, in place.

    Each layer that encoders name (`Encoder.stacks`) is a unit of its own, gathered as it is needed; the rest of the model is one.
    The objectives stay whole, and are never cast: their parameters are scalars, or small.
    """
    for encoder in model.each_encoder().values():
        for layer in [layer for stack in encoder.stacks() if not stack.frontend for layer in stack.layers]:
            if any(p.requires_grad for p in layer.parameters()):
                fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "embed_batch")


@contextmanager
def without_gradient_sync(model: nn.Module) -> Iterator[None]:
    """Lets gradients of a sharded model add up on each device; other models are left alone."""
    if not isinstance(model, FSDPModule):
        yield
        return
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)
