"""A scale and a bias that depend on the text: rare and frequent sounds differ in both (FLAM, arXiv 2505.05335)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from peav.devices import widest


class TextScore(nn.Module):
    """Scale `exp(MLP(text))` and bias `MLP(text)` of each text, by two networks of one hidden layer.

    Their inputs are brought to mean 0 and variance 1, so that it does not matter whether embeddings have unit length. Both begin as
    constants: the last layers' weights are zero.

    Args:
        dim: D of the texts' embeddings.
        hidden: units of the hidden layer.
        scale: of every text at first; positive.
        bias: of every text at first.
    """

    def __init__(self, dim: int, hidden: int = 256, scale: float = 10.0, bias: float = -8.0) -> None:
        super().__init__()
        self.dim, self.hidden = dim, hidden
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.scales, self.biases = _network(dim, hidden), _network(dim, hidden)
        self.set_constants(torch.tensor([scale]), torch.tensor([bias]))

    @torch.no_grad()
    def set_constants(self, scale: Tensor, bias: Tensor) -> None:
        """Gives every text the same scale (not its log) and bias, each (1,)."""
        for network, value in ((self.scales, widest(scale).log()), (self.biases, bias)):
            last = network[-1]
            if isinstance(last, nn.Linear):
                last.weight.zero_()
                last.bias.copy_(value.view(1))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    def forward(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the scale and the bias, each (K,), of texts (K, D). No gradient passes from a bias to its text."""
        if texts.shape[-1] != self.dim:
            raise ValueError(
                f"texts are of dimension {texts.shape[-1]}, but the scale and bias of a text are made from {self.dim}: set "
                "`embedding_dim` of the objective to that of the model"
            )
        weight = self.scales[0].weight
        inputs = self.norm(texts.to(weight.dtype) if isinstance(weight, Tensor) else texts)
        return self.scales(inputs).squeeze(-1).exp(), self.biases(inputs.detach()).squeeze(-1)


def _network(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, 1))


def prior_loss(bias: Tensor, valid: Tensor, positive: Tensor) -> Tensor:
    """Sums the cross entropy that a text's bias alone has over all its frames: least where it is the logit of the rate of active frames.

    Args:
        bias: (K,).
        valid: (K,) number of the text's frames that count.
        positive: (K,) sum of their labels.

    >>> bias = torch.tensor([0.25]).logit().requires_grad_()
    >>> torch.autograd.grad(prior_loss(bias, torch.tensor([8.0]), torch.tensor([2.0])), bias)[0].abs() < 1e-6
    tensor([True])
    """
    return (valid * nn.functional.softplus(bias) - positive * bias).sum()
