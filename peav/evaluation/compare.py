"""Results of several models beside each other: numbers, and whether their differences are more than chance over the clips."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peav.evaluation.intervals import Queries, paired_interval
from peav.evaluation.result import read_queries


@dataclass(frozen=True)
class Result:
    """A result that `peav evaluate` wrote.

    Attributes:
        path: of its JSON.
        data: the JSON.
        queries: what became of the queries, by task or direction.
        ids: the clips that they number.
    """

    path: Path
    data: dict[str, Any]
    queries: dict[str, Queries]
    ids: dict[str, list[str]]

    @property
    def name(self) -> str:
        """What tables call it: the model, or the folder where two models have one name."""
        return str(self.data["model"]["name"])

    def entries(self) -> dict[str, tuple[float, bool]]:
        """Returns the number of each task, or R@1 of each direction, and whether it is after the dual softmax."""
        if "tasks" in self.data:
            return {n: (t["value"], t["protocol"]["dual_softmax"]) for n, t in self.data["tasks"].items()}
        return {name: (direction["plain"]["R@1"], False) for name, direction in self.data["directions"].items()}

    def protocol(self, name: str) -> dict[str, Any]:
        """Returns all that decides a number beside the model: two results are compared where theirs are equal."""
        if "tasks" in self.data:
            task = self.data["tasks"][name]
            return {
                "task": task["protocol"],
                "data": task["fingerprint"],
                "windows": self.data["protocol"]["overlap_seconds"],
            }
        held = self.data["protocol"]
        return {
            "windows": [held["window_seconds"], held["overlap_seconds"]],
            "data": self.data["dataset"]["fingerprint"],
        }


@dataclass(frozen=True)
class Difference:
    """One number of two models: B minus A, its interval and p-value; None where there are no queries to draw."""

    name: str
    first: float
    second: float
    interval: tuple[float, float] | None
    p_value: float | None


def read_result(path: str | Path) -> Result:
    """Reads a result of `peav evaluate`, with its sidecar.

    Raises:
        FileNotFoundError: if one of them is not there.
        ValueError: if it is something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give the evaluation.json of a run of `peav evaluate`")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        known = isinstance(data, dict) and "model" in data and ("tasks" in data or "directions" in data)
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"{path} is no result of `peav evaluate`")
    return Result(path, data, *read_queries(path))


def compare(first: Result, second: Result, any_protocol: bool = False) -> list[Difference]:
    """Compares two results on what both have, each draw of clips the same for both.

    Raises:
        ValueError: if they have nothing in common, or their protocols differ and `any_protocol` does not allow it.
    """
    mine, theirs = first.entries(), second.entries()
    common = [name for name in mine if name in theirs]
    if not common:
        raise ValueError(f"{first.path} and {second.path} have no task in common")
    found = []
    for name in common:
        if not any_protocol and (differing := _differing(first.protocol(name), second.protocol(name))):
            raise ValueError(
                f"{name}: {first.path} and {second.path} were measured differently: {'; '.join(differing)}. Such numbers say nothing of "
                "the models; --any_protocol true compares them all the same"
            )
        queries = (first.queries.get(name), second.queries.get(name))
        ids = (first.ids.get(name, []), second.ids.get(name, []))
        softened = (mine[name][1], theirs[name][1])
        found.append(paired_difference(name, (mine[name][0], theirs[name][0]), queries, ids, softened))
    return found


def paired_difference(
    name: str,
    values: tuple[float, float],
    queries: tuple[Queries | None, Queries | None],
    ids: tuple[Sequence[str], Sequence[str]],
    dual_softmax: tuple[bool, bool] = (False, False),
) -> Difference:
    """Returns the difference of two models in one number, with its interval where both have queries of the same clips.

    Args:
        name: of the task or direction.
        values: the numbers.
        queries: what became of each model's queries.
        ids: the clips that they number.
        dual_softmax: whether the numbers are those after the dual softmax.
    """
    first, second = queries
    if first is None or second is None:
        return Difference(name, *values, None, None)
    sides = _paired((first, second), ids, dual_softmax)
    if sides is None:
        return Difference(name, *values, None, None)
    _, low, high, p_value = paired_interval(*sides)
    return Difference(name, *values, (low, high), p_value)


_Share = tuple[NDArray[np.float64], NDArray[np.float64]]


def _paired(
    queries: tuple[Queries, Queries], ids: tuple[Sequence[str], Sequence[str]], dual_softmax: tuple[bool, bool]
) -> tuple[_Share, _Share] | None:
    """Returns hits and trials of both by clip, over the clips that both have; None where they have none in common."""
    sides = []
    for asked, clips, soft in zip(queries, ids, dual_softmax, strict=True):
        hits, trials = asked.hits(1, soft)
        sides.append({clip: (hits[n], trials[n]) for n, clip in enumerate(clips) if n < len(hits) and trials[n]})
    common = [clip for clip in sides[0] if clip in sides[1]]
    if not common:
        return None
    pairs = [np.array([side[clip] for clip in common], np.float64) for side in sides]
    return (pairs[0][:, 0], pairs[0][:, 1]), (pairs[1][:, 0], pairs[1][:, 1])


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [f"{key} was {one[key]!r:.120} and is {other[key]!r:.120}" for key in one if one[key] != other.get(key)]


def comparison_rows(results: Sequence[Result], any_protocol: bool = False) -> Iterator[tuple[str, ...]]:
    """Yields a row a task: the number of each model, and of every other than the first its difference with interval and p-value."""
    by_model = [{d.name: d for d in compare(results[0], other, any_protocol)} for other in results[1:]]
    for name in results[0].entries():
        held = [found[name] for found in by_model if name in found]
        if len(held) < len(by_model):
            continue
        row = [name, f"{100 * held[0].first:.1f}"]
        for difference in held:
            spread = ""
            if difference.interval is not None and difference.p_value is not None:
                low, high = (100 * end for end in difference.interval)
                spread = f" ({low:+.1f} to {high:+.1f}, p = {difference.p_value:.3f})"
            row += [f"{100 * difference.second:.1f}", f"{100 * (difference.second - difference.first):+.1f}{spread}"]
        yield tuple(row)


def comparison_markdown(results: Sequence[Result], any_protocol: bool = False) -> str:
    """Returns the table as Markdown; numbers times 100, differences to the first model, intervals of 95 % over the clips."""
    columns = ["task", results[0].name]
    for other in results[1:]:
        columns += [other.name, "difference"]
    lines = [" | ".join(columns), "|".join(["---", *["---:"] * (len(columns) - 1)])]
    lines += [" | ".join(row) for row in comparison_rows(results, any_protocol)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"
