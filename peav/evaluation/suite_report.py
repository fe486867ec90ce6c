"""What a suite gave: JSON, a Markdown table beside the published numbers, and a page on which retrieved clips are seen and heard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from html import escape
from typing import Any

from peav import html
from peav.evaluation import report_parts as parts
from peav.evaluation.collect import PassOptions, Split
from peav.evaluation.examples import retrieved_examples
from peav.evaluation.media_plots import ClipMedia, MediaLoader
from peav.evaluation.models import EvaluatedModel
from peav.evaluation.result import describe_protocol, interval_settings, package_versions
from peav.evaluation.suite import Task, published_of
from peav.evaluation.suite_run import SuiteResult

COLUMNS = ("task", "metric", "value", "95 % interval", "published", "difference", "clips", "of listed")

#: Examples of a data set.
_EXAMPLES = 2


def suite_json(found: SuiteResult, model: EvaluatedModel) -> dict[str, Any]:
    """Returns the result as JSON data, in the order of the suite."""
    tasks = {task.name: found.results[task.name].to_json() for task in found.suite.tasks if task.name in found.results}
    for data in tasks.values():
        data["coverage"] = found.data[data["protocol"]["dataset"]]["coverage"]
        data["fingerprint"] = found.data[data["protocol"]["dataset"]]["fingerprint"]
    return {
        "suite": found.suite.name,
        "model": model.describe(),
        "tasks": tasks,
        "skipped": dict(found.skipped),
        "missing": dict(found.missing),
        "datasets": dict(found.data),
    }


def suite_results(found: SuiteResult, model: EvaluatedModel, how: PassOptions, path: str) -> dict[str, Any]:
    """Returns the whole result as JSON data, with everything that decides its numbers.

    Args:
        found: the result.
        model: that was evaluated.
        how: clips were embedded.
        path: of the model.
    """
    return suite_json(found, model) | {
        "path": path,
        "protocol": describe_protocol(model, how),
        "interval_settings": interval_settings(),
        "versions": package_versions(),
    }


def suite_rows(found: SuiteResult, model: str, beside: str | None = None) -> Iterator[tuple[str, ...]]:
    """Yields the cells of the table, a task a row; what was not measured says why in place of a value.

    Args:
        found: the result.
        model: name of the model.
        beside: the published model to stand beside.
    """
    for task in found.suite.tasks:
        metric = task.metric + (" (dual softmax)" if task.dual_softmax else "")
        published = published_of(task, model, beside)
        said = "" if published is None else f"{published[1]:.{1 if task.in_percent else 2}f} ({published[0]})"
        result = found.results.get(task.name)
        if result is None:
            yield (task.name, metric, "-", why(found, task), said, "", "", "")
            continue
        value = f"{_scale(task) * result.value:.{1 if task.in_percent else 3}f}"
        low, high = result.interval if result.interval is not None else (None, None)
        spread = "" if low is None or high is None else f"{_scale(task) * low:.1f} to {_scale(task) * high:.1f}"
        difference = (
            ""
            if published is None
            else f"{_scale(task) * result.value - published[1]:+.{1 if task.in_percent else 3}f}"
        )
        yield (task.name, metric, value, spread, said, difference, str(result.num_clips), coverage(found, task))


def why(found: SuiteResult, task: Task) -> str:
    """Says why a task has no number."""
    return found.skipped.get(task.name) or found.missing.get(task.dataset.name, "not run")


def coverage(found: SuiteResult, task: Task) -> str:
    """Says which share of the listed clips was evaluated."""
    data = found.data[task.dataset.name]
    held = data["coverage"]
    if not held.get("listed"):
        return "prepared before"
    evaluated = data["num_clips"] - len(data["undecodable"])
    return f"{100 * evaluated / max(1, held['listed'] - _other_splits(held, data)):.0f} %"


def _other_splits(held: Mapping[str, Any], data: Mapping[str, Any]) -> int:
    """Clips of a split to learn from, which a probe's data set lists as well."""
    return max(0, held["usable"] - data["num_clips"])


def suite_markdown(found: SuiteResult, model: str, beside: str | None = None) -> str:
    """Returns the table as Markdown, with what is missing below."""
    lines = [" | ".join(COLUMNS), "|".join(["---", "---", "---:", "---", "---", "---:", "---:", "---:"])]
    lines += [
        " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row)
        for row in suite_rows(found, model, beside)
    ]
    text = f"# {found.suite.name}: {model}\n\n" + "\n".join(f"| {line} |" for line in lines) + "\n"
    text += "\nDifferences are to the published model in brackets; the protocol of a row stands in evaluation.json.\n"
    for name, data in found.data.items():
        held = data["coverage"]
        if held.get("missing") or held.get("unusable") or data["undecodable"]:
            text += (
                f"\n- {name}: of {held.get('listed', data['num_clips'])} clips listed {held.get('missing', 0)} are not there, "
                f"{held.get('unusable', 0)} cannot be used, {len(data['undecodable'])} cannot be decoded"
            )
    return text + "\n"


def suite_page(
    found: SuiteResult,
    model: str,
    media: Callable[[EvaluatedModel, Split], MediaLoader],
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
    beside: str | None = None,
) -> str:
    """Returns the page: the table, what a few captions of each data set retrieve, settings and versions."""
    table = html.table(COLUMNS, suite_rows(found, model, beside), words=("metric", "value", "published"))
    note = "<p>Captions spread evenly over the data set, not chosen by their result, and the three clips each ranks highest.</p>"
    examples = ""
    for name, (seen, embedded) in found.media.items():
        shown = retrieved_examples(embedded.table, count=_EXAMPLES)
        if shown:
            held = ClipMedia(media(seen, embedded.split))
            examples += f"<h3>{escape(name)}: {escape(shown[0].direction)}</h3>"
            examples += "".join(parts.example(example, held) for example in shown)
    sections = [
        ("table", "Results", table),
        ("examples", "Retrieved examples", note + examples if examples else parts.absent("No data set has captions.")),
        (
            "settings",
            "Settings",
            html.table(("setting", "value"), [(k, str(v)) for k, v in settings.items()], ("value",)),
        ),
        ("versions", "Versions", html.table(("package", "version"), versions.items(), ("version",))),
    ]
    done = f"{len(found.results)} of {len(found.suite.tasks)} tasks were measured."
    return parts.page(f"peav: {found.suite.name}, {model}", f'<p class="lead">{escape(done)}</p>', sections)


def _scale(task: Task) -> float:
    return 100.0 if task.in_percent else 1.0
