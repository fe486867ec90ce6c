from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.functional.classification import binary_auroc

from peav.evaluation import EmbeddingTable, Evaluation, directions, evaluate_table, retrieval
from peav.evaluation.detection import (
    PSDS1,
    PSDS2,
    Collar,
    Intersection,
    ScoredClip,
    Segments,
    absent_counts,
    active_frames,
    calibration,
    calibration_sums,
    event_labels,
    f1_score,
    false_alarms,
    psds,
)
from peav.evaluation.directions import DIRECTIONS, evaluate_frames, percent
from peav.evaluation.retrieval import retrieval_metrics, similarity
from tests.evaluation.synthetic import HOP, PHRASES, make_table


@pytest.fixture(scope="module")
def table() -> Any:
    return make_table(60)


@pytest.fixture(scope="module")
def evaluation(table: Any) -> Any:
    return evaluate_table(table)


def small(**changes: Any) -> EmbeddingTable:
    rows = torch.arange(3)
    base: dict[str, Any] = {
        "clip_ids": ["a", "b", "c"],
        "embeddings": {"audio": torch.eye(3), "text_audio": torch.eye(3)},
        "clips": {"audio": rows, "text_audio": rows},
        "groups": {"audio": rows, "text_audio": rows},
        "texts": {"text_audio": ["x", "y", "z"]},
    }
    return EmbeddingTable(**(base | changes))


def test_every_direction_is_there_once_and_both_ways(evaluation):
    assert list(evaluation.directions) == [f"{q}->{i}" for q, i in DIRECTIONS]
    assert len(set(DIRECTIONS)) == len(DIRECTIONS) == 24
    one_way = {"audio_plus_text->video", "video_plus_text->audio"}
    for name in set(evaluation.directions) - one_way:
        assert "->".join(reversed(name.split("->"))) in evaluation.directions


def test_a_direction_equals_its_definition(table, evaluation):
    scores = table.embeddings["text_audio"] @ table.embeddings["audio"].T
    positives = table.clips["text_audio"][:, None] == table.clips["audio"]
    assert evaluation.directions["text_audio->audio"].plain == retrieval_metrics(scores, positives)
    assert evaluation.directions["audio->text_audio"].plain == retrieval_metrics(scores.T, positives.T)
    softened = 10 * scores * (10 * scores).softmax(0)
    assert evaluation.directions["text_audio->audio"].dual_softmax == retrieval_metrics(softened, positives)


def test_missing_items_and_several_captions(table, evaluation):
    video = evaluation.directions["audio->video"].plain
    lacking = len(table) - len(table.embeddings["video"])
    assert lacking > 0 and video["num_without_positive"] == lacking
    assert video["num_candidates"] == video["num_queries"] == len(table.embeddings["video"])
    captions = evaluation.directions["text_audio->audio"]
    assert captions.plain["num_queries"] == 120 and captions.num_distinct == 60
    speech = evaluation.directions["audio->text_transcript"].plain
    assert speech["num_queries"] == speech["num_candidates"] == 15


def test_perfect_and_collapsed_models():
    perfect = evaluate_table(small()).directions["text_audio->audio"]
    assert perfect.plain["R@1"] == perfect.dual_softmax["R@1"] == 1
    flat = torch.full((400, 37), 0.3)
    rows = {name: torch.arange(400) for name in ("audio", "video")}
    collapsed = EmbeddingTable([str(i) for i in range(400)], {"audio": flat, "video": flat.clone()}, rows, rows)
    for direction in evaluate_table(collapsed).directions.values():
        assert direction.plain["R@10"] == 0 and direction.dual_softmax["R@10"] == 0


def test_identical_captions_share_their_positives():
    swapped = torch.eye(3)[[1, 0, 2]]
    embeddings = {"audio": torch.eye(3), "text_audio": swapped}
    assert evaluate_table(small(embeddings=embeddings)).directions["text_audio->audio"].plain["R@1"] == 1 / 3
    groups = {"audio": torch.arange(3), "text_audio": torch.tensor([0, 0, 1])}
    shared = evaluate_table(small(embeddings=embeddings, groups=groups)).directions["text_audio->audio"]
    assert shared.plain["R@1"] == 1 and shared.num_distinct == 2


def test_a_direction_without_common_clips_is_skipped_with_its_reason():
    clips = {"audio": torch.tensor([0, 1]), "text_audio": torch.tensor([2]), "video": torch.tensor([1, 2])}
    embeddings = {"audio": torch.eye(2), "text_audio": torch.ones(1, 2), "video": torch.eye(2)}
    found = evaluate_table(small(embeddings=embeddings, clips=clips, groups=clips, texts={}))
    assert set(found.directions) == {"audio->video", "video->audio", "text_audio->video", "video->text_audio"}
    assert "no clip has both" in found.skipped["text_audio->audio"]
    assert "no clip has both" in found.skipped["audio->text_audio"]


def test_similarity_sees_equal_rows_as_ties():
    g = torch.Generator().manual_seed(0)
    item = torch.randn(1, 333, generator=g)
    scores = similarity(torch.randn(7, 333, generator=g), item.expand(1003, -1))
    assert (scores == scores[:, :1]).all()


def test_frame_level_leaves_out_clips_without_annotation(table, evaluation):
    annotated = [c for c, events in enumerate(table.events) if events is not None]
    assert 0 < len(annotated) < len(table)
    assert evaluation.frames.num_clips == len(annotated)
    k, phrase = 3, PHRASES[3]
    scores, labels = [], []
    for c in annotated:
        truth = torch.zeros(len(table.frames[c]))
        for name, onset, offset in table.events[c]:
            for t in range(len(truth)):
                truth[t] = max(float(truth[t]), float(name == phrase and t * HOP < offset and (t + 1) * HOP > onset))
        labels.append(truth)
        scores.append(10 * table.frames[c] @ table.text_event[k] - 4)
    expected = float(binary_auroc(torch.cat(scores), torch.cat(labels).long()))
    assert evaluation.frames.per_phrase[phrase]["auroc"] == pytest.approx(expected, abs=1e-6)
    assert 0.6 < evaluation.frames.macro < 1
    shorter = [frames[:90] for frames in table.frames]
    padded = evaluate_table(replace(table, frames=shorter)).frames
    assert padded is not None and padded.seconds == pytest.approx(90 * HOP * len(annotated))
    for name, row in padded.per_phrase.items():
        holding = sum(any(p == name and on < 90 * HOP for p, on, _ in table.events[c]) for c in annotated)
        everywhere = sum(any(p == name for p, _, _ in table.events[c]) for c in annotated)
        assert row["num_clips"] == holding and evaluation.frames.per_phrase[name]["num_clips"] == everywhere
    assert any(padded.per_phrase[p]["num_clips"] != evaluation.frames.per_phrase[p]["num_clips"] for p in PHRASES)


def test_event_metrics_are_those_of_the_logits_and_of_all_annotated_clips(table, evaluation):
    clips = []
    for c, events in enumerate(table.events):
        if events is None:
            continue
        logits = (10 * table.frames[c] @ table.text_event.T - 4).numpy()
        truth = [(PHRASES.index(phrase), onset, offset) for phrase, onset, offset in events]
        clips.append(ScoredClip(logits, np.arange(len(logits) + 1) * HOP, truth))
    assert any(not clip.events for clip in clips)
    found = evaluation.frames.metrics
    assert found["psds1"] == pytest.approx(psds(clips, PSDS1).value, abs=1e-6)
    assert found["psds1_alpha_st_0"] == pytest.approx(psds(clips, replace(PSDS1, alpha_st=0.0)).value, abs=1e-6)
    assert found["psds2"] == pytest.approx(psds(clips, PSDS2).value, abs=1e-6)
    likely = [replace(clip, scores=1 / (1 + np.exp(-clip.scores))) for clip in clips]
    for name, matching in (("event_f1", Collar()), ("segment_f1", Segments()), ("intersection_f1", Intersection())):
        assert found[name] == pytest.approx(f1_score(likely, matching, 0.5).macro)
    assert found["false_alarms_per_hour"] == pytest.approx(false_alarms(absent_counts(likely, 0.5).sum(0)).per_hour)
    p = np.concatenate([clip.scores for clip in likely])
    y = np.concatenate([active_frames(clip) for clip in likely]).astype(np.float64)
    assert found["brier"] == pytest.approx(float(((p - y) ** 2).mean()))
    assert found["ece"] == pytest.approx(calibration(calibration_sums(p, y)).ece, abs=1e-6)


def test_without_a_scale_a_logit_is_no_probability(table):
    found = evaluate_frames(replace(table, logit_scale=None, logit_bias=None)).metrics
    assert {name for name, value in found.items() if value is not None} == {"psds1", "psds1_alpha_st_0", "psds2"}


def test_the_frame_level_in_blocks_equals_the_whole(table, monkeypatch):
    """Ties are counted between frames of different blocks too; frames of four values give many."""
    coarse = [(2 * f).round().clamp(-1, 1) for f in table.frames]
    coarse = [f[: 17 * (c % 13)] for c, f in enumerate(coarse)]
    tied = replace(table, frames=coarse, text_event=torch.eye(32)[: len(PHRASES)])
    whole = evaluate_frames(tied)
    for at_once in (1, 900, 5000):
        monkeypatch.setattr(directions, "_LOGITS_AT_ONCE", at_once)
        assert evaluate_frames(tied) == whole
    scores, labels = [], []
    for c, events in enumerate(table.events):
        if events is not None and len(coarse[c]):
            scores.append(10 * coarse[c] @ tied.text_event.T - 4)
            labels.append(event_labels([events], PHRASES, len(coarse[c]), HOP)[0].T)
    logits, truth = torch.cat(scores), torch.cat(labels).long()
    assert whole.micro == pytest.approx(float(binary_auroc(logits.flatten(), truth.flatten())), abs=1e-6)
    for k, phrase in enumerate(PHRASES):
        expected = float(binary_auroc(logits[:, k], truth[:, k]))
        assert whole.per_phrase[phrase]["auroc"] == pytest.approx(expected, abs=1e-6)


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, tuple | list) else [made]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return made


def test_evaluation_never_holds_a_matrix_of_all_pairs_or_all_frames(monkeypatch):
    g = torch.Generator().manual_seed(0)
    count, phrases = 1500, [f"sound {k}" for k in range(60)]
    embeddings = {name: torch.randn(count, 4, generator=g) for name in ("audio", "text_audio")}
    rows = {name: torch.arange(count) for name in embeddings}
    events = [[(phrases[c % 60], 0.0, 1.0)] if c < 100 else None for c in range(count)]
    frames = [torch.randn(100 if c < 100 else 0, 4, generator=g) for c in range(count)]
    table = EmbeddingTable(
        [str(c) for c in range(count)], embeddings, rows, rows, frames=frames, frame_seconds=HOP, phrases=phrases,
        text_event=torch.randn(60, 4, generator=g), events=events,
    )  # fmt: skip
    monkeypatch.setattr(retrieval, "_SCORES_AT_ONCE", 2**16)
    monkeypatch.setattr(directions, "_LOGITS_AT_ONCE", 2**16)
    with LargestTensor() as largest:
        found = evaluate_table(table)
    assert found.frames is not None and len(found.directions) == 2
    assert largest.elements <= 2**16 + 10 * count  # pairs: 2.25 million; frames by phrases: 0.6 million


def test_no_annotated_clip_gives_no_frame_level(table):
    assert evaluate_table(replace(table, events=[None] * len(table))).frames is None


def own_names(**changes: Any) -> EmbeddingTable:
    rows = torch.arange(4)
    names = ("depth", "text_title", "audio")
    base: dict[str, Any] = {
        "clip_ids": list("abcd"),
        "embeddings": {"depth": torch.eye(4), "text_title": torch.eye(4)[[0, 1, 3, 2]], "audio": torch.eye(4)},
        "clips": dict.fromkeys(names, rows),
        "groups": dict.fromkeys(names, rows),
        "texts": {"text_title": ["w", "x", "y", "z"]},
        "pairs": [("depth", "text_title")],
    }
    return EmbeddingTable(**(base | changes))


def test_pairs_of_own_names_are_evaluated_both_ways_and_the_rest_is_said(caplog):
    found = evaluate_table(own_names())
    assert list(found.directions) == ["depth->text_title", "text_title->depth"]
    assert found.directions["text_title->depth"].plain["R@1"] == 0.5
    assert set(found.skipped) == {"audio"} and "'audio' is not evaluated" in caplog.text
    pairs = [("text_title", "depth"), ("depth", "text_title"), ("audio", "depth")]
    found = evaluate_table(own_names(pairs=pairs))  # a pair that two objectives train is evaluated once
    assert len(found.directions) == 4 and not found.skipped


def test_a_table_that_allows_no_comparison_is_an_error_of_one_sentence():
    with pytest.raises(
        ValueError, match=r"nothing to evaluate: of 4 clips there is depth \(4 rows\), text_title"
    ) as error:
        evaluate_table(own_names(pairs=[]))
    assert "\n" not in str(error.value)


def test_json_round_trip_and_tables(evaluation):
    assert Evaluation.from_json(evaluation.to_json()) == evaluation
    assert set(json.loads(evaluation.to_json())) == {"num_clips", "directions", "skipped", "frames", "temperature"}
    lines = evaluation.to_markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    table, events = rows[:26], rows[26:]
    assert len(table) == 26 and {line.count("|") for line in table} == {9}
    d = evaluation.directions["audio->video"]
    assert f"| audio->video | {percent(d.plain['R@1'])} |" in table[2]
    assert any(line.startswith("Frame AUROC: macro") for line in lines)
    assert evaluation.to_rich().row_count == 24
    assert events[2] == f"| PSDS1 | {evaluation.frames.metrics['psds1']:.3f} |"
    assert len(events) == 11 and evaluation.events_to_rich().row_count == 9
    assert evaluation.scalars()["frames/event_f1"] == evaluation.frames.metrics["event_f1"]
    assert evaluation.scalars()["audio->video/R@1"] == d.plain["R@1"]
    assert evaluation.scalars()["frames/macro_auroc"] == evaluation.frames.macro


def test_in_the_terminal_directions_are_on_the_left_and_numbers_on_the_right(evaluation):
    printed = io.StringIO()
    Console(width=200, file=printed).print(evaluation.to_rich())
    lines = printed.getvalue().splitlines()
    rows = [line.strip("│").split("│") for line in lines if line.startswith("│")]
    assert len(rows) == 24 and any(direction.endswith("  ") for direction, *_ in rows)
    for direction, *numbers in rows:
        assert direction == f" {direction.strip()}".ljust(len(direction))
        assert all(number == f"{number.strip()} ".rjust(len(number)) for number in numbers)


def test_save_and_load(table, tmp_path):
    table = replace(
        table, frames=[f[: 20 * (c % 3)] for c, f in enumerate(table.frames)], pairs=[("video", "text_audio")]
    )
    table.save(tmp_path / "table.safetensors")
    loaded = EmbeddingTable.load(tmp_path / "table.safetensors")
    before, after = table.frame_part, loaded.frame_part
    assert torch.equal(after.text_event, before.text_event)
    assert all(torch.equal(found, kept) for found, kept in zip(after.frames, before.frames, strict=True))
    for part in ("embeddings", "clips", "groups"):
        kept, found = getattr(table, part), getattr(loaded, part)
        assert set(found) == set(kept) and all(torch.equal(found[name], kept[name]) for name in kept)
    assert evaluate_table(loaded).directions == evaluate_table(table).directions
    assert loaded.pairs == table.pairs and loaded.frame_seconds == table.frame_seconds
    assert loaded.events == table.events and loaded.texts == table.texts and loaded.clip_ids == table.clip_ids


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_ids": ["a", "a", "c"]}, "different"),
        ({"pairs": [("audio", "text_title")]}, "pairs name .'text_title'."),
        ({"embeddings": {"audio": torch.eye(3), "text_audio": torch.eye(3)[:2]}}, r"expected clips int64 \(2,\)"),
        ({"embeddings": {"audio": torch.eye(3), "text_audio": torch.ones(3, 4)}}, "dimensions"),
        ({"embeddings": {"audio": torch.eye(3) / 0, "text_audio": torch.eye(3)}}, "finite"),
        ({"clips": {"audio": torch.tensor([0, 1, 3]), "text_audio": torch.arange(3)}}, "outside"),
        ({"groups": {"audio": torch.arange(3)}}, "no groups"),
        ({"texts": {"text_audio": ["x"]}}, "1 texts for 3 rows"),
        ({"texts": {"text_video": ["x"]}}, "no embeddings"),
        ({"frames": [torch.zeros(5, 2)] * 3}, "frames need"),
    ],
)
def test_a_table_that_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": [torch.zeros(5, 32)] * 59}, "frames of 59 clips"),
        ({"frames": [torch.zeros(5, 31)] * 60}, r"expected frames \(T, 32\)"),
        ({"frames": [torch.full((5, 32), torch.nan)] * 60}, "finite"),
        ({"phrases": PHRASES[:-1]}, "text_event"),
        ({"phrases": ["Siren.", *PHRASES[1:]]}, "phrases are not all different"),
        ({"frame_seconds": 0.0}, "frame_seconds"),
        ({"logit_scale": -1.0}, "logit_scale"),
        ({"events": [None]}, "events for 1 clips"),
        ({"events": [[("meow", 0.0, 1.0)], *[None] * 59]}, "'meow'"),
        ({"events": [[(PHRASES[0], 2.0, 1.0)], *[None] * 59]}, "runs from 2.0 to 1.0"),
    ],
)
def test_frames_that_do_not_fit_together_are_refused(table, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(table, **changes)
