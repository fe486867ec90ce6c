"""Manifests go through Lhotse and come back: what it cuts, renames and drops is what is trained on; what it cannot express is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet

from peav.data import Caption, ClipDataset, Event, ManifestError, RecordError, open_manifest, prepare, save_manifest
from peav.data.curation.validate import validate
from peav.data.manifests.clip import Clip, clip_from_json
from peav.data.manifests.manifest import manifest_path
from tests.data.conftest import RATE, write_records, write_wav

SECONDS = {"a": 4.0, "b": 5.0, "c": 2.5}


def sound(name: str) -> np.ndarray:
    return np.random.default_rng(ord(name)).uniform(-0.5, 0.5, round(SECONDS[name] * RATE))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    for name in SECONDS:
        write_wav(source / f"{name}.wav", sound(name))
    timed = [{"text": "early", "start": 0, "end": 1}, {"text": "late", "start": 2, "end": 3.5}, "all the time"]
    events = [{"phrase": "bell", "onset": 0.2, "offset": 0.8}, {"phrase": "horn", "onset": 1.8, "offset": 3.6}]
    records: list[dict[str, object]] = [
        {"id": name, "audio": f"{name}.wav", "captions": {"audio": name}} for name in SECONDS
    ]
    records[0] |= {"captions": {"audio": timed}, "events": events}
    write_records(source / "clips.jsonl", records)
    prepare(source, tmp_path / "data", workers=0, progress=False)
    return tmp_path / "data"


def cuts(data: Path) -> CutSet:
    return CutSet.from_file(manifest_path(data, "train")).to_eager()


def check(data: Path) -> list[Clip]:
    """Compares the sound of each clip with the part of its source that it says it is, and returns the clips."""
    assert validate(data).errors == 0
    dataset = ClipDataset(data, "train", ["audio"], sample_rate=RATE)
    clips = list(open_manifest(data, "train"))
    for row, clip in enumerate(clips):
        first = round(clip.start * RATE)
        want = torch.from_numpy(sound(clip.files["audio"][0])[first : first + round(clip.duration * RATE)]).float()
        got = dataset[row].samples
        assert got is not None
        torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
    return clips


def test_a_truncated_cut_is_a_part_with_its_events_and_captions(data: Path) -> None:
    first = next(cut for cut in cuts(data) if cut.id == "a")
    save_manifest(data, "train", [first.truncate(offset=2.0, duration=1.5)])
    (clip,) = check(data)
    assert (clip.start, clip.duration, clip.is_part) == (2.0, 1.5, True)
    assert clip.events == (Event("horn", 0.0, 1.5),)
    assert clip.captions["audio"] == (Caption("late", "real", 0.0, 1.5), Caption("all the time"))
    # Written and read again it is the same; so is a part of the part.
    save_manifest(data, "train", list(open_manifest(data, "train")))
    assert check(data) == [clip]
    save_manifest(data, "train", [cuts(data)[0].truncate(offset=0.5, duration=0.75)])
    (part,) = check(data)
    assert part.captions["audio"][0] == Caption("late", "real", 0.0, 0.75) and part.start == 2.5


@pytest.mark.parametrize(
    "edit",
    [
        lambda cuts: cuts.cut_into_windows(1.5),
        lambda cuts: cuts.cut_into_windows(10.0),
        lambda cuts: cuts.modify_ids(lambda name: f"new/{name}"),
        lambda cuts: cuts.subset(first=2),
        lambda cuts: cuts.sort_by_duration(),
        lambda cuts: cuts.filter(lambda cut: cut.duration > 3),
        lambda cuts: cuts.resample(8000),
        lambda cuts: cuts.trim_to_supervisions(keep_overlapping=True),
    ],
    ids=["windows", "whole windows", "renamed", "subset", "sorted", "filtered", "resampled", "trimmed"],
)
def test_cuts_hold_their_part_of_the_sound_whatever_they_are_called(
    data: Path, edit: Callable[[CutSet], CutSet]
) -> None:
    changed = edit(cuts(data)).to_eager()
    save_manifest(data, "train", changed)
    clips = check(data)
    assert [clip.id for clip in clips] == [cut.id for cut in changed] and clips


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda cuts: cuts.perturb_speed(1.1), r"transform '\w*Speed'"),
        (lambda cuts: cuts.perturb_volume(0.5), r"transform '\w*Volume'"),
        (lambda cuts: cuts.perturb_tempo(0.9), r"transform '\w*Tempo'"),
        (lambda cuts: cuts.pad(duration=9.0), "one that is padded or mixed"),
        (lambda cuts: CutSet.from_cuts([cuts[0].append(cuts[1])]), "one that is padded or mixed"),
    ],
    ids=["speed", "volume", "tempo", "pad", "append"],
)
def test_what_the_packed_media_are_not_is_refused_and_nothing_is_lost(
    data: Path, edit: Callable[[CutSet], CutSet], message: str
) -> None:
    before = manifest_path(data, "train").read_bytes()
    with pytest.raises(RecordError, match=message):
        save_manifest(data, "train", edit(cuts(data)))
    assert manifest_path(data, "train").read_bytes() == before
    assert [path.name for path in (data / "manifest").iterdir() if path.is_file()] == ["train.jsonl"]


@pytest.mark.parametrize(
    ("start", "duration", "message"),
    [
        (2.0, 2.5, "spans 2 to 4.5 s of its source, but only 0 to 4 s were packed"),
        (0.0, 4.01, "spans 0 to 4.01 s of its source, but only 0 to 4 s"),
        (4.0, 1.0, "spans 4 to 5 s"),
        (2.0, 2.0, ""),
        (0.0, 4.0, ""),
        (3.0, 0.5, ""),
    ],
)
def test_a_clip_that_reaches_beyond_its_recording_is_refused(
    data: Path, start: float, duration: float, message: str
) -> None:
    """The line of a clip of 4 s, edited by hand."""
    path = manifest_path(data, "train")
    first, *others = path.read_text().splitlines()
    line = json.loads(first)
    assert (line["id"], line["start"], line["duration"]) == ("a", 0.0, 4.0)
    path.write_text("\n".join([json.dumps(line | {"start": start, "duration": duration}), *others]) + "\n")
    report = validate(data)
    if message:
        assert [message in str(problem) for problem in report.problems if problem.kind == "line"] == [True]
        with pytest.raises(ManifestError, match=message):
            ClipDataset(data, "train")
    else:
        assert not report.errors and ClipDataset(data, "train").clip(0).duration == duration


def test_a_clip_that_begins_before_what_was_packed_is_refused(tmp_path: Path, data: Path) -> None:
    """A recording of 5 s in parts of 2 s: the second part holds 2 to 4 s."""
    prepare(tmp_path / "source", tmp_path / "parts", workers=0, progress=False, chunk_seconds=2.0)
    path = manifest_path(tmp_path / "parts", "train")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    (second,) = [line for line in lines if line["id"].startswith("b") and line["start"] == 2.0]
    for start, duration, message in (
        (1.0, 2.0, "spans 1 to 3 s of its source, but only 2 to 4 s"),
        (3.0, 1.5, "spans 3 to 4.5 s of its source, but only 2 to 4 s"),
        (3.0, 1.0, ""),
    ):
        path.write_text(json.dumps(second | {"start": start, "duration": duration}) + "\n")
        if message:
            with pytest.raises(ManifestError, match=message):
                ClipDataset(tmp_path / "parts", "train")
        else:
            assert ClipDataset(tmp_path / "parts", "train").clip(0).offset == 1.0


def test_the_times_of_captions_survive_a_round_trip_from_any_part() -> None:
    whole = Clip(
        "a", 10.0, store="shards/train", media_duration=10.0, captions={"audio": (Caption("x", "real", 3.0, 5.0),)}
    )
    part = replace(whole, start=2.0, duration=6.0, captions={"audio": (Caption("x", "real", 1.0, 3.0),)})
    for clip in (whole, part):
        assert clip_from_json(clip.to_json()) == clip
    assert clip_from_json({**whole.to_json(), "start": 2.0, "duration": 6.0}) == part
    assert clip_from_json({**whole.to_json(), "start": 6.0, "duration": 4.0}).captions == {}


def test_what_is_said_follows_chunks_and_windows(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_wav(source / "b.wav", sound("b"))
    segments = [
        {"text": text, "start": place, "end": place + 1} for place, text in enumerate(["one", "two", "three", "four"])
    ]
    records: list[dict[str, object]] = [
        {"id": "timed", "audio": "b.wav", "transcript": segments},
        {"id": "untimed", "audio": "b.wav", "transcript": "one two three four"},
    ]
    write_records(source / "clips.jsonl", records)
    prepare(source, tmp_path / "chunks", workers=0, progress=False, chunk_seconds=2.0)
    said = {clip.id: clip.transcript for clip in open_manifest(tmp_path / "chunks", "train")}
    assert [said[f"timed#000{number}"] for number in range(3)] == ["one two", "three four", None]
    assert {said[f"untimed#000{number}"] for number in range(3)} == {None}
    prepare(source, tmp_path / "whole", workers=0, progress=False)
    path = manifest_path(tmp_path / "whole", "train")
    windows = CutSet.from_file(path).cut_into_windows(2.0).to_eager()
    # A window of a window, and once through our own view of it.
    windows = CutSet.from_cuts(
        [*windows, *(cut.truncate(offset=1, duration=1) for cut in windows if cut.duration == 2)]
    )
    save_manifest(tmp_path / "whole", "train", [cut.with_id(f"{row}") for row, cut in enumerate(windows)])
    save_manifest(tmp_path / "whole", "train", list(open_manifest(tmp_path / "whole", "train")))
    dataset = ClipDataset(tmp_path / "whole", "train", fields=["captions.transcript"], transcripts="alone")
    found = [dataset[row].captions["transcript"] for row in range(len(dataset))]
    assert found == ["one two", "three four", None, None, None, None, "two", "four", None, None]


def test_texts_that_leave_their_clip_end_with_it_and_are_noted(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", sound("a"))
    texts = [
        {"text": "in", "start": 0, "end": 1},
        {"text": "over", "start": 1, "end": 5},
        {"text": "out", "start": 3, "end": 4},
    ]
    record = {"id": "a", "audio": "a.wav", "start": 1, "duration": 2, "captions": {"audio": texts}, "transcript": texts}
    write_records(tmp_path / "clips.jsonl", [record])
    report = prepare(tmp_path, tmp_path / "out", workers=0, progress=False)
    (clip,) = open_manifest(tmp_path / "out", "train")
    assert clip.captions["audio"] == (Caption("in", "real", 0.0, 1.0), Caption("over", "real", 1.0, 2.0))
    assert clip.transcript == "in over"
    notes = [note.note for note in report.notes]
    assert "caption of type 'audio' at 1 to 5 s ends with its clip of 2.000 s" in notes
    assert "segment of the transcript at 3 to 4 s dropped: its clip has 2.000 s" in notes and len(notes) == 4
    assert validate(tmp_path / "out").counts.total() == 0
