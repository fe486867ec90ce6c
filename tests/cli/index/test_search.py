"""`peav search` and `Index.search`: what is asked, what is found, and what cannot be asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from peav.cli.main import main
from peav.data.media.probing import probe
from peav.model import PEAV
from peav.search import Filters, Index
from peav.search.terms import media_vectors
from tests.cli.embed.helpers import noise
from tests.cli.index.test_update import ROOT, update
from tests.data.conftest import write_wav


@pytest.fixture(scope="module")
def media(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("searched") / "media"
    shutil.copytree(folder, root)
    shutil.copyfile(root / "deep/er/3.wav", root / "twin.wav")
    record = {"id": "a", "media": "deep/er/0.wav", "domain": "speech", "transcript": "Good morning, Zoé"}
    (root / "clips.jsonl").write_text(json.dumps(record))
    os.utime(root / "deep/er/2.wav", (1e9, 1e9))
    return root


@pytest.fixture(scope="module")
def index(checkpoint: Path, media: Path) -> Path:
    path = media.parent / "index"
    assert update(path, media, model=checkpoint, window_seconds=2.0, overlap_seconds=0.5) == 0
    return path


@pytest.fixture(scope="module")
def opened(index: Path, checkpoint: Path) -> Index:
    return Index.open(index, PEAV.from_pretrained(checkpoint))


def names(found: Any) -> list[str]:
    return [Path(card.file.path).name for card in found.cards]


@pytest.mark.parametrize(("mode", "target"), [("heard", "audio"), ("seen", "video"), ("both", "audio_video")])
def test_words_are_compared_with_what_the_mode_says(
    opened: Index, media: Path, checkpoint: Path, mode: Any, target: str
) -> None:
    """The order is that of the products of the model's own embeddings, window by window."""
    model = opened.model
    query = model.embed(text="a bell", to=target)[f"text_{target}"][0].numpy()
    found = opened.search("a bell", mode=mode, fold=False, when=False)
    for card in found.cards:
        arguments = {kind: card.file.path for kind in ("audio", "video") if kind in target.split("_")}
        if card.file.windows == 1:
            vector = model.embed(**arguments)[target][0].numpy()  # type: ignore[arg-type]
            assert card.score == pytest.approx(float(vector @ query), abs=5e-3)
    scores = [card.score for card in found.cards]
    assert scores == sorted(scores, reverse=True)
    heard = {"both.MP4", "0.wav", "1.wav", "2.wav", "3.wav", "twin.wav"}
    expected = {"heard": heard, "seen": {"both.MP4", "silent.mp4"}, "both": {"both.MP4"}}
    assert set(names(found)) == expected[mode] and found.mode == mode
    assert all(card.match is None or 0 < card.match < 1 for card in found.cards)


def test_a_file_a_clip_and_a_window_are_what_the_index_holds_of_them(opened: Index, media: Path) -> None:
    """A model that was not trained takes most sounds for the same, so that vectors are compared, and not ranks."""
    settings = opened.store.settings
    for start in (0.0, 1.5, 3.0):
        number = window_at(opened, "1.wav", start)
        said = f"{media}/deep/er/1.wav#t={start},{start + 2}"
        held, asked = opened._vectors_of(number), media_vectors(opened.model, settings, said)
        assert held.keys() == asked.keys() == {"audio"}
        np.testing.assert_allclose(asked["audio"], held["audio"], atol=1e-3)
        found = opened.search(entry=number, fold=False)
        assert found.mode == "heard" and found.fits is None
        own = next(card for card in found.cards if card.file.path.endswith("1.wav"))
        assert own.score >= float(held["audio"] @ held["audio"]) - 1e-6
    held = opened._vectors_of(window_at(opened, "both.MP4", 0.0))
    asked = media_vectors(opened.model, settings, str(media / "both.MP4"))
    for name in ("audio", "video", "audio_video"):
        np.testing.assert_allclose(asked[name], held[name], atol=2e-3)
    assert opened.search(like=media / "both.MP4").mode == "both"
    seen = opened.search(like=media / "deep/silent.mp4")
    assert seen.mode == "seen" and set(names(seen)) <= {"silent.mp4", "both.MP4"}


def test_a_picture_is_what_the_index_holds_of_it(checkpoint: Path, media: Path, tmp_path: Path) -> None:
    """A still of a film, given as a picture in any format, and among the pictures of an index."""
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        colours = np.random.default_rng(number).integers(0, 256, (4, 6, 3), np.uint8)
        Image.fromarray(colours).resize((96, 64), Image.Resampling.NEAREST).save(tmp_path / f"pictures/{number}.png")
    Image.open(tmp_path / "pictures/1.png").save(tmp_path / "asked.webp", lossless=True)
    assert update(tmp_path / "index", tmp_path / "pictures", media / "both.MP4", model=checkpoint) == 0
    with Index.open(tmp_path / "index", PEAV.from_pretrained(checkpoint)) as opened:
        found = opened.search(like=tmp_path / "asked.webp", fold=False)
        assert found.mode == "seen" and found.fits is None
        assert set(names(found)) == {"0.png", "1.png", "2.png", "both.MP4"}
        own = next(card for card in found.cards if card.file.path.endswith("1.png"))
        vector = opened._vectors_of(own.moments[0].window)["video"]
        asked = media_vectors(opened.model, opened.store.settings, str(tmp_path / "asked.webp"))["video"]
        np.testing.assert_allclose(asked, vector, atol=1e-3)
        assert own.file.kind == "picture" and own.moments[0].seconds == 0
        # Embedded once, and asked by often.
        example = opened.example(tmp_path / "asked.webp")
        again = opened.search("a bell", like=example, mode="seen", fold=False)
        assert names(again) == names(opened.search("a bell", like=tmp_path / "asked.webp", mode="seen", fold=False))
        with pytest.raises(ValueError, match="a picture has no span"):
            opened.search(like=f"{tmp_path}/asked.webp#t=0,1")
        with pytest.raises(ValueError, match="cannot be compared with audio of the index"):
            opened.search(like=tmp_path / "asked.webp", mode="heard")


def window_at(opened: Index, name: str, start: float) -> int:
    (file,) = [file for file in opened.store.catalog.files() if Path(file.path).name == name]
    windows = np.concatenate([segment.windows for segment in opened.store.segments.values()])
    (found,) = windows["id"][(windows["file"] == file.id) & (windows["start"] == start)]
    return int(found)


def test_files_that_are_the_same_are_folded_into_one_card(opened: Index) -> None:
    """Those of the same bytes never both stand there; a model that was not trained takes further ones for the same, too."""
    folded = opened.search("a bell")
    cards = [[Path(path).name for path in (card.file.path, *card.duplicates)] for card in folded.cards]
    assert sorted(name for card in cards for name in card) == sorted(names(opened.search("a bell", fold=False)))
    assert [card for card in cards if "3.wav" in card] == [card for card in cards if "twin.wav" in card]
    # A picture beside the sound makes another file of it.
    assert ["both.MP4"] in cards


def test_several_terms_are_summed_as_standard_scores_and_negative_ones_subtract_half(opened: Index) -> None:
    plain = {Path(c.file.path).name: c.score for c in opened.search("a bell", fold=False, moments=9).cards}
    other = {Path(c.file.path).name: c.score for c in opened.search("the red house", fold=False).cards}
    drawn = opened.reference["audio"]
    spread = {}
    for text in ("a bell", "the red house"):
        query = opened.model.embed(text=text, to="audio")["text_audio"][0].numpy()
        spread[text] = ((drawn @ query).mean(), (drawn @ query).std())
    both = opened.search("a bell", negative="the red house", fold=False)
    assert both.by_sum
    single = [name for name in plain if name != "1.wav"]  # which has several windows
    for name in single:
        mean, deviation = spread["a bell"]
        mean2, deviation2 = spread["the red house"]
        expected = (plain[name] - mean) / deviation - 0.5 * (other[name] - mean2) / deviation2
        found = next(card.score for card in both.cards if Path(card.file.path).name == name)
        assert found == pytest.approx(expected, abs=1e-3)
    weighted = opened.search(["a bell", "the red house"], weights=[1.0, 0.0], fold=False)
    assert names(weighted) == list(plain)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"kind": "video"}, {"both.MP4"}),
        ({"min_seconds": 4.0}, {"1.wav"}),
        ({"max_seconds": 0.9}, {"0.wav"}),
        ({"before": "2002-01-01"}, {"2.wav"}),
        ({"after": "2002-01-01", "max_seconds": 1.2}, {"0.wav"}),
        ({"domain": "speech"}, {"0.wav"}),
        ({"transcript": "zoe"}, {"0.wav"}),
        ({"transcript": "morning good"}, {"0.wav"}),
        ({"transcript": '"morning good"'}, set()),
        ({"transcript": "NOT OR *"}, set()),
        ({"name": "twin"}, {"twin.wav"}),
        ({"domain": "music"}, set()),
    ],
)
def test_filters(opened: Index, filters: dict[str, Any], expected: set[str]) -> None:
    found = opened.search("a bell", filters=Filters(**filters), fold=False)
    assert set(names(found)) == expected
    assert found.fits is False if not expected else found.searched > 0


def test_the_folder_filter_takes_whole_names(opened: Index, media: Path) -> None:
    assert set(names(opened.search("a bell", filters=Filters(folder=str(media / "deep")), fold=False))) == {
        *("0.wav", "1.wav", "2.wav", "3.wav"),
    }
    assert not opened.search("a bell", filters=Filters(folder=str(media / "dee"))).cards


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing is sought"),
        ({"text": "  "}, "must hold some"),
        ({"text": "a", "mode": "smelled"}, "mode='smelled'"),
        ({"text": "a", "top": 0}, "top must be at least 1"),
        ({"text": "a", "weights": [1.0, 2.0]}, "weights must be 1 numbers"),
        ({"text": "a", "weights": [-1.0]}, "one above 0"),
        ({"text": "a", "weights": [float("nan")]}, "weights must be"),
        ({"entry": 999}, "no window 999"),
        ({"like": "nowhere.wav"}, "there is no file nowhere.wav"),
        ({"like": "{media}/deep/er/0.wav#t=5,9"}, "there is nothing from 5 s"),
        ({"like": "{media}/bad.wav"}, "bad.wav"),
        ({"like": "{media}/deep/er/0.wav", "mode": "both"}, "cannot be compared with audio_video"),
    ],
)
def test_what_cannot_be_asked_is_said(opened: Index, media: Path, arguments: dict[str, Any], message: str) -> None:
    filled: dict[str, Any] = {k: v.format(media=media) if isinstance(v, str) else v for k, v in arguments.items()}
    with pytest.raises((ValueError, KeyError, OSError, RuntimeError)) as caught:
        opened.search(**filled)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "filters", [{"kind": "smell"}, {"after": "soon"}, {"min_seconds": -1.0}, {"transcript": '""'}], ids=str
)
def test_filters_out_of_range_are_refused(filters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(filters))):
        Filters(**filters)


def test_another_model_is_refused(index: Path, checkpoint: Path) -> None:
    torch.manual_seed(5)
    other = PEAV.from_pretrained(checkpoint)
    torch.nn.init.normal_(next(other.heads.parameters()))
    with pytest.raises(ValueError, match="this is another model"):
        Index.open(index, other)


def test_a_search_sees_what_another_process_has_committed(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    media, path = tmp_path / "media", tmp_path / "index"
    media.mkdir()
    write_wav(media / "first.wav", noise(1.0, 1))
    assert update(path, media, model=checkpoint) == 0
    with Index.open(path, PEAV.from_pretrained(checkpoint)) as opened:
        assert names(opened.search("a bell")) == ["first.wav"]
        for number in range(6):
            write_wav(media / f"{number}.wav", noise(1.1 + 0.1 * number, number + 2))
        (media / "first.wav").unlink()
        words = ["index", "update", str(path), "--workers=0"]
        code = (
            "from peav.cli import embed_pieces; embed_pieces._FILES_A_PIECE = 1\n"
            f"from peav.cli.main import main; raise SystemExit(main({words}))"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
        )
        seen = set()
        while process.poll() is None:
            seen.add(len(names(opened.search("a bell", fold=False))))
        assert process.returncode == 0
        assert sorted(names(opened.search("a bell", fold=False))) == [f"{number}.wav" for number in range(6)]
        assert seen <= set(range(7))


def test_the_command_in_a_fresh_process(index: Path, media: Path, tmp_path: Path) -> None:
    """JSON, clips that last as long as the moments, and an exit status that says whether something fits."""
    command = [
        sys.executable,
        "-m",
        "peav.cli.main",
        "search",
        str(index),
        "a bell",
        "--not",
        "the red house",
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--json", "--fold=false", f"--out={tmp_path / 'clips'}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout)
    assert done.returncode == (3 if found["fits"] is False else 0), done.stderr[-2000:]
    assert found["by_sum"] and found["mode"] == "heard"
    clips = sorted((tmp_path / "clips").iterdir())
    moments = [moment for card in found["cards"] for moment in card["moments"]]
    assert len(clips) == len(moments) > 5
    first = found["cards"][0]["moments"][0]
    assert probe(str(clips[0])).duration == pytest.approx(first["seconds"], abs=0.1)


def test_the_commands_say_what_there_is(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "info", str(index)]) == 0
    said = capsys.readouterr().out
    assert "7 files (5 sound, 2 video, 0 picture)" in said and "audio: 8 vectors of 8" in said
    with pytest.raises(SystemExit) as caught:
        main(["search", str(index), "a bell", "--domain=music"])
    assert caught.value.code == 3 and "nothing found among 0 windows" in capsys.readouterr().out
    assert main(["search", str(tmp_path), "a bell"]) == 1
    assert "there is no index at" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["search", "--help"])
    help_text = " ".join(capsys.readouterr().out.split())
    assert "--not NOT" in help_text and "--like" in help_text


def test_export_writes_every_window(index: Path, tmp_path: Path, opened: Index) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "index.parquet"
    assert main(["index", "export", str(index), str(out)]) == 0
    rows = parquet.read_table(out).to_pylist()
    assert len(rows) == 9 and [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    row = next(row for row in rows if row["path"].endswith("0.wav"))
    assert row["video"] is None and row["transcript"] == "Good morning, Zoé" and row["kind"] == "sound"
    found = opened.search(entry=row["id"], moments=1)
    vector = np.array(row["audio"], np.float32)
    assert found.cards[0].score == pytest.approx(float(vector @ vector), rel=1e-5)
    assert main(["index", "export", str(index), str(out)]) == 1
    assert main(["index", "export", str(index), "x.csv"]) == 1
