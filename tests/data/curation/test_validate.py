"""Every kind of damage is found, with its line and its clip, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peav.data.curation.validate import REPORTED, ValidationReport, validate
from peav.data.manifests.manifest import manifest_path, open_manifest, save_manifest
from tests.data.world import damage, make_data

Lines = list[dict[str, Any]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_data(tmp_path / "data", clips=8)


def edit(data: Path, change: Callable[[Lines], Any], split: str = "train") -> None:
    """Lets a function change the lines of a manifest; a string among them is written as it is."""
    path = manifest_path(data, split)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))


def found(report: ValidationReport) -> list[tuple[str, str, int | None, str | None]]:
    return [(problem.level, problem.kind, problem.line, problem.id) for problem in report.problems]


def test_whole_data_have_no_problem(data: Path) -> None:
    report = validate(data)
    assert report.clips == {"train": 8}
    assert found(report) == [] and report.errors == report.notes == 0


def custom(number: int, **fields: Any) -> Callable[[Lines], None]:
    return lambda lines: lines[number]["custom"].update(fields)


def event(onset: float, duration: float) -> Callable[[Lines], None]:
    def change(lines: Lines) -> None:
        item = {"id": "x", "recording_id": "y", "start": onset, "duration": duration, "channel": 0, "text": "rain"}
        lines[4] |= {"supervisions": [item]}
        lines[4]["custom"]["annotated"] = True

    return change


def half(lines: Lines) -> None:
    lines[4]["duration"] /= 2


def text_line(text: str) -> Callable[[Lines], None]:
    return lambda lines: lines.__setitem__(4, text)  # type: ignore[call-overload]


UNNAMED = ("note", "unnamed", None, None)
CORRUPTIONS: list[tuple[str, Callable[[Lines], Any], list[tuple[str, str, int | None, str | None]], str]] = [
    ("not JSON", text_line('{"id": "x",'), [("error", "line", 5, None), UNNAMED], "not JSON"),
    ("no object", text_line("[1]"), [("error", "line", 5, None), UNNAMED], "JSON object"),
    (
        "unknown field",
        lambda lines: lines[4].update(durration=1),
        [("error", "line", 5, "train-4"), UNNAMED],
        "did you mean 'duration'",
    ),
    (
        "no time",
        lambda lines: lines[4].update(duration=-1),
        [("error", "line", 5, "train-4"), UNNAMED],
        "'duration'",
    ),
    (
        "two of one id",
        lambda lines: lines[4].update(id="train-1"),
        [("error", "id", 5, "train-1")],
        "line 2 has the same id",
    ),
    ("a field of others", custom(4, captoins={}), [("note", "field", None, None)], "did you mean 'captions'"),
    ("event at the end", event(0.3, 5.0), [("error", "events", 5, "train-4")], "outside its clip"),
    ("event before the start", event(-1.0, 1.2), [("error", "events", 5, "train-4")], "outside its clip"),
    ("event without length", event(0.1, 0.0), [("error", "events", 5, "train-4")], "no duration"),
    ("event that rounding moved", event(0.2, 0.23), [], ""),
    (
        "caption of spaces",
        custom(4, captions={"audio": ["rain", " "]}),
        [("error", "captions", 5, "train-4")],
        "no words",
    ),
    ("row that is not there", custom(4, row=8), [("error", "row", 5, "train-4"), UNNAMED], "row 8 does not exist"),
    ("negative row", custom(4, row=-1), [("error", "row", 5, "train-4"), UNNAMED], "row -1 does not exist"),
    (
        "row of another clip",
        custom(4, row=3),
        [("error", "row", 5, "train-4"), UNNAMED, ("error", "bytes", 5, "train-4")],
        "used by line 4 of train too",
    ),
    ("other split", custom(4, split="test"), [("error", "split", 5, "train-4")], "manifest of 'train'"),
    ("store that is not there", custom(4, store="shards/x"), [UNNAMED, ("error", "store", None, None)], "shards/x"),
    ("other checksum", custom(4, crc32=1), [("error", "bytes", 5, "train-4")], "another checksum"),
    ("other sound", custom(4, audio_group=7), [("error", "bytes", 5, "train-4")], "other audio than audio_group says"),
    ("a picture", custom(4, has_video=True, video_group=7), [("error", "bytes", 5, "train-4")], "other video than"),
    ("other id", lambda lines: lines[4].update(id="new"), [], ""),
    ("no line for a row", lambda lines: lines.pop(), [UNNAMED], "1 of the 8 rows"),
    ("renamed", lambda lines: lines[4].update(id="x/4", custom=lines[4]["custom"] | {"packed_id": "train-4"}), [], ""),
]


@pytest.mark.parametrize(
    ("change", "expected", "message"), [c[1:] for c in CORRUPTIONS], ids=[c[0] for c in CORRUPTIONS]
)
def test_a_corruption_is_found(
    data: Path, change: Callable[[Lines], Any], expected: list[tuple[str, str, int | None, str | None]], message: str
) -> None:
    edit(data, change)
    report = validate(data)
    assert sorted(found(report), key=str) == sorted(expected, key=str), report.problems
    if expected:
        assert any(message in str(problem) for problem in report.problems)
    assert report.errors == sum(level == "error" for level, *_ in expected)


def test_the_parts_of_one_row_are_no_conflict(data: Path) -> None:
    def cut(lines: Lines) -> None:
        first = lines[4]
        parts = [json.loads(json.dumps(first)) for _ in range(2)]
        for number, part in enumerate(parts):
            part |= {"id": f"part-{number}", "start": number * first["duration"] / 2, "duration": first["duration"] / 2}
            part["custom"]["media_duration"] = first["duration"]
        lines[4:5] = parts

    edit(data, cut)
    report = validate(data)
    assert report.problems == [] and report.clips == {"train": 9}


@pytest.mark.parametrize("row", [0, 5])
def test_a_flipped_byte_is_found_only_when_bytes_are_read(data: Path, row: int) -> None:
    damage(data, row)
    report = validate(data)
    assert found(report) == [("error", "bytes", row + 1, f"train-{row}")]
    assert "do not match their checksum" in report.problems[0].message
    assert validate(data, check_bytes=False).problems == []


def test_a_chunk_that_is_gone_is_found_for_each_of_its_clips(data: Path) -> None:
    chunks = sorted((data / "shards/train").glob("*.bin"))
    chunks[0].unlink()
    report = validate(data)
    assert 1 <= report.errors < 8 and {problem.kind for problem in report.problems} == {"bytes"}


def test_shards_that_are_gone_are_one_error(data: Path) -> None:
    (data / "shards/train/index.json").unlink()
    assert found(validate(data)) == [("error", "store", None, None)]


def test_a_sound_in_two_splits_is_a_note(data: Path) -> None:
    make_data(data, clips=2, split="test")  # as long and as loud as the first two of train
    report = validate(data)
    assert report.clips == {"train": 8, "test": 2}
    assert found(report) == [("note", "leak", None, None)]
    assert "2 clips of test have a sound that train has too" in report.problems[0].message
    assert validate(data, "test").problems == []


def test_many_problems_are_counted_and_all_are_in_the_file(data: Path, tmp_path: Path) -> None:
    with manifest_path(data, "train").open("a") as stream:
        stream.write("{\n" * (REPORTED + 30))
    out = tmp_path / "problems.jsonl"
    report = validate(data, problems_file=out)
    assert report.errors == REPORTED + 30 and len(report.problems) == REPORTED
    problems = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(problems) == REPORTED + 30
    assert [problem["line"] for problem in problems] == list(range(9, 9 + REPORTED + 30))


def test_an_order_of_its_own_changes_nothing(data: Path) -> None:
    save_manifest(data, "train", reversed(list(open_manifest(data, "train"))))
    assert validate(data).problems == []


def test_what_is_not_prepared_is_said(tmp_path: Path, data: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        validate(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="it holds the splits train"):
        validate(data, "test")
