"""What `peav fit` does with settings that differ from those of the run that it goes on with, and with folders that hold one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from peav.cli.evaluate import read_history
from peav.cli.main import main
from tests.cli.test_commands import TINY, overrides


def options(world: Path, out: Path, *more: str) -> list[str]:
    """`peav fit` of two steps, with logs."""
    logged = [option for option in overrides(world, out) if not option.startswith("--trainer.logger")]
    return ["fit", "--config", TINY, *logged, "--trainer.enable_progress_bar=false", *more]


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main(options(world, folder)) == 0
    return folder


def last(run: Path) -> str:
    return str(run / "checkpoints/last.ckpt")


def written(run: Path) -> dict[str, bytes]:
    """Everything in a run's folder."""
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model.embedding_dim=64"], "model.embedding_dim is 64, it was 128"),
        (["--model.objectives.audio_video=null"], "model.objectives.audio_video is left out"),
        (
            ["--model.objectives.frame.init_args.weight=0.5"],
            "model.objectives.frame.init_args.weight is 0.5, it was 1.0",
        ),
        (["--model.encoders.audio.init_args.num_layers=1"], "model.encoders.audio.init_args.num_layers is 1, it was 2"),
        (["--model.tune=heads"], "model.tune is 'heads', it was 'all'"),
        (["--model.lora_rank=4"], "model.lora_rank is 4, it was 16"),
        (["--model.virtual_batch_size=16"], "model.virtual_batch_size is 16, it was None"),
        (["--seed_everything=1"], "seed_everything is '1', it was '0'"),
        (["--trainer.limit_train_batches=3"], "trainer.limit_train_batches is 3, it was 2"),
        (["--trainer.accumulate_grad_batches=2"], "trainer.accumulate_grad_batches is 2, it was 1"),
        (["--data.batch_size=4"], "data.batch_size times devices is 4, it was 8"),
        (["--data.seed=1"], "data.seed is 1, it was 0"),
        (["--data.num_frames=2"], "data.num_frames is 2, it was 4"),
        (["--data.shuffle_pairing=true"], "data.shuffle_pairing is True, it was False"),
        (["--data.modality_dropout={audio: 0.5}"], "data.modality_dropout is {'audio': 0.5}, it was None"),
    ],
)
def test_what_a_resume_cannot_honour_is_refused_before_anything_is_written(
    world: Path, run: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(run)
    assert main(options(world, run, "--trainer.max_epochs=2", f"--ckpt_path={last(run)}", *more)) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("peav fit: a run cannot go on ") and message in said
    assert "init_from" in said
    assert written(run) == before


@pytest.mark.parametrize(("count", "rest"), [(5, ". Give"), (6, "; and 1 more. Give")])
def test_five_differences_are_named_and_further_ones_counted(
    world: Path, run: Path, count: int, rest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("embedding_dim=64", "objectives.audio_video=null", "tune=heads", "lora_rank=4")
    settings = [*(f"--model.{setting}" for setting in model), "--seed_everything=1", "--trainer.limit_train_batches=3"]
    command = options(world, run, "--trainer.max_epochs=2", f"--ckpt_path={last(run)}", *settings[:count])
    assert main(command) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"seed_everything is '1', it was '0'{rest} those of the run" in said


def test_other_clips_under_the_same_name_are_refused_at_an_epochs_end_too(
    world: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightning hands no place in the data over there, and so nobody asked for the digest."""
    assert main(["data", "split", str(world), str(tmp_path / "other"), "--validation=0.2", "--test=0.2"]) == 0
    other = [
        option for option in options(world, run, "--trainer.max_epochs=2") if not option.startswith("--data.data=")
    ]
    assert main([*other, f"--data.data={tmp_path / 'other'}", f"--ckpt_path={last(run)}"]) == 1
    assert "the run that is resumed had another sequence of batches" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["best", "last", "hpc", "registry", "nowhere.ckpt"])
@pytest.mark.parametrize("command", ["fit", "validate"])
def test_a_checkpoint_is_a_file(
    world: Path, run: Path, command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, *options(world, run)[1:], f"--ckpt_path={name}"]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    expected = "there is no checkpoint nowhere.ckpt" if name == "nowhere.ckpt" else f"--ckpt_path={name} names no file"
    assert said.startswith(f"peav {command}: {expected}")


def test_files_that_are_no_run_are_said_to_be_none(
    world: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    assert main(options(world, tmp_path / "new", f"--ckpt_path={tmp_path / 'other.ckpt'}")) == 1
    assert "is not a checkpoint of `peav fit`" in capsys.readouterr().err
    weights = torch.load(last(run), weights_only=True)
    del weights["optimizer_states"]
    torch.save(weights, tmp_path / "weights.ckpt")
    assert main(options(world, tmp_path / "new", f"--ckpt_path={tmp_path / 'weights.ckpt'}")) == 1
    assert "holds weights alone (save_weights_only)" in capsys.readouterr().err


def test_another_model_is_not_validated_with_a_checkpoint(
    world: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(run)
    command = ["validate", *options(world, run)[1:], f"--ckpt_path={last(run)}"]
    assert main([*command, "--model.embedding_dim=64"]) == 1
    assert "is of another model: model.embedding_dim is 64, it was 128" in capsys.readouterr().err
    assert main([*command, "--model.learning_rate=7"]) == 0
    assert written(run) == before, "a validation is no part of the run's log, and its configuration not the run's"


def test_settings_that_count_from_here_on_are_applied_and_said(
    world: Path, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "longer"
    more = [
        "--model.learning_rate=0.5",
        "--model.weight_decay=0.25",
        "--model.warmup_steps=0",
        "--model.betas=[0.5,0.6]",
    ]
    more += ["--trainer.max_epochs=3", f"--ckpt_path={last(run)}", "--trainer.limit_val_batches=0"]
    assert main(options(world, out, *more)) == 0
    said = caplog.text
    assert "from step 2 on model.learning_rate is 0.5, it was 0.001" in said
    assert "from step 2 on model.weight_decay is 0.25, it was 0.05" in said
    assert "now reaches its end at step 6, before it was 2" in said
    saved = torch.load(last(out), weights_only=True)
    groups = saved["optimizer_states"][0]["param_groups"]
    assert {group["initial_lr"] for group in groups} == {0.5} and {tuple(group["betas"]) for group in groups} == {
        (0.5, 0.6)
    }
    assert sorted({group["weight_decay"] for group in groups}) == [0.0, 0.25]
    assert saved["global_step"] == 6 and groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)
    config = yaml.safe_load(next(out.rglob("config.yaml")).read_text())
    assert config["model"]["learning_rate"] == 0.5 and config["ckpt_path"] == last(run)


def test_a_second_run_takes_the_place_of_a_first_only_when_told_to(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(options(world, out)) == 0
    before = written(out)
    assert main(options(world, out, "--model.learning_rate=0.5")) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        f"{out} holds a run already (last.ckpt): go on with it by --ckpt_path={last(out)}" in said
        and "--overwrite" in said
    )
    assert written(out) == before
    # A run that goes on from elsewhere would overwrite it as well.
    (tmp_path / "elsewhere.ckpt").write_bytes(Path(last(out)).read_bytes())
    assert main(options(world, out, f"--ckpt_path={tmp_path / 'elsewhere.ckpt'}")) == 1
    # One that cannot begin leaves it alone.
    assert main([*options(world, out, "--overwrite"), f"--data.data={tmp_path / 'nowhere'}"]) == 1
    assert written(out).items() >= {key: text for key, text in before.items() if key.endswith(".ckpt")}.items()
    assert main(options(world, out, "--overwrite", "--model.learning_rate=0.5")) == 0
    assert torch.load(last(out), weights_only=True)["hyper_parameters"]["learning_rate"] == 0.5
    assert len(list((out / "csv").iterdir())) == len(list((out / "tensorboard").glob("events.*"))) == 1
    assert yaml.safe_load(next(out.rglob("config.yaml")).read_text())["overwrite"] is False
    assert [step for step, _ in read_history(Path(last(out)))["train/loss"]] == [0, 1]
    assert json.dumps(sorted(path.name for path in out.iterdir())) == json.dumps(["checkpoints", "csv", "tensorboard"])
