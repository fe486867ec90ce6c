"""The numbers of a suite's tasks, from what a model made of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peav.data.manifests.identities import normalize_text
from peav.data.manifests.texts import CLASS
from peav.evaluation.classification import PROBES, class_scores, classification_metrics
from peav.evaluation.collect import Split, text_matrix
from peav.evaluation.directions import evaluate_frames, evaluate_pair
from peav.evaluation.intervals import Queries, share_intervals
from peav.evaluation.models import EvaluatedModel
from peav.evaluation.prompts import class_embeddings
from peav.evaluation.retrieval import dual_softmax
from peav.evaluation.store import EmbeddingStore
from peav.evaluation.suite import Task
from peav.evaluation.table import EmbeddingTable


class Skipped(Exception):  # noqa: N818  the name says what happened
    """A task that a model, or the data, do not allow: the message says why."""


@dataclass(frozen=True)
class TaskResult:
    """What came of a task.

    Attributes:
        task: which.
        value: the number that counts, a share in [0, 1] for all metrics that are shares.
        metrics: all numbers, plain.
        dual_softmax: those after the dual softmax; empty where there is none.
        interval: of `value`, over clips; None where it is no share of queries.
        num_clips: that were evaluated.
        queries: what became of each, for comparisons.
        clip_ids: the clips that `queries` numbers.
    """

    task: Task
    value: float
    metrics: dict[str, float | None]
    dual_softmax: dict[str, float | None] = field(default_factory=dict)
    interval: list[float] | None = None
    num_clips: int = 0
    queries: Queries | None = None
    clip_ids: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON data."""
        return {
            "value": self.value,
            "interval": self.interval,
            "metrics": self.metrics,
            "dual_softmax": self.dual_softmax,
            "num_clips": self.num_clips,
            "published": dict(self.task.published),
            "protocol": self.task.protocol(),
        }


@dataclass(frozen=True)
class Embedded:
    """A split that was embedded, with what tasks need of it.

    Attributes:
        split: its clips.
        table: their embeddings.
        store: where texts are found, prompts too.
    """

    split: Split
    table: EmbeddingTable
    store: EmbeddingStore


def check_model(task: Task, model: EvaluatedModel) -> None:
    """Looks whether a model makes what a task compares.

    Raises:
        Skipped: if it does not.
    """
    made = {*model.media_names, *model.text_fields, *([model.said_name] if model.said_name else [])}
    if wanted := [name for name in (task.query, task.item, task.head) if name and name not in made]:
        raise Skipped(f"the model makes no {' and no '.join(wanted)}; it makes {', '.join(sorted(made))}")
    if task.kind == "frames" and model.frame_scale is None:
        raise Skipped("the model makes no frames to be compared with phrases")
    if task.kind == "frames" and task.clip.window_seconds is not None:
        raise Skipped("frames are evaluated on whole clips: leave window_seconds out")


def run_task(
    task: Task, model: EvaluatedModel, embedded: Embedded, train: Embedded | None = None, classes: Sequence[str] = ()
) -> TaskResult:
    """Computes the numbers of a task.

    Args:
        task: it.
        model: that embedded the clips.
        embedded: the split that is evaluated.
        train: the split that a probe learns from.
        classes: all classes of the data set.

    Raises:
        Skipped: if the data hold nothing to be measured; the reason says what.
    """
    if task.kind == "retrieval":
        return _retrieval(task, embedded.table)
    if task.kind == "frames":
        return _frames(task, embedded.table)
    if task.kind == "classification":
        return _classification(task, model, embedded, classes)
    if train is None:
        raise Skipped("there is no split to learn from")
    return _probe(task, embedded, train, classes)


def _retrieval(task: Task, table: EmbeddingTable) -> TaskResult:
    for name in (task.query, task.item):
        if name not in table.embeddings:
            raise Skipped(
                f"no clip of the data has {name}: the caption, transcript or medium that it is made of is not there"
            )
    try:
        direction, queries = evaluate_pair(table, task.query, task.item)[0]
    except ValueError as error:
        raise Skipped(str(error)) from error
    metrics: dict[str, float | None] = dict(direction.plain)
    softened: dict[str, float | None] = dict(direction.dual_softmax)
    k = int(task.metric.removeprefix("R@"))
    interval = share_intervals({"value": queries.hits(k, task.dual_softmax)})["value"]
    value = (direction.dual_softmax if task.dual_softmax else direction.plain)[task.metric]
    return TaskResult(task, value, metrics, softened, interval, len(table), queries, table.clip_ids)


def _frames(task: Task, table: EmbeddingTable) -> TaskResult:
    if not table.has_frames:
        raise Skipped("no clip of the data has annotated events with times and a sound")
    found = asdict(evaluate_frames(table))
    phrases, num_clips = found.pop("per_phrase"), found.pop("num_clips")
    events = found.pop("metrics")
    metrics = {"macro_auroc": found["macro"], "micro_auroc": found["micro"], **events, "num_phrases": len(phrases)}
    value = metrics.get(task.metric)
    if value is None:
        raise Skipped(
            f"{task.metric} is not defined here: {', '.join(n for n, v in metrics.items() if v is not None)} are"
        )
    return TaskResult(task, float(value), metrics, num_clips=num_clips)


def _classification(task: Task, model: EvaluatedModel, embedded: Embedded, classes: Sequence[str]) -> TaskResult:
    names = _known_classes(classes, embedded.split)
    scores, truth, clips = _labelled(task, embedded, names)
    prompts = prompts_of(task, names)
    flat = [prompt for one in prompts for prompt in one]
    owner = torch.tensor([number for number, one in enumerate(prompts) for _ in one])
    heads = class_embeddings(text_matrix(embedded.store, task.head, flat), owner, len(names), model.normalize)
    plain = class_scores(scores, heads)
    metrics, hits = classification_metrics(plain, truth)
    softened, soft_hits = classification_metrics(dual_softmax(plain.double()).float(), truth)
    return _classified(task, metrics, softened, hits, soft_hits, clips, embedded.table.clip_ids)


def _probe(task: Task, embedded: Embedded, train: Embedded, classes: Sequence[str]) -> TaskResult:
    names = _known_classes(classes, train.split)
    features, truth, clips = _labelled(task, embedded, names)
    learned, labels, _ = _labelled(task, train, names)
    if any(len(one) > 1 for one in labels):
        raise Skipped("probes learn one class a clip, and clips here have several")
    target = torch.tensor([one[0] for one in labels])
    if len(target.unique()) < 2:
        raise Skipped(f"the clips to learn from are of {len(target.unique())} class: there is nothing to tell apart")
    scores = PROBES[task.kind](learned.float(), target, features.float(), len(names))
    metrics, hits = classification_metrics(scores, truth)
    return _classified(task, metrics, {}, hits, hits, clips, embedded.table.clip_ids)


def prompts_of(task: Task, classes: Sequence[str]) -> list[list[str]]:
    """Returns the prompts of each class.

    Raises:
        Skipped: if the task has none, or they do not fit the classes.
    """
    if task.prompts is None:
        raise Skipped("the task has no prompts")
    try:
        return task.prompts.of(classes)
    except ValueError as error:
        raise Skipped(str(error)) from error


def _known_classes(classes: Sequence[str], split: Split) -> list[str]:
    """Returns the classes of a data set, or those that occur where it names none."""
    names = dict.fromkeys(classes) or dict.fromkeys(
        sorted({text for clip in split for text in clip.texts.get(CLASS, ())})
    )
    if len(names) < 2:
        raise Skipped(f"there is {'one class' if names else 'no class'}: nothing to tell apart")
    return list(names)


def data_classes(classes: Sequence[str], split: Split) -> list[str]:
    """Returns the classes that prompts are made for; none where there are fewer than two."""
    try:
        return _known_classes(classes, split)
    except Skipped:
        return []


def _labelled(task: Task, embedded: Embedded, classes: Sequence[str]) -> tuple[Tensor, list[list[int]], list[int]]:
    """Returns the embeddings (N, D) of the clips that have a class, their classes, and their numbers."""
    table = embedded.table
    if task.item not in table.embeddings:
        raise Skipped(f"no clip of the data has {task.item}")
    number = {normalize_text(name): place for place, name in enumerate(classes)}
    rows, truth, clips = [], [], []
    for row, clip in enumerate(table.clips[task.item].tolist()):
        said = embedded.split.clip(clip).texts.get(CLASS, ())
        own = [number[normalize_text(text)] for text in said if normalize_text(text) in number]
        if own:
            rows.append(row)
            truth.append(own)
            clips.append(clip)
    if not rows:
        raise Skipped("no clip of the data has a class: captions of the type `class` say it")
    return table.embeddings[task.item][rows], truth, clips


def _classified(
    task: Task,
    metrics: dict[str, float],
    softened: dict[str, float],
    hits: Tensor,
    soft_hits: Tensor,
    clips: Sequence[int],
    clip_ids: Sequence[str],
) -> TaskResult:
    counted = softened if task.dual_softmax else metrics
    if task.metric not in counted:
        raise Skipped(f"the metric {task.metric!r} is not defined here: {', '.join(counted)} are")
    # A class that is found is a right candidate at rank 1; what stands before another one is not counted.
    ranks, dual = (np.where(found.numpy(), 1, 2).astype(np.int64) for found in (hits, soft_hits))
    queries = Queries(np.array(clips, np.int64), ranks, dual)
    interval = None
    if task.metric == "accuracy":
        interval = share_intervals({"value": queries.hits(1, task.dual_softmax)})["value"]
    return TaskResult(
        task, counted[task.metric], dict(metrics), dict(softened), interval, len(clips), queries, clip_ids
    )
