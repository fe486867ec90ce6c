"""What a run shows of its progress: clips and tokens a second, the time that is left, and no clip twice."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from peav.cli import clip_progress
from peav.cli.main import main
from peav.engine.job import Job
from peav.engine.progress import Step, Tally
from peav.engine.run import opened
from peav.engine.work import work_alone
from tests.engine.data import config, write_clips
from tests.engine.server import completion, serving
from tests.engine.test_run import ROOT, spec


def stages(url: str = "") -> dict[str, Any]:
    """A tagger, and a writer: a model behind a server that says how many tokens it wrote, or one that counts none."""
    if not url:
        return config()
    backend = {"class_path": "HTTPBackend", "init_args": {"url": url, "model": "tiny"}}
    return {"tags": config()["tags"], "write": {"class_path": "ModelWriter", "init_args": {"backend": backend}}}


def answer(number: int, body: Any) -> Any:
    return 200, completion('{"audio": "rain on a roof"}')


def test_no_clip_counts_twice_however_many_processes_see_its_part(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 10)
    told: list[tuple[int, int]] = []
    with serving(answer) as server:
        given = spec(data, stages(server.url), part_clips=4, batch_clips=3)
        job, steps = Job(given), list[Step]()
        with opened(job) as run:
            for _ in range(2):  # the second process finds all parts done
                work_alone(given, run.since, run.pulse.stale, steps.append)
        tally = Tally(job.parts, lambda clips, tokens: told.append((clips, tokens)))
        for step in steps:
            tally(step)
    assert sum(step.whole for step in steps) == 6
    assert sum(clips for clips, _ in told) == 10 and sum(tokens for _, tokens in told) == 10 * 3
    assert all(clips <= 3 for clips, _ in told)


@pytest.mark.parametrize("writes", [True, False])
def test_lines_in_the_log_have_tokens_where_models_write_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], writes: bool
) -> None:
    monkeypatch.setattr(clip_progress, "_LOG_SECONDS", 0.0)
    data = write_clips(tmp_path / "d", 10)
    with serving(answer) as server:
        file = tmp_path / "engine.yaml"
        file.write_text(json.dumps({"stages": stages(server.url if writes else "")}))
        command = ["caption", str(data), "--config", str(file), "--samples", "0", "--batch_clips", "5"]
        assert main([*command, "--max_opening_share", "1"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "clips/s" in line]
    tokens = r", [\d,]+ tokens/s" if writes else ""
    pattern = re.compile(rf"caption: (5|10) of 10 clips, [\d.]+ clips/s{tokens}, \d+ min left$")
    assert len(lines) >= 2 and all(pattern.search(line) for line in lines), lines


@pytest.mark.slow
def test_a_terminal_shows_them_too_with_several_processes(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 10)
    with serving(answer) as server:
        file = tmp_path / "engine.yaml"
        file.write_text(json.dumps({"stages": stages(server.url)}))
        command = [sys.executable, "-m", "peav.cli.main", "caption", str(data), "--config", str(file), "--samples", "0"]
        command += ["--executor", "process", "--workers", "2", "--part_clips", "2"]
        ours, theirs = pty.openpty()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "TERM": "xterm"}
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs, env=environment) as process:
            os.close(theirs)
            shown = b""
            while True:
                try:
                    shown += os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
        assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert re.search(r"10/10 [\d.]+ clips/s, [\d,]+ tokens/s", text), text[-2000:]
