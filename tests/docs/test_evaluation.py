"""What docs/evaluation.md shows runs."""

from __future__ import annotations

import inspect
import shlex
import subprocess
from pathlib import Path

import pytest

from peav import registry
from peav.cli.main import main
from peav.cli.parsing import build_parser
from peav.cli.table import COMMANDS
from peav.data.media.ffmpeg import find_ffmpeg
from peav.evaluation.suite import load_suite
from peav.testing import check_adapter
from peav.training.suite import EvaluateSuite
from tests.checkpoints.test_formats import released_like
from tests.cli.test_commands import TINY, overrides
from tests.data.readers.miniatures import make_esc50
from tests.docs.test_guides import ROOT, blocks

GUIDE = (ROOT / "docs/evaluation.md").read_text()


def test_the_commands_have_the_options_that_it_names() -> None:
    commands = [
        line.partition("#")[0]
        for block in blocks(GUIDE, "text")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("peav ")
    ]
    assert len(commands) == 8
    for line in commands:
        words = shlex.split(line)[1:]
        if words[0] != "fit":  # tests/training/test_suite_callback.py runs it
            build_parser(COMMANDS, words[:1]).parse_args(words)


def test_python_a_suite_of_ones_own_and_the_adapter(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs/demo"
    assert main(["fit", "--config", TINY, *overrides(world, run)]) == 0
    (run / "data").symlink_to(world)
    evaluating, adapter, _ = blocks(GUIDE, "python")
    capsys.readouterr()
    exec(evaluating, {})
    plain, softened = (float(word) for word in capsys.readouterr().out.splitlines()[-1].split())
    assert 0 <= plain <= 1 and 0 <= softened <= 1
    (tmp_path / "birds.yaml").write_text(blocks(GUIDE, "yaml")[0])
    assert [task.name for task in load_suite("birds.yaml").tasks] == ["birds_class", "clotho_text_to_audio"]
    make_esc50(tmp_path / "datasets/my_birds")
    words = [
        "evaluate",
        str(run / "checkpoints/last.ckpt"),
        "--suite",
        "birds.yaml",
        "--data",
        "datasets",
        "--out",
        "out",
    ]
    assert main([*words, "--num_workers=0"]) == 0
    table = (tmp_path / "out/evaluation.md").read_text()
    assert "61.5 (somebody)" in table and "no folder Clotho" in table
    held: dict[str, type] = {}
    # As in a module of a package.
    held["__name__"] = "loudness"  # type: ignore[assignment]
    exec(adapter, held)
    assert registry.adapters.get("Loudness") is held["Loudness"]
    check_adapter(held["Loudness"]())


def test_the_callback_takes_the_options_that_it_names() -> None:
    (line,) = [line for block in blocks(GUIDE, "text") for line in block.split("\n\n") if line.startswith("peav fit")]
    named = {word.partition("=")[0].rpartition(".")[2] for word in shlex.split(line.replace("\\\n", " "))[1:]}
    assert named - {"fit", "--config", "peav:tiny_cpu", "callbacks+"} <= set(
        inspect.signature(EvaluateSuite).parameters
    )


def test_sentence_transformers_encodes_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tiny model of the released architecture stands in for the released one."""
    released_like(seed=7).save_pretrained(tmp_path / "pe_av", "transformers")
    tone = ["-f", "lavfi", "-i", "sine=440:duration=1.3:sample_rate=44100"]
    subprocess.run([find_ffmpeg(), "-v", "error", *tone, str(tmp_path / "dog.wav")], check=True)
    monkeypatch.chdir(tmp_path)
    code = blocks(GUIDE, "python")[-1].replace("facebook/pe-av-small-16-frame", "pe_av")
    exec(code, {})
    assert capsys.readouterr().out.startswith("tensor([[")
