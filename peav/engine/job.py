"""A job of the engine: the clips of a prepared folder, its parts, and the folder in which their results are kept."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from peav.data.manifests.clip import Clip, clip_from_line
from peav.data.manifests.fields import RecordError
from peav.data.manifests.index import ManifestError
from peav.data.manifests.manifest import Manifest, open_manifest
from peav.data.stores.remote import is_remote
from peav.engine.compute import Computer
from peav.engine.pipeline import Pipeline, add_columns
from peav.engine.rows import Marker, PartFile, Rows, media_key, read_json_file, replace_file
from peav.engine.stage import EngineError, digest_of
from peav.engine.where import Condition
from peav.opening import MAX_LINE_BYTES

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobSpec:
    """What a job is, as plain data, so that any process can open it.

    Attributes:
        data: folder that `peav prepare` wrote.
        stages: the configuration of the stages, see `peav.engine.pipeline.Pipeline`.
        work: folder of the results; `engine` in the data by default.
        splits: whose clips are worked on.
        where: which of them, see `peav.engine.where.Condition`.
        part_clips: clips of the manifest in a part.
        batch_clips: clips that a stage is given at once.
        retry_failed: whether clips that failed in earlier runs are tried again.
        max_failures: the run stops when a stage fails for so many clips from the first on; 0 for never.
        calibration_clips: clips of the sample that stages calibrate on.
    """

    data: str
    stages: Mapping[str, Mapping[str, Any] | None]
    work: str = ""
    splits: Sequence[str] = ("train",)
    where: str = ""
    part_clips: int = 1000
    batch_clips: int = 32
    retry_failed: bool = True
    max_failures: int = 100
    calibration_clips: int = 200

    def __post_init__(self) -> None:
        for name in ("part_clips", "batch_clips", "calibration_clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.max_failures < 0:
            raise ValueError(f"max_failures must be 0, for never, or more, got {self.max_failures}")
        if is_remote(self.data):
            raise ValueError(
                f"{self.data} is in an object store, whose manifests cannot be edited in place: copy its manifest folder into a folder of "
                "your own (`peav data mix OWN ADDRESS`), whose clips point at the shards there, and caption that"
            )


@dataclass(frozen=True)
class Part:
    """A run of clips of a manifest.

    Attributes:
        split: of the manifest.
        number: of the part in it.
        first: position of its first clip.
        count: of its clips, before any of them are left out.
    """

    split: str
    number: int
    first: int
    count: int

    @property
    def name(self) -> str:
        """Of its claim."""
        return f"{self.split}-{self.number:06d}"


@dataclass
class PartResult:
    """What came of a part in this run.

    Attributes:
        clips: that were asked for.
        seconds: by stage.
        decode_seconds: that reading and decoding took.
    """

    clips: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    decode_seconds: float = 0.0


def clips_digest(manifest: Manifest) -> str:
    """Returns which clips a manifest holds, in which order; what the engine writes into it does not change that."""
    index = manifest.index
    digest = hashlib.blake2b(digest_size=8)
    for name in ("id", "row", "duration"):
        digest.update(np.ascontiguousarray(getattr(index, name)).data)
    return digest.hexdigest()


class Job:
    """A job, opened.

    Args:
        spec: what it is.

    Raises:
        EngineError: if its folder holds another job.
        FileNotFoundError: if a split was not prepared.
        ValueError: if a setting or a stage cannot be.
    """

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec
        self.pipeline = Pipeline(spec.stages)
        self.condition = Condition(spec.where)
        self.work = Path(spec.work) if spec.work else Path(spec.data) / "engine"
        self.manifests: dict[str, Manifest] = {split: open_manifest(spec.data, split) for split in spec.splits}
        # Held open, so that the lines stay where the index says when another run replaces a manifest.
        self._streams = {split: manifest.path.open("rb") for split, manifest in self.manifests.items()}
        self._checked: set[str] = set()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells the job from others: its clips, how they are divided, and which stages there are."""
        return {
            "clips": {split: clips_digest(manifest) for split, manifest in self.manifests.items()},
            "where": self.condition.text,
            "part_clips": self.spec.part_clips,
            "stages": self.pipeline.shape,
        }

    @property
    def parts(self) -> list[Part]:
        """All parts."""
        size = self.spec.part_clips
        return [
            Part(split, number, first, min(size, len(manifest) - first))
            for split, manifest in self.manifests.items()
            for number, first in enumerate(range(0, len(manifest), size))
        ]

    def open(self, tried: bool = False) -> dict[str, str]:
        """Makes the folder, or sees that it is this job's, or was only tried out.

        Args:
            tried: whether the job is only tried out: then the folder stays free for another one.

        Returns:
            stages whose settings changed, or those of a stage that they read, with what to say of each.

        Raises:
            EngineError: if it holds another job, or something else.
        """
        path = self.work / "job.json"
        keys = {name: stage.key for name, stage in self.pipeline.stages.items()}
        changed: dict[str, str] = {}
        before = self._held(path)
        if before:
            differs = [name for name, value in self.identity.items() if before["identity"].get(name) != value]
            if differs and not before.get("tried") and self._computed(before["identity"].get("clips", {})):
                splits = (", ".join(before["identity"].get("clips", {})), ", ".join(self.manifests))
                said = {
                    "clips": "the clips of the manifest changed"
                    if splits[0] == splits[1]
                    else f"--splits was {splits[0]} and is {splits[1]}",
                    "where": f"--where was {before['identity'].get('where')!r} and is {self.condition.text!r}",
                    "part_clips": f"part_clips was {before['identity'].get('part_clips')} and is {self.spec.part_clips}",
                    "stages": f"the stages were {', '.join(before['identity'].get('stages', {}))} and are "
                    f"{', '.join(self.pipeline.shape)}",
                }
                raise EngineError(
                    f"{self.work} holds another job: {'; '.join(said[name] for name in differs)}. Run that one on, give another --work, or "
                    "delete the folder"
                )
            for name, key in keys.items():
                if not differs and before["keys"].get(name) != key:
                    own = before["configs"].get(name) != self.pipeline.stages[name].own
                    changed[name] = "its settings changed" if own else "its model or a stage that it reads changed"
        held: dict[str, Any] = {
            "identity": self.identity,
            "keys": keys,
            "configs": {name: stage.own for name, stage in self.pipeline.stages.items()},
            "data": str(Path(self.spec.data).absolute()),
            "texts": self._texts(),
        }
        if tried and (not before or before.get("tried")):
            held["tried"] = True
        replace_file(path, [json.dumps(held, indent=1)])
        return changed

    def _held(self, path: Path) -> dict[str, Any]:
        """Reads what the folder says of its job; {} where it says nothing, or nothing that can be read."""
        if not path.is_file():
            return {}
        held = read_json_file(path)
        if all(isinstance(held.get(name), dict) for name in ("identity", "keys", "configs")):
            return held
        _log.warning(
            "%s was damaged, and is written anew: results count for the clips, media and settings they were made of",
            path,
        )
        return {}

    def _computed(self, splits: Iterable[str]) -> bool:
        """Returns whether a job computed anything here: one that could not begin leaves the folder free."""
        return any(True for split in splits for _ in (self.work / split).glob("*/*"))

    def _texts(self) -> dict[str, Any]:
        """Returns which stage has the last word on captions, for those who read them without building the pipeline."""
        last = [stage for stage in self.pipeline.stages.values() if "texts" in stage.provides][-1:]
        return (
            {"stage": last[0].name, "reads_texts": last[0].reads_texts}
            if last
            else {"stage": None, "reads_texts": False}
        )

    def check_manifests(self) -> None:
        """Sees that the manifests still hold the clips of the job.

        Raises:
            EngineError: if they do not.
        """
        for split, manifest in self.manifests.items():
            now = Manifest(manifest.path)
            if clips_digest(now) != clips_digest(manifest):
                raise EngineError(
                    f"the clips of {manifest.path} changed during the run: nothing was written into it, and what was computed is kept. "
                    f"Give another --work for the new clips (split {split!r})"
                )

    def clips(self, part: Part) -> list[Clip]:
        """Reads the clips of a part that are asked for.

        Raises:
            ManifestError: if a line cannot be read.
        """
        return [clip for clip in self.all_clips(part) if self.condition(clip)]

    def all_clips(self, part: Part) -> list[Clip]:
        """Reads all clips of a part.

        Raises:
            ManifestError: if a line cannot be read.
        """
        return [self.clip(part.split, part.first + place) for place in range(part.count)]

    def clip(self, split: str, position: int) -> Clip:
        """Reads the clip at a position in the manifest of a split, as it was when the job was opened.

        Raises:
            ManifestError: if its line cannot be read.
        """
        manifest, stream = self.manifests[split], self._streams[split]
        stream.seek(int(manifest.index.line[position]))
        try:
            return clip_from_line(stream.readline(MAX_LINE_BYTES + 1))
        except RecordError as error:
            raise ManifestError(
                f"{manifest.path}, clip {position}: {error}; was the file changed during the run?"
            ) from None

    def file(self, part: Part, stage: str) -> PartFile:
        """Returns the file of a part of a stage."""
        return PartFile(self.work / part.split / f"{stage}-{self.pipeline.stages[stage].key}", part.number)

    def tokens_out(self, part: Part) -> int:
        """Returns how many tokens models wrote for a part, in all runs."""
        markers = [self.file(part, stage).marker() for stage in self.pipeline.stages]
        return sum(marker.tokens_out for marker in markers if marker is not None)

    def settled(self, part: Part, since: float) -> bool:
        """Returns whether nothing is left to do for a part.

        Args:
            part: the part.
            since: when this run began, by the clock of the file system: failures of before are tried again.

        Raises:
            ManifestError: if the manifest cannot be read.
        """
        markers = [self.file(part, stage).marker() for stage in self.pipeline.stages]
        digest = ""
        for marker in markers:
            if marker is None or (digest and marker.digest != digest):
                return False
            digest = marker.digest
            failed = marker.failed or marker.blocked
            if failed and self.spec.retry_failed and marker.stamp < since:
                return False
        if part.name not in self._checked:
            if digest_of([[clip.id, media_key(clip, True)] for clip in self.clips(part)]) != digest:
                return False
            self._checked.add(part.name)
        return True

    def compute(
        self,
        part: Part,
        computer: Computer,
        on_clips: Callable[[int, int], None] = lambda clips, tokens: None,
        given_up: Mapping[tuple[str, str], str] | None = None,
        batch_clips: int | None = None,
    ) -> PartResult:
        """Computes what is left of a part, and writes its files.

        Args:
            part: the part.
            computer: the stages.
            on_clips: is told how many clips a batch had, and how many tokens models wrote for them.
            given_up: reasons by (stage, clip id) for which a clip fails without being tried.
            batch_clips: clips that a stage is given at once, in place of the job's.

        Raises:
            EngineStop: if a stage cannot be built, or cannot work at all.
            OSError: if the disk is full.
        """
        given_up = given_up or {}
        clips = self.clips(part)
        files = {name: self.file(part, name) for name in self.pipeline.stages}
        held: dict[str, Rows] = {name: file.load() for name, file in files.items()}
        if clips and not any(held.values()):
            for name in files:  # a stage that cannot be built is found before those before it have worked
                computer.stage(name)
        result = PartResult(len(clips))
        decoded = dict.fromkeys(files, 0.0)
        tokens = dict(computer.tokens)
        size = batch_clips or self.spec.batch_clips
        for first in range(0, len(clips), size):
            batch, written = clips[first : first + size], computer.tokens_out
            columns: dict[str, dict[str, Any]] = {clip.id: {} for clip in batch}
            bad: dict[str, set[str]] = {clip.id: set() for clip in batch}
            for name, planned in self.pipeline.stages.items():
                rows, todo = held[name], []
                made: Rows = {}
                for clip in batch:
                    row = rows.get(clip.id)
                    media = media_key(clip, planned.reads_texts)
                    waits = next((other for other in planned.upstream if other in bad[clip.id]), None)
                    whole = row is not None and row["media"] == media and "out" in row
                    if whole:
                        continue
                    if waits is not None:
                        made[clip.id] = {"id": clip.id, "media": media, "blocked": waits}
                    elif (name, clip.id) in given_up:
                        made[clip.id] = {"id": clip.id, "media": media, "failed": given_up[name, clip.id]}
                    elif row is not None and "failed" in row and row["media"] == media and not self.spec.retry_failed:
                        continue
                    else:
                        todo.append(clip)
                if todo:
                    lines, seconds, decode_seconds = computer.run(planned, todo, [columns[clip.id] for clip in todo])
                    made |= lines
                    result.seconds[name] = result.seconds.get(name, 0.0) + seconds
                    decoded[name] += decode_seconds
                for clip_id, line in made.items():
                    if "failed" in line:
                        line["attempts"] = int((rows.get(clip_id) or {}).get("attempts", 0)) + 1
                rows.update(made)
                if made:
                    files[name].note(made.values())
                for clip in batch:
                    row = rows[clip.id]
                    if "out" in row:
                        add_columns(columns[clip.id], row["out"], planned.reads)
                    else:
                        bad[clip.id].add(name)
            computer.media.forget()
            on_clips(len(batch), computer.tokens_out - written)
        digest = digest_of([[clip.id, media_key(clip, True)] for clip in clips])
        for name, file in files.items():
            rows = held[name]
            ordered = [rows.pop(clip.id) for clip in clips]
            before = file.marker()
            marker = Marker(
                rows=len(ordered),
                failed=sum("failed" in row for row in ordered),
                blocked=sum("blocked" in row for row in ordered),
                seconds=round(result.seconds.get(name, 0.0) + (before.seconds if before else 0.0), 6),
                decode_seconds=round(decoded[name] + (before.decode_seconds if before else 0.0), 6),
                digest=digest,
                tokens_in=computer.tokens[name][0] - tokens[name][0] + (before.tokens_in if before else 0),
                tokens_out=computer.tokens[name][1] - tokens[name][1] + (before.tokens_out if before else 0),
            )
            file.write([*ordered, *rows.values()], marker)  # those that --where leaves out now are kept
        result.decode_seconds = sum(decoded.values())
        self._checked.add(part.name)
        return result

    def results(self, part: Part) -> Iterator[tuple[Clip, dict[str, Any] | None, dict[str, str]]]:
        """Yields the clips of a part in their order, with the columns that the stages made, and the stages that failed with reasons.

        The reason of a stage that waits for another one is "". A column whose last stage failed is not there. Of a clip that was not
        asked for the columns are None. A line counts only for the clip of its id whose media it was made of.
        """
        held = {name: self.file(part, name).load() for name in self.pipeline.stages}
        for clip in self.all_clips(part):
            if not self.condition(clip):
                yield clip, None, {}
                continue
            columns: dict[str, Any] = {}
            failed: dict[str, str] = {}
            for name, planned in self.pipeline.stages.items():
                row = held[name].get(clip.id)
                if row is None or row["media"] != media_key(clip, planned.reads_texts):
                    failed[name] = "made of other media than the clip has now" if row else "not computed"
                elif "out" in row:
                    add_columns(columns, row["out"], planned.reads)
                elif "failed" in row:
                    failed[name] = row["failed"]
                else:
                    failed[name] = ""
            for column in {column for name in failed for column in self.pipeline.stages[name].provides}:
                last = [name for name, planned in self.pipeline.stages.items() if column in planned.provides][-1]
                if last in failed:  # what a gate did not see does not pass
                    columns.pop(column, None)
            yield clip, columns, failed
