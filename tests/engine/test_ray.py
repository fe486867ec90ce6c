"""The executor ray: what it asks of a cluster, and a cluster of one processor that runs, loses its driver, and goes on."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peav.engine.ray_executor import import_ray, shares
from tests.engine.data import config, flaky, seen, write_clips
from tests.engine.test_run import ROOT, run, spec


def test_actors_ask_for_no_more_than_there_is() -> None:
    for nodes in ([1.0], [2.0], [7.0], [64.0], [1.0, 1.0, 1.0], [0.0, 4.0, 1.5]):
        for workers in (1, 2, 3, 4, 7, 16, 100):
            each, _ = shares([{"CPU": cpus} for cpus in nodes], workers, 0.0)
            assert 0 < each <= 1 and sum(int(cpus / each + 1e-9) for cpus in nodes) >= workers
    assert shares([{"CPU": 1.0}] * 3, 4, 0.0)[0] == 0.5  # 0.75 would fit three times
    assert shares([{"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}], 2, 0.5) == (
        0.5,
        0.5,
    )  # the processors of the one with the GPU
    assert shares([{}, {"GPU": 1.0}], 2, 0.5) == (0.0, 0.5)
    assert shares([{"CPU": 4.0, "GPU": 2.0}, {"CPU": 4.0, "GPU": 3.0}], 2, 2.0) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "said"),
    [
        ([{"CPU": 64.0, "GPU": 2.0}], 8, 0.5, "give --workers 4"),
        ([{"CPU": 64.0, "GPU": 2.0}], 3, 0.75, "give --workers 2"),  # a part is of one GPU
        ([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}], 1, 2.0, "no node of the cluster has 2 GPUs"),
        ([{"CPU": 64.0}], 8, 0.5, "the cluster has no GPU"),
    ],
)
def test_too_few_gpus_are_an_error(nodes: list[dict[str, float]], workers: int, gpus: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        shares(nodes, workers, gpus)


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'peav\[ray\]'"):
        import_ray()


DRIVER = """
import sys
from pathlib import Path
import ray
from peav.engine.execution import Execution
from tests.engine.data import config, flaky
from tests.engine.test_run import run, spec
data, log, mended, how = Path(sys.argv[1]), *sys.argv[2:]
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
stages = config(log, measure=flaky(log, mended=mended, bad=["clip-5"], how=how))
run(spec(data, stages), execution=Execution("ray", 2))
"""


def driver(*arguments: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.Popen([sys.executable, "-c", DRIVER, *map(str, arguments)], cwd=ROOT, env=environment)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the executor ray needs peav[ray]")
def test_a_cluster_of_one_processor_a_killed_actor_and_a_killed_driver(tmp_path: Path) -> None:
    alone, log = write_clips(tmp_path / "a"), tmp_path / "log"
    run(spec(alone, config(measure=flaky())))
    expected = (alone / "manifest/train.jsonl").read_bytes()
    # A clip that kills its actor is a failure; two actors on one processor do not wait for each other.
    data = write_clips(tmp_path / "k")
    assert driver(data, tmp_path / "killed", tmp_path / "none", "kill").wait(timeout=300) == 0
    assert (data / "manifest/train.jsonl").read_bytes() == expected  # the writer does not read what failed
    # The driver is killed while a clip is at work: its actors end with it, and the next run goes on.
    data, mended = write_clips(tmp_path / "d"), tmp_path / "ok"
    process = driver(data, log, mended, "slow")
    deadline = time.monotonic() + 240
    while not any("Flaky clip-5" in line for line in seen(log)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    workers = [json.loads(path.read_text())["pid"] for path in (data / "engine/claims").glob("train-*")]
    assert workers and process.pid not in workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "an actor outlives its driver"
        time.sleep(0.5)
    mended.touch()
    assert driver(data, log, mended, "slow").wait(timeout=300) == 0
    assert (data / "manifest/train.jsonl").read_bytes() == expected
