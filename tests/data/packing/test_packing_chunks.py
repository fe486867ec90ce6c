"""Long recordings become clips, and what was said about them goes along."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peav.data import Caption, Event, Record, load_audio, open_manifest, prepare
from peav.data.packing.chunking import chunk_record
from peav.data.stores.reader import ShardReader
from tests.data.conftest import RATE, write_records, write_wav


def test_events_are_clipped() -> None:
    events = (Event("a", 0.0, 10.0), Event("b", 8.0, 12.0), Event("c", 25.0, 26.0), Event("d", 10.0, 20.0))
    parts = chunk_record(Record("r", media="m.mp4", start=5.0, duration=30.0, events=events), 30.0, 10.0, 1.0)
    assert [(part.id, part.start, part.duration) for part in parts] == [
        ("r#0000", 5.0, 10.0),
        ("r#0001", 15.0, 10.0),
        ("r#0002", 25.0, 10.0),
    ]
    assert parts[0].events == (Event("a", 0.0, 10.0), Event("b", 8.0, 10.0))
    assert parts[1].events == (Event("b", 0.0, 2.0), Event("d", 0.0, 10.0))
    assert parts[2].events == (Event("c", 5.0, 6.0),)
    known = chunk_record(Record("r", media="m.mp4", events=()), 30.0, 10.0, 1.0)
    unknown = chunk_record(Record("r", media="m.mp4"), 30.0, 10.0, 1.0)
    assert {part.events for part in known} == {()} and {part.events for part in unknown} == {None}


def test_what_is_somewhere_in_a_recording_is_unknown_in_its_parts() -> None:
    absent, soft = Event("siren", confidence=0.0), Event("a", 0.0, 12.0, "/m/1", 0.5)
    events = (soft, Event("dog"), Event("cat", confidence=0.2), absent)
    parts = chunk_record(Record("r", media="m.mp4", events=events, vocabulary="pets"), 20.0, 10.0, 1.0)
    assert [part.events for part in parts] == [
        (replace(soft, offset=10.0), absent),
        (replace(soft, offset=2.0), absent),
    ]
    assert [part.vocabulary for part in parts] == ["open", "open"]
    assert parts[0].notes == ("2 events without times dropped, for the recording was cut into 2 clips",)
    # Where all events have times, or the recording stays whole, nothing is lost.
    parts = chunk_record(Record("r", media="m.mp4", events=(soft, absent), vocabulary="pets"), 20.0, 10.0, 1.0)
    assert [part.vocabulary for part in parts] == ["pets", "pets"] and not parts[0].notes
    whole = Record("r", media="m.mp4", events=events, vocabulary="pets")
    assert chunk_record(whole, 10.0, 10.0, 1.0) == [whole]


@pytest.mark.parametrize(("duration", "clips"), [(10.0, 1), (10.25, 1), (10.3, 2), (11.0, 2), (9.0, 1)])
def test_a_recording_a_little_longer_than_a_clip_stays_whole(duration: float, clips: int) -> None:
    record = Record("r", media="m.mp4", duration=duration)
    assert len(chunk_record(record, duration, 10.0, 0.2)) == clips
    assert chunk_record(record, duration, 0.0, 0.2) == [record]


def test_timed_texts_go_where_half_of_them_is() -> None:
    def caption(start: float, end: float) -> Caption:
        return Caption(f"{start:g}-{end:g}", "real", start, end)

    # Two thirds in the first; half and half; over all; a little more than half of a chunk, but less than half of itself.
    given = (caption(6, 12), caption(8, 12), caption(0, 30), caption(14.9, 26))
    record = Record("r", media="m.mp4", captions={"audio": given}, transcript=given)
    parts = chunk_record(record, 30.0, 10.0, 1.0)
    texts = [[item.text for item in part.captions["audio"]] for part in parts]
    assert texts == [["6-12", "8-12", "0-30"], ["8-12", "0-30", "14.9-26"], ["0-30", "14.9-26"]]
    assert [part.captions["audio"] for part in parts] == [part.transcript for part in parts]
    second = {item.text: (item.start, item.end) for item in parts[1].transcript}
    assert second["8-12"] == (0.0, 2.0) and second["0-30"] == (0.0, 10.0)
    assert second["14.9-26"] == (pytest.approx(4.9), 10.0)


@pytest.mark.parametrize("mode", ["copy", "drop"])
def test_texts_without_times(mode: Any) -> None:
    record = Record("r", media="m.mp4", captions={"audio": (Caption("rain"),)}, transcript=(Caption("hello"),))
    parts = chunk_record(record, 25.0, 10.0, 1.0, mode)
    expected = {"audio": (Caption("rain"),)} if mode == "copy" else {}
    assert [part.captions for part in parts] == [expected] * 3 and all(not part.transcript for part in parts)
    notes = " ".join(parts[0].notes)
    assert "transcript has no times" in notes and ("given to each" if mode == "copy" else "dropped") in notes


def test_where_the_cuts_are() -> None:
    def spans(duration: float, seconds: float = 10.0) -> list[tuple[float, float | None]]:
        return [(part.start, part.duration) for part in chunk_record(Record("r", media="m"), duration, seconds, 1.0)]

    whole = [(0.0, None)]
    assert spans(10.0) == spans(10.2) == spans(100.0, 0.0) == whole
    assert spans(20.0) == spans(20.9) == [(0.0, 10.0), (10.0, 10.0)]
    assert spans(21.0) == [(0.0, 10.0), (10.0, 10.0), (20.0, 1.0)]
    parts = chunk_record(Record("r", media="m"), 20.9, 10.0, 1.0)
    assert "too short" in parts[-1].notes[-1]


def test_a_rest_too_short_leaves_one_clip_of_the_right_length(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", 0.1 * np.ones(int(1.9 * RATE)))
    write_records(tmp_path / "clips.jsonl", [{"id": "a", "audio": "a.wav"}])
    prepare(tmp_path, tmp_path / "out", workers=0, progress=False, chunk_seconds=1.5)
    (clip,) = open_manifest(tmp_path / "out", "train")
    assert (clip.id, clip.start, clip.duration, clip.media_duration) == ("a#0000", 0.0, 1.5, 1.5)


def test_chunks_hold_their_part_of_the_sound(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, int(5.5 * RATE))
    write_wav(tmp_path / "a.wav", noise)
    record = {
        "id": "a",
        "audio": "a.wav",
        "start": 0.5,
        "captions": {"audio": [{"text": "first", "start": 0, "end": 1.5}, "all"]},
        "events": [{"phrase": "x", "onset": 1.5, "offset": 2.5}],
    }
    write_records(tmp_path / "clips.jsonl", [record])
    report = prepare(tmp_path, tmp_path / "out", workers=0, progress=False, chunk_seconds=2.0)
    assert report.clips == {"train": 3} and report.annotated == 3 and report.events == 2
    reader = ShardReader(tmp_path / "out" / "shards" / "train")
    clips = list(open_manifest(tmp_path / "out", "train"))
    assert [(clip.start, clip.media_start, clip.duration) for clip in clips] == [
        (0.5, 0.5, 2.0),
        (2.5, 2.5, 2.0),
        (4.5, 4.5, 1.0),
    ]
    for clip in clips:
        samples = load_audio(reader.read(clip.row, clip.id).audio, RATE, 0.0, clip.duration, origin=0.0)
        first = round(clip.start * RATE)
        expected = torch.from_numpy(noise[first : first + len(samples)]).float()
        torch.testing.assert_close(samples, expected, atol=1e-4, rtol=0)
        assert clip.recording is not None and clip.recording["num_samples"] == len(noise)
    assert [clip.texts["audio"] for clip in clips] == [("first", "all"), ("all",), ("all",)]
    assert clips[1].events == (Event("x", 0.0, 0.5),)


def test_a_bad_chunk_is_alone_in_its_misfortune(media: Path, tmp_path: Path) -> None:
    # `damaged.mp4` has bad bytes in the middle of its 2 s.
    write_records(tmp_path / "clips.jsonl", [{"id": "a", "media": "damaged.mp4"}])
    captions = str(tmp_path / "clips.jsonl")
    report = prepare(media, tmp_path / "out", captions, workers=0, progress=False, chunk_seconds=0.5, min_seconds=0.1)
    rejected = {reject.id for reject in report.rejects}
    kept = {clip.id for clip in open_manifest(tmp_path / "out", "train")}
    assert rejected and kept and "a#0000" in kept and rejected | kept <= {f"a#{i:04d}" for i in range(4)}
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert {line["file"] for line in lines} == {"damaged.mp4"}
