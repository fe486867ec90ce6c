"""Clips that must get no caption: those of evaluation sets, by id and by fingerprint."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peav.engine.job import Job
from peav.engine.near import NearDuplicates
from peav.engine.rows import PartFile, read_lines
from peav.engine.survey import LeftOut, media_group, texts_of_column
from peav.opening import read_json

_log = logging.getLogger(__name__)

#: What fingerprints hold, as the stage `Fingerprint` says it, and the bits of their numbers.
_PRINTS = {"sound": 32, "short": 32, "pictures": 64}


@dataclass(frozen=True)
class Blacklist:
    """What a list says.

    Attributes:
        ids: of clips.
        prints: ids and fingerprints of those that have them; clips of two evaluation sets may have one id.
    """

    ids: frozenset[str] = frozenset()
    prints: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    @classmethod
    def read(cls, path: Path) -> Blacklist:
        """Reads a list.

        Args:
            path: a file with an id a line, where `#` begins a comment; a JSONL file of `{"id", "prints"}`, the fingerprints where they are
                known; or the folder of the work of `peav caption` over an evaluation set with the stage `Fingerprint` (`--work`).

        Raises:
            FileNotFoundError: if it is not there.
            ValueError: if a folder holds no fingerprints, or those of a run that did not end; if a file is no text, or a line is neither.
        """
        if path.is_dir():
            return _of_work(path)
        if not path.is_file():
            raise FileNotFoundError(f"--blacklist {path} is neither a file nor a folder")
        try:
            # Lines end as in a file of Unix or Windows alone: a text of JSON may hold the other characters that Python ends lines at.
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"--blacklist {path} is no text in UTF-8 ({error})") from None
        if path.suffix not in (".jsonl", ".json"):
            held = (line.strip() for line in lines)
            return cls(frozenset(line for line in held if line and not line.startswith("#")))
        rows = [_read_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
        prints = tuple((row["id"], row["prints"]) for row in rows if "prints" in row)
        return cls(frozenset(row["id"] for row in rows), prints)


def _of_work(path: Path) -> Blacklist:
    """Reads the fingerprints of a run. A clip that failed there is listed by its id alone."""
    ids: set[str] = set()
    prints: dict[str, Any] = {}
    for folder in _folders(path):
        rows = [row for file in sorted(folder.glob("*.jsonl")) for row in read_lines(file)]
        held = {row["id"]: row["out"]["prints"] for row in rows if "prints" in (row.get("out") or {})}
        if not held:
            continue
        parts = {int(file.stem) for file in folder.parent.glob("*/*.jsonl")}
        if any(PartFile(folder, number).marker() is None for number in parts) or not (path / "report.html").is_file():
            raise ValueError(
                f"{path} is the work of a run that did not end, and clips that it has not looked at would get captions: run the same "
                "`peav caption` once more"
            )
        ids |= {row["id"] for row in rows}
        prints |= held
    if not prints:
        raise ValueError(
            f"{path} holds no fingerprints: give the --work folder of a run of `peav caption` with the stage Fingerprint"
        )
    if without := len(ids) - len(prints):
        _log.warning(
            "%d clips of the blacklist %s failed there, and have no fingerprints: they are known by id alone",
            without,
            path,
        )
    return Blacklist(frozenset(ids), tuple(prints.items()))


def _folders(work: Path) -> list[Path]:
    """Returns the folders in which a job keeps what its stages said last, by split; earlier settings have others."""
    try:
        said = read_json(work / "job.json")
        return [
            work / split / f"{stage}-{key}"
            for split in said["identity"]["clips"]
            for stage, key in said["keys"].items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _read_row(path: Path, number: int, line: str) -> dict[str, Any]:
    """Reads a line; one that cannot be read is refused, for its clip would get a caption."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: no JSON ({error}); each line must be an object with an id") from None
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        raise ValueError(f"{path}, line {number}: each line must be an object with an id")
    if "prints" in row and not _are_prints(row["prints"]):
        raise ValueError(
            f"{path}, line {number}: the prints must be {', '.join(_PRINTS)}, each a list of numbers, as the stage Fingerprint says them"
        )
    return row


def _are_prints(given: Any) -> bool:
    return isinstance(given, dict) and all(
        name in _PRINTS
        and isinstance(held, list)
        and all(type(one) is int and 0 <= one < 1 << _PRINTS[name] for one in held)
        for name, held in given.items()
    )


def read_for(job: Job, path: str) -> Blacklist:
    """Reads the list of a job.

    Args:
        job: whose clips it names.
        path: of the list, "" for none.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it cannot be read, or holds fingerprints where the pipeline takes none to compare them with.
    """
    held = Blacklist.read(Path(path)) if path else Blacklist()
    if held.prints and not _takes_prints(job):
        raise ValueError(
            f"--blacklist {path} holds fingerprints, by which whatever is nearly one of the list is found, and the pipeline takes none: "
            "add the stage Fingerprint, or give a file of ids"
        )
    return held


def _takes_prints(job: Job) -> bool:
    return any("prints" in stage.provides for stage in job.pipeline.stages.values())


def left_out(job: Job, blacklist: Blacklist, near: bool = True, repeated: Set[int] = frozenset()) -> dict[str, LeftOut]:
    """Returns the clips of a job that get no caption because they are `blacklisted` or a `near duplicate`.

    Whatever has the media of a clip that the list names, or nearly those, is blacklisted, too.

    Args:
        job: all of whose parts are done.
        blacklist: clips of evaluation sets.
        near: whether clips are left out that are nearly an earlier one for which there is a caption; that needs the stage `Fingerprint`.
        repeated: what media several clips have, see :class:`peav.engine.survey.MediaGroups`.
    """
    out: dict[str, LeftOut] = {}
    collected, listed = NearDuplicates(), dict[str, str]()

    def hold_against(name: str, prints: Mapping[str, Any]) -> None:
        # Under a name that no clip has: the list may hold clips of the job itself.
        listed[f"\0{name}"] = name
        collected.add(f"\0{name}", prints, stays=True)

    printed = _takes_prints(job)
    for name, prints in blacklist.prints if printed else ():
        hold_against(name, prints)
    copies: dict[int, list[str]] = {}
    for part in job.parts if printed or blacklist.ids else ():
        for clip, columns, _ in job.results(part):
            if columns is None:
                continue
            if blacklist.ids and (group := media_group(clip)) in repeated:
                copies.setdefault(group, []).append(clip.id)
            if clip.id in blacklist.ids:
                out[clip.id] = LeftOut("blacklisted", "the blacklist names the clip")
                if columns.get("prints"):
                    hold_against(clip.id, columns["prints"])
            elif columns.get("prints") and any(texts_of_column(columns.get("texts"))):
                collected.add(clip.id, columns["prints"])
    if blacklist.ids and not out and not blacklist.prints:
        _log.warning("the blacklist names %d clips, and none of them is here", len(blacklist.ids))
    for names in copies.values():
        if first := next((name for name in names if name in blacklist.ids), None):
            for name in names:
                out.setdefault(
                    name, LeftOut("blacklisted", f"the clip has the media of {first!r}, which the blacklist names")
                )
    for clip_id, found in collected.find().items() if printed else ():
        if found.first in listed:
            name = listed[found.first]
            why = f"the clip is nearly {name!r} of the blacklist (distance {found.distance})"
            out.setdefault(clip_id, LeftOut("blacklisted", why))
        elif near:
            why = f"the clip is nearly {found.first!r} (distance {found.distance})"
            out.setdefault(clip_id, LeftOut("near duplicate", why, found.first))
    return out
