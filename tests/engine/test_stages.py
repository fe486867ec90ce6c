"""The stages that come with peav: the contract, and what each does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peav.engine.confidence import edges, word_of
from peav.engine.pipeline import Pipeline
from peav.engine.stage import Failed, stages
from peav.engine.stages import CaptionsFromFile, ChooseCaption, Measure, TemplateWriter
from peav.engine.stages.gates import Gates
from peav.testing import check_stage

RATE = 16000


def test_measure_finds_silence_loudness_black_frozen_letterbox_and_cuts() -> None:
    time = np.arange(4 * RATE) / RATE
    loud = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    loud[RATE : 2 * RATE] = 0
    moving = np.random.default_rng(0).integers(60, 250, (32, 3, 96, 96), dtype=np.uint8)
    scene = np.zeros((32, 3, 96, 96), np.uint8)
    scene[8:16] = 200
    scene[16:] = 60
    boxed = moving.copy()
    boxed[:, :, :24], boxed[:, :, 72:] = 0, 0
    batch: dict[str, Any] = {
        "id": list("abcdef"),
        "duration": [4.0] * 6,
        "audio": [loud, np.zeros(4 * RATE, np.float32), None, None, None, None],
        "frames": [None, None, moving, scene, boxed, moving[:1] * 0],
    }
    made = Measure()(batch)["measures"]
    assert made[0]["silence"] == pytest.approx(0.25, abs=0.02) and made[0]["loudness"] == pytest.approx(-9.0, abs=1.5)
    assert made[1] == {"silence": 1.0, "loudness": None}
    assert (made[2]["black"], made[2]["frozen"], made[2]["letterbox"]) == (0, 0, 0)
    assert made[3]["black"] == pytest.approx(0.25, abs=0.05) and made[3]["frozen"] > 0.7
    assert made[3]["cuts"] and made[3]["cuts"][0] == pytest.approx(1.0, abs=0.2)
    assert made[4]["letterbox"] == pytest.approx(0.5, abs=0.05)
    assert made[5] == {"black": 1.0, "frozen": 0.0, "letterbox": 0.0, "cuts": []}


def tag(phrase: str, medium: str = "audio", confidence: str = "high", **more: Any) -> dict[str, Any]:
    return {"phrase": phrase, "medium": medium, "confidence": confidence, "score": 1.0, "by": "t", **more}


def write(clip: str = "a", tags: Any = (), **more: Any) -> dict[str, str]:
    return TemplateWriter().write(clip, tags, more.pop("speech", {}), more.pop("candidates", ()), **more)


def test_the_template_writer_names_what_was_found_and_nothing_else() -> None:
    texts = write(tags=[tag("a dog barking"), tag("rain falling"), tag("a red bone", "video")])
    assert set(texts) == {"audio", "video", "audio_video"}
    assert "a dog barking" in texts["audio"] and "rain falling" in texts["audio"] and "bone" not in texts["audio"]
    assert "a red bone" in texts["video"] and "dog" not in texts["video"]
    assert all(word in texts["audio_video"] for word in ("a dog barking", "rain falling", "a red bone"))
    assert write(tags=[tag("a dog barking")], has_audio=False) == {} and write() == {}
    assert set(write(tags=[tag("a dog barking"), tag("a bone", "video")], has_video=False)) == {"audio"}


def test_low_confidence_is_hedged_and_only_named_where_there_is_nothing_better() -> None:
    low = write(tags=[tag("a dog barking", confidence="low")])["audio"]
    assert any(word in low for word in ("possibly", "perhaps", "might"))
    assert "rain" not in write(tags=[tag("a dog barking"), tag("rain", confidence="low")])["audio"]
    assert "audio_video" not in write(tags=[tag("a", confidence="low"), tag("b", "video", "low")])


def test_sounds_come_in_their_order_and_speech_is_named_without_its_words() -> None:
    for clip in map(str, range(20)):
        text = write(clip, [tag("a bell", spans=[[2.0, 3.0]]), tag("a horn", spans=[[0.0, 1.0]])])["audio"]
        assert text in (
            "a horn, then a bell",
            "a horn followed by a bell",
            "first a horn, after that a bell",
            "a bell after a horn",
            "a horn before a bell",
        )
    text = write(tags=[tag("rain")], speech={"text": "open the door"})["audio"]
    assert "a person speaking" in text and "rain" in text and "door" not in text
    assert "a person speaking" not in write(tags=[tag("a man speaking")], speech={"text": "x"})["audio"]


def test_a_second_attempt_takes_another_form_and_ids_spread_over_all() -> None:
    forms = {write(str(k), [tag("X")])["audio"] for k in range(200)}
    assert len(forms) == 5
    assert all(write(str(k), [tag("X")])["audio"] != write(str(k), [tag("X")], attempt=1)["audio"] for k in range(20))


def test_what_the_template_writer_says_passes_the_gates() -> None:
    writer, gate = TemplateWriter(), Gates()
    for k in range(50):
        texts = writer.write(
            str(k), [tag("a dog barking", confidence=("low", "medium", "high")[k % 3]), tag("a bone", "video")], {}, ()
        )
        made = gate({"id": ["a"], "texts": [texts], "real_transcript": [""], "has_audio": [True], "has_video": [True]})
        assert made["verdicts"] == [[]], made


def test_choose_takes_the_surest_caption() -> None:
    items = [
        {"kind": "audio", "text": "low", "confidence": "low", "score": 9.0},
        {"kind": "audio", "text": "medium", "confidence": "medium", "score": 1.0},
        {"kind": "audio", "text": "better", "confidence": "medium", "score": 2.0},
        {"kind": "video", "text": "seen"},
    ]
    assert ChooseCaption()({"id": ["a"], "candidates": [items]})["texts"] == [{"audio": "better", "video": "seen"}]
    assert ChooseCaption(keep=3)({"id": ["a"], "candidates": [items]})["texts"][0]["audio"] == ["better", "medium"]


def test_a_file_of_captions_is_joined_by_id_and_one_that_slipped_by_a_row_is_found(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(json.dumps({"id": f"c{k}", "text": f"t{k}", "duration": 1.0 + k}) for k in (2, 0)))
    stage = CaptionsFromFile(str(path))
    made = stage({"id": ["c0", "c1", "c2"], "duration": [1.0, 2.0, 3.0]})["candidates"]
    assert [[item["text"] for item in items] for items in made] == [["t0"], [], ["t2"]]
    slipped = stage({"id": ["c0", "c1", "c2"], "duration": [2.0, 3.0, 4.0]})["candidates"]
    assert isinstance(slipped[0], Failed) and "identity" in slipped[0].reason
    path.write_text('{"id": "a"}')
    with pytest.raises(ValueError, match="line 1"):
        CaptionsFromFile(str(path))


def test_words_of_confidence_are_thirds_of_the_sample() -> None:
    sample = np.random.default_rng(0).normal(size=999).tolist()
    words = [word_of(score, edges(sample)) for score in sample]
    assert [words.count(word) for word in ("low", "medium", "high")] == pytest.approx([333] * 3, abs=1)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "there is no stage"),
        ({"a": {"class_path": "Mesure"}}, "Measure"),
        ({"a": {"class_path": "Measure", "init_args": {"fsp": 3}}}, "fps"),
        ({"a": {"class_path": "ChooseCaption"}}, "reads 'candidates', which no stage before it provides"),
        ({"a": {"class_path": "PEAVTagger"}}, "needs model"),
        ({"a/b": {"class_path": "Measure"}}, "no name of a stage"),
        ({"a": {"class": "Measure"}}, "must be {class_path"),
        ({"a": {"class_path": "ModelWriter", "init_args": {"backend": {"class_path": "HTTP"}}}}, "HTTPBackend"),
    ],
)
def test_pipelines_that_cannot_be_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as error:
        Pipeline(config)
    assert said in str(error.value)


SMALL = {
    "Measure": {},
    "TemplateWriter": {},
    "ChooseCaption": {},
    "Gates": {},
    "CaptionsFromFile": {"path": "FILE"},
}


@pytest.mark.parametrize("name", SMALL)
def test_stages_keep_the_contract(name: str, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": "clip-0", "text": "rain"}')
    arguments = {key: str(path) if value == "FILE" else value for key, value in SMALL[name].items()}
    check_stage(stages.get(name), arguments)


def test_the_contract_finds_a_stage_that_breaks_it() -> None:
    class Bad(ChooseCaption):
        """Returns a row too few."""

        def __call__(self, batch: Any) -> Any:
            made = super().__call__(batch)
            return {"id": made["id"][1:], "texts": made["texts"]}

    class Positional(ChooseCaption):
        """Answers by place."""

        def __call__(self, batch: Any) -> Any:
            return {"id": batch["id"], "texts": [{"audio": str(k)} for k in range(len(batch["id"]))]}

    for broken, said in ((Bad, "rows"), (Positional, "order")):
        with pytest.raises(AssertionError, match=said):
            check_stage(broken, {})
