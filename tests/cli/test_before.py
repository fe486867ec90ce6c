"""Retrieval is guarded: `peav evaluate` of a run that went on from a checkpoint shows retrieval before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peav.cli.main import main
from peav.evaluation.before import BeforeAfter
from peav.evaluation.directions import Direction, Evaluation
from peav.evaluation.intervals import Queries
from tests.cli.test_commands import TINY, overrides

SOUND_ALONE = [
    f"--model.objectives.{name}=null"
    for name in (
        *("audio_video", "both_by_audio_caption", "both_by_audio_video_caption", "video_by_audio_caption", "video"),
        *("video_by_audio_video_caption", "audio_plus_text", "video_plus_text", "audio_by_audio_video_caption"),
    )
]


@pytest.fixture(scope="module")
def runs(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A segment-level checkpoint, and that of a frame-level run which goes on from it."""
    folder = tmp_path_factory.mktemp("runs")
    first = [
        "fit",
        "--config",
        TINY,
        *overrides(world, folder / "segment", *SOUND_ALONE, "--model.objectives.frame=null"),
    ]
    assert main(first) == 0
    segment = folder / "segment/checkpoints/last.ckpt"
    words = [word for word in overrides(world, folder / "frame", *SOUND_ALONE) if "tokenizer" not in word]
    words += [f"--model.init_from={segment}", "--model.encoders=null", "--model.embedding_dim=null"]
    assert main(["fit", "--config", TINY, *words]) == 0
    return segment, folder / "frame/checkpoints/last.ckpt"


def evaluate(model: Path, world: Path, out: Path, *more: str) -> dict[str, Any]:
    words = ["evaluate", str(model), str(world), f"--out={out}", "--num_workers=0", *more]
    assert main(words) == 0
    return json.loads((out / "evaluation.json").read_text())


def test_a_run_that_went_on_from_a_checkpoint_shows_it_beside(
    runs: tuple[Path, Path], world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segment, frame = runs
    found = evaluate(frame, world, tmp_path / "after")
    printed = " ".join(capsys.readouterr().out.split())
    assert "Retrieval before and after" in printed and "since segment beyond what chance" in printed
    # As two evaluations and `peav compare` say it.
    alone = evaluate(segment, world, tmp_path / "before")
    assert "before" not in alone and found["before"]["path"] == str(segment.resolve())
    results = [str(tmp_path / name / "evaluation.json") for name in ("before", "after")]
    assert main(["compare", *results]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(found["before"]["differences"]) == len(alone["directions"]) > 1
    for difference in found["before"]["differences"]:
        name = difference["name"]
        assert difference["first"] == alone["directions"][name]["plain"]["R@1"]
        assert difference["second"] == found["directions"][name]["plain"]["R@1"]
        row = next(line for line in lines if line.startswith(f"| {name} |"))
        low, high = (100 * end for end in difference["interval"])
        assert f"({low:+.1f} to {high:+.1f}, p = {difference['p_value']:.3f})" in row
    report = (tmp_path / "after/report.html").read_text()
    assert (
        "<h2>Retrieval before and after</h2>" in report
        and "before and after" not in (tmp_path / "before/report.html").read_text()
    )
    markdown = (tmp_path / "after/evaluation.md").read_text()
    assert "\n\n## Retrieval before and after\n\n" in markdown and "| R@1 before | R@1 after |" in markdown


def test_it_may_be_named_left_out_or_gone(
    runs: tuple[Path, Path],
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    segment, frame = runs
    cache = f"--cache={tmp_path / 'cache'}"
    named = evaluate(segment, world, tmp_path / "named", f"--before={frame}", cache)["before"]
    assert named["path"] == str(frame) and named["differences"]
    assert "before" not in evaluate(frame, world, tmp_path / "none", "--before=none", cache)
    saved = torch.load(frame, weights_only=True)
    assert saved["started_from"] == str(segment.resolve())
    gone = tmp_path / "gone/checkpoints/last.ckpt"
    gone.parent.mkdir(parents=True)
    torch.save({**saved, "started_from": "facebook/pe-av-small"}, gone)
    assert "before" not in evaluate(gone, world, tmp_path / "away", cache)
    assert "training began from facebook/pe-av-small, which is not on this machine" in caplog.text
    words = ["evaluate", str(frame), str(world), f"--out={tmp_path / 'x'}", "--before=nowhere.ckpt", "--num_workers=0"]
    assert main([*words, cache]) == 1
    assert "nowhere.ckpt" in capsys.readouterr().err


def test_a_resumed_run_still_says_what_it_began_from(runs: tuple[Path, Path], world: Path, tmp_path: Path) -> None:
    segment, frame = runs
    words = [word for word in overrides(world, tmp_path, *SOUND_ALONE) if "tokenizer" not in word]
    words += [f"--model.init_from={segment}", "--model.encoders=null", "--model.embedding_dim=null"]
    words[0] = "--trainer.max_epochs=2"
    assert main(["fit", "--config", TINY, *words, f"--ckpt_path={frame}"]) == 0
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert saved["epoch"] == 1 and saved["started_from"] == str(segment.resolve())


def evaluation(ranks: dict[str, np.ndarray]) -> tuple[Evaluation, dict[str, Queries]]:
    """Directions of 200 clips with a query each."""
    directions = {}
    for name, found in ranks.items():
        plain = {"R@1": float((found == 1).mean())}
        directions[name] = Direction(plain, plain, len(found))
    queries = {name: Queries(np.arange(len(found)), found, found) for name, found in ranks.items()}
    return Evaluation(200, directions), queries


def test_what_fell_beyond_chance_is_named_and_what_is_lost() -> None:
    half, worse = np.tile([1, 2], 100), np.tile([1, 2, 2, 2], 50)
    before = evaluation({"a->b": half, "b->a": half, "gone->a": half})
    kept = BeforeAfter.of(
        "old", "old.ckpt", before, evaluation({"a->b": half, "b->a": worse}), [str(i) for i in range(200)]
    )
    assert [found.name for found in kept.fallen] == ["b->a"] and kept.lost == ["gone->a"]
    assert "fell since old, beyond what chance over the clips explains: b->a by 25.0 points." in kept.sentence()
    assert "No longer trained, and so not compared: gone->a." in kept.sentence()
    assert kept.rows()[0] == ("a->b", "50.0", "50.0", "+0.0", "+0.0 to +0.0", "1.000")
    none = BeforeAfter.of("old", "old.ckpt", before, evaluation({}), [])
    assert none.sentence().startswith("Retrieval is not kept: no direction of old is left.") and not none.rows()
