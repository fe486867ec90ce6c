"""Frame AUROC and PSDS1 of a validation: those of the pure functions, of so many clips, on any number of ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from peav.evaluation.detection import PSDS1, ScoredClip, frame_roc, psds
from peav.objectives import FrameAlignment, Objective, SegmentPair
from peav.testing import GlooPool, tiny_batch
from peav.testing.rows import take
from peav.training import PeavModule
from peav.training.frame_metrics import FrameMetrics
from peav.types import Batch
from tests.helpers import small_encoders
from tests.objectives import frames
from tests.objectives.frames import states
from tests.training.test_means import loader, trainer


def module(**options: Any) -> PeavModule:
    torch.manual_seed(0)
    objectives: dict[str, Objective | None] = {
        "frame": FrameAlignment(scale=5.0),
        "pair": SegmentPair("audio", "video"),
    }
    return PeavModule(small_encoders(), objectives, embedding_dim=8, warmup_steps=1, **options)


def expected(model: PeavModule, batches: list[Batch], clips: int) -> dict[str, float]:
    """By the definition, of the first clips of tiny batches, which have three phrases and strong labels."""
    found: list[ScoredClip] = []
    for batch in batches:
        with torch.no_grad():
            made = model.model.embed_batch(batch, ["audio", "text_event"], ["audio"])
        values, mask, events = made["audio"].frames, made["audio"].mask, batch.events
        assert values is not None and mask is not None and events is not None
        for clip in range(len(batch)):
            if events.annotated[clip] and len(found) < clips:
                scores = (made["text_event"].pooled @ values[clip][mask[clip]].T).T.numpy()
                mine = [(int(p), 0.04, 0.2) for c, p in zip(events.clip, events.phrase, strict=True) if c == clip]
                found.append(ScoredClip(scores, np.arange(len(scores) + 1) * hop(made["audio"].frame_seconds), mine))
    values_ = {"auroc": frame_roc(found).macro, "psds1": psds(found, PSDS1).value}
    return {name: float(value) for name, value in values_.items() if value is not None}


def hop(seconds: Any) -> float:
    return round(float(torch.as_tensor(seconds).flatten()[0]), 6)


@pytest.mark.parametrize("clips", [128, 9])
def test_a_validation_logs_what_the_definitions_say(tmp_path: Path, clips: int) -> None:
    model, batches = module(validated_frames=clips), [tiny_batch(8), tiny_batch(6, seed=1)]
    (found,) = trainer(tmp_path).validate(model, loader(batches), verbose=False)
    wanted = expected(model.eval(), batches, clips)
    assert set(wanted) == {"auroc", "psds1"}
    for name, value in wanted.items():
        assert found[f"validation/frame/{name}"] == pytest.approx(value, abs=1e-6)
    assert not any("pair/auroc" in name for name in found)


def test_no_clips_no_metrics(tmp_path: Path) -> None:
    (found,) = trainer(tmp_path).validate(module(validated_frames=0), loader([tiny_batch(8)]), verbose=False)
    assert "validation/frame/loss" in found and "validation/frame/auroc" not in found
    with pytest.raises(ValueError, match="validated_frames must be a number of clips, or 0 for none, not -1"):
        module(validated_frames=-1)
    unknown = tiny_batch(8)
    assert unknown.events is not None
    unknown = replace(unknown, events=replace(unknown.events, annotated=torch.zeros(8, dtype=torch.bool)))
    (found,) = trainer(tmp_path).validate(module(), loader([unknown]), verbose=False)
    assert "validation/frame/auroc" not in found


def collected(bounds: list[int], seed: int, parts: int = 1) -> FrameMetrics:
    """Metrics of some clips, which come in so many batches, each with the phrases of its own clips."""
    metrics = FrameMetrics(frames.make(), 100)
    embeddings, events = frames.rich_embeddings(seed), frames.rich_events(seed)
    for rows in torch.arange(*bounds).tensor_split(parts):
        if not len(rows):
            continue
        own = events.of_clips(rows)
        held = torch.tensor(sorted(set(own.phrase.tolist()), reverse=True), dtype=torch.int64)
        place = torch.full((frames.PHRASES,), -1)
        place[held] = torch.arange(len(held))
        assert events.members is not None and events.lineage is not None and events.bank is not None
        own = replace(
            own,
            phrases=take(own.phrases, held),
            phrase=place[own.phrase],
            members=events.members[held],
            lineage=events.lineage[held],
            bank=events.bank[held],
        )
        metrics.add({"audio": take(embeddings["audio"], rows), "text_event": take(embeddings["text_event"], held)}, own)
    return metrics


def on_rank(rank: int, bounds: list[int], seed: int) -> dict[str, float]:
    return collected(bounds[rank : rank + 2], seed, 2).compute()


@pytest.mark.parametrize("bounds", [[0, 4, 11], [0, 11, 11]])
def test_ranks_find_what_one_process_finds(gloo: GlooPool, bounds: list[int]) -> None:
    """Weak, soft and unknown labels; also where the second rank has no clip at all."""
    for seed in range(2):
        whole = collected([0, 11], seed).compute()
        assert set(whole) == {"auroc", "psds1"}
        for found in gloo.run(on_rank, bounds, seed):
            assert found == pytest.approx(whole, abs=1e-6)


def test_what_is_not_known_of_a_clip_is_left_out() -> None:
    events, embeddings = frames.rich_events(), frames.rich_embeddings()
    found = collected([0, 11], 0).compute()
    audio, texts = embeddings["audio"], embeddings["text_event"].pooled[:10]
    assert (
        audio.frames is not None
        and audio.mask is not None
        and events.confidence is not None
        and events.timed is not None
    )
    clips: list[ScoredClip] = []
    for clip in range(11):
        if not (events.annotated[clip] and audio.present[clip] and audio.mask[clip].any()):
            continue
        said = states(events, torch.arange(frames.PHRASES), clip)
        scores: Tensor = (audio.frames[clip][audio.mask[clip]] @ texts.T).float()
        mine = []
        for e in range(60):
            if events.clip[e] == clip and events.timed[e] and events.confidence[e] >= 0.5:
                onset, offset = float(events.onset[e]), min(float(events.offset[e]), len(scores) * frames.HOP)
                mine += [(int(events.phrase[e]), onset, offset)] if onset < offset else []
        known = np.array([said[k][0] in ("STRONG", "ABSENT", "FREE") for k in range(10)])
        clips.append(ScoredClip(scores.numpy(), np.arange(len(scores) + 1) * frames.HOP, mine, known))
    assert found["auroc"] == pytest.approx(frame_roc(clips).macro, abs=1e-6)
    assert found["psds1"] == pytest.approx(psds(clips, PSDS1).value, abs=1e-6)


def test_two_frame_rates_are_named(caplog: pytest.LogCaptureFixture) -> None:
    metrics = collected([0, 4], 0)
    embeddings = frames.rich_embeddings()
    metrics.add({**embeddings, "audio": replace(embeddings["audio"], frame_seconds=0.08)}, frames.rich_events())
    assert metrics.compute() == {}
    assert "want one frame rate, but the hops are [0.04, 0.08] s" in caplog.text
