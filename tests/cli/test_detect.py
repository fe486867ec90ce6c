"""`peav detect`: the spans of `PEAV.detect` in files that other programs read, resumed, drawn, and what is refused."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from peav.checkpoints import DetectionSettings, MediaSettings
from peav.cli.detect_store import ResultStore
from peav.cli.envelope import Envelope
from peav.cli.main import main
from peav.cli.span_files import FileSpans, places_of, to_audacity, to_rttm, to_tsv, to_vtt, unescape_field
from peav.data.media.decode import decode_counts
from peav.model import PEAV
from peav.spans import Span
from tests.data.conftest import ffmpeg, write_float_wav
from tests.helpers import SMALL_ENCODERS
from tests.inputs.helpers import RATE, noise

TEXTS = ["a bell", "the red house"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    encoders = {"audio": SMALL_ENCODERS["DacAudioEncoder"](), "text": SMALL_ENCODERS["TextEncoder"]()}
    media = MediaSettings(sample_rate=RATE, frame_size=32, window_seconds=2.4)
    made = PEAV(encoders, ["text_event"], 8, frames=["audio"], pairs=[("audio", "text_event")], media=media)
    for name, parameter in made.named_parameters():
        if parameter.ndim > 1 and "frontend" in name:  # a DAC at its initial values hardly hears
            torch.nn.init.normal_(parameter, std=0.3)
    made.set_score(("audio", "text_event"), torch.tensor([4.0]), torch.tensor([-0.1]))
    made.detection = DetectionSettings(threshold=0.65, median_seconds=0.36)
    return made.save_pretrained(tmp_path_factory.mktemp("model") / "frames")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sounds, one of them in a video; a video without sound, a broken one and NaN."""
    root = tmp_path_factory.mktemp("media")
    (root / "deep").mkdir()
    for index, seconds in enumerate((0.7, 7.3, 3.1)):
        write_float_wav(root / f"deep/{index} ü.wav", noise(seconds, index))
    pattern = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=3.1"]
    sound = ["-i", str(root / "deep/2 ü.wav"), "-c:v", "libx264", "-threads", "1", "-c:a", "pcm_s16le"]
    ffmpeg(*pattern, *sound, str(root / "both.mkv"))
    ffmpeg(*pattern, "-c:v", "libx264", "-threads", "1", str(root / "silent.mp4"))
    bad = noise(1.0)
    bad[99] = np.nan
    write_float_wav(root / "nan.wav", bad)
    (root / "bad.wav").write_text("not a sound")
    return root


GOOD = ["both.mkv", "deep/0 ü.wav", "deep/1 ü.wav", "deep/2 ü.wav"]


def run(model: Path, out: Path, *media: Path, texts: list[str] | None = None, **options: Any) -> int:
    words = [f"--{name}={'null' if value is None else value}" for name, value in ({"workers": 0} | options).items()]
    words += [word for text in (TEXTS if texts is None else texts) for word in ("--text", text)]
    return main(["detect", *map(str, media), f"--model={model}", f"--out={out}", *words])


def spans_of(path: Path) -> dict[str, list[tuple[str, float, float, float]]]:
    files = json.loads(path.read_text())["files"]
    return {f["file"]: [(e["text"], e["onset"], e["offset"], e["score"]) for e in f["events"]] for f in files}


def test_a_folder_gives_what_python_gives(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new/found.json"
    assert run(model, out, folder) == 0
    printed = capsys.readouterr().out
    found = spans_of(out)
    paths = [str(folder / name) for name in GOOD]
    assert list(found) == paths
    expected = PEAV.from_pretrained(model).detect(paths, TEXTS)
    for path, clip in zip(paths, expected, strict=True):
        listed = [(text, s.onset, s.offset, s.score) for text, spans in zip(TEXTS, clip, strict=True) for s in spans]
        assert found[path] == [
            (text, onset, offset, pytest.approx(score, abs=1e-5))
            for text, onset, offset, score in sorted(listed, key=lambda row: row[1:3])
        ]
    assert sum(map(len, found.values())) > 8
    content = json.loads(out.read_text())
    assert content["texts"] == TEXTS and content["settings"]["median_seconds"] == 0.36
    assert content["settings"]["thresholds"] == [0.65, 0.65] and content["settings"]["window_seconds"] == 2.4
    lines = [json.loads(line) for line in out.with_suffix(".rejects.jsonl").read_text().splitlines()]
    reasons = {Path(line["file"]).name: line["reason"] for line in lines}
    assert set(reasons) == {"silent.mp4", "bad.wav", "nan.wav"}
    assert "holds only video" in reasons["silent.mp4"] and "NaN" in reasons["nan.wav"]
    assert "spans in 4 files of 14.2 s" in printed and "3 files could not be heard" in printed
    assert not out.with_suffix(".partial").exists()


def test_processes_change_nothing(model: Path, folder: Path, tmp_path: Path) -> None:
    assert run(model, tmp_path / "a.json", folder) == 0
    assert run(model, tmp_path / "b.json", folder, workers=2, batch_seconds=3.0) == 0
    one, two = spans_of(tmp_path / "a.json"), spans_of(tmp_path / "b.json")
    assert list(one) == list(two)
    for path, spans in one.items():
        assert two[path] == [(*span[:3], pytest.approx(span[3], abs=1e-5)) for span in spans]


def test_an_interrupted_run_goes_on(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = tmp_path / "whole.json", tmp_path / "out.json"
    options: dict[str, Any] = {"batch_seconds": 1.0}
    before = decode_counts()["audio"]
    assert run(model, whole, folder, **options) == 0
    decoded = decode_counts()["audio"] - before
    add = ResultStore.add

    def add_and_stop(self: ResultStore, key: str, found: FileSpans) -> None:
        add(self, key, found)
        if found.file.endswith("0 ü.wav"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResultStore, "add", add_and_stop)
        with pytest.raises(SystemExit, match="the same command goes on"):
            run(model, out, folder, **options)
    partial = out.with_suffix(".partial")
    with (partial / "results.jsonl").open("a") as stream:
        stream.write('{"key": "cut o')  # a line that a crash cut off
    assert run(model, out, folder, texts=["rings"]) == 1 and "texts was" in capsys.readouterr().err
    assert run(model, out, folder, threshold=0.4) == 1 and "thresholds was" in capsys.readouterr().err
    assert main(["embed", str(folder), f"--model={model}", f"--out={out.with_suffix('.npz')}"]) == 1
    assert "holds what `peav detect` began" in capsys.readouterr().err
    before = decode_counts()["audio"]
    assert run(model, out, folder, **options) == 0
    assert 0 < decode_counts()["audio"] - before <= decoded - 2
    assert out.read_text() == whole.read_text() and not partial.exists()
    assert run(model, out, folder) == 1 and "is there already" in capsys.readouterr().err


NASTY = ["dog_barking  50 %", "a\tb\nc", "犬 & <b>кот</b> --> é", " ; x"]


def some_spans() -> list[FileSpans]:
    generator = np.random.default_rng(0)
    files = []
    for name in ("a b_c/1.wav", "ü%\t2.wav"):
        times = np.sort(generator.uniform(0, 7000, (len(NASTY), 6)), 1).round(3)
        spans = [[Span(float(a), float(b), float(generator.uniform())) for a, b in row.reshape(3, 2)] for row in times]
        files.append(FileSpans(name, 7000.0, spans))
    return files


def expected_rows(file: FileSpans) -> list[tuple[str, float, float, float]]:
    return [(text, s.onset, s.offset, s.score) for text, s in file.in_time(NASTY)]


def near(rows: list[Any], expected: list[Any]) -> None:
    assert [row[0] for row in rows] == [row[0] for row in expected]
    for column in range(1, len(rows[0])):
        assert [row[column] for row in rows] == pytest.approx([row[column] for row in expected], abs=2e-3)


def test_tables_are_read_back() -> None:
    files = some_spans()
    table = list(csv.DictReader(to_tsv(NASTY, files).splitlines(keepends=True), dialect="excel-tab"))
    assert list(table[0]) == ["filename", "onset", "offset", "event_label", "score"]
    for file in files:
        rows = [row for row in table if row["filename"] == file.file]
        near(
            [(r["event_label"], float(r["onset"]), float(r["offset"]), float(r["score"])) for r in rows],
            expected_rows(file),
        )


def test_rttm_has_ten_fields_and_is_read_back() -> None:
    files = some_spans()
    rows = [line.split(" ") for line in to_rttm(NASTY, files).splitlines()]
    assert all(len(row) == 10 and row[0] == "SPEAKER" and row[2] == "1" and all(row) for row in rows)
    assert all(not re.search(r"\s", field) for row in rows for field in row)
    for file in files:
        own = [row for row in rows if unescape_field(row[1]) == file.file]
        near(
            [(unescape_field(r[7]), float(r[3]), float(r[3]) + float(r[4]), float(r[8])) for r in own],
            expected_rows(file),
        )


def test_webvtt_is_valid_and_is_read_back() -> None:
    (file, _) = some_spans()
    text = to_vtt(NASTY, file)
    header, *cues = text.rstrip("\n").split("\n\n")
    assert header == "WEBVTT"
    rows = []
    stamp = r"(\d{2,}):([0-5]\d):([0-5]\d\.\d{3})"
    for cue in cues:
        times, payload = cue.split("\n")  # one line: a blank one would end the cue
        match = re.fullmatch(f"{stamp} --> {stamp}", times)
        assert match is not None and "-->" not in payload and "<" not in payload
        h, m, s, h2, m2, s2 = map(float, match.groups())
        assert 3600 * h + 60 * m + s < 3600 * h2 + 60 * m2 + s2
        rows.append((html.unescape(payload), 3600 * h + 60 * m + s, 3600 * h2 + 60 * m2 + s2))
    near(rows, [(" ".join(row[0].split()), *row[1:3]) for row in expected_rows(file)])
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert to_vtt(["x"], FileSpans("a", 0.0002, [[Span(0.0, 0.0002, 1.0)]])).endswith("00:00:00.001\nx\n")


def test_label_tracks_are_read_back() -> None:
    (file, _) = some_spans()
    rows = [line.split("\t") for line in to_audacity(NASTY, file).splitlines()]
    assert all(len(row) == 3 for row in rows)
    near(
        [(row[2], float(row[0]), float(row[1])) for row in rows],
        [(" ".join(row[0].split()), *row[1:3]) for row in expected_rows(file)],
    )


@pytest.mark.parametrize("suffix", [".tsv", ".rttm", ".vtt", ".txt"])
def test_the_name_of_the_output_says_its_format(model: Path, folder: Path, tmp_path: Path, suffix: str) -> None:
    assert run(model, tmp_path / f"x{suffix}", folder / GOOD[2]) == 0
    assert (tmp_path / f"x{suffix}").stat().st_size > 30
    # One file a medium where the format holds one; a file that is there is not written over.
    several = tmp_path / f"y{suffix}"
    assert run(model, several, folder) == 0
    if suffix in (".vtt", ".txt"):
        assert sorted(str(p.relative_to(tmp_path / "y")) for p in (tmp_path / "y").rglob(f"*{suffix}")) == sorted(
            f"{name}{suffix}" for name in GOOD
        )
        assert (tmp_path / f"y/{GOOD[2]}{suffix}").read_text() == (tmp_path / f"x{suffix}").read_text()
    else:
        assert several.is_file()


def test_places_do_not_collide(tmp_path: Path) -> None:
    assert places_of(Path("x.vtt"), ["/a/1.wav"]) == [Path("x.vtt")]
    found = places_of(Path("x.vtt"), ["/a/1.wav", "/a/1.mp3", "/a/b/1.wav", "/a/x.1.wav"])
    assert [str(path) for path in found] == ["x/1.wav.vtt", "x/1.mp3.vtt", "x/b/1.wav.vtt", "x/x.1.wav.vtt"]


def test_pictures_are_drawn(model: Path, folder: Path, tmp_path: Path) -> None:
    """Of a video with its frames above; texts of any script; one file is one picture, several are a folder."""
    texts = ["a bell", "犬が吠える $x_1$ \\frac", "rings", "a" * 300]
    plot = tmp_path / "one.png"
    assert run(model, tmp_path / "one.json", folder / "both.mkv", texts=texts, plot=plot) == 0
    assert run(model, tmp_path / "sound.json", folder / GOOD[3], texts=texts, plot=tmp_path / "sound.png") == 0
    with Image.open(plot) as video, Image.open(tmp_path / "sound.png") as sound:
        assert video.width == sound.width and video.height > sound.height + 80
        # The strip of frames is colourful, and so is the spectrogram.
        strip = np.asarray(video.convert("RGB"))[60:120, 100:-50].reshape(-1, 3)
        assert len(np.unique(strip, axis=0)) > 20
    many = [f"a bell {index}" for index in range(30)]
    assert run(model, tmp_path / "many.json", folder, texts=many, plot=tmp_path / "many.png") == 0
    drawn = sorted(str(p.relative_to(tmp_path / "many")) for p in (tmp_path / "many").rglob("*.png"))
    assert drawn == sorted(f"{name}.png" for name in GOOD)
    with Image.open(tmp_path / "many" / "both.mkv.png") as picture:
        assert picture.height < 2000  # twelve of thirty texts


def test_an_envelope_holds_any_length_in_few_columns() -> None:
    generator = np.random.default_rng(1)
    for length in (0, 1, 7, 8, 9, 1000):
        values = generator.uniform(0, 1, (3, length))
        envelope = Envelope(3, 8)
        begin = 0
        while begin < length:
            size = int(generator.integers(1, 40))
            envelope.add(values[:, begin : begin + size])
            begin += size
        assert envelope.count == length and envelope.means.shape == envelope.peaks.shape
        assert envelope.peaks.shape[1] <= 8
        parts = [values[:, i : i + envelope.width] for i in range(0, length, envelope.width)]
        if parts:
            np.testing.assert_allclose(envelope.means, np.stack([part.mean(1) for part in parts], 1))
            np.testing.assert_array_equal(envelope.peaks, np.stack([part.max(1) for part in parts], 1))


def test_texts_and_thresholds_of_a_file(model: Path, folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "texts.txt"
    listed.write_text("a bell\t0.45\n\nthe red house\n  a bell \n")
    out = tmp_path / "x.json"
    words = ["detect", str(folder / GOOD[2]), f"--model={model}", f"--out={out}", f"--texts={listed}", "--text=rings"]
    assert main([*words, "--threshold=0.55"]) == 0
    content = json.loads(out.read_text())
    assert content["texts"] == ["rings", "a bell", "the red house"]
    assert content["settings"]["thresholds"] == [0.55, 0.45, 0.55]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": []}, 'give --text "dog barking"'),
        ({"texts": [""]}, "names no sound"),
        ({"out": "x.csv"}, "--out must end in one of .json, .tsv, .rttm, .vtt, .txt, not 'x.csv'"),
        ({"plot": "x.jpg"}, "--plot must end in .png"),
        ({"threshold": 1.5}, r"threshold must lie in [0, 1], not 1.5"),
        ({"threshold": ".nan"}, r"threshold must lie in [0, 1], not nan"),
        ({"workers": -1}, "workers must be 0"),
        ({"batch_seconds": 0}, "batch_seconds must be positive"),
        ({"window_seconds": 0.05}, "shorter than a frame of the model"),
        ({"media": []}, "name files or folders"),
        ({"media": ["bad.wav"]}, "none of the 1 files could be heard"),
        ({"media": ["nowhere.wav"]}, "there is no file or folder"),
    ],
)
def test_what_is_refused(
    model: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    message: str,
) -> None:
    options = dict(change)
    media = [folder / name for name in options.pop("media", [GOOD[2]])]
    assert run(model, tmp_path / options.pop("out", "x.json"), *media, **options) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))


def test_thresholds_of_a_file_are_numbers(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("a bell\thigh\n")
    words = ["detect", str(folder), f"--model={model}", f"--texts={tmp_path / 'texts.txt'}"]
    assert main([*words, f"--out={tmp_path / 'x.json'}"]) == 1
    assert "after the tab of 'a bell\\thigh' stands no number" in capsys.readouterr().err
    (tmp_path / "texts.txt").write_text("a bell\t0.2\nrain\nA bell.\t0.3\n")
    assert main([*words, f"--out={tmp_path / 'x.json'}"]) == 1
    assert "'A bell.' has two thresholds, 0.2 and 0.3: leave one out" in capsys.readouterr().err


def test_without_network_a_sentence_says_how_to_give_a_model(folder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    words = ["detect", str(folder / GOOD[2]), "--text", "a bell", "--out", str(tmp_path / "x.json")]
    done = subprocess.run(
        [sys.executable, "-m", "peav.cli.main", *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    assert "the default model facebook/pe-a-frame-small could not be had" in done.stderr
    assert "Give another with --model: the folder of a frame-level model" in done.stderr
    assert "Traceback" not in done.stderr
