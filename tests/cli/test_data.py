"""`peav data` as a user calls it: what it prints, what it writes, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lhotse import CutSet

from peav.cli.main import main
from peav.cli.table import COMMANDS, Group
from peav.data import ClipDataset, open_manifest
from tests.data.world import damage, make_data

Capture = pytest.CaptureFixture[str]
DATA = COMMANDS["data"]
assert isinstance(DATA, Group)
NAMES = list(DATA.commands)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data", clips=20)


def one_line(capsys: Capture) -> str:
    """The one line that an error is, however long the run was."""
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1 and "Traceback" not in captured.err, captured.err
    return lines[0]


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(words: list[str], capsys: Capture) -> None:
    assert main(["data", *words]) == 0
    text = capsys.readouterr().out
    assert NAMES == ["inspect", "validate", "stats", "split", "mix", "dedup", "trust"]
    assert all(f"\n    {name} " in text for name in NAMES)
    assert main([]) == 0
    assert "\n    data " in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_each_of_its_options(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["data", name, "--help"])
    assert stopped.value.code == 0
    assert f"usage: peav data {name}" in capsys.readouterr().out


def test_an_unknown_command_suggests_one(capsys: Capture) -> None:
    assert main(["data", "validat"]) == 2
    assert "Did you mean 'validate'?" in one_line(capsys)
    assert main(["dta"]) == 2
    assert "Did you mean 'data'?" in one_line(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stats", "NOWHERE"], "no folder"),
        (["inspect", "NOWHERE"], "no folder"),
        (["validate", "NOWHERE"], "no folder"),
        (["stats", "DATA", "--split=test"], "it holds the splits train"),
        (["inspect", "DATA", "--clips=-1"], "at least 0"),
        (["split", "DATA", "DATA"], "never writes over its input"),
        (["split", "DATA", "OUT", "--validation=0.7", "--test=0.3"], "must leave some for train"),
        (["mix", "a=DATA", "a=DATA", "--out=OUT"], "two sources are called 'a'"),
        (["mix", "a=NOWHERE", "--out=OUT"], "no folder"),
        (["mix", "DATA", "--out=DATA"], "never writes over its input"),
        (["mix", "DATA", "--out=OUT", "--domains=c"], "no clip has the domain 'c'"),
        (["mix", "DATA", "--out=OUT", "--with_captions=audoi"], "did you mean 'audio'"),
        (["mix", "DATA", "--out=OUT", "--min_seconds=60"], "no clip is left"),
        (["mix", "a=DATA", "b=DATA", "--out=OUT"], "a mix holds no clip twice"),
        (["mix", "a=DATA", "--out=OUT", "--shares={a: 2}"], "a share is at most 1"),
    ],
)
def test_an_error_is_one_line(data: Path, tmp_path: Path, words: list[str], message: str, capsys: Capture) -> None:
    places = {"DATA": str(data), "OUT": str(tmp_path / "out"), "NOWHERE": str(tmp_path / "nowhere")}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    assert main(["data", *words]) == 1
    line = one_line(capsys)
    assert line.startswith(f"peav data {words[0]}: ") and message in line
    assert not (tmp_path / "out").exists()


def test_wrong_options_are_refused(data: Path, capsys: Capture) -> None:
    for words in (["stats"], ["stats", str(data), "--splt=train"], ["mix", "--out=x"], ["mix", str(data)]):
        with pytest.raises(SystemExit) as stopped:
            main(["data", *words])
        assert stopped.value.code == 2
        assert one_line(capsys).startswith(f"peav data {words[0]}: ")


def test_stats_prints_tables_and_writes_json(data: Path, tmp_path: Path, capsys: Capture) -> None:
    make_data(data, clips=5, split="test")
    out = tmp_path / "new/stats.json"
    assert main(["data", "stats", str(data), f"--out={out}"]) == 0
    assert "domain" in capsys.readouterr().out
    assert json.loads(out.read_text())["clips"] == 25
    assert main(["data", "stats", str(data), "--split=test", f"--out={out}"]) == 0
    assert json.loads(out.read_text())["clips"] == 5


def test_inspect_writes_a_page_and_a_picture(data: Path, tmp_path: Path, capsys: Capture) -> None:
    page = tmp_path / "page.html"
    assert main(["data", "inspect", str(data), f"--out={page}", "--clips=3"]) == 0
    assert "3 clips" in capsys.readouterr().out
    assert "<html" in page.read_text() and page.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_validate_exits_with_1_where_there_are_errors(data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["data", "validate", str(data), "--progress=false"]) == 0
    assert "0 errors" in capsys.readouterr().out
    damage(data, 4)
    out = tmp_path / "problems.jsonl"
    assert main(["data", "validate", str(data), f"--out={out}", "--progress=false"]) == 1
    captured = capsys.readouterr()
    assert "train-4" in captured.out and captured.err == f"peav data validate: 1 errors in {data}\n"
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["train-4"]
    assert main(["data", "validate", str(data), "--check_bytes=false", "--progress=false"]) == 0


def test_split_then_validate_then_load(data: Path, tmp_path: Path, capsys: Capture) -> None:
    before = (data / "manifest/train.jsonl").read_bytes()
    out = tmp_path / "split"
    assert main(["data", "split", str(data), str(out), "--validation=0.2", "--test=0.2", "--by=id"]) == 0
    assert "clips" in capsys.readouterr().out
    assert main(["data", "validate", str(out), "--progress=false"]) == 0
    ids = []
    for split in ("train", "validation", "test"):
        dataset = ClipDataset(out, split, fields=("audio",))
        assert len(CutSet.from_file(out / f"manifest/{split}.jsonl")) == len(dataset) > 0
        ids += [clip.id for clip in dataset.__getitems__(range(len(dataset)))]
    assert sorted(ids) == sorted(clip.id for clip in open_manifest(data, "train"))
    assert (data / "manifest/train.jsonl").read_bytes() == before


def test_a_mix_of_clashing_ids_loads(data: Path, tmp_path: Path) -> None:
    songs = make_data(tmp_path / "songs", clips=30)
    out = tmp_path / "mixed"
    words = [f"talks={data}", f"{songs}", f"--out={out}", "--domains=[a]", "--max_seconds=0.45"]
    assert main(["data", "mix", *words]) == 0
    assert main(["data", "validate", str(out), "--progress=false"]) == 0
    dataset = ClipDataset(out, "train", fields=("audio", "captions.audio"))
    wanted = {
        name: [clip for clip in open_manifest(folder, "train") if clip.domain == "a" and clip.duration <= 0.45]
        for name, folder in (("talks", data), ("songs", songs))
    }
    first = {clip.id for clip in wanted["talks"]}
    second = {clip.id for clip in wanted["songs"]}
    expected = {
        f"{name}/{clip.id}" if clip.id in first & second else clip.id for name in wanted for clip in wanted[name]
    }
    clips = {clip.id: clip for clip in dataset.__getitems__(range(len(dataset)))}
    assert set(clips) == expected and len(expected) == len(wanted["talks"]) + len(wanted["songs"])
    for name, folder in (("talks", data), ("songs", songs)):
        old = ClipDataset(folder, "train", fields=("audio", "captions.audio"))
        for position, clip in enumerate(open_manifest(folder, "train")):
            mixed = clips.get(f"{name}/{clip.id}") or (clips.get(clip.id) if name == "songs" else None)
            if mixed is not None:
                assert mixed.samples is not None and mixed.samples.equal(old[position].samples)  # type: ignore[arg-type]
                assert mixed.audio_group == old[position].audio_group
                assert mixed.captions == old[position].captions
    assert {clip.dataset for clip in dataset.manifest} == {"talks", "songs"}
    assert len(list(CutSet.from_file(out / "manifest/train.jsonl"))) == len(dataset)
    assert (out / "tokenizer.json").is_file()


def test_a_bad_line_is_named(data: Path, capsys: Capture) -> None:
    with (data / "manifest/train.jsonl").open("a") as stream:
        stream.write("{\n")
    assert main(["data", "stats", str(data)]) == 1
    assert "line 21: not JSON" in one_line(capsys)
    assert main(["data", "validate", str(data), "--progress=false"]) == 1
