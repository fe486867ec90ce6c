"""Stages that ask a model: what they ask, what they make of answers, and a model of transformers in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peav.engine.backends import Answer, Request, TransformersBackend
from peav.engine.backends.answers import plain_text, read_captions
from peav.engine.engine import caption
from peav.engine.job import Job, JobSpec
from peav.engine.pipeline import Pipeline, errors_of
from peav.engine.publish import PublishOptions
from peav.engine.stage import EngineStop, Failed
from peav.engine.stages.model import ModelWriter
from tests.engine.data import config, write_clips
from tests.engine.server import completion, serving
from tests.engine.tiny_models import language_model, model_that_hears, model_that_sees


def http(url: str, **more: Any) -> dict[str, Any]:
    return {"class_path": "HTTPBackend", "init_args": {"url": url, "model": "tiny", "retries": 0, **more}}


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (
            '{"audio": "rain", "video": null, "audio_video": "rain on a street"}',
            {"audio": "rain", "audio_video": "rain on a street"},
        ),
        ('```json\n{\'audio\': 1}\n```\n{"audio": "rain"}', {"audio": "rain"}),
        ('{"audio": "she says \\"hi\\"", "video": "a', {"audio": 'she says "hi"'}),
        ('Audio-visual caption: "both"', {"audio_video": "both"}),
        ("I cannot do that", {}),
        ('<think>{"audio": "no"}</think>{"audio": "yes"}', {"audio": "yes"}),
        ("[" * 100_000, {}),
    ],
)
def test_captions_are_read_out_of_whatever_wraps_them(answer: str, found: dict[str, str]) -> None:
    assert read_captions(answer) == found


def test_plain_text() -> None:
    assert plain_text("```\na\nb\n```") == "a b" and plain_text('"') == '"'


class Fixed:
    """Answers what it is told."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.asked = list(answers), []  # type: ignore[var-annotated]

    def answer(self, requests: Any) -> list[Answer]:
        self.asked += requests
        return [self.answers.pop(0) for _ in requests]


def test_the_writer_gives_words_of_confidence_and_no_numbers() -> None:
    writer = ModelWriter(http("http://127.0.0.1:1/v1"))
    fixed = Fixed(Answer('{"audio": "rain", "video": "x"}', "length"), Answer("no"))
    writer.backend = fixed  # type: ignore[assignment]
    tags = [{"phrase": "rain", "medium": "audio", "score": 0.9345, "confidence": "high"}]
    batch: dict[str, Any] = {
        "id": ["a", "b", "c"],
        "tags": [tags, tags, []],
        "speech": [None, {"text": "open the door", "language": "en"}, None],
        "has_audio": [True] * 3,
        "has_video": [False] * 3,
        "reasons": [["audio: it leaks"], [], []],
    }
    made = writer(batch)
    assert [request.id for request in fixed.asked] == ["a", "b"]  # of the third nothing is known
    asked = [request.text for request in fixed.asked]
    assert "heard: rain (high confidence)" in asked[0] and "audio: it leaks" in asked[0] and "93" not in asked[0]
    assert "open the door" not in asked[1] and "speaks in English" in asked[1]
    assert made["texts"][0] == {"audio": "rain"} and made["finish"][0] == {"audio": "length"}
    assert isinstance(made["texts"][1], Failed) and made["texts"][2] == {}


def test_a_writer_of_one_type_takes_a_sentence_alone_and_one_of_several_does_not() -> None:
    batch: dict[str, Any] = {"id": ["a"], "tags": [[{"phrase": "rain", "medium": "audio"}]]}
    batch |= {"has_audio": [True], "has_video": [True]}
    for answer, one in (
        ('"Rain falls."', {"audio": "Rain falls."}),
        ('{"audio": "Rain."}', {"audio": "Rain."}),
        ('{"video": "x"', None),
        ("", None),
    ):
        for kinds in (["audio"], ["audio", "video"]):
            writer = ModelWriter(http("http://127.0.0.1:1/v1"), kinds=kinds)
            writer.backend = Fixed(Answer(answer))  # type: ignore[assignment]
            made = writer(batch)["texts"][0]
            if one and (len(kinds) == 1 or answer.startswith("{")):
                assert made == one
            elif answer.startswith("{") and len(kinds) == 2:
                assert made == {"video": "x"}
            else:
                assert isinstance(made, Failed), (answer, kinds, made)


def test_a_whole_run_by_http_with_a_bad_request_and_a_repair(tmp_path: Path) -> None:
    def do(number: int, body: Any) -> Any:
        prompt = body["messages"][-1]["content"]
        if "clip-3" in prompt:
            return 400, {"error": "too long"}
        if "clip-4" in prompt and "refused" not in prompt:
            return 200, completion('{"audio": "rain 0.93"}')
        return 200, completion('{"audio": "rain on a roof"}')

    data = write_clips(tmp_path / "d", 8)
    with serving(do) as server:
        stages = {
            "tags": config()["tags"],
            "write": {"class_path": "ModelWriter", "init_args": {"backend": http(server.url, licence="Apache-2.0")}},
            "gate": {"class_path": "Gates", "init_args": {"rewrite": "write"}},
        }
        done = caption(JobSpec(str(data), stages), PublishOptions(), samples=0)
    assert done.failed == 1 and done.published.captions == {"audio": 7}
    assert done.published.survey.verdicts == {("leak", "rewritten"): 1}
    assert '"models": {"tiny": "Apache-2.0"}' in (data / "provenance" / "train.jsonl").read_text()
    assert len(server.bodies) == 9
    # The server says 7 tokens in and 3 out; the gate pays for what it has written again, and nobody for what failed.
    assert done.timing.tokens["write"] == (7 * 7, 7 * 3) and done.timing.tokens["gate"] == (7, 3)
    assert "49 tokens in, 21 out" in done.page.read_text() and done.timing.tokens_of("tags") == ""
    job = Job(JobSpec(str(data), stages))
    assert "answered 400" in job.file(job.parts[0], "write").load()["clip-3"]["failed"]


def test_keys_follow_the_model_and_the_prompt_and_not_the_address(tmp_path: Path) -> None:
    def key(prompt: str = "p", url: str = "http://a/v1", **more: Any) -> str:
        held = {
            "tags": config()["tags"],
            "write": {"class_path": "ModelWriter", "init_args": {"backend": http(url, **more), "prompt": prompt}},
        }
        return Pipeline(held).stages["write"].key

    assert key() == key(url="http://b/v1") == key(concurrency=3) == key(timeout_seconds=1.0)
    assert len({key(), key("q"), key(revision="2"), key(extra={"top_p": 1})}) == 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("model"))


def test_a_model_of_transformers_answers_the_same_in_any_batch(tiny: Path) -> None:
    requests = [Request(str(k), "prompt " * (k + 1), "system" if k % 2 else "", max_tokens=6) for k in range(5)]
    answers = TransformersBackend(str(tiny), batch_size=3).answer(requests)
    alone = TransformersBackend(str(tiny), batch_size=1).answer(requests)
    assert [answer.text for answer in answers] == [answer.text for answer in alone]
    assert all(answer.finish == "length" and answer.tokens_out == 6 for answer in answers if answer.text)
    assert answers[4].tokens_in > answers[0].tokens_in > 0


def test_a_class_that_transformers_lacks_is_an_error(tiny: Path) -> None:
    with pytest.raises(ValueError, match="AutoModelForEverything"):
        TransformersBackend(str(tiny), auto_class="AutoModelForEverything")


@pytest.fixture(scope="module")
def hears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_that_hears(tmp_path_factory.mktemp("hears"))


def test_a_model_of_transformers_hears_arrays_of_its_clip(hears: Path) -> None:
    random = np.random.default_rng(0)
    sounds = [random.normal(0, 0.3, size).astype(np.float32) for size in (16000, 8000, 12000)]
    requests = [
        Request(str(k), "what is heard?", "be brief", audio=sound, max_tokens=5) for k, sound in enumerate(sounds)
    ]
    options: dict[str, Any] = {"auto_class": "AutoModelForMultimodalLM"}
    answers = TransformersBackend(str(hears), batch_size=2, **options).answer(
        [*requests, Request("t", "no sound", max_tokens=5)]
    )
    assert [answer.tokens_out for answer in answers] == [5] * 4
    # A longer sound is more tokens of the prompt: it was heard, and at the length that it has.
    assert answers[0].tokens_in > answers[2].tokens_in > answers[1].tokens_in > answers[3].tokens_in
    alone = TransformersBackend(str(hears), batch_size=1, **options).answer(requests)
    assert [answer.text for answer in alone] == [answer.text for answer in answers[:3]]


def test_a_model_of_transformers_sees_the_frames_of_its_clip(tmp_path: Path) -> None:
    sees = model_that_sees(tmp_path)
    random = np.random.default_rng(0)
    frames = [random.integers(0, 255, (number, 3, 32, 32), dtype=np.uint8) for number in (2, 4, 2)]
    requests = [Request(str(k), "what is seen?", "be brief", frames=one, max_tokens=5) for k, one in enumerate(frames)]
    options: dict[str, Any] = {"auto_class": "AutoModelForMultimodalLM"}
    answers = TransformersBackend(str(sees), batch_size=2, **options).answer(requests)
    assert answers[1].tokens_in > answers[0].tokens_in == answers[2].tokens_in > 10
    alone = TransformersBackend(str(sees), batch_size=1, **options).answer(requests)
    assert [answer.text for answer in answers] == [answer.text for answer in alone]


@pytest.mark.parametrize("model", ["runs/engine/nothing_here", "nobody/nothing"])
def test_a_model_that_is_not_there_is_said_in_one_line(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, arguments in (
        ("ModelWriter", {"backend": {"class_path": "TransformersBackend", "init_args": {"model": model}}}),
        ("ModelTranscriber", {"model": model}),
    ):
        planned = Pipeline({"s": {"class_path": name, "init_args": arguments}}).stages["s"]
        said = f"stages.s: there is no model '{model}': no folder has that name"
        with pytest.raises(EngineStop, match=said) as error, errors_of("stages.s"):
            planned.build()
        assert "\n" not in str(error.value)
