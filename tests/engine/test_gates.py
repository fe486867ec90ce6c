"""Gates: each catches the captioner that it was made for, lets the right one pass, and leaves the world's own captions alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from peav.data.synthetic.captions import captions, transcript
from peav.data.synthetic.sources import BY_NAME
from peav.data.synthetic.world import sample_world
from peav.engine.gates import Degenerate, Gate, Leak, OtherMedium, SpeechContent, Support, Written, gates, register_gate
from peav.engine.gates.words import longest_common_run
from peav.engine.stage import Columns, Stage
from peav.engine.stages.gates import Gates, build_gate


def judge(
    text: Any, kind: str = "audio", said: str = "", stage: Gates | None = None, **columns: Any
) -> tuple[Any, list[Any]]:
    batch: Columns = {
        "id": ["a"],
        "texts": [{kind: text}],
        "real_transcript": [said],
        "has_audio": [True],
        "has_video": [True],
    }
    made = (stage or Gates())({**batch, **{name: [value] for name, value in columns.items()}})
    return made["texts"][0], made["verdicts"][0]


RIGHT = [
    ("audio", "A dog barks twice, then rain falls on a roof."),
    ("audio", "White noise behind a man speaking in a low voice"),
    ("audio", "a bell ringing at a high pitch, high and bright"),
    ("video", "A brown dog runs over a lawn in front of a red house."),
    ("audio_video", "A brown dog barks on a lawn while a car is heard off screen."),
    ("audio", "Café chatter, clinking glasses"),
]


@pytest.mark.parametrize(("kind", "text"), RIGHT[:5])
def test_the_right_captioner_passes(kind: str, text: str) -> None:
    assert judge(text, kind, "good morning everyone") == ({kind: text}, [])


LEAKING = [
    "Dog (0.93), rain (0.4)",
    "a dog barks with 93% probability",
    "[dog] barks",
    "The labels are dog and rain",
    "a dog barks, low confidence",
    "As an AI language model I cannot hear",
    "Sure, here is a caption: a dog barks",
    "This audio clip contains a dog",
    "a dog barks <script>alert(1)</script>",
    "eine Katze und собака",
    "a dog\x00barks",
    "a dog barks \u202e",
    "a dog barks https://example.org",
    "write one sentence: a dog barks",
]


@pytest.mark.parametrize("text", LEAKING)
def test_a_leaking_captioner_is_caught(text: str) -> None:
    stage = Gates([{"class_path": "Leak", "init_args": {"fragments": ["Write one sentence"]}}])
    assert [v["gate"] for v in judge(text, stage=stage)[1]] == ["leak"]


@pytest.mark.parametrize(
    "text",
    [
        "!!!!!!!!!!!!!!!!!!!!",
        "a dog a dog a dog barks and a dog barks and a dog barks",
        "rain rain rain",
        "...",
        "word " * 100_000,
        "the sound of a majestic chicken and a majestic chicken and a majestic chicken and a majestic chicken",
    ],
)
def test_a_looping_captioner_is_caught(text: str) -> None:
    texts, verdicts = judge(text)
    assert [v["gate"] for v in verdicts] == ["degenerate"] and not texts and len(verdicts[0]["text"]) <= 500


def test_what_was_cut_by_the_limit_of_tokens_is_caught() -> None:
    assert judge("a dog barks and", finish={"audio": "length"})[1][0]["reason"] == "it was cut by the limit of tokens"
    assert judge("a dog barks and rain", finish={"video": "length"})[1] == []


@pytest.mark.parametrize("text", ["", "   ", 7, None, ["a", "b"]])
def test_a_captioner_that_returns_nothing_or_no_text_is_caught(text: Any) -> None:
    given = [text] if text != ["a", "b"] else text
    _, verdicts = judge(given)
    assert ([v["gate"] for v in verdicts] == ["degenerate"]) == (text != ["a", "b"])


def test_a_captioner_that_quotes_the_speech_is_caught() -> None:
    said = "Open the door, please, and come in"
    assert judge("a woman says open the door please", said=said)[1][0]["gate"] == "speech_content"
    assert judge("a woman speaks at the door", said=said)[1] == []
    assert judge("a sign reads: open the door please", "video", said)[1] == []
    # What the engine itself heard counts, too.
    assert judge("a woman says open the door please", speech={"text": said})[1][0]["gate"] == "speech_content"


def test_the_longest_run_is_the_one_of_brute_force() -> None:
    left, right = ["a", "b", "c", "d", "a", "b"], ["x", "a", "b", "c", "y", "d", "a", "b"]
    runs = {tuple(left[i:j]) for i in range(6) for j in range(i + 1, 7)} & {
        tuple(right[i:j]) for i in range(8) for j in range(i + 1, 9)
    }
    assert len(longest_common_run(left, right)) == max(map(len, runs)) == 3
    assert longest_common_run([], ["a"]) == []


@pytest.mark.parametrize(
    "text",
    [
        "a brown dog barks",
        "a man wearing a hat speaks",
        "a dog can be seen",
        "text on the screen",
        "a close-up of a bell",
    ],
)
def test_seeing_in_the_audio_caption_is_caught(text: str) -> None:
    assert [v["gate"] for v in judge(text)[1]] == ["other_medium"]
    assert judge(text, "video")[1] == []


def test_hearing_in_the_video_caption_is_caught() -> None:
    assert judge("a dog on a lawn, we hear it bark", "video")[1][0]["reason"] == "it says 'hear', which is only heard"
    assert (
        judge("loud music", "video", stage=Gates([{"class_path": "OtherMedium", "init_args": {"allowed": ["Loud"]}}]))[
            1
        ]
        == []
    )


class Writer(Stage):
    """Writes better when it is told why."""

    def __init__(self, second: str | None) -> None:
        self.second, self.asked = second, []  # type: ignore[var-annotated]

    def __call__(self, batch: Columns) -> Columns:
        self.asked.append((batch["id"], batch["attempt"], batch["reasons"]))
        return {"id": batch["id"], "texts": [{"audio": self.second} if self.second else {} for _ in batch["id"]]}


@pytest.mark.parametrize(
    ("second", "outcome"), [("a dog barks", "rewritten"), ("a red dog", "dropped"), (None, "dropped")]
)
def test_what_is_refused_is_written_once_more_then_dropped(second: str | None, outcome: str) -> None:
    writer, stage = Writer(second), Gates(rewrite="write")
    stage.bind({"write": writer})
    texts, verdicts = judge("a brown dog barks", stage=stage)
    assert len(writer.asked) == 1 and writer.asked[0][2] == [["audio: it says 'brown', which is only seen"]]
    assert verdicts[0]["outcome"] == outcome and texts == ({"audio": "a dog barks"} if outcome == "rewritten" else {})


def test_a_writer_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="no stage before it is called 'wrte'"):
        Gates(rewrite="wrte").bind({"write": Writer("")})


class Knows(Stage):
    """A tagger with a vocabulary."""

    provides = ("tags", "support")
    vocabulary = {  # noqa: RUF012  of a test
        "audio": [
            *(
                "a dog barking",
                "Chicken, rooster",
                "Rain, falling",
                "a bell ringing",
                "Speech",
                "Wolf",
                "Sewing machine",
            ),
            *("Hiss", "Electric guitar", "Theme music", "Biting", "Baby cry, infant cry", "String section"),
        ],
        "video": ["a red house", "a dog"],
    }

    def __call__(self, batch: Columns) -> Columns:
        return {"id": batch["id"], "tags": [[]], "support": [[]]}


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("audio", "dogs bark in the rain", ""),
        ("audio", "a majestic chicken, and a dog that barks", "chicken"),
        ("audio", "a dog barks while a bell rings", "bell"),
        ("audio", "a dog barks near a waterfall", ""),  # nobody knows waterfalls
        ("audio", "someone speaks, a dog barks", ""),
        ("audio", "a dog barks, and no bell rings", ""),
        ("audio", "rain without any chickens or roosters", ""),
        ("audio", "a dog barks like a rooster", ""),
        ("audio", "no bell but a rooster", "rooster"),
        ("audio", "rain, and what sounds like a rooster", "rooster"),
        ("audio", "possibly a bell", "bell"),
        ("audio", 'a dog barks, someone says "the bell!"', ""),
        ("audio", "wolves howl in the rain", "wolves"),
        ("audio", "babies cry", "babies"),
        ("audio", "a man and his dog, a bit of rain for them", ""),
        ("audio", "an electric kettle and a washing machine", ""),
        ("audio", "a sewing machine", "sewing"),
        ("audio", "a brass section", ""),
        ("audio", "steam hissed", "hissed"),
        ("video", "a house", ""),
        ("video", "a dog in front of a house", "dog"),  # heard, not seen
        ("audio_video", "a dog barks in front of a house", ""),
        ("audio_video", "a rooster on a house", "rooster"),
    ],
)
def test_a_captioner_that_names_what_is_not_there_is_caught(kind: str, text: str, found: str) -> None:
    stage = Gates(gates=["Support"])
    stage.bind({"tags": Knows()})
    support = [["audio", "a dog barking"], ["audio", "Rain, falling"], ["video", "a red house"]]
    texts, verdicts = judge(text, kind, stage=stage, support=support)
    assert texts == ({} if found else {kind: text})
    assert [verdict["gate"] for verdict in verdicts] == (["support"] if found else [])
    assert all(repr(found) in verdict["reason"] for verdict in verdicts)
    # Of a clip that the tagger could not see nothing is known.
    assert judge(text, kind, stage=stage, support=None) == ({kind: text}, [])


def test_support_needs_a_tagger_and_leaves_alone_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="such as YAMNetTagger"):
        Gates(gates=["Support"]).bind({})
    gate = Support(allowed=["bells"])
    gate.bind({"tags": Knows()})
    assert gate.check(Written("a", "audio", "a bell", columns={"support": []})) is None
    assert gate.check(Written("a", "audio", "a dog", columns={"support": []})) is not None


@pytest.mark.parametrize("config", ["Leek", {"class_path": "Leak", "init_args": {"fragment": []}}])
def test_a_gate_that_is_not_known_is_an_error(config: Any) -> None:
    with pytest.raises(ValueError, match=r"Leak|fragments"):
        build_gate(config)


def test_every_gate_is_registered_and_says_nothing_of_other_types() -> None:
    assert set(gates) >= {"Leak", "Degenerate", "SpeechContent", "OtherMedium"}
    assert "title" not in OtherMedium().kinds and "video" not in SpeechContent().kinds
    assert (
        Leak().check(Written("a", "audio", "rain")) is None
        and Degenerate().check(Written("a", "audio", "rain")) is None
    )


def test_a_gate_of_ones_own() -> None:
    class NoCats(Gate):
        """Cats are not wanted."""

        reason_name = "cats"

        def check(self, caption: Written) -> str | None:
            return "cats" if "cat" in caption.text else None

    register_gate(NoCats)
    try:
        assert judge("a cat", stage=Gates(["NoCats"]))[1][0]["gate"] == "cats"
    finally:
        gates._classes.pop("NoCats")


def test_support_by_what_the_world_knows_refuses_nothing_of_its_clips_and_nearly_all_of_others() -> None:
    class Oracle(Stage):
        vocabulary = {  # noqa: RUF012  of a test
            "audio": [source.phrase for source in BY_NAME.values()],
            "video": sorted({f"a {source.look}" for source in BY_NAME.values()}),
        }

        def __call__(self, batch: Columns) -> Columns:
            return batch

    gate = Support()
    gate.bind({"tags": Oracle()})
    scenes, own, others, caught = sample_world(400, seed=11), list[str](), 0, 0
    for scene, other in pairwise(scenes):
        support = [["audio", event.source.phrase] for event in scene.events]
        support += [["video", f"a {thing.look}"] for thing in scene.things]
        known = {"support": support}
        reasons = [gate.check(Written("a", kind, text, columns=known)) for kind, text in captions(scene).items()]
        own += [reason for reason in reasons if reason]
        if {event.source.name for event in scene.events} & {event.source.name for event in other.events}:
            continue
        for kind, text in captions(other).items():
            others, caught = others + 1, caught + bool(gate.check(Written("a", kind, text, columns=known)))
    assert own == [] and others > 800 and caught / others > 0.99


def test_false_alarms_on_the_worlds_own_captions_are_under_one_percent() -> None:
    stage, number, alarms, quoting, caught = Gates(), 0, [], 0, 0
    for scene in sample_world(400, seed=11):
        said = transcript(scene) or ""
        for kind, text in captions(scene).items():
            verdicts = judge(text, kind, said, stage)[1]
            quotes = '"' in text and kind != "video"
            number, quoting = number + (not quotes), quoting + quotes
            caught += bool(quotes and verdicts and verdicts[0]["gate"] == "speech_content")
            alarms += [(text, v) for v in verdicts if not quotes]
    assert number > 900 and len(alarms) / number < 0.01, alarms[:3]
    # The world's captions that quote what is said are what the gate is for.
    assert quoting > 30 and caught == quoting
