"""The contracts: what events say when they say nothing, and that every way to take a batch apart keeps what they say."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from peav.testing import tiny_batch, tiny_events
from peav.testing.rows import take
from peav.training.virtual import ChunkStore, join_rows
from peav.types import EventInput, Tokens


def full_events() -> EventInput:
    """Six clips with five events of three phrases, everything stated, and each value another."""
    return replace(
        tiny_events(6),
        confidence=torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]),
        timed=torch.tensor([True, False, True, False, True]),
        vocabulary=torch.tensor([-2, -1, 0, 1, 0, -1]),
        members=torch.tensor([[True, False], [False, True], [True, True]]),
        lineage=torch.tensor([[900, 7, 8], [901, 8, -1], [902, -1, -1]]),
        bank=torch.tensor([False, False, True]),
    )


def test_what_events_leave_to_none_is_said_by_stated() -> None:
    events = tiny_events(6).stated()
    assert torch.equal(events.confidence, torch.ones(5)) and events.timed.tolist() == [True] * 5  # type: ignore[union-attr, arg-type]
    assert events.vocabulary.tolist() == [-1] * 6 and events.members.shape == (3, 0)  # type: ignore[union-attr]
    assert events.lineage.tolist() == [[900, -1], [901, -1], [902, -1]]  # type: ignore[union-attr]
    assert events.bank.tolist() == [False] * 3  # type: ignore[union-attr]
    full = full_events()
    assert all(getattr(full.stated(), f.name) is getattr(full, f.name) for f in fields(EventInput))


def test_some_clips_keep_what_is_said_of_them_and_every_phrase() -> None:
    events = take(full_events(), torch.tensor([4, 1]))
    assert events.clip.tolist() == [1, 0] and events.vocabulary.tolist() == [0, -1]  # type: ignore[union-attr]
    assert torch.equal(events.confidence, torch.tensor([0.2, 0.5]))  # type: ignore[arg-type]
    assert events.timed.tolist() == [False, True]  # type: ignore[union-attr]
    for name in ("members", "lineage", "bank"):
        assert getattr(events, name) is not None and len(getattr(events, name)) == 3


@pytest.mark.parametrize("way", ["to", "memory", "disk", "read_by"])
def test_a_batch_that_moves_keeps_all_of_its_events(way: str) -> None:
    full = full_events()
    moved: EventInput | None
    batch = replace(tiny_batch(6), events=full)
    if way == "read_by":
        phrases = replace(full.phrases, others={"other": Tokens(full.phrases.input_ids + 1, full.phrases.mask)})
        moved = replace(full, phrases=phrases).read_by("other")
    elif way == "to":
        moved = batch.to("cpu").events
    else:
        store = ChunkStore(way)  # type: ignore[arg-type]
        kept = store.keep(batch)
        moved = (torch.load(kept, weights_only=False) if isinstance(kept, Path) else kept).events
    for f in fields(EventInput):
        if isinstance(value := getattr(full, f.name), Tensor):
            assert torch.equal(getattr(moved, f.name), value), f.name


def test_joined_chunks_say_together_what_one_of_them_says() -> None:
    full = full_events()
    wide = torch.nn.functional.pad(full.lineage, (0, 2), value=5)  # type: ignore[arg-type]
    joined: EventInput = join_rows([full, tiny_events(3)])
    assert joined.confidence.tolist()[5:] == [1, 1] and joined.vocabulary.tolist()[6:] == [-1, -1, -1]  # type: ignore[union-attr]
    assert joined.lineage.tolist()[3:] == [[900, -1, -1], [901, -1, -1], [902, -1, -1]]  # type: ignore[union-attr]
    assert joined.bank.tolist() == [False, False, True, False, False, False]  # type: ignore[union-attr]
    assert joined.clip.tolist()[5:] == [6, 7] and joined.phrase.tolist()[5:] == [3, 4]
    joined = join_rows([full, replace(full, lineage=wide)])
    assert joined.lineage.tolist()[0] == [900, 7, 8, -1, -1]  # type: ignore[union-attr]
    assert joined.lineage.tolist()[3] == [900, 7, 8, 5, 5]  # type: ignore[union-attr]
    plain: EventInput = join_rows([tiny_events(3), tiny_events(3)])
    assert all(getattr(plain, f.name) is None for f in fields(EventInput) if f.default is None)
