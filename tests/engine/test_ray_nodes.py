"""`peav caption --executor ray` over several nodes: raylets of this machine, each a node to Ray; lost ones, new ones, one with the GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from peav.engine.stage import Columns, register_stage
from tests.engine.data import Counting, config, flaky, seen, write_clips
from tests.engine.test_run import ROOT

pytestmark = pytest.mark.slow

COMMAND = "import sys; from peav.cli.main import main; sys.exit(main(sys.argv[1:]))"


@register_stage
class NotesNode(Counting):
    """Notes which raylet started its process."""

    reads = ("duration",)
    provides = ("domain",)

    def __call__(self, batch: Columns) -> Columns:
        with open(self.log, "a") as stream:
            stream.writelines(f"node {os.getppid()}\n" for _ in batch["id"])
        time.sleep(0.2)  # so that the other actor gets a part, too
        return {"id": batch["id"], "domain": ["speech"] * len(batch["id"])}


def caption(data: Path, stages: dict[str, Any], address: str, *words: str) -> subprocess.Popen[str]:
    path = data.parent / f"{data.name}.yaml"
    path.write_text(json.dumps({"stages": stages}))
    settings = ["--config", str(path), "--part_clips", "3", "--batch_clips", "2", "--samples", "0"]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "caption", str(data), *settings, *words],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ends_well(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said


def until(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without processors, so that actors run on the nodes that are added alone."""
    utils = pytest.importorskip("ray.cluster_utils", reason="the executor ray needs peav[ray]")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the workers, which the raylets start
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, **MEMORY}
    )
    yield made
    made.shutdown()


MEMORY = {"object_store_memory": 80 * 1024**2}


def node(cluster: Any, cpus: float = 1, gpus: int = 0) -> Any:
    return cluster.add_node(num_cpus=cpus, num_gpus=gpus, **MEMORY)


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def alone(tmp_path: Path, **more: Any) -> bytes:
    """The manifest of an inline run, with more stages."""
    data = write_clips(tmp_path / "alone", 12)
    ends_well(caption(data, {**config(measure=flaky()), **more}, "", "--executor", "inline"))
    return (data / "manifest/train.jsonl").read_bytes()


def test_a_node_is_lost_and_one_comes(cluster: Any, tmp_path: Path) -> None:
    """One of two nodes is killed at work: the other does all, though the actor that takes the lost one's place finds no room."""
    nodes, expected = [node(cluster), node(cluster)], alone(tmp_path)
    data, log, mended = write_clips(tmp_path / "two", 12), tmp_path / "log", tmp_path / "mended"
    stages = config(log, measure=flaky(log, mended=str(mended), bad=["clip-4"], how="slow"))
    process = caption(data, stages, cluster.address, "--executor", "ray", "--workers", "2")
    until(lambda: "Flaky clip-4" in seen(log), process)
    parent = raylet_of(data, "clip-4", log)
    lost = next(one for one in nodes if raylet(one) == parent)
    until(lambda: sum(line.startswith("ScriptedWriter") for line in seen(log)) >= 9, process)  # the other node's
    mended.touch()
    cluster.remove_node(lost, allow_graceful=False)
    said = ends_well(process)
    assert "an actor was lost" in said and "clips failed" not in said
    assert (data / "manifest/train.jsonl").read_bytes() == expected
    # The last node is killed at work: the run waits for another, which does the rest.
    left = next(one for one in nodes if one is not lost)
    data, log, mended = write_clips(tmp_path / "one", 12), tmp_path / "log1", tmp_path / "mended1"
    stages = config(log, measure=flaky(log, mended=str(mended), bad=["clip-4"], how="slow"))
    process = caption(data, stages, cluster.address, "--executor", "ray", "--workers", "1")
    until(lambda: "Flaky clip-4" in seen(log), process)
    mended.touch()
    cluster.remove_node(left, allow_graceful=False)
    node(cluster)
    assert "an actor was lost" in ends_well(process)
    assert (data / "manifest/train.jsonl").read_bytes() == expected


def raylet_of(data: Path, clip: str, log: Path) -> int:
    """The raylet whose worker has the part of a clip that is at work now."""
    number = int(clip.rpartition("-")[2]) // 3
    claim = next(path for path in (data / "engine/claims").glob("train-*") if int(path.name.split("-")[1]) == number)
    pid = json.loads(claim.read_text())["pid"]
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_gpus_on_one_node_alone(cluster: Any, tmp_path: Path) -> None:
    """Two actors of half a GPU share the node that has it, and its one processor; three are an error."""
    node(cluster, 2)
    with_gpu = node(cluster, 1, 1)
    data, log = write_clips(tmp_path / "gpu", 12), tmp_path / "log"
    words = ("--executor", "ray", "--gpus", "0.5", "--workers")
    refused = caption(data, config(), cluster.address, *words, "3")
    assert "give --workers 2" in refused.communicate(timeout=240)[0] and refused.returncode == 1
    notes = {"class_path": "tests.engine.test_ray_nodes.NotesNode", "init_args": {"log": str(tmp_path / "nodes")}}
    expected = alone(tmp_path, where=notes)
    (tmp_path / "nodes").unlink()
    stages = {**config(log, measure=flaky(log)), "where": notes}
    ends_well(caption(data, stages, cluster.address, "--work", str(tmp_path / "work"), *words, "2"))
    places = {line for line in seen(tmp_path / "nodes") if line.startswith("node")}
    calibrating_or_probing = f"node {os.getpid()}"  # none: the command computes no part itself
    assert places == {f"node {raylet(with_gpu)}"} and calibrating_or_probing not in places
    assert (data / "manifest/train.jsonl").read_bytes() == expected
