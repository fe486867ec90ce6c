"""The experiments as recipes: listed, printed, and named in --config."""

from __future__ import annotations

from pathlib import Path

import pytest

from peav.cli.main import main
from peav.cli.recipe_files import fault_of, find_recipe, recipe_names
from peav.training import PeavModule
from tests.cli.test_commands import ROOT, checkpoint_in, overrides

Capture = pytest.CaptureFixture[str]
EXPERIMENTS = ROOT / "experiments"
#: Those under real/ need the scripts beside them, which a checkout alone has.
FILES = sorted(path.relative_to(EXPERIMENTS) for path in EXPERIMENTS.rglob("*.yaml") if path.parent.name != "real")


def test_the_list_has_every_experiment_with_its_first_lines(capsys: Capture) -> None:
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    for file in FILES:
        section = listed.partition(f"{file.with_suffix('')}\n")[2].partition("\n\n")[0]
        assert "What:" in section and "Runs on:" in section and "Reaches:" in section, file
    assert "cluster/slurm.sh\n" in listed


@pytest.mark.parametrize(
    "name", ["tiny_cpu", "cluster/ddp", "cluster/ddp.yaml", "peav:fine_tune/lora", "cluster/slurm.sh"]
)
def test_one_is_printed_to_the_byte(name: str, capsys: Capture) -> None:
    assert main(["recipes", name]) == 0
    path = ROOT / "experiments" / name.removeprefix("peav:")
    assert capsys.readouterr().out == (path if path.suffix else path.with_suffix(".yaml")).read_text()


def test_every_name_leads_to_its_file() -> None:
    names = recipe_names()
    assert {f"{name}.yaml" for name in names if not name.endswith(".sh")} == {str(file) for file in FILES}
    assert all(find_recipe(name).is_file() for name in names)
    for name in ("../pyproject", "/etc/passwd", "cluster", "", "README.md"):
        with pytest.raises(ValueError, match="no recipe is named"):
            find_recipe(name)


def test_a_run_is_configured_by_names_overlays_too(world: Path, tmp_path: Path) -> None:
    words = ["--config=peav:tiny_cpu", "-c", "peav:ablation_pairs/pair_1", "--model.objectives.audio.init_args.bias=-2"]
    assert main(["fit", *words, *overrides(world, tmp_path, "--trainer.limit_train_batches=1")]) == 0
    module = PeavModule.load_from_checkpoint(checkpoint_in(tmp_path), weights_only=True)
    assert list(module.objectives) == ["audio"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clips: 3\nseed: 1\nclips: 4\n", "own.yaml, line 3: 'clips' is given twice"),
        ("stages:\n  a: {class_path: X}\n  a: {class_path: Y}\n", "own.yaml, line 3: 'a' is given twice"),
        ("", "own.yaml is empty"),
        ("# nothing\n", "own.yaml is empty"),
    ],
)
def test_what_a_yaml_would_lose_in_silence_is_said(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit) as error:
        main(["caption", "data", "--config", str(path)])
    assert error.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in recipe_names() if not name.endswith(".sh")])
def test_recipes_lose_nothing(name: str) -> None:
    assert fault_of(find_recipe(name)) is None
