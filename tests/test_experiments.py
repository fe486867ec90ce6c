"""Every YAML under experiments/ says what it is and can be instantiated, overlays on top of the experiment they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

import peav.registry
from peav.cli.lightning import PeavCLI
from peav.data.datamodule import ClipDataModule
from peav.training import PeavModule
from tests.helpers import small_tokenizer

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
FILES = sorted(path.relative_to(EXPERIMENTS) for path in EXPERIMENTS.rglob("*.yaml"))
BASE = Path("tiny_cpu.yaml")

#: What each file must leave to train; a file that is not listed fails.
OBJECTIVES = {
    "tiny_cpu.yaml": 11,
    "tiny_cpu_control.yaml": 11,
    "ablation_pairs/pair_1.yaml": 1,
    "ablation_pairs/pairs_1_to_8.yaml": 8,
}


def build(path: Path, folder: Path) -> PeavCLI:
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(small_tokenizer())
    files = [BASE] if path == BASE else [BASE, path]
    return PeavCLI(
        PeavModule,
        ClipDataModule,
        args=[
            *(f"--config={EXPERIMENTS / file}" for file in files),
            f"--model.encoders.text.init_args.tokenizer={tokenizer}",
            f"--trainer.default_root_dir={folder}",
        ],
        run=False,
        save_config_callback=None,
        auto_configure_optimizers=False,
    )


@pytest.mark.parametrize("path", FILES, ids=str)
def test_an_experiment_can_be_instantiated(path: Path, tmp_path: Path) -> None:
    cli = build(path, tmp_path)
    assert len(cli.model.objectives) == OBJECTIVES[str(path)]
    assert peav.registry.objectives


@pytest.mark.parametrize("path", FILES, ids=str)
def test_an_experiment_says_what_it_is(path: Path) -> None:
    head = " ".join((EXPERIMENTS / path).read_text().splitlines()[:6])
    for word in ("What:", "Runs on:", "Takes:", "Reaches:"):
        assert word in head, f"{path} lacks {word!r} in its first lines"


def test_the_control_shuffles_and_the_ablation_keeps_an_untrained_video(tmp_path: Path) -> None:
    assert build(Path("tiny_cpu_control.yaml"), tmp_path).datamodule.shuffle_pairing
    model = build(Path("ablation_pairs/pair_1.yaml"), tmp_path).model
    assert "video" in model.model.embedding_names
    assert model.batch_fields == {"audio", "captions.audio"}


def test_the_ten_pairs_are_those_of_the_paper(tmp_path: Path) -> None:
    pairs = {o.requires for o in build(BASE, tmp_path).model.objectives.values()}
    assert pairs == {
        ("audio", "text_audio"),
        ("audio", "video"),
        ("audio", "text_audio_video"),
        ("audio_video", "text_audio"),
        ("audio_video", "text_audio_video"),
        ("video", "text_audio"),
        ("video", "text_video"),
        ("video", "text_audio_video"),
        ("audio_plus_text", "video"),
        ("video_plus_text", "audio"),
        ("audio", "text_event"),
    }
