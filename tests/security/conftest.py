"""A scene for each hostile example."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from peav import PEAV
from tests.data.world import make_data
from tests.security.hostile import EVIL_MODULE, Scene, module, save


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good checkpoint, model and data."""
    folder = tmp_path_factory.mktemp("originals")
    checkpoint = save(module(), folder / "run" / "checkpoints" / "last.ckpt")
    PEAV.from_pretrained(checkpoint).save_pretrained(folder / "model")
    make_data(folder / "data", clips=6, split="test")
    return folder


#: What opening a hostile example may take beside what was held before, in kilobytes. The examples unfold to gigabytes.
BOUND = 400_000


def memory(what: str) -> int:
    """Returns a line of this process's memory in kilobytes, such as VmRSS, what it holds, and VmHWM, the most that it held."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(what)).split()[1])


@pytest.fixture
def bounded() -> Iterator[None]:
    """Measures the most memory that a test held."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the most that was held before
    before = memory("VmRSS")
    yield
    taken = memory("VmHWM") - before
    assert taken < BOUND, f"it took {taken / 1000:.0f} MB"


@pytest.fixture
def scene(originals: Path, tmp_path: Path, bounded: None) -> Iterator[Scene]:
    """Copies to spoil. In the end nothing may have run, nothing beside them may have changed, and memory was bounded."""
    stage, evil = tmp_path / "stage", tmp_path / "modules"
    shutil.copytree(originals, stage)
    evil.mkdir()
    canary, secret = tmp_path / "canary", tmp_path / "secret.json"
    secret.write_text('{"password": "hunter2"}')
    (evil / "evil_encoders.py").write_text(EVIL_MODULE.format(canary=str(canary)))
    sys.path.insert(0, str(evil))
    before = {path.name for path in tmp_path.iterdir()}
    yield Scene(stage, canary, secret, stage / "model", stage / "run/checkpoints/last.ckpt", stage / "data")
    sys.path.remove(str(evil))
    sys.modules.pop("evil_encoders", None)
    assert not canary.exists(), "something ran"
    assert {path.name for path in tmp_path.iterdir()} == before, "something was written beside the folder"
    assert secret.read_text() == '{"password": "hunter2"}'
