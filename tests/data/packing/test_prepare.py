import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lhotse import CutSet
from tokenizers import Tokenizer

from peav.data import ClipDataset, PrepareError, PrepareReport, prepare
from peav.data.manifests.manifest import load_manifest, save_manifest
from peav.data.stores.reader import ShardReader
from peav.data.stores.samples import Sample, ShardError
from peav.data.stores.shards import ShardWriter, verify_shards
from peav.data.workers import resilient_map
from tests.data.conftest import RATE, write_records, write_wav


def test_bad_clips_are_reported_and_good_ones_get_through(media: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.symlink_to(media)
    good = ["good.mp4", "silent.mp4", "sound.m4a", "late.mp4", "vfr.mp4"]
    bad = [
        "cut60.mp4",
        "barely.mp4",
        "cut_video.mp4",
        "zero.mp4",
        "short.wav",
        "nan.wav",
        "half.wav",
        "damaged.mp4",
        "missing.mp4",
    ]
    records: list[dict] = [{"id": file, "media": file} for file in good + bad]
    records += [
        {"id": "unknown", "media": "good.mp4", "caption": {}},
        {"id": "empty", "media": "good.mp4", "captions": {"audio": ""}},
        {"id": "endless", "media": "good.mp4", "captions": {"audio": "word " * 10_000, "video": "fine"}},
        {"id": "outside", "media": "good.mp4", "events": [{"phrase": "x", "onset": 1, "offset": 3}]},
        {"id": "good.mp4", "media": "sound.m4a"},
        {"id": "no-audio", "audio": "silent.mp4"},
        {"id": "no-video", "video": "sound.m4a"},
        {"id": "beyond", "media": "good.mp4", "start": 1.0, "duration": 5.0},
        {"id": "nan-span", "media": "nan.wav", "start": 0.1, "duration": 1.0},
        {"id": "captions-of-nothing", "media": "sound.m4a", "captions": {"video": "a picture"}},
    ]
    write_records(tmp_path / "clips.jsonl", records)
    report = prepare(source, tmp_path / "out", captions=str(tmp_path / "clips.jsonl"), workers=2, progress=False)
    reasons = {reject.id: reject.reason for reject in report.rejects if reject.line != 19}
    expected = {
        "cut60.mp4": "",
        "barely.mp4": "",
        "cut_video.mp4": "",
        "zero.mp4": "zero bytes",
        "short.wav": "too short",
        "nan.wav": "NaN",
        "half.wav": "truncated",
        "damaged.mp4": "damaged",
        "missing.mp4": "no such file",
        "unknown": "did you mean 'captions'",
        "outside": "outside its clip",
        "no-audio": "holds no audio",
        "no-video": "holds no video",
        "beyond": "reaches to 6 s",
        "nan-span": "NaN",
    }
    assert set(reasons) == set(expected)
    for clip, reason in expected.items():
        assert reason in reasons[clip], (clip, reasons[clip])
    assert [reject.reason for reject in report.rejects if reject.line == 19] == [
        "duplicate id 'good.mp4': line 1 has it already; ids must be unique"
    ]
    assert report.clips == {"train": len(good) + 3}
    notes = {note.id: note.note for note in report.notes}
    assert "empty caption" in notes["empty"] and "10,000 words" in notes["endless"]
    assert "no video" in notes["captions-of-nothing"]
    written = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in written] == [reject.reason for reject in report.rejects]
    # The order of the records is the order of the rows, whatever the workers did.
    ids = [cut.id for cut in load_manifest(tmp_path / "out", "train")]
    assert ids == [*good, "empty", "endless", "captions-of-nothing"]


def test_report_counts(prepared: tuple[Path, PrepareReport]) -> None:
    out, report = prepared
    assert not report.rejects
    assert report.clips == {"train": 11, "validation": 3}
    assert report.modalities == {"audio": 13, "video": 13, "audio_video": 12}
    assert report.domains == {"tones": 1, "": 13}
    assert report.annotated == 3 and report.events == 3
    assert report.hours == pytest.approx((5 * 2 + 1 + 5 * 0.5 + 3 * 2) / 3600, rel=0.02)
    saved = json.loads((out / "prepare.json").read_text())
    assert saved["report"]["clips"] == report.clips and saved["settings"]["min_seconds"] == 0.1


def test_manifest_is_lhotse(prepared: tuple[Path, PrepareReport]) -> None:
    out, _ = prepared
    cuts = {cut.id: cut for cut in CutSet.from_file(out / "manifest" / "train.jsonl")}
    both, silent, span = cuts["both"], cuts["silent"], cuts["span"]
    assert both.recording.sampling_rate == 16000 and both.recording.video.num_frames == 24
    assert [(segment.text, segment.start, segment.duration) for segment in both.supervisions] == [
        ("Beep", 0.5, 0.5),
        ("beep.", 1.2, 0.8),
    ]
    assert both.custom["captions"]["audio"] == ["A tone.", "a sine tone", "a steady beep"]
    assert both.custom["transcript"] == "la la" and both.custom["files"] == {"media": "good.mp4"}
    assert silent.recording is None and silent.custom["has_video"] and not silent.custom["has_audio"]
    assert silent.custom["annotated"] and not silent.supervisions
    assert (span.start, span.duration) == (0.5, 1.0)
    assert not cuts["late"].custom["annotated"]


def test_manifest_and_shards_join(prepared: tuple[Path, PrepareReport]) -> None:
    out, _ = prepared
    for split in ("train", "validation"):
        reader = ShardReader(out / "shards" / split)
        cuts = list(load_manifest(out, split))
        assert len(reader) == len(cuts)
        for cut in cuts:
            sample = reader.read(cut.custom["row"], cut.id)
            assert sample.crc32 == cut.custom["crc32"]
    with pytest.raises(ShardError, match="the shards have"):
        reader.read(0, "another")


def test_captions_can_be_rewritten_without_repacking(prepared: tuple[Path, PrepareReport], tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(prepared[0], out)
    cuts = load_manifest(out, "train").to_eager()
    for cut in cuts:
        cut.custom["captions"] = {"audio": ["rewritten"]}
    save_manifest(out, "train", cuts)
    assert {tuple(cut.custom["captions"]["audio"]) for cut in load_manifest(out, "train")} == {("rewritten",)}


def test_tokenizer_is_of_the_training_texts(prepared: tuple[Path, PrepareReport]) -> None:
    tokenizer = Tokenizer.from_file(str(prepared[0] / "tokenizer.json"))
    encoding = tokenizer.encode("A steady BEEP")
    assert encoding.tokens == ["[CLS]", "Ġa", "Ġsteady", "Ġbeep", "[SEP]"]
    assert tokenizer.token_to_id("[PAD]") == 0 and tokenizer.token_to_id("[UNK]") == 1


def test_a_finished_folder_is_left_alone(media: Path, tmp_path: Path) -> None:
    write_records(
        tmp_path / "clips.jsonl",
        [{"id": "a", "audio": "mono.wav", "captions": {"audio": "a tone"}}, {"id": "b", "audio": "no.wav"}],
    )
    arguments: dict[str, Any] = {"captions": str(tmp_path / "clips.jsonl"), "workers": 0, "progress": False}
    out = tmp_path / "out"
    first = prepare(media, out, **arguments)
    stamp = (out / "prepare.json").stat().st_mtime_ns
    again = prepare(media, out, **arguments)
    assert again.done_before and again.rejects == first.rejects and again.clips == first.clips
    assert (out / "prepare.json").stat().st_mtime_ns == stamp
    with pytest.raises(PrepareError, match="--overwrite true"):
        prepare(media, out, min_seconds=0.2, **arguments)
    assert not prepare(media, out, min_seconds=0.2, overwrite=True, **arguments).done_before
    write_records(tmp_path / "clips.jsonl", [{"id": "a", "audio": "mono.wav"}])
    with pytest.raises(PrepareError, match="--overwrite true"):
        prepare(media, out, min_seconds=0.2, **arguments)


def test_a_source_file_that_was_replaced_changes_nothing_that_is_trained_on(media: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(media / "mono.wav", source / "a.wav")
    write_records(source / "clips.jsonl", [{"id": "a", "audio": "a.wav"}])
    prepare(source, tmp_path / "out", workers=0, progress=False)
    before = ClipDataset(tmp_path / "out", "train", ["audio"])[0].samples
    write_wav(source / "a.wav", 0.1 * np.ones(RATE))
    after = ClipDataset(tmp_path / "out", "train", ["audio"])[0].samples
    assert before is not None and after is not None and torch.equal(before, after)
    with pytest.raises(PrepareError, match="other files or other settings"):
        prepare(source, tmp_path / "out", workers=0, progress=False)


def test_an_interrupted_folder_is_done_again_and_a_foreign_one_refused(media: Path, tmp_path: Path) -> None:
    write_records(tmp_path / "clips.jsonl", [{"id": "a", "audio": "mono.wav"}])
    arguments: dict[str, Any] = {"captions": str(tmp_path / "clips.jsonl"), "workers": 0, "progress": False}
    out = tmp_path / "out"
    prepare(media, out, **arguments)
    (out / "prepare.json").unlink()
    with pytest.raises(PrepareError, match="not made by"):
        prepare(media, out, **arguments)
    (out / ".unfinished").touch()
    assert prepare(media, out, **arguments).clips == {"train": 1}


def test_nothing_to_prepare_is_an_error(media: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        prepare(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no file"):
        prepare(media, tmp_path / "out")
    listing = tmp_path / "clips.jsonl"
    listing.touch()
    with pytest.raises(PrepareError, match="holds no record"):
        prepare(media, tmp_path / "out", captions=str(listing), progress=False)
    write_records(listing, [{"id": "a", "audio": "no.wav"}, {"id": "b", "audio": "zero.mp4"}])
    with pytest.raises(PrepareError, match="none of the 2 clips"):
        prepare(media, tmp_path / "out", captions=str(listing), workers=0, progress=False)
    assert "zero bytes" in (tmp_path / "out" / "rejects.jsonl").read_text()


def test_strict_stops_at_the_first(media: Path, tmp_path: Path) -> None:
    write_records(tmp_path / "clips.jsonl", [{"id": "a", "audio": "mono.wav"}, {"id": "b", "audio": "nan.wav"}])
    with pytest.raises(PrepareError, match=r"line 2, nan\.wav: the audio holds NaN"):
        prepare(media, tmp_path / "out", captions=str(tmp_path / "clips.jsonl"), workers=0, strict=True, progress=False)


def test_a_flipped_byte_is_caught(prepared: tuple[Path, PrepareReport], tmp_path: Path) -> None:
    folder = tmp_path / "train"
    shutil.copytree(prepared[0] / "shards" / "train", folder)
    ids = [cut.id for cut in sorted(load_manifest(prepared[0], "train"), key=lambda cut: cut.custom["row"])]
    verify_shards(folder, enumerate(ids), len(ids))
    chunk = next(folder.glob("*.bin"))
    data = bytearray(chunk.read_bytes())
    media = ShardReader(folder).read(0).media
    data[data.index(media) + len(media) // 2] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(ShardError, match=r"clip 'both', row 0 .* checksum"):
        verify_shards(folder, enumerate(ids), len(ids))
    with pytest.raises(ShardError, match="holds 11 samples, 12 were written"):
        verify_shards(folder, enumerate(ids), len(ids) + 1)


def test_shards_of_several_chunks(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "s", chunk_bytes=10_000)
    samples = [Sample(f"clip-{i}", audio=bytes([i]) * (37 * i)) for i in range(60)]
    closed = [writer.add(sample) for sample in samples]
    assert 1 < sum(closed) == len(writer.chunks) and writer.rows == 60
    writer.close()
    assert len(list((tmp_path / "s").glob("*.bin"))) > 5
    reader = ShardReader(tmp_path / "s")
    for row in (59, 0, 31, 30, 7):
        assert reader.read(row) == samples[row]
    with pytest.raises(ShardError, match="no folder"):
        ShardReader(tmp_path / "t").read(0)


def _double(items: Sequence[int]) -> list[int]:
    if 13 in items:
        os.kill(os.getpid(), signal.SIGKILL)
    return [2 * item for item in items]


def test_a_killed_worker_costs_only_its_item() -> None:
    groups = [range(start, start + 4) for start in range(0, 40, 4)]
    results = [item for group in resilient_map(_double, groups, 2, lambda item: -item) for item in group]
    assert results == [-13 if item == 13 else 2 * item for item in range(40)]
