"""What validation and test report: means over the pairs of a split, at the weights that the checkpoint's step has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from peav.objectives import CaptionPair, SegmentPair
from peav.testing import GlooPool, tiny_batch
from peav.training import PeavModule
from peav.training.means import EvaluationMeans
from peav.types import Batch
from tests.helpers import small_encoders


def without_captions(batch: Batch) -> Batch:
    """The same clips, none of which has an audio caption."""
    captions = batch.captions["audio"]
    absent = replace(captions, present=torch.zeros_like(captions.present))
    return replace(batch, captions={**batch.captions, "audio": absent})


def make(weight: Any = 1.0) -> PeavModule:
    torch.manual_seed(0)
    objectives = {"audio": CaptionPair("audio", "audio", weight=weight), "audio_video": SegmentPair("audio", "video")}
    return PeavModule(small_encoders(), objectives, embedding_dim=8, warmup_steps=1)  # type: ignore[arg-type]


def trainer(folder: Path, **options: Any) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", default_root_dir=folder, **quiet, **options)


def loader(batches: list[Batch]) -> Any:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_a_batch_without_a_pair_changes_no_mean(tmp_path: Path, stage: str) -> None:
    module, run = make(), trainer(tmp_path)
    evaluate = run.validate if stage == "validation" else run.test
    batches = [tiny_batch(4), tiny_batch(8, seed=1)]
    (alone,) = evaluate(module, loader(batches), verbose=False)
    (mixed,) = evaluate(module, loader([without_captions(tiny_batch(6, seed=2)), *batches]), verbose=False)
    assert mixed[f"{stage}/audio/loss"] == pytest.approx(alone[f"{stage}/audio/loss"], rel=1e-6)
    assert mixed[f"{stage}/audio_video/loss"] != alone[f"{stage}/audio_video/loss"]
    parts = [evaluate(module, loader([batch]), verbose=False)[0][f"{stage}/audio/loss"] for batch in batches]
    counts = [int(batch.captions["audio"].present.sum()) for batch in batches]
    expected = sum(part * count for part, count in zip(parts, counts, strict=True)) / sum(counts)
    assert counts[0] != counts[1] and alone[f"{stage}/audio/loss"] == pytest.approx(expected, rel=1e-6)
    assert mixed[f"{stage}/loss"] == pytest.approx(
        mixed[f"{stage}/audio/loss"] + mixed[f"{stage}/audio_video/loss"], rel=1e-6
    )
    (none,) = evaluate(module, loader([without_captions(batch) for batch in batches]), verbose=False)
    assert f"{stage}/audio/loss" not in none
    assert none[f"{stage}/loss"] == pytest.approx(none[f"{stage}/audio_video/loss"], rel=1e-6)


def test_a_checkpoint_is_validated_at_the_weights_of_its_step(tmp_path: Path) -> None:
    schedule = [[0, 0.0], [3, 3.0]]
    module, run = make(schedule), trainer(tmp_path, max_steps=3, enable_checkpointing=False)
    run.fit(module, loader([tiny_batch(8)] * 3))
    run.save_checkpoint(tmp_path / "three.ckpt")
    (after,) = run.validate(module, loader([tiny_batch(8)]), verbose=False)
    (read,) = trainer(tmp_path).validate(
        make(schedule), loader([tiny_batch(8)]), tmp_path / "three.ckpt", verbose=False, weights_only=True
    )
    loaded = PeavModule.load_from_checkpoint(tmp_path / "three.ckpt", weights_only=True)
    (again,) = trainer(tmp_path).test(loaded, loader([tiny_batch(8)]), verbose=False)
    assert read["validation/loss"] == pytest.approx(
        3 * read["validation/audio/loss"] + read["validation/audio_video/loss"], rel=1e-6
    )
    assert after == read and again["test/loss"] == read["validation/loss"]


def _means_of_a_rank(rank: int, rows: list[list[tuple[float, int]]]) -> dict[str, float]:
    means = EvaluationMeans()
    for loss, count in rows[rank]:
        means.add({"pair": torch.tensor(loss)}, {"pair": torch.tensor(count)})
    return means.compute()


def test_ranks_agree_on_the_mean_of_the_global_batches(gloo: GlooPool) -> None:
    """Each rank's loss is its share, times the ranks; the counts are those of the global batches."""
    rows = [[(2.0, 3), (0.0, 0), (7.0, 1)], [(4.0, 3), (0.0, 0), (1.0, 1)]]
    found = gloo.run(_means_of_a_rank, rows)
    assert list(found) == [{"pair": (3.0 * 3 + 4.0) / 4}] * 2
