"""`peav evaluate` on models in every format; its pass over a split is made once, by any number of processes, whenever it was killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from peav import PEAV
from peav.cli.main import main
from peav.evaluation import evaluate
from tests.cli.test_commands import ROOT, overrides

RELEASED = str(ROOT / "experiments/tiny_released.yaml")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def checkpoint(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of the released architecture, after two steps. The released formats have no place for its frame level."""
    run = tmp_path_factory.mktemp("released")
    words = overrides(world, run, "--model.objectives.frame=null", "--model.normalize=false")
    # Meta's configuration says the size of a patch, which the recipe leaves to its frame encoder.
    frames = "{img_size: 56, patch_size: 14, embed_dim: 64, depth: 2, num_heads: 4, attn_pool_num_heads: 4, ref_feat_shape: [4, 4]}"
    words.append(f"--model.encoders.video.init_args.frame_options={frames}")
    assert main(["fit", "--config", RELEASED, *words]) == 0
    return run / "checkpoints/last.ckpt"


def run(checkpoint: Path | str, data: Path, out: Path, *more: str) -> dict[str, Any]:
    assert main(["evaluate", str(checkpoint), str(data), f"--out={out}", "--num_workers=0", *more]) == 0
    return json.loads((out / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def whole(checkpoint: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The results of the checkpoint, and their folder."""
    out = tmp_path_factory.mktemp("whole")
    return run(checkpoint, world, out), out


def numbers(results: dict[str, Any]) -> dict[str, Any]:
    return {
        name: direction["plain"] | {"dual": direction["dual_softmax"]}
        for name, direction in results["directions"].items()
    }


@pytest.mark.parametrize("format", ["peav", "transformers", "meta"])
def test_every_format_gives_the_numbers_of_the_checkpoint(
    format: str, checkpoint: Path, world: Path, whole: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    assert main(["convert", str(checkpoint), str(tmp_path / "model"), "--to", format]) == 0
    # Meta's configuration has no place for a number of frames but 16.
    more = ["--num_frames=4"] if format == "meta" else []
    found = run(tmp_path / "model", world, tmp_path / "out", *more)
    assert numbers(found) == numbers(whole[0]) and len(found["directions"]) > 15
    assert found["protocol"] == whole[0]["protocol"] and found["dataset"] == whole[0]["dataset"]
    assert found["intervals"] == whole[0]["intervals"]


def test_python_gives_the_numbers_of_the_command(
    checkpoint: Path, world: Path, whole: tuple[dict[str, Any], Path]
) -> None:
    found = evaluate(PEAV.from_pretrained(checkpoint), world)
    assert json.loads(found.to_json())["directions"] == whole[0]["directions"]


def test_two_runs_write_the_same_json_and_the_second_embeds_nothing(
    checkpoint: Path, world: Path, whole: tuple[dict[str, Any], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "peav"):
        run(checkpoint, world, tmp_path, f"--cache={whole[1] / 'embeddings'}")
    assert "embedded 0 clips and 0 texts" in caplog.text
    assert (tmp_path / "evaluation.json").read_bytes() == (whole[1] / "evaluation.json").read_bytes()


def test_two_ranks_give_the_numbers_of_one(
    checkpoint: Path, world: Path, whole: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "peav.cli.main", "evaluate", str(checkpoint), str(world), f"--out={tmp_path}"]
    more = ["--devices=2", "--device=cpu", "--num_workers=0", "--batch_size=4"]
    done = subprocess.run([*command, *more], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    (share,) = re.findall(r"rank 0 of 2: embedded (\d+) clips", done.stderr)  # the log is that of the first rank
    assert 0 < int(share) < whole[0]["num_clips"]
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert "embedded 0 clips and 0 texts" in done.stderr  # the numbers come from what the ranks embedded
    for name, direction in found["directions"].items():
        assert direction["plain"] == whole[0]["directions"][name]["plain"], name


#: Behind the sixth piece it waits until it is killed.
_HELD = """
import time
from peav.cli.main import main
from peav.evaluation.store import EmbeddingStore

add, added = EmbeddingStore.add, []

def hold(*arguments):
    add(*arguments)
    added.append(1)
    while len(added) == 6:
        time.sleep(0.05)

EmbeddingStore.add = hold
raise SystemExit(main({}))
"""


def test_a_run_that_was_killed_goes_on_without_embedding_again(
    checkpoint: Path, world: Path, whole: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "peav.cli.main", "evaluate", str(checkpoint), str(world), f"--out={tmp_path}"]
    command += ["--num_workers=0", "--batch_size=1"]
    held = [sys.executable, "-c", _HELD.format(command[3:])]
    running = subprocess.Popen(held, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    end = time.monotonic() + 120
    while len(list(tmp_path.glob("embeddings/*/piece-*.safetensors"))) < 3:
        assert running.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    pieces = len(list(tmp_path.glob("embeddings/*/piece-*.safetensors")))
    clips = whole[0]["num_clips"]
    assert pieces < clips and not (tmp_path / "evaluation.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    assert f"embedded {clips - pieces} clips" in done.stderr and f"{pieces} clips and 0 texts were" in done.stderr
    assert numbers(json.loads((tmp_path / "evaluation.json").read_text())) == numbers(whole[0])


def test_clips_that_cannot_be_decoded_are_left_out_and_named(
    checkpoint: Path, world: Path, whole: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    data = shutil.copytree(world, tmp_path / "data")
    (shard,) = (data / "shards/test").glob("*.bin")
    with shard.open("r+b") as file:  # in the middle: of one clip's media
        file.seek(shard.stat().st_size // 2)
        file.write(b"\xff" * 64)
    found = run(checkpoint, data, tmp_path / "out")
    ((clip, reason),) = found["dataset"]["undecodable"].items()
    assert clip and "damaged" in reason
    direction = "audio->video"
    before, after = (results["directions"][direction]["plain"]["num_candidates"] for results in (whole[0], found))
    assert after in (before, before - 1)


def test_a_store_of_something_else_is_refused(
    checkpoint: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(checkpoint), str(world), f"--out={tmp_path / 'out'}", "--num_workers=0"]
    assert main(words) == 0
    (store,) = (tmp_path / "out/embeddings").iterdir()
    (store / "settings.json").write_text("{}")
    assert main(words) == 1
    assert "holds embeddings of other settings" in capsys.readouterr().err


def test_what_is_no_model_is_a_sentence(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert main(["evaluate", str(tmp_path), str(world), f"--out={tmp_path / 'out'}"]) == 1
    assert "Traceback" not in (said := capsys.readouterr().err) and str(tmp_path) in said
