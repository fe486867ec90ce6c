"""The synthetic world: same settings, same files; true times; sight tied to sound; held-out combinations held out."""

import hashlib
import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from peav.data.synthetic import combination, hold_out, sample_world, split_sizes, synthesize
from peav.data.synthetic.captions import captions
from peav.data.synthetic.motion import envelope, poses
from peav.data.synthetic.pictures import LOOKS
from peav.data.synthetic.sounds import sound
from peav.data.synthetic.sources import BY_NAME, COLOURS, DOMAINS, SIZES, SOURCES, usual_colours
from peav.data.synthetic.world import Thing, source_pairs

CLIPS, SEED, FPS, SIZE, RATE = 20, 3, 12, 96, 16000
COLUMNS, ROWS = {"left": 0.24, "middle": 0.5, "right": 0.76}, {"top": 0.31, "bottom": 0.69}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("world")
    synthesize(out, CLIPS, SEED, workers=2)
    return out


@pytest.fixture(scope="module")
def records(world):
    return [json.loads(line) for line in (world / "clips.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def scenes():
    return {scene.id: scene for scene in sample_world(CLIPS, SEED)}


def decode(path: Path, *arguments: str) -> bytes:
    return subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), *arguments, "-"], capture_output=True, check=True
    ).stdout


def sound_of(path: Path) -> np.ndarray:
    return np.frombuffer(decode(path, "-f", "s16le", "-ac", "1", "-ar", str(RATE)), "<i2") / 32768


def frames_of(path: Path) -> np.ndarray:
    raw = np.frombuffer(decode(path, "-f", "rawvideo", "-pix_fmt", "rgb24"), np.uint8)
    return raw.reshape(-1, SIZE, SIZE, 3).astype(float)


def streams(path: Path) -> list[str]:
    command = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_type", "-of", "csv=p=0", str(path)]
    return sorted(subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())


def digest(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_settings_give_the_same_files_whatever_the_workers(world, tmp_path):
    synthesize(tmp_path / "again", CLIPS, SEED, workers=1)
    assert digest(tmp_path / "again") == digest(world)


def test_an_interrupted_world_is_continued(world, tmp_path):
    begun = tmp_path / "begun"
    shutil.copytree(world, begun)
    lines = (begun / "clips.jsonl").read_text().splitlines()
    (begun / "clips.jsonl").unlink()
    # As a killed call leaves it: some clips noted, the last note half written, one file gone, one not noted.
    (begun / ".finished.jsonl").write_text("\n".join(lines[:-2]) + "\n" + lines[-2][:40])
    gone = begun / json.loads(lines[0])["media"]
    gone.unlink()
    kept = begun / json.loads(lines[1])["media"]
    before = kept.stat().st_mtime_ns
    report = synthesize(begun, CLIPS, SEED, workers=2)
    assert report.made == 3
    assert kept.stat().st_mtime_ns == before
    assert digest(begun) == digest(world)
    assert synthesize(begun, CLIPS, SEED).made == 0


def test_a_folder_with_another_world_is_refused(world):
    with pytest.raises(ValueError, match="seed is 3 there and 4 here"):
        synthesize(world, CLIPS, SEED + 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"domains": ("noise",)}, "speech, music, effects"),
        ({"domains": ()}, "choose one or more"),
        ({"clips": 4}, "at least 5"),
        ({"frame_size": 97}, "even"),
        ({"sample_rate": 8000}, "16000 to 48000"),
        ({"fps": 1}, "4 to 60"),
        ({"workers": 0}, "at least 1"),
    ],
)
def test_bad_settings_say_what_is_allowed(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        synthesize(tmp_path / "none", **{"clips": 10, **settings})
    assert not (tmp_path / "none").exists()


def test_records_hold_what_the_media_hold(world, records):
    assert [record["id"] for record in records] == [f"clip{k:06d}" for k in range(CLIPS)]
    for record in records:
        present = streams(world / record["media"])
        wanted = {"audio", "video", "audio_video"} if present == ["audio", "video"] else set(present)
        assert set(record["captions"]) == wanted
        assert ("events" in record) == ("audio" in present)
        assert set(record) <= {"id", "media", "captions", "transcript", "domain", "events", "split"}
        assert record["domain"] in DOMAINS
        speaks = any("speaking" in event["phrase"] for event in record.get("events", ()))
        assert ("transcript" in record) == speaks
        if len(wanted) == 3:
            assert len(set(record["captions"].values())) == 3
    assert Counter(record["split"] for record in records) == split_sizes(CLIPS)


def test_events_lie_where_the_energy_is(world, records):
    checked = 0
    for record in records:
        if "events" not in record:
            continue
        wave = sound_of(world / record["media"])
        t = np.arange(wave.size) / RATE
        active = np.zeros(wave.size, bool)
        near = np.zeros(wave.size, bool)
        for event in record["events"]:
            assert 0 < event["onset"] < event["offset"] <= wave.size / RATE
            assert 0.6 <= event["offset"] - event["onset"] <= 3.3
            inside = (t >= event["onset"]) & (t < event["offset"])
            active |= inside
            # AAC spreads a sharp onset over one block, 64 ms before and after.
            near |= (t >= event["onset"] - 0.07) & (t < event["offset"] + 0.07)
            # It begins and ends with sound; the end may have died away to 1 % of the loudest.
            assert np.mean(wave[(t >= event["onset"]) & (t < event["onset"] + 0.35)] ** 2) > 1e-4
            assert np.abs(wave[(t >= event["offset"] - 0.25) & (t < event["offset"])]).max() > 4e-3
        assert np.mean(wave[active] ** 2) > 300 * np.mean(wave[~near] ** 2)
        checked += 1
    assert checked >= CLIPS - 5


def region(thing: Thing) -> tuple[slice, slice]:
    reach = SIZES[thing.size] * 0.5 + 0.03
    x, y = COLUMNS[thing.column], ROWS[thing.row]
    low = lambda v: max(0, round((v - reach) * SIZE))  # noqa: E731
    return slice(low(y), round((y + reach) * SIZE)), slice(low(x), round((x + reach) * SIZE))


def test_objects_move_while_their_sound_lasts_and_from_its_first_frame(world, records, scenes):
    checked: Counter[str] = Counter()
    for record in records:
        scene = scenes[record["id"]]
        if scene.media != "audio_video":
            continue
        frames = frames_of(world / record["media"])
        assert frames.shape[0] / FPS == pytest.approx(sound_of(world / record["media"]).size / RATE, abs=0.065)
        for thing in scene.things:
            rows, columns = region(thing)
            moved = np.abs(np.diff(frames[:, rows, columns], axis=0)).mean(axis=(1, 2, 3))  # moved[k]: from k to k + 1
            if thing.event is None:
                continue
            event = record["events"][thing.event]
            first, last = int(event["onset"] * FPS), int(np.ceil(event["offset"] * FPS))
            inside = np.zeros(moved.size, bool)
            inside[max(0, first - 1) : last + 1] = True
            others = [other for other in scene.things if other is not thing and other.event is not None]
            if others:  # a moving neighbour may reach into this region; look only at frames in which it is at rest
                span = record["events"][others[0].event]
                busy = np.zeros(moved.size, bool)
                busy[max(0, int(span["onset"] * FPS) - 1) : int(np.ceil(span["offset"] * FPS)) + 1] = True
            else:
                busy = np.zeros(moved.size, bool)
            rest = moved[~inside & ~busy]
            assert moved[inside].mean() > 5 * (rest.mean() if rest.size else 0.0) + 0.3, (record["id"], thing)
            if not busy[:first].any():
                begins = int(np.flatnonzero(moved > 0.25 * moved[inside].max())[0]) + 1
                assert abs(begins - first) <= 2, (record["id"], thing, begins, first)
            checked[scene.events[thing.event].source.motion] += 1
    assert sum(checked.values()) >= 15 and len(checked) >= 6


def test_poses_follow_the_envelope():
    """A sound of two hits moves its object twice, in the frames of the hits and in no others."""
    wave = np.zeros(2 * RATE)
    wave[: RATE // 10] = wave[RATE : RATE + RATE // 10] = 0.5
    loud = envelope(wave, 1.0, 48, FPS, RATE)
    assert np.flatnonzero(loud).tolist() == [12, 13, 24, 25]
    for motion in sorted({source.motion for source in SOURCES} - {"spin"}):
        track = poses(motion, loud, FPS)
        assert [k for k in range(48) if track[k] != track[0]] == [12, 13, 24, 25], motion
    turned = np.diff([pose.angle for pose in poses("spin", loud, FPS)])
    assert np.flatnonzero(turned).tolist() == [11, 12, 23, 24]


def test_sources_differ_in_sound_and_look():
    for field in ("name", "phrase", "look"):
        assert len({getattr(source, field) for source in SOURCES}) == len(SOURCES)
    assert {source.look for source in SOURCES} <= set(LOOKS)
    spectra = {}
    for source in SOURCES:
        if source.domain == "speech":
            continue
        for manner in source.manners:
            for register in ("low", "high") if source.pitched else ("",):
                wave = sound(source.name, np.random.default_rng(0), 1.5, RATE, manner, register)
                assert wave.shape == (24000,) and np.isfinite(wave).all() and np.abs(wave).max() > 0.01
        spectrum = np.abs(np.fft.rfft(wave)) ** 2
        bands = np.log(np.add.reduceat(spectrum, np.geomspace(40, 11000, 24).astype(int)) / spectrum.sum() + 1e-4)
        spectra[source.name] = bands
    names = sorted(spectra)
    gaps = [np.abs(spectra[a] - spectra[b]).mean() for k, a in enumerate(names) for b in names[:k]]
    assert min(gaps) > 0.25


@pytest.mark.parametrize("domains", [DOMAINS, ("music", "effects"), ("speech",), ("music",)])
def test_no_training_clip_holds_a_held_out_combination(domains):
    held = hold_out(domains)
    pairs = source_pairs(domains)
    assert len(held.pairs) == pytest.approx(0.4 * len(pairs), abs=1)
    scenes = sample_world(1600, 5, domains)
    assert Counter(scene.split for scene in scenes) == {"train": 1376, "validation": 64, "test": 160}
    seen: Counter[str] = Counter()
    tested: Counter[tuple[str, ...]] = Counter()
    for scene in scenes:
        made = combination(scene)
        if scene.split == "train":
            assert made not in held.pairs
            seen.update(made)
        else:
            assert made in held.pairs
        if scene.split == "test":
            assert scene.media == "audio_video"
            tested[made] += 1
    assert set(seen) == {name for pair in pairs for name in pair}
    assert max(tested.values()) - min(tested.values()) <= 1
    assert len(tested) == min(len(held.pairs), 160)
    trained = {name for pair in pairs if pair not in held.pairs for name in pair}
    assert trained == set(seen)


def test_looks_come_in_their_two_usual_colours():
    seen = {(thing.look, thing.colour) for scene in sample_world(1600, 5, DOMAINS) for thing in scene.things}
    for source in SOURCES:
        assert {colour for look, colour in seen if look == source.look} == set(usual_colours(source.look))
    pairs = [frozenset(usual_colours(source.look)) for source in SOURCES]
    assert len(set(pairs)) == len(pairs) and all(len(pair) == 2 for pair in pairs)


def test_a_scene_depends_on_nothing_but_its_seed_and_index():
    assert sample_world(200, 1) == sample_world(200, 1)
    assert sample_world(200, 1) != sample_world(200, 2)
    with pytest.raises(ValueError, match="choose one or more"):
        sample_world(200, 1, ("nonsense",))


def test_captions_say_what_their_medium_shows():
    heard_words = {word for source in SOURCES for word in source.phrase.split()} - {"a", "an", "old", "bell"}
    for scene in sample_world(400, 7):
        words = captions(scene)
        if "video" in words:
            assert not heard_words & set(words["video"].split()), words["video"]
            assert all(f"{thing.colour} {thing.look}" in words["video"] for thing in scene.things)
        if "audio" in words and not any(event.sentence for event in scene.events):
            assert all(event.source.phrase in words["audio"] for event in scene.events)
            assert not set(COLOURS) & set(words["audio"].split())
        if "audio_video" in words:
            assert all(event.source.phrase in words["audio_video"] for event in scene.events)
            assert len(set(words.values())) == 3


def test_the_vocabulary_is_small_and_test_captions_are_distinct():
    scenes = sample_world(1600, 0)
    words: set[str] = set()
    told: dict[str, list[str]] = {"audio": [], "video": [], "audio_video": []}
    for scene in scenes:
        made = captions(scene)
        if not any(event.sentence for event in scene.events):
            words |= {word.strip(",;:") for text in made.values() for word in text.split()}
        if scene.split == "test":
            for kind, text in made.items():
                told[kind].append(text)
    assert 100 < len(words) < 600
    for kind, texts in told.items():
        assert len(set(texts)) >= 0.95 * len(texts), kind


def test_domains_choose_the_sources(tmp_path):
    report = synthesize(tmp_path / "music", 6, 0, domains=("music",), workers=1, frame_size=64, fps=8)
    assert report.domains == {"music": 6}
    for line in report.manifest.read_text().splitlines():
        for event in json.loads(line).get("events", ()):
            assert event["phrase"] in {source.phrase for source in SOURCES if source.domain == "music"}
    assert all(
        BY_NAME[event.source.name].domain != "speech"
        for scene in sample_world(100, 0, ("effects", "music"))
        for event in scene.events
    )


def test_speech_needs_flite_and_the_rest_does_not(tmp_path, monkeypatch):
    """An ffmpeg without flite: a script that lists no such filter and passes everything else on."""
    real = shutil.which("ffmpeg")
    fake = tmp_path / "bin" / "ffmpeg"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nif [ "$2" = "-filters" ]; then echo " ... anull A->A"; else exec {real} "$@"; fi\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent))
    with pytest.raises(RuntimeError, match="--domains music effects"):
        synthesize(tmp_path / "speech", 6)
    assert not (tmp_path / "speech").exists()
    assert synthesize(tmp_path / "rest", 5, domains=("music", "effects"), workers=1).made == 5
    fake.unlink()
    with pytest.raises(RuntimeError, match="apt-get install ffmpeg"):
        synthesize(tmp_path / "nothing", 6)


def test_transcripts_are_what_the_voice_was_given(records, scenes):
    spoken = [record for record in records if "transcript" in record]
    assert spoken
    for record in spoken:
        said = [event.sentence for event in scenes[record["id"]].events if event.sentence]
        assert record["transcript"] == ". ".join(said)
        assert record["transcript"].split()[0] == "the"
