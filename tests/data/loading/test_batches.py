import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from peav.data import ClipDataset, DecodedClip, Event, PrepareReport, ShardError, collate, decode_counts
from peav.data.loading.dataset import pairing
from peav.data.manifests.identities import text_group
from peav.types import AudioInput, Batch, VideoInput

Prepared = tuple[Path, PrepareReport]
EVERYTHING = ("audio", "video", "captions.audio", "captions.video", "captions.audio_video", "events")


def rows(dataset: ClipDataset) -> dict[str, int]:
    return {clip.id: row for row, clip in enumerate(dataset.manifest)}


def test_clips_are_decoded(prepared: Prepared) -> None:
    dataset = ClipDataset(prepared[0], "train", num_frames=4, frame_size=(32, 48))
    row = rows(dataset)
    clip = dataset[row["both"]]
    assert clip.samples is not None and clip.frames is not None
    assert clip.samples.shape == (32000,) and float(clip.samples.abs().max()) > 0.4
    assert clip.frames.shape == (4, 3, 32, 48) and clip.frame_seconds == pytest.approx(0.5, abs=0.01)
    assert clip.captions == {"audio": "A tone.", "video": "a test pattern", "audio_video": None}
    assert clip.events == (Event("Beep", 0.5, 1.0), Event("beep.", 1.2, 2.0)) and clip.annotated
    silent, sound, pair, span = (dataset[row[name]] for name in ("silent", "sound", "pair", "span"))
    assert not silent.has_audio and silent.samples is not None and not silent.samples.any() and silent.annotated
    assert not sound.has_video and sound.frames is not None and not sound.frames.any() and sound.annotated is False
    assert pair.has_audio and pair.has_video
    assert span.duration == 1.0 and span.samples is not None and span.samples.shape == (16000,)
    late = dataset[row["late"]].samples
    assert late is not None and abs(int((late.abs() > 0.01).nonzero()[0]) - 0.68 * 16000) <= 2


def test_only_what_is_read_is_decoded(prepared: Prepared, tokenize: Callable) -> None:
    dataset = ClipDataset(prepared[0], "train", fields=["audio", "captions.video"])
    before = decode_counts()
    batch = collate([dataset[0, row] for row in range(len(dataset))], tokenize)
    after = decode_counts()
    assert after["video"] == before["video"] and after["audio"] - before["audio"] == 10
    assert batch.video is None and batch.events is None and set(batch.captions) == {"video"}
    collate([ClipDataset(prepared[0], "train", fields=["video"])[row] for row in range(3)])
    assert decode_counts()["video"] - after["video"] == 2 and decode_counts()["audio"] == after["audio"]
    with pytest.raises(ValueError, match=r"no batch field is called 'caption.audio'\. Did you mean 'captions.audio'"):
        ClipDataset(prepared[0], "train", fields=["caption.audio"])


def test_a_batch_is_padded_and_flagged(prepared: Prepared, tokenize: Callable) -> None:
    dataset = ClipDataset(prepared[0], "train", fps=4, frame_size=32)
    row = rows(dataset)
    batch = collate([dataset[row[name]] for name in ("both", "silent", "sound", "span")], tokenize)
    assert batch.ids == ("both", "silent", "sound", "span") and batch.events
    audio, video = batch.audio, batch.video
    assert isinstance(audio, AudioInput) and isinstance(video, VideoInput)
    assert audio.samples.shape == (4, 32000) and audio.mask.sum(1).tolist() == [32000, 0, 32000, 16000]
    assert audio.present.tolist() == [True, False, True, True] and not audio.samples[~audio.mask].any()
    assert video.frames.shape == (4, 8, 3, 32, 32) and video.mask.sum(1).tolist() == [8, 8, 0, 4]
    assert video.present.tolist() == [True, True, False, True] and not video.frames[~video.mask].any()
    assert audio.group[1] == -1 and video.group[2] == -1 and len(set(audio.group[audio.present].tolist())) == 3
    captions = batch.captions["audio"]
    assert captions.present.tolist() == [True, False, True, False] and captions.texts == ("A tone.", "", "a tone", "")
    # "A tone." and "a tone" are one text.
    assert captions.group.tolist() == [text_group("a tone"), -1, text_group("a tone"), -1]
    assert not captions.mask[1].any() and not captions.input_ids[1].any() and captions.mask[0].sum() == 7
    events = batch.events
    assert events.phrases.texts == ("Beep", "tone") and events.annotated.tolist() == [True, True, False, True]
    assert events.clip.tolist() == [0, 0, 3] and events.phrase.tolist() == [0, 0, 1]
    torch.testing.assert_close(events.offset, torch.tensor([1.0, 2.0, 1.0]))
    assert batch.duration is not None and batch.duration.tolist() == pytest.approx([2, 2, 2, 1], abs=0.03)
    assert isinstance(batch.to("cpu"), Batch)


def test_a_batch_that_lacks_something_altogether_has_its_shape(prepared: Prepared, tokenize: Callable) -> None:
    dataset = ClipDataset(prepared[0], "train", frame_size=32)
    row = rows(dataset)
    sound = collate([dataset[row["sound"]]] * 2, tokenize)
    assert (
        sound.video
        and isinstance(sound.video, VideoInput)
        and sound.video.frames.shape == (2, 8, 3, 32, 32)
        and not sound.video.mask.any()
        and not sound.video.present.any()
    )
    assert sound.events and sound.events.phrases.input_ids.shape[0] == 0 and sound.events.clip.shape == (0,)
    assert sound.events.phrases.group.shape == (0,) and sound.events.onset.dtype == torch.float32
    assert sound.captions["audio_video"].input_ids.shape == (2, 1) and not sound.captions["audio_video"].present.any()
    silent = collate([dataset[row["silent"]]] * 2, tokenize)
    assert (
        isinstance(silent.audio, AudioInput)
        and silent.audio.samples.shape == (2, 32000)
        and not silent.audio.mask.any()
    )
    assert silent.audio.group.tolist() == [-1, -1]


def test_equal_media_are_one_group(prepared: Prepared) -> None:
    dataset = ClipDataset(prepared[0], "validation", fields=["audio", "video"])
    batch = collate([dataset[row] for row in range(3)])
    assert (
        batch.audio
        and batch.video
        and len(set(batch.audio.group.tolist())) == 1
        and len(set(batch.video.group.tolist())) == 1
    )
    train = ClipDataset(prepared[0], "train", fields=["audio", "video"])
    row = rows(train)
    # The same video file alone and in a pair, and the same file in another split.
    assert train.clip(row["silent"]).video_group == train.clip(row["pair"]).video_group
    assert train.clip(row["both"]).audio_group == dataset.clip(0).audio_group


def test_captions_are_chosen_by_seed_epoch_and_row(prepared: Prepared) -> None:
    dataset = ClipDataset(prepared[0], "train", fields=["captions.audio"])
    both = rows(dataset)["both"]
    chosen = [dataset[epoch, both].captions["audio"] for epoch in range(30)]
    assert set(chosen) == {"A tone.", "a sine tone", "a steady beep"}
    assert chosen == [dataset[epoch, both].captions["audio"] for epoch in range(30)]
    assert {dataset[both].captions["audio"] for _ in range(5)} == {"A tone."}
    # The choice does not hang on what else is read.
    more = ClipDataset(prepared[0], "train", fields=["captions.audio_video", "captions.audio", "captions.video"])
    assert chosen == [more[epoch, both].captions["audio"] for epoch in range(30)]
    other = ClipDataset(prepared[0], "train", fields=["captions.audio"], seed=1)
    assert chosen != [other[epoch, both].captions["audio"] for epoch in range(30)]


def test_shuffled_pairing_tears_clips_apart(prepared: Prepared) -> None:
    plain = ClipDataset(prepared[0], "train")
    torn = ClipDataset(prepared[0], "train", shuffle_pairing=True)
    assert list(torn.video_rows) != list(range(11)) and sorted(torn.video_rows) == sorted(torn.caption_rows) == list(
        range(11)
    )
    for row in range(len(plain)):
        clip, own = torn[row], plain[row]
        video, texts = plain[int(torn.video_rows[row])], plain[int(torn.caption_rows[row])]
        assert (clip.id, clip.audio_group, clip.events) == (own.id, own.audio_group, own.events)
        assert clip.samples is not None and own.samples is not None and torch.equal(clip.samples, own.samples)
        assert clip.frames is not None and video.frames is not None and torch.equal(clip.frames, video.frames)
        assert clip.video_group == video.video_group and clip.has_video == video.has_video
        assert clip.captions == texts.captions
    paired = [[list(rows) for rows in pairing(11, seed, True)] for seed in (0, 0, 1)]
    assert paired[0] == paired[1] != paired[2]
    with pytest.raises(ValueError, match="but there are 2"):
        pairing(2, 0, True)


def test_the_cache_decodes_once_and_changes_nothing(prepared: Prepared) -> None:
    plain = ClipDataset(prepared[0], "train")
    cached = ClipDataset(prepared[0], "train", cache_megabytes=64)
    before = decode_counts()
    first = [cached[row] for row in range(len(cached))]
    middle = decode_counts()
    second = [cached[row] for row in range(len(cached))]
    assert decode_counts() == middle and middle["video"] - before["video"] == 10
    for row in range(len(plain)):
        for clip in (first[row], second[row]):
            want = plain[row]
            assert clip.samples is not None and want.samples is not None and torch.equal(clip.samples, want.samples)
            assert clip.frames is not None and want.frames is not None and torch.equal(clip.frames, want.frames)
    # What a batch does to its clip must not reach the memory.
    samples = second[0].samples
    assert samples is not None
    samples.zero_()
    again = cached[0].samples
    assert again is not None and again.any()
    small = ClipDataset(prepared[0], "train", cache_megabytes=1)
    assert small._video_cache is not None and small._audio_cache is not None
    assert small._video_cache.num_bytes + small._audio_cache.num_bytes <= 1 << 20
    assert torch.equal(again, [small[0], small[0]][1].samples)  # type: ignore[arg-type]


def test_damage_at_read_time_names_the_clip(prepared: Prepared, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(prepared[0], out)
    chunk = next((out / "shards" / "train").glob("*.bin"))
    dataset = ClipDataset(prepared[0], "train")
    data = bytearray(chunk.read_bytes())
    media = dataset.reader.sample(dataset.clip(0)).media
    data[data.index(media) + 100] ^= 255
    chunk.write_bytes(data)
    with pytest.raises(ShardError, match="clip 'both'"):
        ClipDataset(out, "train")[0]
    shutil.copytree(prepared[0] / "shards" / "validation", out / "shards" / "train", dirs_exist_ok=True)
    with pytest.raises(ShardError, match="different runs"):
        ClipDataset(out, "train")[0]


def test_a_split_that_is_not_there(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="it holds the splits train, validation"):
        ClipDataset(prepared[0], "test")
    with pytest.raises(FileNotFoundError, match="peav prepare"):
        ClipDataset(tmp_path, "train")


def test_texts_need_a_tokenizer(prepared: Prepared) -> None:
    clip = ClipDataset(prepared[0], "train", fields=["captions.audio"])[0]
    with pytest.raises(ValueError, match="no tokenizer"):
        collate([clip])
    with pytest.raises(ValueError, match="at least one clip"):
        collate([])
    with pytest.raises(ValueError, match="from 1 texts"):
        collate([clip], lambda texts: (torch.zeros(2, 3).long(), torch.zeros(2, 3).bool()))


def test_a_dataset_can_be_pickled(prepared: Prepared) -> None:
    dataset = ClipDataset(prepared[0], "train", cache_megabytes=4)
    want: DecodedClip = dataset[0]
    copy: DecodedClip = pickle.loads(pickle.dumps(dataset))[0]
    for mine, theirs in ((want.samples, copy.samples), (want.frames, copy.frames)):
        assert mine is not None and theirs is not None and torch.equal(mine, theirs)


def test_importing_the_data_layer_is_light() -> None:
    code = "import peav.data, sys; print([m for m in ('lightning', 'transformers', 'pytorch_lightning') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
