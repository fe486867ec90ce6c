"""`peav caption --semantic`: semantic duplicates get no caption, name one that does, and come back; by the commands that people run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peav.cli.main import main
from peav.data.curation.clip_duplicates import SemanticOptions
from peav.data.curation.semdedup import SemDedup
from peav.data.curation.vector_table import VectorsError
from peav.engine.engine import caption
from peav.engine.job import JobSpec
from peav.engine.publish import PublishOptions
from tests.checkpoints.test_formats import released_like
from tests.data.curation.test_clip_duplicates import write
from tests.data.world import make_data, tone
from tests.engine.data import config, seen, write_clips
from tests.engine.test_near import synthetic


def vectors(path: Path, alike: dict[int, int], count: int = 8) -> Path:
    """Of clips that are all different but for those that are like others, by number."""
    held = np.eye(count, dtype=np.float32)
    for one, other in alike.items():
        held[one] = held[other] + 0.01 * held[one]
    return write(path, [f"clip-{k}" for k in range(count)], audio=held)


def captioned(data: Path, work: Path, log: Path | None = None, stages: Any = None, **options: Any) -> Any:
    spec = JobSpec(str(data), {**config(log or ""), **(stages or {})}, work=str(work), part_clips=3)
    return caption(spec, PublishOptions(**options), samples=0).published


def dropped(work: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work / "dropped.jsonl").read_text().splitlines()]


def test_semantic_duplicates_get_no_caption_are_listed_and_come_back(tmp_path: Path) -> None:
    data, work, log = write_clips(tmp_path / "d", 8), tmp_path / "w", tmp_path / "log"
    semantic = SemanticOptions(str(vectors(tmp_path / "v.npz", {4: 1, 6: 1, 7: 2})), SemDedup(keep="easy"))
    assert captioned(data, work, log, semantic=semantic).dropped == {"semantic duplicate": 3}
    lines, calls = dropped(work), seen(log)
    assert len(lines) == 3 and synthetic(data) == set("01234567") - {line["id"][5:] for line in lines}
    for line in lines:
        assert line["stays"][5:] in synthetic(data) and line["similarity"] > 0.99
        assert (
            line["reason"]
            == f"the vector of the clip is nearly that of {line['stays']!r} (similarity {line['similarity']})"
        )
    assert captioned(data, work, log).dropped == {} and synthetic(data) == set("01234567")
    before = {path: path.stat().st_mtime_ns for path in (work / "semantic").iterdir()}
    assert captioned(data, work, log, semantic=semantic, replace=True).withdrawn["audio"] == 3
    assert dropped(work) == lines and seen(log) == calls
    assert {path: path.stat().st_mtime_ns for path in (work / "semantic").glob("*.npy")}.items() <= before.items()


def test_who_stays_is_no_clip_that_gets_no_caption_for_another_reason(tmp_path: Path) -> None:
    data, work = write_clips(tmp_path / "d", 8), tmp_path / "w"
    semantic = SemanticOptions(str(vectors(tmp_path / "v.npz", {1: 0, 4: 0, 5: 0})))
    (tmp_path / "list.txt").write_text("clip-0\n")
    prints = {"prints": {"class_path": "tests.engine.test_near.ScriptedPrints"}}  # 3 is like 0, 4 like 1, 5 like 2
    published = captioned(data, work, stages=prints, semantic=semantic, blacklist=str(tmp_path / "list.txt"))
    # Without the others 1, 4 and 5 would be left out in favour of 0, or two of them and 0 in favour of the third.
    assert published.dropped == {"blacklisted": 2, "near duplicate": 2}
    assert synthetic(data) == {"1", "2", "6", "7"}


def test_who_stays_has_a_caption_that_can_be_written_and_is_no_copy_too_many(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 6)
    semantic = SemanticOptions(str(vectors(tmp_path / "v.npz", {2: 1, 4: 3})), SemDedup(keep="easy"))
    texts = ["same", "same", "of two", "word " * 1001, "of four", "of five"]
    (tmp_path / "said.json").write_text(json.dumps({f"clip-{k}": {"texts": {"audio": t}} for k, t in enumerate(texts)}))
    stages = {
        "say": {"class_path": "tests.engine.test_publish.Says", "init_args": {"path": str(tmp_path / "said.json")}}
    }
    options = PublishOptions(semantic=semantic, max_copies=1)
    assert caption(JobSpec(str(data), stages), options, samples=0).published.dropped == {
        "duplicate": 1,
        "unwritable": 1,
    }
    assert synthetic(data) == {"0", "2", "4", "5"}


def test_vectors_of_other_data_stop_a_job_before_it_begins(tmp_path: Path) -> None:
    data, log = write_clips(tmp_path / "d", 8), tmp_path / "log"
    path = vectors(tmp_path / "v.npz", {}, 6)
    with pytest.raises(VectorsError, match="no vector of 2 of 8 clips, such as 'clip-6', 'clip-7'"):
        captioned(data, tmp_path / "w", log, semantic=SemanticOptions(str(path)))
    assert not log.exists() and not (tmp_path / "w").exists()


@pytest.mark.slow
def test_embed_and_caption_as_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sounds of which two are the same at another level, which a model of any weights hears as much the same."""
    world = tmp_path / "world"
    world.mkdir()
    random = np.random.default_rng(0)
    for number in range(4):
        header = tone(0, 1.0)[:44]
        samples = random.normal(0, 0.1, 8000) * np.sin(np.arange(8000) * 0.01 * (number + 1) ** 2)
        for name, level in ((f"s{number}", 1.0), (f"again{number}", 0.99)) if number < 2 else ((f"s{number}", 1.0),):
            data = np.round(level * samples * 32767 / 4).astype("<i2")
            (world / f"{name}.wav").write_bytes(header + data.tobytes())
            (world / f"{name}.txt").write_text(name)
    model = str(released_like(seed=7).save_pretrained(tmp_path / "m", "transformers"))
    assert main(["prepare", str(world), str(tmp_path / "d"), "--reader", "Folder"]) == 0
    assert main(["embed", str(world), "--model", model, "--out", str(tmp_path / "v.npz"), "--workers", "0"]) == 0
    said = tmp_path / "said.jsonl"
    ids = [path.name for path in world.glob("*.wav")]
    said.write_text("".join(json.dumps({"id": name, "text": f"the sound {name}"}) + "\n" for name in ids))
    stages = f"{{read: {{class_path: CaptionsFromFile, init_args: {{path: {said}}}}}, choose: {{class_path: ChooseCaption}}}}"
    held = np.load(tmp_path / "v.npz")
    names = [Path(name).stem for name in held["ids"]]
    unit = held["audio"] / np.linalg.norm(held["audio"], axis=1, keepdims=True)
    apart = 1 - unit @ unit.T
    same = np.array([[one[-1] == other[-1] for other in names] for one in names])
    within, beyond = apart[same].max(), apart[~same].min()
    assert within < beyond / 2
    command = ["caption", str(tmp_path / "d"), "--stages", stages, "--samples", "0"]
    capsys.readouterr()
    assert main([*command, f"--semantic={tmp_path / 'v.npz'}", f"--semantic_eps={(within + beyond) / 2}"]) == 0
    assert "2 captions were left out (semantic duplicate)" in capsys.readouterr().out
    lines = dropped(tmp_path / "d/engine")
    assert sorted(line["id"][-5] + line["stays"][-5] for line in lines) == ["00", "11"]


def test_how_without_vectors_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_data(tmp_path, 3)
    assert main(["caption", str(tmp_path), "--config", "peav:engine/tagger", "--semantic_eps", "0.1"]) == 1
    assert "--semantic_eps says nothing without --semantic VECTORS" in capsys.readouterr().err
