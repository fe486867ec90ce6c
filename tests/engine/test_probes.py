"""Probes: captioners that do not hear, do not see, or mix clips up fail the run before it writes anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peav.engine.engine import caption
from peav.engine.job import JobSpec
from peav.engine.probes import ProbeError
from peav.engine.publish import PublishOptions
from peav.engine.stage import Columns, Stage, register_stage
from tests.data.world import make_data

NAMES = ("dog", "rain", "bell", "train", "piano", "river", "siren", "crow")


@register_stage
class ScriptedCaptioner(Stage):
    """Names the level of the tone of its clip, or does not listen."""

    reads = ("audio",)
    provides = ("candidates",)

    def __init__(self, how: str = "right") -> None:
        self.how, self.sample_rate = how, 8000

    def __call__(self, batch: Columns) -> Columns:
        said = []
        for place, (name, audio) in enumerate(zip(batch["id"], batch["audio"], strict=True)):
            level = round(float(np.abs(audio).mean()) * 1000)  # clip 0 has 1, as `tone` makes it
            number = {"right": level, "deaf": int(name.rpartition("-")[2]) + 1, "one row off": place}.get(self.how, 1)
            text = f"{NAMES[number % 8]} {NAMES[number // 8 % 8]}ing number{number}" if number else "nothing"
            said.append([{"kind": "audio", "text": text, "by": "s"}])
        return {"id": batch["id"], "candidates": said}


@register_stage
class AsCompleted(ScriptedCaptioner):
    """Returns its rows in another order, with the ids that they belong to, as a server answers."""

    def __call__(self, batch: Columns) -> Columns:
        made = super().__call__(batch)
        return {name: values[::-1] for name, values in made.items()}


def run(data: Path, how: str, cls: str = "ScriptedCaptioner", probes: int = 6) -> Any:
    stages: dict[str, Any] = {
        "listen": {"class_path": f"tests.engine.test_probes.{cls}", "init_args": {"how": how}},
        "choose": {"class_path": "ChooseCaption"},
    }
    spec = JobSpec(str(data), stages, part_clips=7, batch_clips=5)
    return caption(spec, PublishOptions(max_opening_share=1.0), probes=probes, samples=2)


@pytest.mark.parametrize(
    ("how", "fault"), [("deaf", "it is deaf"), ("constant", "it is deaf"), ("one row off", "mixes clips up")]
)
def test_a_captioner_that_does_not_listen_fails_the_run(tmp_path: Path, how: str, fault: str) -> None:
    data = make_data(tmp_path, 20, origins=(("real",),))
    before = (data / "manifest" / "train.jsonl").read_bytes()
    with pytest.raises(ProbeError, match=fault):
        run(data, how)
    assert (data / "manifest" / "train.jsonl").read_bytes() == before
    assert not list((data / "engine").rglob("*.done"))


@pytest.mark.parametrize("cls", ["ScriptedCaptioner", "AsCompleted"])
def test_the_right_captioner_passes_whatever_the_order_of_its_answers(tmp_path: Path, cls: str) -> None:
    from peav.data.manifests.manifest import open_manifest

    data = make_data(tmp_path, 20, origins=(("real",),))
    done = run(data, "right", cls)
    assert [(probe.stage, probe.fault) for probe in done.probes] == [("listen", "")]
    assert done.probes[0].blank == 0 and done.probes[0].other == 1 and done.probes[0].moved == 1
    for number, clip in enumerate(open_manifest(data, "train")):
        assert clip.captions["audio"][-1].text.endswith(f"number{number + 1}"), clip.captions
    page = done.page.read_text()
    assert "Probes" in page and "number" in page and "data:audio/aac" in page
