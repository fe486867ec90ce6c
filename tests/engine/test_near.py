"""Near duplicates and the blacklist: found after another encoding, level, trim and size; different clips are left alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peav.data.manifests.manifest import open_manifest
from peav.engine.blacklist import Blacklist
from peav.engine.engine import caption
from peav.engine.job import JobSpec
from peav.engine.near import NearDuplicates, sound_distance
from peav.engine.publish import PublishOptions
from peav.engine.stage import Columns, Stage, register_stage
from peav.engine.stages import Fingerprint
from peav.engine.stages.fingerprint import picture_hash
from peav.engine.stages.short_sound import short_words
from peav.testing import check_stage
from tests.engine.data import config, write_clips

RATE = 16000


def sound(seed: int, seconds: float = 8.0) -> np.ndarray:
    """Notes and noise that change four times a second."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    steps = random.uniform(100, 3000, round(seconds * 4) + 1)[(time * 4).astype(int)]
    return (0.2 * np.sin(2 * np.pi * np.cumsum(steps) / RATE) + random.normal(0, 0.01, len(time))).astype(np.float32)


def encoded(samples: np.ndarray, *options: str) -> np.ndarray:
    """Through an encoder and back."""
    raw = ("-f", "f32le", "-ar", str(RATE), "-ac", "1")
    there = ["ffmpeg", "-v", "error", *raw, "-i", "-", *options, "-f", "matroska", "-"]
    back = ["ffmpeg", "-v", "error", "-i", "-", *raw, "-"]
    media = subprocess.run(there, input=samples.astype("<f4").tobytes(), capture_output=True, check=True).stdout
    return np.frombuffer(subprocess.run(back, input=media, capture_output=True, check=True).stdout, "<f4").copy()


def scene(seed: int) -> np.ndarray:
    """Blobs, (32, 32)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    spots = random.uniform(2, 30, (6, 2))
    return sum(255 / 6 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 40) * (1 + k % 3) for k, (a, b) in enumerate(spots))


def prints(sounds: list[Any], frames: list[Any] | None = None) -> list[dict[str, Any]]:
    batch = {"id": [str(k) for k in range(len(sounds))], "audio": sounds, "frames": frames or [None] * len(sounds)}
    return Fingerprint()(batch)["prints"]


def test_a_sound_is_found_again_after_another_encoding_level_and_trim() -> None:
    one = sound(0)
    changed = [
        encoded(one, "-c:a", "aac", "-b:a", "32k"),
        encoded(one, "-c:a", "libmp3lame", "-b:a", "48k"),
        0.2 * one,
        one[RATE:],  # begins a second later
        np.concatenate([sound(9, 2.0), one]),
    ]
    held = [np.asarray(p["sound"], np.uint32) for p in prints([one, *changed, *(sound(k) for k in range(1, 9))])]
    found = [sound_distance(held[0], other) for other in held[1:]]
    assert all(d is not None and d < 0.15 for d in found[:5]), found
    assert found[5:] == [None] * 8
    near = NearDuplicates()
    for k, words in enumerate(held):
        near.add(str(k), {"sound": words})
    assert {name: one.first for name, one in near.find().items()} == dict.fromkeys("12345", "0")


def test_silence_and_plain_frames_tell_nothing() -> None:
    black = np.zeros((4, 3, 32, 32), np.uint8)
    made = prints([np.zeros(5 * RATE, np.float32), None, sound(1, 0.5)], [black, black + 200, None])
    assert made[:2] == [{}, {}] and len(made[2]["sound"]) > 10 and len(made[2]["short"]) > 30
    near = NearDuplicates()
    for k, one in enumerate(made[:2]):
        near.add(str(k), one)
    assert near.find() == {}


def test_short_sounds_are_found_again_and_different_ones_are_not() -> None:
    ones = [sound(k, seconds) for k, seconds in enumerate((0.4, 0.7, 1.0, 1.5, 2.0, 3.0))]
    changed = [0.3 * one for one in ones[1:]]
    changed += [np.concatenate([np.zeros(RATE // 10, np.float32), one]) for one in ones[1:]]
    changed.append(encoded(ones[1], "-c:a", "libmp3lame", "-b:a", "48k"))
    near = NearDuplicates()
    for k, one in enumerate([*ones, *changed]):
        near.add(str(k), {"short": short_words(one, RATE)})
    found = {name: one.first for name, one in near.find().items()}
    assert found == {str(6 + k): str(1 + k % 5) for k in range(11)}


def test_a_sound_and_none_are_no_duplicates_though_their_pictures_are() -> None:
    near = NearDuplicates()
    for name, own in (("a", {"short": [1, 2, 3]}), ("b", {}), ("c", {"sound": [1, 2, 3]}), ("d", {"short": [1, 2, 3]})):
        near.add(name, {**own, "pictures": [77]})
    assert {name: one.first for name, one in near.find().items()} == {"d": "a"}


def test_bars_are_cut_off_and_what_stands_still_counts_once() -> None:
    film = np.stack([np.kron(scene(k), np.ones((2, 2))) for k in range(8)]).clip(0, 255)  # (8, 64, 64)
    narrow = film[:, 8::2][:, :24].repeat(1, axis=1)
    boxed = np.zeros_like(film)
    boxed[:, 20:44] = narrow
    title = np.stack([np.kron(scene(99), np.ones((2, 2)))] * 5).clip(0, 255)
    other = np.stack([np.kron(scene(50 + k), np.ones((2, 2))) for k in range(3)]).clip(0, 255)
    films = [narrow, boxed, np.concatenate([title, film[:3]]), np.concatenate([title, other])]
    frames = [np.repeat(one[:, None], 3, axis=1).astype(np.uint8) for one in films]
    made = prints([None] * 4, frames)
    assert [len(one["pictures"]) for one in made[2:]] == [4, 4]
    near = NearDuplicates()
    for k, one in enumerate(made):
        near.add(str(k), one)
    assert {name: one.first for name, one in near.find().items()} == {"1": "0"}


def test_pictures_are_found_again_after_noise_and_other_contrast() -> None:
    random = np.random.default_rng(0)
    film = [np.stack([scene(10 * k + j) for j in range(4)]) for k in range(12)]
    noisy = [np.clip(0.8 * one + 20 + random.normal(0, 4, one.shape), 0, 255) for one in film]
    near = NearDuplicates()
    for k, one in enumerate([*film, *noisy]):
        near.add(str(k), {"pictures": [picture_hash(frame.astype(np.float32)) for frame in one]})
    assert {name: one.first for name, one in near.find().items()} == {str(k + 12): str(k) for k in range(12)}


def test_the_same_music_under_another_picture_is_no_duplicate_and_chains_end_at_what_stays() -> None:
    words, other = list(range(1000, 1040)), list(range(5000, 5040))
    near = NearDuplicates()
    near.add("a", {"sound": words, "pictures": [2**40 + 5]})
    near.add("b", {"sound": words, "pictures": [2**63 - 1]})
    near.add("c", {"sound": words, "pictures": [2**40 + 4]})
    near.add("d", {"sound": words})
    near.add("e", {"sound": other})
    near.add("f", {"sound": other[3:]})
    near.add("g", {"sound": other[5:]})
    found = near.find()
    assert {name: one.first for name, one in found.items()} == {"c": "a", "f": "e", "g": "e"}


@register_stage
class ScriptedPrints(Stage):
    """Fingerprints that follow from the number of the clip: those of every third clip are alike."""

    reads = ("duration",)
    provides = ("prints",)

    def __call__(self, batch: Columns) -> Columns:
        numbers = [int(name.rpartition("-")[2]) for name in batch["id"]]
        held = [{"sound": [100_000 * (k % 3 + 1) + j for j in range(20)]} if k < 6 else {} for k in numbers]
        return {"id": batch["id"], "prints": held}


@register_stage
class NothingOfTheFirst(Stage):
    """Has no caption of the first clip."""

    reads = ("texts",)
    provides = ("texts",)

    def __call__(self, batch: Columns) -> Columns:
        held = zip(batch["id"], batch["texts"], strict=True)
        return {"id": batch["id"], "texts": [{} if name.endswith("-0") else texts for name, texts in held]}


def captioned(data: Path, work: Path, **options: Any) -> Any:
    stages = {**config(), "prints": {"class_path": "tests.engine.test_near.ScriptedPrints"}}
    spec = JobSpec(str(data), stages, work=str(work))
    return caption(spec, PublishOptions(**options), samples=0).published


def synthetic(data: Path) -> set[str]:
    clips = open_manifest(data, "train")
    return {clip.id[5:] for clip in clips if any(c.origin == "synthetic" for c in clip.captions.get("audio", ()))}


def test_nothing_is_left_out_in_favour_of_a_clip_without_a_caption(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 6)
    stages = {**config(), "prints": {"class_path": "tests.engine.test_near.ScriptedPrints"}}
    stages["mute"] = {"class_path": "tests.engine.test_near.NothingOfTheFirst"}
    caption(JobSpec(str(data), stages, work=str(tmp_path / "w")), samples=0)
    assert synthetic(data) == {"1", "2", "3"}


def test_near_duplicates_get_no_caption_are_listed_and_come_back(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 8)
    assert captioned(data, tmp_path / "w").dropped == {"near duplicate": 3}
    assert synthetic(data) == {"0", "1", "2", "6", "7"}
    lines = [json.loads(line) for line in (tmp_path / "w/dropped.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["clip-3", "clip-4", "clip-5"] and "nearly 'clip-0'" in lines[0]["reason"]
    assert captioned(data, tmp_path / "w", near_duplicates=False).dropped == {}
    assert synthetic(data) == set("01234567")


@pytest.mark.parametrize("form", ["ids", "prints", "work"])
def test_the_blacklist_holds_by_id_and_by_fingerprint(tmp_path: Path, form: str) -> None:
    path = tmp_path / ("list.txt" if form == "ids" else "list.jsonl")
    if form == "ids":
        path.write_text("# of an evaluation set\nclip-1\n\nclip-7\n")
    elif form == "prints":
        rows = [{"id": "clip-7"}, {"id": "other", "prints": {"sound": [200_000 + j for j in range(4, 20)]}}]
        rows.append({"id": "other", "prints": {"sound": [7, 8, 9]}})  # of another set
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path = tmp_path / "evaluation"
        captioned(write_clips(tmp_path / "e", 2), path)  # clip-0 and clip-1
    data = write_clips(tmp_path / "d", 8)
    dropped = captioned(data, tmp_path / "w", blacklist=str(path), near_duplicates=False).dropped
    left = {"ids": {"1", "4", "7"}, "prints": {"1", "4", "7"}, "work": {"0", "1", "3", "4"}}[form]
    assert dropped == {"blacklisted": len(left)} and synthetic(data) == set("01234567") - left


def test_a_blacklist_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither a file nor a folder"):
        Blacklist.read(tmp_path / "no")
    with pytest.raises(ValueError, match="holds no fingerprints"):
        Blacklist.read(tmp_path)
    for line in ('{"clip": 3}', "[1]", '{"id": "clip-7'):
        (tmp_path / "l.jsonl").write_text(f'{{"id": "a"}}\n{line}\n')
        with pytest.raises(ValueError, match=r"line 2: .*an object with an id"):
            Blacklist.read(tmp_path / "l.jsonl")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("\ufeffclip-1\r\n  # clip-2\r\n\r\n clip-3 \r\nclip-3", {"clip-1", "clip-3"}),
        ("a\u2028b\nc\x1cd\x85e", {"a\u2028b", "c\x1cd\x85e"}),
    ],
)
def test_a_list_of_ids_is_read_as_editors_write_it(tmp_path: Path, text: str, ids: set[str]) -> None:
    (tmp_path / "l.txt").write_text(text, encoding="utf-8", newline="")
    assert Blacklist.read(tmp_path / "l.txt") == Blacklist(frozenset(ids))


def test_a_list_of_json_may_hold_what_python_ends_lines_at(tmp_path: Path) -> None:
    text = "\ufeff" + "".join(json.dumps({"id": one}, ensure_ascii=False) + "\r\n" for one in ("a\u2028b", "c\x85d"))
    (tmp_path / "l.jsonl").write_text(text, encoding="utf-8", newline="")
    assert Blacklist.read(tmp_path / "l.jsonl").ids == {"a\u2028b", "c\x85d"}


def test_a_list_that_is_no_text_says_so(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(ValueError, match=r"l\.txt is no text in UTF-8"):
        Blacklist.read(tmp_path / "l.txt")


@pytest.mark.parametrize(
    "prints", [None, [1], {"sound": [-1]}, {"sound": [2**32]}, {"short": "1"}, {"pictures": [2**64]}, {"sounds": [1]}]
)
def test_prints_that_are_none_are_refused(tmp_path: Path, prints: Any) -> None:
    (tmp_path / "l.jsonl").write_text(json.dumps({"id": "a", "prints": prints}))
    with pytest.raises(ValueError, match="line 1: the prints must be sound, short, pictures"):
        Blacklist.read(tmp_path / "l.jsonl")


def test_a_list_is_read_before_anything_is_computed(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 4)
    with pytest.raises(FileNotFoundError, match="neither a file nor a folder"):
        captioned(data, tmp_path / "w", blacklist=str(tmp_path / "no"))
    path = tmp_path / "l.jsonl"
    path.write_text('{"id": "other", "prints": {"sound": [1, 2, 3]}}')
    with pytest.raises(ValueError, match="the pipeline takes none: add the stage Fingerprint"):
        caption(JobSpec(str(data), config(), work=str(tmp_path / "w")), PublishOptions(blacklist=str(path)))
    assert not (tmp_path / "w").exists()


def test_a_run_that_did_not_end_is_no_list_and_clips_that_failed_there_are_known_by_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    captioned(write_clips(tmp_path / "e", 3), tmp_path / "e/engine")
    file = next((tmp_path / "e/engine/train").glob("prints-*/000000.jsonl"))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    del rows[1]["out"]
    rows[1]["failed"] = "it cannot be decoded"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    marker = file.with_suffix(".done")
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "size": file.stat().st_size, "failed": 1}))
    held = Blacklist.read(tmp_path / "e/engine")
    assert held.ids == {"clip-0", "clip-1", "clip-2"} and {name for name, _ in held.prints} == {"clip-0", "clip-2"}
    assert "1 clips of the blacklist" in caplog.text
    for path in (tmp_path / "e/engine/report.html", marker):
        before = path.read_bytes()
        path.unlink()
        with pytest.raises(ValueError, match="did not end"):
            Blacklist.read(tmp_path / "e/engine")
        path.write_bytes(before)


def test_what_is_nearly_a_clip_that_is_named_by_id_is_left_out_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, path = write_clips(tmp_path / "d", 8), tmp_path / "l.txt"
    path.write_text("clip-4\n")  # clip-1 comes before it
    dropped = captioned(data, tmp_path / "w", blacklist=str(path)).dropped
    assert dropped == {"blacklisted": 2, "near duplicate": 2} and synthetic(data) == set("0267")
    path.write_text("clip-99\n")
    captioned(data, tmp_path / "w", blacklist=str(path))
    assert "names 1 clips, and none of them is here" in caplog.text


def test_a_long_sound_that_begins_with_a_short_one_is_more_than_that() -> None:
    random = np.random.default_rng(0)
    jingle, first, second = (random.integers(0, 2**32, count).tolist() for count in (40, 100, 100))
    for listed, expected in ((False, {"part": "first"}), (True, dict.fromkeys(("first", "second"), "jingle"))):
        near = NearDuplicates()
        near.add("jingle", {"sound": jingle}, stays=listed)
        near.add("first", {"sound": jingle + first})
        near.add("second", {"sound": second[:50] + jingle + second[50:]})
        near.add("part", {"sound": first[20:80]})
        assert {name: one.first for name, one in near.find().items()} == expected


def test_a_still_picture_without_sound_must_be_nearer_than_one_of_a_film_or_with_sound() -> None:
    still, words = 2**62 - 2**30, list(range(1000, 1040))
    six_bits = still ^ 0b111111
    for sound, film, expected in (([], [], 0), (words, [], 1), ([], [2**50 + 3, 2**33 - 1], 1)):
        near = NearDuplicates()
        near.add("a", {"pictures": [still, *film], "sound": sound})
        near.add("b", {"pictures": [six_bits, *film], "sound": sound})
        near.add("c", {"pictures": [still ^ 0b1111, *film], "sound": sound})
        found = {name: one.first for name, one in near.find().items()}
        assert found == ({"b": "a", "c": "a"} if expected else {"c": "a"})


def test_of_what_many_share_copies_are_found_and_others_are_not() -> None:
    random = np.random.default_rng(0)
    copied, pictures = random.integers(0, 2**32, 60).tolist(), random.integers(0, 2**62, 8).tolist()
    near = NearDuplicates()
    for k in range(300):
        near.add(f"copy-{k}", {"sound": copied})
        near.add(f"film-{k}", {"pictures": pictures})
        near.add(f"other-{k}", {"sound": [7] * 20 + random.integers(0, 2**32, 40).tolist()})
    near.add("listed", {"pictures": [one ^ 1 for one in pictures]}, stays=True)
    found = {name: one.first for name, one in near.find().items()}
    assert found == {f"copy-{k}": "copy-0" for k in range(1, 300)} | {f"film-{k}": "listed" for k in range(300)}


def test_what_stays_is_held_against_others_though_it_is_nearly_another_itself() -> None:
    """A chain: each is nearly the one before, the third too far from the first."""
    words = [np.arange(40, dtype=np.uint32) * np.uint32(2654435761)]
    for begin in (0, 10):
        words.append(words[-1].copy())
        words[-1][begin : begin + 8] ^= np.uint32(0xFFFFFFFF)
    assert sound_distance(words[0], words[2]) is None
    for stays, expected in ((False, {"b": "a"}), (True, {"c": "b"})):
        found = NearDuplicates()
        for name, own in zip("abc", words, strict=True):
            found.add(name, {"sound": own.tolist()}, stays and name != "c")
        assert {later: near.first for later, near in found.find().items()} == expected


def test_fingerprints_keep_the_contract() -> None:
    check_stage(Fingerprint, {})
