"""What docs/frame_level.md shows runs, in an interpreter of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.checkpoints.test_formats import released_like
from tests.data.conftest import write_float_wav
from tests.inputs.helpers import noise

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/frame_level.md").read_text()


def test_the_python_of_the_guide_runs(tmp_path: Path) -> None:
    """A tiny model of the same architecture stands in for the released one, which no hub can give here."""
    released_like(seed=8, frame_level=True).save_pretrained(tmp_path / "frame", "meta")
    for name in ("street", "dog"):
        write_float_wav(tmp_path / f"{name}.wav", noise(1.3))
    code = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)).replace("facebook/pe-a-frame-small", "frame")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("1.0 1.0\n{'psds1': 1.0, 'event_f1': 1.0}\n")
