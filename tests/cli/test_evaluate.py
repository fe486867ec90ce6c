"""`peav evaluate` on what is not peav's own: embeddings, objectives and scales of a stranger's package; phrases as people write them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from peav.cli.main import main
from peav.data import Caption, open_manifest, save_manifest
from peav.data.manifests.identities import normalize_text
from tests.cli.test_commands import ROOT, TINY, checkpoint_in, overrides, pairs

#: A package of a stranger: it derives from `Encoder` and `Objective`, and shares nothing else with peav's classes.
PLUGIN = '''
import torch
import torch.nn.functional as F
from torch import nn

from peav.encoders import Encoder
from peav.objectives import Objective
from peav.registry import register_encoder, register_objective
from peav.types import Features, ObjectiveOutput


def letters(texts):
    ids = torch.zeros(len(texts), 40, dtype=torch.int64)
    for row, text in enumerate(texts):
        codes = [ord(letter) % 64 for letter in text[:40]]
        ids[row, : len(codes)] = torch.tensor(codes)
    return ids, ids >= 0


@register_encoder
class Letters(Encoder):
    """A bag of tokens."""

    provides = {
        "text_heading": ("captions.title",), "text_transcript": ("captions.audio",), "text_sound": ("events",),
        "text_spare": ("captions.video",),
    }
    tokenize = staticmethod(letters)
    vocab_size = 64

    def __init__(self, dim: int = 24) -> None:
        super().__init__()
        self.table = nn.Embedding(64, dim)
        self.dims = dict.fromkeys(self.provides, dim)

    def forward(self, inputs, names):
        found = {}
        for name in names:
            source = inputs[self.provides[name][0]]
            text = source.phrases if name == "text_sound" else source
            vectors = self.table(text.input_ids % 64) * text.mask.unsqueeze(-1)
            found[name] = Features(vectors.sum(1), text.present, text.group)
        return found


@register_encoder
class Shade(Encoder):
    """The mean picture, four by four."""

    provides = {"depth": ("video",)}

    def __init__(self, dim: int = 48) -> None:
        super().__init__()
        self.linear = nn.Linear(48, dim)
        self.dims = {"depth": dim}

    def forward(self, inputs, names):
        video = inputs["video"]
        frames = video.frames.float() / 255 * video.mask[:, :, None, None, None]
        mean = frames.sum(1) / video.mask.sum(1).clamp(min=1)[:, None, None, None]
        return {"depth": Features(self.linear(F.adaptive_avg_pool2d(mean, 4).flatten(1)), video.present, video.group)}


@register_objective
class Agree(Objective):
    """A sigmoid pair loss on one device, with a scale that is kept as it is."""

    def __init__(self, left: str, right: str, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.requires, self.pairs = (left, right), ((left, right),)
        self.sharpness, self.shift = nn.Parameter(torch.tensor(7.0)), nn.Parameter(torch.tensor(-2.0))

    def pair_scores(self):
        return {self.pairs[0]: (self.sharpness.detach().view(1), self.shift.detach().view(1))}

    @torch.no_grad()
    def set_pair_score(self, pair, scale, bias):
        self.sharpness.copy_(scale.squeeze())
        self.shift.copy_(bias.squeeze())

    def forward(self, embeddings, targets):
        left, right = (embeddings[name] for name in self.requires)
        logits = self.sharpness * left.pooled @ right.pooled.T + self.shift
        valid = left.present[:, None] & right.present
        signs = 2 * torch.eye(len(logits)) - 1
        count = (left.present & right.present).sum()
        return ObjectiveOutput(torch.where(valid, F.softplus(-signs * logits), 0).sum() / count.clamp(min=1), count)


@register_objective
class Spots(Objective):
    """Frames of audio against phrases, without a scale."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.requires, self.frames, self.targets = ("audio", "text_sound"), ("audio",), ("events",)
        self.frame_pair = ("audio", "text_sound")

    def forward(self, embeddings, targets):
        audio, phrases, events = embeddings["audio"], embeddings["text_sound"], targets["events"]
        labels = torch.zeros(*audio.mask.shape, len(phrases.pooled))
        for clip, phrase, onset, offset in zip(events.clip, events.phrase, events.onset, events.offset):
            hop = float(torch.as_tensor(audio.frame_seconds).flatten()[0])
            labels[clip, int(onset / hop) : int(offset / hop) + 1, phrase] = 1
        valid = audio.mask & (audio.present & events.annotated)[:, None]
        logits = 10 * audio.frames @ phrases.pooled.T - 3
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")[valid]
        return ObjectiveOutput(losses.sum() / max(losses.numel(), 1), labels[valid].sum().long())


@register_objective
class Loud(Objective):
    """Of one embedding alone: nothing to compare."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.requires = ("audio",)

    def forward(self, embeddings, targets):
        audio = embeddings["audio"]
        return ObjectiveOutput((audio.pooled[:, 0] * audio.present).sum(), audio.present.sum())
'''


def install(site: Path) -> dict[str, str]:
    """Makes the package importable and announced, and returns the environment in which it is."""
    info = site / "stranger-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[peav.plugins]\nstranger = stranger\n")
    (site / "stranger.py").write_text(PLUGIN)
    return {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}


def peav(environment: dict[str, str], *commands: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs commands one after the other in one fresh interpreter, which saves most of its start."""
    code = f"import sys; from peav.cli.main import main; sys.exit(max(main(words) for words in {list(commands)!r}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def config(path: Path, objectives: dict[str, Any]) -> str:
    held = yaml.safe_load(Path(TINY).read_text())
    held["model"]["encoders"] |= {"letters": {"class_path": "Letters"}, "shade": {"class_path": "Shade"}}
    held["model"]["objectives"] = objectives
    path.write_text(yaml.safe_dump(held))
    return str(path)


def agree(left: str, right: str) -> dict[str, Any]:
    return {"class_path": "Agree", "init_args": {"left": left, "right": right}}


@pytest.fixture(scope="module")
def titled(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world, in which two of three clips have two titles."""
    data = shutil.copytree(world, tmp_path_factory.mktemp("titled") / "data")
    for split in ("train", "validation", "test"):
        clips = list(open_manifest(data, split))
        two = [
            {"title": (Caption(f"{clip.domain} {row}"), Caption(f"no {row}"))} if row % 3 else {}
            for row, clip in enumerate(clips)
        ]
        save_manifest(data, split, [replace(c, captions={**c.captions, **t}) for c, t in zip(clips, two, strict=True)])
    return data


def test_embeddings_and_objectives_of_ones_own_are_evaluated(titled: Path, tmp_path: Path) -> None:
    environment = install(tmp_path / "site")
    path = config(
        tmp_path / "own.yaml",
        {
            "heading": agree("audio", "text_heading"),
            "depth": agree("depth", "text_transcript"),
            "plain": {"class_path": "CaptionPair", "init_args": {"medium": "audio", "caption": "audio"}},
            "spots": {"class_path": "Spots"},
        },
    )
    run, out = tmp_path / "run", tmp_path / "out"
    fit = ["fit", "--config", path, *overrides(titled, run), "--model.extra_embeddings=[text_spare]"]
    done = peav(environment, fit, ["evaluate", str(run / "checkpoints/last.ckpt"), str(titled), f"--out={out}"])
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "4 objectives train: " in line]
    assert "heading (audio, text_heading)" in said and "spots (audio, text_sound)" in said
    results = json.loads((out / "evaluation.json").read_text())
    test = list(open_manifest(titled, "test"))
    titles = sum(len(clip.captions.get("title", ())) for clip in test)
    captions = sum(len(clip.captions.get("audio", ())) for clip in test)
    spoken = sum(bool(clip.transcript) for clip in test)
    sizes = {name: d["plain"]["num_candidates"] for name, d in results["directions"].items()}
    assert sizes["audio->text_heading"] == titles and sizes["depth->text_transcript"] == captions
    assert sizes["text_heading->audio"] == sizes["text_transcript->depth"] == len(test)
    # What is said is still searched by the audio captions' head, under a name that the model has not taken.
    assert sizes["audio->text_audio_of_transcript"] == spoken and 0 < spoken != captions
    phrases = {normalize_text(event.phrase) for clip in test for event in clip.events or ()}
    assert len(results["frames"]["per_phrase"]) == len(phrases) and 0 < results["frames"]["micro"] < 1
    assert set(results["skipped"]) == {"text_spare"} and "'text_spare' is not evaluated" in done.stderr
    assert "depth → text_transcript" in (out / "report.html").read_text()
    read = (
        "import sys; from peav import PEAV; model = PEAV.from_pretrained(sys.argv[1]); "
        "print(sorted(model.pairs), *model.score(('audio', 'text_heading')))"
    )
    command = [sys.executable, "-c", read, str(run / "checkpoints/last.ckpt")]
    loaded = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "('audio', 'text_heading'), ('depth', 'text_transcript')" in loaded.stdout, loaded.stderr
    assert "tensor([7.0" in loaded.stdout or "tensor([6.9" in loaded.stdout  # after two steps still near its beginning


def test_a_model_in_which_nothing_can_be_compared_is_one_sentence(titled: Path, tmp_path: Path) -> None:
    environment = install(tmp_path / "site")
    path = config(tmp_path / "own.yaml", {"loud": {"class_path": "Loud"}})
    run, out = tmp_path / "run", tmp_path / "out"
    fit = ["fit", "--config", path, *overrides(titled, run)]
    done = peav(environment, fit, ["evaluate", str(run / "checkpoints/last.ckpt"), str(titled), f"--out={out}"])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("peav evaluate: there is nothing to evaluate: of ")
    assert not list(out.glob("*.html"))


def test_an_objective_is_added_to_those_of_a_yaml_and_the_log_says_so(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = "{class_path: FusionTeacher, init_args: {student: audio, bias: -3.4}}"
    options = ["--trainer.limit_val_batches=0", f"--model.objectives.mine={teacher}"]
    with caplog.at_level("INFO", "peav"):
        assert main(["fit", "--config", TINY, *overrides(world, tmp_path), *options]) == 0
    (line,) = [record.message for record in caplog.records if "objectives train" in record.message]
    assert line.startswith("12 objectives train: ") and "mine (audio, audio_video)" in line


def test_phrases_are_compared_as_in_training(world: Path, tmp_path: Path) -> None:
    """Spelling, case and a full stop make no other phrase: every number stays as it was."""
    gone = [f"--model.objectives.{name}=null" for name in pairs() if name not in ("audio", "frame")]
    assert main(["fit", "--config", TINY, *overrides(world, tmp_path / "run", *gone)]) == 0
    written = shutil.copytree(world, tmp_path / "data")
    clips, seen = [], set()
    for clip in open_manifest(written, "test"):
        events = None
        if clip.events is not None:
            events = []
            for event in clip.events:
                # The first stays as it is: it is the one that is embedded.
                changed = replace(event, phrase=f" {event.phrase.upper()}. ") if event.phrase in seen else event
                seen.add(event.phrase)
                events.append(changed)
        clips.append(clip if events is None else replace(clip, events=tuple(events)))
    save_manifest(written, "test", clips)
    found = []
    for data, out in ((world, tmp_path / "a"), (written, tmp_path / "b")):
        assert main(["evaluate", str(checkpoint_in(tmp_path / "run")), str(data), f"--out={out}"]) == 0
        found.append(json.loads((out / "evaluation.json").read_text())["frames"])
    assert len({event.phrase for clip in clips for event in clip.events or ()}) > len(seen)
    assert found[0] == found[1] and len(found[0]["per_phrase"]) == len(seen)
