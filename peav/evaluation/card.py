"""A model's card for the hub: README.md with licence, base model, data, recipe and results in the hub's own form (`model-index`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from peav.checkpoints import ModelSpec
from peav.evaluation.suite import in_percent

#: How a folder of each format is opened again.
_USE = {
    "peav": "from peav import PEAV\n\nmodel = PEAV.from_pretrained({repo!r})",
    "meta": "from peav import PEAV\n\nmodel = PEAV.from_pretrained({repo!r})  # or Meta's own code, whose format this is",
    "transformers": "from transformers import AutoModel\n\nmodel = AutoModel.from_pretrained({repo!r})  # or PEAV.from_pretrained",
}

#: What the hub calls the tasks of each kind; it knows any name.
_TASK_TYPES = {
    "retrieval": "retrieval",
    "classification": "zero-shot-classification",
    "frames": "sound-event-detection",
    "linear_probe": "linear-probe",
    "knn_probe": "knn-probe",
}

_METRICS = ("R@1", "R@5", "R@10")


@dataclass(frozen=True)
class CardFacts:
    """What a card says of a model beside its results, and nobody but its maker knows.

    Attributes:
        license: the hub's identifier of the licence, such as `apache-2.0`.
        base_model: repository that it was trained from; "" where from scratch, None where that is not known.
        datasets: ids of the hub, or names, of the data that it was trained on.
        recipe: configuration that it was trained with; empty where that is not known.
    """

    license: str
    base_model: str | None = None
    datasets: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)


def eval_results(results: Mapping[str, Any]) -> list[EvalResult]:
    """Returns a result of `peav evaluate`, of a split or of a suite, as the hub has results; shares in percent.

    Raises:
        ValueError: if it is no such result.
    """
    if "tasks" in results:
        return list(_of_suite(results))
    if "directions" in results:
        return list(_of_split(results))
    raise ValueError("this is no result of `peav evaluate`: evaluation.json holds `tasks` or `directions`")


def _of_suite(results: Mapping[str, Any]) -> Iterator[EvalResult]:
    for name, task in results["tasks"].items():
        protocol = task["protocol"]
        percent = in_percent(protocol["metric"])
        args = {
            "dual_softmax": protocol["dual_softmax"],
            **{key: protocol[key] for key in ("query", "item", "head") if protocol[key]},
            "clips": task["num_clips"],
        }
        if task["interval"] is not None:
            args["interval_95"] = [round(100 * bound, 2) for bound in task["interval"]]
        yield EvalResult(
            task_type=_TASK_TYPES[protocol["kind"]],
            task_name=protocol["kind"].replace("_", " "),
            dataset_type=protocol["dataset"].lower(),
            dataset_name=protocol["dataset"],
            dataset_split=protocol["split"],
            dataset_revision=task["fingerprint"],
            metric_type=_metric_type(protocol["metric"]),
            # The hub joins what is of one kind on one split, so that the metric has to say of which task it is.
            metric_name=_named(name.replace("_", " "), protocol["metric"], protocol["dual_softmax"]),
            metric_value=round((100 if percent else 1) * task["value"], 4),
            metric_args=args,
        )


def _of_split(results: Mapping[str, Any]) -> Iterator[EvalResult]:
    data = Path(results["data"]).name
    dataset = {
        "dataset_type": data.lower(),
        "dataset_name": data,
        "dataset_split": results["split"],
        "dataset_revision": results["dataset"]["fingerprint"],
    }
    for name, direction in results["directions"].items():
        for softened in (False, True):
            numbers = direction["dual_softmax" if softened else "plain"]
            for metric in _METRICS:
                yield EvalResult(
                    task_type="retrieval",
                    task_name="retrieval",
                    metric_type=_metric_type(metric),
                    metric_name=_named(name, metric, softened),
                    metric_value=round(100 * numbers[metric], 4),
                    metric_args={"dual_softmax": softened, "queries": numbers["num_queries"]},
                    **dataset,
                )
    frames = results.get("frames")
    if frames and frames.get("macro") is not None:
        yield EvalResult(
            task_type="sound-event-detection",
            task_name="frames",
            metric_type="macro_auroc",
            metric_name="macro frame AUROC",
            metric_value=round(frames["macro"], 4),
            **dataset,
        )


def model_card(
    name: str, spec: ModelSpec, results: Mapping[str, Any], facts: CardFacts, format: str, num_parameters: int
) -> ModelCard:
    """Makes the card of a model.

    Args:
        name: of the model, or its repository.
        spec: of the model.
        results: what `peav evaluate` wrote to evaluation.json.
        facts: what only its maker knows.
        format: of the folder: `peav`, `meta` or `transformers`.
        num_parameters: of the model.

    Raises:
        ValueError: if the results are none of `peav evaluate`.
    """
    measured = eval_results(results)
    data = ModelCardData(
        license=facts.license,
        base_model=facts.base_model or None,
        datasets=[one for one in facts.datasets if "/" in one] or None,
        library_name="transformers" if format == "transformers" else "peav",
        pipeline_tag="feature-extraction",
        tags=["audio", "video", "text", "contrastive", "pe-av"],
        model_name=name,
        eval_results=measured or None,
    )
    lines = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        f"An audio-video-text encoder of the PE-AV family ([arXiv 2512.19687](https://arxiv.org/abs/2512.19687)), trained and evaluated "
        f"with peav. {num_parameters:,} parameters; embeddings of {spec.embedding_dim} dimensions"
        f"{', of unit length' if spec.normalize else ''}: {', '.join(spec.embeddings)}.",
        f"```python\n{_USE[format].format(repo=name)}\n```",
        "## Results",
        _results_table(measured),
        _protocol(results),
        "## Training",
        f"Base model: {_base(facts.base_model)}. "
        f"Data: {', '.join(facts.datasets) or 'not said'}. Licence: {facts.license}.",
    ]
    if facts.recipe:
        recipe = yaml.safe_dump(dict(facts.recipe), sort_keys=False, allow_unicode=True)
        lines += ["The configuration of `peav fit`:", f"```yaml\n{recipe.rstrip()}\n```"]
    return ModelCard("\n\n".join(lines) + "\n")


def _results_table(measured: list[EvalResult]) -> str:
    lines = ["| data | number | value |", "|---|---|---:|"]
    lines += [
        f"| {one.dataset_name}, {one.dataset_split} | {one.metric_name} | {one.metric_value:.4g} |" for one in measured
    ]
    return "\n".join(lines)


def _protocol(results: Mapping[str, Any]) -> str:
    protocol = ", ".join(f"{key} {value}" for key, value in results["protocol"].items() if value is not None)
    versions = ", ".join(f"{key} {value}" for key, value in results["versions"].items())
    digest = results["model"]["digest"]
    return (
        f"Clips: {protocol}. Model digest {digest}. Versions: {versions}. Numbers with and without the dual softmax are not comparable; "
        "shares are in percent."
    )


def _base(base_model: str | None) -> str:
    return base_model or ("not said" if base_model is None else "none, from random weights")


def _named(task: str, metric: str, softened: bool) -> str:
    return f"{task}: {metric}{' (dual softmax)' if softened else ''}"


def _metric_type(metric: str) -> str:
    """Returns the hub's spelling of a metric.

    >>> _metric_type("R@10"), _metric_type("macro_auroc")
    ('recall_at_10', 'macro_auroc')
    """
    return f"recall_at_{metric.removeprefix('R@')}" if metric.startswith("R@") else metric.lower()
