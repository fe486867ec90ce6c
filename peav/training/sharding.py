"""Sharded models (FSDP2, Lightning's ModelParallelStrategy): what is sharded, and when gradients travel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from peav import distributed
from peav.embedding_model import EmbeddingModel


def shard_model(model: EmbeddingModel, mesh: DeviceMesh) -> None:
    """Shards a model's parameters, gradients and optimizer states over the devices of a mesh, in place.

    Each layer that encoders name (`Encoder.stacks`) is a unit of its own, gathered as it is needed. A frozen frontend is one unit as a
    whole: how often its layers run depends on the clips of a rank, and all ranks must gather alike. The rest of the model is one.
    """
    for encoder in model.each_encoder().values():
        frontends = [frontend.module for frontend in encoder.frontends.values()]
        frozen = {id(module) for frontend in frontends for module in frontend.modules()}
        for layer in [layer for stack in encoder.stacks() for layer in stack.layers if id(layer) not in frozen]:
            fully_shard(layer, mesh=mesh)
        for frontend in frontends:
            if any(True for _ in frontend.parameters()):
                fully_shard(frontend, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for method in ("embed_batch", "frontend_features"):
        register_fsdp_forward_method(model, method)


def share_objectives(objectives: nn.Module, device: torch.device) -> None:
    """Moves the objectives to a device and gives all ranks those of the first; NCCL sends nothing that lies on the host.

    They stay whole and are never cast: their parameters are scalars, or small. DDP would see to it that all ranks begin alike.
    """
    objectives.to(device)
    for tensor in objectives.state_dict().values():
        distributed.broadcast(tensor)


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
