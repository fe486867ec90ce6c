"""What `peav embed` refuses at once, and its help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peav.cli.main import main
from peav.data.media.decode import decode_counts
from tests.cli.embed.helpers import run


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["nowhere"], {}, "there is no file or folder"),
        ([], {}, "nothing to embed: name files or folders"),
        (["empty"], {}, "holds no media; looked for"),
        (["deep"], {"out": "x.csv"}, "must end in .npz or .parquet, not 'x.csv'"),
        (["deep"], {"to": "audio"}, "there is no --text"),
        (["deep"], {"text": "nowhere.txt"}, "--text: there is no file"),
        (["deep"], {"text": "both.MP4"}, "is not UTF-8 text"),
        (["deep"], {"batch_seconds": 0}, "batch_seconds must be positive"),
        (["deep"], {"workers": -1}, "workers must be 0, to work in this process, or more"),
        (["deep"], {"num_frames": 2, "fps": 2}, "both say which frames"),
        (["deep"], {"overlap_seconds": 9}, "0 <= overlap_seconds < window_seconds=2"),
        (["deep"], {"model": "nowhere/at/all"}, "there is no folder nowhere/at/all"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    checkpoint: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    options: dict[str, Any],
    message: str,
) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    before = decode_counts()
    options = dict(options)
    out = tmp_path / options.pop("out", "out.npz")
    model = options.pop("model", checkpoint)
    if "text" in options:
        options["text"] = folder / options["text"]
    assert run(model, out, *(folder / word for word in words), **options) == 1
    assert message in capsys.readouterr().err
    assert decode_counts() == before and not out.exists()
    assert not list(tmp_path.glob("*.partial"))


def test_misspelt_options_are_refused(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        run(checkpoint, tmp_path / "out.npz", folder, wokers=1)
    assert caught.value.code == 2
    assert run(checkpoint, tmp_path / "out.npz", folder, to="smell", text=folder / "notes.txt") == 1


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["embed", "--help"])
    assert caught.value.code == 0
    words = " ".join(capsys.readouterr().out.split())
    for option in ("MEDIA", "--model", "--out", "--text", "--to", "--num_frames", "--fps", "--window_seconds"):
        assert f" {option} " in words
    assert "files, and folders that are searched at any depth" in words
    assert "goes on where it was" in words and "NAME.present" in words
