"""The loss that is found tile by tile equals its definition: 15 lines in float64, which every path is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from peav.objectives import FrameAlignment, PairObjective
from peav.objectives.functional import sigmoid_pair_loss
from peav.objectives.tiles import DenseMask, DuplicatePolicy, PairMask, dot_moments, sigmoid_sum
from peav.types import Embedding, EventInput, TextInput

#: Scales and biases: of initial models, of trained ones, and of released SigLIP.
SCORES = [(10.0, -10.0), (30.0, -12.0), (112.3, -16.5)]


def oracle(x: Tensor, y: Tensor, log_t: Tensor, b: Tensor, positive: Tensor, weight: Tensor) -> Tensor:
    """sum_ij -w_ij log sigmoid(z_ij (t <x_i, y_j> + b))."""
    x, y = x.double(), y.double()
    logits = log_t.double().exp() * (x @ y.T) + b.double()
    losses = -F.logsigmoid(torch.where(positive, logits, -logits))
    return (torch.where(weight > 0, losses, 0) * weight).sum()


def gradients(total: Tensor, tensors: Sequence[Tensor], again: bool = False) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, tensors, retain_graph=again)


def leaves(rows: int, columns: int, dim: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y = torch.randn(rows, dim, dtype=torch.float64), torch.randn(columns, dim, dtype=torch.float64)
    values = (x, y, torch.tensor([0.7], dtype=torch.float64), torch.tensor([-1.0], dtype=torch.float64))
    x, y, t, b = (value.requires_grad_() for value in values)
    return x, y, t, b


def peak_bytes(function: Callable[[], None]) -> int:
    """The most that a call has allocated at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    held = most = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@pytest.mark.parametrize("duplicates", ["drop", "positive", "keep"])
@pytest.mark.parametrize("absent", [0.0, 0.5])
@pytest.mark.parametrize("repeats", [4, 10_000])
@pytest.mark.parametrize(("rows", "columns", "offset"), [(9, 9, 0), (5, 30, 20), (40, 7, -12), (6, 6, 50), (1, 1, 0)])
def test_pairs_equal_the_definition(
    rows: int, columns: int, offset: int, repeats: int, absent: float, duplicates: DuplicatePolicy
) -> None:
    torch.manual_seed(rows + columns + offset)
    tensors = leaves(rows, columns)
    row_present, column_present = torch.rand(rows) >= absent, torch.rand(columns) >= absent
    column_groups = [torch.randint(0, repeats, (columns,)), torch.randint(0, repeats, (columns,))]
    row_groups = [torch.randint(0, repeats, (rows,)), torch.randint(0, repeats, (rows,))]
    inside = [i for i in range(rows) if 0 <= i + offset < columns]
    for own, others in zip(row_groups, column_groups, strict=True):
        own[inside] = others[[i + offset for i in inside]]
    positive = torch.arange(rows)[:, None] + offset == torch.arange(columns)
    valid = row_present[:, None] & column_present
    same = (row_groups[0][:, None] == column_groups[0]) | (row_groups[1][:, None] == column_groups[1])
    if duplicates == "drop":
        valid = valid & (positive | ~same)
    elif duplicates == "positive":
        positive = positive | same
    expected = oracle(*tensors, positive, valid.double())
    mask = PairMask(
        row_present,
        column_present,
        (row_groups[0], row_groups[1]),
        (column_groups[0], column_groups[1]),
        offset,
        duplicates,
    )
    for tile in (4, 1024):
        total, sums = sigmoid_sum(*tensors, mask, tile=tile)
        torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
        logits = (tensors[2].exp() * (tensors[0] @ tensors[1].T) + tensors[3]).detach()
        assert (int(sums.positives), int(sums.negatives)) == (
            int((positive & valid).sum()),
            int((~positive & valid).sum()),
        )
        torch.testing.assert_close(sums.positive, logits[positive & valid].sum())
        torch.testing.assert_close(sums.negative, logits[~positive & valid].sum())
        for again in (True, False):  # the gradient of the forward pass, then one that is computed anew
            for found, wanted in zip(gradients(total, tensors, again), gradients(expected, tensors, True), strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    dots = tensors[0].detach() @ tensors[1].detach().T
    moments = dot_moments(tensors[0].detach(), tensors[1].detach(), mask, tile=4)
    for moment, where in zip(moments, (positive & valid, ~positive & valid), strict=True):
        expected_moment = torch.stack((where.sum().double(), dots[where].sum(), dots[where].square().sum()))
        torch.testing.assert_close(moment, expected_moment)


def test_any_mask_and_weight_equal_the_definition() -> None:
    tensors = leaves(11, 23)
    positive, weight = torch.rand(11, 23) < 0.3, torch.rand(11, 23).double() * (torch.rand(11, 23) < 0.7)
    expected = oracle(*tensors, positive, weight)
    total, _ = sigmoid_sum(*tensors, DenseMask(positive, weight, (11, 23)), tile=5)
    for found, wanted in zip(
        (total, *gradients(total, tensors)), (expected, *gradients(expected, tensors)), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"weight must be \(11, 23\), not \(3, 3\)"):
        sigmoid_pair_loss(*tensors, weight=torch.ones(3, 3))
    with pytest.raises(ValueError, match="either a mask, or positive and weight"):
        sigmoid_pair_loss(*tensors, weight=weight, mask=DenseMask(positive, weight, (11, 23)))


def test_what_has_no_weight_may_be_anything() -> None:
    x, y, t, b = leaves(4, 4)
    weight = torch.ones(4, 4).double()
    weight[2] = 0
    with torch.no_grad():
        x[2] = torch.inf
    total, sums = sigmoid_sum(x, y, t, b, DenseMask(None, weight, (4, 4)))
    d_x, *_ = gradients(total, (x, y, t, b))
    assert total.isfinite() and sums.negative.isfinite()
    assert d_x[[0, 1, 3]].isfinite().all()


@pytest.mark.parametrize(("scale", "bias"), SCORES)
@pytest.mark.parametrize("half", [False, True])
def test_half_precision_keeps_gradients_and_positives(
    scale: float, bias: float, half: bool, record_property: Callable[[str, float], None]
) -> None:
    """Bar 5: embeddings of bf16 with fp32 logits, against float64; at these points bf16 logits lose a third of the positives."""
    torch.manual_seed(0)
    x = F.normalize(torch.randn(256, 64), dim=1)
    y = F.normalize(x + 0.05 * torch.randn(256, 64), dim=1)  # confident positives
    score = torch.tensor([scale]).log(), torch.tensor([bias])
    exact, found = x.double().requires_grad_(), (x.bfloat16() if half else x).requires_grad_()
    eye, ones = torch.eye(256, dtype=torch.bool), torch.ones(256, 256)
    (wanted,) = gradients(oracle(exact, y, *score, eye, ones), [exact])
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = sigmoid_pair_loss(found, y.bfloat16() if half else y, *score, normalizer=1.0)
        assert loss.dtype == torch.float32
    (gradient,) = gradients(loss, [found])
    error = float((gradient.double() - wanted).norm() / wanted.norm())
    record_property("relative error of dX", error)
    assert error <= (1e-2 if half else 1e-5)
    assert (gradient.abs().sum(1) > 0).all()


def test_memory_is_that_of_the_gradients() -> None:
    """Bar 1 without open_clip: no tensor of N x M, so that the peak doubles with the batch."""

    def peak(batch: int) -> int:
        x, y = torch.randn(2, batch, 32).requires_grad_()
        ids = torch.arange(batch)
        present = torch.ones(batch, dtype=torch.bool)
        t, b = torch.tensor([2.3], requires_grad=True), torch.tensor([-10.0], requires_grad=True)

        def run() -> None:
            mask = PairMask(present, present, (ids, ids), (ids, ids))
            gradients(sigmoid_sum(x, y, t, b, mask, tile=128)[0], (x, y, t, b))

        return peak_bytes(run)

    small, large = peak(2048), peak(4096)
    assert large < 4096 * 4096 * 4 / 10
    assert large < 2.1 * small


def test_frames_equal_the_definition_where_phrases_repeat() -> None:
    torch.manual_seed(1)
    clips, frames, phrases, dim = 5, 13, 7, 4
    group = torch.tensor([5, 9, 5, 2, 9, 4, 1])  # two phrases come twice: they count once, and their events unite
    text = TextInput(torch.zeros(7, 1).long(), torch.ones(7, 1).bool(), torch.ones(7).bool(), group)
    clip, phrase = torch.randint(0, clips, (30,)), torch.randint(0, phrases, (30,))
    onset = torch.rand(30) * 0.6
    events = EventInput(text, torch.tensor([1, 1, 0, 1, 1]).bool(), clip, phrase, onset, onset + torch.rand(30) * 0.2)
    mask = torch.arange(frames) < torch.tensor([13, 4, 9, 1, 12])[:, None]
    values, texts = torch.randn(clips, frames, dim).double(), torch.randn(phrases, dim).double()
    present = torch.tensor([1, 1, 1, 1, 0]).bool()
    objective = FrameAlignment("audio", scale=3.0, bias=-0.5, positive_weight=2.5).double()
    media = Embedding(values[:, 0], present, torch.arange(clips), values, mask, 0.05)
    output = objective({"audio": media, "text_event": Embedding(texts, text.present, group)}, {"events": events})
    total, count = 0.0, 0
    for i in range(clips):
        for k in (0, 1, 3, 5, 6):
            for t in range(frames):
                if not (events.annotated[i] and present[i] and mask[i, t]):
                    continue
                on = any(
                    clip[e] == i
                    and group[phrase[e]] == group[k]
                    and float(events.onset[e]) < (t + 1) * 0.05 - 1e-6
                    and float(events.offset[e]) > t * 0.05 + 1e-6
                    for e in range(30)
                )
                logit = 3.0 * float(values[i, t] @ texts[k]) - 0.5
                total += (2.5 if on else 1.0) * float(F.softplus(torch.tensor(-logit if on else logit).double()))
                count += 1
    assert float(output.loss.detach()) == pytest.approx(total / count, rel=1e-6)


@pytest.mark.parametrize(("pairs", "cover"), [(1, 1), (10, 3)])
def test_ten_pairs_need_three_gathers(pairs: int, cover: int) -> None:
    from peav.checkpoints import TEN_PAIRS
    from peav.distributed import smallest_cover

    assert len(smallest_cover(TEN_PAIRS[:pairs])) == cover
    assert smallest_cover(TEN_PAIRS) == ("audio", "audio_video", "video")
    assert smallest_cover([("a", "b")], forced=["b", "c"]) == ("b", "c")


def test_learning_sanity(record_property: Callable[[str, float], None]) -> None:
    """Bar 8: two MLPs learn which rows belong together, and others are pushed apart; transformers' loss collapses here."""
    torch.manual_seed(0)
    latent = torch.randn(1024, 16)
    left, right = latent @ torch.randn(16, 32), (latent @ torch.randn(16, 32)).tanh()
    towers = [
        torch.nn.Sequential(torch.nn.Linear(32, 128), torch.nn.GELU(), torch.nn.Linear(128, 32)) for _ in range(2)
    ]
    objective = PairObjective("left", "right")
    parameters = [p for module in (*towers, objective) for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, 3e-3)

    def embed(rows: slice) -> dict[str, Embedding]:
        number = torch.arange(1024)[rows]
        made = [F.normalize(tower(x[rows]), dim=1) for tower, x in zip(towers, (left, right), strict=True)]
        present = torch.ones(len(number), dtype=torch.bool)
        return {name: Embedding(x, present, number) for name, x in zip(("left", "right"), made, strict=True)}

    for step in range(300):
        begin = 256 * (step % 3)
        optimizer.zero_grad()
        objective(embed(slice(begin, begin + 256)), {}).loss.backward()
        optimizer.step()
    with torch.no_grad():
        held_out = embed(slice(768, 1024))
        cosines = held_out["left"].pooled @ held_out["right"].pooled.T
    recall = float((cosines.argmax(1) == torch.arange(256)).float().mean())
    negative = float((cosines.sum() - cosines.trace()) / (256 * 255))
    record_property("held-out R@1", recall)
    record_property("mean cosine of negatives", negative)
    assert recall >= 0.95 and negative <= 0.1


@pytest.mark.slow
def test_frame_alignment_of_many_phrases_fits(record_property: Callable[[str, float], None]) -> None:
    """256 clips x 1,280 phrases x 250 frames: beyond inputs and their gradient less than 150 MB; the logits alone would take 328 MB."""
    clips, phrases, frames, dim = 256, 1280, 250, 1024
    group = torch.arange(phrases)
    text = TextInput(torch.zeros(phrases, 1).long(), torch.ones(phrases, 1).bool(), torch.ones(phrases).bool(), group)
    clip = torch.arange(1280) % clips
    onset = torch.rand(1280) * 8
    events = EventInput(text, torch.ones(clips).bool(), clip, torch.arange(1280), onset, onset + 1)
    values = torch.randn(clips, frames, dim).requires_grad_()
    texts = torch.randn(phrases, dim).requires_grad_()
    objective = FrameAlignment()
    whole = torch.ones(clips, dtype=torch.bool)
    media = Embedding(values[:, 0], whole, torch.arange(clips), values, torch.ones(clips, frames).bool(), 0.04)
    words = Embedding(texts, text.present, group)

    def run() -> None:
        loss = objective({"audio": media, "text_event": words}, {"events": events}).loss
        torch.autograd.grad(loss, (values, texts, *objective.parameters()))

    peak = peak_bytes(run) / 1e6
    own = 4 * (values.numel() + texts.numel()) / 1e6
    record_property("MB beyond inputs", peak)
    record_property("MB beyond inputs and gradients", peak - own)
    assert peak - own < 150
