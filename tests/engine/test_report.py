"""The page of a job, by the real command: numbers beside those of people, refusals by reason, and clips before and after."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest
import yaml

from peav.cli.main import main
from tests.data.world import make_data


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of ten clips five get a caption, one of them what a person wrote; two are refused for one reason, one gets none, two fail."""
    root = tmp_path_factory.mktemp("page")
    data = make_data(root / "d", 10, origins=(("real",),))
    said = ["a dog", "a dog that howls", "a tone", "a hum", "tone 4", "beep beep beep beep", "so so so so so"]
    lines = [json.dumps({"id": f"train-{k}", "text": text}) for k, text in enumerate(said)]
    lines += [json.dumps({"id": f"train-{k}", "text": "of another clip", "duration": k}) for k in (8, 9)]
    (root / "captions.jsonl").write_text("\n".join(lines))
    read = {"class_path": "CaptionsFromFile", "init_args": {"path": str(root / "captions.jsonl"), "by": "<b>them</b>"}}
    stages = {"read": read, "choose": {"class_path": "ChooseCaption"}, "gate": {"class_path": "Gates"}}
    (root / "engine.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    assert main(["caption", str(data), "--config", str(root / "engine.yaml"), "--samples=8"]) == 0
    return (data / "engine/report.html").read_text()


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table whose first heading begins so."""
    table = re.search(rf"<thead><tr><th[^>]*>{heading}.*?</table>", page)
    assert table is not None
    found = re.findall(r"<tr>(.*?)</tr>", table[0].split("<tbody>")[1])
    return [[unescape(re.sub("<.*?>", "", cell)) for cell in re.findall(r"<td.*?</td>", row)] for row in found]


def test_words_stand_beside_those_of_people(page: str) -> None:
    assert rows(page, "captions<") == [
        ["audio, by this job", "5", "2.4", "7", "5"],
        ["audio, by people", "10", "2.0", "11", "10"],
    ]
    assert ["tone 4", "20.0 %", "10.0 %"] in rows(page, "audio captions begin with")


def test_refusals_are_counted_by_reason(page: str) -> None:
    assert rows(page, "gate.*?dropped") == [["degenerate", "0", "2"]]
    ((gate, reason, count),) = rows(page, "gate</th><th[^>]*>because")
    assert (gate, count) == ("degenerate", "2") and "'…'" in reason
    # The first of each gate say it in full.
    first = {clip: (text, because, outcome) for clip, text, because, outcome in rows(page, "clip")}
    said = f"degenerate: {reason.replace('…', 'so')}"
    assert first["train-6"] == ("audio: so so so so so", said, "dropped") and first.keys() == {"train-5", "train-6"}


def test_failures_are_counted_by_reason(page: str) -> None:
    stage, reason, count, first = rows(page, "stage</th><th[^>]*>reason")[0]
    assert (stage, reason, count) == ("read", "identity: its caption is about a clip of … s, and it lasts … s", "2")
    assert first == "train-8: identity: its caption is about a clip of 8 s, and it lasts 0.2 s"


def test_clips_are_shown_before_and_after(page: str) -> None:
    clips = {re.search("train-\\d", tile)[0]: tile for tile in page.split('<div class="clip">')[1:]}  # type: ignore[index]
    assert "5 of the 5 clips with a caption of this job, and 2 of the 5 without one, by chance." in page
    assert len(clips) == 7
    assert '<h4>This job</h4><ul><li><span class="kind">audio:</span> a dog</li></ul>' in clips["train-0"]
    assert '<h4>Before</h4><ul><li><span class="kind">audio, real:</span> tone 0</li></ul>' in clips["train-0"]
    assert all(tile.count("<img") == tile.count("<audio") == 1 for tile in clips.values())
    refused, none, failed = "what was written was refused", "nothing was written", "the stage read failed"
    reasons = dict(zip((f"train-{k}" for k in range(5, 10)), (refused, refused, none, failed, failed), strict=True))
    for name in clips.keys() & reasons:
        assert re.findall("no caption: ([^<]*)", clips[name]) == [reasons[name]]
    assert "&lt;b&gt;them&lt;/b&gt;" in page and "<b>them" not in page and "<script" not in page


def test_every_section_is_linked(page: str) -> None:
    linked = re.findall(r'<a href="#(\w+)">', page)
    assert linked == re.findall(r'<section id="(\w+)">', page) and "refused" in linked
