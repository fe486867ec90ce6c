"""Weak labels: what all frames of a clip together say about a phrase (multiple-instance learning).

Wang, Li and Metze, *A comparison of five multiple instance learning pooling functions for sound event detection with weak labeling*
(ICASSP 2019, arXiv 1810.09050), compare them on networks whose frames see little of the clip; linear softmax places events best there.
Where every frame attends to all of the clip, as in PE-AV's transformers, it does not: any one frame can say what the whole holds, and is
enough (docs/decisions/0024). The mean, which wants all frames, is the default.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

#: How frames become a clip: the mean; the highest frame; linear softmax, sum p^2 / sum p; or a mean with learned weights.
Pooling = Literal["mean", "max", "softmax", "attention"]

POOLINGS: tuple[str, ...] = get_args(Pooling)


def pooled_log_probabilities(
    logits: Tensor, valid: Tensor, pooling: Pooling = "mean", attention: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Computes the logarithms of a clip's probability p and of 1 - p from its frames' logits, both without a difference of near numbers.

    Args:
        logits: (..., T) of frames.
        valid: (..., T) bool, broadcast to them; at least one frame of each is.
        pooling: how frames become a clip.
        attention: (..., T) logits of the frames' weights, for `attention`.

    Returns:
        (...) log p and (...) log (1 - p).

    >>> x = torch.tensor([[0.0, 0.0, 9.0]])
    >>> [round(float(p.exp()), 3) for p in pooled_log_probabilities(x, torch.tensor([True, True, False]))]
    [0.5, 0.5]
    >>> [round(float(pooled_log_probabilities(x, torch.ones(3).bool(), pooling)[0].exp()), 3) for pooling in ("mean", "softmax", "max")]
    [0.667, 0.75, 1.0]
    """
    if pooling == "max":
        highest = torch.where(valid, logits, -torch.inf).amax(-1)
        return F.logsigmoid(highest), F.logsigmoid(-highest)
    there = torch.where(valid, logits, 0.0)
    yes, no = F.logsigmoid(there), F.logsigmoid(-there)
    if pooling == "mean":
        share = torch.where(valid, torch.zeros_like(yes), -torch.inf).log_softmax(-1)
    elif pooling == "softmax":
        share = torch.where(valid, yes, -torch.inf).log_softmax(-1)
    elif attention is not None:
        share = torch.where(valid, attention, -torch.inf).log_softmax(-1)
    else:
        raise ValueError("attention pooling needs the logits of the frames' weights")
    # Frames that are not there have a share of exp(-inf); a finite number in its place keeps the gradient of logsumexp free of NaN.
    share = torch.where(valid, share, torch.finfo(share.dtype).min / 4)
    return torch.logsumexp(share + yes, -1), torch.logsumexp(share + no, -1)


def pooled_losses(
    logits: Tensor, valid: Tensor, labels: Tensor, pooling: Pooling = "mean", attention: Tensor | None = None
) -> Tensor:
    """Computes the binary cross entropy of clips' labels: see :func:`pooled_log_probabilities`.

    Args:
        logits: (..., T) of frames.
        valid: (..., T) bool.
        labels: (...) in [0, 1].
        pooling: how frames become a clip.
        attention: (..., T), for `attention`.
    """
    yes, no = pooled_log_probabilities(logits, valid, pooling, attention)
    return -(labels * yes + (1 - labels) * no)
