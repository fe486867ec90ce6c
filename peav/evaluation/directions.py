"""Evaluates an embedding table: every direction of retrieval that it allows, and the frame-level AUROC."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from peav.evaluation.decisions import Decisions
from peav.evaluation.detection import auroc_in_blocks, event_labels
from peav.evaluation.events import event_metrics, metric_rows
from peav.evaluation.intervals import Queries
from peav.evaluation.retrieval import (
    DirectionRanks,
    SharedPositives,
    metrics_of_ranks,
    rank_both_ways,
    similarity,
)
from peav.evaluation.table import EmbeddingTable, FramePart
from peav.evaluation.tiles import rank_in_tiles

log = logging.getLogger(__name__)

KS = (1, 5, 10)

#: Up to so many scores, 16,000 queries of as many candidates, all are computed in fp64; beyond, in tiles of fp32 (`peav.evaluation.tiles`).
_EXACT_SCORES = 2**28

#: Frame logits that are there at a time: 4 MB.
_LOGITS_AT_ONCE = 2**20

#: Pairs that are evaluated both ways.
BOTH_WAYS = (
    ("audio", "video"),
    ("text_audio", "audio"),
    ("text_video", "video"),
    ("text_audio_video", "audio_video"),
    ("text_audio_video", "audio"),
    ("text_audio_video", "video"),
    ("text_audio", "audio_video"),
    ("text_video", "audio_video"),
    ("text_audio", "video"),
    ("text_video", "audio"),
    ("audio", "text_transcript"),
)

#: Pairs (query, item) that make sense one way only.
ONE_WAY = (("audio_plus_text", "video"), ("video_plus_text", "audio"))

DIRECTIONS = (*(d for left, right in BOTH_WAYS for d in ((left, right), (right, left))), *ONE_WAY)


@dataclass(frozen=True)
class Direction:
    """One direction of retrieval.

    Attributes:
        plain: `retrieval_metrics` on the dot products.
        dual_softmax: the same after the dual softmax. Not comparable with `plain`.
        num_distinct: distinct clips, or distinct inputs if fewer, among the queries that count: five captions of a clip
            are not five independent trials.
    """

    plain: dict[str, float]
    dual_softmax: dict[str, float]
    num_distinct: int


@dataclass(frozen=True)
class FrameLevel:
    """Frame-level detection.

    Attributes:
        macro: AUROC, mean over phrases with both classes; None if there is none.
        micro: AUROC over all (frame, phrase).
        per_phrase: by phrase `auroc` (None without both classes), `num_clips` that hold it, `active_seconds`, and what
            `EventLevel.per_phrase` (`peav.evaluation.events`) names.
        num_clips: annotated clips with audio.
        seconds: their total length.
        metrics: of the events, by the names of `peav.evaluation.events.METRICS`; None where one is not defined. Empty in files written
            before there were any, and so is what follows.
        curves: of PSDS, see `EventLevel`.
        reliability: of probabilities, by bin, see `EventLevel`.
        rule: in words, what was detected for F1 and false alarms.
    """

    macro: float | None
    micro: float | None
    per_phrase: dict[str, dict[str, float | None]]
    num_clips: int
    seconds: float
    metrics: dict[str, float | None] = field(default_factory=dict)
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    reliability: dict[str, list[float | None]] = field(default_factory=dict)
    rule: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_table` finds; plain numbers only.

    Attributes:
        num_clips: clips of the split.
        directions: by `query->item`, in the order of `DIRECTIONS`, then those of other pairs that were trained.
        skipped: why a direction whose embeddings exist, or an embedding, was left out.
        frames: frame-level detection, or None when the table has no frames or no annotated clip.
        temperature: of the dual softmax.
    """

    num_clips: int
    directions: dict[str, Direction]
    skipped: dict[str, str] = field(default_factory=dict)
    frames: FrameLevel | None = None
    temperature: float = 10.0

    def scalars(self) -> dict[str, float]:
        """Returns the numbers worth logging, flat: `text_audio->audio/R@1`, ..., `frames/macro_auroc`."""
        names = [*(f"R@{k}" for k in KS), "median_rank"]
        flat = {f"{name}/{key}": d.plain[key] for name, d in self.directions.items() for key in names}
        flat |= {f"{name}/dual_softmax_R@1": d.dual_softmax["R@1"] for name, d in self.directions.items()}
        if self.frames is not None:
            found = {"frames/macro_auroc": self.frames.macro, "frames/micro_auroc": self.frames.micro}
            found |= {f"frames/{name}": value for name, value in self.frames.metrics.items()}
            flat |= {key: value for key, value in found.items() if value is not None}
        return flat

    def to_json(self) -> str:
        """Returns the evaluation as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """Reads what `to_json` wrote."""
        raw: dict[str, Any] = json.loads(text)
        raw["directions"] = {name: Direction(**d) for name, d in raw["directions"].items()}
        raw["frames"] = None if raw["frames"] is None else FrameLevel(**raw["frames"])
        return cls(**raw)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yields the cells of the results table, a direction a row, under `COLUMNS`."""
        for name, d in self.directions.items():
            recalls = [percent(d.plain[f"R@{k}"]) for k in KS]
            size = f"{d.plain['num_queries']:.0f} / {d.plain['num_candidates']:.0f}"
            chance, dual = percent(d.plain["chance_R@1"]), percent(d.dual_softmax["R@1"])
            yield (name, *recalls, f"{d.plain['median_rank']:g}", chance, dual, size)

    def to_markdown(self) -> str:
        """Returns a Markdown table of the directions, in percent, and a line on the frame level."""
        lines = [" | ".join(COLUMNS), "|".join(["---", *["---:"] * (len(COLUMNS) - 1)])]
        lines += [" | ".join(row) for row in self.rows()]
        text = "\n".join(f"| {line} |" for line in lines)
        if self.frames is not None:
            text += f"\n\n{self.frame_summary()}"
            rows = [f"| {name} | {value} |" for name, value in self.event_rows()]
            text += "\n\n" + "\n".join(["| events | value |", "|---|---:|", *rows]) if rows else ""
            text += f"\n\n{self.rule_sentence()}" if self.rule_sentence() else ""
        return text

    def frame_summary(self) -> str:
        """Returns one sentence on the frame level, or on its absence."""
        if self.frames is None:
            return "No frame-level evaluation: no frame embeddings or no annotated clip."
        macro, micro = (f"{v:.3f}" if v is not None else "undefined" for v in (self.frames.macro, self.frames.micro))
        counted = sum(row["auroc"] is not None for row in self.frames.per_phrase.values())
        scope = f"{counted} of {len(self.frames.per_phrase)} phrases, {self.frames.num_clips} clips"
        return f"Frame AUROC: macro {macro}, micro {micro} ({scope}, {self.frames.seconds:.0f} s)."

    def event_rows(self) -> list[tuple[str, str]]:
        """Returns the cells of the table of event metrics: what is measured, and its value."""
        metrics = {} if self.frames is None else self.frames.metrics
        return [(name, "undefined" if value is None else f"{value:.3f}") for name, value in metric_rows(metrics)]

    def rule_sentence(self) -> str:
        """Returns one sentence on what was detected for F1 and false alarms; "" where nothing was."""
        rule = "" if self.frames is None else self.frames.rule
        return f"F1 and false alarms count what is detected by {rule}." if rule else ""

    def events_to_rich(self) -> Table:
        """Returns the event metrics as a table for the terminal."""
        table = Table("events", "value", title="Events", caption=self.rule_sentence() or None)
        for row in self.event_rows():
            table.add_row(*row)
        return table

    def to_rich(self) -> Table:
        """Returns the results as a table for the terminal."""
        table = Table(title=f"Retrieval over {self.num_clips} clips, %", caption=self.frame_summary())
        for column in COLUMNS:
            table.add_column(column, justify="left" if column == COLUMNS[0] else "right", no_wrap=True)
        for row in self.rows():
            table.add_row(*row)
        return table


COLUMNS = (
    "direction",
    *(f"R@{k}" for k in KS),
    "median rank",
    "chance R@1",
    "R@1 dual softmax",
    "queries / candidates",
)


def percent(share: float) -> str:
    """Formats a share in [0, 1] as percent, with more digits where it is small.

    >>> percent(0.4567), percent(0.0012)
    ('45.7', '0.12')
    """
    value = 100 * share
    return f"{value:.2f}" if 0 < value < 1 else f"{value:.1f}"


def evaluate_pair(
    table: EmbeddingTable, left: str, right: str, temperature: float = 10.0
) -> tuple[tuple[Direction, Queries], tuple[Direction, Queries]]:
    """Evaluates retrieval of `right` by `left`, and of `left` by `right`; the candidates are all clips that have them.

    Returns:
        of each direction the numbers, and what became of its queries.

    Raises:
        ValueError: if no query has a positive.
    """
    positives = SharedPositives(table.clips[left], table.clips[right], table.groups[left], table.groups[right])
    rank = rank_both_ways if math.prod(positives.shape) <= _EXACT_SCORES else rank_in_tiles
    found = rank(table.embeddings[left], table.embeddings[right], positives, temperature)
    forth = _direction(table, left, found[0], len(table.embeddings[right]))
    back = _direction(table, right, found[1], len(table.embeddings[left]))
    return (forth, _queries(table, left, found[0])), (back, _queries(table, right, found[1]))


def _queries(table: EmbeddingTable, query: str, found: DirectionRanks) -> Queries:
    return Queries(table.clips[query].numpy(), found.plain.numpy(), found.dual_softmax.numpy())


def _direction(table: EmbeddingTable, query: str, found: DirectionRanks, num_candidates: int) -> Direction:
    counted = found.num_positives > 0
    distinct = min(len(table.clips[query][counted].unique()), len(table.groups[query][counted].unique()))
    return Direction(
        plain=metrics_of_ranks(found.plain, found.num_positives, num_candidates, KS),
        dual_softmax=metrics_of_ranks(found.dual_softmax, found.num_positives, num_candidates, KS),
        num_distinct=distinct,
    )


def frame_logits(table: EmbeddingTable, clip: int) -> Tensor:
    """Returns the logits (K, T) of every phrase in every frame of a clip; plain dot products without scale or bias.

    Raises:
        ValueError: if the table has no frames.
    """
    part = table.frame_part
    return _logits(table, part.text_event, part.frames[clip])


def _logits(table: EmbeddingTable, phrases: Tensor, frames: Tensor, which: Sequence[int] | None = None) -> Tensor:
    """Returns the logits (k, T) of phrases (k, D), all of the table's or some by number, in frames (T, D)."""
    dots = similarity(phrases, frames)
    if table.logit_scale is None or table.logit_bias is None:
        return dots

    def of(value: float | list[float]) -> float | Tensor:
        if not isinstance(value, list):
            return value
        some = value if which is None else [value[k] for k in which]
        return torch.tensor(some, dtype=dots.dtype).unsqueeze(1)

    return of(table.logit_scale) * dots + of(table.logit_bias)


def evaluate_frames(table: EmbeddingTable) -> FrameLevel:
    """Computes the frame AUROC and the event metrics over the annotated clips; the logits of all frames are never held at once.

    A phrase that is not known in a clip is left out there.

    Raises:
        ValueError: if the table has no frames.
    """
    part = table.frame_part
    clips = [c for c, events in enumerate(part.events) if events is not None and len(part.frames[c])]
    place = {phrase: k for k, phrase in enumerate(part.phrases)}
    positives: list[list[Tensor]] = [[torch.zeros(0)] for _ in place]
    num_clips = [0] * len(place)
    for clip in clips:
        held = list(dict.fromkeys(place[phrase] for phrase, _, _ in part.events[clip] or ()))
        # Rounded from float64: the very numbers that the blocks below hold of these frames.
        scores = _logits(table, part.text_event[held], part.frames[clip], held)
        for k, row, active in zip(held, scores, _labels(part, clip)[held], strict=True):
            positives[k].append(row[active])
            num_clips[k] += bool(active.any())
    found = auroc_in_blocks([torch.cat(scores) for scores in positives], _frame_blocks(table, part, clips))
    events = event_metrics(
        part,
        clips,
        lambda clip: _logits(table, part.text_event, part.frames[clip]),
        table.is_calibrated,
        Decisions(table.detection, part.phrases, part.frame_seconds),
    )
    per_phrase: dict[str, dict[str, float | None]] = {
        phrase: {
            "auroc": found.per_text[k],
            "num_clips": num_clips[k],
            "active_seconds": found.num_positive[k] * part.frame_seconds,
            **events.per_phrase[k],
        }
        for k, phrase in enumerate(part.phrases)
    }
    return FrameLevel(
        macro=found.macro,
        micro=found.micro,
        per_phrase=per_phrase,
        num_clips=len(clips),
        seconds=found.num_frames * part.frame_seconds,
        metrics=events.metrics,
        curves=events.curves,
        reliability=events.reliability,
        rule=events.rule,
    )


def _labels(part: FramePart, clip: int) -> Tensor:
    """Returns (K, T) bool."""
    return event_labels([part.events[clip]], part.phrases, len(part.frames[clip]), part.frame_seconds)[0]


def _frame_blocks(
    table: EmbeddingTable, part: FramePart, clips: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]]:
    """Yields logits, labels and, where not all is known, what is, (K, n) of all phrases in the frames of a few clips at a time."""
    most = max(1, _LOGITS_AT_ONCE // max(1, len(part.phrases)))
    waiting = list(reversed(clips))
    while waiting:
        block = [waiting.pop()]
        num_frames = len(part.frames[block[0]])
        while waiting and num_frames + len(part.frames[waiting[-1]]) <= most:
            block.append(waiting.pop())
            num_frames += len(part.frames[block[-1]])
        frames = torch.cat([part.frames[clip] for clip in block])
        logits, labels = _logits(table, part.text_event, frames), torch.cat([_labels(part, clip) for clip in block], 1)
        if part.known is None:
            yield logits, labels
        else:
            lengths = torch.tensor([len(part.frames[clip]) for clip in block])
            yield logits, labels, part.known[block].T.repeat_interleave(lengths, 1)


def compared_pairs(table: EmbeddingTable) -> list[tuple[str, str]]:
    """Returns the pairs that are evaluated both ways, and have embeddings: `BOTH_WAYS`, and what else was trained."""
    known = {frozenset(pair) for pair in (*BOTH_WAYS, *ONE_WAY)}
    own = [pair for pair in dict.fromkeys(table.pairs) if frozenset(pair) not in known]
    return [pair for pair in (*BOTH_WAYS, *own) if set(pair) <= set(table.embeddings)]


def evaluate_table(
    table: EmbeddingTable, temperature: float = 10.0, queries: dict[str, Queries] | None = None
) -> Evaluation:
    """Evaluates every direction whose two embeddings the table holds, and the frame level if it can.

    The directions are `DIRECTIONS`, and both of each pair in `table.pairs` beyond them. Similarity is the dot product of the
    embeddings as they are.

    Args:
        table: what the model made of a split.
        temperature: of the dual softmax.
        queries: is filled with what became of the queries of each direction, for intervals.

    Raises:
        ValueError: if there is nothing to evaluate.
    """
    directions: dict[str, Direction] = {}
    skipped: dict[str, str] = {}
    one_way = [pair for pair in ONE_WAY if set(pair) <= set(table.embeddings)]
    for left, right in (*compared_pairs(table), *one_way):
        names = [f"{left}->{right}", f"{right}->{left}"][: 1 if (left, right) in ONE_WAY else 2]
        if not bool(torch.isin(table.clips[left], table.clips[right]).any()):
            skipped |= {name: f"no clip has both {left} and {right}" for name in names}
            continue
        for name, (direction, found) in zip(names, evaluate_pair(table, left, right, temperature), strict=False):
            directions[name] = direction
            if queries is not None:
                queries[name] = found
    compared = {name for pair in (*compared_pairs(table), *one_way) for name in pair}
    for name in table.embeddings:
        if name not in compared:
            skipped[name] = "it is in no pair that an objective declares, with another embedding that is here"
            log.warning("embedding %r is not evaluated: %s", name, skipped[name])
    frames = evaluate_frames(table) if table.has_frames else None
    if not directions and frames is None:
        held = ", ".join(f"{name} ({len(rows)} rows)" for name, rows in table.embeddings.items()) or "no embedding"
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
        raise ValueError(
            f"there is nothing to evaluate: of {len(table)} clips there is {held}, and no two of them can be compared"
            + (f" ({reasons})" if reasons else "")
        )
    return Evaluation(len(table), directions, skipped, frames, temperature)
