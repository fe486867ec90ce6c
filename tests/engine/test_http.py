"""The HTTP backend against a server that does all that servers do."""

from __future__ import annotations

import base64
import io
import socket
import threading
import wave
from typing import Any

import numpy as np
import pytest
from PIL import Image

from peav.engine.backends import HTTPBackend, Request
from peav.engine.backends.http import _wait_of
from peav.engine.stage import EngineStop
from tests.engine.server import completion, serving


def ask(url: str, number: int = 1, **options: Any) -> list[Any]:
    backend = HTTPBackend(url, "tiny", **{"backoff_seconds": 0.01, "timeout_seconds": 5.0, "retries": 2, **options})
    try:
        return backend.answer([Request(f"clip-{k}", f"prompt {k}") for k in range(number)])
    finally:
        backend.close()


GOOD = (200, completion("a dog barks"))


@pytest.mark.parametrize(
    "first",
    [
        (429, {"error": "slow down"}),
        (500, b"oops"),
        (503, {}),
        (200, b"<html>garbage"),
        (200, {"error": {"message": "out of memory"}}),
        (200, {"choices": []}),
        (200, {"choices": [{"message": {"content": None}}]}),
        ("cut", completion("a dog barks")),
        ("hang", 0.0),
    ],
    ids=str,
)
def test_what_may_do_better_later_is_tried_again(first: Any) -> None:
    with serving(lambda number, body: first if number == 0 else GOOD) as server:
        [answer] = ask(server.url)
    assert (answer.text, answer.error, len(server.bodies)) == ("a dog barks", "", 2)
    assert (answer.tokens_in, answer.tokens_out, answer.finish) == (7, 3, "stop")


@pytest.mark.parametrize(
    ("what", "said"),
    [((500, b"oops"), "answered 500"), ((200, {"error": "gone"}), "holds an error"), ((200, b"{"), "no JSON")],
    ids=str,
)
def test_what_never_does_better_is_an_error_of_the_request(what: Any, said: str) -> None:
    with serving(lambda number, body: what) as server:
        [answer] = ask(server.url)
    assert said in answer.error and "tried 3 times" in answer.error and len(server.bodies) == 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_bad_request_is_not_tried_again(status: int) -> None:
    def do(number: int, body: Any) -> Any:
        return (status, {"error": "too long"}) if body["messages"][-1]["content"] == "prompt 1" else GOOD

    with serving(do) as server:
        answers = ask(server.url, 3)
    assert [bool(answer.error) for answer in answers] == [False, True, False] and len(server.bodies) == 3
    assert f"answered {status}" in answers[1].error


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_a_wrong_key_address_or_model_ends_the_run(status: int) -> None:
    with (
        serving(lambda number, body: (status, {}, {"location": "http://127.0.0.1:1/"})) as server,
        pytest.raises(EngineStop, match=str(status)),
    ):
        ask(server.url)


def test_a_server_that_refuses_connections_ends_the_run() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EngineStop, match="3 connections in a row were refused"):
        ask(f"http://127.0.0.1:{port}/v1", 50, max_refused=3)


def test_a_server_that_does_not_answer_in_time_is_an_error_of_the_request() -> None:
    with serving(lambda number, body: ("hang", 2.0)) as server:
        [answer] = ask(server.url, timeout_seconds=0.2, retries=1)
    assert "did not answer in time" in answer.error and "tried 2 times" in answer.error


def test_retry_after_is_heeded() -> None:
    with serving(lambda number, body: (429, {}, {"retry-after": "0.5"}) if number == 0 else GOOD) as server:
        ask(server.url)
    assert server.times[1] - server.times[0] >= 0.5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("-1", 0.0),
        ("soon", 0.0),
        ("1e9", 120.0),
        ("nan", 0.0),
        (None, 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_in_all_its_forms(header: str | None, seconds: float) -> None:
    assert _wait_of(header) == seconds


def test_concurrency_is_bounded_and_answers_are_in_the_order_of_the_requests() -> None:
    gate = threading.Barrier(3)

    def do(number: int, body: Any) -> Any:
        if number < 3:
            gate.wait(60)  # for the other two
        return 200, completion(body["messages"][-1]["content"])

    with serving(do) as server:
        answers = ask(server.url, 20, concurrency=3, timeout_seconds=60.0)
    assert [answer.text for answer in answers] == [f"prompt {k}" for k in range(20)] and server.most == 3


def test_sound_and_pictures_are_parts_of_their_own() -> None:
    audio, frames = np.linspace(-0.5, 0.5, 800, dtype=np.float32), np.full((2, 3, 8, 8), 200, np.uint8)
    with serving(lambda number, body: GOOD) as server:
        backend = HTTPBackend(server.url, "tiny", extra={"top_p": 0.5})
        backend.answer([Request("a", "listen", "be brief", audio, 8000, frames, max_tokens=9, temperature=0.3)])
        backend.close()
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == ("tiny", 9, 0.3, 0.5)
    system, user = body["messages"]
    assert system == {"role": "system", "content": "be brief"}
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["image_url", "image_url", "input_audio", "text"]
    picture = Image.open(io.BytesIO(base64.b64decode(user["content"][0]["image_url"]["url"].partition(",")[2])))
    assert picture.size == (8, 8)
    with wave.open(io.BytesIO(base64.b64decode(user["content"][2]["input_audio"]["data"]))) as sound:
        assert (sound.getframerate(), sound.getnframes(), sound.getnchannels()) == (8000, 800, 1)
        heard = np.frombuffer(sound.readframes(800), "<i2") / 32767
    assert np.abs(heard - audio).max() < 1e-4


def test_a_key_that_is_not_set_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ValueError, match="NO_SUCH_KEY"):
        HTTPBackend("http://127.0.0.1:1/v1", "tiny", api_key_env="NO_SUCH_KEY")
