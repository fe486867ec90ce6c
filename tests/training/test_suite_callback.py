"""`peav fit` with a suite every few steps: logged, the best kept, training untouched by it, also where it was killed, and on ranks."""

from __future__ import annotations

import csv
import json
import signal
import sys
from pathlib import Path

import pytest
import torch

from peav.cli.main import main
from tests.training.test_killed_fit import Runs, ended

SUITE = """
datasets: {world: {folders: [world], reader: {class_path: Folder}}}
tasks:
  by_text: {dataset: world, kind: retrieval, query: text_audio, item: audio, metric: R@10}
  in_time: {dataset: world, kind: frames, metric: macro_auroc}
  odour: {dataset: world, kind: retrieval, query: text_odour, item: audio, metric: R@1}
suite: [by_text, in_time, odour]
"""
STEPS = 4  # 74 training clips in batches of 16
OPTIONS = (
    "--trainer.max_epochs=1",
    "--data.batch_size=16",
    "--trainer.limit_val_batches=0",
    "--trainer.log_every_n_steps=50",
)


def suite_options(root: Path, every: int = 3, best: str = "in_time") -> tuple[str, ...]:
    return (
        "--trainer.callbacks+=EvaluateSuite",
        f"--trainer.callbacks.data={root}",
        f"--trainer.callbacks.suite={root / 'own.yaml'}",
        f"--trainer.callbacks.every_n_steps={every}",
        f"--trainer.callbacks.keep_best={best}",
        "--trainer.callbacks.num_workers=0",
    )


@pytest.fixture
def root(world: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "sets"
    folder.mkdir()
    (folder / "world").symlink_to(world)
    (folder / "own.yaml").write_text(SUITE)
    return folder


@pytest.fixture
def runs(world: Path, tmp_path: Path) -> Runs:
    return Runs(world, tmp_path, OPTIONS)


def values(runs: Runs, name: str) -> dict[int, dict[str, float]]:
    """The numbers of a run by step, as its folders have them."""
    found = {}
    for file in (runs.folder / name / "suite").glob("step_*/evaluation.json"):
        results = json.loads(file.read_text())
        assert "the model makes no text_odour" in results["skipped"]["odour"]
        tasks = results["tasks"].items()
        found[int(file.parent.name.removeprefix("step_"))] = {task: result["value"] for task, result in tasks}
    return found


def test_a_killed_run_logs_and_keeps_the_best_as_one_that_was_not_and_trains_as_one_without_a_suite(
    runs: Runs, root: Path
) -> None:
    plain = runs.start("plain")
    options = suite_options(root)
    status, said = runs.run("killed", *options, when="batch:3")
    assert status == -signal.SIGKILL and "task odour is left out: the model makes no text_odour" in said, said
    assert set(values(runs, "killed")) == {3} and (runs.folder / "killed/checkpoints/best.ckpt").is_file()
    status, said = runs.resume("killed", *options)
    assert status == 0, said
    assert ended(plain)[0] == 0
    assert runs.batches("killed") == runs.batches("plain") and len(runs.batches("plain")) == STEPS
    weights = [torch.load(runs.last(name), weights_only=True)["state_dict"] for name in ("plain", "killed")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    found = values(runs, "killed")
    assert set(found) == {3, STEPS}  # the last is what training ended with
    logged: dict[int, dict[str, float]] = {}
    for file in sorted((runs.folder / "killed/csv").glob("*/metrics.csv")):
        for row in csv.DictReader(file.open()):
            if row.get("suite/by_text"):
                logged[int(row["step"])] = {name: float(row[f"suite/{name}"]) for name in ("by_text", "in_time")}
    assert {step: pytest.approx(value) for step, value in found.items()} == logged
    # The best is the checkpoint that gives its number again.
    best = max(found, key=lambda step: (found[step]["in_time"], -step))
    kept = runs.folder / "killed/checkpoints/best.ckpt"
    assert torch.load(kept, weights_only=True)["global_step"] == best
    words = ["evaluate", str(kept), "--suite", str(root / "own.yaml"), "--data", str(root), "--num_workers=0"]
    assert main([*words, "--out", str(runs.folder / "again")]) == 0
    again = json.loads((runs.folder / "again/evaluation.json").read_text())["tasks"]
    assert {name: task["value"] for name, task in again.items()} == found[best]
    assert not list((runs.folder / "killed/suite").rglob("embeddings"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--trainer.callbacks.keep_best=by_txt",), "is no task of the suite 'own'. Did you mean 'by_text'?"),
        (("--trainer.callbacks.keep_best=odour",), "odour, by which the best checkpoint is to be kept, cannot be measured"),
        (("--trainer.callbacks.data=/nowhere",), "there is no folder /nowhere"),
        (("--trainer.callbacks.suite=papers",), "no suite is called 'papers'. Did you mean 'paper'?"),
        (("--trainer.callbacks.every_n_steps=0",), "every_n_steps must be a number of steps, not 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_said_before_a_step_is_made(
    options: tuple[str, ...], message: str, runs: Runs, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in runs.words("no") if "callbacks" not in word]
    mine = [word.replace("callbacks+=", "callbacks=") for word in suite_options(root)]
    try:
        status = main([*words, *mine, *options])
    except SystemExit as ended:
        status = int(ended.code or 0)
    said = capsys.readouterr().err
    assert status in (1, 2) and message in said.replace("\n", " ") and "Traceback" not in said
    assert not list((runs.folder / "no").glob("checkpoints/*"))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["spawned", "torchrun"])
def test_two_ranks_log_what_one_process_logs(runs: Runs, root: Path, launcher: str) -> None:
    assert runs.run("one", *suite_options(root))[0] == 0
    two = ("--data.batch_size=8", "--trainer.devices=2", "--trainer.strategy=ddp")
    if launcher == "torchrun":
        starts = ("torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "peav.cli.main")
        runs.launcher = (sys.executable, "-m", *starts)
    status, said = runs.run("two", *suite_options(root), *two)
    assert status == 0, said
    one, other = values(runs, "one"), values(runs, "two")
    assert set(one) == set(other) == {3, STEPS}
    for step, expected in one.items():
        assert other[step] == pytest.approx(expected, abs=0.02), step  # weights are those of one process up to rounding
    best = [torch.load(runs.folder / name / "checkpoints/best.ckpt", weights_only=True) for name in ("one", "two")]
    assert best[0]["global_step"] == best[1]["global_step"]
