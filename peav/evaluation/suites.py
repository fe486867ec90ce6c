"""Evaluates an embedding table: every direction of retrieval that it allows, and the frame-level AUROC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from peav.evaluation.detection import event_labels, frame_auroc
from peav.evaluation.retrieval import dual_softmax, retrieval_metrics, shared_positives
from peav.evaluation.table import EmbeddingTable

KS = (1, 5, 10)

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
        per_phrase: by phrase `auroc` (None without both classes), `num_clips` that hold it, `active_seconds`.
        num_clips: annotated clips with audio.
        seconds: their total length.
    """

    macro: float | None
    micro: float | None
    per_phrase: dict[str, dict[str, float | None]]
    num_clips: int
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_table` finds; plain numbers only.

    Attributes:
        num_clips: clips of the split.
        directions: by `query->item`, in the order of `DIRECTIONS`.
        skipped: why a direction whose embeddings exist was left out.
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
        return text

    def frame_summary(self) -> str:
        """Returns one sentence on the frame level, or on its absence."""
        if self.frames is None:
            return "No frame-level evaluation: no frame embeddings or no annotated clip."
        macro, micro = (f"{v:.3f}" if v is not None else "undefined" for v in (self.frames.macro, self.frames.micro))
        counted = sum(row["auroc"] is not None for row in self.frames.per_phrase.values())
        scope = f"{counted} of {len(self.frames.per_phrase)} phrases, {self.frames.num_clips} clips"
        return f"Frame AUROC: macro {macro}, micro {micro} ({scope}, {self.frames.seconds:.0f} s)."

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


def similarity(queries: Tensor, items: Tensor) -> Tensor:
    """Returns the dot products (Q, M) of embeddings (Q, D) and (M, D) as float32, rounded from float64.

    The rounding makes equal rows score equally wherever they stand in the matrix product, so that ties are seen as
    ties.
    """
    items = items.double().T.contiguous()
    chunks = [(chunk.double() @ items).float() for chunk in queries.split(4096)]
    return torch.cat(chunks) if chunks else torch.zeros(0, items.shape[1])


def evaluate_direction(table: EmbeddingTable, query: str, item: str, temperature: float = 10.0) -> Direction:
    """Evaluates retrieval of `item` by `query`; the candidates are all clips that have the item.

    Raises:
        ValueError: if no query has a positive.
    """
    positives = shared_positives(table.clips[query], table.clips[item], table.groups[query], table.groups[item])
    scores = similarity(table.embeddings[query], table.embeddings[item])
    counts = positives.any(1)
    distinct = min(len(table.clips[query][counts].unique()), len(table.groups[query][counts].unique()))
    return Direction(
        plain=retrieval_metrics(scores, positives, KS),
        dual_softmax=retrieval_metrics(dual_softmax(scores, temperature), positives, KS),
        num_distinct=distinct,
    )


def frame_logits(table: EmbeddingTable, clip: int | None = None) -> Tensor:
    """Returns the logits (M, K, T) of every phrase in every frame; plain dot products without scale or bias.

    Args:
        table: a table with frames.
        clip: compute this clip only, (1, K, T).

    Raises:
        ValueError: if the table has no frames.
    """
    if table.frames is None or table.text_event is None:
        raise ValueError("the table has no frame embeddings")
    frames = table.frames if clip is None else table.frames[clip : clip + 1]
    dots = torch.einsum("mtd,kd->mkt", frames.float(), table.text_event.float())
    if table.logit_scale is None or table.logit_bias is None:
        return dots
    return table.logit_scale * dots + table.logit_bias


def evaluate_frames(table: EmbeddingTable) -> FrameLevel:
    """Computes the frame AUROC over the annotated clips.

    Raises:
        ValueError: if the table has no frames.
    """
    if table.frames is None or table.frame_mask is None or table.frame_seconds is None or table.events is None:
        raise ValueError("the table has no frame embeddings")
    annotated = torch.tensor([events is not None for events in table.events])
    mask = table.frame_mask & annotated[:, None]
    labels = event_labels(table.events, table.phrases, table.frames.shape[1], table.frame_seconds)
    # Padded frames may hold anything; the mask keeps them out of the result.
    found = frame_auroc(frame_logits(table), labels, mask)
    holds = (labels & mask[:, None]).any(-1).sum(0).tolist()
    per_phrase: dict[str, dict[str, float | None]] = {
        phrase: {
            "auroc": found.per_text[k],
            "num_clips": holds[k],
            "active_seconds": found.num_positive[k] * table.frame_seconds,
        }
        for k, phrase in enumerate(table.phrases)
    }
    return FrameLevel(
        macro=found.macro,
        micro=found.micro,
        per_phrase=per_phrase,
        num_clips=int(mask.any(1).sum()),
        seconds=found.num_frames * table.frame_seconds,
    )


def evaluate_table(table: EmbeddingTable, temperature: float = 10.0) -> Evaluation:
    """Evaluates every direction of `DIRECTIONS` whose two embeddings the table holds, and the frame level if it can.

    Similarity is the dot product of the embeddings as they are.

    Args:
        table: what the model made of a split.
        temperature: of the dual softmax.
    """
    directions, skipped = {}, {}
    for query, item in DIRECTIONS:
        if query not in table.embeddings or item not in table.embeddings:
            continue
        name = f"{query}->{item}"
        if not bool(torch.isin(table.clips[query], table.clips[item]).any()):
            skipped[name] = f"no clip has both {query} and {item}"
            continue
        directions[name] = evaluate_direction(table, query, item, temperature)
    frames = evaluate_frames(table) if table.has_frames else None
    return Evaluation(len(table), directions, skipped, frames, temperature)
