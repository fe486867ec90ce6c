"""`peav evaluate --suite` on miniatures of all data sets, in the layouts of their authors, with files that are missing or damaged."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peav.cli.main import main
from peav.evaluation.suite import load_suite
from tests.cli.test_commands import ROOT, TINY, overrides
from tests.data.conftest import write_wav
from tests.data.readers.miniatures import EVALUATION_SETS, FURTHER_SETS, make_kinetics

#: What the miniatures are called below ROOT, where it is not the name of their reader.
FOLDERS = {
    "ActivityNetCaptions": "ActivityNet",
    "DynamicSUPERB": "Dynamic-SUPERB",
    "Kinetics": "Kinetics-400",
    "AudioSetStrong": "AudioSet-Strong",
    "URBANSED": "URBAN-SED",
    "MSRVTT": "MSR-VTT",
}


@pytest.fixture(scope="module")
def checkpoint(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("tiny")
    assert main(["fit", "--config", TINY, *overrides(world, run)]) == 0
    return run / "checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all data sets but ASFX-SED."""
    folder = tmp_path_factory.mktemp("sets")
    for name, make in {**EVALUATION_SETS, **FURTHER_SETS}.items():
        make(folder / FOLDERS.get(name, name))
    for version in (600, 700):
        make_kinetics(folder / f"Kinetics-{version}", version)
    return folder


def run(checkpoint: Path, suite: str | Path, root: Path, out: Path, *more: str) -> dict[str, Any]:
    words = ["evaluate", str(checkpoint), "--suite", str(suite), "--data", str(root), "--out", str(out)]
    assert main([*words, "--num_workers=0", *more]) == 0
    return json.loads((out / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def paper(checkpoint: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("paper")
    return run(checkpoint, "paper", root, out), out


def test_the_whole_paper_is_a_table_beside_the_published_numbers(paper: tuple[dict[str, Any], Path]) -> None:
    results, out = paper
    names = [task.name for task in load_suite("paper").tasks]
    assert list(results["tasks"]) == [name for name in names if name != "asfx_sed_frames"] and not results["skipped"]
    assert "no folder ASFX-SED" in results["missing"]["ASFXSED"]
    table = (out / "evaluation.md").read_text()
    for name in names:
        assert f"| {name} |" in table
    row = next(line for line in table.splitlines() if "| valor_text_to_video |" in line)
    value = 100 * results["tasks"]["valor_text_to_video"]["value"]
    assert "70.9 (pe-av-large)" in row and f"{value - 70.9:+.1f}" in row
    assert "AudioCaps: of 4 clips listed 1 are not there, 1 cannot be used" in table
    task = results["tasks"]["clotho_text_to_audio"]
    low, high = task["interval"]
    assert low <= task["value"] <= high and task["coverage"]["missing"] == 1
    assert task["protocol"]["dual_softmax"] and task["dual_softmax"]["R@1"] == task["value"]
    page = (out / "report.html").read_text()
    assert "AudioCaps" in page and "data:audio" in page and "data:image" in page


def test_a_second_run_embeds_nothing_and_writes_the_same(
    checkpoint: Path, root: Path, paper: tuple[dict[str, Any], Path], caplog: pytest.LogCaptureFixture
) -> None:
    before = (paper[1] / "evaluation.json").read_bytes()
    with caplog.at_level("INFO", "peav"):
        run(checkpoint, "paper", root, paper[1])
    assert "embedded 0 clips and 0 texts" in caplog.text
    assert (paper[1] / "evaluation.json").read_bytes() == before


def test_data_that_were_packed_before_give_the_same_numbers(
    checkpoint: Path, root: Path, paper: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    for name, reader in (("AudioCaps", "AudioCaps"), ("ESC50", "ESC50"), ("URBAN-SED", "URBANSED")):
        words = ["prepare", str(root / name), str(tmp_path / "packed" / name), "--reader", reader, "--workers=0"]
        assert main([*words, "--check_video=false"]) == 0
    own = tmp_path / "own.yaml"
    own.write_text("suite: [audiocaps_text_to_audio, audiocaps_video_to_audio, esc50_class, urban_sed_frames]\n")
    found = run(checkpoint, own, tmp_path / "packed", tmp_path / "out")
    for name, task in found["tasks"].items():
        expected = paper[0]["tasks"][name]
        assert task["metrics"] == expected["metrics"] and task["dual_softmax"] == expected["dual_softmax"], name
        assert task["fingerprint"] == expected["fingerprint"], name
    assert len(found["tasks"]) == 4


def test_a_suite_of_ones_own(checkpoint: Path, root: Path, tmp_path: Path) -> None:
    """A data set, tasks with other frames, prompt sets, a mean average precision and probes."""
    own = tmp_path / "mine.yaml"
    own.write_text(
        """
datasets:
  notes: {folders: NSynth, reader: {class_path: NSynth, init_args: {target: qualities, splits: [test]}}}
  folds: {folders: UrbanSound8K, reader: {class_path: UrbanSound8K, init_args: {test_folds: [2]}}, train: train}
tasks:
  qualities:
    {dataset: notes, kind: classification, item: audio, head: text_audio, metric: mAP, prompts: ["a {label} note"]}
  sets:
    dataset: folds
    kind: classification
    item: audio
    head: text_audio
    metric: accuracy
    prompts: {dogs: {classes: [dog bark], templates: ["a barking dog, {label}"]}, rest: {templates: ["the sound of {label}"]}}
  one_frame: {dataset: VGGSound, kind: retrieval, query: video, item: audio, metric: R@1, clip: {num_frames: 1}}
  linear: {dataset: folds, kind: linear_probe, item: audio, metric: accuracy}
  nearest: {dataset: folds, kind: knn_probe, item: audio, metric: accuracy}
  headless: {dataset: folds, kind: classification, item: audio, head: text_smell, metric: accuracy, prompts: ["{label}"]}
  captions: {dataset: folds, kind: retrieval, query: text_audio, item: audio, metric: R@1}
"""
    )
    found = run(checkpoint, own, root, tmp_path / "out")
    assert {"mAP", "mAP_micro"} == set(found["tasks"]["qualities"]["metrics"])
    assert {"sets", "one_frame", "linear", "nearest"} <= set(found["tasks"])
    assert found["tasks"]["linear"]["num_clips"] == 1
    assert "the model makes no text_smell; it makes audio, audio_plus_text" in found["skipped"]["headless"]
    assert "no clip of the data has text_audio" in found["skipped"]["captions"]


OWN = "suite: [audiocaps_text_to_audio, audiocaps_video_to_audio, esc50_class, urban_sed_frames]\n"


@pytest.mark.parametrize(
    "launcher",
    ["torchrun", pytest.param("devices", marks=pytest.mark.slow)],
)
def test_two_ranks_share_the_work_and_give_the_numbers_of_one(
    launcher: str, checkpoint: Path, root: Path, paper: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    start = [sys.executable, "-m"]
    if launcher == "torchrun":
        start += ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    words = ["peav.cli.main", "evaluate", str(checkpoint), "--suite", str(tmp_path / "own.yaml"), "--data", str(root)]
    words += ["--out", str(tmp_path / "out"), "--device=cpu", "--num_workers=0", "--batch_size=1"]
    words += ["--devices=2"] if launcher == "devices" else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*start, *words], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    shares = {rank: int(count) for rank, count in re.findall(r"rank (\d) of 2: embedded (\d+) clips", done.stderr)}
    assert shares and all(count > 0 for count in shares.values()), done.stderr
    assert "embedded 0 clips and 0 texts" in done.stderr  # the numbers come from what the ranks embedded
    found = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert len(found["tasks"]) == 4
    for name, task in found["tasks"].items():
        assert task == paper[0]["tasks"][name], name


def test_a_suite_that_was_killed_goes_on_without_embedding_again(
    checkpoint: Path, root: Path, paper: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    words = [sys.executable, "-m", "peav.cli.main", "evaluate", str(checkpoint), "--suite", str(tmp_path / "own.yaml")]
    words += ["--data", str(root), "--out", str(tmp_path / "out"), "--num_workers=0", "--batch_size=1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    end = time.monotonic() + 200
    while len(list(tmp_path.glob("out/embeddings/*/piece-*.safetensors"))) < 4:
        assert running.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    running.kill()
    running.wait()
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    (counted,) = re.findall(r"embedded (\d+) clips and (\d+) texts; (\d+) clips and (\d+) texts were", done.stderr)
    clips, texts, known_clips, known_texts = map(int, counted)
    assert known_clips + known_texts >= 4 and clips + known_clips == 8 and texts > 0
    found = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert found["tasks"] == {name: paper[0]["tasks"][name] for name in found["tasks"]} and len(found["tasks"]) == 4


def test_asfx_sed_as_a_table_of_labels(checkpoint: Path, tmp_path: Path) -> None:
    """Its published form could not be seen: the suite reads a table of labels beside the sounds, one of which is not there."""
    folder = tmp_path / "sets/ASFX-SED"
    folder.mkdir(parents=True)
    rows = ["filename\tonset\toffset\tevent_label"]
    for number, label in enumerate(("door slam", "glass breaks", "door slam")):
        write_wav(folder / f"{number}.wav", 0.1 * np.random.default_rng(number).standard_normal((16000, 1)), 16000)
        rows.append(f"{number}.wav\t0.{number}\t0.7\t{label}")
    (folder / "labels.tsv").write_text("\n".join([*rows, "gone.wav\t0.0\t0.5\tglass breaks"]) + "\n")
    found = run(checkpoint, "frames", tmp_path / "sets", tmp_path / "out")
    task = found["tasks"]["asfx_sed_frames"]
    assert task["num_clips"] == 3 and 0 <= task["value"] <= 1 and task["coverage"]["missing"] == 1
    assert "0.83 (pe-a-frame-large)" in (tmp_path / "out/evaluation.md").read_text()


ESC50 = "dataset: ESC50, kind: classification, item: audio, head: text_audio, metric: accuracy, prompts: ['{label}']"
ASKED = "dataset: VGGSound, kind: retrieval, item: audio"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("suite: [audiocaps_text_to_adio]", "which there is not. Did you mean 'audiocaps_text_to_audio'?"),
        ("suite: []", "names no task"),
        ("suite: esc50_class", "must be a list of names of tasks, not 'esc50_class'"),
        (
            f"tasks: {{a: {{{ESC50}, clip: {{window_seconds: ten}}}}}}",
            "window_seconds must be a number above 0, or null",
        ),
        (f"tasks: {{a: {{{ESC50}, clip: {{num_frames: 2, fps: 1}}}}}}", "num_frames and fps both say how many"),
        (f"tasks: {{a: {{{ESC50}, clip: [1]}}}}", "clip must be a mapping of some of fps, num_frames, window_seconds"),
        (f"tasks: {{a: {{{ESC50}, published: {{x: high}}}}}}", "published must have a number by model"),
        (f"tasks: {{a: {{{ESC50}, published: [1]}}}}", "published must have a number by model"),
        (f"tasks: {{a: {{{ESC50}, dual_softmax: 'no'}}}}", "dual_softmax must be true or false, not 'no'"),
        (f"tasks: {{a: {{{ASKED}, query: video, metric: R@3}}}}", "retrieval is measured by R@1, R@5, R@10, not 'R@3'"),
        (
            f"tasks: {{a: {{{ASKED}, query: audio, metric: R@1}}}}",
            "asks with 'audio' for 'audio': each clip would find",
        ),
        (
            "datasets: {a: {folders: x, reader: ESC50}}\ntasks: {b: {dataset: a, kind: frames, metric: psds1}}",
            "reader must be a mapping with class_path",
        ),
        ("tasks: {a: {dataset: AudioCaps, kind: retreival, metric: R@1}}", "Did you mean 'retrieval'?"),
        ("tasks: {a: {dataset: AudioCaps, kind: retrieval, metric: R@1, query: audio}}", "says no 'item'"),
        ("tasks: {a: {dataset: AudioCups, kind: frames, metric: psds1}}", "Did you mean 'AudioCaps'?"),
        ("tasks: {a: {dataset: GTZAN, kind: linear_probe, item: audio, metric: accuracy}}", "names no split `train`"),
        (
            "datasets: {a: {reader: {class_path: ESC50}}}\ntasks: {b: {dataset: a, kind: frames, metric: psds1}}",
            "must have folders and",
        ),
        (
            "tasks: {a: {dataset: GTZAN, kind: classification, item: audio, head: text_audio, metric: accuracy, prompts: "
            "{x: {classes: [jazz], templates: ['{label}']}, y: {classes: [Jazz], templates: ['a {label}']}}}}",
            "the class 'Jazz' is in two prompt sets, 'x' and 'y'",
        ),
        (
            "datasets: {a: {folders: GTZAN, reader: {class_path: GTZEN}}}\ntasks: {b: {dataset: a, kind: frames, metric: psds1}}",
            "no reader is called 'GTZEN'. Did you mean 'GTZAN'?",
        ),
    ],
)
def test_a_suite_that_cannot_be_run_is_a_sentence(
    text: str, message: str, checkpoint: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text(text)
    words = ["evaluate", str(checkpoint), "--suite", str(tmp_path / "own.yaml"), "--data", str(root)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


def test_a_published_model_that_no_task_lists_is_a_sentence(
    checkpoint: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(checkpoint), "--suite", "sound", "--data", str(root), "--out", str(tmp_path)]
    assert main([*words, "--published=pe-av-lrge"]) == 1
    said = capsys.readouterr().err
    assert "no task of 'sound' has a number published of 'pe-av-lrge'. Did you mean 'pe-av-large'?" in said


def test_data_that_do_not_fit_are_said(
    checkpoint: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table with a wrong column, one clip only, captions that are all equal, a set of which no clip can be decoded."""
    shutil.copytree(root / "Clotho", tmp_path / "sets/Clotho")
    table = tmp_path / "sets/Clotho/clotho_captions_evaluation.csv"
    table.write_text(table.read_text().replace("caption_1", "caption_one", 1))
    shutil.copytree(root / "AudioCaps", tmp_path / "sets/AudioCaps")
    captions = tmp_path / "sets/AudioCaps/test.csv"
    head = captions.read_text().splitlines()[0]
    one = [
        f"{number},{name},{start},a sound"
        for number, (name, start) in enumerate([("-testtube_1", 30), ("testtube002", 0)])
    ]
    captions.write_text("\n".join([head, *one]) + "\n")
    shutil.copytree(root / "MSVD", tmp_path / "sets/MSVD")  # of which one clip of the test can be decoded
    found = run(checkpoint, "sound", tmp_path / "sets", tmp_path / "out")
    assert "caption_1" in found["missing"]["Clotho"]
    # Both clips are right for the one caption: whatever is found first is found.
    assert found["tasks"]["audiocaps_text_to_audio"]["value"] == 1.0
    found = run(checkpoint, "video", tmp_path / "sets", tmp_path / "one")
    assert found["tasks"]["msvd_text_to_video"]["num_clips"] == 1
    assert found["tasks"]["msvd_text_to_video"]["metrics"]["chance_R@1"] == 1.0
    assert (
        main(
            [
                "evaluate",
                str(checkpoint),
                "--suite",
                "music",
                "--data",
                str(tmp_path / "sets"),
                "--out",
                str(tmp_path / "no"),
            ]
        )
        == 1
    )
    said = capsys.readouterr()
    assert (
        "no task of 'music' could be measured" in said.err
        and "no folder GTZAN" in (tmp_path / "no/evaluation.md").read_text()
    )
    assert (
        main(
            [
                "evaluate",
                str(checkpoint),
                "--suite",
                "music",
                "--data",
                str(tmp_path / "none"),
                "--out",
                str(tmp_path / "no"),
            ]
        )
        == 1
    )
    assert "there is no folder" in capsys.readouterr().err
