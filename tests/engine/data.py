"""Folders of clips without media, for stages that look at none, and stages that play a part."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from peav.data.manifests.clip import Clip
from peav.data.manifests.manifest import write_manifest
from peav.data.manifests.texts import Caption
from peav.engine.stage import Columns, EngineStop, Failed, Stage, register_stage


def write_clips(data: Path, number: int = 10, **changes: Any) -> Path:
    """A folder with a manifest of clips that nothing was packed of."""
    clips = [
        Clip(
            f"clip-{k}",
            2.0 + k,
            captions={"audio": (Caption(f"real words {k}"),)} if k % 5 == 0 else {},
            has_audio=True,
            has_video=k % 2 == 0,
            row=k,
            media_duration=2.0 + k,
            crc32=1000 + k,
            audio_group=k,
            video_group=k if k % 2 == 0 else -1,
            store="shards/train",
            **changes,
        )
        for k in range(number)
    ]
    write_manifest(data / "manifest" / "train.jsonl", clips)
    return data


class Counting(Stage):
    """Notes in a file which clips it saw."""

    def __init__(self, log: str = "", say: str = "x") -> None:
        self.log, self.say = log, say

    @classmethod
    def identity(cls, init_args: Any) -> Any:
        return {}

    def note(self, batch: Columns) -> None:
        if self.log:
            with open(self.log, "a") as stream:
                stream.writelines(f"{type(self).__name__} {name}\n" for name in batch["id"])


@register_stage
class ScriptedTags(Counting):
    """Tags that follow from the id."""

    reads = ("duration",)
    provides = ("tags",)

    def __call__(self, batch: Columns) -> Columns:
        self.note(batch)
        tags = [
            [{"phrase": f"sound {name} {self.say}", "medium": "audio", "score": 1.0, "confidence": "high", "by": "s"}]
            for name in batch["id"]
        ]
        return {"id": batch["id"], "tags": tags}


@register_stage
class ScriptedWriter(Counting):
    """Writes what the tags say."""

    reads = ("tags",)
    provides = ("texts",)

    def __call__(self, batch: Columns) -> Columns:
        self.note(batch)
        return {"id": batch["id"], "texts": [{"audio": f"{t[0]['phrase']} {self.say}"} for t in batch["tags"]]}


@register_stage
class Flaky(Counting):
    """Fails for some clips until a file is there."""

    reads = ("duration",)
    provides = ("measures",)

    def __init__(self, log: str = "", mended: str = "", how: str = "raise", bad: list[str] = ()) -> None:  # type: ignore[assignment]
        super().__init__(log)
        self.mended, self.how, self.bad = mended, how, list(bad)

    def __call__(self, batch: Columns) -> Columns:
        self.note(batch)
        bad = [name for name in batch["id"] if name in self.bad and not (self.mended and Path(self.mended).exists())]
        if bad and self.how == "raise":
            raise ValueError(f"cannot do {bad[0]}")
        if bad and self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if bad and self.how == "stop":
            raise EngineStop("the server is gone")
        if bad and self.how == "slow":
            time.sleep(600)
        return {"id": batch["id"], "measures": [Failed("bad") if n in bad else {"n": n} for n in batch["id"]]}


@register_stage
class ReadsMeasures(Stage):
    """Copies."""

    reads = ("measures",)
    provides = ("domain",)

    def __call__(self, batch: Columns) -> Columns:
        return {"id": batch["id"], "domain": [m["n"] for m in batch["measures"]]}


def config(log: Path | str = "", tags: str = "x", writer: str = "y", **more: Any) -> dict[str, Any]:
    """A pipeline of a tagger and a writer, and a third stage that neither reads."""
    return {
        "tags": {"class_path": "tests.engine.data.ScriptedTags", "init_args": {"log": str(log), "say": tags}},
        **more,
        "write": {"class_path": "tests.engine.data.ScriptedWriter", "init_args": {"log": str(log), "say": writer}},
    }


def flaky(log: Path | str = "", **arguments: Any) -> dict[str, Any]:
    return {"class_path": "tests.engine.data.Flaky", "init_args": {"log": str(log), **arguments}}


def seen(log: Path) -> list[str]:
    return log.read_text().split("\n")[:-1] if log.exists() else []
