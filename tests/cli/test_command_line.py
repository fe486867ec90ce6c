"""The command line itself: its help, its words and options, what it says to mistakes, and that asking for help costs nothing."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from peav.cli.main import main
from peav.cli.names import names_of
from peav.cli.parsing import build_parser, option_of, parse_words
from peav.cli.table import COMMANDS, Command, Group, paths

Capture = pytest.CaptureFixture[str]
OWN = [(path, command) for path, command in paths() if not command.parses_itself]


def called(path: tuple[str, ...]) -> str:
    return " ".join(("peav", *path))


def parsed(*words: str) -> dict[str, Any]:
    """The arguments that a command's function gets."""
    path, command = next((path, command) for path, command in OWN if words[: len(path)] == path)
    function = command.load()
    arguments: dict[str, Any] = parse_words(build_parser(COMMANDS, path), path, function, words)
    inspect.signature(function).bind(**arguments)
    return arguments


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(words: list[str], capsys: Capture) -> None:
    assert main(words) == 0
    text = capsys.readouterr().out
    assert all(f"\n    {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("words", [["--help"], ["data", "--help"], ["--version"], ["recipes"], ["dta"]])
def test_what_needs_no_library_imports_none(words: list[str]) -> None:
    code = (
        "import sys; from peav.cli.main import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'numpy', 'lightning', 'transformers', 'rich', 'lhotse'} & set(sys.modules); assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("path", "command"), OWN, ids=[called(path) for path, _ in OWN])
def test_every_command_explains_each_of_its_words_and_options(
    path: tuple[str, ...], command: Command, capsys: Capture
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*path, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {called(path)}")
    function = command.load()
    first = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
    assert f"{command.help[0].upper()}{command.help[1:]}." == first, "the table says what the docstring says"
    parser = build_parser(COMMANDS, path).called
    assert parser is not None
    actions = {action.dest: action for action in parser._actions}
    for name in inspect.signature(function).parameters:
        assert actions[name].help, f"the docstring says nothing of {name}"
        assert (name.upper() if not actions[name].option_strings else option_of(name)) in text


def test_groups_and_commands_of_lightning_have_a_line() -> None:
    assert {path[0] for path, command in paths() if command.parses_itself} == {"fit", "validate", "test", "predict"}
    assert all(entry.help for entry in COMMANDS.values())
    assert [name for name, entry in COMMANDS.items() if isinstance(entry, Group)] == ["index", "ab", "data"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evalute"], "peav: there is no command 'evalute'. Did you mean 'evaluate'?"),
        (["data", "validat"], "peav data: there is no command 'validat'. Did you mean 'validate'?"),
        (["synth"], "peav synth: the following arguments are required: out"),
        (["synth", "x", "--clips=many"], "peav synth: --clips: Expected a <class 'int'>. Got value: many"),
        (["synth", "x", "--clps=3"], "peav synth: there is no option --clps. Did you mean '--clips'?"),
        (["synth", "x", "--clip", "3"], "peav synth: there is no option --clip. Did you mean '--clips'?"),
        (["prepare", "a", "b", "c"], "peav prepare: unrecognized arguments: c"),
        (["embed", "a", "--out=x.npz"], "peav embed: the following arguments are required: model"),
        (["data", "stats"], "peav data stats: the following arguments are required: data"),
        (["data", "stats", "x", "--split=y"], "peav data stats: --split: Expected"),
        (["recipes", "tiny_cp"], "peav recipes: no recipe is named 'tiny_cp'. Did you mean 'tiny_cpu'?"),
        (["synth", "x", "--config=peav:tiny_cp"], "peav synth: no recipe is named 'tiny_cp'. Did you mean 'tiny_cpu'?"),
        (["synth", "x", "--config=nowhere.yaml"], "peav synth: --config: File does not exist"),
        (["fit", "--config=peav:tiny_cp"], "peav fit: no recipe is named 'tiny_cp'. Did you mean 'tiny_cpu'?"),
        (
            ["fit", "--config=peav:tiny_cpu", "--trainer.max_epoch=1"],
            "peav fit: there is no option --trainer.max_epoch. ",
        ),
        (["predict", "--config=peav:tiny_cpu"], "peav predict: needs a trained model"),
        (["convert", "nowhere/at/all", "x"], "peav convert: there is no folder nowhere/at/all"),
        (["prepare", "/dev/null", "x"], "peav prepare: "),
        (["prepare", "--features", "audio=dac"], "peav prepare: the following arguments are required: source"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], said: str, capsys: Capture) -> None:
    try:
        status = main(words)
    except SystemExit as stopped:
        assert isinstance(stopped.code, int)
        status = stopped.code
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("INFO Seed set to")]
    assert status in (1, 2) and len(lines) == 1 and lines[0].startswith(said), lines


def test_what_is_no_fault_of_the_user_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("peav.data.synthetic.synthesize", None)
    with pytest.raises(TypeError):
        main(["synth", str(tmp_path)])


def test_words_and_options_come_in_any_order_and_in_their_types() -> None:
    assert parsed("synth", "w", "--clips", "3", "--domains=[music]") | {} == {
        "out": Path("w"),
        "clips": 3,
        "seed": 0,
        "domains": ("music",),
        "workers": None,
        "frame_size": 96,
        "fps": 12,
        "sample_rate": 16000,
    }
    some = parsed("embed", "--model=m", "a.wav", "--batch_seconds", "9", "b.wav", "--out", "x.npz")
    assert some["media"] == ["a.wav", "b.wav"] and some["out"] == Path("x.npz") and some["window_seconds"] == "model"
    assert parsed("embed", "--text=t.txt", "--model=m", "--out=x.npz")["media"] == []
    assert parsed("embed", "--model=m", "--out=x.npz", "--window_seconds=null")["window_seconds"] is None
    assert parsed("prepare", "a")["out"] is None and parsed("prepare", "a", "b")["out"] == Path("b")
    assert parsed("data", "mix", "a", "s=b", "--out=c", "--shares={a: 2}")["shares"] == {"a": 2.0}
    assert parsed("data", "mix", "a", "s=b", "--out=c")["sources"] == ["a", "s=b"]


@pytest.mark.parametrize(
    "given",
    [
        ["--features", "audio=dac", "video=pe", "--model=m", "DATA"],
        ["DATA", "--model=m", "--features", "audio=dac", "video=pe"],
        ["--features=audio=dac", "video=pe", "DATA", "--model=m"],
        ["--features", "audio=dac", "video=pe", "DATA", "--model=m"],
        ["DATA", "--features={audio: dac, video: pe}", "--model=m"],
        ["DATA", "--features.audio=dac", "--features.video=pe", "--model=m"],
    ],
)
def test_a_mapping_is_given_as_names_and_values(given: list[str]) -> None:
    arguments = parsed("prepare", *given)
    assert arguments["features"] == {"audio": "dac", "video": "pe"} and arguments["source"] == Path("DATA")


def test_shares_are_names_and_values_too() -> None:
    found = parsed("data", "mix", "a=x", "b=y", "--shares", "a=0.5", "b=10h", "--out=c")
    assert found["sources"] == ["a=x", "b=y"] and found["shares"] == {"a": 0.5, "b": "10h"}


def test_what_is_true_or_false_may_stand_alone() -> None:
    for given in (["--strict", "a", "b"], ["a", "--strict", "b"], ["a", "b", "--strict"], ["a", "b", "--strict=true"]):
        found = parsed("prepare", *given)
        assert found["strict"] is True and found["out"] == Path("b") and found["check_video"] is True
    assert parsed("prepare", "a", "--check_video", "false", "b")["check_video"] is False


def test_a_reader_is_an_object(tmp_path: Path) -> None:
    from peav.data.readers import AudioCaps

    assert isinstance(parsed("prepare", "a", "b", "--reader=AudioCaps")["reader"], AudioCaps)


def test_options_come_from_a_file_and_the_command_line_overrules_it(tmp_path: Path) -> None:
    (tmp_path / "options.yaml").write_text("clips: 7\nseed: 3\n")
    found = parsed("synth", "w", f"--config={tmp_path / 'options.yaml'}", "--seed=4")
    assert (found["clips"], found["seed"], found["out"]) == (7, 4, Path("w"))


@pytest.mark.parametrize(
    "words",
    [
        ("data", "dedup", "A", "B", "--vectors", "v.npz"),
        ("data", "split", "A", "B"),
        ("caption", "A"),
    ],
)
def test_names_are_one_a_list_or_given_several_times(words: tuple[str, ...]) -> None:
    for given in (["--splits", "[train, test]"], ["--splits", "train", "--splits=test"], ['--splits=["train","test"]']):
        assert names_of(parsed(*words, *given)["splits"]) == ("train", "test")
    assert names_of(parsed(*words, "--splits", "test")["splits"]) == ("test",)


def test_data_sets_of_a_card_are_names_too() -> None:
    words = ("convert", "A", "B", "--card", "r.json")
    assert names_of(parsed(*words, "--datasets", "AudioCaps", "--datasets", "Clotho")["datasets"]) == (
        "AudioCaps",
        "Clotho",
    )
    assert names_of(parsed(*words, "--datasets", "AudioCaps")["datasets"]) == ("AudioCaps",)
    assert parsed(*words)["datasets"] is None
