"""Captions of any type: from every reader through `peav prepare` and `peav data` to batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peav.cli.main import main
from peav.data import ClipDataset, ClipLoader, EvaluationPlan, Reject, open_manifest, read_records
from peav.data.curation.stats import manifest_stats
from peav.data.curation.where import Where
from peav.data.manifests.clip import clip_from_json
from peav.data.manifests.identities import bytes_group
from peav.data.manifests.manifest import write_manifest
from peav.data.manifests.texts import Caption
from peav.data.readers import Folder, HuggingFaceDataset, Table, WebDatasetTars
from peav.data.readers.base import Reader
from tests.data.readers.helpers import read, tar_bytes, texts, wav_bytes, write
from tests.data.world import make_data

TITLES = {"audio": ("Rain",), "title": ("My garden",)}


def prepared(tmp_path: Path, *more: Mapping[str, object]) -> Path:
    """Six clips with titles, and any more."""
    records = [
        {"id": f"clip-{n}", "media": "a.wav", "captions": {"title": [f"Title {n}", "a title"], "audio": "rain"}}
        for n in range(6)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in (*records, *more))
    source = write(tmp_path / "set", {"clips.jsonl": lines, "a.wav": wav_bytes(4000)})
    assert main(["prepare", str(source), str(tmp_path / "data"), "--workers=0"]) == 0
    return tmp_path / "data"


def test_a_type_of_ones_own_is_packed_counted_and_chosen_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = {"id": "odd", "media": "a.wav", "captions": {"audo": "rain"}, "split": "train"}
    data = prepared(tmp_path, odd)
    report = json.loads((data / "prepare.json").read_text())["report"]
    assert report["captions"] == {"title": 6, "audio": 6, "audo": 1}
    notes = [json.loads(line) for line in (data / "notes.jsonl").read_text().splitlines()]
    assert [(note["id"], "did you mean 'audio'?" in note["note"]) for note in notes] == [("odd", True)]
    assert main(["data", "stats", str(data), f"--out={tmp_path / 'stats.json'}"]) == 0
    counted = json.loads((tmp_path / "stats.json").read_text())["captions"]
    assert set(counted) == {"audio", "video", "audio_video", "audo", "title"}
    assert counted["title"]["captions"]["any"] == 12 and "title" in capsys.readouterr().out
    assert main(["data", "validate", str(data), f"--out={tmp_path / 'problems.jsonl'}"]) == 0
    problems = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    assert [(problem["level"], problem["message"]) for problem in problems] == [
        ("note", "1 clips have captions of the type 'audo': did you mean 'audio'?")
    ]
    assert main(["data", "inspect", str(data), "--clips=7"]) == 0
    page = (data / "inspect.html").read_text()
    assert ">title</td>" in page and "Title 3" in page
    mixed = tmp_path / "mix"
    assert main(["data", "mix", str(data), f"--out={mixed}", "--with_captions=title"]) == 0
    assert len(open_manifest(mixed, "train")) == 6
    capsys.readouterr()
    assert main(["data", "mix", str(data), f"--out={tmp_path / 'none'}", "--with_captions=titel"]) == 1
    assert "no clip has captions of the type 'titel': did you mean 'title'?" in capsys.readouterr().err


def test_titles_come_to_batches_and_are_chosen_by_themselves(tmp_path: Path, tokenize: Callable) -> None:
    data = prepared(tmp_path)
    dataset = ClipDataset(data, "train", fields=["captions.title"])
    batch = next(iter(ClipLoader(dataset, EvaluationPlan(6, 6), tokenize)))
    assert batch.held == {"captions.title"} and batch.captions["title"].texts[3] == "Title 3"
    alone = [[dataset[epoch, row].captions["title"] for row in range(6)] for epoch in range(8)]
    both = ClipDataset(data, "train", fields=["captions.audio", "captions.title", "captions.none"])
    assert [[both[epoch, row].captions["title"] for row in range(6)] for epoch in range(8)] == alone
    assert {text for texts in alone for text in texts} == {"a title", *(f"Title {n}" for n in range(6))}
    assert both[0, 0].captions["none"] is None


def test_what_is_chosen_of_the_three_types_has_not_moved(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", clips=8)
    clips = list(open_manifest(data, "train"))
    captions = {kind: tuple(Caption(f"{kind} {n}") for n in range(7)) for kind in ("video", "title", "audio")}
    write_manifest(data / "manifest/train.jsonl", [replace(clip, captions=captions) for clip in clips])
    dataset = ClipDataset(data, "train", fields=["captions.audio", "captions.video", "captions.title"], seed=3)
    for epoch in range(3):
        for row, clip in enumerate(clips):
            # The rule of the first release: one generator for the three types, in their order.
            numbers = np.random.default_rng([3, epoch, bytes_group(clip.id.encode()), 0]).random((3, 2))
            chosen = dataset[epoch, row].captions
            assert chosen["audio"] == f"audio {int(numbers[0, 0] * 7)}"
            assert chosen["video"] == f"video {int(numbers[1, 0] * 7)}"


def test_a_part_of_a_clip_keeps_the_titles_without_times(tmp_path: Path) -> None:
    line = json.loads((prepared(tmp_path) / "manifest/train.jsonl").read_text().splitlines()[0])
    line["custom"]["captions"]["title"].append({"text": "late", "start": 0.4, "end": 0.5})
    part = clip_from_json({**line, "start": 0.0, "duration": 0.2})
    assert part.texts["title"] == ("Title 0", "a title")


@pytest.mark.parametrize(
    ("reader", "files"),
    [
        (Table(), {"clips.csv": "id,media,caption,captions.title\n1,a.wav,Rain,My garden\n", "a.wav": wav_bytes()}),
        (
            Table(columns={"heading": "captions.title"}),
            {"clips.csv": "id,media,caption,heading\n1,a.wav,Rain,My garden\n", "a.wav": wav_bytes()},
        ),
        (Folder("title"), {"a.wav": wav_bytes(), "a.json": '{"captions": {"audio": "Rain"}, "text": "My garden"}'}),
        (
            WebDatasetTars(),
            {
                "0.tar": tar_bytes(
                    {"a.wav": wav_bytes(), "a.json": b'{"text": "Rain", "captions": {"title": "My garden"}}'}
                )
            },
        ),
        (
            WebDatasetTars("title"),
            {
                "0.tar": tar_bytes(
                    {"a.wav": wav_bytes(), "a.json": b'{"captions": {"audio": "Rain"}}', "a.txt": b"My garden"}
                )
            },
        ),
    ],
    ids=["a column captions.TYPE", "a column that is mapped", "a folder", "a tar's captions", "a tar's text"],
)
def test_readers_take_captions_of_any_type(reader: Reader, files: dict[str, bytes | str], tmp_path: Path) -> None:
    records, rejects = read(reader, write(tmp_path / "set", files))
    assert [texts(record) for record in records.values()] == [TITLES] and not rejects


@pytest.mark.parametrize(
    ("column", "captions"), [("captions.title", None), ("heading", {"heading": "title", "caption": "audio"})]
)
def test_tables_of_the_hub_take_captions_of_any_type(
    column: str, captions: dict[str, str] | None, tmp_path: Path
) -> None:
    rows = {"audio": [{"bytes": wav_bytes(), "path": "a.wav"}], column: ["My garden"], "caption": ["Rain"]}
    (tmp_path / "set").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "set/0.parquet")
    records, rejects = read(HuggingFaceDataset(captions=captions), tmp_path / "set")
    assert [texts(record) for record in records.values()] == [TITLES] and not rejects


@pytest.mark.parametrize("kind", ["my title", "title-1", "1st", "", "captions.title", "été", "event", "transcript"])
def test_names_that_no_type_can_have(kind: str, tmp_path: Path) -> None:
    line = json.dumps({"id": "a", "media": "a.wav", "captions": {kind: "x"}})
    found = read_records(write(tmp_path, {"clips.jsonl": line}) / "clips.jsonl")
    assert [isinstance(reject, Reject) for reject in found.rejects] == [True]
    assert f"{kind!r}" in found.rejects[0].reason and "caption type" in found.rejects[0].reason
    with pytest.raises(ValueError, match="caption type"):
        Where(with_captions=(kind,))
    if kind != "transcript":  # which a batch has, of the record's own field
        with pytest.raises(ValueError, match="no batch field is called"):
            ClipDataset(tmp_path, "train", fields=[f"captions.{kind}"])


def test_the_numbers_of_a_type_that_some_clips_have(tmp_path: Path) -> None:
    data = prepared(tmp_path, {"id": "none", "media": "a.wav"})
    coverage = manifest_stats(open_manifest(data, "train")).captions["title"]
    assert coverage.clips == {"any": 6, "real": 6, "synthetic": 0}
