"""Which model a command runs, and where."""

from __future__ import annotations

import hashlib
import json

import torch

from peav.model import PEAV


def resolve_device(device: str) -> str:
    """Returns the device that `auto` means here; any other as it is."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def model_digest(model: PEAV) -> str:
    """Returns a digest of what a model is and of its weights."""
    digest = hashlib.sha256(json.dumps(model.spec.to_dict(), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
