"""Fixtures for all tests: one gloo pool, few threads."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# What a test says about stores outside a folder is not remembered among the settings of who runs it.
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="peav-config-")
# What is started in the background of a script ignores Ctrl-C, and so would every command that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch

import peav.encoders
import peav.objectives  # noqa: F401  registers the plugins
from peav.testing import GlooPool


@pytest.fixture(scope="session")
def gloo() -> Iterator[GlooPool]:
    """Two processes with a gloo group."""
    with GlooPool(2) as pool:
        yield pool


@pytest.fixture(scope="session", autouse=True)
def _settings() -> Iterator[None]:
    folder = os.environ["XDG_CONFIG_HOME"]
    yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared synthetic world of 96 clips."""
    from tests.training.golden import make_world

    return make_world(tmp_path_factory.mktemp("world"))
