"""Foregrounds over training clips: sound, levels and labels of mixtures, the same whatever the workers, and what cannot be mixed."""

from __future__ import annotations

import io
import logging
import wave
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer

from peav.data import Caption, Clip, ClipDataset, ClipLoader, Event, MediaError, Population, TrainingPlan, collate
from peav.data.datamodule import ClipDataModule
from peav.data.loading.decoding import DecodedClip
from peav.data.loading.level import active_spans
from peav.data.loading.mixed_labels import Known, mixed_labels
from peav.data.loading.mixing import Mixing, gain, mean_power, polyphony
from peav.data.loading.plan import DataSettingError
from peav.data.manifests.identities import bytes_group
from peav.data.manifests.labels import Labels, LabelsError, load_labels, write_labels
from peav.data.manifests.manifest import open_manifest, save_manifest, write_manifest
from peav.data.stores.samples import Sample
from peav.data.stores.shards import ShardWriter
from peav.types import AudioInput, Batch
from tests.data.world import damage

RATE = 8000
FIELDS = ("audio", "captions.audio", "captions.video", "captions.transcript", "events")


def wav(samples: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())
    return stream.getvalue()


def pack(data: Path, sounds: Sequence[np.ndarray], **fields: Any) -> Path:
    """Writes clips 0, 1, ... of these sounds; each field is one for all, or a function of the number."""
    writer, clips = ShardWriter(data / "shards/train", 1 << 20), []
    for number, samples in enumerate(sounds):
        sample, seconds = Sample(str(number), audio=wav(samples)), len(samples) / RATE
        own = {name: value(number) if callable(value) else value for name, value in fields.items()}
        clip = Clip(sample.id, seconds, has_audio=True, origins={"audio": 0.0}, store="shards/train", row=number)
        group = bytes_group(sample.audio)
        clips.append(replace(clip, crc32=sample.crc32, media_duration=seconds, audio_group=group, **own))
        writer.add(sample)
    writer.close()
    write_manifest(data / "manifest" / "train.jsonl", clips)
    return data


def noise(number: int, seconds: float, level: float = 0.1) -> np.ndarray:
    return level * np.random.default_rng(number).uniform(-1, 1, round(seconds * RATE))


def burst(before: float, seconds: float, after: float, level: float = 0.3) -> np.ndarray:
    """A square wave, of one power at all times, between silences."""
    inside = level * np.sign(np.sin(2 * np.pi * 500 * (np.arange(round(seconds * RATE)) + 0.5) / RATE))
    return np.concatenate([np.zeros(round(before * RATE)), inside, np.zeros(round(after * RATE))])


@pytest.fixture(scope="module")
def bursts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Isolated recordings with weak labels: half a second of sound after a quarter of silence."""
    sounds = [burst(0.25, 0.5, 0.4, 0.1 + 0.05 * number) for number in range(6)]
    return pack(
        tmp_path_factory.mktemp("bursts") / "data",
        sounds,
        events=lambda number: (Event(f"burst {number % 3}", label=f"/m/{number % 3}"),),
    )


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Backgrounds of two to three seconds, annotated with a vocabulary that knows the bursts."""
    captions = {"audio": (Caption("noise"),), "video": (Caption("a street"),)}
    data = pack(
        tmp_path_factory.mktemp("noises") / "data",
        [noise(number, 2.0 + 0.05 * number) for number in range(20)],
        events=lambda number: (Event("hum", 0.5, 1.5),) if number % 2 else (),
        vocabulary="room",
        captions=captions,
        transcript="hello",
    )
    write_labels(data, Labels({"room": ("hum", "burst 0", "burst 1", "burst 2")}))
    return data


def dataset(data: Path, mixing: Mixing | None, fields: Sequence[str] = FIELDS, **options: Any) -> ClipDataset:
    return ClipDataset(data, "train", fields, sample_rate=RATE, mixing=mixing, **options)


def sound(clip: DecodedClip) -> np.ndarray:
    assert clip.samples is not None
    return clip.samples.numpy()


def spans(events: Sequence[Event]) -> list[tuple[float, float]]:
    return [event.span for event in events if event.span is not None]


def test_a_gate_finds_what_is_loud() -> None:
    quiet = noise(0, 1.0, 1e-4)
    assert active_spans(np.zeros(0, np.float32), RATE) == active_spans(np.zeros(100, np.float32), RATE) == []
    assert active_spans(quiet.astype(np.float32), RATE) == [(0, RATE)]  # it knows no level but the loudest
    made = np.concatenate([quiet, burst(0, 0.3, 0), quiet, burst(0, 0.105, 0)]).astype(np.float32)
    assert active_spans(made, RATE) == [(8000, 10400), (18400, len(made))]
    assert active_spans(made, RATE, gap_seconds=1.1) == [(8000, len(made))]
    assert active_spans(made, RATE, gate_db=90) == [(0, len(made))]
    # Against a loop over frames, on sounds of any length.
    for seed in range(20):
        rng = np.random.default_rng(seed)
        samples = (rng.normal(size=rng.integers(1, 3000)) * (rng.random() < np.arange(1) + 0.5)).astype(np.float32)
        samples *= np.repeat(rng.random(len(samples) // 100 + 1) < 0.4, 100)[: len(samples)]
        heard = np.zeros(len(samples), bool)
        powers = [np.square(np.pad(samples[i : i + 80], (0, 80))[:80]).mean() for i in range(0, len(samples), 80)]
        for index, power in enumerate(powers):
            heard[80 * index : 80 * index + 80] = power > 0 and power >= 1e-4 * max(powers)
        found = np.zeros(len(samples), bool)
        for begin, end in active_spans(samples, RATE, gap_seconds=0.0):
            found[begin:end] = True
        assert (heard == found).all()


ONTOLOGY = Labels({"pets": ("Dog", "Cat", "Bark"), "city": ("Dog", "Siren")}, {"Bark": ("Dog",)})


@pytest.mark.parametrize(
    ("parts", "events", "vocabulary"),
    [
        # All is known of both: times stay, and so does what is absent.
        ([Known((Event("Dog", 0, 1),)), Known((Event("cat", 2, 3),))], [("Dog", (0, 1), 1), ("cat", (2, 3), 1)], ""),
        ([Known((Event("Dog", 0, 1),)), Known((Event("dog", 2, 3),))], [("Dog", (0, 1), 1), ("dog", (2, 3), 1)], ""),
        (
            [Known((Event("Cat", confidence=0),)), Known((Event("Dog", 2, 3),))],
            [("Cat", None, 0), ("Dog", (2, 3), 1)],
            "",
        ),
        # A closed vocabulary knows its own phrases, and nothing of others.
        ([Known((), "pets"), Known((Event("Dog", 0, 1),))], [("Dog", (0, 1), 1)], "pets"),
        ([Known((), "pets"), Known((Event("Siren", 0, 1),))], [("Siren", None, 1)], "pets"),
        ([Known((), "pets"), Known((Event("Dog", 0, 1),), "city")], [("Dog", (0, 1), 1)], "open"),
        # Over what nobody listened to, a sound is somewhere.
        ([Known((), "open"), Known((Event("Dog", 0, 1, "/m/1", 0.5),))], [("Dog", None, 0.5)], "open"),
        ([Known((Event("Dog"),)), Known((Event("Dog", 0, 1),))], [("Dog", None, 1)], ""),
        # What was absent is heard now, or unknown.
        ([Known((Event("Dog", confidence=0),)), Known((Event("dog", 0, 1),))], [("dog", (0, 1), 1)], ""),
        ([Known((Event("Dog", confidence=0),)), Known((), "open")], [], "open"),
        ([Known((Event("Dog", 0, 2, confidence=0),)), Known((Event("dog", 0, 1),))], [("dog", (0, 1), 1)], ""),
        (
            [Known((Event("Dog", 0, 2, confidence=0), Event("Dog", 2, 3))), Known()],
            [("Dog", (0, 2), 0), ("Dog", (2, 3), 1)],
            "",
        ),
        # A bark is a dog, and a dog may be a bark.
        (
            [Known((Event("Dog", 0, 1),)), Known((Event("Bark", 2, 3),))],
            [("Dog", (0, 1), 1), ("Dog", (2, 3), 1), ("Bark", None, 1)],
            "",
        ),
        (
            [Known((Event("Dog", confidence=0),)), Known((Event("Bark", 2, 3),))],
            [("Dog", (2, 3), 1), ("Bark", (2, 3), 1)],
            "",
        ),
    ],
)
def test_a_mixture_knows_what_all_its_sounds_know(
    parts: list[Known], events: list[tuple[str, Any, float]], vocabulary: str
) -> None:
    for ordered in (parts, parts[::-1]):
        mixed = mixed_labels(ordered, ONTOLOGY)
        assert mixed.vocabulary == vocabulary
        held = {(event.phrase.lower(), event.span, event.confidence) for event in mixed.events}
        assert held == {(phrase.lower(), span, confidence) for phrase, span, confidence in events}


def test_a_mixture_is_the_clip_and_its_foregrounds_at_their_ratio(noises: Path, bursts: Path) -> None:
    ratio = Mixing(str(bursts), share=1.0, min_snr_db=6.0, max_snr_db=6.0, max_events=1)
    mixed, plain = dataset(noises, ratio), dataset(noises, None)
    for row in range(20):
        made, alone = mixed[0, row, 0], plain[0, row, 0]
        before = [event for event in made.events if event.phrase == "hum"]
        assert before == list(alone.events) and made.vocabulary == "room" and made.annotated
        (event,) = [event for event in made.events if event.phrase != "hum"]
        assert event.span is not None and event.label == f"/m/{event.phrase[-1]}" and event.confidence == 1
        onset, offset = event.span
        assert offset - onset == pytest.approx(0.5, abs=0.0101)  # the silence around it is no part of it
        added = sound(made) - sound(alone)
        inside = slice(round(onset * RATE), round(offset * RATE))
        outside = np.ones(len(added), bool)
        outside[inside] = False
        assert np.abs(added[outside]).max() < 1e-6 and np.abs(added[inside]).min() >= 0
        power = np.square(added[inside].astype(np.float64)).mean() / np.square(sound(alone).astype(np.float64)).mean()
        assert 10 * np.log10(power) == pytest.approx(6.0, abs=0.01)
        assert made.audio_group != alone.audio_group and made.id == alone.id and made.duration == alone.duration


def test_what_no_longer_describes_a_mixture_is_left_out(noises: Path, bursts: Path) -> None:
    made = dataset(noises, Mixing(str(bursts), share=1.0))[0, 0, 0]
    assert made.captions == {"audio": None, "video": "a street", "transcript": None}
    kept = dataset(noises, Mixing(str(bursts), share=1.0, captions="keep"))[0, 0, 0]
    assert kept.captions == {"audio": "noise", "video": "a street", "transcript": "hello"}
    assert np.array_equal(sound(made), sound(kept))


def content(batch: Batch) -> tuple[Any, ...]:
    assert isinstance(batch.audio, AudioInput) and batch.events is not None and batch.events.timed is not None
    events = batch.events
    assert events.timed is not None
    times = [made.tolist() for made in (events.clip, events.onset, events.offset, events.timed)]
    return batch.ids, batch.audio.samples.numpy().tobytes(), batch.audio.group.tolist(), events.phrases.texts, times


def loader(data: ClipDataset, tokenize: Callable, workers: int = 0) -> ClipLoader:
    return ClipLoader(data, TrainingPlan(Population.of(data.manifest.index), 4), tokenize, workers)


@pytest.mark.parametrize("megabytes", [0, 1])
def test_mixtures_are_the_same_for_any_workers_and_after_a_resume(
    noises: Path, bursts: Path, tokenize: Callable, megabytes: int
) -> None:
    mixing = Mixing(str(bursts), share=0.7, cache_megabytes=megabytes)
    whole = loader(dataset(noises, mixing), tokenize)
    epochs = [[content(batch) for batch in whole] for _ in range(2)]
    forked = loader(dataset(noises, mixing), tokenize, workers=2)
    assert [[content(batch) for batch in forked] for _ in range(2)] == epochs
    forked.close()
    resumed = loader(dataset(noises, replace(mixing, cache_megabytes=4)), tokenize, workers=1)
    resumed.load_state_dict({"epoch": 1, "batches": 2, "digest": whole.state_dict()["digest"]})
    assert [content(batch) for batch in resumed] == epochs[1][2:]
    resumed.close()
    assert epochs[0] != epochs[1]
    one, other = dataset(noises, mixing), dataset(noises, mixing, seed=1)
    assert not np.array_equal(sound(one[0, 0, 0]), sound(other[0, 0, 0]))
    # Another time that the epoch has a clip is another mixture.
    assert not np.array_equal(sound(one[0, 0, 0]), sound(one[0, 0, 1]))


def test_a_share_is_mixed_and_the_rest_is_as_it_was(noises: Path, bursts: Path) -> None:
    mixed, plain = dataset(noises, Mixing(str(bursts), share=0.3)), dataset(noises, None)
    same = [
        np.array_equal(sound(mixed[epoch, row, 0]), sound(plain[epoch, row, 0]))
        for epoch in range(10)
        for row in range(20)
    ]
    assert 110 < sum(same) < 170  # 140, with a standard error of 6.5
    unmixed = [row for row in range(20) if same[row]]
    assert all(mixed[0, row, 0].captions == plain[0, row, 0].captions for row in unmixed)
    # Out of training nothing is mixed.
    assert all(np.array_equal(sound(mixed[row]), sound(plain[row])) for row in range(20))
    assert dataset(noises, Mixing(str(bursts), share=0.0)).mixer is None


def test_no_more_sounds_at_once_than_may(noises: Path, bursts: Path) -> None:
    counts = []
    for most in (1, 2):
        mixing = Mixing(str(bursts), share=1.0, min_events=6, max_events=6, max_polyphony=most)
        mixed = dataset(noises, mixing)
        for row in range(20):
            held = spans(mixed[0, row, 0].events)
            counts.append(len(held))
            times = np.arange(0, 3, 0.005)
            at_once = sum(((times >= one) & (times < other)).astype(int) for one, other in held)
            assert np.max(at_once) <= most
            assert polyphony(held, (0, 3)) == np.max(at_once)
    assert np.mean(counts[:20]) < np.mean(counts[20:]) <= 7  # the hum and six


def test_events_with_times_are_cut_out_with_what_else_is_heard_in_them(tmp_path: Path, noises: Path) -> None:
    long = np.concatenate(
        [noise(0, 20.0, 0.01), burst(0, 1.0, 0), np.zeros(RATE), burst(0, 0.5, 0), noise(1, 5.0, 0.01)]
    )
    events = (Event("burst 0", 19.9, 21.2), Event("burst 1", 20.5, 22.5, confidence=0.2), Event("burst 2", 3.0, 3.01))
    source = pack(tmp_path / "long", [long], events=events)
    mixing = Mixing(str(source), share=1.0, max_events=1, gate_db=20, max_seconds=5.0)
    for row in range(0, 20, 2):
        found = {event.phrase: event for event in dataset(noises, mixing)[0, row, 0].events}
        assert set(found) == {"burst 0", "burst 1"}  # too short an event is none, nor is one that is not sure
        (begin, end), (onset, offset) = found["burst 0"].span or (0, 0), found["burst 1"].span or (0, 0)
        assert end - begin == pytest.approx(1.0, abs=0.02)  # the level says when
        assert onset == pytest.approx(begin + 0.5, abs=0.02) and offset == pytest.approx(end, abs=1e-6)
        assert found["burst 1"].confidence == 0.2


def test_what_is_longer_than_its_clip_ends_with_it(tmp_path: Path, bursts: Path) -> None:
    short = pack(tmp_path / "short", [noise(0, 0.3)], events=())
    made = dataset(short, Mixing(str(bursts), share=1.0, max_events=1))[0, 0, 0]
    assert spans(made.events) == [(0.0, pytest.approx(0.3))] and len(sound(made)) == round(0.3 * RATE)


def test_two_sounds_in_a_recording_with_a_weak_label_are_two_events(tmp_path: Path, noises: Path) -> None:
    two = np.concatenate([burst(0.2, 0.3, 0.4), burst(0, 0.3, 0.2)])
    source = pack(tmp_path / "two", [two], events=(Event("burst 0"), Event("burst 1", confidence=0.0)))
    found = spans(dataset(noises, Mixing(str(source), share=1.0, max_events=1))[0, 0, 0].events)
    assert len(found) == 2 and found[1][0] - found[0][1] == pytest.approx(0.4, abs=0.02)


def test_over_an_unknown_clip_a_sound_is_somewhere_and_the_rest_unknown(tmp_path: Path, bursts: Path) -> None:
    unknown = pack(tmp_path / "unknown", [noise(0, 2.0), noise(1, 2.0)])
    made = dataset(unknown, Mixing(str(bursts), share=1.0))[0, 0, 0]
    assert made.annotated and made.vocabulary == "open" and all(event.is_weak for event in made.events) and made.events
    assert dataset(unknown, None)[0, 0, 0].annotated is False


def test_foregrounds_that_are_not_isolated_make_unknown_what_they_leave_open(tmp_path: Path, noises: Path) -> None:
    source = pack(tmp_path / "open", [burst(0.1, 0.5, 0.1)], events=(Event("burst 0", 0.1, 0.6),), vocabulary="open")
    mixed = dataset(noises, Mixing(str(source), share=1.0, max_events=1, isolated=False))[0, 1, 0]
    assert mixed.vocabulary == "open"
    assert {event.phrase: event.span is None for event in mixed.events} == {"hum": True, "burst 0": False}
    alone = dataset(noises, Mixing(str(source), share=1.0, max_events=1))[0, 1, 0]
    assert alone.vocabulary == "room" and all(event.span is not None for event in alone.events)


def test_loud_mixtures_stay_within_full_scale(tmp_path: Path, bursts: Path) -> None:
    loud = pack(tmp_path / "loud", [noise(number, 2.0, 0.99) for number in range(4)], events=())
    mixed, plain = dataset(loud, Mixing(str(bursts), share=1.0, min_snr_db=20.0)), dataset(loud, None)
    for row in range(4):
        made, alone = sound(mixed[0, row, 0]), sound(plain[0, row, 0])
        assert np.abs(made).max() == pytest.approx(1.0, abs=1e-6) and not np.array_equal(made, alone)


def test_gains_are_those_of_lhotse() -> None:
    from lhotse.audio.mixer import AudioMixer

    base, added = noise(0, 2.0, 0.1).astype(np.float32), noise(1, 0.7, 0.3).astype(np.float32)
    for snr_db in (-20.0, 0.0, 7.5):
        mixer = AudioMixer(base[None], RATE)
        mixer.add_to_mix(added[None], snr=-snr_db, offset=1.0)
        ours = base.copy()
        ours[RATE : RATE + len(added)] += np.float32(gain(mean_power(added), mean_power(base), snr_db)) * added
        np.testing.assert_allclose(ours, mixer.mixed_mono_audio[0], rtol=0, atol=1e-6)
    assert mean_power(np.zeros(0, np.float32)) == 0.0
    loud = np.full(10_000, 1e4, np.float32)
    assert mean_power(loud) == pytest.approx(1e8, rel=1e-5)


def test_what_a_worker_remembers_of_recordings_changes_no_mixture(noises: Path, bursts: Path) -> None:
    for isolated in (True, False):
        mixing = Mixing(str(bursts), share=1.0, isolated=isolated)
        warm = dataset(noises, mixing)
        for row in range(20):
            warm[0, row, 0]
        for row in range(20):
            again, fresh = warm[1, row, 0], dataset(noises, mixing)[1, row, 0]
            assert np.array_equal(sound(again), sound(fresh)) and again.events == fresh.events
            assert (again.vocabulary, again.audio_group) == (fresh.vocabulary, fresh.audio_group)


def test_silence_takes_a_foreground_as_it_is(tmp_path: Path, bursts: Path) -> None:
    silent = pack(tmp_path / "silent", [np.zeros(2 * RATE)], events=())
    made = dataset(silent, Mixing(str(bursts), share=1.0, max_events=1))[0, 0, 0]
    assert 0.09 < np.abs(sound(made)).max() < 0.36 and len(made.events) == 1


def test_the_training_data_themselves_may_be_the_foreground(noises: Path) -> None:
    mixing = Mixing(share=1.0, max_events=2, gate_db=20)
    made = [dataset(noises, mixing)[0, row, 0] for row in range(20)]
    assert any(sum(event.phrase == "hum" for event in clip.events) > 1 for clip in made)
    alone = [dataset(noises, None)[0, row, 0] for row in range(20)]
    assert any(not np.array_equal(sound(one), sound(other)) for one, other in zip(made, alone, strict=True))


def test_a_clip_without_sound_is_not_mixed(tmp_path: Path, bursts: Path) -> None:
    data = pack(tmp_path / "data", [noise(0, 1.0)], events=())
    (clip,) = open_manifest(data, "train")
    save_manifest(data, "train", [replace(clip, has_audio=False, recording=None)])
    made = dataset(data, Mixing(str(bursts), share=1.0))[0, 0, 0]
    assert not made.has_audio and made.events == ()


def test_a_foreground_that_cannot_be_read_is_replaced_and_said(
    tmp_path: Path, noises: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sounds = [burst(0.1, 0.4, 0.1, 0.1 + 0.05 * number) for number in range(4)]
    source = pack(tmp_path / "source", sounds, events=lambda number: (Event(f"burst {number % 3}"),))
    damage(source, 2)
    mixing = Mixing(str(source), share=1.0)
    with caplog.at_level(logging.WARNING):
        made = [dataset(noises, mixing)[0, row, 0] for row in range(20)]
    assert all(clip.events for clip in made) and "a foreground cannot be read, another takes its place" in caplog.text
    for row in (0, 1, 3):
        damage(source, row)
    with pytest.raises(MediaError, match="10 in a row cannot be read"):
        dataset(noises, mixing)[0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.5}, r"mixing\.share"),
        ({"share": float("nan")}, r"mixing\.share"),
        ({"split": "tests"}, r"mixing\.split must be one of train, validation, test"),
        ({"min_events": 0}, "1 or more, and in order, got 0 and 3"),
        ({"min_events": 4}, "in order, got 4 and 3"),
        ({"min_snr_db": 30.0}, "in order between -100 and 100 dB, got 30"),
        ({"max_snr_db": float("nan")}, "in order between -100 and 100 dB"),
        ({"max_polyphony": 0}, "max_polyphony must be at least 1"),
        ({"cache_megabytes": -1}, "cache_megabytes at least 0"),
        ({"max_seconds": 0.0}, "max_seconds must lie between"),
        ({"gate_db": 0.0}, "gate_db above 0"),
        ({"captions": "some"}, "'drop' or 'keep', got 'some'"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixing(**change)


def test_data_that_cannot_be_mixed(
    noises: Path, bursts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = pack(tmp_path / "bare", [noise(0, 1.0)])
    with pytest.raises(ValueError, match=r"clips that have sound and events, but the split 'train' of .* has none"):
        dataset(noises, Mixing(str(bare)))
    with pytest.raises(FileNotFoundError, match="no split 'test'"):
        dataset(noises, Mixing(str(bursts), split="test"))
    other = pack(tmp_path / "other", [burst(0, 0.5, 0)], events=(Event("burst 0"),))
    write_labels(other, Labels({"room": ("burst 0",)}))
    with pytest.raises(LabelsError, match="two vocabularies are called 'room'"):
        dataset(noises, Mixing(str(other)))
    write_labels(other, Labels({"more": ("owl",)}, {"burst 0": ("noise",)}))
    merged = dataset(noises, Mixing(str(other))).labels
    assert set(merged.vocabularies) == {"room", "more"} and merged.lineage("burst 0") == ("noise",)
    assert set(load_labels(noises).vocabularies) == {"room"}
    with pytest.raises(ValueError, match="cached features are read in its place"):
        dataset(noises, Mixing(str(bursts)), features={"audio": "dac"})
    with caplog.at_level(logging.INFO):
        assert dataset(noises, Mixing(str(bursts)), fields=("audio",)).mixer is None
    assert "nothing is mixed: mixing makes events in audio" in caplog.text


def module(data: Path, mixing: Mixing | None) -> ClipDataModule:
    made = ClipDataModule(str(data), 4, fields=FIELDS, sample_rate=RATE, tokenize=letters, mixing=mixing, num_workers=0)
    made.trainer = Trainer(logger=False, enable_checkpointing=False)
    made.setup("fit")
    return made


def letters(texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[ord(text[0])] for text in texts], dtype=torch.int64).reshape(-1, 1)
    return ids, torch.ones_like(ids, dtype=torch.bool)


def test_a_run_goes_on_with_its_own_mixtures_alone(noises: Path, bursts: Path, tmp_path: Path) -> None:
    mixing = Mixing(str(bursts))
    state = module(noises, mixing).state_dict()
    module(noises, replace(mixing, cache_megabytes=0)).check_resumed(state, 1)
    with pytest.raises(DataSettingError, match=r"data\.mixing is .*'share': 0\.1"):
        module(noises, replace(mixing, share=0.1)).check_resumed(state, 1)
    with pytest.raises(DataSettingError, match=r"data\.mixing is None"):
        module(noises, None).check_resumed(state, 1)
    other = pack(tmp_path / "other", [burst(0, 0.5, 0)], events=(Event("burst 0"),))
    with pytest.raises(DataSettingError, match=r"data\.mixing\.foreground is"):
        module(noises, replace(mixing, foreground=str(other))).check_resumed(state, 1)
    # Before the data are opened the settings are compared all the same.
    unopened = ClipDataModule(str(noises), 4, fields=FIELDS, sample_rate=RATE, mixing=mixing)
    unopened.check_resumed(state, 1, before_setup=True)


def test_mixtures_come_to_batches(noises: Path, bursts: Path) -> None:
    batch = next(iter(module(noises, Mixing(str(bursts), share=1.0)).train_dataloader()))
    assert batch.events is not None and batch.events.timed is not None and batch.events.members is not None
    assert batch.events.timed.all() and len(batch.events.clip) >= 4 and batch.events.members.shape[1] == 1
    assert batch.captions["audio"].present.tolist() == [False] * 4 and batch.captions["video"].present.all()


def test_the_picture_of_a_mixture_is_that_of_its_clip(prepared: tuple[Path, Any], bursts: Path) -> None:
    fields = ("audio", "video", "captions.video", "events")
    mixed = dataset(prepared[0], Mixing(str(bursts), share=1.0), fields)
    plain = dataset(prepared[0], None, fields)
    made, alone = (collate([one[0, 0, 0]], letters) for one in (mixed, plain))
    assert made.video is not None and alone.video is not None and made.events is not None
    assert torch.equal(made.video.frames, alone.video.frames) and torch.equal(made.video.group, alone.video.group)  # type: ignore[union-attr]
    assert {text.lower().rstrip(".") for text in made.events.phrases.texts} > {"beep"}
    assert made.audio is not None and alone.audio is not None and not torch.equal(made.audio.group, alone.audio.group)
