"""Captions that another program wrote, from a file: they are joined by id, and by the checksum of what they describe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peav.engine.stage import Columns, Failed, Stage, register_stage


@register_stage
class CaptionsFromFile(Stage):
    """Reads captions from a JSONL file, a line a caption: `{"id", "text"}`, and optionally `kind`, `confidence`, `score` and `duration`.

    A line says which clip it is about by its id; `duration` (seconds), where it is given, must be the clip's, so that a list that
    slipped by a row is found. A clip without a line has no candidate.

    Args:
        path: of the file.
        kind: type of the captions whose line does not say it.
        by: name of the captioner.
        model: that wrote them, for the provenance.
        licence: of the model.
    """

    reads = ("duration",)
    provides = ("candidates",)

    def __init__(self, path: str, kind: str = "audio", by: str = "file", model: str = "", licence: str = "") -> None:
        self.kind, self.by = kind, by
        self._lines: dict[str, list[dict[str, Any]]] = {}
        with Path(path).open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    item = json.loads(line)
                    if not (isinstance(item["id"], str) and isinstance(item["text"], str)):
                        raise TypeError
                except (ValueError, KeyError, TypeError):
                    raise ValueError(
                        f"{path}, line {number}: must be an object with id and text, both strings"
                    ) from None
                self._lines.setdefault(item["id"], []).append(item)

    @classmethod
    def identity(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a digest of the file."""
        return {"file": hashlib.sha256(Path(init_args["path"]).read_bytes()).hexdigest()}

    @classmethod
    def models(cls, init_args: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns the model behind the captions."""
        return {init_args["model"]: init_args["licence"]} if init_args["model"] else {}

    def __call__(self, batch: Columns) -> Columns:
        """Finds the captions of a batch."""
        found: list[Any] = []
        for clip, duration in zip(batch["id"], batch["duration"], strict=True):
            items = self._lines.get(clip, [])
            other = [item for item in items if abs(float(item.get("duration", duration)) - duration) > 0.05]
            if other:
                found.append(
                    Failed(
                        f"identity: its caption is about a clip of {other[0]['duration']} s, and it lasts {duration:g} s"
                    )
                )
                continue
            keep = ("text", "confidence", "score")
            found.append(
                [
                    {"kind": item.get("kind", self.kind), "by": self.by, **{k: item[k] for k in keep if k in item}}
                    for item in items
                ]
            )
        return {"id": batch["id"], "candidates": found}
