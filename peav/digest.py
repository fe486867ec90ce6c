"""A digest of a model, which tells whether embeddings were made by the same one."""

from __future__ import annotations

import hashlib
import json

import torch

from peav.embedding_model import EmbeddingModel


def model_digest(model: EmbeddingModel) -> str:
    """Returns a digest of what a model is and of its weights."""
    digest = hashlib.sha256(json.dumps(model.spec.to_dict(), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
