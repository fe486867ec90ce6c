"""The size of frames."""

from __future__ import annotations

import torch
from torch import Tensor


def resize_frames(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Squashes frames (..., 3, H, W) to `size` (H, W), bilinear and antialiased, as torchvision does; no copy if they have it."""
    if frames.shape[-2:] == torch.Size(size):
        return frames
    from torchvision.transforms.v2 import functional  # noqa: PLC0415  as long as torch itself

    return functional.resize(frames, list(size), antialias=True)
