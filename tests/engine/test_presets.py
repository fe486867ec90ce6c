"""The pipelines of large models, run whole with tiny ones of random weights in their places."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from peav.cli.commands.caption import with_changes
from peav.cli.main import main
from peav.data.manifests.manifest import open_manifest, save_manifest
from peav.engine.engine import caption
from peav.engine.job import Job, JobSpec
from peav.engine.pipeline import Pipeline
from peav.engine.publish import PublishOptions
from peav.engine.stage import EngineStop
from tests.checkpoints.test_formats import released_like
from tests.engine.data import config, write_clips
from tests.engine.server import completion, serving
from tests.engine.tiny_models import language_model, model_that_hears, model_that_sees, whisper

ROOT = Path(__file__).parents[2]
LICENCES = {
    "stage1": {"Apache-2.0", "MIT"},
    "stage2": {"Apache-2.0", "MIT"},
    "paper": {"Apache-2.0", "MIT", "FAIR-Noncommercial", "Llama-3.1-Community"},
}


def recipe(name: str, *changes: str) -> dict[str, Any]:
    given = yaml.safe_load((ROOT / f"experiments/engine/{name}.yaml").read_text())["stages"]
    return with_changes(given, changes)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    return {
        "hears": model_that_hears(folder / "hears"),
        "sees": model_that_sees(folder / "sees"),
        "whisper": whisper(folder / "whisper", "good morning"),
        "peav": Path(released_like(seed=7).save_pretrained(folder / "peav", "transformers")),
    }


def local(stage: str, model: Path) -> list[str]:
    """Changes that put a tiny model in the place of a large one."""
    arguments = {"model": str(model), "device": "cpu", "dtype": "float32"}
    return [f"{stage}.backend.init_args.{name}={value}" for name, value in arguments.items()]


def whispering(model: Path) -> list[str]:
    """Changes that put a tiny Whisper in the place of a large one."""
    arguments = {"model": str(model), "device": "cpu", "dtype": "float32", "max_tokens": 90}
    return [f"speech.{name}={value}" for name, value in arguments.items()]


def remote(stage: str, url: str) -> str:
    backend = {
        "class_path": "HTTPBackend",
        "init_args": {"url": url, "model": "tiny", "licence": "CC0-1.0", "retries": 0},
    }
    return f"{stage}.backend={json.dumps(backend)}"


def answer(number: int, body: dict[str, Any]) -> Any:
    """Writes a caption of each type when it is the writer that asks, else says what it was given."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        clip = len(re.findall("a listener says|someone who heard", content))
        return 200, completion(json.dumps({k: f"rain falls {clip}" for k in ("audio", "video", "audio_video")}))
    kinds = [part["type"] for part in content]
    return 200, completion(f"{kinds.count('image_url')} pictures and {kinds.count('input_audio')} sounds")


def run(data: Path, stages: dict[str, Any]) -> Job:
    spec = JobSpec(str(data), stages)
    done = caption(spec, PublishOptions(max_opening_share=1.0), probes=0, samples=2)
    assert done.failed == 0, done.published.survey.reasons
    return Job(spec)


def candidates(job: Job) -> list[list[dict[str, Any]]]:
    return [columns["candidates"] for _, columns, _ in job.results(job.parts[0]) if columns]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    assert main(["synth", str(folder / "world"), "--clips", "12", "--seed", "0", "--domains", "[effects]"]) == 0
    assert main(["prepare", str(folder / "world"), str(folder / "data")]) == 0
    return folder / "data"


@pytest.fixture
def data(tmp_path: Path, world: Path) -> Path:
    shutil.copytree(world, tmp_path / "d")
    clips = [clip for clip in open_manifest(tmp_path / "d", "train") if clip.has_audio and clip.has_video][:4]
    assert len(clips) == 4
    save_manifest(tmp_path / "d", "train", clips)
    return tmp_path / "d"


def test_stage_1_merges_two_listeners_and_a_viewer(data: Path, tiny: dict[str, Path]) -> None:
    with serving(answer) as server:
        changes = [*local("listen_a", tiny["hears"]), *local("listen_b", tiny["hears"]), *local("look", tiny["sees"])]
        changes += [*whispering(tiny["whisper"]), "voice=null"]  # it hears a voice in everything
        changes += ["listen_a.max_tokens=6", "listen_b.max_tokens=5", "look.max_tokens=6", "look.frame_size=32"]
        changes += [f"score.model={tiny['peav']}", "score.device=cpu", remote("write", server.url)]
        job = run(data, recipe("stage1", *changes))
    for items in candidates(job):
        assert [(item["by"], item["kind"]) for item in items] == [("a", "audio"), ("b", "audio"), ("v", "video")]
        assert all(item["confidence"] in ("low", "medium", "high") for item in items)
    asked = [body["messages"][-1]["content"] for body in server.bodies]
    assert len(asked) == 4 and all(text.count("a listener says") == 2 and "a viewer says" in text for text in asked)
    assert all(re.search(r"\((low|medium|high) confidence\)", text) for text in asked)
    assert all("somebody speaks in German" in text and "good morning" not in text for text in asked)
    assert all("good morning" in (clip.transcript or "") for clip in open_manifest(data, "train"))
    written = [clip.captions for clip in open_manifest(data, "train")]
    assert all({k: v[-1].text for k, v in held.items()}["audio_video"] == "rain falls 2" for held in written)


def test_stage_2_asks_servers_with_sound_and_pictures(data: Path, tiny: dict[str, Path]) -> None:
    with serving(answer) as server:
        changes = [f"tags.model={tiny['peav']}", f"score.model={tiny['peav']}", "tags.device=cpu", "score.device=cpu"]
        changes += [remote(stage, server.url) for stage in ("both", "look", "write")] + whispering(tiny["whisper"])
        # What random weights support is chance: the gate would refuse at random, too.
        job = run(data, recipe("stage2", *changes, "gate.gates=[Leak, Degenerate, SpeechContent, OtherMedium]"))
    said = [{item["by"]: item["text"] for item in items} for items in candidates(job)]
    assert said == [{"audio-visual": "8 pictures and 1 sounds", "fine": "16 pictures and 0 sounds"}] * 4
    assert all(columns["support"] for _, columns, _ in job.results(job.parts[0]) if columns)


def test_the_papers_captioners_are_read_from_files(data: Path, tiny: dict[str, Path], tmp_path: Path) -> None:
    ids = [clip.id for clip in open_manifest(data, "train")]
    files = {}
    for name in ("enclap", "conette"):
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps({"id": one, "text": f"{name} hears rain"}) + "\n" for one in ids))
    with serving(answer) as server:
        changes = [f"{name}.path={path}" for name, path in files.items()] + local("look", tiny["sees"])
        changes += whispering(tiny["whisper"])
        changes += ["look.max_tokens=6", "look.frame_size=32", f"score.model={tiny['peav']}", "score.device=cpu"]
        job = run(data, recipe("paper", *changes, remote("write", server.url)))
    for items in candidates(job):
        assert [item["by"] for item in items] == ["EnCLAP", "CoNeTTE", "PLM"]
    lines = [json.loads(line) for line in (data / "provenance/train.jsonl").read_text().splitlines()]
    assert lines and all(line["models"]["EnCLAP"] == "MIT" for line in lines)


@pytest.mark.parametrize("name", LICENCES)
def test_every_model_of_a_preset_states_its_licence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("enclap.jsonl", "conette.jsonl"):
        Path(file).touch()
    stages = Pipeline(recipe(name)).stages.values()
    assert {licence for stage in stages for licence in stage.models.values()} == LICENCES[name]


@contextmanager
def transformers_serve(model: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(command, cwd=model, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        deadline = time.monotonic() + 300
        while True:
            assert process.poll() is None and time.monotonic() < deadline
            try:
                if httpx2.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx2.TransportError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_real_server_that_is_killed_ends_the_run_and_nothing_is_lost(tmp_path: Path) -> None:
    """`transformers serve` in a process of its own, with a tiny model."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    model, data = language_model(tmp_path / "model"), write_clips(tmp_path / "d", 8)

    def stages(url: str, log: str) -> dict[str, Any]:
        arguments = {"url": url, "model": str(model), "licence": "CC0-1.0", "concurrency": 2, "max_refused": 2}
        backend = {"class_path": "HTTPBackend", "init_args": {**arguments, "retries": 1, "backoff_seconds": 0.1}}
        write = {"backend": backend, "kinds": ["audio"], "max_tokens": 8}
        return {**config(log), "write": {"class_path": "ModelWriter", "init_args": write}}

    log = tmp_path / "log"
    with transformers_serve(model) as (url, process):
        first = JobSpec(str(data), stages(url, str(log)), part_clips=4, batch_clips=4, where="id < 'clip-4'")
        done = caption(first, PublishOptions(max_opening_share=1.0), probes=0, samples=0)
        # Random weights write no sentence: what counts is that each clip was answered, by this model.
        assert done.published.survey.clips == 4
        answers = Job(first).file(Job(first).parts[0], "write").load()
        assert all("out" in row or "answer" in row["failed"] or "script" in row["failed"] for row in answers.values())
        process.kill()
        process.wait()
        shutil.rmtree(data / "engine")
        rest = JobSpec(str(data), stages(url, str(log)), part_clips=4, batch_clips=4)
        with pytest.raises(EngineStop, match="start the server, and run the same command again"):
            caption(rest, PublishOptions(max_opening_share=1.0), probes=0, samples=0)
    with transformers_serve(model) as (url, _):
        again = JobSpec(str(data), stages(url, str(log)), part_clips=4, batch_clips=4)
        done = caption(again, PublishOptions(max_opening_share=1.0), probes=0, samples=0)
    assert done.published.survey.clips == 8
    assert not any("refused" in reason for _, reason in done.published.survey.reasons)
