"""A caption type of one's own, trained and evaluated from the command line."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from peav.cli.main import main
from peav.data import Caption, open_manifest, save_manifest
from tests.cli.test_commands import TINY, checkpoint_in, overrides


@pytest.fixture(scope="module")
def titled(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world, in which every other clip has a title."""
    data = shutil.copytree(world, tmp_path_factory.mktemp("titled") / "data")
    for split in ("train", "validation", "test"):
        clips = list(open_manifest(data, split))
        titles = [{"title": (Caption(f"{clip.domain} {row}"),)} if row % 2 else {} for row, clip in enumerate(clips)]
        titled = [replace(c, captions={**c.captions, **title}) for c, title in zip(clips, titles, strict=True)]
        save_manifest(data, split, titled)
    return data


def config(path: Path, text: dict[str, Any], **objectives: dict[str, Any]) -> Path:
    """tiny_cpu.yaml with further arguments of its text encoder, and these objectives alone."""
    held = yaml.safe_load(Path(TINY).read_text())
    held["model"]["encoders"]["text"]["init_args"] |= text
    held["model"]["objectives"] = objectives
    path.write_text(yaml.safe_dump(held))
    return path


def pair(medium: str, caption: str) -> dict[str, Any]:
    return {"class_path": "CaptionPair", "init_args": {"medium": medium, "caption": caption, "bias": -2.0}}


def test_titles_train_beside_the_three_types(titled: Path, tmp_path: Path) -> None:
    path = config(
        tmp_path / "mine.yaml",
        {"captions": ["audio", "title"]},
        sound=pair("audio", "audio"),
        named=pair("audio", "title"),
    )
    logs = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}"]
    options = [option for option in overrides(titled, tmp_path / "run") if "logger" not in option]
    assert main(["fit", "--config", str(path), *options, *logs, "--trainer.log_every_n_steps=1"]) == 0
    held = torch.load(checkpoint_in(tmp_path / "run"), weights_only=True)
    assert set(held["hyper_parameters"]["encoders"]) == {"audio", "text"}
    assert held["hyper_parameters"]["encoders"]["text"]["init_args"]["captions"] == ["audio", "title"]
    assert any(name.startswith("model.heads.text_title.") for name in held["state_dict"])
    with next(tmp_path.rglob("metrics.csv")).open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["train/named/loss"]]
    assert len(rows) == 2 and all(float(row["train/named/loss"]) > 0 for row in rows)
    assert float(rows[-1]["train/named/empty_batches"]) == 0
    assert main(["evaluate", str(checkpoint_in(tmp_path / "run")), str(titled), f"--out={tmp_path / 'report'}"]) == 0


def test_only_titles_are_read_where_only_they_are_trained(titled: Path, tmp_path: Path) -> None:
    path = config(tmp_path / "mine.yaml", {"captions": ["title"], "phrases": False}, named=pair("video", "title"))
    assert main(["fit", "--config", str(path), *overrides(titled, tmp_path / "run")]) == 0
    held = torch.load(checkpoint_in(tmp_path / "run"), weights_only=True)
    assert set(held["hyper_parameters"]["encoders"]) == {"video", "text"}


@pytest.mark.parametrize(
    ("captions", "caption", "message"),
    [
        (["audio", "title"], "titel", "reads 'text_titel', but the encoders provide"),
        (None, "title", "reads 'text_title', but the encoders provide"),
        (["my title"], "title", "a word of letters, digits and underscores"),
        (["title"], "my title", "a word of letters, digits and underscores"),
        (["event"], "audio", "no caption type can be called 'event'"),
    ],
)
def test_types_that_cannot_be_are_one_sentence(
    titled: Path,
    tmp_path: Path,
    captions: list[str] | None,
    caption: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = config(tmp_path / "mine.yaml", {"captions": captions}, named=pair("audio", caption))
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(path), *overrides(titled, tmp_path)])
    assert stopped.value.code and message in capsys.readouterr().err
