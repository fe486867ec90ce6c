"""`peav convert --card`: README.md in the hub's form; `--push_to_hub` against a local server that imitates the hub (tests/cli/hub.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from peav.cli.main import main
from tests.cli.hub import Hub, serving
from tests.cli.test_commands import ROOT, TINY, overrides


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, evaluated on its own split and on a suite."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    assert main(["fit", "--config", TINY, *overrides(world, folder)]) == 0
    checkpoint = str(folder / "checkpoints/last.ckpt")
    assert main(["evaluate", checkpoint, str(world), f"--out={folder}", "--num_workers=0"]) == 0
    (folder / "sets").mkdir()
    (folder / "sets/world").symlink_to(world)
    (folder / "own.yaml").write_text(
        """
datasets: {World: {folders: [world], reader: {class_path: Folder}}}
tasks:
  world_text_to_audio: {dataset: World, kind: retrieval, query: text_audio, item: audio, metric: R@1, dual_softmax: true}
  world_frames: {dataset: World, kind: frames, metric: macro_auroc}
suite: [world_text_to_audio, world_frames]
"""
    )
    suite = ["--suite", str(folder / "own.yaml"), "--data", str(folder / "sets"), "--out", str(folder / "suite")]
    assert main(["evaluate", checkpoint, *suite, "--num_workers=0"]) == 0
    return folder


def convert(run: Path, out: Path, results: str, *more: str) -> int:
    card = ["--card", str(run / results), "--license=apache-2.0"]
    return main(["convert", str(run / "checkpoints/last.ckpt"), str(out), *card, *more])


def test_a_card_of_a_suite_is_what_the_hub_reads(run: Path, tmp_path: Path) -> None:
    more = ["--base_model=facebook/pe-av-small", '--datasets=["me/world", "songs"]']
    assert convert(run, tmp_path / "model", "suite/evaluation.json", *more) == 0
    card = ModelCard.load(tmp_path / "model/README.md")
    results = json.loads((run / "suite/evaluation.json").read_text())
    data = card.data
    assert data.license == "apache-2.0" and data.base_model == "facebook/pe-av-small" and data.library_name == "peav"
    assert data.datasets == ["me/world"] and data.model_name == "model"
    found = {one.metric_name: one for one in data.eval_results}
    retrieval, task = found["world text to audio: R@1 (dual softmax)"], results["tasks"]["world_text_to_audio"]
    assert retrieval.metric_type == "recall_at_1" and retrieval.metric_value == pytest.approx(
        100 * task["value"], abs=1e-3
    )
    assert retrieval.dataset_revision == task["fingerprint"] and retrieval.metric_args["dual_softmax"] is True
    assert found["world frames: macro_auroc"].metric_value == pytest.approx(
        results["tasks"]["world_frames"]["value"], abs=1e-4
    )
    said = card.text
    assert "Base model: facebook/pe-av-small. Data: me/world, songs. Licence: apache-2.0." in said
    assert "class_path: peav.encoders.MelAudioEncoder" in said and "learning_rate: 0.001" in said  # the recipe
    assert str(run.parent) not in said and str(run.parents[1]) not in said and "default_root_dir" not in said
    assert f"PEAV.from_pretrained('{data.model_name}')" in said


def test_a_card_of_a_split_has_every_direction_with_and_without_the_dual_softmax(run: Path, tmp_path: Path) -> None:
    assert convert(run, tmp_path / "model", "evaluation.json") == 0
    results = json.loads((run / "evaluation.json").read_text())
    measured = ModelCard.load(tmp_path / "model/README.md").data.eval_results
    assert len(measured) == 6 * len(results["directions"]) + 1
    found = {one.metric_name: one.metric_value for one in measured}
    for name, direction in results["directions"].items():
        assert found[f"{name}: R@10"] == pytest.approx(100 * direction["plain"]["R@10"], abs=1e-3)
        softened = 100 * direction["dual_softmax"]["R@10"]
        assert found[f"{name}: R@10 (dual softmax)"] == pytest.approx(softened, abs=1e-3)
    # Results of the folder that it was converted to are its results too.
    out = tmp_path / "again"
    assert main(["evaluate", str(tmp_path / "model"), str(run / "sets/world"), f"--out={out}", "--num_workers=0"]) == 0
    more = ["--card", str(out / "evaluation.json"), "--license=mit"]
    assert main(["convert", str(tmp_path / "model"), str(tmp_path / "third"), *more]) == 0
    assert ModelCard.load(tmp_path / "third/README.md").data.license == "mit"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--card", "{run}/suite/evaluation.json"], "--card needs --license"),
        (["--license=mit"], "are for --card RESULTS"),
        (["--card", "{run}/none.json", "--license=mit"], "there is no file"),
        (["--card", "{run}/config.yaml", "--license=mit"], "is no result of `peav evaluate`"),
        (["--card", "{run}/other.json", "--license=mit"], "is the result of another model, with the digest 0123"),
    ],
)
def test_what_is_no_card_is_a_sentence(
    words: list[str], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = json.loads((run / "evaluation.json").read_text())
    (run / "other.json").write_text(json.dumps(results | {"model": results["model"] | {"digest": "0123"}}))
    given = [word.format(run=run) for word in words]
    assert main(["convert", str(run / "checkpoints/last.ckpt"), str(tmp_path / "model"), *given]) == 1
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


def peav(hub: Hub, home: Path, token: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.address, "HF_HOME": str(home)}
    # Xet is a protocol of its own, which the server does not speak; the hub takes LFS as well.
    environment |= {"HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=home, check=False
    )


def test_a_model_goes_to_the_hub_and_comes_back(run: Path, tmp_path: Path) -> None:
    words = ["-m", "peav.cli.main", "convert", str(run / "checkpoints/last.ckpt"), str(tmp_path / "model")]
    words += ["--card", str(run / "suite/evaluation.json"), "--license=apache-2.0", "--push_to_hub=me/tiny"]
    with serving() as hub:
        refused = peav(hub, tmp_path, "hf_another", *words)
        assert refused.returncode == 1 and "the hub refuses me/tiny: " in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr and not hub.files
        done = peav(hub, tmp_path, hub.token, *words)
        assert done.returncode == 0, done.stderr
        assert f"uploaded to {hub.address}/me/tiny" in done.stdout and hub.private["me/tiny"]
        held = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
        sent = {name: data for name, data in hub.files["me/tiny"].items() if name != ".gitattributes"}
        assert sent == held and hub.large == {"model.safetensors"}
        assert (
            ModelCard(hub.files["me/tiny"]["README.md"].decode()).data.to_dict()["model-index"][0]["name"] == "me/tiny"
        )
        code = (
            "from peav import PEAV; from peav.digest import model_digest; "
            f"a, b = PEAV.from_pretrained('me/tiny'), PEAV.from_pretrained({str(tmp_path / 'model')!r}); "
            "assert model_digest(a) == model_digest(b); print('the same')"
        )
        back = peav(hub, tmp_path, hub.token, "-c", code)
        assert back.stdout.strip() == "the same", back.stderr
