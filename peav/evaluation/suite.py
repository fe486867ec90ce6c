"""Suites as data (`peav/evaluation/suites/*.yaml`): their tasks, on which data sets, by which protocol, and what was published."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from peav.data.manifests.records import SPLITS
from peav.data.readers import READERS, Reader
from peav.evaluation.prompts import Prompts, parse_prompts
from peav.suggest import suggest
from peav.types import Seconds

Kind = Literal["retrieval", "classification", "frames", "linear_probe", "knn_probe"]

#: Metrics that are not shares, and are written as they are.
UNSCALED = ("auroc", "psds", "f1", "ece", "brier", "false_alarms")

#: Those of which less is better, by how their names begin.
LOWER_IS_BETTER = ("ece", "brier", "false_alarms")

#: What retrieval is measured by.
RECALLS = ("R@1", "R@5", "R@10")

#: What a task of each kind must say.
_NEEDS = {
    "retrieval": ("query", "item"),
    "classification": ("item", "head", "prompts"),
    "frames": (),
    "linear_probe": ("item",),
    "knn_probe": ("item",),
}


class SuiteError(ValueError):
    """A suite that cannot be run; the message says what is wrong and what would help."""


@dataclass(frozen=True)
class SuiteDataset:
    """A data set of a suite.

    Attributes:
        name: what tasks call it.
        folders: below ROOT, the first that is there.
        reader: {"class_path", "init_args"}.
        split: that is evaluated.
        train: the split that probes learn from; "" where there is none.
    """

    name: str
    folders: tuple[str, ...]
    reader: Mapping[str, Any]
    split: str = "test"
    train: str = ""

    def find(self, root: Path) -> Path | None:
        """Returns its folder below a root, None where it is not there."""
        return next((root / name for name in self.folders if (root / name).is_dir()), None)

    def build_reader(self) -> Reader:
        """Builds its reader.

        Raises:
            SuiteError: if there is none of that name, or it takes other arguments.
        """
        path, arguments = str(self.reader.get("class_path")), dict(self.reader.get("init_args") or {})
        module, _, name = path.rpartition(".")
        try:
            cls = getattr(import_module(module), name) if module else READERS[path]
            return cast(Reader, cls(**arguments))
        except KeyError:
            raise SuiteError(
                f"data set {self.name!r}: no reader is called {path!r}. {suggest(path, READERS)}"
            ) from None
        except (TypeError, ImportError, AttributeError) as error:
            raise SuiteError(f"data set {self.name!r}: its reader {path} cannot be built: {error}") from error

    def digest(self) -> str:
        """Returns a digest of what its records are read by."""
        said = [self.reader, self.split, self.train]
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class ClipSampling:
    """How clips of a task are sampled.

    Attributes:
        window_seconds: longer clips are embedded in windows of so many seconds, and averaged; None for whole clips.
        num_frames: video frames a clip or window, in place of the model's own number.
        fps: video frames a second, instead.
    """

    window_seconds: Seconds | None = None
    num_frames: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        for name in ("window_seconds", "num_frames", "fps"):
            value = getattr(self, name)
            if value is not None and (not _is_number(value) or value <= 0):
                raise ValueError(f"{name} must be a number above 0, or null, not {value!r}")
        if self.num_frames is not None and self.fps is not None:
            raise ValueError("num_frames and fps both say how many frames there are: give one of them")


@dataclass(frozen=True)
class Task:
    """One number of a suite; `tasks.yaml` says what the fields mean.

    Attributes:
        name: of the task.
        dataset: what it is measured on.
        kind: what is done.
        metric: the number that counts.
        query: embedding of what is asked.
        item: embedding of what is searched, or classified.
        head: that reads prompts.
        prompts: of classes.
        dual_softmax: whether the number is the one after the dual softmax.
        clip: how clips are sampled.
        published: the number by model.
    """

    name: str
    dataset: SuiteDataset
    kind: Kind
    metric: str
    query: str = ""
    item: str = ""
    head: str = ""
    prompts: Prompts | None = None
    dual_softmax: bool = False
    clip: ClipSampling = field(default_factory=ClipSampling)
    published: Mapping[str, float] = field(default_factory=dict)

    @property
    def in_percent(self) -> bool:
        """Whether its number is written, and published, in percent."""
        return in_percent(self.metric)

    def protocol(self) -> dict[str, Any]:
        """Returns all that decides its number, beside the model and the clips."""
        return {
            "dataset": self.dataset.name,
            "reader": dict(self.dataset.reader),
            "split": self.dataset.split,
            "kind": self.kind,
            "query": self.query,
            "item": self.item,
            "head": self.head,
            "prompts": None if self.prompts is None else self.prompts.to_json(),
            "metric": self.metric,
            "dual_softmax": self.dual_softmax,
            "clip": dataclasses.asdict(self.clip),
        }


def in_percent(metric: str) -> bool:
    """Returns whether a metric is a share, which is written in percent.

    >>> in_percent("R@1"), in_percent("macro_auroc")
    (True, False)
    """
    return not any(word in metric for word in UNSCALED)


@dataclass(frozen=True)
class Suite:
    """Tasks that are run together."""

    name: str
    tasks: tuple[Task, ...]


def load_suite(name: str | Path) -> Suite:
    """Loads a suite by name, or one of your own from a YAML file.

    Such a file has `suite`, a list of tasks, and may have `tasks` and `datasets` beside those that come with peav.

    Raises:
        SuiteError: if there is none of that name, or something in it is unknown; the message lists the choices.
    """
    datasets, tasks, suites = (_read(None, f"{part}.yaml") for part in ("datasets", "tasks", "suites"))
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        own = _read(path, path.name)
        if unknown := set(own) - {"suite", "tasks", "datasets"}:
            raise SuiteError(f"{path}: {sorted(unknown)[0]!r} is none of suite, tasks and datasets")
        datasets, tasks = {**datasets, **(own.get("datasets") or {})}, {**tasks, **(own.get("tasks") or {})}
        wanted = own.get("suite") or list(own.get("tasks") or {})
        title = path.stem
    else:
        title = str(name)
        if title not in suites:
            raise SuiteError(f"no suite is called {title!r}. {suggest(title, suites)} Or give a YAML file of your own")
        wanted = suites[title]
    if not isinstance(wanted, list) or not all(
        isinstance(task, str) for task in chain.from_iterable(map(_listed, wanted))
    ):
        raise SuiteError(f"the suite {title!r} must be a list of names of tasks, not {wanted!r:.60}")
    names = list(chain.from_iterable(_listed(one) for one in wanted))
    if not names:
        raise SuiteError(f"the suite {title!r} names no task")
    for task in names:
        if task not in tasks:
            raise SuiteError(f"the suite {title!r} names the task {task!r}, which there is not. {suggest(task, tasks)}")
    return Suite(title, tuple(_task(task, tasks[task], datasets) for task in dict.fromkeys(names)))


def _listed(one: Any) -> list[Any]:
    return one if isinstance(one, list) else [one]


def _task(name: str, data: Any, datasets: Mapping[str, Any]) -> Task:
    known = {f.name for f in dataclasses.fields(Task)} - {"name"}
    if not isinstance(data, Mapping):
        raise SuiteError(f"task {name!r} must be a mapping, not {data!r:.60}")
    for key in data:
        if key not in known:
            raise SuiteError(f"task {name!r} says {key!r}. {suggest(str(key), known)}")
    kind = str(data.get("kind"))
    if kind not in get_args(Kind):
        raise SuiteError(f"task {name!r} is of the kind {kind!r}. {suggest(kind, get_args(Kind))}")
    for key in ("dataset", "metric", *_NEEDS[kind]):
        if not data.get(key):
            raise SuiteError(f"task {name!r} of the kind {kind} says no {key!r}")
    dataset = data["dataset"]
    if dataset not in datasets:
        raise SuiteError(f"task {name!r}: no data set is called {dataset!r}. {suggest(str(dataset), datasets)}")
    values = {**data, "dataset": _dataset(dataset, datasets[dataset])}
    values["clip"] = _sampling(name, data.get("clip") or {})
    _check_values(name, kind, data)
    if data.get("prompts") is not None:
        try:
            values["prompts"] = parse_prompts(data["prompts"])
        except ValueError as error:
            raise SuiteError(f"task {name!r}: {error}") from None
    if kind.endswith("probe") and not values["dataset"].train:
        raise SuiteError(f"task {name!r} learns, but its data set {dataset!r} names no split `train` to learn from")
    return Task(name, **values)


def _sampling(task: str, data: Any) -> ClipSampling:
    known = {f.name for f in dataclasses.fields(ClipSampling)}
    if not isinstance(data, Mapping) or set(data) - known:
        raise SuiteError(
            f"task {task!r}: clip must be a mapping of some of {', '.join(sorted(known))}, not {data!r:.60}"
        )
    try:
        return ClipSampling(**data)
    except ValueError as error:
        raise SuiteError(f"task {task!r}: {error}") from None


def _check_values(task: str, kind: str, data: Mapping[str, Any]) -> None:
    """Checks what YAML may have as something else than it is meant to be."""
    for key in ("metric", "query", "item", "head"):
        if not isinstance(data.get(key, ""), str):
            raise SuiteError(f"task {task!r}: {key} must be a name, not {data[key]!r:.60}")
    if not isinstance(data.get("dual_softmax", False), bool):
        raise SuiteError(f"task {task!r}: dual_softmax must be true or false, not {data['dual_softmax']!r:.60}")
    published = data.get("published") or {}
    if not isinstance(published, Mapping) or not all(map(_is_number, published.values())):
        raise SuiteError(f"task {task!r}: published must have a number by model, not {published!r:.60}")
    if kind == "retrieval" and data["metric"] not in RECALLS:
        raise SuiteError(f"task {task!r}: retrieval is measured by {', '.join(RECALLS)}, not {data['metric']!r}")
    if kind == "retrieval" and data["query"] == data["item"]:
        raise SuiteError(f"task {task!r} asks with {data['query']!r} for {data['item']!r}: each clip would find itself")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _dataset(name: str, data: Any) -> SuiteDataset:
    known = {f.name for f in dataclasses.fields(SuiteDataset)} - {"name"}
    if not isinstance(data, Mapping) or not {"folders", "reader"} <= set(data) or set(data) - known:
        raise SuiteError(
            f"data set {name!r} must have folders and reader, and may have split and train; it is {data!r:.100}"
        )
    if not isinstance(data["reader"], Mapping) or not isinstance(data["reader"].get("class_path"), str):
        raise SuiteError(
            f"data set {name!r}: reader must be a mapping with class_path, and init_args if any; it is {data['reader']!r:.100}"
        )
    for split in (data.get("split", "test"), data.get("train") or "train"):
        if split not in SPLITS:
            raise SuiteError(f"data set {name!r}: no split is named {split!r}. {suggest(str(split), SPLITS)}")
    folders = data["folders"]
    return SuiteDataset(
        name,
        tuple([folders] if isinstance(folders, str) else folders),
        data["reader"],
        data.get("split", "test"),
        data.get("train", ""),
    )


def _read(path: Path | None, name: str) -> dict[str, Any]:
    """Reads a YAML file, of the user's or of this package."""
    try:
        place = files("peav.evaluation.suites") / name if path is None else path
        data = yaml.safe_load(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SuiteError(f"there is no file {path}: give the name of a suite, or a YAML file") from None
    except yaml.YAMLError as error:
        raise SuiteError(f"{path or name} is no YAML: {error}") from None
    if not isinstance(data, dict):
        raise SuiteError(f"{path or name} must hold a mapping")
    return data


def published_of(task: Task, model: str, wanted: str | None = None) -> tuple[str, float] | None:
    """Returns the published model that a result stands beside, and its number.

    Args:
        task: the task.
        model: name of the model that is evaluated.
        wanted: the published model to compare with; by default the one of the evaluated model's name, else the last that the task lists.
    """
    base = model.rstrip("/").rpartition("/")[2].lower()
    for name in (wanted, base):
        if name is not None and name in task.published:
            return name, task.published[name]
    if wanted is not None or not task.published:
        return None
    return list(task.published.items())[-1]


def check_published(suite: Suite, wanted: str | None) -> None:
    """Looks whether a published model that was asked for is one of those that a suite lists.

    Raises:
        SuiteError: if no task of it does.
    """
    known = dict.fromkeys(model for task in suite.tasks for model in task.published)
    if wanted is not None and wanted not in known:
        choices = suggest(wanted, known) if known else "It has no published numbers."
        raise SuiteError(f"no task of {suite.name!r} has a number published of {wanted!r}. {choices}")


def check_tasks(tasks: Sequence[Task]) -> None:
    """Builds the reader of every data set, so that a wrong one is found before anything is computed."""
    for dataset in {task.dataset.name: task.dataset for task in tasks}.values():
        dataset.build_reader()
