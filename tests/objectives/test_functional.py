"""The pair loss against its definition, written as a loop."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from peav.objectives import CaptionPair, FrameAlignment, SegmentPair
from peav.objectives.frame import event_labels
from peav.objectives.functional import DuplicatePolicy, PairMask, sigmoid_pair_loss
from peav.testing import tiny_embeddings, tiny_events, tiny_targets
from peav.types import Embedding, EventInput, TextInput


def loop(left, right, scale, bias, positive=None, weight=None, normalizer=None):
    """-(1/B) sum_ij w_ij log sigmoid(z_ij (t <x_i, y_j> + b)), one term at a time."""
    total = 0.0
    for i in range(len(left)):
        for j in range(len(right)):
            z = 1 if (positive[i][j] if positive is not None else i == j) else -1
            logit = math.exp(scale) * float(left[i] @ right[j]) + bias
            term = math.log1p(math.exp(-abs(z * logit))) + max(-z * logit, 0)
            total += term * (float(weight[i][j]) if weight is not None else 1)
    return total / (normalizer if normalizer is not None else len(left))


@pytest.mark.parametrize(("scale", "bias"), [(10.0, -10.0), (30.0, -12.0), (112.3, -16.5)])
def test_equals_the_loop(scale: float, bias: float) -> None:
    left, right = torch.randn(5, 4).double(), torch.randn(7, 4).double()
    positive, weight = torch.rand(5, 7) < 0.3, (torch.rand(5, 7) < 0.7).double()
    found = sigmoid_pair_loss(
        left,
        right,
        torch.tensor([math.log(scale)], dtype=torch.float64),
        torch.tensor([bias], dtype=torch.float64),
        positive=positive,
        weight=weight,
        normalizer=3,
    )
    expected = loop(left, right, math.log(scale), bias, positive, weight, 3)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_initial_loss_of_normalised_and_raw_embeddings() -> None:
    """The figures of the literature: about 10 a row for unit vectors at t = 10, b = -10; unbounded for raw ones."""
    x, y = torch.nn.functional.normalize(torch.randn(2, 512, 1024), dim=-1)
    found = sigmoid_pair_loss(x, y, torch.tensor([10.0]).log(), torch.tensor([-10.0]))
    assert float(found) == pytest.approx(10.0, abs=0.2)


def test_a_confident_positive_keeps_its_gradient_under_bf16() -> None:
    x = torch.nn.functional.normalize(torch.randn(4, 16), dim=-1).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sigmoid_pair_loss(x, x.detach(), torch.tensor([30.0]).log(), torch.tensor([-12.0]))
    loss.backward()
    assert loss.dtype == torch.float32 and x.grad is not None
    assert (x.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("policy", ["drop", "positive", "keep"])
def test_duplicate_policies(policy: DuplicatePolicy) -> None:
    present = torch.tensor([True, True, True, False])
    groups = (torch.tensor([7, 7, 8, 7]), torch.arange(4))
    mask = PairMask(present, present, groups, groups, duplicates=policy)
    for kept in (mask.rows, mask.columns):
        assert kept is not None and kept.tolist() == [0, 1, 2]
    tile = mask.tile(slice(0, 3), slice(0, 3))
    positive, valid = torch.zeros(3, 3, dtype=torch.bool), torch.ones(3, 3, dtype=torch.bool)
    assert tile.own is not None
    positive[tile.own] = True
    assert torch.equal(positive, torch.eye(3, dtype=torch.bool))
    positive = positive if tile.positive is None else positive | tile.positive
    valid = valid if tile.weight is None else tile.weight.bool()
    assert bool(valid[0, 1]) == (policy != "drop")
    assert bool(positive[0, 1]) == (policy == "positive")
    assert bool(valid[0, 2]) and not bool(positive[0, 2])


def test_the_objective_equals_the_function() -> None:
    objective = CaptionPair("audio", "audio", scale=12, bias=-3).double()
    embeddings = tiny_embeddings(objective)
    left, right = embeddings["audio"].pooled, embeddings["text_audio"].pooled
    output = objective(embeddings, {})
    assert float(output.loss.detach()) == pytest.approx(loop(left, right, math.log(12), -3), rel=1e-6)
    assert int(output.count) == 6


def test_every_objective_owns_a_scale_and_a_bias() -> None:
    for objective in (SegmentPair("audio", "video"), CaptionPair("video", "video"), FrameAlignment()):
        names = dict(objective.named_parameters())
        assert names["logit_scale"].shape == names["logit_bias"].shape == (1,)
        assert names["logit_scale"].exp().item() == pytest.approx(10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("audio", "audio"), "two different"),
        (("audio", "video", -1.0), "scale must be positive"),
        (("audio", "video", 10.0, math.nan), "finite"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentPair(*arguments)  # type: ignore[arg-type]


def test_frame_labels_touch_every_frame_that_overlaps() -> None:
    text = TextInput(torch.zeros(1, 1).long(), torch.ones(1, 1).bool(), torch.ones(1).bool(), torch.zeros(1).long())
    zero = torch.zeros(3, dtype=torch.long)
    onset, offset = torch.tensor([0.12, 0.05, 0.0]), torch.tensor([0.16, 0.081, 0.04])
    events = EventInput(text, torch.ones(3).bool(), torch.arange(3), zero, onset, offset)
    labels = event_labels(events, 5, 0.04)[:, 0].int().tolist()
    assert labels == [[0, 0, 0, 1, 0], [0, 1, 1, 0, 0], [1, 0, 0, 0, 0]]


def test_frame_alignment_equals_a_loop() -> None:
    objective = FrameAlignment(scale=7, bias=-2, positive_weight=3).double()
    embeddings = tiny_embeddings(objective)
    targets = tiny_targets(objective)
    audio, text = embeddings["audio"], embeddings["text_event"]
    assert audio.frames is not None and audio.mask is not None
    labels = event_labels(tiny_events(6), audio.frames.shape[1], 0.04)
    total, count = 0.0, 0
    for clip in range(6):
        if not targets["events"].annotated[clip]:
            continue
        for phrase in range(3):
            for frame in range(int(audio.mask[clip].sum())):
                z = 1 if labels[clip, phrase, frame] else -1
                logit = 7 * float(audio.frames[clip, frame] @ text.pooled[phrase]) - 2
                total += math.log1p(math.exp(-z * logit)) * (3 if z == 1 else 1)
                count += 1
    assert float(objective(embeddings, targets).loss.detach()) == pytest.approx(total / count, rel=1e-6)


def test_a_phrase_of_another_clip_is_a_negative_unless_the_clip_has_it() -> None:
    objective = FrameAlignment().double()
    embeddings = tiny_embeddings(objective)
    targets = tiny_targets(objective)
    plain = objective(embeddings, targets).loss
    groups = embeddings["text_event"].group.clone()
    groups[1] = groups[0]  # the second phrase is the same text as the first: it must count once
    embeddings["text_event"] = Embedding(embeddings["text_event"].pooled, embeddings["text_event"].present, groups)
    merged = objective(embeddings, targets).loss
    assert not torch.isclose(plain, merged)


def test_weights_follow_a_schedule() -> None:
    objective = CaptionPair("audio", "audio", weight=[(10, 0.0), (20, 1.0), (40, 0.5)])
    assert [objective.weight_at(step) for step in (0, 10, 15, 20, 30, 40, 99)] == [0, 0, 0.5, 1, 0.75, 0.5, 0.5]
    assert CaptionPair("audio", "audio", weight=0.3).weight_at(7) == 0.3
    again = objective.config["init_args"]["weight"]
    assert again == [[10, 0.0], [20, 1.0], [40, 0.5]]
    for bad, message in ((-1.0, "at least 0"), ([], "at least 0"), ([(5, 1.0), (5, 2.0)], "must ascend")):
        with pytest.raises(ValueError, match=message):
            CaptionPair("audio", "audio", weight=bad)


def test_the_scale_is_held_where_it_is_asked_for() -> None:
    held, free = SegmentPair("audio", "video", max_scale=20.0), SegmentPair("audio", "video")
    for objective in (held, free):
        with torch.no_grad():
            objective.logit_scale.fill_(5.0)
        objective.after_step()
    assert held.logit_scale.exp().item() == pytest.approx(20)
    assert free.logit_scale.item() == 5.0
    with pytest.raises(ValueError, match="max_scale=5 is below the initial scale"):
        SegmentPair("audio", "video", max_scale=5)


@pytest.mark.parametrize("weight", [[0, 1], [[0, "a"]], [[0, 0.0, 1]], "0.5", None, True, [[1.9, 1.0]]])
def test_what_is_no_weight_is_refused(weight: Any) -> None:
    with pytest.raises(ValueError, match="weight must be a finite number of at least 0, or a list of"):
        CaptionPair("audio", "audio", weight=weight)


def test_an_absent_phrase_takes_no_other_with_it() -> None:
    objective = FrameAlignment().double()
    embeddings, targets = tiny_embeddings(objective), tiny_targets(objective)
    text = embeddings["text_event"]
    plain = objective(embeddings, targets).loss
    present = torch.tensor([False, True, True, True])  # the phrase of the first row comes twice, absent at first
    doubled = Embedding(text.pooled[[0, 0, 1, 2]], present, text.group[[0, 0, 1, 2]])
    events = targets["events"]
    phrases = replace(events.phrases, group=events.phrases.group[[0, 0, 1, 2]])
    moved = replace(events, phrases=phrases, phrase=events.phrase + 1)
    found = objective({**embeddings, "text_event": doubled}, {"events": moved}).loss
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=0)
