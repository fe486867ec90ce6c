"""Digests of models, which tell whether embeddings were made by the same one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

from peav.embedding_model import EmbeddingModel


def model_digest(model: EmbeddingModel) -> str:
    """Returns a digest of what a model is and of its weights; how it finds sounds by name (`detection`) changes no embedding."""
    return weights_digest(model, {name: value for name, value in model.spec.to_dict().items() if name != "detection"})


def weights_digest(module: torch.nn.Module, config: Mapping[str, Any]) -> str:
    """Returns a digest of any module's weights and of its configuration."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()[:16]
