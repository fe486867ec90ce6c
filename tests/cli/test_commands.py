"""The command line, run as a user runs it: real data, real training, in a process of its own where that matters."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

from peav.cli.main import main
from peav.data.media.decode import decode_counts
from peav.training import PeavModule

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "experiments/tiny_cpu.yaml")


def overrides(data: Path, out: Path, *more: str) -> list[str]:
    """Options that point tiny_cpu.yaml at a small world and shorten it."""
    return [
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=2",
        "--trainer.limit_val_batches=1",
        "--trainer.check_val_every_n_epoch=1",
        f"--trainer.default_root_dir={out}",
        "--trainer.logger=false",
        f"--data.data={data}",
        "--data.batch_size=8",
        "--data.num_workers=0",
        f"--model.encoders.text.init_args.tokenizer={data / 'tokenizer.json'}",
        *more,
    ]


def checkpoint_in(folder: Path) -> Path:
    return next(folder.glob("**/*.ckpt"))


def test_plugins_says_what_is_registered_and_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    for name in ("MelAudioEncoder", "SegmentPair", "FrameAlignment", "peav"):
        assert name in words


def test_prepare_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 1
    assert "no folder" in capsys.readouterr().err


def test_fit_test_predict_and_evaluate(world: Path, tmp_path: Path) -> None:
    """Every command on one run."""
    run = tmp_path / "run"
    assert main(["fit", "--config", TINY, *overrides(world, run)]) == 0
    checkpoint = run / "checkpoints/last.ckpt"
    for command in ("validate", "test", "predict"):
        assert main([command, "--config", TINY, *overrides(world, run), f"--ckpt_path={checkpoint}"]) == 0
    with safe_open(run / "embeddings-0.safetensors", "pt") as file:
        ids = json.loads(file.metadata()["ids"])
        assert file.get_tensor("audio").shape == (len(ids), 128)
        assert file.get_tensor("audio.present").dtype == torch.bool
    out = tmp_path / "evaluated"
    assert main(["evaluate", str(checkpoint), str(world), "--out", str(out), "--control", str(checkpoint)]) == 0
    results = json.loads((out / "evaluation.json").read_text())
    assert {"text_audio->audio", "text_video->video", "audio->video", "audio_plus_text->video"} <= set(
        results["directions"]
    )
    assert 0 <= results["frames"]["macro"] <= 1
    assert "R@1" in (out / "evaluation.md").read_text()
    report = (out / "report.html").read_text()
    assert "Control" in report and re.search(r"licences.*not said: \d+ clips", report, re.DOTALL)
    assert (out / "overview.png").stat().st_size > 10_000


def test_null_removes_a_pair(world: Path, tmp_path: Path) -> None:
    assert main(["fit", "--config", TINY, *overrides(world, tmp_path, "--model.objectives.audio_video=null")]) == 0
    module = PeavModule.load_from_checkpoint(checkpoint_in(tmp_path), weights_only=True)
    assert "audio_video" not in module.objectives
    assert len(module.objectives) == 10
    assert "audio_video" in module.model.embedding_names  # the fusion pairs are still there


def test_without_video_objectives_no_video_is_decoded_and_no_video_encoder_built(world: Path, tmp_path: Path) -> None:
    with open(TINY) as stream:
        objectives = yaml.safe_load(stream)["model"]["objectives"]
    gone = [f"--model.objectives.{name}=null" for name in objectives if name not in ("audio", "frame")]
    before = decode_counts()
    assert main(["fit", "--config", TINY, *overrides(world, tmp_path, *gone)]) == 0
    after = decode_counts()
    assert after["video"] == before["video"]
    assert after["audio"] > before["audio"]
    module = PeavModule.load_from_checkpoint(checkpoint_in(tmp_path), weights_only=True)
    assert set(module.model.encoders) == {"audio", "text"}


def fails(args: list[str]) -> str:
    """Runs `peav` in a process and returns what it printed when it failed."""
    command = [sys.executable, "-m", "peav.cli.main", *args]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode != 0
    return result.stderr


def test_a_yaml_with_an_unknown_objective_suggests_the_name(world: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(Path(TINY).read_text())
    config["model"]["objectives"]["audio_video"]["class_path"] = "SegmentPear"
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(config))
    assert "Did you mean 'SegmentPair'?" in fails(["fit", "--config", str(path), *overrides(world, tmp_path)])


def test_an_objective_whose_embeddings_nobody_provides_is_refused(world: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(Path(TINY).read_text())
    del config["model"]["encoders"]["video"]
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(config))
    message = fails(["fit", "--config", str(path), *overrides(world, tmp_path)])
    assert "reads 'video', but the encoders provide" in message
    assert "Traceback" not in message


def test_data_that_were_never_prepared_are_named(tmp_path: Path, world: Path) -> None:
    missing = tmp_path / "nowhere"
    options = [o for o in overrides(world, tmp_path) if not o.startswith("--data.data")]
    assert str(missing) in fails(["fit", "--config", TINY, *options, f"--data.data={missing}"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "domain_weights={speach: 2}",
            "domain_weights names 'speach', but the domains are 'effects', 'music', 'speech'",
        ),
        ("domain_weights={speech: 2}", "domain_weights must give each domain a weight"),
        ("origin_weights={reel: 1}", "origin_weights names 'reel', but the origins are 'real', 'synthetic'"),
        ("num_buckets=0", "num_buckets must be at least 1, got 0"),
        ("modality_dropout={audio: 0.7, video: 0.7}", "the sum of modality_dropout must be from 0 to 1"),
        ("batch_size=4096", "too few for a batch of 4096"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_a_sentence(
    world: Path, tmp_path: Path, option: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", TINY, *overrides(world, tmp_path), f"--data.{option}"]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("peav fit: ") and message in said


def test_shards_that_were_moved_are_named_also_from_a_worker(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(world, tmp_path / "data")
    assert main(["data", "split", str(data), str(tmp_path / "split"), "--validation=0.2", "--test=0.2"]) == 0
    data.rename(tmp_path / "moved")
    options = [*overrides(tmp_path / "split", tmp_path), "--data.num_workers=1"]
    assert main(["fit", "--config", TINY, *options]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("peav fit: no folder") and "if they were moved, move them back" in said


def test_choices_of_normalizing_need_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(tmp_path), str(tmp_path / "out"), "--normalize_size=64"]) == 1
    assert "give --normalize true too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit", "--config", TINY, "--trainer.max_epoch=1"], "max_epoch"),
        (["fit", "--config", TINY, "--model.objectives.audio_vidoe=null"], "Did you mean 'audio_video'?"),
        (["predict", "--config", TINY], "needs a trained model"),
    ],
)
def test_what_would_run_something_else_is_refused(args: list[str], message: str, tmp_path: Path) -> None:
    assert message in fails([*args, f"--trainer.default_root_dir={tmp_path}"])


def test_a_checkpoint_that_is_not_ours_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}}, path)
    assert main(["evaluate", str(path), str(tmp_path)]) == 1
    assert "is not a checkpoint of `peav fit`" in capsys.readouterr().err


def test_the_history_of_a_resumed_run_is_whole(tmp_path: Path) -> None:
    from peav.cli.evaluate import read_history

    for version, steps in ((0, range(5)), (1, range(3, 8))):
        folder = tmp_path / f"csv/version_{version}"
        folder.mkdir(parents=True)
        rows = [f"{step},{10 * version + step}" for step in steps]
        (folder / "metrics.csv").write_text("\n".join(["step,train/loss", *rows]))
        os.utime(folder / "metrics.csv", (version, version))
    (tmp_path / "checkpoints").mkdir()
    history = read_history(tmp_path / "checkpoints/last.ckpt")
    assert history == {"train/loss": [(0, 0), (1, 1), (2, 2), (3, 13), (4, 14), (5, 15), (6, 16), (7, 17)]}


def test_gradient_norms_are_logged_in_training_every_so_many_steps(world: Path, tmp_path: Path) -> None:
    gone = [f"--model.objectives.{name}=null" for name in pairs() if name not in ("audio", "frame")]
    options = [
        option for option in overrides(world, tmp_path) if "logger" not in option and "train_batches" not in option
    ]
    logs = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}", "--trainer.log_every_n_steps=1"]
    words = ["--trainer.limit_train_batches=4", "--model.log_gradient_norms=2", *gone, *options, *logs]
    assert main(["fit", "--config", TINY, *words]) == 0
    with next(tmp_path.rglob("metrics.csv")).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    steps = {int(row["step"]): row for row in rows if row["train/loss"]}
    for name in ("audio", "frame"):
        norms = [float(steps[step][f"train/{name}/gradient_norm"]) for step in range(4)]
        # Lightning's loggers repeat what was logged last.
        assert norms[0] == norms[1] != norms[2] == norms[3] and min(norms) > 0
    assert not [column for column in rows[0] if column.startswith("validation/") and "norm" in column]


def pairs() -> list[str]:
    """The objectives of tiny_cpu.yaml."""
    return list(yaml.safe_load(Path(TINY).read_text())["model"]["objectives"])


def test_evaluation_sees_clips_as_the_run_did(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not given follows the checkpoint; other frames than it was trained on are said, and impossible ones refused."""
    quiet = "--trainer.enable_progress_bar=false"
    base = ["--config", TINY, *overrides(world, tmp_path / "run", quiet, "--data.num_frames=null")]
    assert main(["fit", *base, "--data.fps=2"]) == 0
    checkpoint = f"--ckpt_path={tmp_path / 'run/checkpoints/last.ckpt'}"
    losses = []
    for more in ([], ["--data.fps=2"], ["--data.num_frames=5"]):
        capsys.readouterr()
        assert main(["validate", *base, checkpoint, *more]) == 0
        said = capsys.readouterr()
        losses.append([line for line in said.out.splitlines() if "validation/loss " in line])
        warned = "the model was trained on clips of num_frames=None, fps=2.0; here they are num_frames=5, fps=None"
        assert (warned in " ".join(said.err.split())) == bool(more == ["--data.num_frames=5"])
    assert losses[0] == losses[1] != losses[2]
    for impossible, message in (
        ("--data.fps=0", "fps must be positive, got 0"),
        ("--data.frame_size=0", "frame_size and"),
    ):
        other = ["--config", TINY, *overrides(world, tmp_path / "other", quiet, impossible)]
        assert main(["fit", *other]) == 1
        assert message in capsys.readouterr().err
