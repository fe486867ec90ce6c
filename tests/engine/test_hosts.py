"""Two machines on one folder, by two host names: what one has claimed the other leaves alone, until it is silent for `--stale_seconds`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine.data import config, flaky, seen, write_clips
from tests.engine.test_run import ROOT

COMMAND = "import sys; from peav.cli.main import main; sys.exit(main(sys.argv[1:]))"
STALE = 2.0

can_rename = (
    shutil.which("unshare") is not None
    and subprocess.run(["unshare", "--uts", "hostname", "other"], capture_output=True, check=False).returncode == 0
)


def caption(host: str, data: Path, settings: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", COMMAND, "caption", str(data), "--config", str(settings), "--part_clips", "3"]
    words = [*command, "--batch_clips", "2", "--samples", "0", "--stale_seconds", str(STALE)]
    named = ["unshare", "--uts", "sh", "-c", f'hostname {host} && exec "$@"', "sh"]
    return subprocess.Popen([*named, *words], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


@pytest.mark.slow
@pytest.mark.skipif(not can_rename, reason="only root may give processes another host name")
def test_the_work_of_a_machine_that_is_gone_is_taken_over(tmp_path: Path) -> None:
    data, log, mended = write_clips(tmp_path / "d", 12), tmp_path / "log", tmp_path / "mended"
    settings = tmp_path / "engine.yaml"
    bad = flaky(log, mended=str(mended), bad=["clip-4"], how="slow")
    settings.write_text(json.dumps({"stages": config(log, measure=bad)}))
    first = caption("node-a", data, settings)
    wait_for(lambda: "Flaky clip-4" in seen(log), first)
    mended.touch()  # the first one sleeps all the same
    second = caption("node-b", data, settings)
    claim = data / "engine/claims/train-000001"
    wait_for(lambda: sum(line.startswith("ScriptedWriter") for line in seen(log)) >= 9, second)
    time.sleep(2 * STALE)  # alive, and so not taken over
    assert json.loads(claim.read_text())["host"] == "node-a" and second.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert second.wait(timeout=120) == 0
    assert seen(log).count("Flaky clip-4") == 2
    alone = write_clips(tmp_path / "alone", 12)
    settings.write_text(json.dumps({"stages": config(measure=flaky())}))
    assert caption("node-c", alone, settings).wait(timeout=120) == 0
    assert (data / "manifest/train.jsonl").read_bytes() == (alone / "manifest/train.jsonl").read_bytes()
    assert not list((data / "engine/claims").iterdir()) and not list(data.rglob("*.partial"))


def wait_for(condition: object, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not condition():  # type: ignore[operator]
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
