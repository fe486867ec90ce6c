"""What a batch says of events: strong, weak, soft and absent, vocabularies, lineage, and the phrase bank."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from peav.data import (
    ClipDataset,
    ClipLoader,
    Event,
    Population,
    TrainingPlan,
    collate,
    open_manifest,
    save_manifest,
)
from peav.data.loading.decoding import DecodedClip
from peav.data.loading.sampler import TrainingBatch
from peav.data.manifests import phrases as phrases_module
from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import text_group
from peav.data.manifests.labels import Labels, LabelsError, write_labels
from peav.data.manifests.phrases import collect_phrases, load_phrases
from peav.types import Batch, EventInput
from tests.data.world import RATE, make_data

LABELS = Labels(
    {"pets": ("Dog", "Cat"), "city": ("Siren", "dog")}, {"Bark": ("Dog",), "Dog": ("Animal",), "/m/05tny_": ("Bark",)}
)


def clip(*events: Event, vocabulary: str = "", annotated: bool = True) -> DecodedClip:
    return DecodedClip("x", 2.0, events=events, annotated=annotated, vocabulary=vocabulary)


def events_of(*clips: DecodedClip, labels: Labels | None = LABELS, tokenize: Callable) -> EventInput:
    events = collate(list(clips), tokenize, labels=labels).events
    assert events is not None
    return events


def test_every_kind_of_event_says_what_it_is(tokenize: Callable) -> None:
    made = events_of(
        clip(Event("Dog", 0.5, 9.0, confidence=0.25), Event("bark", label="/m/05tny_"), vocabulary="pets"),
        clip(Event("woof", 0.0, 1.0, "/m/05tny_"), Event("dog.", confidence=0.0), vocabulary="city"),
        clip(annotated=False),
        clip(Event("owl", 2.5, 3.0), vocabulary="open"),
        clip(),
        tokenize=tokenize,
    )
    assert made.phrases.texts == ("Dog", "bark", "woof")  # the owl lies outside of its clip
    assert made.annotated.tolist() == [True, True, False, True, True]
    assert (made.clip.tolist(), made.phrase.tolist()) == ([0, 0, 1, 1], [0, 1, 2, 0])
    assert (made.onset.tolist(), made.offset.tolist()) == ([0.5, 0.0, 0.0, 0.0], [2.0, 2.0, 1.0, 2.0])
    assert made.confidence is not None and made.confidence.tolist() == [0.25, 1.0, 1.0, 0.0]
    assert made.timed is not None and made.timed.tolist() == [True, False, True, False]
    assert made.vocabulary is not None and made.vocabulary.tolist() == [0, 1, -2, -2, -1]
    assert made.members is not None and made.members.tolist() == [[True, True], [False, False], [False, False]]
    assert made.bank is not None and not made.bank.any()
    assert made.lineage is not None
    keys = {name: text_group(name) for name in ("dog", "bark", "woof", "animal", "/m/05tny_")}
    assert made.lineage[:, :2].tolist() == [
        [keys["dog"], -1],
        [keys["bark"], keys["/m/05tny_"]],
        [keys["woof"], keys["/m/05tny_"]],
    ]
    above = [set(row[2:]) - {-1} for row in made.lineage.tolist()]
    assert above == [{keys["animal"]}, {keys["dog"], keys["animal"]}, {keys["bark"], keys["dog"], keys["animal"]}]


def test_a_phrase_has_all_the_ids_that_its_clips_give_it(tokenize: Callable) -> None:
    made = events_of(
        clip(Event("noise", label="/m/1")), clip(Event("Noise", label="/m/2")), clip(Event("noise")), tokenize=tokenize
    )
    assert made.lineage is not None
    assert made.lineage.tolist() == [[text_group(name) for name in ("noise", "/m/1", "/m/2")]]


def test_batches_without_labels_or_events_have_the_same_form(tokenize: Callable) -> None:
    for clips in ([clip()], [clip(Event("rain", 0.0, 1.0)), clip(annotated=False)]):
        made = events_of(*clips, labels=None, tokenize=tokenize)
        stated = replace(
            made, confidence=None, timed=None, vocabulary=None, members=None, lineage=None, bank=None
        ).stated()
        rows = made.annotated
        for name in ("confidence", "timed", "members", "lineage", "bank"):
            assert torch.equal(getattr(made, name), getattr(stated, name)), name
        assert made.vocabulary is not None and stated.vocabulary is not None
        assert torch.equal(made.vocabulary[rows], stated.vocabulary[rows])


def test_a_clip_of_an_unknown_vocabulary_is_an_error(tokenize: Callable) -> None:
    with pytest.raises(LabelsError, match="clip 'x': the vocabulary 'pet' is unknown: did you mean 'pets'"):
        events_of(clip(vocabulary="pet"), tokenize=tokenize)
    with pytest.raises(LabelsError, match=r"labels\.json has none"):
        events_of(clip(vocabulary="pets"), labels=None, tokenize=tokenize)


def data_with_events(folder: Path, phrases: int = 40) -> Path:
    """60 clips; clip i has phrase i modulo `phrases`, and is of the vocabulary `pets` if it has that."""
    data = make_data(folder)

    def named(number: int, clip: Clip) -> Clip:
        event = Event(f"phrase {number % phrases}", 0.0, 0.05, f"/m/{number % phrases}")
        return replace(clip, events=(event,), vocabulary="few" if number % phrases < 3 else "open")

    save_manifest(data, "train", [named(number, clip) for number, clip in enumerate(open_manifest(data, "train"))])
    write_labels(data, Labels({"few": tuple(f"Phrase {number}" for number in range(3))}, {"phrase 5": ("phrase 6",)}))
    return data


def loader(data: Path, tokenize: Callable, workers: int = 0, bank: int = 8, seed: int = 0) -> ClipLoader:
    dataset = ClipDataset(data, "train", ["audio", "events"], sample_rate=RATE, seed=seed, phrase_bank=bank)
    plan = TrainingPlan(Population.of(dataset.manifest.index), 6, seed)
    return ClipLoader(dataset, plan, tokenize, workers)


def content(batch: Batch) -> tuple[object, ...]:
    events = batch.events
    assert events is not None and events.bank is not None and events.lineage is not None
    assert events.members is not None and events.members.shape[1] == 1
    return batch.ids, events.phrases.texts, events.bank.tolist(), events.lineage.tolist(), events.members.tolist()


def test_the_bank_is_the_same_for_any_workers_and_after_a_resume(tmp_path: Path, tokenize: Callable) -> None:
    data = data_with_events(tmp_path / "data")
    whole = loader(data, tokenize)
    epochs = [[content(batch) for batch in whole] for _ in range(2)]
    forked = loader(data, tokenize, workers=2)
    assert [[content(batch) for batch in forked] for _ in range(2)] == epochs
    forked.close()
    resumed = loader(data, tokenize, workers=1)
    resumed.load_state_dict({"epoch": 1, "batches": 4, "digest": whole.state_dict()["digest"]})
    assert [content(batch) for batch in resumed] == epochs[1][4:]
    resumed.close()
    banks = [
        {text for text, drawn in zip(texts, bank, strict=True) if drawn}  # type: ignore[call-overload]
        for epoch in epochs
        for _, texts, bank, *_ in epoch
    ]
    assert all(5 <= len(bank) <= 8 for bank in banks) and len(set(map(frozenset, banks))) == len(banks) == 20
    assert len(set().union(*banks)) > 35  # drawn from all
    assert [content(batch) for batch in loader(data, tokenize, seed=1)] != epochs[0]


def test_ranks_draw_one_bank_and_hold_none_of_their_own_phrases(tmp_path: Path, tokenize: Callable) -> None:
    dataset = loader(data_with_events(tmp_path / "data"), tokenize, bank=30).dataset
    whole = TrainingBatch([(3, position, 0) for position in range(12)], 5)

    def phrases(indices: TrainingBatch) -> tuple[set[str], set[str]]:
        events = collate(dataset.__getitems__(indices), tokenize, labels=dataset.labels).events
        assert events is not None and events.bank is not None and len(set(events.phrases.texts)) == len(events.bank)
        marked = list(zip(events.phrases.texts, events.bank.tolist(), strict=True))
        return {text for text, drawn in marked if not drawn}, {text for text, drawn in marked if drawn}

    own, bank = phrases(whole)
    halves = [phrases(TrainingBatch(part, 5)) for part in (whole[:6], whole[6:])]
    assert own == {f"phrase {number}" for number in range(12)} and not own & bank
    assert halves[0][0] | halves[1][0] == own
    # All ranks together have the phrases that one process has.
    assert halves[0][1] | halves[1][1] | own == bank | own and len(bank | own) < 40
    assert phrases(TrainingBatch(whole, 6))[1] != bank


def test_phrases_are_kept_beside_the_manifest_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_with_events(tmp_path / "data")
    path = open_manifest(data, "train").path
    found = load_phrases(path)
    assert sorted(found) == sorted((f"phrase {number}", f"/m/{number}") for number in range(40))
    monkeypatch.setattr(phrases_module, "collect_phrases", lambda clips: pytest.fail("they were kept"))
    assert list(load_phrases(path)) == list(found)
    monkeypatch.undo()
    clips = list(open_manifest(data, "train"))
    save_manifest(data, "train", [replace(clips[0], events=(Event("wind"), Event("Wind", 0.0, 0.05, "/m/w")))])
    assert list(load_phrases(path)) == [("wind", "/m/w")]
    for name in ("phrases.bin", "phrases.npy"):  # damaged: found anew
        (path.with_suffix(".index") / name).write_bytes(b"")
        assert list(load_phrases(path)) == [("wind", "/m/w")]
    save_manifest(data, "train", [replace(clips[0], events=None)])
    assert len(load_phrases(path)) == len(load_phrases(path)) == 0
    with pytest.raises(ValueError, match="phrase_bank=3 draws from the events of the split 'train'"):
        ClipDataset(data, "train", ["events"], phrase_bank=3)
    with pytest.raises(ValueError, match="phrase_bank must be at least 0"):
        ClipDataset(data, "train", ["events"], phrase_bank=-1)


def test_more_phrases_than_are_kept_are_thinned_by_chance_and_not_by_order() -> None:
    clips = [Clip("a", 1.0, events=(Event(f"phrase {number}"),)) for number in range(2000)]
    rng = np.random.default_rng(0)
    kept = [list(collect_phrases([clips[i] for i in rng.permutation(2000)], most=100)) for _ in range(3)]
    assert kept[0] == kept[1] == kept[2] and len(kept[0]) == 100
    numbers = [int(phrase.removeprefix("phrase ")) for phrase, _ in kept[0]]
    assert 800 < np.mean(numbers) < 1200  # 1000, with a standard error of 58
    assert json.loads(collect_phrases(clips[:1]).text.tobytes()) == ["phrase 0", ""]
