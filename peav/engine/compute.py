"""Running the stages of a job over a batch of clips: what fails is a row, not the end."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peav.data.manifests.clip import Clip
from peav.data.workers import Terminated
from peav.engine.columns import misshapen
from peav.engine.media import ClipMedia
from peav.engine.pipeline import Pipeline, Planned, add_columns, errors_of
from peav.engine.rows import Rows, media_key
from peav.engine.stage import MANIFEST_COLUMNS, MEDIA_COLUMNS, Columns, EngineStop, Failed, Stage, take

_log = logging.getLogger(__name__)

#: Characters of a reason that are kept.
REASON_LENGTH = 500

#: The longest answer for one clip that is kept: no captions are as long.
MAX_ROW_CHARACTERS = 1_000_000


class Computer:
    """The stages of a job, built in this process.

    Args:
        pipeline: the stages.
        data: folder of the clips.
        failures: stop the run after so many clips in a row failed at one stage and none succeeded before; 0 for never.
    """

    def __init__(self, pipeline: Pipeline, data: str, failures: int = 100) -> None:
        self.pipeline = pipeline
        self.media = ClipMedia(data)
        self.built: dict[str, Stage] = {}
        self._failures = failures
        self._in_a_row: dict[str, int] = dict.fromkeys(pipeline.stages, 0)
        self._succeeded: set[str] = set()
        #: Tokens of prompts and of answers by stage; those of a writer that a gate asks again are the gate's.
        self.tokens: dict[str, tuple[int, int]] = dict.fromkeys(pipeline.stages, (0, 0))
        #: Called before a stage sees a batch, with the name of the stage and the ids.
        self.about_to: Callable[[str, Sequence[str]], None] = lambda stage, ids: None

    def stage(self, name: str) -> Stage:
        """Returns a stage, built when it is first asked for, after those before it.

        Raises:
            EngineStop: if it cannot be built.
        """
        if name not in self.built:
            before = list(self.pipeline.stages)[: list(self.pipeline.stages).index(name)]
            others = {other: self.stage(other) for other in before}
            with errors_of(f"stages.{name}"):
                stage = self.pipeline.stages[name].build()
                stage.bind(others)
            self.built[name] = stage
        return self.built[name]

    @property
    def tokens_out(self) -> int:
        """Tokens that models wrote so far."""
        return sum(made for _, made in self.tokens.values())

    def close(self) -> None:
        """Closes the stages."""
        for stage in self.built.values():
            stage.close()

    def batch_for(
        self, planned: Planned, clips: Sequence[Clip], rows: Sequence[Mapping[str, Any]]
    ) -> tuple[Columns, dict[str, str]]:
        """Returns the columns that a stage reads, and the reasons why some clips cannot be given to it.

        Args:
            planned: the stage.
            clips: of the batch.
            rows: what earlier stages made of them.
        """
        stage = self.stage(planned.name)
        batch: Columns = {"id": [clip.id for clip in clips]}
        lost: dict[str, str] = {}
        for name in planned.reads:
            if any(name in row for row in rows) or name not in (*MANIFEST_COLUMNS, *MEDIA_COLUMNS):
                batch[name] = [row.get(name) for row in rows]
            elif name != "id":
                batch[name] = self.media.column(name, clips, stage)
            for clip, value in zip(clips, batch[name], strict=True):
                if isinstance(value, Failed):
                    lost.setdefault(clip.id, value.reason)
        return batch, lost

    def run(
        self, planned: Planned, clips: Sequence[Clip], rows: Sequence[Mapping[str, Any]]
    ) -> tuple[Rows, float, float]:
        """Runs a stage over a batch.

        Args:
            planned: the stage.
            clips: of the batch; none of them waits for an earlier stage.
            rows: what earlier stages made of them.

        Returns:
            a line a clip, the seconds that the stage took, and those that reading and decoding for it took.

        Raises:
            EngineStop: if the stage says that no clip can be computed, or all fail.
            OSError: if the disk is full.
        """
        stage = self.stage(planned.name)
        start = time.perf_counter()
        batch, lost = self.batch_for(planned, clips, rows)
        decode_seconds = time.perf_counter() - start
        keep = [place for place, clip in enumerate(clips) if clip.id not in lost]
        batch = take(batch, keep)
        self.about_to(planned.name, batch["id"])
        began, before = time.perf_counter(), self._all_tokens()
        answers = self._call(stage, planned, batch) if keep else {}
        seconds, after = time.perf_counter() - began, self._all_tokens()
        self.tokens[planned.name] = tuple(  # type: ignore[assignment]
            held + new - old for held, new, old in zip(self.tokens[planned.name], after, before, strict=True)
        )
        lines: Rows = {}
        for clip in clips:
            answer = Failed(lost[clip.id]) if clip.id in lost else answers[clip.id]
            line: dict[str, Any] = {"id": clip.id, "media": media_key(clip, planned.reads_texts)}
            line |= {"failed": answer.reason} if isinstance(answer, Failed) else {"out": answer}
            lines[clip.id] = line
        self._watch(planned.name, lines)
        return lines, seconds, decode_seconds

    def _all_tokens(self) -> tuple[int, int]:
        built = self.built.values()
        return sum(stage.tokens_in for stage in built), sum(stage.tokens_out for stage in built)

    def _call(self, stage: Stage, planned: Planned, batch: Columns) -> dict[str, dict[str, Any] | Failed]:
        ids = batch["id"]
        try:
            return _by_id(planned, stage(batch), ids)
        except (EngineStop, MemoryError, Terminated):
            raise
        except (Exception, SystemExit) as error:  # whatever the code of a plugin raises: the other clips go on
            if len(ids) == 1:
                _log.debug("%s failed for clip %r", planned.name, ids[0], exc_info=True)
                return {ids[0]: Failed(_reason(f"{type(error).__name__}: {error}"))}
        answers: dict[str, dict[str, Any] | Failed] = {}
        for place in range(len(ids)):
            answers |= self._call(stage, planned, take(batch, [place]))
        return answers

    def _watch(self, name: str, lines: Rows) -> None:
        for line in lines.values():
            if "out" in line:
                self._succeeded.add(name)
                self._in_a_row[name] = 0
            else:
                self._in_a_row[name] += 1
        if self._failures and name not in self._succeeded and self._in_a_row[name] >= self._failures:
            last = next(iter(lines.values()))["failed"]
            raise EngineStop(
                f"the stage {name} failed for the first {self._in_a_row[name]} clips, one after another, such as: {last:.300} "
                "(--max_failures 0 goes on all the same)"
            )


def _by_id(planned: Planned, made: Any, ids: Sequence[str]) -> dict[str, dict[str, Any] | Failed]:
    name, answers = planned.cls.__name__, {}
    for clip_id, values in rows_of(planned.cls.__name__, planned.provides, made, ids).items():
        failed = next((value for value in values.values() if isinstance(value, Failed)), None)
        wrong = failed.reason if failed is not None else unfit(values)
        answers[clip_id] = values if wrong is None else Failed(_reason(str(wrong)))
    return {clip_id: answers.get(clip_id, Failed(f"{name} returned nothing for it")) for clip_id in ids}


def rows_of(name: str, provides: Sequence[str], made: Any, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns what a stage returned by the ids that it says, never by position.

    Args:
        name: of the class of the stage.
        provides: columns that it says it provides.
        made: what it returned.
        ids: of the clips that it was given.

    Raises:
        ValueError: if it returned no columns, not all of them, columns of different lengths, or rows of other clips or twice.
    """
    if not isinstance(made, Mapping) or "id" not in made:
        raise ValueError(f"{name} must return columns with 'id' among them, got {type(made).__name__}")
    missing = [column for column in provides if column not in made]
    if missing:
        raise ValueError(f"{name} says that it provides {missing[0]!r}, but returned {sorted(map(str, made))}")
    for column in ("id", *provides):
        if not hasattr(made[column], "__len__") or isinstance(made[column], str | Mapping):
            raise ValueError(f"{name} must return a list for {column!r}, got {type(made[column]).__name__}")
    told = list(made["id"])
    for column in provides:
        if len(made[column]) != len(told):
            raise ValueError(f"{name} returned {len(told)} ids and {len(made[column])} rows of {column!r}")
    rows: dict[str, dict[str, Any]] = {}
    for place, clip_id in enumerate(told):
        if clip_id not in ids:
            raise ValueError(f"{name} returned a row of the clip {clip_id!r:.100}, which it was not given")
        if clip_id in rows:
            raise ValueError(f"{name} returned two rows of the clip {clip_id!r:.100}")
        rows[clip_id] = {column: made[column][place] for column in provides}
    return rows


def unfit(values: dict[str, Any]) -> str | None:
    """Returns why what a stage made of a clip cannot be kept; None if it can.

    Args:
        values: by column.
    """
    wrong = next((said for name, value in values.items() if (said := misshapen(name, value))), None)
    if wrong is not None:
        return wrong
    left = MAX_ROW_CHARACTERS
    pending: list[Any] = [values]
    while pending:
        item = pending.pop()
        if isinstance(item, Mapping):
            if not all(isinstance(key, str) for key in item):
                return "the answer has keys that are no text"
            pending += [*item.values(), *item]
        elif isinstance(item, list | tuple):
            pending += item
        elif isinstance(item, str):
            left -= len(item)
        elif isinstance(item, float) and not math.isfinite(item):
            return f"the answer holds the number {item}"
        elif not (item is None or isinstance(item, bool | int | float)):
            return f"the answer holds a {type(item).__name__}, which JSON cannot hold"
        left -= 1
        if left < 0:
            return f"the answer is longer than {MAX_ROW_CHARACTERS:,} characters"
    return None


def _reason(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= REASON_LENGTH else f"{text[: REASON_LENGTH - 1]}…"


def run_in_memory(
    computer: Computer,
    clips: Sequence[Clip],
    until: str | None = None,
    look: Callable[[str, Rows], None] = lambda stage, lines: None,
) -> list[dict[str, Any]]:
    """Runs the stages over clips without keeping anything; for samples and `--dry_run`.

    Args:
        computer: the stages.
        clips: a batch.
        until: run just the stages that this one depends on; None runs all.
        look: is shown what each stage made.

    Returns:
        what was made of each clip; a failed clip has `failed`: {stage: reason}.
    """
    rows: list[dict[str, Any]] = [{} for _ in clips]
    wanted = set(computer.pipeline.stages) if until is None else computer.pipeline.before(until)
    for planned in computer.pipeline.stages.values():
        if planned.name not in wanted:
            continue
        ready = [k for k, row in enumerate(rows) if not set(planned.upstream) & set(row.get("failed", ()))]
        lines: Rows = {}
        if ready:
            lines = computer.run(planned, [clips[k] for k in ready], [rows[k] for k in ready])[0]
        look(planned.name, lines)
        for place, row in enumerate(rows):
            line = lines.get(clips[place].id)
            if line is None:
                row.setdefault("failed", {})[planned.name] = "waits for an earlier stage"
            elif "failed" in line:
                row.setdefault("failed", {})[planned.name] = line["failed"]
            else:
                add_columns(row, line["out"], planned.reads)
    computer.media.forget()
    return rows
