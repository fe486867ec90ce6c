"""`peav tune`: thresholds of phrases from a validation split, stored with the model and used by `detect`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from peav.checkpoints import MediaSettings
from peav.cli.main import main
from peav.data.loading.decoding import ClipReader, DecodeSettings
from peav.evaluation.collect import Split, clip_texts
from peav.evaluation.detection import Intersection, ScoredClip, best_thresholds, f1_score
from peav.inputs import detection_rules
from peav.model import PEAV
from peav.spans import median_filter
from tests.helpers import SMALL_ENCODERS
from tests.inputs.helpers import HOP, RATE


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    encoders = {"audio": SMALL_ENCODERS["DacAudioEncoder"](), "text": SMALL_ENCODERS["TextEncoder"]()}
    media = MediaSettings(sample_rate=RATE, frame_size=32)
    made = PEAV(encoders, ["text_event"], 8, frames=["audio"], pairs=[("audio", "text_event")], media=media)
    for name, parameter in made.named_parameters():
        if parameter.ndim > 1 and "frontend" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    made.set_score(("audio", "text_event"), torch.tensor([4.0]), torch.tensor([-0.1]))
    return made.save_pretrained(tmp_path_factory.mktemp("model") / "frames")


def test_thresholds_are_the_best_of_the_split_and_travel_with_the_model(
    model: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tuned"
    words = ["tune", str(model), str(world), f"--out={out}", "--median_seconds=0.36", "--threshold=0.42"]
    assert main(words) == 0
    assert "clips of the validation split" in capsys.readouterr().out
    tuned = PEAV.from_pretrained(out)
    settings = tuned.detection
    assert settings is not None and settings.median_seconds == 0.36 and settings.threshold == 0.42
    # By hand: embeddings, logits, filter, and the thresholds with the highest F1.
    split = Split(world, "validation")
    clips = [clip for clip in split if clip.has_audio and clip_texts(clip).events is not None]
    phrases = list(dict.fromkeys(event[0] for clip in clips for event in clip_texts(clip).events or []))
    reader = ClipReader(split.data, DecodeSettings(RATE))
    plain = PEAV.from_pretrained(model)
    text = plain.embed(text=phrases)
    scored = []
    for clip in clips:
        frames = plain.embed(audio=reader.samples(clip).numpy(), sample_rate=RATE)
        with torch.no_grad():
            p = plain.similarity({"audio_frames": frames["audio_frames"]}, text).sigmoid()[0]
        events = [(phrases.index(phrase), a, b) for phrase, a, b in clip_texts(clip).events or [] if a < b]
        scores = median_filter(p.double(), 0.36, HOP).T.numpy()
        scored.append(ScoredClip(scores, np.arange(len(scores) + 1) * HOP, events))
    expected, reached = best_thresholds(scored, Intersection())
    usable = {phrase: t for phrase, t, f in zip(phrases, expected.tolist(), reached, strict=True) if f}
    assert len(usable) > 3
    assert {phrase: settings.threshold_of(phrase) for phrase in usable} == {
        phrase: pytest.approx(t, abs=1e-5) for phrase, t in usable.items()
    }
    rules = detection_rules(tuned, [*usable, "never heard of"])
    assert rules.tuned == len(usable) and rules.thresholds[-1] == 0.42
    # It is written over by nobody, and other formats say what they leave out.
    assert main(words) == 1 and "is there already" in capsys.readouterr().err


def test_thresholds_are_the_best_with_hysteresis_gaps_and_short_spans(
    model: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """They are chosen by the spans that `detect` makes, which with these rules do not grow frame by frame as a threshold falls."""
    rules = ["--low_threshold=0.6", "--merge_seconds=0.13", "--min_seconds=0.3", "--threshold=0.42"]
    with caplog.at_level("INFO"):
        assert main(["tune", str(model), str(world), f"--out={tmp_path / 'used'}", *rules]) == 0
    assert "of their own" not in caplog.text  # nothing is tuned yet: there is nothing to say of it
    said = float(re.findall(r"mean intersection F1 there, which flatters: ([0-9.]+)", capsys.readouterr().out)[0])
    assert main(["tune", str(model), str(world), f"--out={tmp_path / 'plain'}", rules[-1]]) == 0
    tuned, plain = PEAV.from_pretrained(tmp_path / "used"), PEAV.from_pretrained(tmp_path / "plain")
    assert tuned.detection is not None and plain.detection is not None
    as_plain = PEAV.from_pretrained(tmp_path / "used")
    as_plain.detection = replace(tuned.detection, thresholds=plain.detection.thresholds)
    mean, other = _mean_f1(tuned, world), _mean_f1(as_plain, world)
    assert mean == pytest.approx(said, abs=6e-4)
    assert mean > other


def _mean_f1(model: PEAV, world: Path) -> float:
    """Intersection F1 of what `detect` finds on the validation split: the mean over phrases that have a threshold of their own."""
    split = Split(world, "validation")
    clips = [clip for clip in split if clip.has_audio and clip_texts(clip).events is not None]
    phrases = list(dict.fromkeys(event[0] for clip in clips for event in clip_texts(clip).events or []))
    reader = ClipReader(split.data, DecodeSettings(RATE))
    scored = []
    for clip in clips:
        spans = model.detect(reader.samples(clip).numpy(), phrases, sample_rate=RATE)[0]
        middle = (np.arange(round(np.ceil(clip.duration / HOP))) + 0.5) * HOP
        active = [np.any([(s.onset < middle) & (middle < s.offset) for s in of] or [middle < 0], 0) for of in spans]
        events = [(phrases.index(phrase), a, b) for phrase, a, b in clip_texts(clip).events or [] if a < b]
        times = np.arange(len(middle) + 1) * HOP
        scored.append(ScoredClip(np.stack(active, 1).astype(np.float64), times, events))
    found = f1_score(scored, Intersection(), 0.5).per_label
    assert model.detection is not None
    own = [f for p, f in zip(phrases, found, strict=True) if model.detection.threshold_of(p) is not None]
    return float(np.mean([f for f in own if f is not None]))


def test_formats_that_cannot_hold_settings_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from peav.checkpoints import DetectionSettings
    from tests.checkpoints.test_formats import released_like

    made = released_like(seed=8, frame_level=True)
    made.detection = DetectionSettings(threshold=0.4)
    for name, format in (("Meta's", "meta"), ("transformers'", "transformers")):
        caplog.clear()
        folder = made.save_pretrained(tmp_path / format, format)  # type: ignore[arg-type]
        assert f"{name} format holds no settings of detection" in caplog.text
        assert PEAV.from_pretrained(folder).detection is None
    caplog.clear()
    assert PEAV.from_pretrained(made.save_pretrained(tmp_path / "own")).detection == made.detection
    assert "no settings" not in caplog.text


def test_a_model_without_frames_is_named(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.checkpoints.test_formats import released_like

    folder = released_like(seed=7).save_pretrained(tmp_path / "pe_av")
    assert main(["tune", str(folder), str(world), f"--out={tmp_path / 'x'}"]) == 1
    assert "makes no audio frames" in capsys.readouterr().err and not (tmp_path / "x").exists()
