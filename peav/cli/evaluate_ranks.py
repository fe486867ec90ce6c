"""Several processes that embed a share each: those of `--devices`, which are started here, or those of a launcher such as torchrun."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def on_ranks(
    devices: int, device: str, embed: Callable[[Any], None], first: Callable[[], object] | None = None
) -> bool:
    """Lets several processes embed, where there are to be several; they must see the same folders.

    Args:
        devices: how many to start, where no launcher has.
        device: `cpu`, or where else the model computes.
        embed: what each process does, given its `lightning.fabric.Fabric`; it can be pickled, and ends with a barrier.
        first: what one of them does before.

    Returns:
        whether this process goes on to the numbers: the first one alone does, where a launcher started several.

    Raises:
        ValueError: if there are to be fewer than one.
    """
    if devices < 1:
        raise ValueError(f"--devices must be at least 1, not {devices}")
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if devices == 1 and launched == 1:
        return True
    from lightning.fabric import Fabric

    accelerator = "cpu" if device == "cpu" else "auto"
    if launched == 1:
        if first is not None:
            first()
        Fabric(accelerator=accelerator, devices=devices, strategy="ddp_spawn").launch(embed)
        return True
    on_this_node = int(os.environ.get("LOCAL_WORLD_SIZE", launched))
    nodes = launched // on_this_node
    fabric = Fabric(accelerator=accelerator, devices=on_this_node, num_nodes=nodes, strategy="ddp")
    fabric.launch()
    if first is not None:
        if fabric.is_global_zero:
            first()
        fabric.barrier()
    embed(fabric)
    return bool(fabric.is_global_zero)
