"""Runs a suite: each data set is read once, each sampling of its clips embedded once, and every task measured or explained."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peav.evaluation.collect import PassOptions, Split, Work, build_table, embed_split, open_store
from peav.evaluation.intervals import Queries
from peav.evaluation.models import EvaluatedModel
from peav.evaluation.suite import ClipSampling, Suite, SuiteDataset, Task, check_tasks
from peav.evaluation.suite_data import Found, Missing, find_data
from peav.evaluation.tasks import Embedded, Skipped, TaskResult, check_model, data_classes, prompts_of, run_task

log = logging.getLogger(__name__)


@dataclass
class SuiteResult:
    """What came of a suite.

    Attributes:
        suite: which.
        results: by task.
        skipped: tasks that could not be measured, with the reason.
        missing: data sets that are not there, with the reason.
        data: by data set its coverage, fingerprint, and the clips that cannot be decoded.
        media: by data set what was embedded last, for examples.
        work: what was embedded now, and what had been.
    """

    suite: Suite
    results: dict[str, TaskResult] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    media: dict[str, tuple[EvaluatedModel, Embedded]] = field(default_factory=dict)
    work: Work = field(default_factory=Work)

    def queries(self) -> tuple[dict[str, Queries], dict[str, Sequence[str]]]:
        """Returns what became of the queries of each task, and the ids of its clips."""
        measured = {name: result for name, result in self.results.items() if result.queries is not None}
        queries = {name: result.queries for name, result in measured.items() if result.queries is not None}
        return queries, {name: result.clip_ids for name, result in measured.items()}


def run_suite(
    suite: Suite,
    model: EvaluatedModel,
    root: Path,
    prepared: Path,
    cache: Path,
    options: PassOptions,
    workers: int | None = None,
    share: tuple[int, int] | None = None,
) -> SuiteResult:
    """Runs a suite on the data sets that are below a root.

    Args:
        suite: its tasks.
        model: it.
        root: folder of data sets.
        prepared: folder for what is packed of them.
        cache: folder of embeddings.
        options: how clips are embedded, where tasks do not say.
        workers: processes that check media.
        share: rank and number of processes, of which each embeds its share and none measures; None measures.

    Raises:
        FileNotFoundError: if there is no root.
        SuiteError: if a reader cannot be built.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}: --data names the folder in which the data sets lie")
    check_tasks(suite.tasks)
    found = SuiteResult(suite)
    by_dataset: dict[str, list[Task]] = {}
    for task in suite.tasks:
        by_dataset.setdefault(task.dataset.name, []).append(task)
    for name, tasks in by_dataset.items():
        possible = []
        for task in tasks:
            try:
                check_model(task, model)
                possible.append(task)
            except Skipped as reason:
                found.skipped[task.name] = str(reason)
        dataset = tasks[0].dataset
        if dataset.find(root) is None:
            found.missing[name] = f"no folder {' or '.join(dataset.folders)} in {root}"
        elif possible:
            _run_dataset(found, dataset, possible, model, root, prepared, cache, options, workers, share)
    return found


def _run_dataset(
    found: SuiteResult,
    dataset: SuiteDataset,
    tasks: Sequence[Task],
    model: EvaluatedModel,
    root: Path,
    prepared: Path,
    cache: Path,
    options: PassOptions,
    workers: int | None,
    share: tuple[int, int] | None,
) -> None:
    try:
        held = find_data(dataset, root, prepared, workers, options.progress)
        split = Split(held.data, dataset.split)
    except (Missing, FileNotFoundError, ValueError) as reason:
        found.missing[dataset.name] = str(reason)
        log.warning("%s cannot be evaluated: %s", dataset.name, reason)
        return
    for clip in dict.fromkeys(task.clip for task in tasks):
        own = [task for task in tasks if task.clip == clip]
        _run_sampling(found, held, split, own, sampled(model, clip), clip, cache, options, share)


def _run_sampling(
    found: SuiteResult,
    held: Found,
    split: Split,
    tasks: Sequence[Task],
    model: EvaluatedModel,
    clip: ClipSampling,
    cache: Path,
    options: PassOptions,
    share: tuple[int, int] | None,
) -> None:
    dataset = held.dataset
    options = dataclasses.replace(options, window_seconds=clip.window_seconds)
    store = open_store(cache, model, options)
    prompts = _prompts(tasks, held, split)
    learn = any(task.kind.endswith("probe") for task in tasks)
    if share is not None:
        _add(found.work, embed_split(model, split, store, options, prompts, *share))
        if learn:
            _add(found.work, embed_split(model, Split(held.data, dataset.train), store, options, None, *share))
        return
    _add(found.work, embed_split(model, split, store, options, prompts))
    table, undecodable = build_table(model, split, store, every_pair=False)
    evaluated = Embedded(split, table, store)
    found.media[dataset.name] = (model, evaluated)
    found.data[dataset.name] = {
        "coverage": held.coverage,
        "fingerprint": split.fingerprint(),
        "num_clips": len(split),
        "undecodable": dict(sorted(undecodable.items())),
    }
    if len(undecodable) == len(split):
        first = next(iter(undecodable.values()))
        found.missing[dataset.name] = f"none of its {len(split)} clips can be decoded; the first: {first}"
        return
    train: Embedded | None = None
    if learn:
        try:
            learned = Split(held.data, dataset.train)
            _add(found.work, embed_split(model, learned, store, options))
            train = Embedded(learned, build_table(model, learned, store, every_pair=False)[0], store)
        except (FileNotFoundError, ValueError) as reason:
            log.warning("%s has nothing to learn from: %s", dataset.name, reason)
    for task in tasks:
        try:
            found.results[task.name] = run_task(task, model, evaluated, train, held.classes)
        except Skipped as reason:
            found.skipped[task.name] = str(reason)
            log.warning("task %s is left out: %s", task.name, reason)


def _prompts(tasks: Sequence[Task], held: Found, split: Split) -> dict[str, list[str]]:
    """Returns the prompts to embed by the head that reads them."""
    found: dict[str, list[str]] = {}
    for task in tasks:
        classes = data_classes(held.classes, split)
        if task.kind == "classification" and classes:
            try:
                flat = [prompt for one in prompts_of(task, classes) for prompt in one]
            except Skipped:
                continue  # the task says so itself
            found.setdefault(task.head, []).extend(flat)
    return found


def sampled(model: EvaluatedModel, clip: ClipSampling) -> EvaluatedModel:
    """Returns a model that sees clips with other frames than its own, where a task says so."""
    if clip.num_frames is None and clip.fps is None:
        return model
    other = copy.copy(model)
    other.settings = dataclasses.replace(
        model.settings, num_frames=None if clip.fps is not None else clip.num_frames, fps=clip.fps
    )
    return other


def _add(total: Work, more: Work) -> None:
    total.clips, total.known_clips = total.clips + more.clips, total.known_clips + more.known_clips
    total.texts, total.known_texts = total.texts + more.texts, total.known_texts + more.known_texts
