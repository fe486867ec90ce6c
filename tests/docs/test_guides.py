"""What the README and the guides show is true: records are read, options exist, the tree is there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from peav.cli.lightning import PeavCLI
from peav.data import read_records
from peav.data.datamodule import ClipDataModule
from peav.training import PeavModule
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
