"""What goes wrong around a run of `peav caption`: one line says it, or a row of the report; the manifest stays whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peav.cli.main import main
from peav.data.manifests.manifest import open_manifest, write_manifest
from peav.engine.stage import Columns, Stage, register_stage
from tests.data.world import damage, make_data
from tests.engine.data import config, write_clips


def command(data: Path, stages: dict[str, Any], *words: str) -> list[str]:
    path = data.parent / "engine.yaml"
    path.write_text(json.dumps({"stages": stages}))
    return ["caption", str(data), "--config", str(path), "--max_opening_share", "1", *words]


def synthetic(data: Path) -> list[str]:
    held = [c for clip in open_manifest(data, "train") for c in clip.captions.get("audio", ())]
    return [caption.text for caption in held if caption.origin == "synthetic"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"class_path": "ModelTranscriber", "init_args": {"model": "no/such/folder"}}, "no/such/folder"),
        ({"class_path": "PEAVTagger", "init_args": {"model": "no/such/folder", "sounds": ["rain"]}}, "no/such/folder"),
        (
            {
                "class_path": "ModelCaptioner",
                "init_args": {
                    "prompt": "What is heard?",
                    "backend": {"class_path": "TransformersBackend", "init_args": {"model": "no/such/one"}},
                },
            },
            "no/such/one",
        ),
        ({"class_path": "Whispr"}, "Whispr"),
    ],
    ids=["transcriber", "tagger", "captioner", "class"],
)
def test_a_model_that_is_not_there_is_one_line(
    tmp_path: Path,
    stage: dict[str, Any],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = make_data(tmp_path / "d", 3)
    before = (data / "manifest/train.jsonl").read_bytes()
    assert main(command(data, {"it": stage})) == 1
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1, error
    assert (data / "manifest/train.jsonl").read_bytes() == before


def test_a_clip_that_cannot_be_decoded_is_a_failure_and_the_others_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(tmp_path / "d", 4, origins=(("real",),))
    damage(data, 2)
    listen = {"class_path": "tests.engine.test_probes.ScriptedCaptioner", "init_args": {"how": "right"}}
    words = ("--probes", "0", "--samples", "0")
    assert main(command(data, {"listen": listen, "choose": {"class_path": "ChooseCaption"}}, *words)) == 0
    assert "1 clips failed at a stage" in capsys.readouterr().out
    assert [len(clip.captions["audio"]) for clip in open_manifest(data, "train")] == [2, 2, 1, 2]


@register_stage
class DropsAClip(Stage):
    """Somebody else edits the manifest meanwhile."""

    reads = ("duration",)
    provides = ("texts",)

    def __init__(self, manifest: str) -> None:
        self.manifest = Path(manifest)

    def __call__(self, batch: Columns) -> Columns:
        clips = [clip for clip in open_manifest(self.manifest.parents[1], "train") if clip.id != "clip-3"]
        write_manifest(self.manifest, clips)
        return {"id": batch["id"], "texts": [{"audio": f"rain {name}"} for name in batch["id"]]}


def test_a_manifest_that_lost_a_clip_meanwhile_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path / "d", 6)
    stage = {
        "class_path": "tests.engine.test_bad_runs.DropsAClip",
        "init_args": {"manifest": str(data / "manifest/train.jsonl")},
    }
    assert main(command(data, {"write": stage}, "--samples", "0")) == 1
    error = capsys.readouterr().err.strip()
    assert "changed during the run" in error and len(error.splitlines()) == 1, error
    assert len(open_manifest(data, "train")) == 5 and not synthetic(data)


def test_captions_that_are_there_give_way_with_replace_alone(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 6)
    words = ("--samples", "0")
    assert main(command(data, config(), *words)) == 0
    first = (data / "manifest/train.jsonl").read_bytes()
    assert len(synthetic(data)) == 6
    assert main(command(data, config(writer="other"), *words)) == 0
    assert (data / "manifest/train.jsonl").read_bytes() == first
    assert main(command(data, config(writer="other"), *words, "--replace", "true")) == 0
    assert len(synthetic(data)) == 6 and all(text.endswith("other") for text in synthetic(data))
    assert sum(c.origin == "real" for clip in open_manifest(data, "train") for c in clip.captions["audio"]) == 2
