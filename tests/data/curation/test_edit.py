"""New manifests out of old ones: what belongs together stays together, nothing is lost, and the media are still found."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet

from peav.data.curation.edit import mix, parse_source, split_manifest
from peav.data.curation.editing import EditError
from peav.data.curation.grouping import connected, source_keys
from peav.data.curation.sampling import uniform
from peav.data.curation.validate import validate
from peav.data.curation.where import Where
from peav.data.manifests.clip import Clip
from peav.data.manifests.identities import bytes_group
from peav.data.manifests.manifest import iter_manifest, manifest_path, write_manifest
from peav.data.manifests.records import SPLITS
from peav.data.stores.reader import ShardReader
from peav.data.stores.remote import resolve_store
from tests.data.world import make_data


def read(data: Path, split: str) -> list[Clip]:
    path = manifest_path(data, split)
    return [clip for _, clip in iter_manifest(path)] if path.exists() else []


def read_all(data: Path) -> Iterator[Clip]:
    for split in SPLITS:
        yield from read(data, split)


def placed(data: Path) -> dict[str, str]:
    """The split of each id, by the file that it stands in."""
    return {clip.id: split for split in SPLITS for clip in read(data, split)}


def rewrite(data: Path, clips: Sequence[Clip], split: str = "train") -> None:
    write_manifest(manifest_path(data, split), clips)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 training clips in recordings of three, and 5 of validation."""
    data = make_data(tmp_path_factory.mktemp("packed") / "talks")
    make_data(data, clips=5, split="validation")
    clips = [replace(clip, files={"audio": f"{index // 3}.wav"}) for index, clip in enumerate(read(data, "train"))]
    rewrite(data, clips)
    return data


@pytest.fixture
def data(packed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(packed, tmp_path / "talks")


def test_a_split_loses_nothing_and_reads_the_old_shards(data: Path, tmp_path: Path) -> None:
    before = {clip.id: clip for clip in read_all(data)}
    report = split_manifest(data, tmp_path / "out", validation=0.2, test=0.2)
    out = tmp_path / "out"
    after = {clip.id: clip for clip in read_all(out)}
    assert list(after) and set(after) == set(before)
    assert report.clips == Counter(placed(out).values())
    assert report.hours == pytest.approx(sum(clip.duration for clip in before.values()) / 3600)
    for clip_id, clip in after.items():
        store = str((data / before[clip_id].store).absolute())
        assert clip == replace(before[clip_id], split=placed(out)[clip_id], store=store)
        assert ShardReader(clip.store).read(clip.row, clip.id).crc32 == clip.crc32
    found = validate(out)
    assert found.errors == 0, found.problems
    assert sorted(cut.id for split in SPLITS for cut in CutSet.from_file(manifest_path(out, split))) == sorted(before)
    assert json.loads((out / "prepare.json").read_text())["report"]["clips"] == dict(report.clips)


def test_a_split_keeps_recordings_together(data: Path, tmp_path: Path) -> None:
    split_manifest(data, tmp_path / "out", splits=("train",), validation=0.3, test=0.3)
    of_file: dict[str, set[str]] = {}
    for split in SPLITS:
        for clip in read(tmp_path / "out", split):
            if clip.files:
                of_file.setdefault(clip.files["audio"], set()).add(split)
    assert len(of_file) == 20
    assert all(len(splits) == 1 for splits in of_file.values())
    assert set().union(*of_file.values()) == set(SPLITS)


def test_the_same_sound_under_another_name_stays_with_it(data: Path, tmp_path: Path) -> None:
    clips = read(data, "train")
    # Recordings 0, 1, 2, ... are chained: the last clip of each has the sound of the first of the next.
    clips = [
        replace(c, audio_group=clips[i + 1].audio_group) if i % 3 == 2 and i < 30 else c for i, c in enumerate(clips)
    ]
    rewrite(data, clips)
    chained = {clip.id for clip in clips[:33]}
    for seed in range(5):
        out = tmp_path / f"out{seed}"
        split_manifest(data, out, splits=("train",), validation=0.6, test=0, seed=seed)
        assert len({split for clip_id, split in placed(out).items() if clip_id in chained}) == 1


def test_a_split_does_not_depend_on_order_and_does_on_the_seed(data: Path, tmp_path: Path) -> None:
    options = {"splits": ("train",), "validation": 0.3, "test": 0.2}
    split_manifest(data, tmp_path / "a", **options)  # type: ignore[arg-type]
    split_manifest(data, tmp_path / "b", **options)  # type: ignore[arg-type]
    split_manifest(data, tmp_path / "c", **options, seed=1)  # type: ignore[arg-type]
    for split in SPLITS:
        assert manifest_path(tmp_path / "a", split).read_bytes() == manifest_path(tmp_path / "b", split).read_bytes()
    rewrite(data, read(data, "train")[::-1])
    split_manifest(data, tmp_path / "d", **options)  # type: ignore[arg-type]
    assert placed(tmp_path / "a") == placed(tmp_path / "d") != placed(tmp_path / "c")


def test_more_clips_do_not_move_the_others(data: Path, tmp_path: Path) -> None:
    split_manifest(data, tmp_path / "all", splits=("train",), by="id", validation=0.3)
    rewrite(data, read(data, "train")[::2])
    split_manifest(data, tmp_path / "half", splits=("train",), by="id", validation=0.3)
    everywhere = placed(tmp_path / "all")
    half = placed(tmp_path / "half")
    assert {clip_id: everywhere[clip_id] for clip_id in half} == half


def test_by_dataset_and_what_is_not_chosen_stays(data: Path, tmp_path: Path) -> None:
    rewrite(data, [replace(clip, dataset=f"set {i % 12}") for i, clip in enumerate(read(data, "train"))])
    split_manifest(data, tmp_path / "out", splits=("train",), by="dataset", validation=0.4, test=0)
    of_set: dict[str, set[str]] = {}
    for split in SPLITS:
        for clip in read(tmp_path / "out", split):
            of_set.setdefault(clip.dataset, set()).add(split)
    assert of_set.pop("") == {"validation"}
    assert all(len(splits) == 1 for splits in of_set.values())


def test_shares_are_met_on_average() -> None:
    numbers = uniform(np.array([bytes_group(str(i).encode()) for i in range(20_000)]), "split", 3)
    assert abs((numbers < 0.1).mean() - 0.1) < 0.01
    assert numbers.min() >= 0 and numbers.max() < 1


def test_a_share_of_what_a_split_left_is_that_share() -> None:
    """The default seed of both is 0: of the clips with split numbers above 0.4, a share of a half is a half."""
    ids = np.array([bytes_group(str(i).encode()) for i in range(20_000)])
    training = ids[uniform(ids, "split", 0) >= 0.4]
    assert abs((uniform(training, "mix", 0) < 0.5).mean() - 0.5) < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation": 0.6, "test": 0.4}, "must leave some for train"),
        ({"validation": -0.1}, "must leave some for train"),
        ({"by": "recordings"}, "did you mean 'recording'"),
        ({"splits": ("test",)}, "no split 'test'"),
        ({"validation": 1e-9}, "no clip fell to validation"),
    ],
)
def test_a_split_that_cannot_be_is_refused(data: Path, tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        split_manifest(data, tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_ids_that_would_clash_are_refused_and_nothing_is_left(data: Path, tmp_path: Path) -> None:
    rewrite(data, [replace(clip, split="validation") for clip in read(data, "train")[:3]], "validation")
    with pytest.raises(EditError, match="would have the id of another clip"):
        split_manifest(data, tmp_path / "out", test=0, by="id")
    assert not (tmp_path / "out").exists()


def test_an_edit_never_writes_over_data(data: Path, tmp_path: Path) -> None:
    with pytest.raises(EditError, match="never writes over its input"):
        split_manifest(data, data, overwrite=True)
    other = shutil.copytree(data, tmp_path / "other")
    with pytest.raises(EditError, match="was not written by an edit"):
        split_manifest(data, other, overwrite=True)
    out = tmp_path / "out"
    split_manifest(data, out, by="id")
    with pytest.raises(EditError, match="overwrite=true"):
        split_manifest(data, out, by="id")
    split_manifest(data, out, splits=("train",), validation=0.0, test=0.0, overwrite=True)
    assert {clip_id: split for clip_id, split in placed(out).items() if split == "train"} == dict.fromkeys(
        (clip.id for clip in read(data, "train")), "train"
    )
    assert not manifest_path(out, "test").exists()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=3), min_size=1, max_size=20))
def test_connected_is_what_a_slow_search_finds(keys: list[list[int]]) -> None:
    labels = np.array([100 - i for i in range(len(keys))])
    flat = [(i, key) for i, own in enumerate(keys) for key in own]
    found = connected(labels, np.array([i for i, _ in flat]), np.array([key for _, key in flat]))
    for start in range(len(keys)):
        reached: set[int] = set()
        grown = {start}
        while grown != reached:
            reached = grown
            held = {key for i in reached for key in keys[i]}
            grown = {i for i, own in enumerate(keys) if held & set(own)}
        assert found[start] == min(labels[i] for i in reached)


def test_equal_paths_of_two_preparations_are_two_recordings() -> None:
    clip = Clip("a", 1.0, files={"media": "1.mp4"})
    assert not set(source_keys(clip, "/a/shards/train")) & set(source_keys(clip, "/b/shards/train"))
    moved = replace(clip, row=5)
    assert set(source_keys(clip, "/a/shards/train")) & set(source_keys(moved, "/a/shards/validation"))


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """40 training clips whose ids are those of `data`, and three of test."""
    out = make_data(tmp_path / "songs", clips=40, domains=("music",))
    make_data(out, clips=3, split="test")
    rewrite(out, [replace(c, dataset="FMA", licence="CC0") if i % 2 else c for i, c in enumerate(read(out, "train"))])
    return out


def test_a_mix_holds_every_clip_once_and_renames_those_that_clash(data: Path, songs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = mix(out, [str(data), str(songs)])
    assert report.clips == {"train": 100, "validation": 5, "test": 3}
    assert report.notes == [
        "40 ids belong to several sources: their clips are called NAME/ID",
        "5 clips of validation have a sound that train has too",
        "3 clips of test have a sound that train has too",
        "3 clips of test have a sound that validation has too",
    ]
    sources = {"talks": data, "songs": songs}
    expected = []
    for name, folder in sources.items():
        for clip in read_all(folder):
            clashes = clip.split == "train" and int(clip.id.removeprefix("train-")) < 40
            expected.append(
                (f"{name}/{clip.id}" if clashes else clip.id, clip.split, clip.dataset or name, clip.domain)
            )
    clips = list(read_all(out))
    assert sorted((c.id, c.split, c.dataset, c.domain) for c in clips) == sorted(expected)
    for clip in clips:
        assert Path(clip.store).is_absolute()
        assert ShardReader(resolve_store(out, clip.store)).read(clip.row, clip.packed_id).crc32 == clip.crc32
    found = validate(out)
    assert found.errors == 0, found.problems
    assert len(CutSet.from_file(manifest_path(out, "train"))) == 100
    assert (out / "tokenizer.json").is_file()


def test_a_mix_of_mixes_still_finds_its_media(data: Path, songs: Path, tmp_path: Path) -> None:
    mix(tmp_path / "one", [str(data), str(songs)])
    third = make_data(tmp_path / "third", clips=40, domains=("music",), level=3)
    mix(tmp_path / "two", [f"again={tmp_path / 'one'}", str(third)], where=Where(domains=("music",)))
    clips = read(tmp_path / "two", "train")
    assert len(clips) == 80 and len({clip.id for clip in clips}) == 80
    assert validate(tmp_path / "two").errors == 0


def test_a_mix_holds_no_clip_twice(data: Path, songs: Path, tmp_path: Path) -> None:
    split_manifest(data, tmp_path / "split", by="id", validation=0.2, test=0)
    for sources in ([f"a={data}", f"b={data}"], [str(songs), str(tmp_path / "split"), f"b={data}"]):
        with pytest.raises(EditError, match=r"65 clips of b are clips of (a|split) too"):
            mix(tmp_path / "out", sources)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("where", "keeps"),
    [
        (Where(domains=("music",)), lambda c: c.domain == "music"),
        (Where(datasets=("FMA", "talks")), lambda c: c.dataset in ("FMA", "talks")),
        (Where(licences=("CC0",)), lambda c: c.licence == "CC0"),
        (Where(min_seconds=0.2, max_seconds=0.35), lambda c: 0.2 <= c.duration <= 0.35),
        (Where(has_audio=True, with_captions=("audio",)), lambda c: True),
    ],
)
def test_a_filter_takes_what_it_says(data: Path, songs: Path, tmp_path: Path, where: Where, keeps) -> None:  # type: ignore[no-untyped-def]
    mix(tmp_path / "all", [str(data), f"songs={songs}"])
    mix(tmp_path / "some", [str(data), f"songs={songs}"], where=where)
    wanted = Counter((c.store, c.row) for c in read_all(tmp_path / "all") if keeps(c))
    assert Counter((c.store, c.row) for c in read_all(tmp_path / "some")) == wanted
    assert wanted


def test_shares_take_a_part_of_the_training_clips_alone(data: Path, songs: Path, tmp_path: Path) -> None:
    mix(tmp_path / "half", [str(data), str(songs)], shares={"talks": "0.5"})
    mix(tmp_path / "less", [str(data), str(songs)], shares={"talks": "0.25"})
    rows = {}
    for name in ("half", "less"):
        clips = read(tmp_path / name, "train")
        rows[name] = {clip.row for clip in clips if clip.dataset == "talks"}
        assert sum(clip.dataset != "talks" for clip in clips) == 40
        assert len(read(tmp_path / name, "validation")) == 5
    assert rows["less"] < rows["half"]
    assert 18 <= len(rows["half"]) <= 42


@pytest.mark.parametrize("seed", range(3))
def test_a_share_in_hours_takes_just_enough(data: Path, tmp_path: Path, seed: int) -> None:
    wanted = 6.0 / 3600
    mix(tmp_path / "out", [str(data)], shares={"talks": f"{wanted}h"}, seed=seed)
    clips = read(tmp_path / "out", "train")
    seconds = sum(clip.duration for clip in clips)
    assert seconds + 1e-6 >= 6.0 and seconds < 6.0 + 0.5 + 1e-6
    report = mix(tmp_path / "much", [str(data)], shares={"talks": "10h"})
    assert report.clips["train"] == 60 and "all are taken" in report.notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": []}, "at least one"),
        ({"sources": ["{data}", "{data}"]}, "two sources are called 'talks'"),
        ({"shares": {"talks": "2"}}, "domain_weights"),
        ({"shares": {"talks": "lots"}}, "a factor up to 1"),
        ({"shares": {"talks": 2}}, "domain_weights"),
        ({"shares": {"talk": "0.5"}}, "did you mean 'talks'"),
        ({"where": Where(domains=("aa",))}, "no clip has the domain 'aa': did you mean 'a'"),
        ({"where": Where(min_seconds=60)}, "no clip is left"),
        ({"sources": ["{data}/nowhere"]}, "no folder"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(data: Path, tmp_path: Path, change: dict, message: str) -> None:
    options = {"sources": ["{data}"], **change}
    options["sources"] = [source.format(data=data) for source in options["sources"]]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        mix(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_tokenizer_is_trained_on_the_mix_or_copied(data: Path, songs: Path, tmp_path: Path) -> None:
    (data / "tokenizer.json").write_text('{"mine": 1}')
    mix(tmp_path / "copied", [str(data), str(songs)], tokenizer="copy")
    assert (tmp_path / "copied/tokenizer.json").read_text() == '{"mine": 1}'
    mix(tmp_path / "trained", [str(data), str(songs)])
    assert "tone" in (tmp_path / "trained/tokenizer.json").read_text()
    report = mix(tmp_path / "none", [str(songs)], tokenizer="copy")
    assert "no tokenizer.json was written" in report.notes[-1]
    assert not (tmp_path / "none/tokenizer.json").exists()


def test_sources_in_object_stores_are_named_by_address() -> None:
    assert parse_source("s3://bucket/songs").name == "songs"
    assert parse_source("a=s3://bucket/songs").name == "a"


def test_a_split_does_not_depend_on_where_the_data_lie(data: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "data"
    shutil.copytree(data, moved)
    split_manifest(data, tmp_path / "a", splits=("train",), validation=0.3, test=0.2, seed=1)
    split_manifest(moved, tmp_path / "b", splits=("train",), validation=0.3, test=0.2, seed=1)
    assert placed(tmp_path / "a") == placed(tmp_path / "b")
