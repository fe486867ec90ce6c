"""What the README and the guides show is true: records are read, options exist, the tree is there."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

import peav.data
from peav.cli.lightning import PeavCLI
from peav.cli.main import main
from peav.cli.table import COMMANDS
from peav.data import read_records
from peav.data.datamodule import ClipDataModule
from peav.data.media.ffmpeg import find_ffmpeg
from peav.data.synthetic import synthesize
from peav.training import PeavModule
from tests.checkpoints.test_formats import released_like
from tests.helpers import small_tokenizer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_records_of_the_readme_are_read(tmp_path: Path) -> None:
    lines = blocks(README, "json")[0].strip()
    for name in ("dog.mp4", "talk.flac", "talk.mp4", "street.wav"):
        (tmp_path / name).touch()
    (tmp_path / "clips.jsonl").write_text(lines)
    found = read_records(tmp_path / "clips.jsonl", strict=True)
    assert [record.id for record in found.records] == [json.loads(line)["id"] for line in lines.splitlines()]
    assert not found.rejects


def test_the_training_command_of_the_readme_parses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    command = next(line for line in README.replace("\\\n", " ").splitlines() if line.startswith("peav fit"))
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(small_tokenizer())
    args = [word.replace("my_data/tokenizer.json", str(tokenizer)) for word in shlex.split(command)[2:]]
    args.append(f"--trainer.default_root_dir={tmp_path}")
    cli = PeavCLI(
        PeavModule, ClipDataModule, args=args, run=False, save_config_callback=None, auto_configure_optimizers=False
    )
    assert cli.datamodule.data == "my_data"
    assert cli.trainer.max_epochs == 20


def test_the_tree_of_the_readme_exists() -> None:
    tree = next(block for block in blocks(README, "text") if block.startswith("peav/"))
    for line in tree.splitlines():
        assert (ROOT / line.split()[0]).exists(), line


@pytest.mark.parametrize("path", ["README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))])
def test_links_lead_somewhere(path: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / path).read_text()):
        assert ((ROOT / path).parent / target).exists(), f"{path}: {target}"


def test_the_guide_to_using_models_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block in turn, with tiny models in place of the released ones."""
    models = {
        "facebook/pe-av-small-16-frame": released_like(seed=7).save_pretrained(tmp_path / "pe_av", "transformers"),
        "facebook/pe-a-frame-small": released_like(seed=8, frame_level=True).save_pretrained(
            tmp_path / "frame", "meta"
        ),
    }
    tone = ["-f", "lavfi", "-i", "sine=440:duration=1.3:sample_rate=44100"]
    picture = ["-f", "lavfi", "-i", "testsrc=duration=1.3:size=64x48:rate=10"]
    for name, sources in (("dog.wav", tone), ("street.wav", tone), ("dog.mp4", [*tone, *picture])):
        subprocess.run([find_ffmpeg(), "-v", "error", *sources, str(tmp_path / name)], check=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks((ROOT / "docs/using_models.md").read_text(), "python"):
        for released, folder in models.items():
            block = block.replace(released, str(folder))
        exec(compile(block, "docs/using_models.md", "exec"), names)
    assert names["logits"].shape == (2, 2) and set(names["clips"]) == {"audio", "video", "audio_video"}
    assert [len(clip) for clip in names["found"]] == [2, 2]
    assert set(names["embeddings"]) == {
        *("audio", "video", "audio_video", "text_audio", "text_video", "text_audio_video"),
        *("audio_plus_text", "video_plus_text"),
    }


def test_the_guide_to_data_runs_from_a_folder_of_videos_to_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    synthesize(tmp_path / "world", clips=40, workers=1, domains=("music", "effects"))
    videos = tmp_path / "videos"
    videos.mkdir()
    for number, line in enumerate((tmp_path / "world" / "clips.jsonl").read_text().splitlines()):
        record = json.loads(line)
        (tmp_path / "world" / record["media"]).rename(videos / f"{number}.mp4")
        if number % 2:
            more = {"captions": record["captions"], "events": record.get("events")}
            (videos / f"{number}.json").write_text(json.dumps(more))
        else:
            (videos / f"{number}.txt").write_text(next(iter(record["captions"].values())))
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/data.md").read_text()
    commands = blocks(text, "bash")[0].replace("\\\n", " ").strip().splitlines()
    assert [words.split()[1] for words in commands] == ["prepare", *["data"] * 4, "fit"]
    for command in commands:
        words = shlex.split(command.replace("experiments/", f"{ROOT}/experiments/"))[1:]
        if words[0] == "fit":
            words += ["--trainer.enable_progress_bar=false", "--trainer.limit_train_batches=3"]
        assert main(words) == 0, f"{command}: {capsys.readouterr().err}"
    assert (tmp_path / "inspect.html").is_file() and list((tmp_path / "runs/mine").rglob("last.ckpt"))
    report = json.loads((tmp_path / "data" / "prepare.json").read_text())["report"]
    assert sum(report["clips"].values()) == 40 and not report["rejected"]
    # The options that the guide names exist.
    options = set(inspect.signature(ClipDataModule).parameters)
    assert {name for name in re.findall(r"`(?:--)?data\.(\w+)", text)} <= options | {
        "augment",
        "plan",
        "readers",
    } | set(peav.data.__all__)


@pytest.mark.parametrize("guide", ["using_models.md", "fine_tuning.md", "data.md"])
def test_the_commands_of_the_guides_exist(guide: str) -> None:
    text = (ROOT / "docs" / guide).read_text()
    for command in re.findall(r"^peav (\w+)", "\n".join(blocks(text, "bash")), re.MULTILINE):
        assert command in COMMANDS
    for file in re.findall(r"experiments/[\w/.]+\.yaml", text):
        assert (ROOT / file).is_file(), file
    for file in re.findall(r"`((?:fine_tune/)?\w+\.yaml)`", text):
        assert list((ROOT / "experiments").rglob(Path(file).name)), file
