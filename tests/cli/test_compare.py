"""`peav compare` on results that the commands wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from peav.cli.main import main
from peav.evaluation.intervals import paired_interval, share_intervals


def write(folder: Path, model: str, ranks: list[int], window: float | None = None, fingerprint: str = "f") -> str:
    """Writes a result of one direction, as `peav evaluate` has it."""
    folder.mkdir()
    recall = float(np.mean(np.array(ranks) == 1))
    result = {
        "model": {"name": model},
        "directions": {"text_audio->audio": {"plain": {"R@1": recall}}},
        "dataset": {"fingerprint": fingerprint},
        "protocol": {"window_seconds": window, "overlap_seconds": 0.0},
    }
    (folder / "evaluation.json").write_text(json.dumps(result))
    name, clips = "text_audio->audio", np.arange(len(ranks))
    held = {
        f"{name}/ranks": ranks,
        f"{name}/dual_ranks": ranks,
        f"{name}/clips": clips,
        f"{name}/ids": [f"clip {c}" for c in clips],
    }
    np.savez(folder / "evaluation.queries.npz", **{key: np.array(value) for key, value in held.items()})  # type: ignore[arg-type]
    return str(folder / "evaluation.json")


def test_a_difference_has_its_interval_and_p_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = write(tmp_path / "a", "worse", [1, 2] * 100)
    better = write(tmp_path / "b", "better", [1, 1, 1, 2] * 50)
    assert main(["compare", worse, better, "--out", str(tmp_path / "out")]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "text_audio->audio" in line)
    assert "| 50.0 | 75.0 | +25.0 (+19." in row and "p = 0.00" in row
    assert (tmp_path / "out/comparison.md").read_text().splitlines()[2] == row
    assert (tmp_path / "out/comparison.png").stat().st_size > 5000


def test_other_protocols_and_other_data_are_refused_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "a", "one", [1, 2, 1])
    for name, more in (("windows", {"window": 10.0}), ("data", {"fingerprint": "g"})):
        other = write(tmp_path / name, "other", [1, 1, 1], **more)
        assert main(["compare", one, other]) == 1
        said = capsys.readouterr().err
        assert "were measured differently" in said and name in said
        assert main(["compare", one, other, "--any_protocol=true"]) == 0
        assert "| 66.7 | 100.0 |" in capsys.readouterr().out


def test_what_is_no_result_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write(tmp_path / "a", "one", [1])
    (tmp_path / "other.json").write_text("[]")
    for words, message in (
        ([one], "two results or more"),
        ([one, "none.json"], "no file none.json"),
        ([one, str(tmp_path / "other.json")], "is no result"),
    ):
        assert main(["compare", *words]) == 1
        assert message in capsys.readouterr().err


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng, inside = np.random.default_rng(0), 0
    for seed in range(200):
        hits = (rng.random(150) < 0.4).astype(np.float64)
        low, high = share_intervals({"x": (hits, np.ones(150))}, 300, seed=seed)["x"]
        inside += low <= 0.4 <= high
    assert 178 <= inside <= 200  # 190 of 200, give or take four deviations


def test_pairs_make_an_interval_narrow_where_models_err_on_the_same_clips() -> None:
    rng = np.random.default_rng(1)
    first = (rng.random(400) < 0.5).astype(np.float64)
    second = np.where(rng.random(400) < 0.06, 1.0, first)
    ones = np.ones(400)
    _, low, high, p = paired_interval((first, ones), (second, ones))
    assert high - low < 0.06 and low > 0 and p < 0.05
    _, low, high, _ = paired_interval((first, ones), (rng.permutation(second), ones))
    assert high - low > 0.1
