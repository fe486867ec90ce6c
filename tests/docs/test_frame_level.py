"""What docs/frame_level.md shows runs, in an interpreter of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_metrics_of_the_guide_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/frame_level.md").read_text(), re.DOTALL)
    code = "\n".join(blocks)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "1.0 1.0\n{'psds1': 1.0, 'event_f1': 1.0}\n"
