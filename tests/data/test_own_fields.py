"""Fields of one's own kind in the data: packed, cut, moved, counted, loaded; what is damaged or missing; what never changes."""

from __future__ import annotations

import io
import json
import shutil
import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from peav.cli.main import main
from peav.data import (
    ClipDataset,
    ClipLoader,
    EvaluationPlan,
    MediaError,
    Population,
    RecordError,
    ShardError,
    TrainingPlan,
    load_manifest,
    open_manifest,
    prepare,
    register_field,
    save_manifest,
)
from peav.data.manifests.clip import clip_from_json
from peav.data.manifests.records import parse_record
from peav.data.packing.prepare import PrepareError
from peav.data.readers import Folder, HuggingFaceDataset, Table, WebDatasetTars
from peav.data.stores.reader import ShardReader
from peav.data.stores.samples import Sample, join_own, split_own
from peav.data.stores.shards import ShardWriter
from peav.fields import RESERVED_NAMES, build_fields, fields
from peav.training.virtual import join_rows
from peav.types import Batch, FieldInput, move
from tests.data.readers.helpers import read, tar_bytes, wav_bytes, write
from tests.data.steps import RATE, Score, Steps
from tests.data.world import damage, make_data


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fields, "_classes", dict(fields._classes))
    register_field(Steps)
    register_field(Score)
    yield


def wav(seconds: float) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(8000)
        stream.writeframes((np.sin(np.arange(round(seconds * 8000)) / 9) * 9000).astype("<i2").tobytes())
    return buffer.getvalue()


def source(folder: Path, *more: Mapping[str, Any], clips: int = 8, seconds: float = 2.0) -> Path:
    """Clips of two seconds, of which each second has steps and each third a score."""
    files: dict[str, str | bytes] = {"a.wav": wav(seconds)}
    records: list[dict[str, Any]] = []
    for number in range(clips):
        record: dict[str, Any] = {"id": f"clip-{number}", "media": "a.wav", "captions": {"audio": "a tone"}}
        if number % 2 == 0:
            files[f"{number}.txt"] = " ".join(str(100 * number + step) for step in range(round(seconds * RATE)))
            record["steps"] = f"{number}.txt"
        if number % 3 == 0:
            record["score"] = number / 4
        records.append(record)
    files["clips.jsonl"] = "".join(json.dumps(record) + "\n" for record in [*records, *more])
    return write(folder, files)


def packed(tmp_path: Path, *more: Mapping[str, Any], **options: Any) -> Path:
    prepare(source(tmp_path / "set", *more), tmp_path / "data", progress=False, **{"workers": 0, **options})
    return tmp_path / "data"


def batch_of(data: Path, read: Sequence[str] = ("steps", "score"), split: str = "train", **options: Any) -> Batch:
    dataset = ClipDataset(data, split, fields=read, **options)
    return next(iter(ClipLoader(dataset, EvaluationPlan(len(dataset), len(dataset)))))


def test_values_come_to_batches_as_they_were_read(tmp_path: Path) -> None:
    data = packed(tmp_path)
    batch = batch_of(data)
    assert batch.held == {"steps", "score"} and batch.audio is None
    steps = batch.read("steps")
    assert isinstance(steps, FieldInput) and steps.values.shape == (8, 20, 1)
    assert steps.present.tolist() == steps.mask.any(1).tolist() == [number % 2 == 0 for number in range(8)]
    assert steps.values[4, :, 0].tolist() == [400.0 + step for step in range(20)] and not steps.values[1].any()
    assert (steps.group[1::2] == -1).all() and len(set(steps.group[::2].tolist())) == 4
    score = batch.read("score")
    assert score.present.tolist() == [True, False, False, True, False, False, True, False]
    assert score.values[0][[0, 3, 6]].tolist() == [0.0, 0.75, 1.5]
    lines = [json.loads(line)["custom"] for line in (data / "manifest/train.jsonl").read_text().splitlines()]
    assert lines[0]["own_fields"] == {"steps": {"bytes": 80}, "score": {"value": 0.0}}
    assert "own_fields" not in lines[1]
    assert not [cut for cut in load_manifest(data, "train") if cut.id != cut.to_dict()["id"]]  # Lhotse reads it too
    moved = move(batch, "meta")
    assert moved.read("steps").values.device.type == moved.read("score").values[1].device.type == "meta"
    assert batch_of(data, ["steps"], field_options={"steps": {"scale": 2.0}}).read("steps").values[4, 1, 0] == 802.0


def test_batches_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    data = packed(tmp_path)
    dataset = ClipDataset(data, "train", fields=["steps", "score", "audio"])
    plan = TrainingPlan(Population.of(dataset.manifest.index), batch_size=3, seed=1)
    seen: list[list[Any]] = []
    for workers in (0, 2):
        loader = ClipLoader(dataset, plan, num_workers=workers)
        held = [batch for _ in range(2) for batch in loader]
        seen.append(
            [
                (
                    batch.ids,
                    batch.extra["steps"].values.tolist(),
                    [value.tolist() for value in batch.extra["score"].values],
                )
                for batch in held
            ]
        )
        assert {value.dtype for batch in held for value in batch.extra["score"].values} == {
            torch.float32,
            torch.bfloat16,
        }
        loader.close()
    assert seen[0] == seen[1] and len(seen[0]) == 4


def test_parts_have_their_own_steps_however_they_were_cut(tmp_path: Path) -> None:
    span = {
        "id": "span",
        "media": "a.wav",
        "start": 0.5,
        "duration": 1.0,
        "steps": "2.txt",
        "score": 5,
        "split": "test",
    }
    data = packed(tmp_path, span, chunk_seconds=0.8)
    train = batch_of(data)
    place = train.ids.index("clip-2#0001")
    assert train.extra["steps"].values[place, :, 0].tolist() == [200.0 + step for step in range(8, 16)]
    test = batch_of(data, split="test")
    assert test.ids == ("span",) and test.extra["score"].values[0].tolist() == [5.0]
    assert test.extra["steps"].values[0, :, 0].tolist() == [200.0 + step for step in range(5, 15)]
    cut = next(cut for cut in load_manifest(data, "train") if cut.id == "clip-2#0001").truncate(
        offset=0.2, duration=0.4
    )
    save_manifest(data, "validation", [cut.with_id("part")])
    line = json.loads((data / "manifest/validation.jsonl").read_text())
    line["custom"]["split"] = "validation"
    (data / "manifest/validation.jsonl").write_text(json.dumps(line) + "\n")
    part = batch_of(data, split="validation")
    assert part.extra["steps"].values[0, :, 0].tolist() == [210.0, 211.0, 212.0, 213.0]
    assert part.extra["steps"].group[0] != train.extra["steps"].group[place]


def test_split_and_mix_take_them_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = packed(tmp_path)
    plain = make_data(tmp_path / "plain", clips=4)
    assert main(["data", "split", str(data), str(tmp_path / "split"), "--by=id", "--validation=0.3", "--test=0.3"]) == 0
    assert main(["data", "mix", str(tmp_path / "split"), str(plain), f"--out={tmp_path / 'mix'}"]) == 0
    mixed = batch_of(tmp_path / "mix")
    whole = batch_of(data)
    shared = [name for name in mixed.ids if name in whole.ids]
    assert shared and len(shared) < len(mixed.ids)
    for name in mixed.ids:
        row = mixed.ids.index(name)
        if name not in shared:
            assert not mixed.extra["steps"].present[row]
            continue
        other = whole.ids.index(name)
        assert torch.equal(mixed.extra["steps"].values[row], whole.extra["steps"].values[other])
        assert mixed.extra["steps"].group[row] == whole.extra["steps"].group[other]
    assert main(["data", "validate", str(tmp_path / "mix")]) == 0
    assert main(["data", "stats", str(data), f"--out={tmp_path / 'stats.json'}"]) == 0
    assert json.loads((tmp_path / "stats.json").read_text())["fields"] == {"score": 3, "steps": 4}
    assert main(["data", "inspect", str(data)]) == 0
    page = (data / "inspect.html").read_text()
    assert "80 bytes" in page and '<span class="kind">score:</span> 0.75' in page


def test_damaged_bytes_are_noticed(tmp_path: Path) -> None:
    data = packed(tmp_path)
    chunk = next((data / "shards/train").glob("*.bin"))
    held = bytearray(chunk.read_bytes())
    place = held.find(np.array([400, 401], "<f4").tobytes())
    held[place] ^= 1
    chunk.write_bytes(held)
    with pytest.raises(ShardError, match="do not match their checksum"):
        batch_of(data)
    assert main(["data", "validate", str(data)]) == 1
    damage(data, 0)


def test_what_cannot_be_decoded_is_replaced_in_training_and_an_error_in_evaluation(tmp_path: Path) -> None:
    lone = {"id": "lone", "media": "a.wav", "start": 0.3, "duration": 0.1, "steps": "nan.txt"}
    folder = source(tmp_path / "set", lone)
    (folder / "nan.txt").write_text("0 0 0 nan 0")
    prepare(folder, tmp_path / "data", workers=0, progress=False)
    with pytest.raises(MediaError, match="steps of clip 'lone': cannot be decoded: FloatingPointError: a lone NaN"):
        batch_of(tmp_path / "data")
    dataset = ClipDataset(tmp_path / "data", "train", fields=["steps"])
    plan = TrainingPlan(Population.of(dataset.manifest.index), batch_size=3)
    loader = ClipLoader(dataset, plan, max_bad_share=1.0)
    for _ in range(3):
        assert all("lone" not in batch.ids for batch in loader)
    assert {replaced.clip for replaced in loader.replaced} == {"lone"}


@pytest.mark.parametrize(
    ("record", "reason", "missing"),
    [
        ({"steps": "gone.txt"}, "field 'steps': no such file: gone.txt", True),
        ({"steps": "../0.txt"}, "must be a path inside the source folder", False),
        ({"steps": 5}, "field 'steps': 'path' must be a string, got 5", False),
        ({"steps": "words.txt"}, "field 'steps': could not convert string to float", False),
        ({"score": 9}, "field 'score': a score is from 0 to 5, got 9", False),
        ({"score": [1]}, "field 'score': unexpected TypeError", False),
        ({"scoer": 1}, "unknown field 'scoer': did you mean 'score'?", False),
    ],
)
def test_a_field_that_cannot_be_read_is_a_reason(
    tmp_path: Path, record: dict[str, Any], reason: str, missing: bool
) -> None:
    folder = source(tmp_path / "set", {"id": "bad", "media": "a.wav", **record}, clips=1)
    (folder / "words.txt").write_text("one two")
    report = prepare(folder, tmp_path / "data", workers=0, progress=False)
    (reject,) = report.rejects
    assert (reject.id, reject.missing) == ("bad", missing) and reason in reject.reason
    assert report.clips == {"train": 1} and report.fields == {"steps": 1, "score": 1}
    assert not (tmp_path / "data/scratch").exists()


def test_null_is_absent(tmp_path: Path) -> None:
    assert parse_record({"id": "a", "media": "a.wav", "steps": None})[0].own == {}


def test_packing_goes_on_and_does_not_depend_on_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = source(tmp_path / "set", clips=40)
    prepare(folder, tmp_path / "whole", workers=2, progress=False, chunk_bytes=100_000)

    def content(out: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(out)): path.read_bytes()
            for path in sorted((out / "shards").rglob("*"))
            if path.is_file()
        }

    from peav.data.packing import packer

    calls = iter(range(100))
    original = packer.Packer.add

    def stops(self: Any, record_id: str, clips: Any) -> Any:
        if next(calls) == 25:
            raise KeyboardInterrupt
        return original(self, record_id, clips)

    monkeypatch.setattr(packer.Packer, "add", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "half", workers=0, progress=False, chunk_bytes=100_000)
    monkeypatch.undo()
    register_field(Steps)
    register_field(Score)
    prepare(folder, tmp_path / "half", workers=0, progress=False, chunk_bytes=100_000)
    assert content(tmp_path / "half") == content(tmp_path / "whole")
    for name in ("Steps", "Score"):
        fields._classes.pop(name.lower())
    assert prepare(source(tmp_path / "set", clips=40), tmp_path / "other", workers=0, progress=False).rejected == 27


def test_a_changed_file_or_class_is_another_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed(tmp_path)
    assert prepare(tmp_path / "set", data, workers=0, progress=False).done_before
    (tmp_path / "set/2.txt").write_text("1 2 3")
    with pytest.raises(PrepareError, match="prepared from another source"):
        prepare(tmp_path / "set", data, workers=0, progress=False)
    shutil.rmtree(data)
    prepare(tmp_path / "set", data, workers=0, progress=False)
    other = type("Other", (Steps,), {"__module__": __name__})
    monkeypatch.setitem(fields._classes, "steps", other)
    with pytest.raises(PrepareError, match="prepared from another source"):
        prepare(tmp_path / "set", data, workers=0, progress=False)


def test_shards_without_such_fields_are_what_they_were(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", clips=3)
    spec = json.loads((data / "shards/train/index.json").read_text())["config"]
    assert len(spec["data_format"]) == 5
    assert ShardReader(data / "shards/train").read(1).own == {}
    assert not batch_of(data).read("steps").present.any() and batch_of(data).read("steps").values.shape == (3, 1, 1)
    assert Sample("a", b"1", own={}).crc32 == Sample("a", b"1").crc32 != Sample("a", b"1", own={"x": b""}).crc32
    with pytest.raises(ValueError, match="these shards were begun without any"):
        ShardWriter(tmp_path / "new").add(Sample("a", own={"x": b"1"}))


@pytest.mark.parametrize(
    "data", [b"\x09\0\0\0{}", b"\xff\xff\xff\xff", join_own({"a": b"12"})[:-1], join_own({"a": b"12"}) + b"3"]
)
def test_bytes_that_are_no_fields_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        split_own(data)


def test_a_manifest_that_says_what_is_not_there(tmp_path: Path) -> None:
    data = packed(tmp_path)
    lines = [json.loads(line) for line in (data / "manifest/train.jsonl").read_text().splitlines()]
    lines[1]["custom"]["own_fields"] = {"steps": {"bytes": 4}, "unknown_to_this_machine": {"value": [1, {"a": None}]}}
    (data / "manifest/train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    clip = open_manifest(data, "train")[1]
    assert clip_from_json(clip.to_json()).own == clip.own and set(clip.own) == {"steps", "unknown_to_this_machine"}
    with pytest.raises(ShardError, match="steps of clip 'clip-1': the shards do not hold it"):
        batch_of(data)
    wrongs: list[Any] = [
        [],
        {"a": 1},
        {"a": {"bytes": "x"}},
        {"a": {"bytes": 1, "value": 2}},
        {"a": {"value": "x" * 70_000}},
    ]
    for wrong in wrongs:
        with pytest.raises(RecordError):
            clip_from_json({**lines[1], "custom": {**lines[1]["custom"], "own_fields": wrong}})


def parquet(path: Path) -> Path:
    path.mkdir(parents=True)
    rows = {"audio": [{"bytes": wav(0.5), "path": "a.wav"}], "stars": [2.5]}
    pq.write_table(pa.table(rows), path / "0.parquet")
    return path


@pytest.mark.parametrize(
    ("reader", "make"),
    [
        (Table, lambda root: write(root, {"clips.csv": "id,media,score\n1,a.wav,2.5\n", "a.wav": wav_bytes()})),
        (Folder, lambda root: write(root, {"a.wav": wav_bytes(), "a.json": '{"score": 2.5}'})),
        (
            WebDatasetTars,
            lambda root: write(
                root, {"0.tar": tar_bytes({"a.wav": wav_bytes(), "a.json": b'{"text": "x", "score": 2.5}'})}
            ),
        ),
        (lambda: HuggingFaceDataset(fields={"stars": "score"}), parquet),
    ],
    ids=["table", "folder", "tar", "parquet"],
)
def test_readers_take_them(reader: Callable[[], Any], make: Callable[[Path], Path], tmp_path: Path) -> None:
    records, rejects = read(reader(), make(tmp_path / "set"))
    assert [float(record.own["score"]) for record in records.values()] == [2.5] and not rejects


def test_choices_that_cannot_be_are_one_sentence(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", clips=3)
    with pytest.raises(ValueError, match=r"no batch field is called 'stesp'\. Did you mean 'steps'"):
        ClipDataset(data, "train", fields=["stesp"])
    with pytest.raises(
        ValueError, match=r"field_options names 'imu', which is no field of your own\. Choices: score, steps"
    ):
        ClipDataset(data, "train", fields=["steps"], field_options={"imu": {}})
    with pytest.raises(ValueError, match=r"field 'steps' has no option 'scael'\. Did you mean 'scale'"):
        build_fields(["steps"], {"steps": {"scael": 1}})
    with pytest.raises(ValueError, match="fields map columns to fields of your own kinds, not to 'stars'"):
        HuggingFaceDataset(fields={"a": "stars"})


@pytest.mark.parametrize("name", ["", "my field", "audio", "id", "captions", "duration", *sorted(RESERVED_NAMES)[:3]])
def test_names_that_no_field_can_have(name: str) -> None:
    with pytest.raises(ValueError, match="must be a word of letters"):
        register_field(type("Named", (Score,), {"name": name}))


def test_classes_that_are_no_fields() -> None:
    with pytest.raises(TypeError, match="takes a subclass of peav's Field"):
        register_field(dict)
    with pytest.raises(ValueError, match="two field classes are named 'score'"):
        register_field(type("Another", (Score,), {}))

    class Needs(Score):
        name = "needs"

        def __init__(self, rate: float) -> None: ...

    with pytest.raises(TypeError, match="the argument 'rate' needs a default"):
        register_field(Needs)


def test_the_fields_of_a_record_are_reserved() -> None:
    from peav.data.manifests.records import RECORD_FIELDS

    assert set(RECORD_FIELDS) | {field for field in Batch.__dataclass_fields__} <= RESERVED_NAMES


def test_wrong_shapes_and_batches_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed(tmp_path)
    monkeypatch.setattr(Steps, "shape", (2,))
    with pytest.raises(
        ValueError, match=r"field 'steps': decode returned \(20, 1\), its steps should have the shape \(2,\)"
    ):
        batch_of(data, ["steps"])
    monkeypatch.setattr(Score, "collate", lambda self, items, present, group: torch.zeros(len(items)))
    with pytest.raises(ValueError, match="collate must return a dataclass whose `present` and `group` have 8 rows"):
        batch_of(data, ["score"])


def test_virtual_batches_join_them(tmp_path: Path) -> None:
    data = packed(tmp_path)
    whole = batch_of(data)
    dataset = ClipDataset(data, "train", fields=["steps", "score"])
    parts = list(ClipLoader(dataset, EvaluationPlan(8, 3)))
    steps = join_rows([part.extra["steps"] for part in parts])
    assert torch.equal(steps.values, whole.extra["steps"].values) and torch.equal(
        steps.group, whole.extra["steps"].group
    )
