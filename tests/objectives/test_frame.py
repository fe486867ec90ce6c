"""Frames against phrases: equal to loops over the definition for everything that a clip can say of a phrase."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from peav.objectives import FrameAlignment, Objective, frame
from peav.objectives.frame_mask import TermWeights
from peav.testing import check_objective, tiny_events
from peav.types import Embedding, EventInput, World
from tests.objectives.frames import (
    FRAMES,
    HOP,
    PHRASES,
    make,
    reference,
    rich_embeddings,
    rich_events,
    states,
    with_leaves,
)

KINDS: list[dict[str, Any]] = [
    {},
    {"pooling": "max"},
    {"pooling": "softmax"},
    {"pooling": "attention"},
    {"per_text": True, "prior_weight": 0.6},
    {"per_text": True, "pooling": "attention", "medium": "video"},
    {"weights": TermWeights()},
    {"weights": TermWeights(1, 0, 1, 1, 0, 0)},
    {"weights": TermWeights(2, 0.7, 0.5, 0.5, 0.3, 1.3, 0.4), "per_text": True},
]


@pytest.mark.parametrize("tile", [5, 1024])
@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_loss_and_gradients_equal_loops(kind: int, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "frame_sum", partial(frame.frame_sum, tile=tile))
    for seed in range(2):
        objective, events = make(**KINDS[kind]), rich_events(seed)
        embeddings, leaves = with_leaves(rich_embeddings(seed, objective.medium))
        wanted = [*leaves, *objective.parameters()]
        expected, terms = reference(objective, embeddings, events)
        assert terms > 100
        output = objective(embeddings, {"events": events})
        torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=1e-12)
        slow = torch.autograd.grad(expected, wanted, allow_unused=True)
        for retain in (True, False):  # the gradient of the forward pass, then one that is computed anew
            found = torch.autograd.grad(output.loss, wanted, retain_graph=retain, allow_unused=True)
            for gradient, other, tensor in zip(found, slow, wanted, strict=True):
                assert gradient is not None
                other = torch.zeros_like(tensor) if other is None else other
                torch.testing.assert_close(gradient, other, rtol=1e-8, atol=1e-10)


def test_the_events_hold_every_state() -> None:
    said = [states(rich_events(seed), torch.arange(PHRASES), clip) for seed in range(2) for clip in range(11)]
    assert {one[0] for clip in said for one in clip.values()} == {
        "STRONG",
        "PRESENT",
        "ABSENT",
        "UNKNOWN",
        "FREE",
        "OPEN",
    }
    assert any(one[0] in ("STRONG", "ABSENT") and one[2] for clip in said for one in clip.values())  # type: ignore[misc]


def test_phrases_that_repeat_count_once_and_say_all_that_each_row_says() -> None:
    objective, events = make(), rich_events()
    embeddings = rich_embeddings()
    order = torch.tensor([*range(PHRASES), 3, 7, 11])
    text = embeddings["text_event"]
    text = Embedding(text.pooled[order], text.present[order], text.group[order])
    lineage = events.lineage[order].clone()  # type: ignore[index]
    lineage[3, 2:], lineage[12, 3] = -1, -1  # each of the two rows knows of one ancestor
    phrase = torch.where((events.phrase == 7) & (events.clip % 2 == 0), 13, events.phrase)
    phrases = replace(events.phrases, group=events.phrases.group[order], mask=events.phrases.mask[order])
    bank = torch.tensor([*events.bank.tolist(), False, False, False])  # type: ignore[union-attr]
    twice = replace(events, phrase=phrase, phrases=phrases, lineage=lineage, members=events.members[order], bank=bank)  # type: ignore[index]
    embeddings["text_event"] = text
    expected, _ = reference(objective, embeddings, twice)
    output = objective(embeddings, {"events": twice})
    torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=1e-12)


def gradient_of_texts(events: EventInput, objective: FrameAlignment | None = None) -> Tensor:
    """(K, D) of phrases, and 0 for one that nothing is asked of."""
    objective = objective or make()
    embeddings, leaves = with_leaves(rich_embeddings())
    return torch.autograd.grad(objective(embeddings, {"events": events}).loss, leaves[1])[0]


def one_event(
    phrase: int, confidence: float = 1.0, timed: bool = True, vocabulary: int = -1, **others: Any
) -> EventInput:
    """One clip of eleven with one event; the others are not annotated."""
    return replace(
        rich_events(),
        annotated=torch.arange(11) == 0,
        clip=torch.tensor([0]),
        phrase=torch.tensor([phrase]),
        onset=torch.tensor([0.08]),
        offset=torch.tensor([0.16]),
        confidence=torch.tensor([confidence]),
        timed=torch.tensor([timed]),
        vocabulary=torch.full((11,), vocabulary),
        **others,
    )


@pytest.mark.parametrize(
    ("phrase", "related"), [(0, {2, 3}), (2, {0, 3}), (3, {0, 2}), (5, {6}), (6, {5}), (1, {11}), (4, set())]
)
@pytest.mark.parametrize("timed", [True, False])
def test_related_phrases_get_no_gradient(phrase: int, related: set[int], timed: bool) -> None:
    gradient = gradient_of_texts(one_event(phrase, timed=timed)).abs().sum(1)
    assert set((gradient == 0).nonzero().flatten().tolist()) == related
    # What is held with a confidence of 0 is not held.
    gradient = gradient_of_texts(one_event(phrase, 0.0, timed)).abs().sum(1)
    assert (gradient > 0).all()


def test_a_circle_in_a_hierarchy_makes_all_on_it_related() -> None:
    lineage = torch.full((PHRASES, 3), -1)
    lineage[:, 0] = torch.arange(PHRASES)
    lineage[0, 2], lineage[1, 2], lineage[2, 2] = 1, 2, 0
    lineage[0, 1] = 0
    gradient = gradient_of_texts(one_event(0, lineage=lineage)).abs().sum(1)
    assert set((gradient == 0).nonzero().flatten().tolist()) == {1, 2}


def test_an_ancestor_of_its_own_is_no_negative_where_its_descendant_is_heard() -> None:
    """Phrase 0 in frames 0 and 1, its descendant 2 in frames 4 and 5: there nothing is said of phrase 0."""
    events = replace(
        one_event(0),
        clip=torch.tensor([0, 0]),
        phrase=torch.tensor([0, 2]),
        onset=torch.tensor([0.0, 0.16]),
        offset=torch.tensor([0.08, 0.24]),
        confidence=torch.ones(2),
        timed=torch.ones(2).bool(),
        vocabulary=torch.full((11,), -2),
    )
    objective = make(weights=TermWeights())
    for phrase, silent in ((0, {4, 5}), (2, set())):
        embeddings = rich_embeddings()
        text = embeddings["text_event"]
        embeddings["text_event"] = replace(text, pooled=text.pooled * (torch.arange(PHRASES) == phrase)[:, None])
        embeddings, leaves = with_leaves(embeddings)
        gradient = torch.autograd.grad(objective(embeddings, {"events": events}).loss, leaves[0])[0][0].abs().sum(1)
        assert set((gradient == 0).nonzero().flatten().tolist()) == silent


def test_vocabularies_decide_what_is_absent() -> None:
    members = torch.zeros(PHRASES, 2).bool()
    members[[1, 4, 8], 1] = True
    for vocabulary, known in ((-2, {4}), (0, {4}), (1, {1, 4, 8}), (-1, set(range(PHRASES)))):
        gradient = gradient_of_texts(one_event(4, vocabulary=vocabulary, members=members)).abs().sum(1)
        assert set(gradient.nonzero().flatten().tolist()) == known
    gradient = gradient_of_texts(one_event(4, 0.0, False, -2))  # an explicit negative, and nothing else is known
    assert gradient.abs().sum(1).nonzero().flatten().tolist() == [4]


@pytest.mark.parametrize(
    ("group", "index"), [("positive", 0), ("inactive", 1), ("clips", 2), ("ranks", 3), ("bank", 4), ("present", 5)]
)
def test_each_weight_belongs_to_its_terms(group: str, index: int) -> None:
    """Two phrases of another rank are there; doubling a weight adds once more what the group adds."""
    events = replace(rich_events(), members=None, lineage=None, bank=None, vocabulary=None)
    if group == "bank":
        events = rich_events()
    embeddings = rich_embeddings()
    text = embeddings["text_event"]
    more = F.normalize(torch.randn(2, 8, generator=torch.Generator().manual_seed(1)).double(), dim=1)
    groups = torch.cat((text.group, torch.tensor([77, 78])))
    pooled = torch.cat((text.pooled, more))
    if group != "bank":
        world = World((PHRASES, 2), 0, torch.ones(PHRASES + 2).bool(), groups, pooled)
        embeddings["text_event"] = replace(text, world=world)
    else:
        groups, pooled = text.group, text.pooled
    losses = []
    for factor in (1.0, 2.0):
        weights = [2.0, 0.7, 0.5, 0.4, 0.3, 1.3]
        weights[index] *= factor
        objective = make(weights=TermWeights(*weights))
        found = objective(embeddings, {"events": events}).loss.detach()
        expected, _ = reference(objective, embeddings, events, pooled, groups)
        torch.testing.assert_close(found, expected.detach(), rtol=1e-10, atol=0)
        losses.append(float(found))
    assert losses[1] > losses[0] * 1.001


@pytest.mark.parametrize("options", [{}, {"per_text": True}, {"pooling": "attention"}, {"pooling": "max"}])
def test_gradient_agrees_with_finite_differences(options: dict[str, Any]) -> None:
    objective, events = make(**options), rich_events()
    if objective.text_score is not None:  # the bias is a constant to the texts, but its value is not: make it one
        objective.text_score.biases[-1].weight.data.zero_()  # type: ignore[operator]
    embeddings = rich_embeddings()
    few = torch.tensor([0, 1, 9])

    def loss(frames: Tensor, texts: Tensor) -> Tensor:
        audio, text = embeddings["audio"], embeddings["text_event"]
        whole = audio.frames.index_copy(0, few, frames)  # type: ignore[union-attr]
        found = objective(
            {"audio": replace(audio, frames=whole), "text_event": replace(text, pooled=texts)}, {"events": events}
        )
        return found.loss

    frames = embeddings["audio"].frames
    assert frames is not None
    assert torch.autograd.gradcheck(
        loss, (frames[few].requires_grad_(), embeddings["text_event"].pooled.requires_grad_())
    )


@pytest.mark.parametrize("options", [{}, {"per_text": True}, {"pooling": "attention"}])
def test_what_is_not_there_changes_nothing(options: dict[str, Any]) -> None:
    objective, events = make(**options), rich_events()
    plain, leaves = with_leaves(rich_embeddings())
    expected = objective(plain, {"events": events}).loss
    wanted = torch.autograd.grad(expected, leaves)
    noisy = rich_embeddings()
    audio = noisy["audio"]
    there = audio.mask & (audio.present & events.annotated)[:, None]  # type: ignore[operator]
    assert audio.frames is not None
    noisy["audio"] = replace(audio, frames=torch.where(there[..., None], audio.frames, torch.nan))
    noisy, other_leaves = with_leaves(noisy)
    found = objective(noisy, {"events": events}).loss
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for gradient, other in zip(torch.autograd.grad(found, other_leaves), wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=0, atol=0)
    assert (wanted[0][~there] == 0).all()
    wider = F.pad(audio.frames, (0, 0, 0, 3))
    padded = {**rich_embeddings(), "audio": replace(audio, frames=wider, mask=F.pad(there, (0, 3)))}
    torch.testing.assert_close(objective(padded, {"events": events}).loss, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("every_kind", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"per_text": True},
        {"pooling": "attention"},
        {"pooling": "max", "medium": "video"},
        {"medium": "audio_video"},
    ],
)
def test_the_contract_holds(options: dict[str, Any], every_kind: bool) -> None:
    def targets(objective: Objective, num_clips: int) -> dict[str, Any]:
        return {"events": tiny_events(num_clips, every_kind=every_kind)}

    check_objective(lambda: FrameAlignment(embedding_dim=8, **options), targets)


def test_plain_events_and_what_they_leave_unsaid_are_the_same() -> None:
    objective, embeddings = make(), rich_embeddings()
    plain = replace(tiny_events(11, PHRASES), phrases=rich_events().phrases)
    one, other = (objective(embeddings, {"events": events}).loss for events in (plain, plain.stated()))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def test_the_bias_of_a_phrase_becomes_the_logit_of_its_rate() -> None:
    """Only the prior loss draws at the biases: each ends at the logit of the share of the phrase's frames that are active."""
    events = replace(rich_events(), members=None, lineage=None, vocabulary=None)
    objective = make(per_text=True)
    embeddings = {
        k: replace(e, frames=None if e.frames is None else 0 * e.frames) for k, e in rich_embeddings().items()
    }
    assert objective.text_score is not None
    optimizer = torch.optim.Adam(objective.text_score.biases.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        objective(embeddings, {"events": events}).loss.backward()
        optimizer.step()
    texts = frame.gather_texts(events, embeddings["text_event"], objective_world(embeddings["text_event"]))
    audio = embeddings["audio"]
    valid = audio.mask & (events.annotated & audio.present)[:, None]  # type: ignore[operator]
    number, positive = frame.FrameMask(valid, events, HOP, texts, dtype=torch.float64).rates()
    bias = objective.text_score(embeddings["text_event"].pooled)[1].detach()
    assert (number > 0).all() and (positive[:8] > 0).any()
    some = positive > 0
    torch.testing.assert_close(bias[some].sigmoid(), (positive / number)[some], rtol=0.05, atol=2e-3)


def objective_world(text: Embedding) -> World:
    return World((len(text.group),), 0, text.present, text.group, text.pooled)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confidence": torch.full((60,), 1.5)}, r"events\.confidence must be in \[0, 1\], not 1.5"),
        ({"confidence": torch.full((60,), torch.nan)}, r"events\.confidence must be in \[0, 1\], not nan"),
        ({"confidence": torch.ones(59)}, r"events\.confidence is \(59,\), but there are 60 events"),
        ({"onset": torch.full((60,), torch.nan)}, r"events\.onset holds NaN"),
        ({"clip": torch.full((60,), 11)}, r"events\.clip must be 0 to 10, not 11 to 11"),
        ({"phrase": torch.full((60,), -1)}, r"events\.phrase must be 0 to 11, not -1 to -1"),
        ({"vocabulary": torch.full((11,), 3)}, r"events\.vocabulary is -2, -1 or one of the 3 columns"),
        ({"vocabulary": torch.full((10,), 0)}, r"events\.vocabulary is \(10,\), but there are 11 clips"),
        ({"members": torch.ones(4, 2).bool()}, r"events\.members is \(4, 2\), but there are 12 phrases"),
        ({"lineage": torch.ones(12).long()}, r"events\.lineage is \(12,\), but there are 12 phrases"),
    ],
)
def test_events_that_mean_nothing_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()(rich_embeddings(), {"events": replace(rich_events(), **change)})


def test_an_event_outside_of_its_clip_is_held_and_heard_nowhere() -> None:
    """Also one of negative duration: no frame of its phrase is active, all are known."""
    for onset, offset in ((5.0, 6.0), (-3.0, -1.0), (0.2, 0.1)):
        events = replace(one_event(4, vocabulary=-2), onset=torch.tensor([onset]), offset=torch.tensor([offset]))
        output = make()(rich_embeddings(), {"events": events})
        expected, terms = reference(make(), rich_embeddings(), events)
        assert terms == FRAMES and int(output.count) == 0
        torch.testing.assert_close(output.loss, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "median"}, "pooling must be 'mean', 'max', 'softmax' or 'attention', not 'median'"),
        ({"pooling": "attention"}, "pooling='attention' makes parameters .* set embedding_dim"),
        ({"per_text": True}, "per_text makes parameters .* set embedding_dim"),
        ({"per_text": True, "embedding_dim": 8, "max_scale": 20.0}, "leave one of the two out"),
        ({"bank_weight": -1.0}, "bank_weight must be at least 0 and finite, not -1"),
        ({"positive_weight": 0.0}, "positive_weight must be positive and finite, not 0"),
        ({"prior_weight": float("nan")}, "prior_weight must be at least 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrameAlignment(**options)


def test_another_dimension_than_that_of_the_texts_is_named() -> None:
    objective = FrameAlignment(per_text=True, embedding_dim=16).double()
    with pytest.raises(ValueError, match=r"texts are of dimension 8, but .* made from 16"):
        objective(rich_embeddings(), {"events": rich_events()})
