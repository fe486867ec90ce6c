"""What an installed package holds."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def build_wheel(folder: Path) -> Path:
    """Builds the wheel of the files that git knows; a build folder that lies in the checkout has no part in it."""
    source = folder / "source"
    source.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if name.startswith(("peav/", "experiments/")) or name in ("pyproject.toml", "README.md", "LICENSE"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                (source / name).symlink_to((ROOT / name).readlink())
            elif (ROOT / name).is_file():
                (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(source)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        names = set(wheel.namelist())
        for path in (ROOT / "experiments").rglob("*"):
            inner = path.relative_to(ROOT / "experiments")
            script = inner.parts[0] == "real" or path.suffix == ".py"  # of a checkout
            if path.is_file() and not script:
                name = f"peav/experiments/{inner}"
                assert wheel.read(name) == path.read_bytes(), name
    for pattern in ("*.py", "*.html", "*.css", "*.js", "*.svg", "py.typed"):
        missing = {str(path.relative_to(ROOT)) for path in (ROOT / "peav").rglob(pattern)} - names
        assert not missing, missing
    outside = ("tests/", "experiments/", "benchmarks/", "peav/experiments/real/")
    scripts = [name for name in names if name.startswith("peav/experiments/") and name.endswith(".py")]
    assert not scripts and not [name for name in names if name.startswith(outside)]


#: What a new user runs, from nothing to embeddings.
COMMANDS = """
peav --help
peav plugins
peav recipes
peav synth world --clips 60 --workers 2
peav prepare world data
peav fit --config peav:tiny_cpu --data.data=data --model.encoders.text.init_args.tokenizer=data/tokenizer.json
peav evaluate runs/demo/checkpoints/last.ckpt data
peav embed world --model runs/demo/checkpoints/last.ckpt --out sounds.npz
peav convert runs/demo/checkpoints/last.ckpt model
"""

SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--data.batch_size=8"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_an_installed_wheel_trains_without_the_repository(tmp_path: Path) -> None:
    """In a fresh environment, without extras: the files of the repository are not on the path. Some 5 GB, some minutes."""
    wheel = build_wheel(tmp_path / "built")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    install = [str(environment / "bin/pip"), "install", "-q", "--constraint", str(ROOT / "constraints.txt"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    home = tmp_path / "home"
    home.mkdir()
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    for line in COMMANDS.strip().splitlines():
        words = [str(environment / "bin/peav"), *line.split()[1:], *(SHORT if line.startswith("peav fit") else [])]
        done = subprocess.run(words, cwd=home, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
    assert (home / "runs/demo/report.html").is_file() and (home / "sounds.npz").is_file()
    where = [str(environment / "bin/python"), "-c", "import peav; print(peav.__file__)"]
    found = subprocess.run(where, cwd=home, env=clean, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(environment))
