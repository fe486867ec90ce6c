"""The transformer of PE-AV, shared by the audio, video and fusion encoders.

CLS token, masked ResNet block, pre-RMSNorm blocks with QK-RMSNorm, interleaved RoPE and SwiGLU, final RMSNorm and a bias-free
output map (arXiv 2512.19687; facebookresearch/perception_models, `core/audio_visual_encoder`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class MaskedGroupNorm(nn.Module):
    """GroupNorm with one group whose statistics are taken over the valid positions only; padded positions become zero.

    Args:
        dim: channels.
        eps: added to the variance.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalises x (B, T, D) over the valid positions of mask (B, T)."""
        valid = mask.unsqueeze(-1)
        x = torch.where(valid, x, 0)
        count = (mask.sum(-1) * x.shape[-1]).clamp(min=1)[:, None, None]
        mean = x.sum((1, 2), keepdim=True) / count
        centred = torch.where(valid, x - mean, 0)
        variance = centred.square().sum((1, 2), keepdim=True) / count
        y = centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias
        return torch.where(valid, y, 0)


class ResNetBlock(nn.Module):
    """Two masked convolutions of width 3 with a residual: each position sees its neighbours before attention does.

    Args:
        dim: channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = MaskedGroupNorm(dim), MaskedGroupNorm(dim)
        self.conv1 = nn.Conv1d(dim, dim, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, kernel_size=3, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Maps x (B, T, D) to (B, T, D); padded positions stay zero."""
        y = self.conv1(F.silu(self.norm1(x, mask)).mT).mT
        y = self.conv2(F.silu(self.norm2(y, mask)).mT).mT
        return torch.where(mask.unsqueeze(-1), x + y, 0)


def rotary(length: int, head_dim: int, theta: float, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns the cosines and sines (length, head_dim / 2) of rotary position embeddings."""
    inverse = theta ** (-torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * inverse
    return angles.cos().to(dtype), angles.sin().to(dtype)


def apply_rotary(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotates the interleaved pairs (0, 1), (2, 3), ... of x (..., T, head_dim)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1).flatten(-2)


class Attention(nn.Module):
    """Bidirectional self-attention with RMS-normalised queries and keys.

    Args:
        dim: width.
        num_heads: must divide `dim` into even parts.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_norm = nn.RMSNorm(dim // num_heads, eps=1e-5)
        self.k_norm = nn.RMSNorm(dim // num_heads, eps=1e-5)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None, cosine: Tensor, sine: Tensor) -> Tensor:
        """Maps x (B, T, D) to (B, T, D); mask (B, 1, 1, T) bool or None when everything is valid."""
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q = apply_rotary(self.q_norm(q), cosine, sine)
        k = apply_rotary(self.k_norm(k), cosine, sine)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(batch, length, -1))


class Block(nn.Module):
    """Pre-norm block: attention, then a SwiGLU feed-forward network.

    Args:
        dim: width.
        num_heads: attention heads.
        mlp_dim: hidden width of the feed-forward network.
        dropout: on both branches.
    """

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(dim, eps=1e-5)
        self.attention = Attention(dim, num_heads)
        self.mlp_norm = nn.RMSNorm(dim, eps=1e-5)
        self.gate_up = nn.Linear(dim, 2 * mlp_dim, bias=False)
        self.down = nn.Linear(mlp_dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, cosine: Tensor, sine: Tensor) -> Tensor:
        """Maps x (B, T, D) to (B, T, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), mask, cosine, sine))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, -1)
        return x + self.dropout(self.down(F.silu(gate) * up))


class Transformer(nn.Module):
    """A sequence in, its CLS vector and its frames out.

    Args:
        dim: width.
        num_layers: blocks.
        num_heads: attention heads; `dim / num_heads` must be even.
        mlp_dim: hidden width of the feed-forward networks; the 8/3 of SwiGLU, rounded to 32, by default.
        dropout: on the residual branches.
        theta: base of the rotary embeddings.

    Attributes:
        activation_checkpointing: whether training computes the blocks' activations again in the backward pass.

    Raises:
        ValueError: if the heads do not divide the width into even parts.
    """

    activation_checkpointing: bool

    def __init__(
        self,
        dim: int,
        num_layers: int,
        num_heads: int,
        mlp_dim: int | None = None,
        dropout: float = 0.0,
        theta: float = 20000.0,
    ) -> None:
        super().__init__()
        if dim % num_heads or (dim // num_heads) % 2:
            raise ValueError(f"num_heads={num_heads} must divide dim={dim} into even parts")
        mlp_dim = mlp_dim if mlp_dim is not None else 32 * round(dim * 8 / 3 / 32)
        self.head_dim, self.theta = dim // num_heads, theta
        self.activation_checkpointing = False
        self.cls = nn.Parameter(torch.randn(dim) * 0.02)
        self.resnet = ResNetBlock(dim)
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_dim, dropout) for _ in range(num_layers))
        self.norm = nn.RMSNorm(dim, eps=1e-5)
        self.output = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Maps x (B, T, D) with mask (B, T) to pooled (B, D) and frames (B, T, D); padded frames are zero."""
        batch, length, _ = x.shape
        x = torch.where(mask.unsqueeze(-1), x, 0)
        # PE-AV puts the CLS token in front before the convolutions, so that the first frame's neighbour is the CLS.
        x = torch.cat((self.cls.to(x.dtype).expand(batch, 1, -1), x), 1)
        full = torch.cat((mask.new_ones(batch, 1), mask), 1)
        x = self.resnet(x, full)
        cosine, sine = rotary(length + 1, self.head_dim, self.theta, x.device, x.dtype)
        attention_mask = full[:, None, None, :]
        for block in self.blocks:
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, attention_mask, cosine, sine, use_reentrant=False)
            else:
                x = block(x, attention_mask, cosine, sine)
        x = self.output(self.norm(x))
        return x[:, 0], torch.where(mask.unsqueeze(-1), x[:, 1:], 0)
