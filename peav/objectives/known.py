"""What clips say of phrases, as evaluation wants it: labels, and which of them are known in which clip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from peav.objectives.frame_inputs import Texts
from peav.objectives.frame_mask import FrameMask
from peav.types import EventInput, Seconds


def known_labels(
    everyone: Sequence[tuple[EventInput, Tensor] | None], own: int, valid: Tensor, frame_seconds: Seconds
) -> tuple[Tensor, Tensor, Tensor]:
    """Finds the distinct phrases of the events of all ranks, and what one rank's clips say of them, by the rules of `frame_mask`.

    Args:
        everyone: events, and the identities (K,) int64 of their phrases, of each rank; None of one without clips. On the host.
        own: the rank whose clips are asked about.
        valid: (B, T) bool, the frames of these.
        frame_seconds: the hop.

    Returns:
        (C,) int64, the row at which each distinct phrase comes first among the phrases of all ranks; (E,) int64, which of the C each of the
        rank's events is of; and (B, C) bool, where it is known in which frames a phrase is heard, or that it is not.

    Raises:
        ValueError: if the rank has no clips.
    """
    mine = everyone[own]
    if mine is None:
        raise ValueError(f"rank {own} has no clips")
    parts = [part for part in everyone if part is not None]
    stated = [events.stated() for events, _ in parts]
    group = torch.cat([identity for _, identity in parts])

    def joined(name: str, fill: int) -> Tensor:
        tables = [getattr(events, name) for events in stated]
        width = max(table.shape[1] for table in tables)
        return torch.cat([F.pad(table, (0, width - table.shape[1]), value=fill) for table in tables])

    texts = Texts(
        group,
        torch.ones(len(group), dtype=torch.bool),
        sum(len(part[1]) for part in everyone[:own] if part is not None),
        len(mine[1]),
        torch.cat([events.bank for events in stated if events.bank is not None]),
        joined("members", 0),
        joined("lineage", -1),
    )
    mask = FrameMask(valid, mine[0], frame_seconds, texts)
    return mask.label_rows, mask.event_labels, mask.known()
