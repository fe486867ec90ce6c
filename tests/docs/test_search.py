"""docs/search.md runs: its commands, then its Python, with a tiny model in place of the released one."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from peav.cli.main import main
from tests.checkpoints.test_formats import released_like
from tests.cli.embed.helpers import noise
from tests.data.conftest import write_wav
from tests.docs.test_guides import ROOT, blocks


def test_the_guide_to_search_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs/search.md").read_text()
    model = released_like(seed=7).save_pretrained(tmp_path / "small", "transformers")
    monkeypatch.chdir(tmp_path)
    for name in ("talks", "films"):
        Path(name).mkdir()
        write_wav(Path(name) / "a.wav", noise(1.5, len(name)))
        write_wav(Path(name) / "b.wav", noise(2.5, len(name) + 1))
    commands = [line for block in blocks(text, "bash") for line in block.splitlines() if line.startswith("peav ")]
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command.replace("facebook/pe-av-small-16-frame", str(model)))[1:]
        try:
            assert main(words) == 0
        except SystemExit as caught:  # a tiny model may well find that nothing fits
            assert caught.code == 3
    said = capsys.readouterr().out
    assert "4 added" in said and "compared: what is heard, in 4 windows" in said
    for block in blocks(text, "python"):
        exec(compile(block, "docs/search.md", "exec"), {})
    # A model that was not trained takes the four sounds for nearly the same, and folds them.
    assert ".wav" in capsys.readouterr().out
