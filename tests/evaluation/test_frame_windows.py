"""Frames of clips longer than a window are those that `PEAV.detect` hears, whatever is done to pooled embeddings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from peav.checkpoints import DetectionSettings
from peav.data.loading.decoding import ClipReader
from peav.evaluation.collect import PassOptions, Split
from peav.evaluation.detection import Collar, ScoredClip, absent_counts, f1_score, false_alarms
from peav.evaluation.known import known_phrases
from peav.evaluation.models import PeavModel
from peav.evaluation.result import describe_protocol
from peav.evaluation.run import Evaluated, evaluate_split
from peav.model import PEAV
from tests.helpers import SMALL_ENCODERS
from tests.inputs.helpers import CLOSE, HOP, RATE, MediaSettings

WINDOW, OVERLAP = 12 * HOP, 4 * HOP  # 1.44 s; the world's clips last 4 to 5 s


def make(**settings: Any) -> PEAV:
    torch.manual_seed(2)
    encoders = {"audio": SMALL_ENCODERS["DacAudioEncoder"](), "text": SMALL_ENCODERS["TextEncoder"]()}
    media = MediaSettings(sample_rate=RATE, frame_size=32)
    model = PEAV(encoders, ["audio", "text_event"], 8, frames=["audio"], pairs=[("audio", "text_event")], media=media)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "frontend" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.set_score(("audio", "text_event"), torch.tensor([4.0]), torch.tensor([-0.1]))
    if settings:
        model.detection = DetectionSettings(0.45, **settings)
    return model.eval()


def run(model: PEAV, world: Path, cache: Path, **options: float) -> Evaluated:
    how = PassOptions(num_workers=0, progress=False, **options)  # type: ignore[arg-type]
    return evaluate_split(PeavModel(model), Split(world, "validation"), cache, how)


@pytest.fixture(scope="module")
def windowed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PEAV, Evaluated]:
    model = make(window_seconds=WINDOW, overlap_seconds=OVERLAP, merge_seconds=0.2)
    return model, run(model, world, tmp_path_factory.mktemp("cache"))


def test_frames_are_those_of_the_stored_windows_and_pooled_ones_those_of_the_whole(
    windowed: tuple[PEAV, Evaluated], world: Path, tmp_path: Path
) -> None:
    model, found = windowed
    whole = run(make(), world, tmp_path)  # by default a window is 30 s
    split, part = Split(world, "validation"), found.table.frame_part
    reader = ClipReader(split.data, PeavModel(model).settings)
    for row, clip in enumerate(split):
        sound: dict[str, Any] = {"audio": reader.samples(clip).numpy(), "sample_rate": RATE}
        heard = model.embed(**sound, window_seconds=WINDOW, overlap_seconds=OVERLAP)
        frames = part.frames[row]
        assert frames is not None
        torch.testing.assert_close(frames, heard["audio_frames"][0], **CLOSE)
        torch.testing.assert_close(found.table.embeddings["audio"][row], model.embed(**sound)["audio"][0], **CLOSE)
        other = whole.table.frame_part.frames[row]
        assert other is not None and other.shape == frames.shape and (other - frames).abs().max() > 0.01


def test_f1_and_false_alarms_are_those_of_what_detect_finds(windowed: tuple[PEAV, Evaluated], world: Path) -> None:
    model, found = windowed
    split, part = Split(world, "validation"), found.table.frame_part
    reader = ClipReader(split.data, PeavModel(model).settings)
    known = known_phrases(list(split), part.phrases, split.labels).numpy()
    scored = []
    for row, clip in enumerate(split):
        spans = model.detect(reader.samples(clip).numpy(), list(part.phrases), sample_rate=RATE)[0]
        frames = part.frames[row]
        assert frames is not None
        middle = (torch.arange(len(frames)) + 0.5) * HOP
        on = [sum(((s.onset < middle) & (middle < s.offset)).double() for s in of) + 0 * middle for of in spans]
        events = [(part.phrases.index(p), a, b) for p, a, b in part.events[row] or [] if a < b]
        times = torch.arange(len(frames) + 1).double() * HOP
        scored.append(ScoredClip(torch.stack(on, 1).double().numpy(), times.numpy(), events, known[row]))
    level = found.evaluation.frames
    assert level is not None and level.metrics["event_f1"] == pytest.approx(f1_score(scored, Collar(), 0.5).macro)
    alarms = false_alarms(absent_counts(scored, 0.5).sum(0)).per_hour
    assert alarms and level.metrics["false_alarms_per_hour"] == pytest.approx(alarms)


def test_averaged_windows_leave_frames_as_they_are(
    windowed: tuple[PEAV, Evaluated], world: Path, tmp_path: Path
) -> None:
    model, found = windowed
    averaged = run(model, world, tmp_path, window_seconds=2.0)
    for mine, theirs in zip(averaged.table.frame_part.frames, found.table.frame_part.frames, strict=True):
        assert mine is not None and theirs is not None
        torch.testing.assert_close(mine, theirs, **CLOSE)
    assert (averaged.table.embeddings["audio"] - found.table.embeddings["audio"]).abs().max() > 0.001
    assert describe_protocol(PeavModel(model), PassOptions())["frame_windows"] == [WINDOW, OVERLAP]


def test_embeddings_of_other_windows_are_not_taken_for_these(
    windowed: tuple[PEAV, Evaluated], world: Path, tmp_path: Path
) -> None:
    model, _ = windowed
    run(model, world, tmp_path)
    assert model.detection is not None
    model.detection = replace(model.detection, merge_seconds=0.0)
    try:
        # What makes spans of frames changes no frame.
        assert run(model, world, tmp_path).work.clips == 0
        model.detection = replace(model.detection, window_seconds=2 * WINDOW)
        assert run(model, world, tmp_path).work.clips == len(Split(world, "validation"))
    finally:
        model.detection = replace(model.detection, window_seconds=WINDOW, merge_seconds=0.2)
