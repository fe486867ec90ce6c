"""Several ranks train as one process does, whatever the strategy, and end when one of them dies."""

from __future__ import annotations

import csv
import functools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from peav.cli.main import main

ROOT = Path(__file__).parents[2]


def run(folder: Path, strategy: str, ranks: int, kind: str, encoders: str = "small") -> dict[str, Any]:
    """Runs on_ranks.py, which starts the other ranks by itself."""
    out = folder / f"{strategy}-{ranks}-{kind}-{encoders}.pt"
    command = [sys.executable, "-m", "tests.training.on_ranks", str(out), strategy, str(ranks), kind, encoders]
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "MASTER_PORT", "WORLD_SIZE")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = torch.load(out)
    return found


Alone = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Runs on one process, once for each kind of encoders."""
    return functools.cache(lambda encoders: run(tmp_path_factory.mktemp("alone"), "auto", 1, "real", encoders))


#: The case of FSDP2 in the normal run.
NORMAL = (2, "real", "shapes")

#: FSDP2 over every encoder of ours, also where a rank has nothing for a frontend and where shapes are not divided by the ranks.
SHARDED = [
    pytest.param("fsdp2", ranks, kind, encoders, marks=[] if (ranks, kind, encoders) == NORMAL else pytest.mark.slow)
    for ranks in (2, 3)
    for encoders, kinds in {
        "released": ("real", "virtual", "cached"),
        "shapes": ("real", "virtual"),
        "small": ("real", "virtual"),
    }.items()
    for kind in kinds
]


@pytest.mark.parametrize(
    ("strategy", "ranks", "kind", "encoders"),
    [
        *(("ddp", 2, "real", "small"), ("ddp", 2, "virtual", "small")),
        pytest.param("auto", 1, "virtual", "small", marks=pytest.mark.slow),  # test_virtual.py has one process
        *SHARDED,
    ],
)
def test_losses_and_weights_are_those_of_one_process(
    alone: Alone, tmp_path: Path, strategy: str, ranks: int, kind: str, encoders: str
) -> None:
    """With clipping and Adam, in float64: real batches and virtual ones, and features that are kept."""
    found, expected = run(tmp_path, strategy, ranks, kind, encoders), alone(encoders)
    assert len(found["losses"]) == len(expected["losses"]) == 4
    kept = 1e-6 if kind == "cached" else 1e-9  # in fp32
    assert found["losses"] == pytest.approx(expected["losses"], rel=kept)
    for name, weight in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], weight, rtol=0, atol=1e-4 if kind == "cached" else 1e-8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    for arguments in (
        ["synth", str(folder / "world"), "--clips=96"],
        ["prepare", str(folder / "world"), str(folder / "data")],
    ):
        assert main(arguments) == 0
    return folder / "data"


def command(data: Path, root: Path, *more: str) -> list[str]:
    """`peav fit` of tiny_cpu.yaml."""
    return [
        *(sys.executable, "-m", "peav.cli.main", "fit", f"--config={ROOT / 'experiments/tiny_cpu.yaml'}"),
        *(f"--data.data={data}", f"--model.encoders.text.init_args.tokenizer={data / 'tokenizer.json'}"),
        *("--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={root}"),
        *more,
    ]


def logged(root: Path) -> dict[int, float]:
    """The training losses by step, of all runs under a folder."""
    found: dict[int, float] = {}
    for path in sorted((root / "csv").glob("*/metrics.csv")):
        with path.open() as file:
            found |= {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["ddp", "fsdp2"])
def test_tiny_cpu_on_two_ranks(data: Path, tmp_path: Path, overlay: str) -> None:
    """20 steps of the same global batches; DDP in float64, for Adam makes steps of the rounding of fp32 (FSDP2: 1.2e-5 at most)."""
    common = ["--trainer.max_steps=20", "--trainer.max_epochs=20"]
    precision = ["--trainer.precision=64-true"] if overlay == "ddp" else []
    subprocess.run(command(data, tmp_path / "one", *common, *precision), check=True, timeout=300)
    two = [f"--config={ROOT}/experiments/cluster/{overlay}.yaml", "--trainer.devices=2", "--data.batch_size=16"]
    subprocess.run(command(data, tmp_path / "two", *two, *common, *precision), check=True, timeout=300)
    one, both = logged(tmp_path / "one"), logged(tmp_path / "two")
    assert len(one) == len(both) == 20
    assert both == pytest.approx(one, rel=1e-5 if overlay == "ddp" else 1e-4)
    weights = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two")
    ]
    assert weights[0].keys() == weights[1].keys()
    if overlay == "ddp":
        for name, weight in weights[0].items():
            torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("batches", [[], ["--model.virtual_batch_size=32"]], ids=["real", "virtual"])
def test_a_rank_that_dies_ends_the_run_which_resumes(data: Path, tmp_path: Path, batches: list[str]) -> None:
    """Neither rank hangs; the run goes on from its last checkpoint to the losses of one that was not disturbed."""
    two = [
        f"--config={ROOT}/experiments/cluster/ddp.yaml",
        "--trainer.devices=2",
        "--data.batch_size=8",
        "--trainer.max_epochs=6",
        *batches,
    ]
    subprocess.run(command(data, tmp_path / "calm", *two), check=True, timeout=300)
    disturbed = subprocess.Popen(command(data, tmp_path / "killed", *two), stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    other = subprocess.run(["pgrep", "-P", str(disturbed.pid), "-f", "fit"], capture_output=True, text=True, check=True)
    os.kill(int(other.stdout.split()[0]), signal.SIGKILL)
    _, errors = disturbed.communicate(timeout=60)
    assert disturbed.returncode != 0 and re.search("Connection (closed|reset) by peer", errors), errors[-2000:]
    resumed = command(data, tmp_path / "killed", *two, f"--ckpt_path={checkpoint}")
    subprocess.run(resumed, check=True, timeout=300)
    calm, found = logged(tmp_path / "calm"), logged(tmp_path / "killed")
    assert len(calm) == len(found) > 5
    assert found == pytest.approx(calm, rel=1e-6)
