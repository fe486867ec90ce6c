"""What a clip says of phrases: which are true when, which are absent, and what nobody knows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from peav.data import Clip, Event
from peav.data.manifests.labels import Labels, LabelsError
from peav.evaluation import EmbeddingTable
from peav.evaluation.collect import clip_texts
from peav.evaluation.directions import evaluate_frames
from peav.evaluation.events import METRICS
from peav.evaluation.known import known_phrases
from tests.evaluation.synthetic import PHRASES, make_table

RAIN, SOFT, HARD = (
    Event("rain", 0.0, 1.0),
    Event("wind", 1.0, 2.0, confidence=0.4),
    Event("hail", 1.0, 2.0, confidence=0.5),
)
LABELS = Labels(
    {"weather": ("rain", "wind", "hail"), "all": ("rain", "wind", "hail", "drizzle", "thunder")},
    {"drizzle": ("rain",), "rain": ("weather",), "/m/drizzle": ("drizzle",)},
)
ASKED = ["rain", "wind", "hail", "drizzle", "weather", "thunder"]


@pytest.mark.parametrize(
    ("events", "vocabulary", "found"),
    [
        (None, "", None),
        ((), "", []),
        ((RAIN, SOFT, HARD), "weather", [("rain", 0.0, 1.0), ("hail", 1.0, 2.0)]),
        ((RAIN, Event("hail", confidence=0.0)), "", [("rain", 0.0, 1.0)]),
        ((RAIN, Event("hail")), "", [("rain", 0.0, 1.0)]),
        ((RAIN,), "open", [("rain", 0.0, 1.0)]),
    ],
)
def test_events_are_true_where_their_times_are_known(events: object, vocabulary: str, found: object) -> None:
    assert clip_texts(Clip("a", 2.0, events=events, vocabulary=vocabulary)).events == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("events", "vocabulary", "known"),
    [
        (None, "", ""),
        ((), "", "rain wind hail drizzle weather thunder"),
        ((), "weather", "rain wind hail"),
        ((), "open", ""),
        # A weak label holds in some frames, nobody knows in which; nor when a relative of it is heard.
        ((Event("Wind."),), "", "rain hail drizzle weather thunder"),
        ((Event("wind", confidence=0.3),), "weather", "rain hail"),
        ((Event("rain"),), "", "wind hail thunder"),
        # An open clip knows what it says, absence too.
        ((SOFT, Event("thunder", confidence=0.0)), "open", "wind thunder"),
        # Relatives of what is heard: up, down, over the middle.
        ((RAIN,), "", "rain wind hail thunder"),
        ((Event("drizzle", 0.0, 1.0),), "all", "drizzle wind hail thunder"),
        ((Event("weather", 0.0, 1.0),), "", "weather wind hail thunder"),
        ((Event("rain", 0.0, 1.0, confidence=0.0),), "", "rain wind hail drizzle weather thunder"),
        # What a clip says of a descendant itself stands.
        ((RAIN, Event("drizzle", confidence=0.0)), "", "rain wind hail drizzle thunder"),
        # Of an ancestor only if it leaves nothing out.
        ((RAIN, Event("drizzle", 0.2, 0.9)), "", "rain wind hail drizzle thunder"),
        ((RAIN, Event("drizzle", 0.2, 1.4)), "", "wind hail drizzle thunder"),
        ((Event("rain", confidence=0.0), Event("drizzle", 0.2, 1.4)), "", "wind hail drizzle thunder"),
        ((RAIN, Event("drizzle")), "", "wind hail thunder"),
        # Words that nobody listed are related by the id of their label; those of one id are synonyms.
        ((Event("a light rain", 0.0, 1.0, label="/m/drizzle"),), "", "wind hail thunder"),
        ((RAIN, Event("rain")), "", "wind hail thunder"),
    ],
)  # fmt: skip
def test_what_is_known_in_a_clip(events: object, vocabulary: str, known: str) -> None:
    row = known_phrases([Clip("a", 2.0, events=events, vocabulary=vocabulary)], ASKED, LABELS)[0]  # type: ignore[arg-type]
    assert {phrase for phrase, is_known in zip(ASKED, row.tolist(), strict=True) if is_known} == set(known.split())


def test_phrases_that_share_the_id_of_a_label_are_synonyms() -> None:
    one = Clip("a", 2.0, events=(Event("dog barking", 0.0, 1.0, label="/m/bark"),))
    other = Clip("b", 2.0, events=(Event("a bark", 0.0, 1.0, label="/m/bark"),))
    assert known_phrases([one, other], ["dog barking", "a bark", "cat"]).tolist() == [
        [True, False, True],
        [False, True, True],
    ]


def test_a_vocabulary_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(LabelsError, match=r"clip 'a'.*'wether'"):
        known_phrases([Clip("a", 2.0, events=(), vocabulary="wether")], ["rain"], LABELS)


@pytest.fixture(scope="module")
def table() -> EmbeddingTable:
    return make_table(50)


def masked(table: EmbeddingTable) -> torch.Tensor:
    """A mask that leaves out a third of what has no event."""
    known = torch.rand(len(table), len(PHRASES), generator=torch.Generator().manual_seed(1)) > 0.33
    for row, events in zip(known, table.frame_part.events, strict=True):
        for phrase, _, _ in events or []:
            row[PHRASES.index(phrase)] = True
    return known


def test_a_mask_of_which_all_is_known_changes_no_number(table: EmbeddingTable) -> None:
    plain = evaluate_frames(table)
    assert evaluate_frames(replace(table, known=torch.ones(50, len(PHRASES), dtype=torch.bool))) == plain
    assert all(plain.metrics[name] is not None for name in METRICS)


def test_what_is_not_known_changes_no_number_whatever_is_scored_there(table: EmbeddingTable) -> None:
    """Each phrase has a dimension of its own, in which a model may claim what it likes."""
    eye = torch.eye(32)[: len(PHRASES)]
    texts = table.frame_part.text_event
    frames = [torch.nn.functional.pad(f @ texts.T, (0, 32 - len(PHRASES))) for f in table.frame_part.frames]
    known = masked(table)
    assert not bool(known.all())
    one = evaluate_frames(replace(table, text_event=eye, frames=frames, known=known))
    loud = [
        f + torch.nn.functional.pad(9.0 * ~row, (0, 32 - len(PHRASES))) for f, row in zip(frames, known, strict=True)
    ]
    assert evaluate_frames(replace(table, text_event=eye, frames=loud, known=known)) == one
    closed = [evaluate_frames(replace(table, text_event=eye, frames=f)) for f in (frames, loud)]
    for name in set(METRICS) - {"psds1"}:  # which is 0 in both
        assert closed[0].metrics[name] != closed[1].metrics[name], name
    assert closed[0].macro != closed[1].macro and closed[0].micro != one.micro


def test_each_phrase_alone_sees_the_clips_in_which_it_is_known(table: EmbeddingTable) -> None:
    """AUROC, F1 and calibration of a phrase are those of a closed table of the clips in which it is known."""
    known = masked(table)
    found = evaluate_frames(replace(table, known=known))
    for k, phrase in enumerate(PHRASES):
        events = [
            [event for event in some if event[0] == phrase] if some is not None and is_known else None
            for some, is_known in zip(table.frame_part.events, known[:, k].tolist(), strict=True)
        ]
        text = table.frame_part.text_event[[k]]
        alone = evaluate_frames(replace(table, phrases=[phrase], text_event=text, events=events))
        row = found.per_phrase[phrase]
        assert row == pytest.approx(alone.per_phrase[phrase])
        assert row["num_events"] == sum(len(some or []) for some in events) > 0


def test_a_table_keeps_what_is_known_and_refuses_events_that_are_not(table: EmbeddingTable, tmp_path) -> None:  # type: ignore[no-untyped-def]
    known = masked(table)
    replace(table, known=known).save(tmp_path / "t.safetensors")
    assert torch.equal(EmbeddingTable.load(tmp_path / "t.safetensors").known, known)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'clip-000' has an event .* not to be known there"):
        replace(table, known=torch.zeros_like(known))
    with pytest.raises(ValueError, match=r"expected known bool \(50, 6\)"):
        replace(table, known=known[:3])
