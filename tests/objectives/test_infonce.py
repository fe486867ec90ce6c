"""InfoNCE against torch's cross entropy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from peav.objectives import InfoNCE
from peav.objectives import infonce as module
from peav.types import Embedding


@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("at_once", [10, 2**22])
def test_equals_the_cross_entropy(drop: bool, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOGITS_AT_ONCE", at_once)
    torch.manual_seed(0)
    x, y = torch.randn(2, 9, 5, dtype=torch.float64).requires_grad_()
    present = [torch.rand(9) < 0.8 for _ in range(2)]
    groups = [torch.randint(0, 5, (9,)), torch.arange(9)]
    objective = InfoNCE("a", "b", scale=3.0, drop_duplicates=drop).double()
    made = {n: Embedding(v, p, g) for n, v, p, g in zip("ab", (x, y), present, groups, strict=True)}
    output = objective(made, {})
    logits = objective.logit_scale.exp() * (x @ y.T)
    own = torch.eye(9, dtype=torch.bool)
    if drop:
        logits = logits.masked_fill((groups[0][:, None] == groups[0]) & ~own, -torch.inf)
    both = present[0] & present[1]
    forward = F.cross_entropy(logits[both][:, present[1]], _place(both, present[1]), reduction="sum")
    backward = F.cross_entropy(logits.T[both][:, present[0]], _place(both, present[0]), reduction="sum")
    expected = (forward + backward) / (2 * both.sum())
    torch.testing.assert_close(output.loss, expected, rtol=1e-12, atol=1e-12)
    assert int(output.count) == int(both.sum())
    tensors = (x, y, objective.logit_scale)
    for found, wanted in zip(
        torch.autograd.grad(output.loss, tensors), torch.autograd.grad(expected, tensors), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


def _place(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Where the partners of the rows stand among the columns that are there."""
    return (columns.cumsum(0) - 1)[rows]


def test_the_scale_is_held() -> None:
    objective = InfoNCE("a", "b", max_scale=100.0)
    with torch.no_grad():
        objective.logit_scale.fill_(9.0)
    objective.after_step()
    assert objective.logit_scale.exp().item() == pytest.approx(100)
    with pytest.raises(ValueError, match="max_scale=5 is below"):
        InfoNCE("a", "b", max_scale=5)
    with pytest.raises(ValueError, match="two different embeddings"):
        InfoNCE("a", "a")
