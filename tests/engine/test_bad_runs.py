"""What goes wrong around a run of `peav caption`: one line says it, or a row of the report; the manifest stays whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from peav.cli.main import main
from peav.data.manifests.manifest import open_manifest, write_manifest
from peav.engine.stage import Columns, Stage, register_stage
from tests.data.world import damage, make_data
from tests.engine.data import config, write_clips

ROOT = Path(__file__).parents[2]


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


class CallsExit(Stage):
    """Ends the process, as command line tools do that are called as functions."""

    reads = ("duration",)
    provides = ("texts",)

    def __init__(self, when: str = "call", clips: int = 0) -> None:
        self.clips = clips
        if when == "build":
            sys.exit("no licence")

    def __call__(self, batch: Columns) -> Columns:
        if any(int(name.partition("-")[2]) >= self.clips for name in batch["id"]):
            sys.exit(3)
        return {"id": batch["id"], "texts": [{"audio": f"rain {name}"} for name in batch["id"]]}


class NeedsAFile(CallsExit):
    """Reads a file that is not there."""

    def __init__(self) -> None:
        Path("/no/such/list.txt").read_text()


@pytest.mark.parametrize("executor", ["inline", "process"])
def test_a_stage_that_calls_exit_loses_its_clip_alone(tmp_path: Path, executor: str) -> None:
    data = write_clips(tmp_path / "d", 6)
    stage = {"class_path": "tests.engine.test_bad_runs.CallsExit", "init_args": {"clips": 4}}
    words = ("--samples", "0", "--probes", "0", "--executor", executor, "--workers", "1")
    assert main(command(data, {"write": stage}, *words)) == 0
    assert synthetic(data) == [f"rain clip-{k}" for k in range(4)]
    page = (data / "engine/report.html").read_text()
    assert "SystemExit" in page


def test_a_run_in_which_every_clip_fails_says_so_by_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path / "d", 6)
    stages = {"write": {"class_path": "tests.engine.test_bad_runs.CallsExit"}}
    assert main(command(data, stages, "--samples", "0")) == 1
    said = capsys.readouterr()
    assert "6 clips failed at a stage" in said.out and "every clip failed at a stage" in said.err
    assert not synthetic(data)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (
            {"class_path": "tests.engine.test_bad_runs.CallsExit", "init_args": {"when": "build"}},
            "its code called for the end of the process (exit status no licence)",
        ),
        ({"class_path": "tests.engine.test_bad_runs.NeedsAFile"}, "/no/such/list.txt"),
    ],
    ids=["exit", "file"],
)
def test_a_stage_that_cannot_be_built_is_named(
    tmp_path: Path, stage: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path / "d", 2)
    assert main(command(data, {"listen": stage}, "--samples", "0")) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("peav caption: stages.listen: ") and said in error and len(error.splitlines()) == 1


def test_work_in_a_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_clips(tmp_path / "d", 2)
    (tmp_path / "notes.txt").write_text("mine")
    for work in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "in"):
        assert main(command(data, config(), "--work", str(work))) == 1
        assert "give another --work" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_results_of_several_folders_go_by_their_names_in_any_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write_clips(tmp_path / "one", 2), write_clips(tmp_path / "two", 3)
    same = write_clips(tmp_path / "other" / "one", 2)
    words = command(one, config(), "--samples", "0", "--work", str(tmp_path / "work"))
    assert main([*words[:2], str(two), *words[2:]]) == 0
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["one", "two"]
    assert main([words[0], str(two), *words[1:]]) == 0
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["one", "two"]
    capsys.readouterr()
    assert main([*words[:2], str(same), *words[2:]]) == 1
    assert "have the same name" in capsys.readouterr().err


class SendsTerminate(CallsExit):
    """Somebody ends the run in the midst of its third batch."""

    def __call__(self, batch: Columns) -> Columns:
        if "clip-4" in batch["id"]:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"id": batch["id"], "texts": [{"audio": f"rain {name}"} for name in batch["id"]]}


def test_a_terminated_run_ends_and_is_no_failure_of_its_clip(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 6)
    stage = {"class_path": "tests.engine.test_bad_runs.SendsTerminate"}
    words = ("--samples", "0", "--probes", "0", "--batch_clips", "2")
    # In a process of its own: what other tests do with signals stays, and peav leaves handlers of others alone.
    code = f"import sys; from peav.cli.main import main; sys.exit(main({command(data, {'write': stage}, *words)!r}))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True)
    assert ended.returncode == 128 + signal.SIGTERM and not synthetic(data)
    lines = [line for path in (data / "engine").rglob("*.journal*") for line in path.read_text().splitlines()]
    assert len(lines) >= 4 and not any("failed" in line for line in lines)


class Lists(CallsExit):
    """Provides more than anybody reads."""

    provides = ("support",)

    def __call__(self, batch: Columns) -> Columns:
        return {"id": batch["id"], "support": [[["audio", f"thing {k}"] for k in range(40)] for _ in batch["id"]]}


def test_a_dry_run_prints_the_beginning_of_long_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_clips(tmp_path / "d", 1)
    stages = {"it": {"class_path": "tests.engine.test_bad_runs.Lists"}}
    assert main(command(data, stages, "--dry_run", "true")) == 0
    out = capsys.readouterr().out
    assert '["audio", "thing 11"]] and 28 more' in out and "thing 12" not in out
