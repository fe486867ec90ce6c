"""What an installed package holds."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build_wheel(folder: Path) -> Path:
    """Builds the wheel of the files that git knows; a build folder that lies in the checkout has no part in it."""
    source = folder / "source"
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
            if path.is_file():
                name = f"peav/experiments/{path.relative_to(ROOT / 'experiments')}"
                assert wheel.read(name) == path.read_bytes(), name
    for pattern in ("*.py", "*.html", "*.css", "py.typed"):
        missing = {str(path.relative_to(ROOT)) for path in (ROOT / "peav").rglob(pattern)} - names
        assert not missing, missing
    assert not [name for name in names if name.startswith(("tests/", "experiments/", "benchmarks/"))]
