"""What the hostile examples share: canaries that tell whether anything ran, and a model and data to spoil."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from peav.cli.main import main
from peav.opening import OutsideError
from peav.training import PeavModule
from tests.helpers import small_tokenizer

#: What a refused file may say; anything else is a fault of ours.
REFUSALS = (ValueError, RuntimeError, FileNotFoundError, OutsideError)

EVIL_MODULE = """
import pathlib
pathlib.Path({canary!r}).write_text("ran")
from peav.encoders import MelAudioEncoder
from peav.objectives import CaptionPair
class Evil(MelAudioEncoder): pass
class EvilPair(CaptionPair): pass
"""


class Bomb:
    """Runs when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


@dataclass(frozen=True)
class Scene:
    """Where an example is played.

    Attributes:
        folder: of its files.
        canary: exists once anything ran.
        secret: a file that nothing may read.
        model: a good model of ours, in a folder of its own.
        checkpoint: a good checkpoint of training.
        data: good prepared data.
    """

    folder: Path
    canary: Path
    secret: Path
    model: Path
    checkpoint: Path
    data: Path

    def change_config(self, change: Callable[[dict[str, Any]], None], name: str = "config.json") -> None:
        """Rewrites a JSON file of the model."""
        config = json.loads((self.model / name).read_text())
        change(config)
        (self.model / name).write_text(json.dumps(config))

    def change_checkpoint(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Rewrites the checkpoint."""
        saved = torch.load(self.checkpoint, weights_only=True)
        change(saved)
        torch.save(saved, self.checkpoint)

    def change_index(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Rewrites the index of the shards."""
        path = self.data / "shards" / "test" / "index.json"
        index = json.loads(path.read_text())
        change(index)
        path.write_text(json.dumps(index))

    def change_manifest(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Rewrites every line of the manifest."""
        path = self.data / "manifest" / "test.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            change(line)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def pickled(self, path: Path) -> None:
        """Writes a bare pickle that would run."""
        path.write_bytes(pickle.dumps(Bomb(self.canary)))

    @property
    def texts(self) -> Path:
        """A file of texts to embed."""
        path = self.folder / "texts.txt"
        path.write_text("a bell rings\n")
        return path

    def embed(self, model: Path | str | None = None, *more: str) -> list[str]:
        """The words of `peav embed`."""
        words = ["embed", "--model", str(model or self.model), "--text", str(self.texts), "--device", "cpu"]
        return [*words, "--workers", "0", "--out", str(self.folder / "out.npz"), *more]

    def evaluate(self, *more: str) -> list[str]:
        """The words of `peav evaluate`."""
        words = [
            "evaluate",
            str(self.checkpoint),
            str(self.data),
            "--out",
            str(self.folder / "report"),
            "--num_workers",
            "0",
        ]
        return [*words, "--device", "cpu", *more]


def module(**changes: Any) -> PeavModule:
    """A module that reads sound and texts."""
    encoders = {
        "audio": {
            "class_path": "MelAudioEncoder",
            "init_args": {"dim": 16, "num_layers": 1, "num_heads": 2, "num_mels": 16},
        },
        "text": {
            "class_path": "TextEncoder",
            "init_args": {
                "tokenizer": small_tokenizer(),
                "options": {
                    "hidden_size": 16,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "intermediate_size": 32,
                },
            },
        },
    }
    objectives = {"caption": {"class_path": "CaptionPair", "init_args": {"medium": "audio", "caption": "audio"}}}
    return PeavModule(**{"encoders": encoders, "objectives": objectives, "embedding_dim": 16, **changes})


def save(made: PeavModule, path: Path) -> Path:
    """Writes a checkpoint as `peav fit` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    media = {
        "sample_rate": 16000,
        "num_frames": 8,
        "fps": None,
        "frame_size": 64,
        "downmix": "meta",
        "sampling": "time",
    }
    torch.save(
        {
            "state_dict": made.state_dict(),
            "hyper_parameters": dict(made.hparams),
            "datamodule_hyper_parameters": media,
            "pytorch-lightning_version": "2.6.6",
            "global_step": 0,
            "epoch": 0,
        },
        path,
    )
    return path


def refused_by_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command that must refuse, and returns what it says: one line of its own, and no traceback."""
    try:
        status = main(words)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    said = capsys.readouterr().err
    assert status != 0, f"peav {' '.join(words)} went through"
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.startswith((f"peav {words[0]}", "error:"))]
    assert len(lines) == 1, said
    assert 20 < len(lines[0]) < 1200, lines[0]
    return lines[0]


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns size and time of every file below a folder."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }
