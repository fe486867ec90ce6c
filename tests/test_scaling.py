"""experiments/scaling: the weak captioner, the worlds, the curves, and a run that goes on where it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peav.data.manifests.manifest import iter_manifest, manifest_path

ROOT = Path(__file__).parents[1]
SCALING = ROOT / "experiments/scaling"


@pytest.fixture(scope="module")
def scripts() -> Any:
    """The modules of the experiment, which are no package."""
    sys.path.insert(0, str(SCALING))
    try:
        import curves
        import run
        import worlds

        yield type("Scripts", (), {"curves": curves, "run": run, "worlds": worlds})
    finally:
        sys.path.remove(str(SCALING))


def test_the_weak_captioner_omits_and_confuses_at_its_rates(scripts: Any) -> None:
    rng = np.random.default_rng(0)
    said = [scripts.worlds.weaken("a dog barking", rng) for _ in range(4000)]
    assert abs(said.count("a sound") / 4000 - scripts.worlds.OMITS) < 0.03
    kept = said.count("a dog barking") / 4000
    assert abs(kept - (1 - scripts.worlds.OMITS - scripts.worlds.CONFUSES)) < 0.03
    assert len(set(said)) == 23  # all 22 sounds, and none
    text = 'a large red face with a beard, saying "good morning", moves; a bell ringing twice'
    assert scripts.worlds.weaken(text, rng, 0.0, 0.0) == "a large red face with a beard, moves; a bell ringing twice"
    assert scripts.worlds.weaken(text, rng, 1.0, 0.0) == "a thing, moves; a sound"


def test_worlds_are_nested_parts_and_their_captions_have_the_sources_they_name(
    scripts: Any, world: Path, tmp_path: Path
) -> None:
    worlds = scripts.worlds

    def clips(name: str, change: Any) -> dict[str, Any]:
        made = worlds.write_world(world, tmp_path / name, change)
        for split in ("validation", "test"):
            assert manifest_path(made, split).read_bytes() == manifest_path(world, split).read_bytes()
        return {clip.id: clip for _, clip in iter_manifest(manifest_path(made, "train"))}

    def origins(held: dict[str, Any]) -> list[str]:
        return [caption.origin for clip in held.values() for told in clip.captions.values() for caption in told]

    quarter, half = clips("quarter", worlds.part(1 / 4)), clips("half", worlds.part(1 / 2))
    assert set(quarter) < set(half) and len(half) == 37 and len(quarter) == 18
    real, synthetic = clips("real", worlds.captioned(True, False)), clips("synthetic", worlds.captioned(False, True))
    mixed = clips("mixed", worlds.captioned(True, True))
    assert len(real) == 7 and set(origins(real)) == {"real"}
    assert len(synthetic) == len(mixed) == 74 and set(origins(synthetic)) == {"synthetic"}
    assert {name for name, clip in mixed.items() if origins({name: clip})[0] == "real"} == set(real)
    assert all(clip.transcript is None for clip in synthetic.values())


def test_curves_are_means_with_intervals_over_seeds(scripts: Any, tmp_path: Path) -> None:
    curves = scripts.curves
    names = {name for held in curves.CURVES.values() for name in held}
    results = [
        {
            "points": {"data": share, "captions": f"source {share}"},
            "seed": seed,
            "steps": 5,
            "directions": {name: {"R@1": 0.1, "R@10": share + 0.01 * seed} for name in names},
        }
        for share in (0.5, 0.25)
        for seed in (0, 1, 2)
    ]
    table = curves.markdown(results)
    rows = [line for line in table.splitlines() if line.startswith(("| 0.", "| source"))]
    assert [row.split(" | ")[0] for row in rows] == ["| 0.25", "| 0.5", "| source 0.5", "| source 0.25"]
    assert "| 0.25 | 3 | 10.0 ± 0.0 | 26.0 ± 2.5 |" in table  # 4.303 x 0.01 / sqrt(3)
    curves.write_curves(results[:1], tmp_path)
    assert (tmp_path / "curves.png").stat().st_size > 10_000 and "± " not in (tmp_path / "curves.md").read_text()


def test_every_axis_has_its_points_and_the_base_stands_on_all(scripts: Any) -> None:
    points: dict[str, set[Any]] = {}
    for variant in scripts.run.VARIANTS:
        assert not variant.world or variant.world in scripts.run.WORLDS
        for axis, point in variant.points.items():
            points.setdefault(axis, set()).add(point)
    assert points["data"] == {1 / 8, 1 / 4, 1 / 2, 1.0} and points["pairs"] == {1, 2, 4, 8, 10}
    assert points["audio layers"] == {1, 2, 4, 8} and {"real, a tenth", "synthetic", "mixed 1:10"} < points["captions"]
    assert set(points) == set(scripts.run.VARIANTS[0].points) == set(scripts.curves.AXES)


@pytest.mark.slow
def test_a_killed_command_goes_on_and_does_nothing_twice(world: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(SCALING / "run.py"), str(world), str(tmp_path / "out")]
    words += ["--only", "base", "pairs_1", "captions_mixed", "--seeds", "0", "--steps", "3"]
    result = tmp_path / "out/results/base-0.json"
    killed = subprocess.Popen(words, cwd=ROOT)
    end = time.monotonic() + 300
    while not result.is_file():
        assert killed.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = result.read_bytes(), result.stat().st_mtime_ns
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "base, seed 0" not in done.stdout and "pairs_1, seed 0" in done.stdout
    assert (result.read_bytes(), result.stat().st_mtime_ns) == before
    found = {path.name for path in (tmp_path / "out/results").iterdir()}
    assert found == {"base-0.json", "pairs_1-0.json", "captions_mixed-0.json"} and not list(tmp_path.glob("out/runs/*"))
    untrained = json.loads((tmp_path / "out/results/pairs_1-0.json").read_text())["directions"]
    assert "audio->video" in untrained and "text_video->video" in untrained
    assert "| 1 | 1 |" in (tmp_path / "out/curves.md").read_text()


def test_the_guide_says_what_the_scripts_do(scripts: Any) -> None:
    guide = (ROOT / "docs/scaling.md").read_text()
    runs = 3 * len(scripts.run.VARIANTS)
    assert runs == 42 and f"Forty-two runs ({len(scripts.run.VARIANTS)} variants, three seeds)" in guide
    assert f"leaves out {100 * scripts.worlds.OMITS:.0f} % and takes {100 * scripts.worlds.CONFUSES:.0f} %" in guide
    assert "python experiments/scaling/run.py runs/demo/data runs/scaling" in guide
    for title in scripts.curves.AXES.values():
        assert f"| {title} | seeds |" in guide
