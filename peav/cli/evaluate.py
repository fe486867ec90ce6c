"""`peav evaluate`: a checkpoint and a prepared split to numbers and a report."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from peav.checkpoints.pickled import read_pickled
from peav.data.datamodule import ClipDataModule
from peav.data.loading.dataset import ClipDataset
from peav.data.loading.loader import ClipLoader
from peav.data.loading.sampler import EvaluationPlan
from peav.data.manifests.clip import Clip
from peav.data.manifests.records import SPLITS
from peav.evaluation import EmbeddingTable, Evaluation, evaluate_table
from peav.evaluation.collect import ClipTexts, FrameScale, collect
from peav.evaluation.overview import write_overview
from peav.evaluation.report import History, write_report
from peav.objectives import Objective
from peav.suggest import suggest
from peav.training import PeavModule
from peav.types import Batch

log = logging.getLogger(__name__)

#: Settings of the data module that change what a clip looks like to the model; they are read from the checkpoint.
DATA_SETTINGS = ("sample_rate", "num_frames", "fps", "frame_size", "downmix", "sampling")


def run_evaluation(
    checkpoint: Path,
    data: Path,
    out: Path | None,
    split: str,
    control: Path | None,
    batch_size: int,
    num_workers: int,
    device: str,
    trust: bool = False,
) -> Path:
    """Evaluates, writes everything and prints the table; see `peav evaluate --help` for the arguments.

    Returns:
        the folder written.

    Raises:
        FileNotFoundError: if the checkpoint or the split is not there.
        ValueError: if the split has no such name or nothing can be compared.
    """
    if split not in SPLITS:
        raise ValueError(f"no split is named {split!r}. {suggest(split, SPLITS)}")
    folder = out if out is not None else checkpoint.resolve().parent.parent
    folder.mkdir(parents=True, exist_ok=True)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    table, module, dataset = embed_split(checkpoint, data, split, batch_size, num_workers, device, trust)
    evaluation = evaluate_table(table)
    controlled = None
    if control is not None:
        controlled = evaluate_table(embed_split(control, data, split, batch_size, num_workers, device, trust)[0])
    results: dict[str, Any] = json.loads(evaluation.to_json())
    results |= {"checkpoint": str(checkpoint), "data": str(data), "split": split}
    if controlled is not None:
        results["control"] = json.loads(controlled.to_json())
    (folder / "evaluation.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (folder / "evaluation.md").write_text(evaluation.to_markdown(), encoding="utf-8")
    media = _Media(dataset)
    title = f"peav: {checkpoint.resolve().parent.parent.name}, {split} split"
    settings = {"checkpoint": checkpoint, "data": data, "split": split, "control": control}
    settings |= {"licences": licences(dataset.manifest), **_flat(module.hparams)}
    write_report(
        folder / "report.html",
        evaluation,
        table,
        history=read_history(checkpoint),
        control=controlled,
        examples=media,
        title=title,
        settings=settings,
    )
    write_overview(folder / "overview.png", evaluation, table, examples=media)
    # Narrower than this the table would lose its figures; a pipe says 80.
    console = Console(width=max(Console().width, 120))
    console.print(evaluation.to_rich())
    if evaluation.event_rows():
        console.print(evaluation.events_to_rich())
    if controlled is not None:
        console.print(control_sentence(controlled))
    return folder


#: From this confidence on an event is true in evaluation, as is the custom with soft labels (MAESTRO Real, DCASE 2023 task 4b).
TRUE_CONFIDENCE = 0.5


def embed_split(
    checkpoint: Path, data: Path, split: str, batch_size: int, num_workers: int, device: str, trust: bool = False
) -> tuple[EmbeddingTable, PeavModule, ClipDataset]:
    """Rebuilds a model from its checkpoint and embeds a split as it was trained to see it.

    Raises:
        FileNotFoundError: if the checkpoint is not there.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f"there is no checkpoint {checkpoint}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    module = PeavModule.load_from_checkpoint(checkpoint, map_location=device, trust=trust)
    module.eval()
    saved = read_pickled(checkpoint, mmap=True)
    stored = saved.get(ClipDataModule.CHECKPOINT_HYPER_PARAMS_KEY) or {}
    settings = {name: stored[name] for name in DATA_SETTINGS if name in stored}
    if len(settings) < len(DATA_SETTINGS):
        log.warning(
            "%s holds no data settings: sample rate, frames and sizes are the data module's defaults", checkpoint
        )
    # Checkpoints of before have no fields of the user's own kinds.
    options = stored.get("field_options")
    dataset = ClipDataset(data, split, fields=module.model.batch_fields, field_options=options, **settings)
    loader = ClipLoader(dataset, EvaluationPlan(len(dataset), batch_size), module.tokenize, num_workers)
    objectives = [objective for objective in module.objectives.values() if isinstance(objective, Objective)]
    table = collect(
        module.model,
        _with_progress(loader, f"embedding {split}"),
        [clip_texts(clip) for clip in dataset.manifest],
        module.tokenize,
        frame_scale(objectives),
        device,
        [pair for objective in objectives for pair in objective.compared],
    )
    return table, module, dataset


def licences(clips: Iterable[Clip]) -> str:
    """Returns how many clips there are of each licence, as a text: `CC0-1.0: 12 clips; not said: 3 clips`."""
    counts = Counter(clip.licence or "not said" for clip in clips)
    return "; ".join(f"{name}: {count} clips" for name, count in counts.most_common())


def _with_progress(loader: ClipLoader, what: str) -> Iterator[Batch]:
    yield from track(loader, description=what, total=len(loader))


def clip_texts(clip: Clip) -> ClipTexts:
    """Returns everything that was written about a clip. Where one of its events has no times, nobody knows its events in time."""
    events = None
    if clip.events is not None and not any(event.is_weak for event in clip.events):
        heard = [event for event in clip.events if event.confidence >= TRUE_CONFIDENCE]
        events = [(event.phrase, *event.span) for event in heard if event.span is not None]
    captions = {kind: list(texts) for kind, texts in clip.texts.items()}
    return ClipTexts(clip.id, captions, clip.transcript, events)


def frame_scale(objectives: Sequence[Objective]) -> FrameScale | None:
    """Returns what the first objective with a frame level declares of it (`Objective.frame_pair`), None where none does."""
    declared = [(o.frame_pair, o) for o in objectives if o.frame_pair is not None]
    if not declared:
        return None
    pair, objective = declared[0]
    if others := [" x ".join(other) for other in dict.fromkeys(other for other, _ in declared) if other != pair]:
        log.warning("frames are evaluated for %s alone, not for %s", " x ".join(pair), ", ".join(others))
    if (by_phrase := objective.text_scores().get(pair)) is not None:
        return FrameScale(*pair, by_phrase=by_phrase)
    score = objective.pair_scores().get(pair)
    return FrameScale(*pair) if score is None else FrameScale(*pair, float(score[0]), float(score[1]))


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


class _Media:
    """Loads a clip's middle frame and its sound for the report's examples."""

    def __init__(self, dataset: ClipDataset) -> None:
        self.dataset = dataset
        self.rows = {clip.id: row for row, clip in enumerate(dataset.manifest)}

    def __call__(self, clip_id: str) -> tuple[Tensor | None, Tensor | None, int]:
        clip = self.dataset[self.rows[clip_id]]
        frame = (
            clip.frames[len(clip.frames) // 2].permute(1, 2, 0) if clip.frames is not None and clip.has_video else None
        )
        samples = clip.samples if clip.has_audio else None
        return frame, samples, clip.sample_rate


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens nested configuration to `a.b.c` names; long texts (the tokenizer's JSON) are left out."""
    flat: dict[str, Any] = {}
    for key, value in dict(config).items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not (isinstance(value, str) and len(value) > 200):
            flat[f"{prefix}{key}"] = value
    return flat
