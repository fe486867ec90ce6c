"""Sets of read speech, as they are published, train by what is said; from the command line, on voices that FFmpeg makes."""

from __future__ import annotations

import csv
import json
import math
import subprocess
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
import yaml

from peav import PEAV
from peav.cli.main import main
from peav.data.synthetic.speech import OBJECTS, SUBJECTS
from tests.cli.test_caption_types import pair
from tests.cli.test_commands import TINY, checkpoint_in

VOICES = ("kal", "slt", "awb", "rms")
#: What is said in 24 files: each sentence by one voice alone.
SAID = [(VOICES[number % 4], f"the {SUBJECTS[number]} sold {OBJECTS[number % 20]}") for number in range(24)]


#: What a batch of 8 costs who only knows that one text of eight is right: a loss that falls below it tells sounds apart.
GUESS = -math.log(1 / 8) - 7 * math.log(7 / 8)


def say(voice: str, text: str, path: Path) -> None:
    """Lets a voice of flite say a text, in a file as the set has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = f"flite=text='{text}':voice={voice}"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-ar", "48000", str(path)]
    subprocess.run(command, check=True)


def vctk(root: Path) -> Path:
    """VCTK 0.92: txt/SPEAKER/NAME.txt, and wav48_silence_trimmed/SPEAKER/NAME_mic1.flac."""
    for number, (voice, text) in enumerate(SAID):
        speaker = f"p{300 + VOICES.index(voice)}"
        name = f"{speaker}/{speaker}_{number:03d}"
        say(voice, text, root / f"wav48_silence_trimmed/{name}_mic1.flac")
        (root / f"txt/{name}.txt").parent.mkdir(parents=True, exist_ok=True)
        (root / f"txt/{name}.txt").write_text(f"{text.capitalize()}.\n")
    return root


def librispeech(root: Path) -> Path:
    """LibriSpeech: PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt, in capitals, beside SPEAKER-CHAPTER-NUMBER.flac."""
    for voice in VOICES:
        speaker = 100 + VOICES.index(voice)
        chapter = root / f"train-clean-5/{speaker}/7"
        texts = [text for speaking, text in SAID if speaking == voice]
        for number, text in enumerate(texts):
            say(voice, text, chapter / f"{speaker}-7-{number:04d}.flac")
        lines = [f"{speaker}-7-{number:04d} {text.upper()}\n" for number, text in enumerate(texts)]
        (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines))
    return root


@pytest.fixture(scope="module", params=["VCTK", "LibriSpeech"])
def spoken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared miniature of a set of read speech."""
    root = tmp_path_factory.mktemp(request.param)
    source = (vctk if request.param == "VCTK" else librispeech)(root / "set")
    assert main(["prepare", str(source), str(root / "data"), "--reader", request.param]) == 0
    return root / "data"


def fit(data: Path, run: Path, *more: str, config: Path | None = None) -> list[float]:
    """Trains tiny_cpu.yaml, or what a test made of it, for sixty steps; returns the losses of `audio`, none where no batch had a pair."""
    command = [
        *("fit", "--config", str(config or TINY), f"--data.data={data}", "--data.batch_size=8", "--data.num_workers=0"),
        f"--model.encoders.text.init_args.tokenizer={data / 'tokenizer.json'}",
        *("--trainer.max_epochs=20", "--trainer.limit_val_batches=0", f"--trainer.default_root_dir={run}"),
        *("--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={run}", "--model.warmup_steps=3", *more),
    ]
    assert main(command) == 0
    with next(run.rglob("metrics.csv")).open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["train/audio/loss"]]
    assert len(rows) == 60
    empty = float(rows[-1]["train/audio/empty_batches"])
    assert empty in (0, 60)
    if empty:
        return []
    return [float(row["train/audio/loss"]) for row in rows]


def write_config(path: Path, objectives: dict[str, Any], **text: Any) -> Path:
    held = yaml.safe_load(Path(TINY).read_text())
    held["model"]["encoders"]["text"]["init_args"] |= text
    held["model"]["objectives"] = objectives
    path.write_text(yaml.safe_dump(held))
    return path


@pytest.mark.parametrize("spoken", ["VCTK", pytest.param("LibriSpeech", marks=pytest.mark.slow)], indirect=True)
def test_read_speech_trains_by_default(spoken: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    losses = fit(spoken, tmp_path)
    assert losses, "no batch has a text of what is heard: the transcripts were not read"
    assert mean(losses[-6:]) < 0.75 * GUESS < GUESS < mean(losses[:6])
    assert "24 clips learn their transcript, for they have no audio caption" in " ".join(capfd.readouterr().err.split())
    assert main(["evaluate", str(checkpoint_in(tmp_path)), str(spoken), "--split=train", f"--out={tmp_path}"]) == 0
    directions = json.loads((tmp_path / "evaluation.json").read_text())["directions"]
    found = directions["audio->text_transcript"]["plain"]
    assert found["num_queries"] == found["num_candidates"] == 24 and found["R@5"] > 2 * found["chance_R@5"]
    # A transcript is never counted as a caption of its clip.
    assert not any("text_audio" in name.split("->") for name in directions)


@pytest.mark.parametrize("spoken", ["VCTK"], indirect=True)
def test_without_transcripts_nothing_is_learned(spoken: Path, tmp_path: Path) -> None:
    assert fit(spoken, tmp_path, "--data.transcripts=off") == []


@pytest.mark.parametrize("spoken", ["VCTK"], indirect=True)
def test_a_pair_of_its_own_shares_the_head_of_audio_captions(spoken: Path, tmp_path: Path) -> None:
    objectives = {"audio": pair("audio", "transcript")}
    config = write_config(tmp_path / "own.yaml", objectives, captions=["audio", "transcript"])
    losses = fit(spoken, tmp_path / "run", "--data.transcripts=off", config=config)
    assert mean(losses[-6:]) < 0.85 * GUESS
    checkpoint = checkpoint_in(tmp_path / "run")
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert {key.split(".")[2] for key in saved if key.startswith("model.heads.")} == {"audio", "text_audio"}
    model = PEAV.from_pretrained(checkpoint)
    as_said = model.embed(text=["the farmer sold lamps"], to="transcript")["text_transcript"]
    assert torch.equal(as_said, model.embed(text=["the farmer sold lamps"], to="audio")["text_audio"])
    assert model.pairs == (("audio", "text_transcript"),)
    # A folder in peav's format keeps it: the same embedding, the same scale.
    again = PEAV.from_pretrained(model.save_pretrained(tmp_path / "saved"))
    assert torch.equal(again.embed(text=["the farmer sold lamps"], to="transcript")["text_transcript"], as_said)
    sound = model.embed(audio=next(iter((spoken.parent / "set").rglob("*.flac"))))
    assert model.similarity({"text_transcript": as_said}, {"audio": sound["audio"]}).shape == (1, 1)
    assert main(["evaluate", str(checkpoint), str(spoken), "--split=train", f"--out={tmp_path}"]) == 0
    directions = json.loads((tmp_path / "evaluation.json").read_text())["directions"]
    assert directions["audio->text_transcript"]["plain"]["num_candidates"] == 24
    assert set(directions) == {"audio->text_transcript", "text_transcript->audio"}


@pytest.mark.parametrize("spoken", ["VCTK"], indirect=True)
@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (None, "reads 'text_transcript', but the encoders provide"),
        (["transcript"], "a text encoder that reads them reads `audio` too"),
    ],
)
def test_a_pair_that_cannot_be(
    spoken: Path, captions: list[str] | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "own.yaml", {"audio": pair("audio", "transcript")}, captions=captions)
    with pytest.raises(SystemExit):
        fit(spoken, tmp_path / "run", config=config)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("spoken", ["VCTK"], indirect=True)
def test_a_batch_of_one_clip_is_warned_of(spoken: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    objectives = {"audio": pair("audio", "audio")}
    config = write_config(tmp_path / "one.yaml", objectives)
    options = [
        *("fit", "--config", str(config), f"--data.data={spoken}", "--data.num_workers=0", "--trainer.logger=false"),
        f"--model.encoders.text.init_args.tokenizer={spoken / 'tokenizer.json'}",
        *("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=0"),
    ]
    sentence = "a batch of one clip has no negatives: audio will only learn that everything is alike"
    for batch, more, warned in ((1, [], True), (2, [], False), (1, ["--model.virtual_batch_size=4"], False)):
        folder = f"--trainer.default_root_dir={tmp_path / f'{batch}{len(more)}'}"
        limit = ["--trainer.limit_train_batches=4"] if more else []
        assert main([*options, f"--data.batch_size={batch}", folder, *more, *limit]) == 0
        assert (sentence in " ".join(capfd.readouterr().err.split())) is warned
