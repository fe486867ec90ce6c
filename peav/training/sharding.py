"""Sharded models (FSDP2, Lightning's ModelParallelStrategy): what is sharded, and when gradients travel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from peav.encoders.transformer import Block
from peav.model import PEAV


def shard_model(model: PEAV, mesh: DeviceMesh) -> None:
    """Shards a model's parameters, gradients and optimizer states over the devices of a mesh, in place.

    Each block of the transformers is a unit of its own, gathered as it is needed; the rest of an encoder is one, and so are the heads.
    The objectives stay whole, and are never cast: their parameters are scalars, or small.
    """
    for encoder in model.encoders.values():
        for block in encoder.modules():
            if isinstance(block, Block) and any(p.requires_grad for p in block.parameters()):
                fully_shard(block, mesh=mesh)
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
