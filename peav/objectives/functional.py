"""The mathematics of the objectives, as pure functions.

Everything here computes in fp32 at least, whatever autocast says: bf16 logits lose positives (docs/decisions/0006).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from peav.objectives.tiles import DenseMask, DuplicatePolicy, PairMask, TileMask, sigmoid_sum

__all__ = [
    "DuplicatePolicy",
    "PairMask",
    "fit_scale_and_bias",
    "pair_logits",
    "sigmoid_pair_loss",
]


def pair_logits(left: Tensor, right: Tensor, logit_scale: Tensor, logit_bias: Tensor) -> Tensor:
    """Computes `exp(logit_scale) * <left_i, right_j> + logit_bias`.

    Args:
        left: (..., N, D) embeddings.
        right: (..., M, D) embeddings.
        logit_scale: (1,) log of the scale.
        logit_bias: (1,).

    Returns:
        (..., N, M) logits, in fp32 or float64.
    """
    with torch.autocast(left.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
        dots = left.to(dtype) @ right.to(dtype).transpose(-1, -2)
        return dots * logit_scale.to(dtype).exp() + logit_bias.to(dtype)


def sigmoid_pair_loss(
    left: Tensor,
    right: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    positive: Tensor | None = None,
    weight: Tensor | None = None,
    mask: TileMask | None = None,
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """SigLIP's pair loss, `(1/B) sum_ij -log sigmoid(z_ij (t <x_i, y_j> + b))` (arXiv 2303.15343, eq. 1; PE-AV, arXiv 2512.19687).

    The gradient is found in the forward pass, tile by tile; no tensor of N x M is made. Logits are fp32 at least, whatever autocast says.

    Args:
        left: (N, D) embeddings.
        right: (M, D) embeddings; M may differ from N when rows of other ranks are among them.
        logit_scale: (1,) log of t.
        logit_bias: (1,), b.
        positive: (N, M) bool, which pairs belong together; the diagonal by default.
        weight: (N, M), 0 for pairs that do not count; 1 everywhere by default.
        mask: both of these in a form that is small, such as `PairMask`.
        normalizer: what the sum is divided by; N by default. With masks, the number of valid positives.

    Returns:
        scalar loss.

    >>> x = torch.eye(2)
    >>> round(sigmoid_pair_loss(x, x, torch.tensor([10.0]).log(), torch.tensor([-10.0])).item(), 4)
    0.6932
    """
    if mask is None:
        mask = DenseMask(positive, weight, (len(left), len(right)))
    elif positive is not None or weight is not None:
        raise ValueError("give either a mask, or positive and weight")
    dtype = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    total, _ = sigmoid_sum(left.to(dtype), right.to(dtype), logit_scale, logit_bias, mask)
    return total / (len(left) if normalizer is None else normalizer)


def fit_scale_and_bias(positives: Tensor, negatives: Tensor) -> tuple[float, float]:
    """Fits scale and bias to the dot products of a batch: the logistic regression of two normal distributions of one variance.

    `t = (m+ - m-) / s^2`, `b = log(n+ / n-) - t (m+ + m-) / 2`, with t held between 0.1 / s and 10 / s, so that neither an untrained
    nor a separated batch makes it vanish or explode.

    Args:
        positives: (3,) number, sum and sum of squares of the positives' dot products.
        negatives: (3,) likewise.

    Returns:
        log t, and b.

    >>> log_t, b = fit_scale_and_bias(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([99.0, 0.0, 99.0]))
    >>> round(math.exp(log_t), 2), round(b, 2)
    (3.03, -9.14)
    """
    (n1, sum1, square1), (n2, sum2, square2) = positives.tolist(), negatives.tolist()
    mean1, mean2 = sum1 / n1, sum2 / n2
    variance = max((square1 + square2 - n1 * mean1**2 - n2 * mean2**2) / (n1 + n2), 1e-12)
    deviation = math.sqrt(variance)
    scale = min(max((mean1 - mean2) / variance, 0.1 / deviation), 10 / deviation)
    return math.log(scale), math.log(n1 / n2) - scale * (mean1 + mean2) / 2
