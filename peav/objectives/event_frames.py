"""Which frames an annotated event touches."""

from __future__ import annotations

import torch
from torch import Tensor

from peav.devices import accumulator_dtype
from peav.types import EventInput, Seconds


def event_frames(events: EventInput, frame_seconds: Tensor | Seconds) -> tuple[Tensor, Tensor]:
    """Returns the first frame that each event touches and the one after the last: [t*hop, (t+1)*hop) overlaps the event at all.

    Args:
        events: E annotated events.
        frame_seconds: the hop, one number or (B,).

    Returns:
        (E,) and (E,), whole numbers, which may lie outside the clip; in float64 where the device has it.
    """
    wide = accumulator_dtype(events.onset.device)
    hop = torch.as_tensor(frame_seconds, dtype=wide, device=events.onset.device)
    hop = hop[events.clip] if hop.ndim else hop
    # 0.12 / 0.04 = 2.9999998 must not touch one frame more: a microsecond, and what float32 rounds of times as large as these.
    begin, end = events.onset.to(wide), events.offset.to(wide)
    rounding = 4 * torch.finfo(torch.float32).eps
    first = torch.floor((begin + 1e-6 + rounding * begin.abs()) / hop)
    return first, torch.ceil((end - 1e-6 - rounding * end.abs()) / hop)


def event_labels(events: EventInput, num_frames: int, frame_seconds: Tensor | Seconds) -> Tensor:
    """Marks the frames that events touch: see `event_frames`.

    Args:
        events: E annotated events of B clips and K phrases.
        num_frames: T.
        frame_seconds: the hop, one number or (B,).

    Returns:
        (B, K, T) bool.
    """
    first, last = event_frames(events, frame_seconds)
    frames = torch.arange(num_frames, device=events.onset.device)
    active = (frames >= first[:, None]) & (frames < last[:, None])
    labels = torch.zeros(
        len(events.annotated), len(events.phrases.group), num_frames, dtype=torch.int32, device=active.device
    )
    labels.index_put_((events.clip, events.phrase), active.int(), accumulate=True)
    return labels > 0
