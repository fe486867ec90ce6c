"""What happens to the folder of a job between two runs: it is mended, or said, and nothing of the manifest is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from peav.cli.main import main
from peav.engine.stage import Columns, Stage
from tests.engine.data import write_clips


class Sounds(Stage):
    """Names a sound of each clip, and learns something."""

    reads = ("duration",)
    provides = ("texts", "domain")
    calibrates = True

    def __init__(self, say: str = "a sound of") -> None:
        self.say = say

    def calibrate(self, batch: Columns) -> int:
        return len(batch["id"])

    def load_calibration(self, learned: int) -> None:
        self.learned = learned

    def __call__(self, batch: Columns) -> Columns:
        texts = [{"audio": f"{self.say} {name.replace('-', ' ')}"} for name in batch["id"]]
        return {"id": batch["id"], "texts": texts, "domain": ["effects"] * len(texts)}


class Absent(Sounds):
    """Cannot be built."""

    reads = ("texts",)
    provides = ("texts",)  # type: ignore[assignment]
    calibrates = False

    def __init__(self) -> None:
        raise OSError("the weights are not there")


def _command(data: Path, *names: str, **changes: str) -> list[str]:
    stages = {f"s{k}": {"class_path": f"{__name__}.{name}"} for k, name in enumerate(names)}
    stages["gate"] = {"class_path": "Gates"}
    path = data.parent / f"{'-'.join(names)}.yaml"
    path.write_text(json.dumps({"stages": stages}))
    options = {"part_clips": "3", "samples": "0", "probes": "0", **changes}
    return ["caption", str(data), "--config", str(path), *(f"--{name}={value}" for name, value in options.items())]


def _files(data: Path) -> dict[str, bytes]:
    return {name: (data / name / "train.jsonl").read_bytes() for name in ("manifest", "provenance")}


def _part(data: Path, suffix: str = "jsonl") -> Path:
    return next((data / "engine/train").glob("s0-*")) / f"000001.{suffix}"


def _write(find: Callable[[Path], Path], content: bytes) -> Callable[[Path], None]:
    return lambda data: (find(data).write_bytes(content), None)[1]


def _named(name: str) -> Callable[[Path], Path]:
    return lambda data: data / "engine" / name


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a job that is no JSON": _write(_named("job.json"), b"{gar"),
    "a job of nothing": _write(_named("job.json"), b""),
    "a job of another form": _write(_named("job.json"), b"[1]"),
    "a job without its parts": _write(_named("job.json"), b"{}"),
    "probes that are no JSON": _write(_named("probes.json"), b"{gar"),
    "a calibration that is no JSON": _write(lambda data: next((data / "engine/calibration").iterdir()), b"{gar"),
    "a calibration of another form": _write(lambda data: next((data / "engine/calibration").iterdir()), b"[1]"),
    "a part that is gone": lambda data: _part(data).unlink(),
    "a part that is empty": _write(_part, b""),
    "a part that was cut": lambda data: _write(_part, _part(data).read_bytes()[:70])(data),
    "a part of something else": _write(_part, bytes(range(256)) * 3),
    "a marker of something else": _write(lambda data: _part(data, "done"), bytes(range(256))),
    "a journal of something else": _write(
        lambda data: _part(data, "journal"),
        b'{"id": "cl\n\0\0[1]\n{}\n{"id": 5}\n{"id": "clip-3"}\n' + b"[" * 100_000 + b"\n",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_folder_that_was_damaged_is_mended(
    tmp_path: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path / "d")
    command = _command(data, "Sounds")
    assert main(command) == 0
    before = _files(data)
    damage(data)
    assert main(command) == 0
    assert "failed at a stage" not in capsys.readouterr().out
    assert _files(data) == before


def test_a_provenance_of_another_order_or_of_clips_that_are_gone_is_kept_by_its_clips(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d")
    assert main(_command(data, "Sounds")) == 0
    before = _files(data)
    path = data / "provenance/train.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    gone = json.dumps({"id": "gone", "type": "audio", "text": "x"}) + "\n"
    poor = json.dumps({"id": "clip-4"}) + "\n"
    for changed in ([gone, *lines], [poor, *lines], [*lines[::-1], gone]):
        path.write_text("".join(changed))
        # Without a choice of clips everything is said anew; with one the lines of the others must be those of before.
        assert main(_command(data, "Sounds", where="duration < 5", work=str(tmp_path / "w"))) == 0
        assert _files(data) == before
    # What an earlier job said is known to be its own, and gives way.
    path.write_text("".join([gone, *lines]))
    shutil.rmtree(data / "engine")
    assert main([*_command(data, "Sounds"), "--set", "s0.say=the noise of", "--replace"]) == 0
    manifest = (data / "manifest/train.jsonl").read_text()
    assert manifest.count("the noise of") == 10 and "a sound of" not in manifest


def test_a_job_that_could_not_begin_leaves_the_folder_to_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path / "d")
    assert main(_command(data, "Sounds", "Absent")) == 1
    assert "stages.s1: the weights are not there" in capsys.readouterr().err
    assert main(_command(data, "Sounds")) == 0
    assert main(_command(data, "Sounds", "Absent")) == 1
    assert "holds another job: the stages were s0, gate and are s0, s1, gate" in capsys.readouterr().err
