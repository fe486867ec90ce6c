"""The benchmark of a GPU runs whole on a CPU, at a size that says nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_benchmark_of_a_device_runs_at_a_tiny_size(tmp_path: Path) -> None:
    """Every part gives a number, of ours and of the peer's, in JSON and as a table."""
    command = [sys.executable, str(ROOT / "benchmarks/device.py"), "--tiny=true", f"--out={tmp_path}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "device.json").read_text())
    assert found["card"] == "CPU" and len(found["rows"]) == 9
    assert all(row["ms"] > 0 and "note" not in row for row in found["rows"])
    steps = [row for row in found["rows"] if row["what"].startswith("step")]
    assert [row["who"] for row in steps] == ["transformers", "peav"] * 2
    # Both do the same work: their matrix products are of one size, but for the frontends' padding.
    for theirs, ours in zip(steps[::2], steps[1::2], strict=True):
        assert 0.7 < ours["TFLOP"] / theirs["TFLOP"] < 1.3
        assert 0 < ours["objectives"] < 1.5
    table = (tmp_path / "device.md").read_text()
    assert table.count("\n| ") == 10 and "pair loss, 64" in table


def test_without_a_gpu_it_says_how_to_try_it(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "benchmarks/device.py"), f"--out={tmp_path}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1 and "there is no GPU: --tiny runs this on a CPU" in done.stderr
