"""Tables and plots of what the runs of a scaling experiment reached, with 95 % intervals over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from scipy.stats import t as student

from peav.plot_style import COLOURS, STYLE

#: What is plotted: directions of retrieval whose R@10 is averaged, by name.
CURVES = {
    "text -> audio": ("text_audio->audio",),
    "text -> video": ("text_video->video",),
    "audio -> video": ("audio->video",),
    "mean of eight": (
        *("text_audio->audio", "audio->text_audio", "text_video->video", "video->text_video"),
        *("audio->video", "video->audio", "text_audio_video->audio_video", "audio_video->text_audio_video"),
    ),
}
AXES = {
    "data": "share of the training clips",
    "pairs": "pairs that train",
    "captions": "captions",
    "audio layers": "layers of the audio encoder",
}
METRICS = ("R@1", "R@10")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean of runs with other seeds, and half the width of its 95 % interval by Student's t; NaN of a single run.

    >>> mean, half = interval([1.0, 2.0, 3.0])
    >>> round(mean, 3), round(half, 3)
    (2.0, 2.484)
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


def points_of(results: Sequence[Mapping[str, Any]], axis: str) -> dict[Any, list[Mapping[str, Any]]]:
    """Returns the runs of an axis by where they stand on it, in its order: of numbers theirs, of names that of the runs."""
    found: dict[Any, list[Mapping[str, Any]]] = {}
    for result in results:
        if axis in result["points"]:
            found.setdefault(result["points"][axis], []).append(result)
    return dict(sorted(found.items())) if all(isinstance(point, int | float) for point in found) else found


def reached(run: Mapping[str, Any], names: Sequence[str], metric: str) -> float:
    """Returns the mean of a metric over directions, in percent."""
    return 100 * statistics.fmean(run["directions"][name][metric] for name in names)


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table an axis."""
    steps = sorted({run["steps"] for run in results})
    text = f"Runs of {', '.join(map(str, steps))} steps; mean and 95 % interval over seeds (Student's t), in percent.\n"
    for axis, title in AXES.items():
        heads = [f"{curve}: {metric}" for curve in CURVES for metric in METRICS]
        text += f"\n| {title} | seeds | {' | '.join(heads)} |\n|---|---:|{'---:|' * len(heads)}\n"
        for point, runs in points_of(results, axis).items():
            cells = []
            for names in CURVES.values():
                for metric in METRICS:
                    mean, half = interval([reached(run, names, metric) for run in runs])
                    cells.append(f"{mean:.1f}" if math.isnan(half) else f"{mean:.1f} ± {half:.1f}")
            text += f"| {point} | {len(runs)} | {' | '.join(cells)} |\n"
    return text


def figure(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws R@10 along each axis: the mean with its interval, and each run as a dot."""
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        made = Figure(figsize=(13, 3.6), layout="constrained")
        for place, (axis, title) in enumerate(AXES.items()):
            panel = made.add_subplot(1, len(AXES), place + 1)
            held = points_of(results, axis)
            for number, (curve, names) in enumerate(CURVES.items()):
                values = [[reached(run, names, "R@10") for run in runs] for runs in held.values()]
                spread = [interval(one) for one in values]
                halves = [0.0 if math.isnan(half) else half for _, half in spread]
                line = panel.errorbar(
                    range(len(held)),
                    [mean for mean, _ in spread],
                    halves,
                    capsize=3,
                    label=curve,
                    color=COLOURS[number],
                )
                line.lines[0].set_linestyle("none" if axis == "captions" else "-")
                line.lines[0].set_marker("osD^"[number])
                for x, one in enumerate(values):
                    panel.scatter([x] * len(one), one, s=8, alpha=0.5, color=COLOURS[number])
            panel.set_xticks(range(len(held)), [_label(point) for point in held])
            panel.set_xlabel(title)
            panel.set_ylim(0, 100)
            if place == 0:
                panel.set_ylabel("R@10, %")
                made.legend(loc="outside lower center", ncols=len(CURVES), frameon=False)
        return made


def write_curves(results: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Writes curves.md and curves.png."""
    (out / "curves.md").write_text(markdown(results), encoding="utf-8")
    figure(results).savefig(out / "curves.png", dpi=140)


def _label(point: Any) -> str:
    if isinstance(point, float) and point < 1:
        return f"1/{round(1 / point)}"
    return f"{point:g}" if isinstance(point, int | float) else str(point).replace(" ", "\n")
