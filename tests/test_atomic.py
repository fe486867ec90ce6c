"""Files are there whole, or as they were before."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from peav.atomic import replacing, sweep


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path, durable: bool, shared: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with replacing(path, durable, shared) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_the_dead_left_is_swept_and_what_the_living_write_is_not(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = socket.gethostname()
    names = (
        f".a@{here}@{ended.pid}@0.partial",
        f".a@{here}@{os.getpid()}@0.partial",
        ".a@elsewhere@1@0.partial",
        ".a.partial",
    )
    for name in names:
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])
    os.utime(tmp_path / names[2], (0, 0))
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {names[1], names[3]}
