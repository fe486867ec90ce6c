"""Stages of one's own that are wrong: a sentence at the door, or a failure of the clip, never a broken run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from peav.cli.main import main
from peav.data.manifests.manifest import open_manifest
from peav.engine.arguments import full_arguments
from peav.engine.backends import Answer, Backend, Request
from peav.engine.gates import Gate, Written, gates
from peav.engine.stage import Columns, Stage
from peav.testing import check_backend, check_gate, check_stage
from tests.engine.data import write_clips


def _named(name: str) -> str:
    return f"{__name__}.{name}"


class Says(Stage):
    """Says of every second clip what it is told to, and of the others what is right."""

    reads = ("duration",)
    provides = ("texts", "speech", "events", "domain", "tags", "candidates", "verdicts")

    def __init__(self, column: str = "", value: Any = None, every: int = 2) -> None:
        self.column, self.value, self.every = column, value, every

    def __call__(self, batch: Columns) -> Columns:
        none = [None] * len(batch["id"])
        made: Columns = {"id": batch["id"], **{name: list(none) for name in self.provides}}
        made["texts"] = [{"audio": f"a sound of {name}"} for name in batch["id"]]
        for place, name in enumerate(batch["id"]):
            if self.column and int(name.partition("-")[2]) % self.every == 0:
                made[self.column][place] = self.value
        return made


class Stranger:
    """Shares nothing with peav's stages."""

    reads = ("duration",)
    provides = ("texts",)

    def __call__(self, batch: Columns) -> Columns:
        return {"id": batch["id"], "texts": [{} for _ in batch["id"]]}


class Unfinished(Stage):
    """Has no __call__."""

    provides = ("texts",)


class NamesInAText(Says):
    """Names its column without a tuple."""

    reads = "duration"  # type: ignore[assignment]


class Silent(Says):
    """Provides nothing."""

    provides = ()  # type: ignore[assignment]


class NoSound(Gate):
    """Refuses a word."""

    reason_name = "no_sound"

    def __init__(self, word: str = "sound") -> None:
        self.word = word

    def check(self, caption: Written) -> str | None:
        return f"it says {self.word!r}" if self.word in caption.text else None


class Judge(NoSound):
    """Says of every caption what it is told to."""

    def __init__(self, reason: Any = None, name: str = "judge", kinds: Any = ("audio",)) -> None:
        self.reason, self.kinds = reason, kinds
        self.reason_name = name  # type: ignore[misc]

    def check(self, caption: Written) -> str | None:
        return self.reason


class Unready(Gate):
    """Has no check."""

    reason_name = "unready"


class Model(Backend):
    """Answers what it is told to."""

    def __init__(self, answer: str = "[Answer(one.text) for one in requests]") -> None:
        self.code = answer

    def answer(self, requests: Sequence[Request]) -> Any:
        return eval(self.code, {"Answer": Answer, "requests": requests})


class Mute(Backend):
    """Has no answer."""


class Changing(Says):
    """Is another one each time that it is asked."""

    @classmethod
    def identity(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"weights": os.urandom(4).hex()}


class Unordered(Says):
    """Is told from others by a set, whose order is another one in each process."""

    @classmethod
    def identity(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"words": {"a", "b"}}


class Takes(Says):
    """Has an argument of each shape with something of any type in it."""

    def __init__(
        self,
        items: Sequence[Any] = (),
        pairs: tuple[Any, ...] = (),
        named: dict[str, list[Any]] | None = None,
        either: list[dict[str, Any]] | str = "",
        number: dict[str, float] | None = None,
    ) -> None:
        super().__init__()


WRONG_GATES: list[tuple[Any, str]] = [
    (_named("Unready"), "gate Unready: Unready lacks check"),
    (_named("Says"), "is not a peav gate: derive it from peav.engine.gates.Gate"),
    ("nowhere_at_all.Mine", "put the folder of its module on PYTHONPATH"),
    ({"init_args": {}}, "a gate must be {class_path: ..., init_args: {...}}"),
    ({"class_path": "Leak", "init_arg": {}}, "gate Leak has no 'init_arg'"),
    ({"class_path": _named("Judge"), "init_args": {"name": ""}}, "gate Judge has no reason_name"),
    ({"class_path": _named("Judge"), "init_args": {"kinds": "audio"}}, "gate Judge: kinds must be types of captions"),
    ({"class_path": _named("Judge"), "init_args": {"name": "no_sound"}}, "NoSound and Judge have one reason_name"),
]

WRONG_BACKENDS = [
    ("None", "Model.answer must return a list of Answer, got NoneType"),
    ("[]", "Model.answer was given 4 requests, and returned 0 answers"),
    ("['a'] * len(requests)", "Model.answer must return a list of Answer, got 'a' in it"),
    ("[Answer(None)] * len(requests)", "Model.answer returned an Answer with text=None, not a str"),
    ("[Answer('a', tokens_out='b')] * len(requests)", "Model.answer returned an Answer with tokens_out='b', not a int"),
    ("[Answer(str(len(requests))) for _ in requests]", "gives 'clip-0' another answer alone than among others"),
    ("[Answer(str(k)) for k, _ in enumerate(requests)]", "gives 'clip-0' another answer in another order"),
]

WRONG = [
    ("texts", "a dog barks"),
    ("texts", {"audio": 5}),
    ("texts", {"audio": None}),
    ("speech", "hello"),
    ("speech", {"text": 5}),
    ("speech", {"text": "hello", "segments": [{"text": "hello"}]}),
    ("events", [{"phrase": "dog"}]),
    ("events", [{"phrase": "dog", "onset": 0.0, "offset": 1.0, "confidence": 7}]),
    ("domain", ["music"]),
    ("tags", [{"score": 1.0}]),
    ("candidates", ["a dog"]),
    ("verdicts", [{"gate": "mine"}]),
]


def _config(tmp_path: Path, name: str, **init_args: Any) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"stages": {"s": {"class_path": name, "init_args": init_args}}}))
    return str(path)


@pytest.mark.parametrize(("column", "value"), WRONG)
def test_an_answer_of_another_shape_is_a_failure_of_its_clip(
    tmp_path: Path, column: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path / "d")
    config = _config(tmp_path, _named("Says"), column=column, value=value)
    assert main(["caption", str(data), "--config", config, "--probes", "0", "--samples", "0"]) == 0
    said = capsys.readouterr().out
    assert "5 clips failed at a stage" in said and f"s, 5 clips, such as: '{column}' must be " in said
    with pytest.raises(AssertionError, match=f"Says: '{column}' must be "):
        check_stage(Says, {"column": column, "value": value}, {"id": ["clip-0"], "duration": [1.0]})
    written = [
        clip.id
        for clip in open_manifest(data, "train")
        if any(c.origin != "real" for c in clip.captions.get("audio", ()))
    ]
    assert written == [f"clip-{k}" for k in (1, 3, 5, 7, 9)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (_named("Stranger"), "is not a peav stage: derive it from peav.engine.stage.Stage"),
        (_named("Unfinished"), "Unfinished lacks __call__"),
        (_named("NamesInAText"), "NamesInAText.reads must be names of columns, such as ('duration',), not a text"),
        (_named("Silent"), "Silent provides no column"),
        (_named("Unordered"), "stages.s: Unordered.identity holds a set, which may look otherwise in another process"),
        ("nowhere_at_all.Mine", "put the folder of its module on PYTHONPATH, or install its package"),
    ],
)
def test_classes_that_are_no_stage_are_refused(
    tmp_path: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path / "d")
    assert main(["caption", str(data), "--config", _config(tmp_path, name)]) == 1
    assert said in capsys.readouterr().err
    assert not (data / "engine").exists()


def test_folders_are_looked_at_before_the_first_is_worked_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path / "d")
    (tmp_path / "link").symlink_to(data)
    config = _config(tmp_path, _named("Says"))
    for second, said in ((tmp_path / "nowhere", "no folder"), (tmp_path / "link", "is the same folder as")):
        assert main(["caption", str(data), str(second), "--config", config, "--probes", "0"]) == 1
        assert said in capsys.readouterr().err
        assert not (data / "engine").exists()


def test_a_pipeline_that_was_only_tried_leaves_the_folder_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path / "d")
    one = _config(tmp_path, _named("Says"))
    assert main(["caption", str(data), "--config", one, "--dry_run"]) == 0
    again = ["caption", str(data), "--config", one, "--where", "duration < 5"]
    assert main([*again, "--dry_run"]) == 0
    assert main([*again, "--probes", "0", "--samples", "0"]) == 0
    capsys.readouterr()
    assert main(["caption", str(data), "--config", one, "--dry_run"]) == 1
    assert "holds another job: --where was 'duration < 5' and is ''" in capsys.readouterr().err


def test_a_gate_of_ones_own_is_named_by_its_dotted_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_clips(tmp_path / "d")
    own = [_named("NoSound"), {"class_path": _named("NoSound"), "init_args": {"word": "clip-3"}}]
    for held, left in ((own[:1], 0), (own[1:], 9), (["Leak", *own[1:]], 9)):
        stages = {"s": {"class_path": _named("Says")}, "gate": {"class_path": "Gates", "init_args": {"gates": held}}}
        (tmp_path / "mine.yaml").write_text(json.dumps({"stages": stages}))
        config = ["--config", str(tmp_path / "mine.yaml"), "--probes", "0", "--samples", "0", "--replace"]
        assert main(["caption", str(data), *config]) == 0
        assert f"wrote {left} captions" in capsys.readouterr().out


def test_what_is_of_any_type_stays_as_it_is() -> None:
    config = {"class_path": _named("NoSound"), "init_args": {"word": "x"}}
    given = {"items": [1, config], "pairs": (config,), "named": {"a": [config]}, "either": [config]}
    taken = full_arguments(Takes, {**given, "number": {"a": "1e-3"}}, "stages.s")
    assert taken == {**given, "number": {"a": 0.001}}
    assert [type(one) for one in (*taken["items"], *taken["pairs"], *taken["named"]["a"])] == [int, dict, dict, dict]
    for wrong in ({"items": "Leak"}, {"named": {"a": 1}}, {"either": {"a": 1}}):
        with pytest.raises(ValueError, match=f"stages.s: {next(iter(wrong))} must be"):
            full_arguments(Takes, wrong, "stages.s")


@pytest.mark.parametrize(("gate", "said"), WRONG_GATES)
def test_gates_that_cannot_be_are_refused(
    tmp_path: Path, gate: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_clips(tmp_path / "d")
    held = {"class_path": "Gates", "init_args": {"gates": [_named("NoSound"), gate]}}
    (tmp_path / "mine.yaml").write_text(json.dumps({"stages": {"s": {"class_path": _named("Says")}, "gate": held}}))
    assert main(["caption", str(data), "--config", str(tmp_path / "mine.yaml"), "--probes", "0"]) == 1
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("reason", [True, False, 3, "", " "])
def test_a_gate_says_why_in_words(tmp_path: Path, reason: Any, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_clips(tmp_path / "d")
    held = {
        "class_path": "Gates",
        "init_args": {"gates": [{"class_path": _named("Judge"), "init_args": {"reason": reason}}]},
    }
    (tmp_path / "mine.yaml").write_text(json.dumps({"stages": {"s": {"class_path": _named("Says")}, "gate": held}}))
    assert main(["caption", str(data), "--config", str(tmp_path / "mine.yaml"), "--probes", "0", "--samples", "0"]) == 1
    said = f"Judge.check must return a reason, in words, or None, got {reason!r}"
    assert f"gate, 10 clips, such as: TypeError: {said}" in capsys.readouterr().out
    with pytest.raises(AssertionError, match=said):
        check_gate(Judge, {"reason": reason})


@pytest.mark.parametrize("name", sorted(set(gates) - {"Support"}))
def test_gates_keep_the_contract(name: str) -> None:
    check_gate(gates.get(name), {})


def test_the_contracts_find_what_is_not_finished() -> None:
    check_gate(NoSound, {"word": "dog"})
    check_backend(Model, {})
    with pytest.raises(AssertionError, match="Unready lacks check"):
        check_gate(Unready, {})  # type: ignore[type-abstract]
    with pytest.raises(AssertionError, match="Mute lacks answer"):
        check_backend(Mute, {})  # type: ignore[type-abstract]
    with pytest.raises(AssertionError, match="Unfinished lacks __call__"):
        check_stage(Unfinished, {})  # type: ignore[type-abstract]
    with pytest.raises(AssertionError, match=r"Changing\.identity returns something else each time"):
        check_stage(Changing, {})
    with pytest.raises(AssertionError, match="Says: the answer holds the number nan"):
        check_stage(Says, {"column": "candidates", "value": [{"kind": "audio", "text": "x", "score": math.nan}]})


@pytest.mark.parametrize(("answer", "said"), WRONG_BACKENDS)
def test_backends_that_answer_otherwise_are_found(answer: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_backend(Model, {"answer": answer})


def test_a_key_that_changes_during_a_run_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_clips(tmp_path / "d")
    before = (data / "manifest/train.jsonl").read_bytes()
    assert main(["caption", str(data), "--config", _config(tmp_path, _named("Changing")), "--probes", "0"]) == 1
    assert "what the results of the stage s depend on changed during the run" in capsys.readouterr().err
    assert (data / "manifest/train.jsonl").read_bytes() == before
