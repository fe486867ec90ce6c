"""What is written into the manifest: nothing that people wrote changes, and nothing is written that cannot be read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peav.data.manifests.manifest import open_manifest, write_manifest
from peav.data.manifests.records import Event
from peav.data.manifests.texts import Caption
from peav.engine.engine import caption
from peav.engine.job import JobSpec
from peav.engine.publish import PublishOptions
from peav.engine.stage import Columns, EngineError, Stage, register_stage
from tests.engine.data import write_clips


@register_stage
class Says(Stage):
    """Says of each clip what a file holds for it."""

    provides = ("texts", "speech", "domain", "events")

    def __init__(self, path: str) -> None:
        self.said = json.loads(Path(path).read_text())
        self.path = path

    @classmethod
    def identity(cls, init_args: Any) -> Any:
        return {"said": Path(init_args["path"]).read_text()}

    def __call__(self, batch: Columns) -> Columns:
        rows = [self.said.get(name, {}) for name in batch["id"]]
        return {"id": batch["id"], **{name: [row.get(name) for row in rows] for name in self.provides}}


@register_stage
class BrokenGate(Stage):
    """Fails for one clip."""

    reads = ("texts",)
    provides = ("texts",)

    def __call__(self, batch: Columns) -> Columns:
        if "clip-1" in batch["id"]:
            raise ValueError("no")
        return {"id": batch["id"], "texts": batch["texts"]}


def run(data: Path, said: dict[str, Any], **options: Any) -> Any:
    path = data.parent / "said.json"
    path.write_text(json.dumps(said))
    stages = {"say": {"class_path": "tests.engine.test_publish.Says", "init_args": {"path": str(path)}}}
    return caption(JobSpec(str(data), stages, part_clips=4), PublishOptions(**options), samples=0).published


def clips(data: Path) -> dict[str, Any]:
    return {clip.id: clip for clip in open_manifest(data, "train")}


SAID = {
    "texts": {"audio": "rain", "video": "a street"},
    "speech": {
        "text": "good morning",
        "segments": [{"text": "good", "start": 0.0, "end": 0.5}, {"text": "morning", "start": 0.5, "end": 99.0}],
    },
    "domain": "speech",
    "events": [
        {"phrase": "rain", "onset": 0.0, "offset": 1.0, "confidence": 0.75},
        {"phrase": "x", "onset": 1.0, "offset": 1.0},
    ],
}


def test_what_a_clip_lacks_is_filled_in_and_stays_until_it_is_replaced(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 3)
    published = run(data, {f"clip-{k}": SAID for k in range(3)})
    clip = clips(data)["clip-0"]
    assert (clip.transcript, clip.domain, clip.vocabulary) == ("good morning", "speech", "open")
    assert [(s.text, s.end) for s in clip.segments] == [("good", 0.5), ("morning", 2.0)]
    assert clip.events == (Event("rain", 0.0, 1.0, confidence=0.75),)
    assert published.filled == {"transcript": 3, "domain": 3, "events": 3}
    # clip-1 has no picture, so no caption of one is written.
    assert "video" not in clips(data)["clip-1"].captions and published.dropped["unwritable"] == 1
    other = {f"clip-{k}": {**SAID, "domain": "music", "speech": {"text": "hello"}} for k in range(3)}
    assert run(data, other).filled == {} and clips(data)["clip-0"].domain == "speech"
    assert run(data, other, replace=True).filled == {"transcript": 3, "domain": 3, "events": 3}
    assert (clips(data)["clip-0"].domain, clips(data)["clip-0"].transcript) == ("music", "hello")


def test_what_people_wrote_is_never_changed(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 2, transcript="their words", domain="theirs", events=())
    run(data, {"clip-0": SAID}, replace=True)
    clip = clips(data)["clip-0"]
    assert (clip.transcript, clip.domain, clip.events) == ("their words", "theirs", ())
    assert [c.text for c in clip.captions["audio"]] == ["real words 0", "rain"]


def test_captions_edited_during_the_run_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peav.engine import engine

    data = write_clips(tmp_path / "d", 2)
    publish = engine.publish

    def edited_first(job: Any, options: Any) -> Any:
        path = data / "manifest" / "train.jsonl"
        write_manifest(path, [replace(clip, licence="CC0") for clip in open_manifest(data, "train")])
        return publish(job, options)

    monkeypatch.setattr(engine, "publish", edited_first)
    run(data, {"clip-1": SAID})
    assert {clip.licence for clip in clips(data).values()} == {"CC0"}
    assert clips(data)["clip-1"].captions["audio"][0].text == "rain"


@pytest.mark.parametrize("text", ["\ud800", "word " * 1001, " "], ids=["half a character", "1,001 words", "nothing"])
def test_what_a_manifest_cannot_hold_is_left_out(tmp_path: Path, text: str) -> None:
    data = write_clips(tmp_path / "d", 2)
    run(data, {"clip-1": {"texts": {"audio": text}}})
    assert "audio" not in clips(data)["clip-1"].captions


def test_clips_with_the_media_of_another_get_no_caption_and_are_listed(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 6)
    same = [
        replace(c, audio_group=0, video_group=0, duration=2.0, media_duration=2.0, has_video=True)
        for c in clips(data).values()
    ]
    write_manifest(data / "manifest" / "train.jsonl", same)
    published = run(data, {f"clip-{k}": {"texts": {"audio": f"text {k}"}} for k in range(6)})
    assert published.captions == {"audio": 1} and published.dropped == {"duplicate": 5}
    listed = [json.loads(line) for line in (data / "engine" / "dropped.jsonl").read_text().splitlines()]
    assert listed[0] == {
        "id": "clip-1",
        "type": "audio",
        "text": "text 1",
        "reason": "the clip has the media of 'clip-0'",
    }
    assert run(
        data, {f"clip-{k}": {"texts": {"audio": f"text {k}"}} for k in range(6)}, unique_media=False
    ).captions == {"audio": 6}


def test_the_media_of_a_listed_clip_get_no_caption_anywhere_and_a_clip_without_one_counts_for_nothing(
    tmp_path: Path,
) -> None:
    data = write_clips(tmp_path / "d", 6)
    held = clips(data)
    for group, names in ((50, ("clip-0", "clip-2", "clip-4")), (51, ("clip-1", "clip-3", "clip-5"))):
        for name in names:
            changes = {"audio_group": group, "video_group": -1, "duration": 2.0, "media_duration": 2.0}
            held[name] = replace(held[name], **changes)
    write_manifest(data / "manifest" / "train.jsonl", held.values())
    said = {f"clip-{k}": {"texts": {"audio": f"text {k}"} if k != 1 else {}} for k in range(6)}
    (tmp_path / "list.txt").write_text("clip-2\n")
    published = run(data, said, blacklist=str(tmp_path / "list.txt"), unique_media=False)
    assert published.dropped == {"blacklisted": 3} and published.captions == {"audio": 2}
    listed = [json.loads(line) for line in (data / "engine" / "dropped.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in listed] == [
        "the clip has the media of 'clip-2', which the blacklist names",
        "the blacklist names the clip",
        "the clip has the media of 'clip-2', which the blacklist names",
    ]
    published = run(data, said)
    assert published.dropped == {"duplicate": 3}
    listed = [json.loads(line) for line in (data / "engine" / "dropped.jsonl").read_text().splitlines()]
    assert (listed[-1]["id"], listed[-1]["reason"]) == ("clip-5", "the clip has the media of 'clip-3'")


def test_captions_of_an_earlier_job_that_stay_though_their_clips_are_left_out_are_counted(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 3)
    said = {f"clip-{k}": {"texts": {"audio": f"text {k}"}} for k in range(3)}
    assert run(data, said).standing == {}
    (tmp_path / "list.txt").write_text("clip-1\n")
    published = run(data, said, blacklist=str(tmp_path / "list.txt"))
    assert published.standing == {"audio": 1} and "audio" in clips(data)["clip-1"].captions
    published = run(data, said, blacklist=str(tmp_path / "list.txt"), replace=True)
    assert published.standing == {} and "audio" not in clips(data)["clip-1"].captions


def test_equal_captions_are_bounded_and_equal_openings_stop_the_job(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 9)
    same = {f"clip-{k}": {"texts": {"audio": "The same words. " if k % 2 else "the same  words"}} for k in range(9)}
    before = (data / "manifest" / "train.jsonl").read_bytes()
    with pytest.raises(EngineError, match="100% of the 9 audio captions begin with 'the same words'"):
        run(data, same, min_opening_captions=9)
    assert (data / "manifest" / "train.jsonl").read_bytes() == before
    assert run(data, same, max_copies=3).captions == {"audio": 3}


def test_provenance_follows_the_manifest(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 3)
    run(data, {f"clip-{k}": {"texts": {"audio": f"old {k}"}} for k in range(3)})
    run(
        data,
        {"clip-0": {"texts": {"audio": "new 0"}}, "clip-1": {"texts": {"audio": "new 1", "title": "a title"}}},
        replace=True,
    )
    lines = [json.loads(line) for line in (data / "provenance" / "train.jsonl").read_text().splitlines()]
    # Of clip-2 nothing new was made: what it had stays, and so does where that came from.
    assert [(line["id"], line["type"], line["text"]) for line in lines] == [
        ("clip-0", "audio", "new 0"),
        ("clip-1", "audio", "new 1"),
        ("clip-1", "title", "a title"),
        ("clip-2", "audio", "old 2"),
    ]
    assert lines[0]["key"] != lines[3]["key"]
    held = [(clip.id, kind, c) for clip in clips(data).values() for kind, items in clip.captions.items() for c in items]
    written = {(name, kind, c.text) for name, kind, c in held if c.origin == "synthetic"}
    assert written == {(line["id"], line["type"], line["text"]) for line in lines}


def test_what_a_gate_could_not_see_is_not_written(tmp_path: Path) -> None:
    data, path = write_clips(tmp_path / "d", 3), tmp_path / "said.json"
    path.write_text(json.dumps({f"clip-{k}": {"texts": {"audio": "rain"}, "domain": "d"} for k in range(3)}))
    stages: dict[str, Any] = {
        "say": {"class_path": "tests.engine.test_publish.Says", "init_args": {"path": str(path)}},
        "gate": {"class_path": "tests.engine.test_publish.BrokenGate"},
    }
    done = caption(JobSpec(str(data), stages), PublishOptions(), samples=0)
    assert done.failed == 1 and done.published.captions == {"audio": 2}
    assert "audio" not in clips(data)["clip-1"].captions and clips(data)["clip-1"].domain == "d"


def test_captions_that_a_job_no_longer_writes_give_way_with_replace_alone(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 4)
    path = data / "manifest" / "train.jsonl"
    theirs = [
        replace(clip, captions={**clip.captions, "video": (Caption("of another engine", "synthetic"),)})
        for clip in open_manifest(data, "train")
    ]
    write_manifest(path, theirs)
    said = {f"clip-{k}": {"texts": {"audio": f"rain {k}"}} for k in range(4)}
    run(data, said)
    fewer = {**said, "clip-0": {"texts": {}}, "clip-2": {"texts": {"audio": "hail"}}}
    assert run(data, fewer).withdrawn == {} and "rain 0" in path.read_text()
    assert {k: n for k, n in run(data, fewer, replace=True).withdrawn.items() if n} == {"audio": 1}
    found = {name: {k: [c.text for c in v] for k, v in clip.captions.items()} for name, clip in clips(data).items()}
    assert found["clip-0"] == {"audio": ["real words 0"], "video": ["of another engine"]}
    assert found["clip-1"]["audio"] == ["rain 1"] and found["clip-2"]["audio"] == ["hail"]
    assert "rain 0" not in (data / "provenance" / "train.jsonl").read_text()
    # Of a clip that failed nothing is taken away.
    broken = {"class_path": "tests.engine.test_publish.BrokenGate"}
    stages = {
        "say": {"class_path": "tests.engine.test_publish.Says", "init_args": {"path": str(tmp_path / "said.json")}}
    }
    job = JobSpec(str(data), {**stages, "gate": broken}, work=str(tmp_path / "w"), batch_clips=1)
    assert caption(job, PublishOptions(replace=True), samples=0).published.withdrawn["audio"] == 0
    assert "rain 1" in path.read_text()
