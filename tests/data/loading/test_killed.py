"""The data module under a stand-in, a module of one weight, killed in every epoch.

Its twin is tests/training/test_killed_fit.py, which kills `peav fit` itself.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.loading.run_until_killed import BATCH, EPOCHS, STEPS
from tests.data.world import make_data

#: (workers, kill, rank that is killed): at the first step, in the middle, twice at one place, at the last but one, at the end of
#: an epoch, and in later epochs; each with another number of workers.
CHAIN = [
    (0, "step:1", 0),
    (2, f"step:{STEPS // 2}", 1),
    (1, f"step:{STEPS // 2}", 0),
    (0, f"step:{STEPS - 1}", 1),
    (2, "epoch:0", 0),
    (1, f"step:{STEPS + 2}", 1),
    (0, "epoch:1", 0),
    (2, "never", 0),
]


def run(data: Path, out: Path, ranks: int, workers: int, kill: str, killed_rank: int = 0) -> int:
    command = [
        sys.executable,
        "-m",
        "tests.data.loading.run_until_killed",
        *map(str, (data, out, ranks, workers, kill, killed_rank)),
    ]
    # What is left of a killed run would keep the pipes open, and this call waiting.
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode


def steps(out: Path, rank: int) -> list[dict]:
    """What each step was fed and lost; of a step that was repeated after a kill, all that was seen must be the same."""
    found: dict[int, dict] = {}
    for line in (out / f"steps-{rank}.jsonl").read_text().splitlines():
        step = json.loads(line)
        assert found.setdefault(step["step"], step) == step, "a step was repeated with other clips or another loss"
    return [found[number] for number in sorted(found)]


#: The end of an epoch, twice inside the next one, and on: what once began an epoch over.
SHORT = [(2, "epoch:0", 0), (0, f"step:{STEPS + 2}", 0), (1, f"step:{STEPS + 2}", 0), (0, "never", 0)]


@pytest.mark.parametrize(
    ("ranks", "chain"),
    [
        pytest.param(1, SHORT, id="short", marks=pytest.mark.slow),
        pytest.param(1, CHAIN, id="1 rank", marks=pytest.mark.slow),
        pytest.param(2, CHAIN, id="2 ranks", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_with_the_same_clips_and_losses(
    tmp_path: Path, ranks: int, chain: list[tuple[int, str, int]]
) -> None:
    data = make_data(tmp_path / "data", clips=50)
    make_data(data, clips=5, split="validation")
    assert run(data, tmp_path / "calm", ranks, 1, "never") == 0
    for workers, kill, rank in chain:
        code = run(data, tmp_path / "killed", ranks, workers, kill, rank % ranks)
        assert (code == 0) == (kill == "never"), f"{kill} ended with {code}"
    for rank in range(ranks):
        calm, killed = steps(tmp_path / "calm", rank), steps(tmp_path / "killed", rank)
        assert len(calm) == EPOCHS * STEPS and {len(step["ids"]) for step in calm} == {BATCH // ranks}
        assert [(step["step"], step["ids"]) for step in killed] == [(step["step"], step["ids"]) for step in calm]
        assert killed == calm
    if ranks == 2:
        both = [steps(tmp_path / "calm", rank) for rank in range(ranks)]
        for left, right in zip(*both, strict=True):
            assert not set(left["ids"]) & set(right["ids"])
