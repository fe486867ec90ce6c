"""What captioners and machines do to a run of `peav caption`: the bad answer is a row, the good ones are written."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from peav.cli.main import main
from peav.data.manifests.manifest import open_manifest
from tests.disks import enlarge, small_disk
from tests.engine.data import write_clips

ANSWERS = {
    "clip-0": "A dog barks twice.",
    "clip-1": "",
    "clip-2": "rain " * 100_000,
    "clip-3": "собака лает во дворе",
    "clip-4": "a bell\u0007 rings \x1b[31m",
    "clip-5": "<script>alert(1)</script> a door",
    "clip-6": None,
    "clip-7": ["a list"],
    "clip-8": "Rain falls on a roof.",
}


def command(data: Path, answers: dict[str, Any]) -> list[str]:
    path = data.with_suffix(".jsonl")
    path.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in answers.items()))
    read = {"class_path": "CaptionsFromFile", "init_args": {"path": str(path)}}
    gate = {"class_path": "Gates"}
    stages = {"read": read, "choose": {"class_path": "ChooseCaption"}, "gate": gate}
    data.with_suffix(".yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    return ["caption", str(data), "--config", str(data.with_suffix(".yaml")), "--part_clips", "3", "--samples", "2"]


def synthetic(data: Path) -> dict[str, list[str]]:
    return {
        clip.id: [c.text for items in clip.captions.values() for c in items if c.origin == "synthetic"]
        for clip in open_manifest(data, "train")
    }


def test_answers_that_are_no_captions_are_not_written_and_the_others_are(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", len(ANSWERS))
    assert main(command(data, {name: text for name, text in ANSWERS.items() if isinstance(text, str)})) == 0
    found = synthetic(data)
    good = ("clip-0", "clip-8")
    assert {name: texts for name, texts in found.items() if texts} == {name: [ANSWERS[name]] for name in good}
    page = (data / "engine/report.html").read_text()
    assert "<script" not in page and len(page) < 200_000
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]", page) and "a bell␇ rings" in page
    assert len((data / "engine/dropped.jsonl").read_text()) < 10_000


@pytest.mark.parametrize("name", ["clip-6", "clip-7"])
def test_a_file_of_captions_with_an_answer_that_is_no_text_is_one_line(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path / "d", len(ANSWERS))
    before = (data / "manifest/train.jsonl").read_bytes()
    assert main(command(data, {"clip-0": ANSWERS["clip-0"], name: ANSWERS[name]})) == 1
    error = capsys.readouterr().err.strip()
    assert "line 2" in error and len(error.splitlines()) == 1, error
    assert (data / "manifest/train.jsonl").read_bytes() == before


def test_a_disk_that_is_full_is_one_line_and_the_next_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(0)
    long = {
        f"clip-{k}": " ".join("".join(draw.sample("abcdefghijklmnopqrstuvwxyz", 10)) for _ in range(45))
        for k in range(200)
    }
    with small_disk(tmp_path / "small", 256) as disk:
        data = write_clips(disk / "d", 200)
        before = (data / "manifest/train.jsonl").read_bytes()
        words = command(data, long)
        assert main(words) == 1
        error = capsys.readouterr().err.strip()
        assert "No space left" in error and len(error.splitlines()) == 1, error
        assert (data / "manifest/train.jsonl").read_bytes() == before
        enlarge(disk, 8192)
        assert main(words) == 0
        assert synthetic(data) == {name: [text] for name, text in long.items()}
