"""The synthetic world does not move: sounds, captions, scenes and times are those that experiments were run on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.data.synthetic.golden import GOLDEN, clips, sounds, sources


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text())


def test_sounds(golden: dict[str, Any]) -> None:
    found = sounds()
    assert found.keys() == golden["sounds"].keys()
    for name, values in found.items():
        assert values == pytest.approx(golden["sounds"][name], rel=1e-6, abs=1e-6), name


def test_clips(golden: dict[str, Any]) -> None:
    found = clips()
    for name, clip in golden["clips"].items():
        assert found[name] == clip


def test_sources(golden: dict[str, Any]) -> None:
    assert sources() == golden["sources"]
