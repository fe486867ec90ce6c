"""Weights of real and synthetic captions, from a manifest to the clips of an epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peav.data.datamodule import ClipDataModule
from tests.data.world import RATE, make_data

KINDS: tuple[tuple[str, ...], ...] = (("real",), ("synthetic",), ("real", "synthetic"), ())


def count(data: Path, tokenize: Callable, epochs: int = 4, **options: Any) -> Counter[str]:
    """Returns how often clips of each kind came, and texts of each origin."""
    module = ClipDataModule(
        str(data), 4, num_workers=0, sample_rate=RATE, fields=["captions.audio"], tokenize=tokenize, **options
    )
    module.setup("fit")
    loader = module.train_dataloader()
    found: Counter[str] = Counter()
    for _ in range(epochs):
        for batch in loader:
            for name, text in zip(batch.ids, batch.captions["audio"].texts, strict=True):
                kind = "+".join(KINDS[int(name.removeprefix("train-")) % 4]) or "none"
                found.update([kind, f"{kind}: {text.split()[0]}" if text else "no text"])
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 clips with real captions, 32 with synthetic ones, 32 with both and 32 with none."""
    return make_data(tmp_path_factory.mktemp("origins") / "data", clips=128, domains=("a",), origins=KINDS)


@pytest.mark.parametrize("weights", [{"real": 1, "synthetic": 10}, {"real": 3, "synthetic": 1}])
def test_clips_of_each_origin_come_as_often_as_weighed(
    data: Path, tokenize: Callable, weights: dict[str, float]
) -> None:
    found = count(data, tokenize, epochs=8, origin_weights=weights)
    share = weights["synthetic"] / (weights["real"] + weights["synthetic"])
    # Of 128 clips an epoch, 64 have one origin; those with both and with none keep their share.
    assert found["real"] + found["synthetic"] == pytest.approx(8 * 64, abs=8)
    assert found["synthetic"] / (found["real"] + found["synthetic"]) == pytest.approx(share, abs=0.02)
    assert found["none"] == found["no text"] == pytest.approx(8 * 32, abs=8)
    # Within a clip that has both the same weights hold.
    assert found["real+synthetic: made"] / found["real+synthetic"] == pytest.approx(share, abs=0.1)
    assert found["real"] == found["real: tone"] and found["synthetic"] == found["synthetic: made"]


@pytest.mark.parametrize(("left", "out"), [("real", "synthetic"), ("synthetic", "real")])
def test_a_weight_of_zero_leaves_out_what_has_that_origin_alone(
    data: Path, tokenize: Callable, left: str, out: str
) -> None:
    found = count(data, tokenize, origin_weights={left: 1, out: 0})
    other = {"real": "tone", "synthetic": "made"}[left]
    assert found[out] == 0 and found["real+synthetic"] == found[f"real+synthetic: {other}"]
    assert min(found[left], found["real+synthetic"], found["none"]) > 80


@pytest.mark.parametrize(("left", "out"), [(0, 1), (1, 0)])
def test_weights_leave_out_all_of_an_origin_where_the_data_have_no_other(
    tmp_path: Path, tokenize: Callable, left: int, out: int
) -> None:
    """Clips with one origin alone are left out although there are none of the other to make up for them."""
    origins = tuple(() if kind == KINDS[left] else kind for kind in KINDS)
    data = make_data(tmp_path / "data", clips=64, domains=("a",), origins=origins)
    found = count(data, tokenize, origin_weights={KINDS[left][0]: 1.0, KINDS[out][0]: 0.0})
    assert found[KINDS[out][0]] == 0 and found["real+synthetic"] > 30 and found["no text"] > 60
