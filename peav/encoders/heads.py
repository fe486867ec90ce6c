"""Heads: from features to the shared space."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Head(nn.Module):
    """LayerNorm and a bias-free linear map into the shared space (PE-AV, `core/audio_visual_encoder`).

    Args:
        dim: dimension of the features.
        embedding_dim: dimension of the shared space.
        normalize: whether embeddings get unit length. Released PE-AV models do not; training from scratch needs it.
    """

    def __init__(self, dim: int, embedding_dim: int, normalize: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.proj = nn.Linear(dim, embedding_dim, bias=False)
        self.normalize = normalize

    def forward(self, features: Tensor) -> Tensor:
        """Maps features (..., dim) to embeddings (..., embedding_dim)."""
        embeddings = self.proj(self.norm(features))
        return F.normalize(embeddings, dim=-1) if self.normalize else embeddings
