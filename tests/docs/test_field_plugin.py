"""docs/field_plugin.md as a stranger does it: an installed package with a field, an encoder, and a caption type of its own."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peav import registry
from peav.fields import fields
from peav.testing import check_encoder
from peav.types import Batch, FieldInput

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/field_plugin.md").read_text()

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "peav-imu"
version = "0.0.1"

{entry_points}
[tool.setuptools]
py-modules = ["peav_imu"]
"""


def block(language: str) -> str:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)[0]


def write_walks(folder: Path, clips: int = 26) -> None:
    """Sounds with what a sensor measured: every fourth has no sensor, every third no title, and the last two are parts of a long one."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for number in range(clips):
        seconds = 1.0 + 0.25 * (number % 3)
        samples = 0.3 * np.sin(np.arange(round(seconds * 8000)) * (0.05 + 0.01 * number))
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes((samples * 32767).astype("<i2").tobytes())
        np.save(folder / f"{number}.npy", rng.normal(size=(round(seconds * 50), 6)) + number)
        split = "test" if number >= clips - 6 else "validation" if number >= clips - 8 else "train"
        record: dict[str, Any] = {
            "id": f"walk-{number}",
            "media": f"{number}.wav",
            "captions": {"audio": f"steps {number}"},
            "split": split,
        }
        if number % 4:
            record["imu"] = f"{number}.npy"
        if number % 3:
            record["captions"]["title"] = f"Walk {number % 5}"
        lines.append(record)
    np.save(folder / "flat.npy", np.zeros(7))
    lines += [
        {"id": "late", "media": "2.wav", "imu": "2.npy", "start": 0.5, "duration": 0.5},
        {"id": "gone", "media": "1.wav", "imu": "gone.npy"},
        {"id": "flat", "media": "1.wav", "imu": "flat.npy"},
        {"id": "outside", "media": "1.wav", "imu": "../1.npy"},
    ]
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the guide, installed."""
    package = tmp_path_factory.mktemp("package")
    (package / "pyproject.toml").write_text(PYPROJECT.format(entry_points=block("toml")))
    (package / "peav_imu.py").write_text(block("python"))
    folder = tmp_path_factory.mktemp("site")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(folder),
    ]
    subprocess.run([*install, str(package)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def walks(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands of the guide have run, in a process that knows the package only by its entry point."""
    folder = tmp_path_factory.mktemp("walks")
    write_walks(folder / "walks")
    (folder / "mine.yaml").write_text(block("yaml"))
    run(site, folder, ["peav plugins", *block("bash").strip().splitlines()])
    return folder


def run(site: Path, folder: Path, commands: list[str]) -> str:
    """Runs commands of peav, and returns what they print."""
    code = "import sys, shlex\nfrom peav.cli.main import main\nfor line in sys.argv[1:]:\n    status = main(shlex.split(line)[1:])\n"
    code += "    assert not status, (line, status)\n"
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "COLUMNS": "160"}
    done = subprocess.run(
        [sys.executable, "-c", code, *commands],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    return done.stdout


def test_the_field_is_packed_and_counted(walks: Path) -> None:
    report = json.loads((walks / "data/prepare.json").read_text())["report"]
    assert report["fields"] == {"imu": 20} and report["captions"]["title"] == 17
    rejects = {line["id"]: line for line in map(json.loads, (walks / "data/rejects.jsonl").read_text().splitlines())}
    assert set(rejects) == {"gone", "flat", "outside"}
    assert rejects["gone"]["missing"] and rejects["gone"]["file"] == "gone.npy"
    assert rejects["flat"]["reason"] == "field 'imu': imu must have the shape (T, 6), flat.npy has (7,)"
    assert "must be a path inside the source folder" in rejects["outside"]["reason"]
    printed = (walks / "printed.txt").read_text()
    assert "IMU" in printed or "imu" in printed
    assert re.search(r"field *│? *imu.*peav-imu", printed), printed
    assert re.search(r"imu +│ +20 +│", printed) and "0 errors" in printed


def test_it_trains_is_saved_and_evaluated(walks: Path) -> None:
    held = torch.load(walks / "runs/mine/checkpoints/last.ckpt", weights_only=True)
    assert held["datamodule_hyper_parameters"]["field_options"] == {"imu": {"smooth": 5}}
    assert {
        "model.encoders.imu.layers.0.weight",
        "model.heads.imu.proj.weight",
        "model.heads.text_title.proj.weight",
    } <= set(held["state_dict"])
    with next((walks / "runs/mine").rglob("metrics.csv")).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for name in ("motion", "sound", "walk"):
        losses = [float(row[f"train/{name}/loss"]) for row in rows if row.get(f"train/{name}/loss")]
        assert losses and all(np.isfinite(losses)) and max(losses) > 0
    evaluation = json.loads((walks / "runs/mine/evaluation.json").read_text())
    assert "audio->imu" in json.dumps(evaluation) and "text_title->imu" in json.dumps(evaluation)


@pytest.mark.slow
def test_a_resume_in_mid_epoch_goes_on_with_other_workers(site: Path, walks: Path) -> None:
    fit = "peav fit --config mine.yaml --trainer.logger=CSVLogger --trainer.logger.save_dir={0} --trainer.default_root_dir={0}"
    every = " --trainer.callbacks=ModelCheckpoint --trainer.callbacks.dirpath=steps --trainer.callbacks.filename={step}"
    every += " --trainer.callbacks.every_n_train_steps=1 --trainer.callbacks.save_top_k=-1"
    rest = " --ckpt_path=steps/step=3.ckpt --data.num_workers=0"
    run(site, walks, [fit.format("whole") + every, fit.format("rest") + rest])

    def losses(folder: str) -> dict[int, float]:
        file = next((walks / folder).rglob("metrics.csv"))
        rows = csv.DictReader(io.StringIO(file.read_text()))
        return {int(row["step"]): float(row["train/motion/loss"]) for row in rows if row["train/motion/loss"]}

    straight, resumed = losses("whole"), losses("rest")
    assert len(straight) == 4 and resumed == {3: straight[3]}


@pytest.mark.slow
def test_it_trains_on_two_ranks_with_virtual_batches(site: Path, walks: Path) -> None:
    options = "--trainer.devices=2 --trainer.strategy=ddp --data.batch_size=4 --trainer.default_root_dir={}"
    fit = f"-m peav.cli.main fit --config mine.yaml {options}"
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    for folder, more in (
        ("two", []),
        ("virtual", ["--model.virtual_batch_size=16", "--model.virtual_batch_storage=disk"]),
    ):
        command = [sys.executable, *fit.format(folder).split(), *more]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=walks, check=False)
        assert done.returncode == 0, done.stderr
        assert list((walks / folder).rglob("last.ckpt"))


def test_the_guides_encoder_passes_the_public_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    for registered in (registry.encoders, fields):
        monkeypatch.setattr(registered, "_classes", dict(registered._classes))
    namespace: dict[str, Any] = {"__name__": "guide"}
    exec(compile(block("python"), "field_plugin.md", "exec"), namespace)
    mask = torch.arange(5) < torch.tensor([[3], [5], [2], [4]])
    imu = FieldInput(torch.randn(4, 5, 6) * mask[..., None], mask, torch.ones(4, dtype=torch.bool), torch.arange(4))
    check_encoder(namespace["IMUEncoder"], Batch(tuple("abcd"), extra={"imu": imu}))
