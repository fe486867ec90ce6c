"""The mathematics of the objectives, as pure functions.

Everything here computes in fp32 at least, whatever autocast says: bf16 logits lose positives (docs/decisions/0006).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from peav.objectives.tiles import DenseMask, DuplicatePolicy, PairMask, TileMask, sigmoid_sum

__all__ = [
    "DuplicatePolicy",
    "PairMask",
    "fit_scale_and_bias",
    "pair_logits",
    "pair_masks",
    "sigmoid_loss",
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


def sigmoid_loss(logits: Tensor, positive: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sums `-log sigmoid(z * logits)` with z = +1 where `positive` and -1 elsewhere, times the weight (SigLIP, arXiv 2303.15343).

    Args:
        logits: of any shape.
        positive: bool of that shape.
        weight: of that shape, or None for 1 everywhere. What has no weight has no gradient, even where the logit is not finite.
    """
    # Stable for any logit; the gradient of a confident positive is -sigmoid(-x), never sigmoid(x) - 1, which rounds to zero.
    losses = -F.logsigmoid(torch.where(positive, logits, -logits))
    if weight is None:
        return losses.sum()
    return (torch.where(weight > 0, losses, 0) * weight).sum()


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


def pair_masks(
    left_present: Tensor,
    right_present: Tensor,
    left_group: Tensor,
    right_group: Tensor,
    offset: int = 0,
    duplicates: DuplicatePolicy = "drop",
) -> tuple[Tensor, Tensor]:
    """Says which pairs are positive and which count at all.

    Row i's own partner is column `offset + i`. A pair counts when both sides are present; what happens to other pairs whose left or
    right inputs are the same as the partner's is the duplicate policy.

    Args:
        left_present: (N,) bool.
        right_present: (M,) bool.
        left_group: (M,) int64, identity of the left inputs of all M clips.
        right_group: (M,) int64, identity of the right inputs of all M clips.
        offset: where this rank's rows begin among the M.
        duplicates: the policy.

    Returns:
        positive (N, M) bool and valid (N, M) bool.
    """
    num_rows, num_columns = len(left_present), len(right_present)
    rows = torch.arange(num_rows, device=right_present.device) + offset
    positive = rows[:, None] == torch.arange(num_columns, device=right_present.device)
    valid = left_present[:, None] & right_present[None, :]
    if duplicates != "keep":
        same = (left_group[rows][:, None] == left_group) | (right_group[rows][:, None] == right_group)
        if duplicates == "drop":
            valid = valid & (positive | ~same)
        else:
            positive = positive | same
    return positive, valid


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
