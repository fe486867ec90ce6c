"""What the README and docs/using_models.md show, each command and block in a process of its own, where nothing was imported before.

Tiny models of the same architecture stand in for the released ones, which no hub can give here.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from peav.cli.main import main
from peav.data.media.ffmpeg import find_ffmpeg
from tests.checkpoints.test_formats import released_like
from tests.cli.test_commands import TINY, overrides

ROOT = Path(__file__).parents[2]
README, USING = (ROOT / "README.md").read_text(), (ROOT / "docs/using_models.md").read_text()
ADDRESSES = {"facebook/pe-av-small-16-frame": "pe_av", "facebook/pe-a-frame-small": "frame"}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files and the models that the pages name."""
    folder = tmp_path_factory.mktemp("place")
    released_like(seed=7).save_pretrained(folder / "pe_av", "transformers")
    released_like(seed=8, frame_level=True).save_pretrained(folder / "frame", "meta")
    tone = ["-f", "lavfi", "-i", "sine=440:duration=1.3:sample_rate=44100"]
    picture = ["-f", "lavfi", "-i", "testsrc=duration=1.3:size=64x48:rate=10"]
    for name, sources in (("dog.wav", tone), ("street.wav", tone), ("dog.mp4", [*tone, *picture])):
        subprocess.run([find_ffmpeg(), "-v", "error", *sources, str(folder / name)], check=True)
    return folder


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of `peav fit`."""
    folder = tmp_path_factory.mktemp("trained")
    assert main(["fit", "--config", TINY, *overrides(world, folder), "--trainer.enable_progress_bar=false"]) == 0
    return folder / "checkpoints/last.ckpt"


def run(words: list[str], folder: Path) -> str:
    """Runs a process in the folder, and returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    assert done.returncode == 0, f"{' '.join(words)[:300]}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
    return done.stdout


def python(code: str, folder: Path) -> str:
    for address, name in ADDRESSES.items():
        code = code.replace(address, name)
    return run([sys.executable, "-c", code], folder)


def peav(line: str, folder: Path) -> str:
    for address, name in ADDRESSES.items():
        line = line.replace(address, name)
    words = shlex.split(line.replace("experiments/", f"{ROOT}/experiments/"), comments=True)
    assert words[0] == "peav"
    return run([sys.executable, "-m", "peav.cli.main", *words[1:]], folder)


def test_the_readmes_lines_of_python_with_a_released_model(place: Path) -> None:
    (code,) = blocks(README, "python")
    assert "tensor(" in python(code, place)


@pytest.mark.parametrize("first", ["from peav import PEAV", "from peav.model import PEAV"])
def test_the_readmes_lines_of_python_with_a_checkpoint_of_training(first: str, place: Path, trained: Path) -> None:
    """Objectives are registered by whoever needs them; and pooled vectors are compared, though the model makes frames too."""
    (code,) = blocks(README, "python")
    code = code.replace("from peav import PEAV", first).replace("facebook/pe-av-small-16-frame", str(trained))
    assert "tensor(" in python(code, place)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(blocks(USING, "python"))))
def test_each_block_on_using_models(number: int, place: Path) -> None:
    """By itself, but for the model that the first block loads."""
    every = blocks(USING, "python")
    first = [line for line in every[0].splitlines() if line.startswith(("from ", "import ", "model ="))]
    python("\n".join([*first, every[number]]), place)


@pytest.mark.slow
def test_each_command_of_the_readme_and_of_using_models(world: Path, place: Path) -> None:
    """From a folder of media to numbers; of the twenty epochs one, and of it a few steps."""
    (place / "my_folder").symlink_to(world.parent / "world")
    short = " --trainer.max_epochs=1 --trainer.limit_train_batches=3 --trainer.enable_progress_bar=false"
    lines = [line for block in blocks(README, "bash") for line in block.replace("\\\n", " ").splitlines()]
    lines = [line for line in lines if line.startswith("peav ")]
    assert [line.split()[1] for line in lines] == ["prepare", "fit", "evaluate"]
    for line in lines:
        peav(line + short if line.startswith("peav fit") else line, place)
    assert (place / "runs/mine/report.html").is_file()
    for line in blocks(USING, "bash")[0].strip().splitlines():
        peav(line, place)
    assert (place / "embeddings.npz").is_file() and (place / "my_model/model.safetensors").is_file()
