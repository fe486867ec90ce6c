"""All objectives together, on several ranks: exact, with few messages, and no rank waits for another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch import distributed as dist

from peav.checkpoints import TEN_PAIRS
from peav.distributed import with_world, world_of
from peav.objectives import FrameAlignment, Objective, PairObjective
from peav.testing import GlooPool, tiny_events
from peav.testing.rows import clip_rows, take
from peav.training.losses import Exchange, evaluate_objectives, with_gradients
from peav.types import Embedding
from tests.objectives import frames

CLIPS, DIM = 11, 8
NAMES = sorted({name for pair in TEN_PAIRS for name in pair})
#: Where each of so many ranks' clips begin: uneven on purpose.
BOUNDS = {1: [0, 11], 2: [0, 3, 11], 3: [0, 1, 7, 11], 4: [0, 4, 5, 9, 11]}
#: Of two, three and four ranks; four processes on two cores take half a minute to start, and three are uneven already.
POOLS = ["gloo", "three", pytest.param("four", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def three() -> Iterator[GlooPool]:
    with GlooPool(3) as pool:
        yield pool


@pytest.fixture(scope="module")
def four() -> Iterator[GlooPool]:
    with GlooPool(4) as pool:
        yield pool


def make_objectives() -> dict[str, Objective]:
    policies = ["drop", "positive", "keep"]
    pairs = {
        f"{a}:{b}": PairObjective(a, b, scale=5.0 + i, bias=-2.0, duplicates=policies[i % 3])  # type: ignore[arg-type]
        for i, (a, b) in enumerate(TEN_PAIRS)
    }
    return {**pairs, "frame": FrameAlignment(positive_weight=2.0)}


def make_embeddings(silent: int = 0) -> dict[str, Embedding]:
    """Clips with gaps and duplicates; the first `silent` lack their audio caption."""
    generator = torch.Generator().manual_seed(3)
    embeddings = {}
    for index, name in enumerate([*NAMES, "text_event"]):
        rows = 3 if name == "text_event" else CLIPS
        pooled = F.normalize(torch.randn(rows, DIM, generator=generator, dtype=torch.float64), dim=1)
        present = torch.rand(rows, generator=generator) < 0.8
        group = torch.randint(0, 6, (rows,), generator=generator) + 100 * index
        if name == "text_event":
            present, group = torch.ones(rows, dtype=torch.bool), torch.arange(rows)
        if name == "text_audio":
            present[:silent] = False
        frames = mask = None
        if name == "audio":
            mask = torch.arange(9) < torch.randint(1, 10, (CLIPS, 1), generator=generator)
            frames = torch.randn(CLIPS, 9, DIM, generator=generator, dtype=torch.float64)
        embeddings[name] = Embedding(pooled, present, group, frames, mask, None if frames is None else 0.04)
    return embeddings


def evaluate(embeddings: dict[str, Embedding], events: Any, exchange: Exchange, norms: bool = False) -> dict[str, Any]:
    """Losses and gradients of leaves behind which, as in a model, something else lies."""
    objectives = {name: objective.double() for name, objective in make_objectives().items()}
    weights = {name: 1.0 + 0.1 * index for index, name in enumerate(objectives)}
    roots: dict[str, Tensor] = {}
    made = {}
    for name, e in embeddings.items():
        roots[name] = e.pooled.clone().requires_grad_()
        frames = None
        if e.frames is not None:
            roots[f"{name} frames"] = e.frames.clone().requires_grad_()
            frames = 2 * roots[f"{name} frames"]
        made[name] = Embedding(2 * roots[name], e.present, e.group, frames, e.mask, e.frame_seconds)
    losses = evaluate_objectives(objectives, made, {"events": events}, weights, exchange, norms=norms)
    pairs = [(made[name].pooled, gradient) for name, gradient in losses.pooled.items()]
    pairs += [
        (frames, losses.frames[n]) for n, e in made.items() if n in losses.frames and (frames := e.frames) is not None
    ]
    with_gradients(losses.total, [*pairs, *losses.parameters]).backward()
    return {
        "total": losses.total,
        "losses": losses.losses,
        "counts": losses.counts,
        "norms": losses.norms,
        "gradients": {name: root.grad for name, root in roots.items()},
        "parameters": {f"{name}.{key}": p.grad for name, o in objectives.items() for key, p in o.named_parameters()},
    }


def on_rank(rank: int, silent: int, exchange: Exchange) -> dict[str, Any]:
    bounds = BOUNDS[dist.get_world_size()]
    rows = torch.arange(bounds[rank], bounds[rank + 1])
    return evaluate(clip_rows(make_embeddings(silent), rows), take(tiny_events(CLIPS), rows), exchange, norms=True)


@pytest.mark.parametrize("exchange", ["gather", "ring"])
@pytest.mark.parametrize("silent", [0, 5])
@pytest.mark.parametrize("pool", POOLS)
def test_ranks_equal_one_process(pool: str, silent: int, exchange: Exchange, request: pytest.FixtureRequest) -> None:
    """Bars 3 and 7: every gradient within 1e-12; with 5 silent clips the first rank has no audio caption at all."""
    whole = evaluate(make_embeddings(silent), tiny_events(CLIPS), exchange, norms=True)
    parts = request.getfixturevalue(pool).run(on_rank, silent, exchange)
    close: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}
    ranks = len(parts)
    torch.testing.assert_close(sum(part["total"] for part in parts) / ranks, whole["total"], **close)
    for name, loss in whole["losses"].items():
        torch.testing.assert_close(sum(part["losses"][name] for part in parts) / ranks, loss, **close)
        assert all(int(part["counts"][name]) == int(whole["counts"][name]) for part in parts)
        torch.testing.assert_close(parts[0]["norms"][name], whole["norms"][name], rtol=1e-10, atol=1e-12)
    for name, gradient in whole["gradients"].items():
        found = [part["gradients"][name] for part in parts]
        joined = sum(found) / ranks if name == "text_event" else torch.cat(found) / ranks
        torch.testing.assert_close(joined, gradient, **close)
    for name, gradient in whole["parameters"].items():
        torch.testing.assert_close(sum(part["parameters"][name] for part in parts) / ranks, gradient, **close)


#: Frames with all that they can be told, each with the parameters that it may have.
FRAME_KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "per text": {"per_text": True, "prior_weight": 0.6},
    "attention": {"pooling": "attention"},
    "max": {"pooling": "max", "medium": "video"},
}


def frame_gradients(kind: str, bounds: tuple[int, int], everything: bool) -> dict[str, Any]:
    """Loss and gradients of some clips, which see the phrases that they have and the bank's that their rank drew, or all phrases.

    Ranks hold phrases in another order and say of them only what they must: the first has no bank.
    """
    objective = frames.make(**FRAME_KINDS[kind])
    clips = torch.arange(*bounds)
    events, embeddings = frames.rich_events(), frames.rich_embeddings(medium=objective.medium)
    own = take(events, clips)
    held = sorted(set(own.phrase.tolist()), reverse=True)
    banked = [*frames.BANK] if bounds[1] == CLIPS else [frames.BANK[0]] if bounds[0] else []
    rows = torch.arange(frames.PHRASES) if everything else torch.tensor([*held, *banked], dtype=torch.int64)
    place = torch.full((frames.PHRASES,), -1)
    place[rows] = torch.arange(len(rows))
    own = replace(
        own,
        phrases=take(own.phrases, rows),
        phrase=place[own.phrase],
        members=events.members[rows],  # type: ignore[index]
        lineage=events.lineage[rows],  # type: ignore[index]
        bank=events.bank[rows] if everything or banked else None,  # type: ignore[index]
    )
    some = {name: take(e, clips if name == objective.medium else rows) for name, e in embeddings.items()}
    leaves, (values, texts) = frames.with_leaves(some)
    output = objective(leaves, {"events": own})
    parameters = dict(objective.named_parameters())
    found = torch.autograd.grad(output.loss, [values, texts, *parameters.values()])
    whole = torch.zeros(frames.PHRASES, frames.DIM, dtype=torch.float64).index_add(0, rows, found[1])
    return {
        "loss": output.loss.detach(),
        "count": output.count,
        "frames": found[0],
        "texts": whole,
        "parameters": dict(zip(parameters, found[2:], strict=True)),
        "held": {*held, *banked},
    }


def frames_on_rank(rank: int, kind: str) -> dict[str, Any]:
    bounds = BOUNDS[dist.get_world_size()]
    return frame_gradients(kind, (bounds[rank], bounds[rank + 1]), False)


@pytest.mark.parametrize("kind", FRAME_KINDS)
@pytest.mark.parametrize("pool", POOLS)
def test_frames_on_ranks_equal_one_process(pool: str, kind: str, request: pytest.FixtureRequest) -> None:
    """Strong, weak, absent and unknown phrases, spread unevenly; each rank knows the phrases of its own clips alone."""
    parts = request.getfixturevalue(pool).run(frames_on_rank, kind)
    ranks = len(parts)
    close: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}
    whole = frame_gradients(kind, (0, CLIPS), True)
    assert set().union(*(part["held"] for part in parts)) == set(range(frames.PHRASES))
    assert len({frozenset(part["held"]) for part in parts}) == ranks
    torch.testing.assert_close(sum(part["loss"] for part in parts) / ranks, whole["loss"], **close)
    assert all(int(part["count"]) == int(whole["count"]) for part in parts)
    torch.testing.assert_close(torch.cat([part["frames"] for part in parts]) / ranks, whole["frames"], **close)
    torch.testing.assert_close(sum(part["texts"] for part in parts) / ranks, whole["texts"], **close)
    for name, gradient in whole["parameters"].items():
        torch.testing.assert_close(sum(part["parameters"][name] for part in parts) / ranks, gradient, **close)


def count_messages(rank: int, ten_apart: bool) -> tuple[list[tuple[str, int]], int]:
    """Which messages of floating point numbers there are, and how many of them this rank sends in all."""
    sent: list[tuple[str, int]] = []

    def watch(name: str) -> None:
        inner = getattr(dist, name)

        def counted(output: Tensor, given: Tensor, *args: Any, **options: Any) -> Any:
            if output.is_floating_point():
                sent.append((name, given.numel() if name.startswith("all") else output.numel()))
            return inner(output, given, *args, **options)

        setattr(dist, name, counted)

    before = dist.all_gather_into_tensor, dist.reduce_scatter_tensor
    for name in ("all_gather_into_tensor", "reduce_scatter_tensor"):
        watch(name)
    try:
        rows = torch.arange(4 * rank, 4 * rank + 4)
        own = {name: take(e, rows) for name, e in make_embeddings().items() if name in NAMES}
        groups = [[pair] for pair in TEN_PAIRS] if ten_apart else [list(TEN_PAIRS)]
        for pairs in groups:
            leaves = {
                n: Embedding(own[n].pooled.clone().requires_grad_(), own[n].present, own[n].group)
                for p in pairs
                for n in p
            }
            objectives = {f"{a}:{b}": PairObjective(a, b).double() for a, b in pairs}
            evaluate_objectives(objectives, leaves, {}, dict.fromkeys(objectives, 1.0))
    finally:
        dist.all_gather_into_tensor, dist.reduce_scatter_tensor = before
    return sent, sum(number for _, number in sent)


def test_two_messages_carry_the_embeddings_of_ten_pairs(gloo: GlooPool) -> None:
    """Bar 4: one out, one back, at 0.3 of the elements of ten losses that each gather for themselves."""
    (together, elements), _ = gloo.run(count_messages, False)
    (_, apart), _ = gloo.run(count_messages, True)
    assert [name for name, _ in together] == ["all_gather_into_tensor", "reduce_scatter_tensor"]
    assert elements / apart == pytest.approx(0.3)


def travel_in_half(rank: int) -> Any:
    own = torch.randn(3, 4, generator=torch.Generator().manual_seed(rank)).requires_grad_()
    embedding = Embedding(own, torch.ones(3, dtype=torch.bool), torch.arange(3))
    found = with_world({"a": embedding}, gathers=["a"], wire=torch.bfloat16)["a"]
    pooled = world_of(found).pooled
    assert pooled is not None
    (pooled * (rank + 1 + 2**-12)).sum().backward()
    return own.detach(), pooled.detach(), own.grad, world_of(found).offset


def test_rows_travel_in_half_precision_and_gradients_in_full(gloo: GlooPool) -> None:
    parts = gloo.run(travel_in_half)
    everyone = torch.cat([part[0] for part in parts])
    for rank, (_, pooled, gradient, offset) in enumerate(parts):
        assert pooled.dtype == torch.float32 and offset == 3 * rank
        assert torch.equal(pooled, everyone.bfloat16().float())
        assert torch.equal(gradient, torch.full((3, 4), 3 + 2 * 2**-12))


def test_an_embedding_without_its_world_is_named() -> None:
    embedding = Embedding(torch.zeros(1, 2), torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="lacks its `world`"):
        world_of(embedding)


def test_the_gradient_of_a_sum_passes_through() -> None:
    x, y = torch.randn(2, 3).requires_grad_(), torch.randn(4).bfloat16().requires_grad_()
    (3 * with_gradients(torch.tensor(7.0), [(2 * x, torch.ones(2, 3)), (y, torch.full((4,), 0.5))])).backward()
    assert x.grad is not None and y.grad is not None
    assert torch.equal(x.grad, torch.full((2, 3), 6.0)) and torch.equal(y.grad, torch.full((4,), 1.5).bfloat16())


def test_a_loss_scaler_saves_small_gradients_in_half_precision() -> None:
    x = torch.ones(3, dtype=torch.float16, requires_grad=True)
    loss = with_gradients(torch.tensor(1.0), [(x, torch.tensor([1e-8, 1e-3, 0.5]))])
    (65536.0 * loss).backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad.float(), torch.tensor([1e-8, 1e-3, 0.5]) * 65536, rtol=1e-3, atol=0)


def test_an_objective_of_no_weight_cannot_spoil_the_total() -> None:
    good, bad = PairObjective("audio", "video"), PairObjective("audio", "text_audio")
    made = {name: make_embeddings()[name] for name in ("audio", "video", "text_audio")}
    made["text_audio"].pooled[:] = torch.nan
    losses = evaluate_objectives({"good": good, "bad": bad}, made, {}, {"good": 1.0, "bad": 0.0})
    assert losses.losses["bad"].isnan() and torch.equal(losses.total, losses.losses["good"])
