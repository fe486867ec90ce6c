"""Clips that must get no caption: those of evaluation sets, by id and by fingerprint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peav.engine.job import Job
from peav.engine.near import NearDuplicates
from peav.engine.rows import read_lines
from peav.engine.survey import LeftOut


@dataclass(frozen=True)
class Blacklist:
    """What a list says.

    Attributes:
        ids: of clips.
        prints: fingerprints by id, of those that have them.
    """

    ids: frozenset[str] = frozenset()
    prints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Blacklist:
        """Reads a list.

        Args:
            path: a file with an id a line; a JSONL file of `{"id", "prints"}`, the fingerprints where they are known; or the folder of
                the work of `peav caption` over an evaluation set with the stage `Fingerprint` (`--work`).

        Raises:
            FileNotFoundError: if it is not there.
            ValueError: if a folder holds no fingerprints, or a line is neither.
        """
        if path.is_dir():
            rows = [row for file in sorted(path.glob("*/*/*.jsonl")) for row in read_lines(file)]
            prints = {row["id"]: row["out"]["prints"] for row in rows if "prints" in (row.get("out") or {})}
            if not prints:
                raise ValueError(
                    f"{path} holds no fingerprints: give the --work folder of a run of `peav caption` with the stage Fingerprint"
                )
            return cls(frozenset(prints), prints)
        if not path.is_file():
            raise FileNotFoundError(f"--blacklist {path} is neither a file nor a folder")
        if path.suffix not in (".jsonl", ".json"):
            lines = path.read_text(encoding="utf-8").splitlines()
            return cls(frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#")))
        rows = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                rows.append(_read_row(path, number, line))
        return cls(frozenset(row["id"] for row in rows), {r["id"]: r["prints"] for r in rows if "prints" in r})


def _read_row(path: Path, number: int, line: str) -> dict[str, Any]:
    """Reads a line; one that cannot be read is refused, for its clip would get a caption."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: no JSON ({error}); each line must be an object with an id") from None
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        raise ValueError(f"{path}, line {number}: each line must be an object with an id")
    return row


def left_out(job: Job, blacklist: Blacklist, near: bool = True) -> dict[str, LeftOut]:
    """Returns the clips of a job that get no caption because they are `blacklisted` or a `near duplicate`.

    Args:
        job: all of whose parts are done.
        blacklist: clips of evaluation sets.
        near: whether clips are left out that are nearly an earlier one; that needs the stage `Fingerprint`.
    """
    out: dict[str, LeftOut] = {}
    collected, listed = NearDuplicates(), {}
    printed = any("prints" in stage.provides for stage in job.pipeline.stages.values())
    if printed:
        for clip_id, prints in blacklist.prints.items():
            # Under a name that no clip has: the list may hold clips of the job itself.
            listed[f"\0{clip_id}"] = clip_id
            collected.add(f"\0{clip_id}", prints, stays=True)
    for part in job.parts if printed or blacklist.ids else ():
        for clip, columns, _ in job.results(part):
            if columns is None:
                continue
            if clip.id in blacklist.ids:
                out[clip.id] = LeftOut("blacklisted", "the blacklist names the clip")
            elif columns.get("prints"):
                collected.add(clip.id, columns["prints"])
    for clip_id, found in collected.find().items() if printed else ():
        if found.first in listed:
            name = listed[found.first]
            why = f"the clip is nearly {name!r} of the blacklist (distance {found.distance})"
            out[clip_id] = LeftOut("blacklisted", why)
        elif near:
            why = f"the clip is nearly {found.first!r} (distance {found.distance})"
            out[clip_id] = LeftOut("near duplicate", why, found.first)
    return out
