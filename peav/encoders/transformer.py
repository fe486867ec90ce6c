"""The transformer of PE-AV, shared by the audio, video and fusion encoders.

CLS token, masked ResNet block, pre-RMSNorm blocks with QK-RMSNorm, interleaved RoPE and SwiGLU, final RMSNorm and a bias-free
output map (arXiv 2512.19687; facebookresearch/perception_models, `core/audio_visual_encoder`).

What is fast about it: when something is padded, the blocks run on the valid positions alone, packed into (N, D) rows, and attention
on clips of equal length together. Norms, convolutions and SwiGLU have backward passes written by hand: autograd's would go through
memory two to three times as often. Under `torch.compile` the compiler fuses what is left, and everything stays padded, since
the number of valid positions would be data.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from peav.encoders.base import Stack
from peav.host import to_device, to_host


def widened(x: Tensor) -> Tensor:
    """Returns x in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _GroupNorm(Function):
    """GroupNorm of one group over the valid positions: x (B, T, D), mask (B, T), weight and bias (D,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        wide = widened(x)
        valid = mask.to(wide.dtype)
        # (B, T) times `share`, summed over T, is a mean over valid positions and channels.
        share = valid / (valid.sum(1, keepdim=True).clamp(min=1) * x.shape[-1])
        normed = wide - (wide.sum(-1) * share).sum(1)[:, None, None]
        variance = (torch.linalg.vector_norm(normed, dim=-1).square() * share).sum(1)
        scale = (torch.rsqrt(variance + eps)[:, None] * valid).unsqueeze(-1)
        normed.mul_(scale)
        ctx.save_for_backward(normed, share, scale, weight)
        return torch.addcmul(bias, normed, weight).masked_fill_(~mask.unsqueeze(-1), 0).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        normed, share, scale, weight = ctx.saved_tensors
        gradient = widened(gradients[0])
        product = gradient * normed
        grad_weight, grad_bias = product.sum((0, 1)), (share > 0).flatten().to(gradient.dtype) @ gradient.flatten(0, 1)
        wide_weight = weight.to(gradient.dtype)
        mean = ((gradient @ wide_weight) * share).sum(1)[:, None, None]
        slope = ((product @ wide_weight) * share).sum(1)[:, None, None]
        grad = torch.addcmul(-mean, gradient, weight, out=product).addcmul_(normed, -slope).mul_(scale)
        return grad.to(gradients[0].dtype), None, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None


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
        """Normalises x (B, T, D), finite where padded, over the valid positions of mask (B, T)."""
        if not torch.compiler.is_compiling():
            return _GroupNorm.apply(x, mask, self.weight, self.bias, self.eps)
        valid = mask.unsqueeze(-1)
        wide = torch.where(valid, widened(x), 0)
        count = (mask.sum(1) * x.shape[-1]).clamp(min=1)[:, None, None]
        centred = torch.where(valid, wide - wide.sum((1, 2), keepdim=True) / count, 0)
        variance = centred.square().sum((1, 2), keepdim=True) / count
        normed = centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias
        return torch.where(valid, normed, 0).to(x.dtype)


class _Convolution(Function):
    """Convolution of width 3 along rows x (R, D) by taps (3, D, D'), with bias (D'): three products on shifted rows, no copies."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, taps)
        y = torch.addmm(bias, x, taps[1])
        y[1:].addmm_(x[:-1], taps[0])
        y[:-1].addmm_(x[1:], taps[2])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        (gradient,), (x, taps) = gradients, ctx.saved_tensors
        grad = gradient @ taps[1].T
        grad[:-1].addmm_(gradient[1:], taps[0].T)
        grad[1:].addmm_(gradient[:-1], taps[2].T)
        grad_taps = torch.stack((x[:-1].T @ gradient[1:], x.T @ gradient, x[1:].T @ gradient[:-1]))
        return grad, grad_taps, gradient.sum(0)


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
        """Maps x (B, T, D) to (B, T, D), arbitrary but finite where padded; the last position of every clip must be padded."""
        y = self._convolve(self.conv1, F.silu(self.norm1(x, mask)))
        return x + self._convolve(self.conv2, F.silu(self.norm2(y, mask)))

    def _convolve(self, convolution: nn.Conv1d, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # which would lose gradients that are added to slices in place
            return convolution(x.mT).mT
        # The padded position at the end of a clip, a zero, parts it from the next one: all are one sequence.
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        taps, bias = convolution.weight.permute(2, 1, 0).to(dtype).contiguous(), convolution.bias
        return _Convolution.apply(x.flatten(0, 1).to(dtype), taps, bias.to(dtype)).view_as(x)  # type: ignore[union-attr]


def rotary(length: int, head_dim: int, theta: float, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns the cosines and sines (length, head_dim / 2) of rotary position embeddings."""
    wide = torch.promote_types(dtype, torch.float32)
    inverse = theta ** (-torch.arange(0, head_dim, 2, device=device, dtype=wide) / head_dim)
    angles = torch.arange(length, device=device, dtype=wide)[:, None] * inverse
    return angles.cos().to(dtype), angles.sin().to(dtype)


def apply_rotary(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotates the interleaved pairs (0, 1), (2, 3), ... of x (..., head_dim), float32 or float64."""
    pairs = x.unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():
        even, odd = pairs.unbind(-1)
        return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1).flatten(-2)
    # A pair is a complex number: one product, one temporary.
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cosine, sine)).flatten(-2)


class _RMSNorm(Function):
    """RMSNorm of x (..., D) with weight (D,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = widened(x)
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(torch.promote_types(x.dtype, weight.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        wide, gradient = widened(x), widened(gradients[0])
        product = gradient * wide
        rows = product.view(-1, x.shape[-1])
        grad_weight = scale.view(-1) @ rows
        slope = (rows @ weight.to(rows.dtype)).view_as(scale) * scale.square() / -x.shape[-1]
        grad = torch.mul(wide, slope, out=product).addcmul_(gradient, weight).mul_(scale)
        return grad.to(x.dtype), grad_weight.to(weight.dtype), None


class RMSNorm(nn.RMSNorm):
    """RMSNorm in float32 at least, over the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises x (..., D)."""
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            return _RMSNorm.apply(x, self.weight, self.eps)
        # One kernel on a GPU.
        return F.rms_norm(
            x.to(torch.promote_types(x.dtype, self.weight.dtype)), self.normalized_shape, self.weight, self.eps
        )


class _SwiGLU(Function):
    """silu(gate) * up of (N, 2 H), which alone is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,), (gate_up,) = gradients, ctx.saved_tensors
        gate, up = gate_up.chunk(2, -1)
        grad = torch.empty_like(gate_up)
        grad_gate, grad_up = grad.chunk(2, -1)
        torch.mul(gradient, up, out=grad_gate)
        torch.ops.aten.silu_backward.grad_input(grad_gate, gate, grad_input=grad_gate)
        torch.ops.aten.silu.out(gate, out=grad_up).mul_(gradient)
        return grad


def swiglu(gate_up: Tensor) -> Tensor:
    """Computes silu(gate) * up of the two halves of gate_up (N, 2 H)."""
    if torch.compiler.is_compiling():
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate) * up
    return _SwiGLU.apply(gate_up)


class Layout(NamedTuple):
    """Where the rows (N, D) of the blocks come from.

    Attributes:
        groups: (clips, length) of the clips that attention takes together, in the order of their rows.
        cosine: (N, 1, head_dim / 2) of the rotary embeddings, by row.
        sine: likewise.
        mask: (B, 1, 1, L) of the valid keys if rows are padded for attention; else None.
        slots: (N,) places of the rows in the padded (B * L) ones that attention sees; None if they are the same.
    """

    groups: list[tuple[int, int]]
    cosine: Tensor
    sine: Tensor
    mask: Tensor | None = None
    slots: Tensor | None = None


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """Attends within each clip: q, k, v (N, heads, head_dim) to (N, heads * head_dim)."""
    if layout.slots is not None:
        clips, length = layout.groups[0]
        q, k, v = (t.new_zeros(clips * length, *t.shape[1:]).index_copy(0, layout.slots, t) for t in (q, k, v))
    sizes = [clips * length for clips, length in layout.groups]
    found = []
    for group, *parts in zip(layout.groups, q.split(sizes), k.split(sizes), v.split(sizes), strict=True):
        queries, keys, values = (part.unflatten(0, group).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(queries, keys, values, attn_mask=layout.mask)
        found.append(y.transpose(1, 2).flatten(2).flatten(0, 1))
    y = torch.cat(found) if len(found) > 1 else found[0]
    return y if layout.slots is None else y.index_select(0, layout.slots)


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
        self.q_norm = RMSNorm(dim // num_heads, eps=1e-5)
        self.k_norm = RMSNorm(dim // num_heads, eps=1e-5)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Maps rows x (N, D) to (N, D)."""
        # Norms of short heads are twice as fast on contiguous memory, and qkv need not be kept beside its parts.
        q, k, v = (part.contiguous() for part in self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(1))
        q = apply_rotary(widened(self.q_norm(q)), layout.cosine, layout.sine).to(v.dtype)
        k = apply_rotary(widened(self.k_norm(k)), layout.cosine, layout.sine).to(v.dtype)
        return self.out(attend(q, k, v, layout))


class Block(nn.Module):
    """Pre-norm block: attention, then a SwiGLU feed-forward network.

    Args:
        dim: width.
        num_heads: attention heads.
        mlp_dim: hidden width of the feed-forward network.
        dropout: on both branches.

    Attributes:
        compiled: whether it was compiled by itself (`compile_layers`), and wants the clips as one group.
    """

    def __init__(self, dim: int, num_heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(dim, eps=1e-5)
        self.attention = Attention(dim, num_heads)
        self.mlp_norm = RMSNorm(dim, eps=1e-5)
        self.gate_up = nn.Linear(dim, 2 * mlp_dim, bias=False)
        self.down = nn.Linear(mlp_dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.compiled = False

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Maps rows x (N, D) to (N, D)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), layout))
        return x + self.dropout(self.down(swiglu(self.gate_up(self.mlp_norm(x)))))


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
        activation_checkpointing: whether training computes the blocks a second time in the backward pass instead of keeping what they
            computed: less memory, a third more time. Set it at any time; False at first.

    Raises:
        ValueError: if the heads do not divide the width into even parts.
    """

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
        self.norm = RMSNorm(dim, eps=1e-5)
        self.output = nn.Linear(dim, dim, bias=False)

    @property
    def stack(self) -> Stack:
        """The blocks, and what follows them."""
        return Stack(list(self.blocks), (self.norm, self.output))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps x (B, T, D) with mask (B, T) to pooled (B, D) and frames (B, T, D); padded frames are zero.

        Any mask will do, and None stands for one that is True throughout.
        """
        batch, length, dim = x.shape
        compiling = torch.compiler.is_compiling()
        # Where things are is decided on the host, for one wait.
        known = None if mask is None or compiling else to_host(mask)[0]
        if known is not None and bool(known.all()):
            mask = known = None
        # The residual stream is as precise as the parameters, under autocast too.
        x = x.to(torch.promote_types(x.dtype, self.cls.dtype))
        if mask is not None:
            x = torch.where(mask.unsqueeze(-1), x, 0)
        # PE-AV puts the CLS token in front before the convolutions, so that the first frame's neighbour is the CLS. Behind the last
        # frame comes a padded one.
        x = torch.cat((self.cls.to(x.dtype).expand(batch, 1, -1), x, x.new_zeros(batch, 1, dim)), 1)
        full = x.new_ones(batch, length, dtype=torch.bool) if mask is None else mask
        full = torch.cat((full.new_ones(batch, 1), full, full.new_zeros(batch, 1)), 1)
        x = self.resnet(x, full).flatten(0, 1)
        rows, layout = self._layout(full, known, mask is not None, widened(x).dtype)
        x = x.index_select(0, rows)
        for block in self.blocks:
            again = self.activation_checkpointing and self.training
            x = checkpoint(block, x, layout, use_reentrant=False) if again else block(x, layout)
        x = self.output(self.norm(x))
        x = x.new_zeros(batch * (length + 2), dim).index_copy(0, rows, x)
        pooled, frames, _ = x.view(batch, length + 2, dim).split((1, length, 1), 1)
        if mask is not None and compiling:
            frames = torch.where(mask.unsqueeze(-1), frames, 0)
        return pooled.squeeze(1), frames

    def _layout(self, full: Tensor, known: Tensor | None, padded: bool, dtype: torch.dtype) -> tuple[Tensor, Layout]:
        """Returns which of the B * L positions of full (B, L) the blocks run on, (N,), and how they lie there.

        Args:
            full: (B, L) bool, with the CLS token's position and a padded one at the end.
            known: (B, L - 2) the mask on the host; None where nothing is padded, and while compiling.
            padded: whether anything is.
            dtype: of the rotary embeddings.
        """
        (batch, length), device = full.shape, full.device
        mask = slots = None
        if known is not None:
            whole = F.pad(F.pad(known, (1, 0), value=True), (0, 1))
            lengths, order = whole.sum(1).sort()
            clip, position = whole[order].nonzero().unbind(1)
            rows, position = to_device(torch.stack((order[clip] * length + position, position)), device).unbind()
            if device.type == "cpu" and not any(block.compiled for block in self.blocks):
                lengths, counts = lengths.unique_consecutive(return_counts=True)
                groups = list(zip(counts.tolist(), lengths.tolist(), strict=True))
            else:
                # A GPU would rather have one large call than many small ones; each number of groups would be compiled anew.
                groups, mask, slots = [(batch, length)], full[:, None, None], rows
        else:
            # All but the padded position at the end.
            groups = [(batch, length - 1)]
            position = torch.arange(length - 1, device=device)
            rows = (torch.arange(batch, device=device)[:, None] * length + position).flatten()
            position = position.repeat(batch)
            mask = full[:, None, None, :-1] if padded else None
        cosine, sine = (t[position].unsqueeze(1) for t in rotary(length, self.head_dim, self.theta, device, dtype))
        return rows, Layout(groups, cosine, sine, mask, slots)
