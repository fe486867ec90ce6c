"""What is said as a text about what is heard: alone, beside audio captions by a share, as a text of its own, and never by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from peav.data import Caption, ClipDataset, open_manifest, save_manifest
from peav.data.datamodule import ClipDataModule
from peav.data.manifests.index import AUDIO_CAPTIONS, HAS_TRANSCRIPT
from tests.data.world import make_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Forty clips with a caption; every second one says something, and every fourth one has no more than that."""
    made = make_data(tmp_path / "data", clips=40)
    clips = [
        replace(
            clip,
            transcript=f"said {row}" if row % 2 == 0 else None,
            captions={} if row % 4 == 0 else {"audio": (Caption(f"heard {row}"),)},
        )
        for row, clip in enumerate(open_manifest(made, "train"))
    ]
    save_manifest(made, "train", clips)
    return made


def texts(data: Path, transcripts: object, epoch: int | None = 0, occurrence: int = 0) -> list[str | None]:
    dataset = ClipDataset(data, "train", fields=["captions.audio"], transcripts=transcripts)  # type: ignore[arg-type]
    indices = [row if epoch is None else (epoch, row, occurrence) for row in range(len(dataset))]
    return [dataset[index].captions["audio"] for index in indices]


def test_the_columns_know_who_has_what(data: Path) -> None:
    index = open_manifest(data, "train").index
    assert index.has(HAS_TRANSCRIPT).tolist() == [row % 2 == 0 for row in range(40)]
    assert index.has(AUDIO_CAPTIONS).tolist() == [row % 4 != 0 for row in range(40)]


def test_alone_means_where_there_is_no_audio_caption(data: Path) -> None:
    alone = [f"said {row}" if row % 4 == 0 else f"heard {row}" for row in range(40)]
    assert texts(data, "alone") == texts(data, "alone", epoch=None) == alone
    off = [None if row % 4 == 0 else f"heard {row}" for row in range(40)]
    assert texts(data, "off") == off
    # A data set by itself says what its manifest says; training is what the data module asks for.
    assert [ClipDataset(data, "train")[row].captions["audio"] for row in range(40)] == off


def test_a_share_chooses_anew_each_time_and_the_same_again(data: Path) -> None:
    both = [row for row in range(40) if row % 4 == 2]
    drawn = {(epoch, turn): texts(data, 0.3, epoch, turn) for epoch in range(40) for turn in (0, 1)}
    for found in drawn.values():
        for row in range(40):
            possible = {f"heard {row}", f"said {row}"} if row in both else {f"{'heard' if row % 2 else 'said'} {row}"}
            assert found[row] in possible
    said = [found[row] == f"said {row}" for found in drawn.values() for row in both]
    assert sum(said) / len(said) == pytest.approx(0.3, abs=0.05)
    assert drawn[0, 0] != drawn[0, 1] != drawn[1, 1]
    assert drawn[3, 1] == texts(data, 0.3, 3, 1)
    assert texts(data, 1.0) == [f"said {row}" if row % 2 == 0 else f"heard {row}" for row in range(40)]
    # Evaluation has nothing random: the caption where there is one.
    assert texts(data, 0.3, None) == texts(data, "alone", None)


def test_a_share_leaves_what_else_is_random_as_it_is(data: Path) -> None:
    clips = [
        replace(clip, captions={"audio": tuple(Caption(f"{row} {number}") for number in range(9))})
        for row, clip in enumerate(open_manifest(data, "train"))
    ]
    save_manifest(data, "train", clips)
    plain, mixed = texts(data, "off"), texts(data, 0.5)
    assert [one for one, other in zip(plain, mixed, strict=True) if one == other]
    assert {other for one, other in zip(plain, mixed, strict=True) if one != other} <= {
        f"said {row}" for row in range(40)
    }


def test_a_transcript_is_a_text_of_its_own(data: Path) -> None:
    dataset = ClipDataset(data, "train", fields=["captions.audio", "captions.transcript"])
    found = [dataset[0, row].captions for row in range(40)]
    assert [one["transcript"] for one in found] == [f"said {row}" if row % 2 == 0 else None for row in range(40)]
    assert [one["audio"] for one in found] == texts(data, "off")


@pytest.mark.parametrize("value", ["always", 1.5, -0.1, float("nan"), True, None])
def test_what_transcripts_cannot_be(value: object, data: Path) -> None:
    with pytest.raises(ValueError, match="must be 'off', 'alone' or a share from 0 to 1, got"):
        ClipDataModule(str(data), transcripts=value)  # type: ignore[arg-type]
