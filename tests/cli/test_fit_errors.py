"""What `peav fit` says of an option that cannot be: one line about what is wrong, and not a word of the model around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from peav.cli.main import main
from peav.cli.parsing import shorten

_RECIPE = Path(__file__).parents[2] / "experiments" / "tiny_cpu.yaml"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            "model.encoders.text.init_args.tokenizer=gone/tokenizer.json",
            "there is no tokenizer at 'gone/tokenizer.json'",
        ),
        ("model.encoders.audio.init_args.num_heads=5", "num_heads=5 must divide dim=96"),
        ("model.encoders.audio.init_args.dim=x", "audio.init_args.dim: "),
        ("model.encoders.audio.init_args.dimm=3", "Option 'dimm' is not accepted"),
        ("model.encoders.audio.class_path=MelAudioEncoderr", "Did you mean 'MelAudioEncoder'?"),
        ("model.encoders.text=null", "Not a valid subclass of Encoder"),
        ("model.objectives.audio.class_path=CaptionPai", "Did you mean 'CaptionPair'?"),
        ("model.learning_rate=fast", "--model.learning_rate: Expected a <class 'float'>. Got value: fast"),
        ("data.mixing={colour: red}", "Option 'colour' is not accepted"),
    ],
)
def test_one_line(option: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", f"--config={_RECIPE}", f"--trainer.default_root_dir={tmp_path}", f"--{option}"])
    assert stopped.value.code == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("peav fit:")]
    assert len(lines) == 1 and said in lines[0], lines
    assert len(lines[0]) < 600 and "NoneType" not in lines[0] and "Linear(" not in lines[0]


def test_a_report_of_which_nothing_would_be_left_stays() -> None:
    report = "Does not validate against any of the Union subtypes\nErrors:\n  - Expected a <class 'NoneType'>\nGiven value: 3"
    assert shorten(report) == report and shorten("something else") == "something else"
