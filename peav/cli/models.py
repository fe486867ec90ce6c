"""Which model a command runs, and where."""

from __future__ import annotations

import torch

from peav.digest import model_digest

__all__ = ["model_digest", "resolve_device"]


def resolve_device(device: str) -> str:
    """Returns the device that `auto` means here; any other as it is."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
