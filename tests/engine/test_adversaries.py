"""Captioners that play a part, through `peav caption` itself: the right one passes, each other one is caught by the gate made for it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from peav.cli.main import main
from peav.data.manifests.manifest import open_manifest
from peav.engine.gates import Written
from peav.engine.stage import Columns, Stage, register_stage
from peav.engine.stages.gates import DEFAULT_GATES, build_gate
from tests.data.world import make_data
from tests.engine.data import write_clips
from tests.engine.test_gates import judge

LEAKING = [
    "a dog barks, ninety-three percent likely",
    "a dog barks 93％",
    "a dog barks with a score of nine out of ten",
    "the likelihood of rain is high",
    "a dog barks, with low certainty",
    "a dog barks 0,93",
    "а dog barks",  # the first letter is Cyrillic
    "a d\u03bfg barks",  # the o is Greek
    "```\na dog barks\n```",
    "**a dog barks**",
    "_a dog barks_",
    "- a dog barks",
    "1. a dog barks",
    "As an AI, I cannot hear the audio",
    "I'm just an assistant, but a dog barks",
    "Sure! Here is a dog barking",
    "Sure thing: a dog barks",
    "Absolutely! A dog barks",
    "Here\u2019s what I hear: a dog barks",
    "A dog barks. I hope this helps",
    "Unable to process the audio",
    "There is no audio provided",
    "It is not possible to determine what barks",
    '{"audio": "a dog barks',
    '"audio": "a dog barks"',
    "Answer: a dog barks",
    "heard: rain",
    "User: what is heard? Assistant: a dog barks",
    "The audio features a dog barking",
    "In this recording, a dog barks",
    "According to the notes, a dog barks",
    "a dog barks &amp; rain falls",
    "www.example.com has a dog",
    "\U0001f436 a dog barks",
    "a dog barks</s>",
]

LOOPING = [
    "A dog barks. A dog barks. A dog barks.",
    "A dog barks loudly. Rain falls on it. A dog barks loudly!",
    "the dog barks, the dog barks, the dog barks",
    "dogdogdogdogdog",
    "abababababababab",
    "rain rain",
    "a dog barks and the",
    "null",
    "N/A",
]

SAID = "Open the door, please, and come in"
QUOTING = [
    "a woman says 'Open, the door; please - and come in!'",
    "a woman says OPEN THE DOOR PLEASE",
    "a voice: \u201copen\u2026 the door\u2026 please\u201d",
    "she says open-the-door-please",
    "somebody shouts \u00abcome in\u00bb",
]

SEEING = [
    "a man in a crimson coat speaks",
    "a blond woman speaks",
    "a smiling man speaks",
    "a dog is shown barking",
    "a sign reads stop while a car passes",
    "a woman with long hair sings",
]


@pytest.mark.parametrize(
    ("gate", "texts"),
    [("leak", LEAKING), ("degenerate", LOOPING), ("speech_content", QUOTING), ("other_medium", SEEING)],
)
def test_variants_are_caught(gate: str, texts: Sequence[str]) -> None:
    caught = {text: [verdict["gate"] for verdict in judge(text, said=SAID)[1]] for text in texts}
    assert caught == {text: [gate] for text in texts}


@pytest.mark.parametrize(
    ("text", "said", "quotes"),
    [
        ("a man says stop", "Stop!", True),
        ('a man says "stop"', "Stop!", True),
        ("a man says good morning and leaves", "Good morning", True),
        ("a man says good night", "Good morning", False),
        ("a dog barks", "A dog.", False),
        ("a car comes to a stop, a man speaks", "Stop!", False),
        ("a man speaks in a 'radio' voice", "Good morning", False),
        ("the dog's bark is the cat's alarm", "dog's bark is", False),
        ('somebody says "hello"', "", False),
    ],
)
def test_short_transcripts_are_quoted_in_marks_or_behind_a_word_of_saying(text: str, said: str, quotes: bool) -> None:
    assert [verdict["gate"] for verdict in judge(text, said=said)[1]] == (["speech_content"] if quotes else [])


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("audio", "A great horn sounds, and an engine idles at 3,000 revolutions"),
        ("audio", "the sound is muffled, as if behind a door"),
        ("audio", "a low hum, then a well-known melody on a triangle ringing"),
        ("audio", "a square wave plays a rising melody"),
        ("audio", "notes of a piano, no voice"),
        ("audio", "Okinawan drums and a man's call: a long, high cry"),
        ("audio", "waves break again and again"),
        ("audio", "knock, knock, then a door"),
        ("video", "a man at the piano in the picture"),
        ("audio_video", "a woman speaks in front of a shop, her voice calm"),
    ],
)
def test_ordinary_sentences_pass(kind: str, text: str) -> None:
    assert judge(text, kind, SAID) == ({kind: text}, [])


@register_stage
class SaysDoor(Stage):
    """A transcriber."""

    reads = ("duration",)
    provides = ("speech",)

    def __call__(self, batch: Columns) -> Columns:
        numbers = [name.rpartition("-")[2] for name in batch["id"]]
        return {"id": batch["id"], "speech": [{"text": f"Please open door {k} and come in now."} for k in numbers]}


#: What each captioner says of clip K, in which its transcript is "please open door K and come in now".
ROLES: dict[str, tuple[Callable[[int], str], str]] = {
    "right": (lambda k: f"a dog barks {'twice' if k % 2 else 'once'}, then rain number{k} falls", ""),
    "leaking": (lambda k: f"dog (0.{k}3), rain", "leak"),
    "looping": (lambda k: "rain falls " * (5 + k), "degenerate"),
    "quoting": (lambda k: f"somebody says please open door {k} and come in now", "speech_content"),
    "seeing": (lambda k: f"a brown dog{k} barks", "other_medium"),
}


@pytest.mark.parametrize("role", ROLES)
def test_each_captioner_is_caught_by_its_gate_in_a_run(
    tmp_path: Path, role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    says, gate = ROLES[role]
    data, captions = write_clips(tmp_path / "d", 12), tmp_path / "captions.jsonl"
    lines = [json.dumps({"id": f"clip-{k}", "text": says(k)}) for k in range(12)]
    captions.write_text("\n".join(lines))
    stages = {
        "read": {"class_path": "CaptionsFromFile", "init_args": {"path": str(captions)}},
        "speech": {"class_path": "tests.engine.test_adversaries.SaysDoor"},
        "choose": {"class_path": "ChooseCaption"},
        "gate": {"class_path": "Gates"},
    }
    config = tmp_path / "engine.yaml"
    config.write_text(json.dumps({"stages": stages}))
    command = ["caption", str(data), "--config", str(config), "--samples", "0", "--max_opening_share", "1"]
    assert main(command) == 0
    said = capsys.readouterr().out
    written = Counter(
        c.text
        for clip in open_manifest(data, "train")
        for c in clip.captions.get("audio", ())
        if c.origin == "synthetic"
    )
    if gate:
        assert f"the gate {gate} refused 12, which were dropped" in said and not written
    else:
        assert "refused" not in said and written == {says(k): 1 for k in range(12)}


@pytest.mark.parametrize(("how", "fault"), [("deaf", "it is deaf"), ("one row off", "mixes clips up"), ("right", "")])
def test_captioners_that_do_not_listen_end_the_command(
    tmp_path: Path, how: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(tmp_path / "d", 12, seconds=0.3, origins=(("real",),))
    listen = {"class_path": "tests.engine.test_probes.ScriptedCaptioner", "init_args": {"how": how}}
    config = tmp_path / "engine.yaml"
    config.write_text(json.dumps({"stages": {"listen": listen, "choose": {"class_path": "ChooseCaption"}}}))
    before = (data / "manifest/train.jsonl").read_bytes()
    assert main(["caption", str(data), "--config", str(config), "--samples", "0", "--max_opening_share", "1"]) == bool(
        fault
    )
    said = capsys.readouterr()
    assert (
        (fault in said.err and (data / "manifest/train.jsonl").read_bytes() == before)
        if fault
        else "wrote 12" in said.out
    )


def test_gates_leave_the_words_of_their_own_reasons_to_the_writer() -> None:
    """A reason is a sentence, for a model reads it."""
    for name in DEFAULT_GATES:
        gate: Any = build_gate(name)
        for text in (*LEAKING, *LOOPING, *QUOTING, *SEEING):
            reason = gate.check(Written("a", "audio", text, SAID))
            assert reason is None or (reason.startswith("it ") and len(reason) < 300)
