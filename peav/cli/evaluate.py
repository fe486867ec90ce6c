"""`peav evaluate`: a model and a prepared split to numbers and a report."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from peav.checkpoints import CheckpointError
from peav.cli.evaluate_model import ModelChoice
from peav.cli.evaluate_ranks import on_ranks
from peav.cli.logs import set_up_logging
from peav.data.loading.decoding import ClipReader
from peav.data.manifests.clip import Clip
from peav.evaluation import Evaluation
from peav.evaluation.before import BeforeAfter
from peav.evaluation.collect import PassOptions, Split
from peav.evaluation.models import EvaluatedModel
from peav.evaluation.overview import write_overview
from peav.evaluation.report import History, write_report
from peav.evaluation.result import (
    TABLE,
    describe_data,
    describe_protocol,
    interval_settings,
    package_versions,
    recall_intervals,
    write_result,
)
from peav.evaluation.run import Evaluated, check_split_name, embed_share, evaluate_split, open_split
from peav.trust import TrustError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateOptions:
    """What `peav evaluate` was asked for; see `peav.cli.commands.evaluate.evaluate`."""

    model: ModelChoice
    data: Path
    out: Path | None = None
    split: str = "test"
    control: Path | None = None
    before: str = "start"
    cache: Path | None = None
    devices: int = 1
    how: PassOptions = field(default_factory=PassOptions)

    @property
    def folder(self) -> Path:
        """The folder to write."""
        if self.out is not None:
            return self.out
        return self.model.run or Path("runs") / "evaluate" / Path(self.model.path).name

    @property
    def store(self) -> Path:
        """The folder of the embeddings."""
        return self.cache if self.cache is not None else self.folder / "embeddings"


def run_evaluation(options: EvaluateOptions) -> Path | None:
    """Evaluates, writes everything and prints the table.

    Returns:
        the folder written; None in a process that is not the first of several.

    Raises:
        FileNotFoundError: if the checkpoint or the split is not there.
        ValueError: if the split has no such name or nothing can be compared.
    """
    check_split_name(options.split)
    model, settings = options.model.open()
    split = open_split(options.data, options.split)
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not on_ranks(options.devices, options.model.device, partial(_embed_rank, options=options)):
        return None
    evaluated = evaluate_split(model, split, options.store, options.how)
    log.info("%s", evaluated.work)
    controlled = None
    if options.control is not None:
        other, _ = replace(options.model, path=str(options.control)).open()
        controlled = evaluate_split(other, split, options.store, options.how).evaluation
    before = evaluate_before(options, model, split, evaluated)
    write_everything(options, folder, model, settings, split, evaluated, controlled, before)
    # Narrower than this the table would lose its figures; a pipe says 80.
    console = Console(width=max(Console().width, 120))
    console.print(evaluated.evaluation.to_rich())
    if evaluated.evaluation.event_rows():
        console.print(evaluated.evaluation.events_to_rich())
    if controlled is not None:
        console.print(control_sentence(controlled))
    if before is not None:
        console.print(before.to_rich())
    if evaluated.undecodable:
        console.print(f"{len(evaluated.undecodable)} of {len(split)} clips cannot be decoded and are left out")
    return folder


def evaluate_before(
    options: EvaluateOptions, model: EvaluatedModel, split: Split, after: Evaluated
) -> BeforeAfter | None:
    """Evaluates the retrieval of the model from which training went on, and compares.

    Returns:
        both; None where nothing is to stand beside, or what the run began from is not here, which the log says.

    Raises:
        FileNotFoundError: if the model that was named is not there.
        CheckpointError: if it is none.
    """
    path = model.started_from if options.before == "start" else options.before
    if path is None or options.before == "none":
        return None
    if options.before == "start" and not Path(path).exists():
        how = "give it with --before to see retrieval before and after, or --before none"
        log.warning("training began from %s, which is not on this machine: %s", path, how)
        return None
    try:
        choice = replace(options.model, path=path, adapter=None, adapter_options={})
        other, _ = choice.open()
    except (CheckpointError, TrustError, ValueError) as error:
        if options.before != "start":
            raise
        log.warning("retrieval before is not shown, for %s cannot be opened: %s", path, error)
        return None
    found = evaluate_split(other, split, options.store, options.how)
    log.info("before, by %s: %s", path, found.work)
    sides = [(each.evaluation, each.queries) for each in (found, after)]
    name = choice.name if choice.name != options.model.name else path
    return BeforeAfter.of(name, path, sides[0], sides[1], after.table.clip_ids)


def _embed_rank(fabric: Any, options: EvaluateOptions) -> None:
    set_up_logging()  # in a process that was spawned
    choice = replace(options.model, device=str(fabric.device))
    model, _ = choice.open()
    split = open_split(options.data, options.split)
    work = embed_share(model, split, options.store, options.how, fabric.global_rank, fabric.world_size)
    log.info("rank %d of %d: %s", fabric.global_rank, fabric.world_size, work)
    fabric.barrier()


def write_everything(
    options: EvaluateOptions,
    folder: Path,
    model: EvaluatedModel,
    settings: dict[str, Any],
    split: Split,
    evaluated: Evaluated,
    controlled: Evaluation | None,
    before: BeforeAfter | None = None,
) -> None:
    """Writes evaluation.json, its sidecar, the table, the report and the overview."""
    evaluation, table = evaluated.evaluation, evaluated.table
    results: dict[str, Any] = json.loads(evaluation.to_json())
    results |= {"checkpoint": options.model.path, "data": str(options.data), "split": options.split}
    results |= {
        "model": model.describe(),
        "dataset": describe_data(split, evaluated.undecodable),
        "protocol": describe_protocol(model, options.how),
        "intervals": recall_intervals(evaluated.queries),
        "interval_settings": interval_settings(),
        "versions": package_versions(),
    }
    if controlled is not None:
        results["control"] = json.loads(controlled.to_json())
    if before is not None:
        results["before"] = before.to_dict()
    write_result(folder, results, evaluated.queries, dict.fromkeys(evaluated.queries, table.clip_ids))
    table_text = evaluation.to_markdown().rstrip("\n") + "\n" + (before.to_markdown() if before is not None else "")
    (folder / TABLE).write_text(table_text, encoding="utf-8")
    media = SplitMedia(split, model)
    shown = {"checkpoint": options.model.path, "data": options.data, "split": options.split, "control": options.control}
    shown |= {"licences": licences(split), **_flat(settings)}
    write_report(
        folder / "report.html",
        evaluation,
        table,
        history=read_history(Path(options.model.path)) if options.model.is_checkpoint else {},
        control=controlled,
        before=before,
        examples=media,
        title=f"peav: {options.model.name}, {options.split} split",
        settings=shown,
    )
    write_overview(folder / "overview.png", evaluation, table, examples=media)


def licences(clips: Iterable[Clip]) -> str:
    """Returns how many clips there are of each licence, as a text: `CC0-1.0: 12 clips; not said: 3 clips`."""
    counts = Counter(clip.licence or "not said" for clip in clips)
    return "; ".join(f"{name}: {count} clips" for name, count in counts.most_common())


def read_history(checkpoint: Path) -> History:
    """Joins what the CSV logger wrote in the run's folder, resumed runs after the ones they resume; empty if there is nothing."""
    run = checkpoint.resolve().parent.parent
    found = [*run.glob("metrics.csv"), *run.glob("*/metrics.csv"), *run.glob("csv/*/metrics.csv")]
    history: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(found, key=lambda path: path.stat().st_mtime):
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if (row.get("step") or "").isdigit()]
        if not rows:
            continue
        begun = int(rows[0]["step"])  # a resumed run goes on from here; what an earlier one did after it was lost
        history = {name: [point for point in points if point[0] < begun] for name, points in history.items()}
        for row in rows:
            for name, value in row.items():
                # A row that was cut short has fewer or more fields than the header.
                if name and isinstance(value, str) and value and name not in ("step", "epoch"):
                    history.setdefault(name, []).append((int(row["step"]), float(value)))
    return history


def control_sentence(control: Evaluation) -> str:
    """Says what the control run reached."""
    known = [name for name in ("text_audio->audio", "text_video->video", "audio->video") if name in control.directions]
    found = [
        f"{name} {100 * control.directions[name].plain['R@1']:.1f} % (chance {100 * control.directions[name].plain['chance_R@1']:.1f} %)"
        for name in known or list(control.directions)[:3]
    ]
    if not found:
        return f"Control, the same run with the pairing shuffled across clips: {control.frame_summary()}"
    return f"Control, the same run with the pairing shuffled across clips: R@1 {', '.join(found)}"


class SplitMedia:
    """Loads a clip's middle frame and its sound for the report's examples."""

    def __init__(self, split: Split, model: EvaluatedModel) -> None:
        self.fields = model.fields
        self.reader = ClipReader(split.data, model.settings)
        self.places = {clip.id: place for place, clip in enumerate(split)}
        self.split = split

    def __call__(self, clip_id: str) -> tuple[Tensor | None, Tensor | None, int]:
        """Returns frame, sound and sample rate of a clip; None for what the model does not read, or the clip lacks."""
        clip = self.split.clip(self.places[clip_id])
        frame = samples = None
        if clip.has_video and "video" in self.fields:
            frames = self.reader.frames(clip)
            frame = frames[len(frames) // 2].permute(1, 2, 0)
        if clip.has_audio and "audio" in self.fields:
            samples = self.reader.samples(clip)
        return frame, samples, self.reader.settings.sample_rate


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens nested configuration to `a.b.c` names; long texts (the tokenizer's JSON) are left out."""
    flat: dict[str, Any] = {}
    for key, value in dict(config).items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not (isinstance(value, str) and len(value) > 200):
            flat[f"{prefix}{key}"] = value
    return flat
