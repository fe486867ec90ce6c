"""The transformer against a slow one written out here, clip by clip and without padding, in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from peav.encoders.transformer import Block, RMSNorm, Transformer, _Convolution, _GroupNorm, _RMSNorm, _SwiGLU
from peav.masking import lengths_to_mask

DIM, HEADS = 16, 2


def transformer(layers: int = 2) -> Transformer:
    model = Transformer(DIM, layers, HEADS, mlp_dim=24).double()
    with torch.no_grad():
        for parameter in model.parameters():  # norms must not be at their initial ones and zeros
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (1 if parameter.ndim == 1 else 0))
    return model


def rms(x: Tensor, norm: RMSNorm) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * norm.weight


def turned(x: Tensor) -> Tensor:
    """Rotates the pairs (0, 1), (2, 3), ... of x (T, head_dim), one by one."""
    rows = []
    for position, row in enumerate(x):
        pairs = []
        for pair in range(0, x.shape[1], 2):
            angle = position * 20000.0 ** (-pair / x.shape[1])
            c, s = math.cos(angle), math.sin(angle)
            pairs += [row[pair] * c - row[pair + 1] * s, row[pair] * s + row[pair + 1] * c]
        rows.append(torch.stack(pairs))
    return torch.stack(rows)


def block_alone(block: Block, x: Tensor) -> Tensor:
    attention = block.attention
    q, k, v = (rms(x, block.attention_norm) @ attention.qkv.weight.T).chunk(3, -1)
    heads = []
    for head in range(HEADS):
        part = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
        a, b = turned(rms(q[:, part], attention.q_norm)), turned(rms(k[:, part], attention.k_norm))
        heads.append(torch.softmax(a @ b.T / math.sqrt(DIM // HEADS), -1) @ v[:, part])
    x = x + torch.cat(heads, -1) @ attention.out.weight.T
    gate, up = (rms(x, block.mlp_norm) @ block.gate_up.weight.T).chunk(2, -1)
    return x + (gate * torch.sigmoid(gate) * up) @ block.down.weight.T


def clip_alone(model: Transformer, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Encodes one clip (T, D) that has no padding."""
    x = torch.cat((model.cls[None], frames))
    y = x.T[None]
    for norm, convolution in ((model.resnet.norm1, model.resnet.conv1), (model.resnet.norm2, model.resnet.conv2)):
        y = convolution(F.silu(F.group_norm(y, 1, norm.weight, norm.bias, norm.eps)))
    x = x + y[0].T
    for block in model.blocks:
        assert isinstance(block, Block)
        x = block_alone(block, x)
    x = rms(x, model.norm) @ model.output.weight.T
    return x[0], x[1:]


def expected(model: Transformer, x: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
    pooled, frames = zip(
        *(clip_alone(model, row[:length]) for row, length in zip(x, lengths, strict=True)), strict=True
    )
    return torch.stack(pooled), torch.stack([F.pad(f, (0, 0, 0, x.shape[1] - len(f))) for f in frames])


def gradients(model: Transformer, x: Tensor, outputs: tuple[Tensor, Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    loss = sum((o * torch.randn(o.shape, generator=generator, dtype=o.dtype)).sum() for o in outputs)
    assert isinstance(loss, Tensor)
    return list(torch.autograd.grad(loss, [x, *model.parameters()]))


@pytest.mark.parametrize("lengths", [[7, 7, 7], [7, 3, 5], [2, 7, 2], [1, 7, 4]])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_padded_clips_are_what_each_is_alone_forward_and_backward(lengths: list[int], checkpointed: bool) -> None:
    model = transformer()
    model.activation_checkpointing = checkpointed
    x = torch.randn(3, 7, DIM, dtype=torch.float64, requires_grad=True)
    mask = lengths_to_mask(torch.tensor(lengths), 7)
    found, wanted = model(x, mask), expected(model, x, lengths)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-8)
    for one, other in zip(gradients(model, x, found), gradients(model, x, wanted), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-7)


def test_no_mask_is_one_that_is_true_throughout() -> None:
    model, x = transformer(), torch.randn(2, 5, DIM, dtype=torch.float64)
    for one, other in zip(model(x), model(x, torch.ones(2, 5, dtype=torch.bool)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_what_is_masked_changes_nothing_not_even_as_nan() -> None:
    model = transformer()
    x = torch.randn(3, 6, DIM, dtype=torch.float64)
    mask = lengths_to_mask(torch.tensor([6, 2, 4]), 6)
    plain = model(x, mask)
    for garbage in (1e6, torch.nan, torch.inf):
        spoilt = torch.where(mask.unsqueeze(-1), x, garbage).requires_grad_()
        found = model(spoilt, mask)
        for one, other in zip(found, plain, strict=True):
            torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
        gradient = gradients(model, spoilt, found)[0]
        assert gradient.isfinite().all() and not gradient[~mask].any()
    assert not plain[1][~mask].any()


def test_a_clip_that_is_masked_throughout_is_its_cls_alone_and_no_nan() -> None:
    model = transformer()
    x = torch.randn(2, 4, DIM, dtype=torch.float64)
    mask = torch.tensor([[True] * 4, [False] * 4])
    pooled, frames = model(x, mask)
    torch.testing.assert_close(pooled[1], clip_alone(model, x[1, :0])[0], atol=1e-10, rtol=0)
    torch.testing.assert_close(pooled[:1], model(x[:1], mask[:1])[0], atol=1e-12, rtol=0)
    assert not frames[1].any()


def test_masks_may_have_gaps_and_order_changes_nothing() -> None:
    model = transformer()
    x = torch.randn(4, 6, DIM, dtype=torch.float64)
    mask = torch.rand(4, 6) > 0.4
    mask[0] = True
    pooled, frames = model(x, mask)
    order = torch.tensor([2, 0, 3, 1])
    again = model(x[order], mask[order])
    torch.testing.assert_close(again[0], pooled[order], atol=1e-12, rtol=0)
    torch.testing.assert_close(again[1], frames[order], atol=1e-12, rtol=0)
    alone = [model(x[row : row + 1], mask[row : row + 1]) for row in range(4)]
    torch.testing.assert_close(torch.cat([p for p, _ in alone]), pooled, atol=1e-12, rtol=0)


def test_the_path_for_compilers_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = transformer()
    x = torch.randn(3, 6, DIM, dtype=torch.float64, requires_grad=True)
    mask = lengths_to_mask(torch.tensor([6, 2, 4]), 6)
    plain = model(x, mask)
    one = gradients(model, x, plain)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    padded = model(x, mask)
    for a, b in zip(padded, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-8)
    for a, b in zip(gradients(model, x, padded), one, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-7)


def test_backward_passes_that_are_written_by_hand_are_the_derivatives() -> None:
    torch.manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    mask = lengths_to_mask(torch.tensor([4, 2]), 4)
    assert torch.autograd.gradcheck(
        lambda *a: _GroupNorm.apply(a[0], mask, a[1], a[2], 1e-5), (random(2, 4, 3), random(3), random(3))
    )
    assert torch.autograd.gradcheck(_Convolution.apply, (random(5, 3), random(3, 3, 2), random(2)))
    assert torch.autograd.gradcheck(lambda *a: _RMSNorm.apply(*a, 1e-5), (random(3, 4), random(4)))
    assert torch.autograd.gradcheck(_SwiGLU.apply, (random(3, 6),))


def test_half_precision_stays_near() -> None:
    model = Transformer(DIM, 2, HEADS, mlp_dim=24)
    x, mask = torch.randn(3, 6, DIM), lengths_to_mask(torch.tensor([6, 2, 4]), 6)
    plain = model(x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x, mask)
    for one, other in zip(found, plain, strict=True):
        assert (one.float() - other).abs().max() < 0.05 * other.abs().max()
    found[0].float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
